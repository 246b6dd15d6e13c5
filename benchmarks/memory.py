"""The memory of a process whose shapes are ever new: with Paddle as it comes, and accelerated.

    python benchmarks/memory.py --shapes 1200

Each shape goes forward and backward through a convolution, group normalisation, an activation and
max-pooling, in a process of its own for each of the two. Peak resident memory, in GiB.
"""

import argparse
import resource
import subprocess
import sys
import warnings

warnings.filterwarnings("ignore")


def peak(shapes, accelerated):
    """The peak of this process after so many shapes, in GiB."""
    import paddle
    import paddle.nn as nn

    from genbook import accelerate

    if accelerated:
        accelerate.enable()
    paddle.seed(0)
    layers = nn.Sequential(
        nn.Conv2D(8, 16, 3, padding=1), nn.GroupNorm(4, 16), nn.Silu(), nn.MaxPool2D(2)
    )
    linear = nn.Linear(16, 64)
    for i in range(shapes):
        images, height, width = 8 + i % 10, 28 + i // 10 % 12, 28 + i // 120
        y = layers(paddle.randn([images, 8, height, width])).transpose([0, 2, 3, 1])
        linear(y).square().mean().backward()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def measure(shapes, accelerated):
    """The same in a process of its own."""
    command = [sys.executable, __file__, "--shapes", str(shapes), "--alone", str(int(accelerated))]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main():
    """Print the two."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", type=int, default=1200)
    parser.add_argument("--alone", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.alone is not None:
        print(peak(args.shapes, args.alone))
        return
    stock, accelerated = (measure(args.shapes, each) for each in (False, True))
    print(
        f"{args.shapes} shapes: Paddle as it comes {stock:.2f} GiB, accelerated {accelerated:.2f}"
    )


if __name__ == "__main__":
    main()
