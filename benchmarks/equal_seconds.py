"""Samples after equal CPU seconds: genbook's models against what tutorials train, on MNIST.

    pip install torch diffusers    # used by this benchmark only
    GENBOOK_DATA=... OMP_NUM_THREADS=1 python benchmarks/equal_seconds.py --seconds 600

Each model trains on one core for as many steps as fit into the CPU seconds: those of a few steps
are measured first. The tutorials' models are the U-Net of the diffusers library with 32, 64 and 64
channels (noise prediction, cosine schedule, Adam at 1e-3, batches of 128) and the VAE with 400
hidden units and 20 latent dimensions (cross-entropy, the same batches and Adam). Samples: 2,000 of
each, from 50 steps of DDIM for the tutorial's U-Net and 20 for ours.
"""

import argparse
import os
import time
import warnings
from functools import partial

warnings.filterwarnings("ignore")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np  # noqa: E402
import paddle  # noqa: E402

from genbook import accelerate  # noqa: E402
from genbook.data import load  # noqa: E402
from genbook.diffusion import GaussianDiffusion, cosine_beta_schedule, guided  # noqa: E402
from genbook.evaluation.judge import train_judge  # noqa: E402
from genbook.evaluation.metrics import class_entropy, frechet_distance, legibility  # noqa: E402
from genbook.training.loop import batches  # noqa: E402
from genbook.training.recipes.diffusion import train_diffusion  # noqa: E402
from genbook.training.recipes.vae import train_improved_vae  # noqa: E402

SAMPLES = 2000


def steps_in(seconds, train, trial=60):
    """How many steps fit into the CPU seconds: train(steps) is run for two short times."""
    train(10)  # compiles kernels
    start = time.process_time()
    train(10)
    short = time.process_time() - start
    start = time.process_time()
    train(10 + trial)
    return int(seconds / ((time.process_time() - start - short) / trial))


def in_parts(sample, size=250):
    """SAMPLES images of `sample(labels)`, made `size` at a time."""
    labels = np.arange(SAMPLES) % 10
    return np.concatenate([sample(labels[i : i + size]) for i in range(0, SAMPLES, size)])


def our_diffusion(data):
    """genbook's diffusion model, without guidance and with."""
    process = GaussianDiffusion(cosine_beta_schedule(1000), "v")

    def sample(scale, unet, labels):
        model = guided(unet, paddle.to_tensor(labels), scale)
        shape = [len(labels), *data.images.shape[1:]]
        return (process.ddim_sample_loop(model, shape, 20).numpy() + 1) / 2

    samplers = {"": partial(sample, 0.0), ", guided by 0.5": partial(sample, 0.5)}
    return lambda steps: train_diffusion(data, process, steps=steps)[0], samplers


def our_vae(data):
    """genbook's improved VAE."""

    def sample(vae, labels):
        z = paddle.randn([len(labels), vae.latent_dim])
        with paddle.no_grad():
            return vae.decode(z, paddle.to_tensor(labels)).numpy()

    return lambda steps: train_improved_vae(data, steps=steps)[0], {"": sample}


def torch_training(data, model, loss, steps):
    """Adam at 1e-3 on batches of 128."""
    import torch

    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    model.train()
    indices = batches(len(data), 128, seed=0)
    for _ in range(steps):
        optimizer.zero_grad()
        loss(model, torch.from_numpy(data.images[next(indices)])).backward()
        optimizer.step()
    return model.eval()


def tutorial_unet(data):
    """The U-Net and the schedule of the usual tutorial with diffusers."""
    import torch
    from diffusers import DDIMScheduler, DDPMScheduler, UNet2DModel

    noising = DDPMScheduler(1000, beta_schedule="squaredcos_cap_v2")

    def loss(model, x):
        noise = torch.randn_like(x)
        t = torch.randint(0, 1000, (len(x),))
        noisy = noising.add_noise(2 * x - 1, noise, t)
        return torch.nn.functional.mse_loss(model(noisy, t).sample, noise)

    def train(steps):
        torch.manual_seed(0)
        model = UNet2DModel(
            sample_size=28, in_channels=1, out_channels=1, layers_per_block=2,
            block_out_channels=(32, 64, 64),
            down_block_types=("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        )  # fmt: skip
        return torch_training(data, model, loss, steps)

    def sample(model, labels):
        scheduler = DDIMScheduler(1000, beta_schedule="squaredcos_cap_v2")
        scheduler.set_timesteps(50)
        x = torch.randn(len(labels), 1, 28, 28)
        with torch.no_grad():
            for t in scheduler.timesteps:
                x = scheduler.step(model(x, t).sample, t, x).prev_sample
        return ((x + 1) / 2).clamp(0, 1).numpy()

    return train, {"": sample}


def classic_vae(data):
    """784-400-20 with cross-entropy."""
    import torch
    import torch_networks

    def loss(model, x):
        x_hat, mu, logvar = model(x)
        pixels = torch.nn.functional.binary_cross_entropy(x_hat, x, reduction="sum")
        kl = 0.5 * (logvar.exp() + mu.square() - 1 - logvar).sum()
        return (pixels + kl) / len(x)

    def train(steps):
        torch.manual_seed(0)
        return torch_training(data, torch_networks.VAE((1, 28, 28), (400,), 20), loss, steps)

    def sample(model, labels):
        with torch.no_grad():
            return model.decoder(torch.randn(len(labels), 20)).reshape(-1, 1, 28, 28).numpy()

    return train, {"": sample}


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--only", nargs="*", help="names of the rows")
    args = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    torch.set_flush_denormal(True)  # as ours; else Adam's averages of dead units double the time
    accelerate.enable()
    data, test = load("mnist"), load("mnist", "test")
    judge = train_judge(data, steps=2000)

    def report(name, images, steps="", seconds=""):
        p = judge.probabilities(images)
        print(
            f"{name:28s}{steps:>8}{seconds:>9}{legibility(p):10.3f}{class_entropy(p):9.3f}"
            f"{frechet_distance(judge.features(images), real):9.1f}",
            flush=True,
        )

    real = judge.features(test.images)
    print(f"{'':28s}{'steps':>8s}{'CPU s':>9s}{'legible':>10s}{'entropy':>9s}{'Fréchet':>9s}")
    some = np.random.default_rng(0).choice(len(data), SAMPLES, replace=False)
    report("test images", test.images[:SAMPLES])
    report("training images", data.images[some])
    rows = {
        "tutorial U-Net": tutorial_unet,
        "classic VAE": classic_vae,
        "improved VAE": our_vae,
        "diffusion": our_diffusion,
    }
    for name in args.only or rows:
        train, samplers = rows[name](data)
        steps = steps_in(args.seconds, train)
        start = time.process_time()
        model = train(steps)
        seconds = time.process_time() - start
        for setting, sample in samplers.items():
            paddle.seed(1)
            torch.manual_seed(1)
            images = in_parts(partial(sample, model))
            report(name + setting, images, steps, f"{seconds:.0f}")


if __name__ == "__main__":
    main()
