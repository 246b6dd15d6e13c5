"""The training loop that every chapter uses: `fit`."""

from __future__ import annotations

import contextlib
import math
import os
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import paddle
from filelock import FileLock, Timeout
from safetensors import SafetensorError
from safetensors.numpy import load_file, save
from tqdm import tqdm

from . import cpu, fingerprint


class TrainingError(RuntimeError):
    """A training run that cannot go on."""


def fit(model, loss, *data, steps, batch_size=128, lr=1e-3, ema=None, seed=0, name="model"):
    """Train `model` for `steps` steps of Adam and return the history of the losses.

    loss: maps (model, *batch) to a scalar tensor to minimise, or to a dict of scalar tensors whose
    entry "loss" is minimised. data: numpy arrays [N, ...], usually images alone or images and
    their labels; each step takes the same `batch_size` places of all of them, at random and
    without repetition until all were seen. lr: the peak learning rate;
    see `learning_rate`. ema: decay of the moving average of the weights, in (0, 1); the model is
    left with the averaged weights. seed: of the batches and of all noise drawn in the loss. The
    same seed, model and data give bit-identical weights on one machine. name: shown beside the
    progress bar.

    Returns a dict of float64 arrays [steps]: an entry for each loss, and "seconds", the time
    since the start. Leaves Paddle's random state as `paddle.seed(seed)` sets it.

    Where the environment names a folder in GENBOOK_RUNS, a finished run is kept there under the
    fingerprint of all that went into it, and an identical call loads it instead of training.

    Raises ValueError for a bad argument, TrainingError where the loss is not finite.
    """
    if len({len(array) for array in data}) != 1:
        raise ValueError(f"data must be arrays of one length, got {[len(a) for a in data]}")
    if not 1 <= batch_size <= len(data[0]):
        raise ValueError(f"batch_size must be from 1 to the {len(data[0])} images, got {batch_size}")
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    if ema is not None and not 0 < ema < 1:
        raise ValueError(f"ema must be between 0 and 1, got {ema}")
    if not all(c.isalnum() or c in " -_." for c in name):
        raise ValueError(f"name must consist of letters, digits, spaces and -_., got {name!r}")
    cpu.tune()
    run = _Run(model, loss, data, steps, batch_size, lr, ema, seed)
    runs = os.environ.get("GENBOOK_RUNS")
    history = _kept(run, Path(runs), name) if runs else run.train(name)
    paddle.seed(seed)  # so that what follows does not depend on whether the run was loaded
    model.eval()
    return history


