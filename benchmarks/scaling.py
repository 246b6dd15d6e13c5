"""Seconds per step of one process and of two, for the same batch, on this machine.

    python benchmarks/scaling.py

Each process computes on one core. With two, each has half the batch, and the gradients are averaged
between them after each step. The efficiency is the time of one over twice that of two: 1 where the
second core halves the time. One process and two take turns, so that whatever else the machine does
slows both; but two wait for each other, so that other work costs them more than one: measure on a
quiet machine. The last columns are what the exchange of the gradients takes of the two's step,
waiting included, and how many numbers it carries.

A case is a network and the images of its batch. "U-Net 64 alone" exchanges nothing, each process
goes its own way: what this machine lets two busy cores reach, whatever the exchange costs.

The larger the batch, the less the exchange weighs. The VAE is the one that cannot gain: its step is
cheap, and much of it, such as the update of a million weights, does not shrink with the batch.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve()
sys.path.insert(0, str(HERE.parents[1]))

CASES = {  # name: the shape of the whole batch
    "autoencoder 128": (128, 3, 28, 28),
    "autoencoder 512": (512, 3, 28, 28),
    "VAE 128": (128, 1, 28, 28),
    "VAE 512": (512, 1, 28, 28),
    "U-Net 64": (64, 1, 28, 28),
    "U-Net 256": (256, 1, 28, 28),
    "U-Net 64 alone": (64, 1, 28, 28),
}


def network(name):
    """The network and its loss, as in `speed.py`."""
    import paddle

    from genbook.autoencoder import AutoEncoder
    from genbook.diffusion import GaussianDiffusion, cosine_beta_schedule
    from genbook.unet import UNet
    from genbook.vae import VAE, vae_loss

    paddle.seed(0)
    if name.startswith("autoencoder"):
        return AutoEncoder(3), lambda model, x: (model(x) - x).square().mean()
    if name.startswith("VAE"):
        return VAE((1, 28, 28), hidden=(512, 256), latent_dim=16), vae_loss
    return UNet(1, 64), GaussianDiffusion(cosine_beta_schedule(1000), "v").training_loss


def work(turns, steps):
    """What each process does: at a word on stdin, `steps` steps of `fit` of the case it names.

    Rank 0 answers with the seconds of a step, those of the exchange in it, and its size.
    """
    import numpy as np
    import paddle

    from genbook.training import fit, ranks

    if "PADDLE_TRAINER_ID" in os.environ:
        paddle.distributed.init_parallel_env()
    exchange, average = [], ranks.average

    def timed(tensors, numbers):
        start = time.perf_counter()
        means = average(tensors, numbers)
        exchange.append((time.perf_counter() - start, sum(t.size for t in tensors)))
        return means

    def alone(tensors, numbers):
        exchange.append((0.0, 0))
        return numbers

    folder = Path(os.environ["SCALING"])
    rank = ranks.rank()
    for turn in range(turns):
        for name in CASES:
            while not (folder / f"go {turn} {name}").exists():
                time.sleep(0.002)
            model, loss = network(name)
            images = np.random.default_rng(0).random(CASES[name], dtype="float32")
            exchange.clear()
            ranks.average = alone if name.endswith("alone") else timed
            history = fit(model, loss, images, steps=steps, batch_size=len(images))
            if rank == 0:
                seconds = np.diff(history["seconds"])[2:]  # the first ones compile and allocate
                result = [
                    statistics.median(seconds),
                    statistics.median(e[0] for e in exchange[3:]),
                    exchange[0][1],
                ]
                part = folder / "part"
                part.write_text(json.dumps(result))
                part.rename(folder / f"done {turn} {name}")


def start(processes, folder, args):
    """Start so many processes that wait for their turns."""
    from genbook.training import launch

    folder.mkdir()
    environment = {**launch._environment(folder, 1), "SCALING": str(folder)}
    command = [sys.executable, str(HERE), "--work"]
    command += ["--turns", str(args.turns), "--steps", str(args.steps)]
    if processes > 1:
        command = [*launch._launcher(folder, processes), *command]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=(folder / "stderr").open("wb")
    )


def take_turns(folders, running, turns):
    """Have the two take turns; return name -> for each the list of results."""
    results = {name: [[] for _ in folders] for name in CASES}
    for turn in range(turns):
        for name in CASES:
            for i, folder in enumerate(folders):
                (folder / f"go {turn} {name}").touch()
                done = folder / f"done {turn} {name}"
                while not done.exists():
                    if running[i].poll() is not None and not done.exists():
                        sys.exit((folder / "stderr").read_text() or "a process ended early")
                    time.sleep(0.02)
                results[name][i].append(json.loads(done.read_text()))
    return results


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        work(args.turns, args.steps)
        return
    with tempfile.TemporaryDirectory() as folder:
        folders = [Path(folder) / "one", Path(folder) / "two"]
        running = [start(n, path, args) for n, path in zip((1, 2), folders, strict=True)]
        results = take_turns(folders, running, args.turns)
        for process in running:
            process.wait()
    print(f"medians of {args.turns} turns of {args.steps} steps, ms per step")
    print(
        f"{'':16s}{'1 process':>10s}{'2 processes':>13s}{'efficiency':>12s}"
        f"{'exchange':>10s}{'numbers':>10s}"
    )
    for name, (one, two) in results.items():
        single = statistics.median(r[0] for r in one)
        double = statistics.median(r[0] for r in two)
        exchange = statistics.median(r[1] for r in two)
        print(
            f"{name:16s}{1e3 * single:10.1f}{1e3 * double:13.1f}{single / double / 2:12.2f}"
            f"{1e3 * exchange:10.1f}{two[0][2]:10,d}"
        )


if __name__ == "__main__":
    main()
