"""Checkpoints of a running training: written now and then, at Ctrl-C, and after the last step."""

from __future__ import annotations

import contextlib
import signal
import threading
import time

import paddle

from genbook.training import checkpoint, ranks
from genbook.training.checkpoint import CheckpointError
from genbook.training.loop import Hook, require_finite

SECONDS_BETWEEN_CHECKPOINTS = 15.0
SHARE_OF_CHECKPOINTS = 0.01  # of the time, at most, however slow the disk

# What Adam keeps for each parameter, and what it starts from
ACCUMULATORS = {"moment1": 0.0, "moment2": 0.0, "beta1_pow_acc": 0.9, "beta2_pow_acc": 0.999}


class Checkpointer(Hook):
    """Resumes a training from its checkpoint, and keeps the checkpoint up to date."""

    def __init__(self, file, key, settings, *, strict):
        """file: the checkpoint's. key: the fingerprint of the training. settings: a dict for
        JSON, to say how two trainings differ. strict: whether a user asked for this file, so that
        a bad one is an error; else the training starts anew.
        """
        self.file = file
        self.interrupts = Interrupts()
        self._metadata = {"recipe": key, "settings": settings}
        self._strict = strict
        self._saved = 0  # the step of the checkpoint
        self._next = time.monotonic() + SECONDS_BETWEEN_CHECKPOINTS

    def on_start(self, training):
        """Restore the checkpoint, if there is one.

        Raises CheckpointError for a file that is damaged or of another training.
        """
        found = None
        if ranks.rank() == 0 and self.file.exists():
            try:
                self._require_same(checkpoint.metadata(self.file))
                kept = checkpoint.read(self.file, checkpoint.specs(tensors(training)))
                self._require_counters(training, *kept)
                found = kept
            except CheckpointError:
                if self._strict:
                    raise
        if ranks.count() > 1:
            content = ranks.broadcast(checkpoint.serialize(*found) if found else b"")
            found = checkpoint.deserialize(content) if content else None
        if found:
            arrays, metadata = found
            restore(training, arrays, metadata["step"], metadata["updates"])
            self._saved = training.step

    def on_step(self, training):
        """Write the checkpoint when it is time, and end the training when that was asked for.

        Raises KeyboardInterrupt.
        """
        stop = self.interrupts.stop
        if stop or training.step == training.steps or time.monotonic() >= self._next:
            self._save(training)
        if stop:
            if ranks.count() > 1:
                ranks.broadcast(b"")  # wait until it is written: the first to end has all ended
            raise KeyboardInterrupt(
                f"stopped after {training.step} of {training.steps} steps{self.advice()}"
            )

    def advice(self):
        """What was saved and how to go on from there, to be appended to a message."""
        if not self._saved:
            return ""
        how = "go on with --resume (resume=True)"
        if not self._strict:
            how = "the same call goes on from there"
        return f"; step {self._saved} is kept in {self.file}: {how}"

    def _save(self, training):
        if ranks.rank() == 0 and training.step != self._saved:
            start = time.monotonic()
            require_finite(training)
            arrays = {name: tensor.numpy() for name, tensor in tensors(training).items()}
            arrays |= {f"history.{key}": values for key, values in training.history().items()}
            updates = training.average.updates if training.average else 0
            metadata = {**self._metadata, "step": training.step, "updates": updates}
            checkpoint.write(self.file, arrays, metadata)
            now = time.monotonic()
            pause = (now - start) / SHARE_OF_CHECKPOINTS
            self._next = now + max(SECONDS_BETWEEN_CHECKPOINTS, pause)
            self._saved = training.step

    def _require_same(self, metadata):
        """Raise CheckpointError unless the checkpoint is of this very training."""
        if metadata.get("recipe") == self._metadata["recipe"]:
            return
        old, new = metadata.get("settings"), self._metadata["settings"]
        old = old if isinstance(old, dict) else {}
        other = [
            f"{key} was {old.get(key)}, is {new[key]}" for key in new if old.get(key) != new[key]
        ]
        raise CheckpointError(
            f"{self.file} is of another training: "
            f"{', '.join(other) or 'the code, the data, the start or the machine differ'}"
        )

    def _require_counters(self, training, arrays, metadata):
        """Raise CheckpointError unless the checkpoint is of a step that it has reached."""
        step, updates = metadata.get("step"), metadata.get("updates")
        reached = {len(array) for name, array in arrays.items() if name.startswith("history.")}
        if (
            type(step) is not int
            or type(updates) is not int
            or reached != {step}
            or not 0 < step <= training.steps
            or not 0 <= updates <= step
        ):
            raise CheckpointError(
                f"{self.file} is damaged: its step is {step!r:.20}, "
                f"its averages are of {updates!r:.20}"
            )


def tensors(training):
    """Weights, Adam's moments, and the moving average, under the model's own names.

    Paddle names parameters by a running number, which another process need not repeat.
    """
    state = {f"model.{k}": v for k, v in training.model.state_dict().items()}
    found = training.optimizer.state_dict()
    for name, parameter in _trained(training.model):
        for kind, start in ACCUMULATORS.items():
            shape = parameter.shape if kind.startswith("moment") else [1]
            value = found.get(f"{parameter.name}_{kind}_0")  # none before a first gradient
            value = paddle.full(shape, start) if value is None else value
            state[f"optimizer.{name}.{kind}"] = value
    if training.average:
        state |= {f"average.{k}": v for k, v in training.average.state.items()}
    return state


def restore(training, arrays, step, updates):
    """Put the `arrays` of a checkpoint and its two counters into `training`."""
    parts: dict[str, dict] = {part: {} for part in ("model", "optimizer", "average", "history")}
    for key, value in arrays.items():
        part, _, name = key.partition(".")
        parts[part][name] = value
    training.model.set_state_dict(parts["model"])
    training.optimizer.set_state_dict(
        {
            f"{parameter.name}_{kind}_0": paddle.to_tensor(parts["optimizer"][f"{name}.{kind}"])
            for name, parameter in _trained(training.model)
            for kind in ACCUMULATORS
        }
    )
    if training.average:
        training.average.updates = updates
        for name, value in parts["average"].items():
            training.average.state[name].set_value(value)
    names = list(parts["history"])
    columns = (values.tolist() for values in parts["history"].values())
    training.rows = [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
    training.step = step


def _trained(model):
    return [(n, p) for n, p in model.named_parameters() if not p.stop_gradient]


class Interrupts:
    """Ctrl-C and SIGTERM, noted so that the step in progress can be finished."""

    def __init__(self):
        self.noted = []
        self.stop = False  # whether to end after this step, as all ranks agree

    @contextlib.contextmanager
    def noting(self):
        """Within this block, note signals. A second Ctrl-C interrupts at once."""

        def note(number, frame):
            if self.noted and number == signal.SIGINT:
                raise KeyboardInterrupt
            self.noted.append(number)

        before = {}
        if threading.current_thread() is threading.main_thread():  # others cannot handle signals
            before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
        for number, handler in before.items():
            if handler is not signal.SIG_IGN:
                signal.signal(number, note)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
