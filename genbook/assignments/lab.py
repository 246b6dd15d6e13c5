"""What every assignment carries with it: the digits, a training loop, a figure, a judge."""

import time

import matplotlib.pyplot as plt
import numpy as np
import paddle

from genbook.cpu import flush_denormals
from genbook.data import _digits
from genbook.judge import Judge, _shifted_cross_entropy
from genbook.train import batches, learning_rate


def digits(split):
    """The handwritten digits of scikit-learn at 16 x 16 pixels.

    split: "train" or "test". Returns images [N, 1, 16, 16], float32 in [0, 1], and labels
    [N].
    """
    images, labels = _digits(split, 16, None)
    return images[:, np.newaxis], labels


def fit(model, loss, *data, steps, batch_size=64, lr=2e-3, seed=0):
    """Train `model` for `steps` steps of Adam; it is left in eval mode.

    loss: maps (model, *batch) to a scalar tensor, or to a dict of which "loss" is one.
    data: arrays [N, ...] of one length. lr: the peak learning rate; it rises at first and
    falls to zero. Returns the losses, [steps].
    """
    paddle.seed(seed)
    model.train()
    optimizer = paddle.optimizer.Adam(lr, parameters=model.parameters())
    indices = batches(len(data[0]), batch_size, seed)
    losses, start = [], time.perf_counter()
    with flush_denormals():
        for step in range(steps):
            optimizer.set_lr(learning_rate(step, steps, lr))
            index = next(indices)
            value = loss(model, *(paddle.to_tensor(array[index]) for array in data))
            value = value["loss"] if isinstance(value, dict) else value
            value.backward()
            optimizer.step()
            optimizer.clear_grad()
            losses.append(float(value))
    model.eval()
    print(f"{steps} steps in {time.perf_counter() - start:.0f} s, "
          f"loss {np.mean(losses[-20:]):.4g}")
    return np.array(losses)


def show(rows):
    """Rows of images one above the other. rows: maps a name to images [N, C, H, W]."""
    columns = min(12, *(len(images) for images in rows.values()))
    figure, axes = plt.subplots(len(rows), columns, squeeze=False,
                                figsize=(columns, len(rows)))
    for line, (name, images) in zip(axes, rows.items()):
        line[0].set_title(name, loc="left", fontsize=10)
        for ax, image in zip(line, np.asarray(images)):
            ax.imshow(image.mean(axis=0), cmap="gray", vmin=0, vmax=1)
            ax.axis("off")
    plt.show()


def train_judge(images, labels, steps=600):
    """A Judge: a classifier that reads digits."""
    paddle.seed(0)
    judge = Judge(10, images.shape[-1])
    fit(judge, _shifted_cross_entropy, images, labels, steps=steps, batch_size=32, lr=1e-3)
    return judge
