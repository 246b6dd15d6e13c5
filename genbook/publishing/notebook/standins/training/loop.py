"""The training loop in memory: nothing is kept on disk, and no package draws a progress bar."""

import math
import time
import warnings

import numpy as np
import paddle

from genbook.accelerate.memory import keep_freed
from genbook.training.loop import MovingAverage, batches, learning_rate, noise_seed

# The length of every training: 1 is the book's; 0.02 gives a quick look, at worse models.
STEPS_SCALE = 1


def fit(model, loss, *data, steps, batch_size=128, lr=1e-3, ema=None, seed=0, name="model"):
    """Train `model` with Adam and return the history of the losses.

    loss: maps (model, *batch) to a scalar tensor to minimise, or to a dict of scalar tensors
    whose entry "loss" is minimised. data: arrays [N, ...]. lr: the peak learning rate. ema:
    decay of the moving average of the weights, with which the model is left. Returns a dict
    of arrays [steps]: an entry for each loss, and "seconds".
    """
    keep_freed()
    steps = max(1, round(steps * STEPS_SCALE))
    model.train()
    optimizer = paddle.optimizer.Adam(lr, parameters=model.parameters())
    average = MovingAverage(model, ema) if ema else None
    indices = batches(len(data[0]), batch_size, seed)
    history, start = [], time.perf_counter()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "When training, we now always track")
        for step in range(steps):
            paddle.seed(noise_seed(seed, step, rank=0))
            optimizer.set_lr(learning_rate(step, steps, lr))
            index = next(indices)
            losses = loss(model, *(paddle.to_tensor(array[index]) for array in data))
            losses = losses if isinstance(losses, dict) else {"loss": losses}
            losses["loss"].backward()
            losses = {key: float(value) for key, value in losses.items()}
            if not math.isfinite(losses["loss"]):
                raise ValueError(f"the loss became {losses['loss']}; try a lower lr")
            optimizer.step()
            optimizer.clear_grad(set_to_zero=False)
            if average:
                average.update(model)
            history.append({**losses, "seconds": time.perf_counter() - start})
            if (step + 1) % max(1, steps // 10) == 0:
                told = f"{name}: step {step + 1:,} of {steps:,}, loss {losses['loss']:.4g}"
                print(f"{told:80}", end="\r", flush=True)
    print(" " * 80, end="\r")  # what follows takes the line's place
    if average:
        model.set_state_dict({**model.state_dict(), **average.state})
    paddle.seed(seed)
    model.eval()
    return {key: np.array([row[key] for row in history]) for key in history[0]}
