"""Where trainings are kept: running ones in checkpoints, finished ones for the next to ask.

A `run` is what `train.fit` makes of its arguments.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time

from filelock import FileLock, Timeout

from genbook.training import checkpoint, progress, ranks
from genbook.training.checkpoint import CheckpointError

SECONDS_BETWEEN_CHECKPOINTS = 15.0
SHARE_OF_CHECKPOINTS = 0.01  # of the time, at most, however slow the disk


def in_folder(run, folder, resume, name):
    """The history of `run`, with its checkpoint in `folder`."""
    keeper = Keeper(
        folder / "checkpoint.safetensors",
        run,
        run.fingerprint(),
        how_to_go_on="go on with --resume (resume=True)",
        strict=True,
    )
    if ranks.rank():
        return run.train(name, keeper)
    if resume and not keeper.file.exists():
        raise CheckpointError(f"there is nothing to resume: no {keeper.file}")
    if keeper.file.exists() and not resume:
        raise CheckpointError(f"{folder} holds a training; resume it, or name another folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CheckpointError(f"cannot make the folder {folder}: {error.strerror}") from error
    lock = FileLock(folder / "lock")
    try:
        with lock.acquire(timeout=0):
            return run.train(name, keeper)
    except Timeout:
        raise CheckpointError(f"another process is training in {folder}") from None


def kept(run, folder, name):
    """The history of `run`, trained now or, where an identical run was kept, loaded."""
    folder.mkdir(parents=True, exist_ok=True)
    key = run.fingerprint()
    file = folder / f"{name}-{key[:16]}.safetensors"
    keeper = Keeper(
        file.with_suffix(".checkpoint"),
        run,
        key,
        how_to_go_on="the same call goes on from there",
        strict=False,
    )
    with _locked(folder / f"{file.stem}.lock", name):
        try:
            history = _load_run(file, run.model)
            os.utime(file)  # used again: not yet one to forget
            return history
        except CheckpointError:  # there is none, or it is damaged
            pass
        history = run.train(name, keeper)
        arrays = {f"model.{k}": v.numpy() for k, v in run.model.state_dict().items()}
        checkpoint.write(file, arrays | {f"history.{k}": v for k, v in history.items()}, {})
        keeper.file.unlink(missing_ok=True)
    return history


def _load_run(file, model):
    """Put the weights that `file` holds into `model`; return the history."""
    expected = {f"model.{k}": form for k, form in checkpoint.forms(model.state_dict()).items()}
    arrays, _ = checkpoint.read(file, expected)
    checkpoint.load_weights(model, {k: arrays[f"model.{k}"] for k in model.state_dict()})
    return {
        k.removeprefix("history."): v for k, v in sorted(arrays.items()) if k.startswith("history.")
    }


@contextlib.contextmanager
def _locked(path, name):
    """Hold the lock of a run: processes side by side train it once and share the result."""
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


class Keeper:
    """Keeps the checkpoint of a running training."""

    def __init__(self, file, run, recipe, *, how_to_go_on, strict):
        """recipe: the fingerprint of `run`. strict: whether a bad file is an error; where it is
        not, the training starts anew.
        """
        self.file = file
        self._how_to_go_on = how_to_go_on
        self._strict = strict
        self._about = {"recipe": recipe, "settings": run.settings()}
        self._steps = run.steps
        self._saved = 0  # the step of the checkpoint
        self._next = time.monotonic() + SECONDS_BETWEEN_CHECKPOINTS

    def restore(self, state):
        """Put what the file holds into `state`; where there is none, leave it at its start.

        Raises CheckpointError for a file that is damaged or of another training.
        """
        found = None
        if ranks.rank() == 0 and self.file.exists():
            try:
                self._compare(checkpoint.about(self.file))
                found = checkpoint.read(self.file, checkpoint.forms(state.tensors()))
                self._check_counters(*found)
            except CheckpointError:
                if self._strict:
                    raise
        if ranks.count() > 1:
            content = ranks.broadcast(checkpoint.pack(*found) if found else b"")
            found = checkpoint.unpack(content) if content else None
        if found:
            arrays, about = found
            state.load(arrays, about["step"], about["updates"])
            self._saved = state.step

    def after_step(self, state, stop):
        """Write the checkpoint when it is time; at a signal or the last step it is.

        Raises KeyboardInterrupt at a signal.
        """
        if stop or state.step == self._steps or time.monotonic() >= self._next:
            self._save(state)
        if stop:
            raise KeyboardInterrupt(
                f"stopped after {state.step} of {self._steps} steps{self.advice()}"
            )

    def advice(self):
        """What is kept, and how to go on from there, to be put behind a message."""
        if not self._saved:
            return ""
        return f"; step {self._saved} is kept in {self.file}: {self._how_to_go_on}"

    def _save(self, state):
        if ranks.rank() == 0 and state.step != self._saved:
            start = time.monotonic()
            state.check_finite()
            updates = state.average.updates if state.average else 0
            checkpoint.write(
                self.file, state.arrays(), {**self._about, "step": state.step, "updates": updates}
            )
            now = time.monotonic()
            pause = (now - start) / SHARE_OF_CHECKPOINTS
            self._next = now + max(SECONDS_BETWEEN_CHECKPOINTS, pause)
        self._saved = state.step

    def _compare(self, about):
        """Raise CheckpointError unless the checkpoint is of this very training."""
        if about.get("recipe") == self._about["recipe"]:
            return
        old, new = about.get("settings"), self._about["settings"]
        old = old if isinstance(old, dict) else {}
        other = [
            f"{key} was {old.get(key)}, is {new[key]}" for key in new if old.get(key) != new[key]
        ]
        raise CheckpointError(
            f"{self.file} is of another training: "
            f"{', '.join(other) or 'the code, the data or the start differ'}"
        )

    def _check_counters(self, arrays, about):
        """Raise CheckpointError unless the checkpoint is of a step that it has reached."""
        step, updates = about.get("step"), about.get("updates")
        reached = {len(array) for name, array in arrays.items() if name.startswith("history.")}
        if (
            type(step) is not int
            or type(updates) is not int
            or reached != {step}
            or not 0 < step <= self._steps
            or not 0 <= updates <= step
        ):
            raise CheckpointError(
                f"{self.file} is damaged: its step is {step!r:.20}, "
                f"its averages are of {updates!r:.20}"
            )


@contextlib.contextmanager
def noted_signals(keeper):
    """Note Ctrl-C and a request to end in a list, so that the present step can be finished.

    A second Ctrl-C interrupts at once. Without a keeper nothing is noted: there is nothing to save.
    """
    noted = []

    def note(number, frame):
        if noted and number == signal.SIGINT:
            raise KeyboardInterrupt
        noted.append(number)

    handled = (signal.SIGINT, signal.SIGTERM)
    if not keeper or threading.current_thread() is not threading.main_thread():
        handled = ()
    before = {number: signal.getsignal(number) for number in handled}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, note)
    try:
        yield noted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
