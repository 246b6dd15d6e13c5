"""The command `genbook`. Each subcommand is one `_add_..._parser` and the function it runs."""

import argparse
import contextlib
import math
import os
import shutil
import sys
import warnings

import numpy as np
from PIL import Image

from genbook import accelerate, data
from genbook.lab.assignments import AssignmentError, command
from genbook.training import spec

_SHADES = np.array(list(" .:-=+*#%@"))


def main(argv=None):
    """Run one command; every error is one line on stderr.

    Returns:
        0 when all went well, 1 when data or a file is at fault, 2 for a wrong command line,
        130 for Ctrl-C.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # not every terminal can show 零
            stream.reconfigure(errors="replace")
    warnings.filterwarnings("ignore", "No ccache found")  # Paddle says so at every import
    try:
        args = _parser().parse_args(argv)
        args.run(args)
        sys.stdout.flush()
    except SystemExit as stop:  # argparse's way out, for --help and for wrong usage
        return stop.code
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (data.DataError, AssignmentError, OSError, _Failed) as error:
        print(f"genbook: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as stop:
        if stop.args:
            print(f"genbook: {stop}", file=sys.stderr)
        return 130
    return 0


class _Failed(Exception):
    """A command failed; the message says all."""


class _Parser(argparse.ArgumentParser):
    def error(self, message):
        self.exit(2, f"genbook: {message} (see {self.prog} --help)\n")


def _parser():
    parser = _Parser(prog="genbook", description="Data and models of the book, from the shell.")
    commands = parser.add_subparsers(required=True, metavar="command")
    _add_data_parser(commands)
    _add_train_parser(commands)
    _add_sample_parser(commands)
    _add_assignment_parser(commands)
    return parser


def _add_data_parser(commands):
    parser = commands.add_parser("data", help="fetch or look at a data set")
    actions = parser.add_subparsers(required=True, metavar="action")
    _add_fetch_parser(actions)
    _add_show_parser(actions)


def _add_assignment_parser(commands):
    command.add_parser(commands)


def _add_fetch_parser(actions):
    parser = actions.add_parser("fetch", help="download a data set and check its files")
    _add_data_arguments(parser)
    parser.set_defaults(run=_fetch)


def _add_show_parser(actions):
    parser = actions.add_parser("show", help="count a data set's images and show some")
    _add_data_arguments(parser)
    parser.add_argument("--split", choices=data.SPLITS, default="train")
    parser.add_argument("--size", type=_size, help="pixels per side (default: the set's own)")
    parser.add_argument("--out", metavar="FILE.png", help="write a contact sheet to this file")
    parser.set_defaults(run=_show)


def _add_data_arguments(parser):
    parser.add_argument("name", choices=data.NAMES, help="one of %(choices)s", metavar="name")
    _add_root_argument(parser)


def _add_root_argument(parser):
    parser.add_argument("--root", metavar="DIR", help="the folder of the data set's files")


def _add_train_parser(commands):
    parser = commands.add_parser(
        "train",
        help="train a model, by one process or many",
        description="Train a model of the book. What is not given is as the book has it.",
    )
    parser.add_argument("model", choices=spec.MODELS, metavar="model", help="one of %(choices)s")
    parser.add_argument(
        "--data",
        choices=data.NAMES,
        default="digits",
        metavar="NAME",
        help="one of %(choices)s (default: %(default)s)",
    )
    _add_root_argument(parser)
    parser.add_argument("--size", type=_size, help="pixels per side, a multiple of 4")
    parser.add_argument("--steps", type=_whole(1))
    parser.add_argument(
        "--batch-size",
        type=_whole(1),
        metavar="B",
        help="images per step, of all processes together",
    )
    parser.add_argument("--lr", type=float, help="the peak of the learning rate")
    parser.add_argument("--seed", type=_whole(0), default=0)
    parser.add_argument(
        "--prediction",
        choices=spec.PREDICTIONS,
        help="what a diffusion model predicts (default: v)",
    )
    parser.add_argument(
        "--out",
        default="",
        metavar="FOLDER",
        help="for the checkpoint and the model (default: MODEL-DATA)",
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on from the checkpoint in FOLDER, with the same settings",
    )
    parser.add_argument(
        "--nproc",
        type=_whole(1),
        default=1,
        metavar="N",
        help="processes on this machine, one core or GPU each (default: 1)",
    )
    parser.add_argument(
        "--nnodes",
        type=_whole(1),
        default=1,
        metavar="M",
        help="machines; give this command to each of them (default: 1)",
    )
    parser.add_argument("--master", metavar="HOST:PORT", help="where they meet, on one of them")
    parser.set_defaults(run=_train)


def _add_sample_parser(commands):
    parser = commands.add_parser("sample", help="draw samples of a trained model")
    parser.add_argument("file", metavar="MODEL.safetensors", help="what genbook train has made")
    parser.add_argument("--out", metavar="FILE.png", required=True, help="the contact sheet")
    parser.add_argument("--count", type=_whole(1), default=64, metavar="N", help="default: 64")
    parser.add_argument("--seed", type=_whole(0), default=0)
    parser.add_argument(
        "--steps",
        type=_whole(1),
        default=50,
        help="of a diffusion model's sampler, DDIM (default: 50)",
    )
    _add_root_argument(parser)
    parser.add_argument(
        "--guidance",
        type=float,
        default=0.5,
        help="how far a diffusion model goes past its labels (default: 0.5)",
    )
    parser.set_defaults(run=_sample)


def _whole(least):
    """The argparse type of a whole number of at least `least`."""

    def number(text):
        value = int(text) if text.isascii() and text.isdecimal() else -1
        if value < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least {least}")
        return value

    return number


_size = _whole(8)


def _fetch(args):
    paths = data.fetch(args.name, args.root)
    for path in paths:
        print(path)
    if not paths:
        print(f"{args.name} needs no files: nothing to download")


def _show(args):
    dataset = data.load(args.name, args.split, size=args.size, root=args.root)
    print(summary(dataset))
    if args.out is None:
        print(text_sheet(dataset, shutil.get_terminal_size().columns))
    else:
        contact_sheet(dataset).save(args.out, format="PNG")
        print(f"contact sheet: {args.out}")


def _train(args):
    from genbook.training import launch  # Paddle starts slowly

    names = (
        "model",
        "data",
        "size",
        "steps",
        "batch_size",
        "lr",
        "seed",
        "prediction",
        "root",
        "out",
        "resume",
    )
    with _one_line_errors(), accelerate.enabled():
        training = spec.TrainingSpec(**{name: getattr(args, name) for name in names})
        file = launch.launch(training, args.nproc, args.nnodes, args.master)
    if file:
        print(f"model: {file}")


def _sample(args):
    from genbook import models

    with _one_line_errors(), accelerate.enabled():
        images = models.sample(
            args.file, args.count, args.seed, args.steps, args.guidance, args.root
        )
    columns = math.ceil(math.sqrt(len(images)))
    cells = np.zeros((columns * math.ceil(len(images) / columns), *images.shape[2:]), np.uint8)
    cells[: len(images)] = np.rint(255 * images[:, 0])
    _sheet(cells.reshape(-1, columns, *images.shape[2:])).save(args.out, format="PNG")
    print(f"contact sheet: {args.out}")


@contextlib.contextmanager
def _one_line_errors():
    """Turn what these commands raise for a reader into `_Failed`."""
    from genbook.training.checkpoint import CheckpointError
    from genbook.training.launch import LaunchError
    from genbook.training.loop import TrainingError

    try:
        yield
    except (ValueError, CheckpointError, LaunchError, TrainingError) as error:
        raise _Failed(error) from error


def summary(dataset):
    """How many images of what size, and how many of each class, in a few lines."""
    n, channels, height, width = dataset.images.shape
    counts = np.bincount(dataset.labels, minlength=len(dataset.classes))
    lines = [f"{dataset.name}, {dataset.split}: {n} images of {channels} x {height} x {width}"]
    lines += [f"  {name}  {count}" for name, count in zip(dataset.classes, counts)]
    return "\n".join(lines)


def contact_sheet(dataset, columns=20, cell=48):
    """Images from all over the set, one class a row, enlarged to about `cell` pixels each."""
    size = dataset.images.shape[-1]
    sheet = np.zeros((len(dataset.classes), columns, size, size), dtype=np.uint8)
    for label, row in enumerate(sheet):
        images = dataset.images[dataset.labels == label, 0]
        few = images[:: max(1, len(images) // columns)][:columns]
        row[: len(few)] = np.rint(255 * few)
    return _sheet(sheet, cell)


def _sheet(images, cell=48):
    """One picture of uint8 images [rows, columns, H, W], enlarged to about `cell` pixels each."""
    rows, columns, height, width = images.shape
    image = Image.fromarray(images.transpose(0, 2, 1, 3).reshape(rows * height, columns * width))
    times = max(1, round(cell / width))
    return image.resize((times * image.width, times * image.height), Image.Resampling.NEAREST)


def text_sheet(dataset, columns=80):
    """The first image of each class in letters, as many side by side as `columns` allow."""
    blocks = []
    for label in range(len(dataset.classes)):
        blocks += [_letters(image) for image in dataset.images[dataset.labels == label, 0][:1]]
    across = max(1, columns // (dataset.images.shape[-1] + 1))
    rows = [zip(*blocks[i : i + across]) for i in range(0, len(blocks), across)]
    return "\n".join(" ".join(line).rstrip() for row in rows for line in row)


def _letters(image):
    """An image [H, W] as lines of text; letters are twice as high as wide: one for two rows."""
    height = len(image) // 2 * 2
    pairs = image[:height].reshape(-1, 2, image.shape[1]).mean(1)
    shades = np.rint(pairs * (len(_SHADES) - 1)).astype(int)
    return ["".join(line) for line in _SHADES[shades]]


if __name__ == "__main__":
    sys.exit(main())