def learning_rate(step, steps, peak):
    """The rate at `step` of `steps`: up in a line for 5% of them, then down to 0 as a cosine."""
    warmup = max(1, steps // 20)
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def batches(n, batch_size, seed):
    """Yields index arrays [batch_size] for ever: shuffles of 0 to n - 1, cut up, rests dropped."""
    rng = np.random.default_rng(seed)
    while True:
        order = rng.permutation(n)
        yield from (order[i : i + batch_size] for i in range(0, n - batch_size + 1, batch_size))


class MovingAverage:
    """The exponential moving average of a model's float32 state, buffers included.

    After n updates the decay is min(decay, (1 + n) / (10 + n)), so that the random starting
    weights are forgotten quickly. State: float32, as the model's.
    """

    def __init__(self, model, decay):
        self.decay = decay
        self.updates = 0
        floats = {k: v for k, v in model.state_dict().items() if v.dtype == paddle.float32}
        self.state = {k: v.clone() for k, v in floats.items()}

    @paddle.no_grad()
    def update(self, model):
        """Move the average towards the model's present state."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        state = model.state_dict()
        for key, average in self.state.items():
            average.set_value(average * decay + state[key] * (1 - decay))


def load_weights(model, weights):
    """Put numpy `weights` (name -> array) into `model`; all names and shapes must match.

    Raises TrainingError that names the first difference: Paddle itself would only warn.
    """
    expected = {k: tuple(v.shape) for k, v in model.state_dict().items()}
    found = {k: v.shape for k, v in weights.items()}
    for key in sorted(expected.keys() | found.keys()):
        if expected.get(key) != found.get(key):
            raise TrainingError(
                f"these weights are of another model: {key} should be "
                f"{expected.get(key, 'absent')} and is {found.get(key, 'absent')}"
            )
    model.set_state_dict({k: paddle.to_tensor(v) for k, v in weights.items()})


class _Run:
    """One training run: what goes into it, and the loop."""

    def __init__(self, model, loss, data, steps, batch_size, lr, ema, seed):
        self.model, self.loss, self.data = model, loss, data
        self.steps, self.batch_size, self.lr, self.ema, self.seed = steps, batch_size, lr, ema, seed

    def fingerprint(self):
        """The hash of everything that the result depends on."""
        code = fingerprint.of_modules(frozenset([__name__]))
        return fingerprint.digest(code, paddle.__version__, fingerprint.of_value(vars(self)))

    def train(self, name):
        """Train from the model's present weights; return the history."""
        paddle.seed(self.seed)
        model = self.model
        model.train()
        optimizer = paddle.optimizer.Adam(self.lr, parameters=model.parameters())
        average = MovingAverage(model, self.ema) if self.ema else None
        indices = batches(len(self.data[0]), self.batch_size, self.seed)
        history = []
        start = time.perf_counter()
        with cpu.flush_denormals(), _progress(self.steps, name) as bar, warnings.catch_warnings():
            # Paddle's batch normalisation says at each step that it tracks averages in training.
            warnings.filterwarnings("ignore", "When training, we now always track")
            for step in range(self.steps):
                optimizer.set_lr(learning_rate(step, self.steps, self.lr))
                losses = self._step(next(indices), optimizer, step)
                if average:
                    average.update(model)
                history.append({**losses, "seconds": time.perf_counter() - start})
                bar.set_postfix(loss=f"{losses['loss']:.4g}", refresh=False)
                bar.update()
        if average:
            model.set_state_dict({**model.state_dict(), **average.state})
        return {key: np.array([row[key] for row in history]) for key in sorted(history[0])}

    def _step(self, index, optimizer, step):
        batch = (paddle.to_tensor(array[index]) for array in self.data)
        losses = self.loss(self.model, *batch)
        if not isinstance(losses, dict):
            losses = {"loss": losses}
        if "loss" not in losses or any(value.size != 1 for value in losses.values()):
            shapes = {key: list(value.shape) for key, value in losses.items()}
            raise ValueError(f'the loss must give scalars, one of them "loss"; got {shapes}')
        losses["loss"].backward()
        values = {key: float(value) for key, value in losses.items()}
        if not math.isfinite(values["loss"]):
            raise TrainingError(f"the loss became {values['loss']} at step {step}; try a lower lr")
        optimizer.step()
        optimizer.clear_grad()
        return values


def _kept(run, folder, name):
    """The history of `run`, trained now or, where an identical run was kept, loaded."""
    folder.mkdir(parents=True, exist_ok=True)
    key = run.fingerprint()
    file = folder / f"{name}-{key[:16]}.safetensors"
    with _locked(folder / f"{file.stem}.lock", name):
        if file.exists():
            try:
                history = _load_run(file, run.model)
                os.utime(file)  # used again: not yet one to forget
                return history
            except (SafetensorError, OSError):
                file.unlink()  # damaged: train again
        history = run.train(name)
        _save_run(file, run.model, history)
    return history


@contextlib.contextmanager
def _locked(path, name):
    """Hold the lock of a run: processes side by side train it once and share the result."""
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        with _report() as stream:
            print(f"waiting: another process is training {name}", file=stream)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _save_run(file, model, history):
    """Write weights and history at once or not at all."""
    arrays = {f"model.{k}": v.numpy() for k, v in model.state_dict().items()}
    arrays |= {f"history.{k}": v for k, v in history.items()}
    temporary = file.with_suffix(f".{os.getpid()}.tmp")
    try:
        temporary.write_bytes(save(arrays))
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)


def _load_run(file, model):
    arrays = load_file(file)
    parts = {"model": {}, "history": {}}
    for key, value in arrays.items():
        part, _, name = key.partition(".")
        parts[part][name] = value
    load_weights(model, parts["model"])
    return parts["history"]


@contextlib.contextmanager
def _report():
    """Where to tell how far a training is: stderr, or the file that GENBOOK_PROGRESS names.

    While a chapter is executed, what goes to stderr would end up on its page; the build reads the
    file and shows it on the terminal.
    """
    path = os.environ.get("GENBOOK_PROGRESS")
    if not path:
        yield sys.stderr
        return
    with open(path, "a", encoding="utf-8") as file:
        yield file


@contextlib.contextmanager
def _progress(steps, name):
    """A progress bar."""
    with _report() as stream:
        live = stream is sys.stderr
        with tqdm(total=steps, desc=name, file=stream, mininterval=0.5, dynamic_ncols=live) as bar:
            yield bar
