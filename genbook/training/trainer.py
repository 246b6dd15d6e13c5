"""`fit` with all that surrounds the loop: checkpoints, the run cache, ranks, a progress bar."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

import paddle
from filelock import FileLock, Timeout

from genbook import accelerate
from genbook.publishing import fingerprint
from genbook.training import checkpoint, loop, progress, ranks
from genbook.training.checkpoint import CheckpointError
from genbook.training.checkpointer import Checkpointer, Interrupts
from genbook.training.loop import TrainingError


def fit(
    model,
    loss,
    *data,
    steps,
    batch_size=128,
    lr=1e-3,
    ema=None,
    seed=0,
    name="model",
    folder=None,
    resume=False,
):
    """Train `model` as `loop.fit` does, whose arguments these are, and return the history.

    folder: where a checkpoint is written while the training runs, every 15 seconds or so and on
    Ctrl-C; with resume=True the training goes on from it and ends with the same bits as if it had
    never stopped.

    Where the environment variable GENBOOK_RUNS names a folder and `folder` is not given, a finished
    run is stored there under the fingerprint of all that went into it, and an identical call loads
    it instead of training; one that was killed goes on from its last checkpoint.

    The same seed, model, data and packages give the same bits where the processor's instruction
    set, the number of threads, and whether Paddle is accelerated are the same. The fingerprint
    covers all of these.

    Where this process is one of several ranks (see `ranks`), each takes its shard of every batch
    and its own noise, and all end with the same weights and history. Batch normalisation
    normalises each shard by itself; its running statistics are averaged.

    Raises ValueError for a bad argument, TrainingError where loss or weights are not finite,
    CheckpointError where a checkpoint cannot be written or resumed, and TypeError where the
    fingerprint cannot cover something that the training depends on.
    """
    loop.require_valid(data, steps, batch_size, lr, ema, seed)
    if batch_size % ranks.count():
        raise ValueError(
            f"batch_size must be a multiple of the {ranks.count()} processes, got {batch_size}"
        )
    if not all(c.isalnum() or c in " -_." for c in name):
        raise ValueError(f"name must consist of letters, digits, spaces and -_., got {name!r}")
    if resume and folder is None:
        raise ValueError("resume needs the folder of the checkpoint")
    settings = {"steps": steps, "batch_size": batch_size, "lr": lr, "ema": ema, "seed": seed}
    run = Run(model, loss, data, settings, name)
    runs = os.environ.get("GENBOOK_RUNS")
    if folder is not None:
        return run.in_folder(Path(folder), resume)
    return run.cached(Path(runs)) if runs and ranks.count() == 1 else run.train()


@dataclass
class Run:
    """A call of `fit`. settings: the keyword arguments of `loop.fit`."""

    model: paddle.nn.Layer
    loss: object
    data: tuple
    settings: dict
    name: str

    def key(self):
        """The fingerprint of everything that the result depends on."""
        return fingerprint.digest(
            fingerprint.of_value(loop.fit),
            fingerprint.of_value([self.model, self.loss, self.data, self.settings]),
            fingerprint.of_value([loop.STEPS_SCALE, ranks.count()]),
            paddle.__version__,
            fingerprint.of_environment(),
        )

    def describe(self):
        """What a reader can compare between two runs."""
        more = {"images": len(self.data[0]), "processes": ranks.count()}
        return {**self.settings, **more, "paddle": paddle.__version__}

    def train(self, checkpointer=None):
        """Train from the model's present weights, or from the checkpoint; return the history."""
        interrupts = checkpointer.interrupts if checkpointer else Interrupts()
        noting = interrupts.noting() if checkpointer else contextlib.nullcontext()
        with accelerate.training(), noting, progress.Bar() as bar:
            hooks = filter(None, [ranks.DataParallel(self.key, interrupts), checkpointer, bar])
            settings = {**self.settings, "name": self.name, "hooks": list(hooks)}
            try:
                return loop.fit(self.model, self.loss, *self.data, **settings)
            except TrainingError as error:
                advice = checkpointer.advice() if checkpointer else ""
                raise TrainingError(f"{error}{advice}") from None

    def cached(self, folder):
        """The history of the finished run in the cache `folder`, or of a training kept there.

        Of processes side by side one trains and the others wait for it.
        """
        folder.mkdir(parents=True, exist_ok=True)
        key = self.key()
        file = folder / f"{self.name}-{key[:16]}.safetensors"
        unfinished = file.with_suffix(".checkpoint")
        with _locked(file.with_suffix(".lock"), self.name):
            history = self._load(file)
            if history is None:
                checkpointer = Checkpointer(unfinished, key, self.describe(), strict=False)
                history = self.train(checkpointer)
                arrays = {f"model.{k}": v.numpy() for k, v in self.model.state_dict().items()}
                checkpoint.write(file, arrays | {f"history.{k}": v for k, v in history.items()}, {})
            unfinished.unlink(missing_ok=True)
        return history

    def _load(self, file):
        """Put the weights in `file` into the model; return the history. None for no whole file."""
        expected = checkpoint.specs(self.model.state_dict())
        try:
            arrays, _ = checkpoint.read(file, {f"model.{k}": spec for k, spec in expected.items()})
        except CheckpointError:
            return None
        os.utime(file)  # used again: the build deletes those that were not used for long
        self.model.set_state_dict({k: arrays.pop(f"model.{k}") for k in expected})
        self.model.eval()
        paddle.seed(self.settings["seed"])  # as after a training, which leaves it so
        return {k.removeprefix("history."): v for k, v in sorted(arrays.items())}

    def in_folder(self, folder, resume):
        """The history of a training whose checkpoint is in `folder`."""
        file = folder / "checkpoint.safetensors"
        checkpointer = Checkpointer(file, self.key(), self.describe(), strict=True)
        if ranks.rank():
            return self.train(checkpointer)
        if resume and not file.exists():
            raise CheckpointError(f"there is nothing to resume: no {file}")
        if file.exists() and not resume:
            raise CheckpointError(f"{folder} holds a training; resume it, or name another folder")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CheckpointError(f"cannot make the folder {folder}: {error.strerror}") from error
        try:
            with FileLock(folder / "lock").acquire(timeout=0):
                return self.train(checkpointer)
        except Timeout:
            raise CheckpointError(f"another process is training in {folder}") from None


def _locked(path, name):
    """A context in which this process alone holds the lock; others are waited for."""
    lock = FileLock(path)
    try:
        return lock.acquire(timeout=0)
    except Timeout:
        with progress.report() as stream:
            print(f"waiting: another process is training {name}", file=stream)
        return lock.acquire()
