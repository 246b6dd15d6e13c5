"""The training loop: `fit` and its parts. Needs Paddle and NumPy alone."""

import itertools
import math
import numbers
import time
import warnings

import numpy as np
import paddle

# The length of every training: 1 is the book's; 0.02 gives a quick look, at worse models.
STEPS_SCALE = 1


class TrainingError(RuntimeError):
    """A training that cannot go on: its loss or its weights are not finite."""


class Hook:
    """What `fit` calls as a training goes on. A subclass overrides the methods it needs."""

    def on_start(self, training):
        """Before the first step; may put an earlier state into `training`, a `Training`."""

    def on_batch(self, training, index):
        """The rows [B] of the data to use in place of the batch `index` [B]."""
        return index

    def on_backward(self, training, losses):
        """After the gradients, before the update; the losses (name -> float) to record."""
        return losses

    def on_step(self, training):
        """After each step."""


class PrintProgress(Hook):
    """Prints one line that is overwritten ten times, and erased at the end."""

    def on_step(self, training):
        step, steps, row = training.step, training.steps, training.rows[-1]
        if step % max(1, steps // 10) == 0:
            line = f"{training.name}: step {step:,} of {steps:,}, loss {row['loss']:.4g}"
            print(f"{line:80}", end="\r", flush=True)
        if step == steps:
            print(" " * 80, end="\r")


def fit(
    model, loss, *data, steps, batch_size=128, lr=1e-3, ema=None, seed=0, name="model", hooks=None
):
    """Train `model` for `steps` steps of Adam and return the history of the losses.

    loss: maps (model, *batch) to a scalar tensor to minimise, or to a dict of scalar tensors whose
    entry "loss" is minimised. data: arrays [N, ...], usually images and perhaps their labels; each
    step draws the same `batch_size` rows of all of them, without replacement until all were seen,
    and floats become float32. lr: the peak learning rate, see `learning_rate`. ema: decay of the
    moving average of the weights, in (0, 1); the model is left with the averaged weights. seed: of
    the batches and of all noise that the loss draws. name: shown with the progress. hooks: a list
    of `Hook`; by default the progress is printed.

    Returns a dict of float64 arrays [steps]: an entry for each loss, and "seconds", the time since
    the start. Leaves the model in evaluation mode and Paddle's generator as `paddle.seed(seed)`
    sets it. Raises ValueError for a bad argument, TrainingError where loss or weights are not
    finite, and where the loss raises ValueError after the first step.
    """
    require_valid(data, steps, batch_size, lr, ema, seed)
    arrays = [np.asarray(array) for array in data]
    hooks = [PrintProgress()] if hooks is None else hooks
    training = Training(model, max(1, round(steps * STEPS_SCALE)), lr, ema, seed, name)
    model.train()
    for hook in hooks:
        hook.on_start(training)
    indices = itertools.islice(batches(len(data[0]), batch_size, seed), training.step, None)
    start = time.perf_counter() - (training.rows[-1]["seconds"] if training.rows else 0.0)
    with warnings.catch_warnings():
        # Paddle's batch normalisation says at each step that it tracks averages in training.
        warnings.filterwarnings("ignore", "When training, we now always track")
        for step in range(training.step, training.steps):
            paddle.seed(noise_seed(seed, step))
            index = next(indices)  # [B]
            for hook in hooks:
                index = hook.on_batch(training, index)
            batch = [as_tensor(array[index]) for array in arrays]  # [B, ...] each
            try:
                losses = scalars(loss(model, *batch))
            except ValueError as error:
                if step == 0:
                    raise
                problem = f"the loss failed at step {step}: {error}; is lr too high?"
                raise TrainingError(problem) from error
            losses["loss"].backward()
            losses = {key: float(value) for key, value in losses.items()}
            for hook in hooks:
                losses = hook.on_backward(training, losses)
            if not math.isfinite(losses["loss"]):
                raise TrainingError(
                    f"the loss became {losses['loss']} at step {step}; try a lower lr"
                )
            training.update({**losses, "seconds": time.perf_counter() - start})
            for hook in hooks:
                hook.on_step(training)
        require_finite(training)
    if training.average:
        model.set_state_dict({**model.state_dict(), **training.average.state})
    model.eval()
    paddle.seed(seed)
    return training.history()


class Training:
    """A training in progress: all that changes from step to step."""

    def __init__(self, model, steps, lr, ema, seed, name):
        self.model, self.steps, self.lr = model, steps, float(lr)
        self.seed, self.name = seed, name
        self.optimizer = paddle.optimizer.Adam(self.lr, parameters=model.parameters())
        self.average = MovingAverage(model, ema) if ema else None
        self.step = 0  # the number of steps taken
        self.rows = []  # of the history, one for each step

    def update(self, row):
        """Take the step that the gradients ask for, and record `row`."""
        self.optimizer.set_lr(learning_rate(self.step, self.steps, self.lr))
        self.optimizer.step()
        self.optimizer.clear_grad(set_to_zero=False)
        if self.average:
            self.average.update(self.model)
        self.step += 1
        self.rows.append(row)

    def history(self):
        """The losses and times of the steps so far: a dict of float64 arrays [step]."""
        return {key: np.array([row[key] for row in self.rows]) for key in sorted(self.rows[0])}


def learning_rate(step, steps, peak):
    """The rate at `step` of `steps`: up in a line for 5% of them, then down to 0 as a cosine."""
    warmup = max(1, steps // 20)
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def batches(n, batch_size, seed):
    """Yield index arrays [batch_size] for ever: shuffles of 0 to n - 1, cut up, rests dropped."""
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


def noise_seed(seed, step, rank=0):
    """The seed of the noise that is drawn at `step` of a training.

    Each step has its own, so that a checkpoint need not hold a generator's state; so does each
    rank of a training by several processes, so that no two draw the same noise.
    """
    return int(np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint64)[0])


def as_tensor(array):
    """A batch of numbers as a tensor; floats of any precision become float32, as weights are."""
    return paddle.to_tensor(array, dtype="float32" if array.dtype.kind == "f" else None)


def scalars(losses):
    """What a loss function returned, as a dict of scalar tensors; else raise ValueError."""
    if not isinstance(losses, dict):
        losses = {"loss": losses}
    tensors = all(map(paddle.is_tensor, losses.values()))
    if "loss" not in losses or not tensors or any(value.size != 1 for value in losses.values()):
        found = {k: list(v.shape) if paddle.is_tensor(v) else v for k, v in losses.items()}
        raise ValueError(f'the loss must give scalar tensors, one of them "loss"; got {found}')
    return losses


def require_valid(data, steps, batch_size, lr, ema, seed):
    """Raise ValueError for arguments with which `fit` cannot work."""
    if any(np.ndim(array) == 0 for array in data):
        kinds = [type(array).__name__ for array in data]
        raise ValueError(f"data must be arrays, as the images of a Dataset are, got {kinds}")
    if len({len(array) for array in data}) != 1:
        raise ValueError(f"data must be arrays of one length, got {[len(a) for a in data]}")
    whole = (("steps", steps, 1), ("batch_size", batch_size, 1), ("seed", seed, 0))
    for name, number, least in whole:
        if not isinstance(number, numbers.Integral) or number < least:
            raise ValueError(f"{name} must be a whole number of at least {least}, got {number!r}")
    if batch_size > len(data[0]):
        raise ValueError(
            f"batch_size must be from 1 to the {len(data[0])} images, got {batch_size}"
        )
    if not 0 < lr < math.inf:
        raise ValueError(f"lr must be above 0, got {lr}")
    if ema is not None and not 0 < ema < 1:
        raise ValueError(f"ema must be between 0 and 1, got {ema}")


def require_finite(training):
    """Raise TrainingError where a weight is not finite."""
    for key, value in training.model.state_dict().items():
        if not np.isfinite(value.numpy()).all():
            raise TrainingError(f"{key} is not finite after {training.step} steps; try a lower lr")
