"""The training loop that every chapter uses: `fit`."""

from __future__ import annotations

import itertools
import math
import os
import time
import warnings
from pathlib import Path

import numpy as np
import paddle

from genbook import accelerate
from genbook.publishing import fingerprint
from genbook.training import checkpoint, keep, progress, ranks

# What Adam keeps for each parameter, and what it starts from
ACCUMULATORS = {"moment1": 0.0, "moment2": 0.0, "beta1_pow_acc": 0.9, "beta2_pow_acc": 0.999}


class TrainingError(RuntimeError):
    """A training run that cannot go on."""


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
    """Train `model` for `steps` steps of Adam and return the history of the losses.

    loss: maps (model, *batch) to a scalar tensor to minimise, or to a dict of scalar tensors whose
    entry "loss" is minimised. data: numpy arrays [N, ...], usually images alone or images and
    their labels; each step takes the same `batch_size` places of all of them, at random and
    without repetition until all were seen. lr: the peak learning rate;
    see `learning_rate`. ema: decay of the moving average of the weights, in (0, 1); the model is
    left with the averaged weights. seed: of the batches and of all noise drawn in the loss. The
    same seed, model and data give bit-identical weights on one machine. name: shown beside the
    progress bar. folder: where a checkpoint is kept while the training runs, every 15 seconds or
    so and on Ctrl-C; with resume=True the training goes on from it, to the same bits as if it had
    never stopped.

    Returns a dict of float64 arrays [steps]: an entry for each loss, and "seconds", the time
    spent since the start. Leaves Paddle's random state as `paddle.seed(seed)` sets it.

    Where the environment names a folder in GENBOOK_RUNS and `folder` is not given, a finished run
    is kept there under the fingerprint of all that went into it, and an identical call loads it
    instead of training; one that was killed goes on from its last checkpoint.

    Where this process is one of several ranks (see `ranks`), each takes its part of every batch
    and its own noise, and all end with the same weights and history. Batch normalisation
    normalises each part by itself; its running statistics are averaged.

    Raises ValueError for a bad argument, TrainingError where the loss is not finite, and
    CheckpointError where a checkpoint cannot be written, or not be resumed.
    """
    if len({len(array) for array in data}) != 1:
        raise ValueError(f"data must be arrays of one length, got {[len(a) for a in data]}")
    if not 1 <= batch_size <= len(data[0]):
        raise ValueError(
            f"batch_size must be from 1 to the {len(data[0])} images, got {batch_size}"
        )
    if batch_size % ranks.count():
        raise ValueError(
            f"batch_size must be a multiple of the {ranks.count()} processes, got {batch_size}"
        )
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    if ema is not None and not 0 < ema < 1:
        raise ValueError(f"ema must be between 0 and 1, got {ema}")
    if not all(c.isalnum() or c in " -_." for c in name):
        raise ValueError(f"name must consist of letters, digits, spaces and -_., got {name!r}")
    if resume and folder is None:
        raise ValueError("resume needs the folder of the checkpoint")
    run = _Run(model, loss, data, steps, batch_size, lr, ema, seed)
    runs = os.environ.get("GENBOOK_RUNS")
    if folder is not None:
        history = keep.in_folder(run, Path(folder), resume, name)
    elif runs and ranks.count() == 1:
        history = keep.kept(run, Path(runs), name)
    else:
        history = run.train(name)
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
            # decay * average + (1 - decay) * state, in place
            average.subtract_(state[key]).scale_(decay).add_(state[key])


def noise_seed(seed, step, rank):
    """The seed of the noise that is drawn at `step` of a training on this rank.

    Each step and each rank has its own, so that a checkpoint need not hold a generator's state,
    and no two ranks draw the same noise.
    """
    return int(np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint64)[0])


