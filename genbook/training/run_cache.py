"""A cache of finished trainings: an identical one is loaded instead of trained again."""

from __future__ import annotations

import contextlib
import os

from filelock import FileLock, Timeout

from genbook.training import checkpoint, progress
from genbook.training.checkpoint import CheckpointError


def load_or_train(model, file, name, train):
    """Put the trained weights in `file` into `model`, and return the history.

    Where there is no such file, or it is damaged, `train()` trains `model`, returns the history,
    and the file is written. Of processes side by side one trains and the others wait for it.
    """
    with _locked(file.with_suffix(".lock"), name):
        try:
            history = _load(model, file)
            os.utime(file)  # used again: the build deletes those that were not used for long
            return history
        except CheckpointError:  # there is none, or it is damaged
            pass
        history = train()
        arrays = {f"model.{k}": v.numpy() for k, v in model.state_dict().items()}
        checkpoint.write(file, arrays | {f"history.{k}": v for k, v in history.items()}, {})
    return history


def _load(model, file):
    """Put the weights that `file` holds into `model`; return the history."""
    expected = {f"model.{k}": spec for k, spec in checkpoint.specs(model.state_dict()).items()}
    arrays, _ = checkpoint.read(file, expected)
    checkpoint.load_weights(model, {k: arrays[f"model.{k}"] for k in model.state_dict()})
    return {
        k.removeprefix("history."): v for k, v in sorted(arrays.items()) if k.startswith("history.")
    }


@contextlib.contextmanager
def _locked(path, name):
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        with progress.report() as stream:
            print(f"waiting: another process is training {name}", file=stream)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
