"""What `test_launch` has two ranks do; run by each of them. Not a test by itself."""

import sys
from pathlib import Path

import numpy as np
import paddle
import paddle.nn as nn

from genbook.diffusion import GaussianDiffusion, cosine_beta_schedule
from genbook.training import fit, loop, ranks
from genbook.unet import UNet
from genbook.vae import VAE, vae_loss

BATCH, N, STEPS = 8, 24, 6
RNG = np.random.default_rng(0)
IMAGES = RNG.random((N, 1, 8, 8), dtype="float32")
CODES = RNG.standard_normal((N, 3)).astype("float32")
NOISE = RNG.standard_normal((N, 1, 8, 8)).astype("float32")
TIMES = RNG.integers(0, 10, N)
PROCESS = GaussianDiffusion(cosine_beta_schedule(10), "v")


class GivenNoise:
    """A VAE whose noise is given, for `vae_loss`."""

    def __init__(self, model, eps):
        self.model, self.eps = model, eps

    def __call__(self, x, labels=None):
        return self.model(x, self.eps, labels)


def vae_with_noise(model, x, eps):
    return vae_loss(GivenNoise(model, eps), x)


def diffusion_with_noise(model, x, t, noise):
    return PROCESS.p_losses(model, x, t, noise).mean()


class Normalised(nn.Layer):
    """A network with running statistics."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2D(1, 4, 3, padding=1),
            nn.BatchNorm2D(4),
            nn.ReLU(),
            nn.Conv2D(4, 1, 3, padding=1),
        )

    def forward(self, x):
        return self.body(x)


def gradients(network, loss, *data):
    """The history of a training, and the gradients of each of its first two steps."""
    found = []
    update = loop.Training.update

    def noted(training, row):
        named = training.model.named_parameters()
        found.append({k: p.grad.numpy().copy() for k, p in named})
        update(training, row)

    loop.Training.update = noted
    paddle.seed(0)
    try:
        history = fit(network(), loss, *data, steps=2, batch_size=BATCH, lr=1e-4)
    finally:
        loop.Training.update = update
    return history, found


def both():
    """The gradients of the two networks whose noise can be given."""
    return {
        "vae": gradients(lambda: VAE((1, 8, 8), (16,), 3), vae_with_noise, IMAGES, CODES),
        "unet": gradients(lambda: UNet(1, 8), diffusion_with_noise, IMAGES, TIMES, NOISE),
    }


def what_is_drawn():
    """For each step the images that this rank sees, and the noise that it draws."""
    seen = []

    def loss(model, x):
        seen.append((x.numpy().copy(), paddle.randn([4]).numpy()))
        return model(x).square().mean()

    paddle.seed(0)
    fit(Normalised(), loss, IMAGES, steps=STEPS, batch_size=BATCH)
    return [np.stack(column) for column in zip(*seen, strict=True)]


def averaged():
    """The weights, averages and history of a training with running statistics."""
    paddle.seed(0)
    model = Normalised()
    history = fit(
        model,
        lambda m, x: (m(x + paddle.randn(x.shape)) - x).square().mean(),
        IMAGES,
        steps=STEPS,
        batch_size=BATCH,
        ema=0.9,
    )
    return {**{k: v.numpy() for k, v in model.state_dict().items()}, "loss": history["loss"]}


def main():
    folder = Path(sys.argv[1])
    paddle.distributed.init_parallel_env()
    out = {}
    for name, (history, found) in both().items():
        out[f"{name}.loss"] = history["loss"]
        out |= {f"{name}.{i}.{k}": v for i, step in enumerate(found) for k, v in step.items()}
    out["images"], out["noise"] = what_is_drawn()
    out |= {f"averaged.{k}": v for k, v in averaged().items()}
    given = b"some bytes" if ranks.rank() == 0 else None
    out["bytes"] = np.frombuffer(ranks.broadcast(given), np.uint8)
    out["nothing"] = np.frombuffer(ranks.broadcast(b"" if ranks.rank() == 0 else None), np.uint8)
    try:
        fit(Normalised(), lambda m, x: m(x).mean(), IMAGES, steps=1, batch_size=9)
    except ValueError as error:
        out["refused"] = np.array(str(error))
    try:  # last, because it ends the connection
        out["said"] = np.array("nothing")
        fit(Normalised(), lambda m, x: m(x).mean(), IMAGES + ranks.rank(), steps=1, batch_size=8)
    except (loop.TrainingError, ranks.LostRankError) as error:
        out["said"] = np.array(str(error))
    np.savez(folder / f"{ranks.rank()}.npz", **out)


if __name__ == "__main__":
    main()