class _Run:
    """One training run: what goes into it, and the loop."""

    def __init__(self, model, loss, data, steps, batch_size, lr, ema, seed):
        self.model, self.loss, self.data = model, loss, data
        self.steps, self.batch_size, self.lr, self.ema, self.seed = steps, batch_size, lr, ema, seed

    def fingerprint(self):
        """The hash of everything that the result depends on."""
        code = fingerprint.of_modules(frozenset([__name__]))
        return fingerprint.digest(
            code,
            paddle.__version__,
            fingerprint.of_value(vars(self)),
            str(ranks.count()),
            str(accelerate.is_enabled()),  # rounds in another way
        )

    def settings(self):
        """What a reader can compare between two runs."""
        return {
            "steps": self.steps,
            "batch_size": self.batch_size,
            "lr": self.lr,
            "ema": self.ema,
            "seed": self.seed,
            "images": len(self.data[0]),
            "processes": ranks.count(),
            "paddle": paddle.__version__,
        }

    def train(self, name, keeper=None):
        """Train from the model's present weights, or from where `keeper` is; return the history."""
        model = self.model
        model.train()
        state = _State(model, self.lr, self.ema)
        self._agree()
        if keeper:
            keeper.restore(state)
        indices = itertools.islice(
            batches(len(self.data[0]), self.batch_size, self.seed), state.step, None
        )
        start = time.perf_counter() - state.seconds()
        with (
            accelerate.training(),
            progress.bar(self.steps, name, state.step) as bar,
            keep.noted_signals(keeper) as signals,
            warnings.catch_warnings(),
        ):
            # Paddle's batch normalisation says at each step that it tracks averages in training.
            warnings.filterwarnings("ignore", "When training, we now always track")
            try:
                while state.step < self.steps:
                    losses, stop = self._step(next(indices), state, signals)
                    state.rows.append({**losses, "seconds": time.perf_counter() - start})
                    bar.set_postfix(loss=f"{losses['loss']:.4g}", refresh=False)
                    bar.update()
                    if keeper:
                        keeper.after_step(state, stop)
                state.check_finite()
            except TrainingError as error:
                raise TrainingError(f"{error}{keeper.advice() if keeper else ''}") from None
        if state.average:
            model.set_state_dict({**model.state_dict(), **state.average.state})
        return state.history()

    def _agree(self):
        """Raise TrainingError where this rank would train something else than rank 0."""
        if ranks.count() > 1:
            mine = self.fingerprint().encode()
            if ranks.broadcast(mine if ranks.rank() == 0 else None) != mine:
                raise TrainingError(
                    f"process {ranks.rank()} has other code, data or settings than process 0"
                )

    def _step(self, index, state, signals):
        """One step; its losses, and whether a process was asked to stop."""
        paddle.seed(noise_seed(self.seed, state.step, ranks.rank()))
        state.optimizer.set_lr(learning_rate(state.step, self.steps, self.lr))
        index = ranks.part(index)
        losses = self.loss(self.model, *(paddle.to_tensor(array[index]) for array in self.data))
        if not isinstance(losses, dict):
            losses = {"loss": losses}
        if "loss" not in losses or any(value.size != 1 for value in losses.values()):
            shapes = {key: list(value.shape) for key, value in losses.items()}
            raise ValueError(f'the loss must give scalars, one of them "loss"; got {shapes}')
        losses["loss"].backward()
        shared = state.tensors_to_average() if ranks.count() > 1 else []
        *values, stop = ranks.average(shared, [*map(float, losses.values()), float(bool(signals))])
        values = dict(zip(losses, values, strict=True))
        if not math.isfinite(values["loss"]):
            raise TrainingError(
                f"the loss became {values['loss']} at step {state.step}; try a lower lr"
            )
        state.update()
        return values, stop > 0


class _State:
    """All that changes from step to step: what a checkpoint holds."""

    def __init__(self, model, lr, ema):
        self.model = model
        self.optimizer = paddle.optimizer.Adam(lr, parameters=model.parameters())
        self.average = MovingAverage(model, ema) if ema else None
        self.step = 0
        self.rows = []  # of the history

    def update(self):
        """Take the step that the gradients ask for."""
        self.optimizer.step()
        self.optimizer.clear_grad(set_to_zero=False)
        if self.average:
            self.average.update(self.model)
        self.step += 1

    def tensors_to_average(self):
        """What must be the same on all ranks after a step: gradients, running statistics."""
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        state = self.model.state_dict().values()
        return gradients + [v for v in state if v.stop_gradient and v.dtype == paddle.float32]

    def seconds(self):
        """The time spent so far."""
        return self.rows[-1]["seconds"] if self.rows else 0.0

    def history(self):
        """The losses of all steps so far, float64 [step] each."""
        return {key: np.array([row[key] for row in self.rows]) for key in sorted(self.rows[0])}

    def check_finite(self):
        """Raise TrainingError where the weights hold what is no number."""
        for key, value in self.model.state_dict().items():
            if not np.isfinite(value.numpy()).all():
                raise TrainingError(f"{key} is not finite after {self.step} steps; try a lower lr")

    def tensors(self):
        """Weights, Adam's averages, and the moving average, under names of the model's own.

        Paddle names parameters by a running number, which another process need not repeat.
        """
        tensors = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        found = self.optimizer.state_dict()
        for name, parameter in self._trained():
            for kind, start in ACCUMULATORS.items():
                shape = parameter.shape if kind.startswith("moment") else [1]
                value = found.get(f"{parameter.name}_{kind}_0")  # none before a first gradient
                value = paddle.full(shape, start) if value is None else value
                tensors[f"optimizer.{name}.{kind}"] = value
        if self.average:
            tensors |= {f"average.{k}": v for k, v in self.average.state.items()}
        return tensors

    def arrays(self):
        """The content of a checkpoint."""
        arrays = {name: tensor.numpy() for name, tensor in self.tensors().items()}
        return arrays | {f"history.{k}": v for k, v in self.history().items()}

    def load(self, arrays, step, updates):
        """Become what `arrays` and the two counters were made from."""
        parts = {part: {} for part in ("model", "optimizer", "average", "history")}
        for key, value in arrays.items():
            part, _, name = key.partition(".")
            parts[part][name] = value
        checkpoint.load_weights(self.model, parts["model"])
        self.optimizer.set_state_dict(
            {
                f"{parameter.name}_{kind}_0": paddle.to_tensor(parts["optimizer"][f"{name}.{kind}"])
                for name, parameter in self._trained()
                for kind in ACCUMULATORS
            }
        )
        if self.average:
            self.average.updates = updates
            for name, value in parts["average"].items():
                self.average.state[name].set_value(value)
        names = list(parts["history"])
        columns = (values.tolist() for values in parts["history"].values())
        self.rows = [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
        self.step = step

    def _trained(self):
        return [(n, p) for n, p in self.model.named_parameters() if not p.stop_gradient]
