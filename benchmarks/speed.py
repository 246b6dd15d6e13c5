"""Seconds per step: genbook on Paddle against the same networks in PyTorch, on this machine.

    pip install torch    # used by this benchmark only
    OMP_NUM_THREADS=2 python benchmarks/speed.py

For each network, batch and optimiser the same, the two take turns, and the medians of all turns
are printed with their ratio: above 1, Paddle is the faster. A step and a forward pass
are measured twice: with float32 products, and as `fit` takes it, with the factors of products
rounded to bfloat16 where there is AMX; PyTorch is then allowed to round them, too. The last column
is Paddle as it comes, measured in a process of its own.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
import warnings

warnings.filterwarnings("ignore")
os.environ.setdefault("OMP_NUM_THREADS", str(os.cpu_count()))

import paddle  # noqa: E402

from genbook import accelerate  # noqa: E402
from genbook.accelerate import layers  # noqa: E402
from genbook.autoencoder import AutoEncoder  # noqa: E402
from genbook.unet import UNet  # noqa: E402
from genbook.vae import VAE, vae_loss  # noqa: E402

CASES = {  # name: the shape of a batch
    "autoencoder": (128, 3, 28, 28),
    "improved VAE": (128, 1, 28, 28),
    "U-Net": (64, 1, 28, 28),
}
VAE_SETTINGS = {"image_shape": (1, 28, 28), "hidden": (512, 512, 256), "latent_dim": 16}


def paddle_steps(name):
    """A training step and a forward pass of the network `name` in Paddle."""
    x = paddle.rand(CASES[name])
    t = paddle.randint(0, 1000, [len(x)])
    if name == "autoencoder":
        model = AutoEncoder(3)
        loss = lambda: (model(x) - x).square().mean()  # noqa: E731
    elif name == "improved VAE":
        model = VAE(**VAE_SETTINGS)
        loss = lambda: vae_loss(model, x)["loss"]  # noqa: E731
    else:
        model = UNet(1, 64)
        loss = lambda: (model(x, t) - x).square().mean()  # noqa: E731
    optimizer = paddle.optimizer.Adam(1e-3, parameters=model.parameters())

    def step():
        loss().backward()
        optimizer.step()
        optimizer.clear_grad(set_to_zero=False)

    def forward():
        with paddle.no_grad():
            loss()

    return step, forward


def torch_steps(name):
    """The same in PyTorch."""
    import torch
    import torch_networks as networks

    x = torch.rand(CASES[name])
    t = torch.randint(0, 1000, [len(x)])
    if name == "autoencoder":
        model = networks.AutoEncoder(3)
        loss = lambda: (model(x) - x).square().mean()  # noqa: E731
    elif name == "improved VAE":
        model = networks.VAE(**VAE_SETTINGS)

        def loss():
            x_hat, mu, logvar = model(x)
            pixels = torch.nn.functional.binary_cross_entropy(x_hat, x, reduction="none")
            kl = 0.5 * (logvar.exp() + mu.square() - 1 - logvar).sum(1)
            return pixels.sum((1, 2, 3)).mean() + kl.mean()
    else:
        model = networks.UNet(1, 64)
        loss = lambda: (model(x, t) - x).square().mean()  # noqa: E731
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)

    def step():
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()

    def forward():
        with torch.no_grad():
            loss()

    return step, forward


@contextlib.contextmanager
def bfloat16_products_in_torch():
    """Within this block PyTorch may round the factors of its products to bfloat16."""
    import torch

    kinds = (torch.backends.mkldnn.matmul, torch.backends.mkldnn.conv)
    before = [settings.fp32_precision for settings in kinds]
    for settings in kinds:
        settings.fp32_precision = "bf16"
    try:
        yield
    finally:
        for settings, precision in zip(kinds, before, strict=True):
            settings.fp32_precision = precision


def within(block, function):
    """The function that calls `function` within the block."""

    def wrapped():
        with block():
            function()

    return wrapped


def measure(functions, turns, calls=3):
    """The median seconds of each function; they take turns of `calls` calls.

    The threads of one library go on spinning for a while after its last call, on the cores that
    the other one now wants. So each turn begins with a pause and a call that does not count.
    """
    for function in functions:
        for _ in range(3):
            function()
    seconds = [[] for _ in functions]
    for _ in range(turns):
        for function, times in zip(functions, seconds, strict=True):
            time.sleep(0.3)
            function()
            start = time.perf_counter()
            for _ in range(calls):
                function()
            times.append((time.perf_counter() - start) / calls)
    return [statistics.median(times) for times in seconds]


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--float32", action="store_true", help="without the rows of bfloat16")
    parser.add_argument("--stock", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.stock:
        stock = {name: measure(paddle_steps(name), args.turns) for name in CASES}
        print(json.dumps(stock))
        return
    stock = json.loads(
        subprocess.run(
            [sys.executable, __file__, "--stock", "--turns", str(args.turns)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            check=True,
            text=True,
        ).stdout
    )
    accelerate.enable()
    print(f"threads: {os.environ['OMP_NUM_THREADS']}; medians of {args.turns} turns, ms")
    print(f"{'':30s}{'genbook':>9s}{'torch':>9s}{'ratio':>7s}{'stock Paddle':>14s}")
    for name in CASES:
        ours, theirs = paddle_steps(name), torch_steps(name)
        rows = {
            "step": (ours[0], theirs[0], stock[name][0]),
            "step in bfloat16": (
                within(layers.bfloat16_products, ours[0]),
                within(bfloat16_products_in_torch, theirs[0]),
                None,
            ),
            "forward": (ours[1], theirs[1], stock[name][1]),
            "forward in bfloat16": (
                within(layers.bfloat16_products, ours[1]),
                within(bfloat16_products_in_torch, theirs[1]),
                None,
            ),
        }
        for what, (mine, other, untuned) in rows.items():
            if args.float32 and "bfloat16" in what:
                continue
            mine, other = measure((mine, other), args.turns)
            last = f"{1e3 * untuned:14.1f}" if untuned else ""
            print(
                f"{name + ', ' + what:30s}{1e3 * mine:9.1f}{1e3 * other:9.1f}"
                f"{other / mine:7.2f}{last}"
            )


if __name__ == "__main__":
    main()
