"""The command `genbook`. Each subcommand is one `_add_..._parser` and the function it runs."""

import argparse
import os
import shutil
import sys

import numpy as np
from PIL import Image

from genbook import data
from genbook.assignments import AssignmentError, command

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
    try:
        args = _parser().parse_args(argv)
        args.run(args)
        sys.stdout.flush()
    except SystemExit as stop:  # argparse's way out, for --help and for wrong usage
        return stop.code
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (data.DataError, AssignmentError, OSError) as error:
        print(f"genbook: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


class _Parser(argparse.ArgumentParser):
    def error(self, message):
        self.exit(2, f"genbook: {message} (see {self.prog} --help)\n")


def _parser():
    parser = _Parser(prog="genbook", description="Data and models of the book, from the shell.")
    commands = parser.add_subparsers(required=True, metavar="command")
    _add_data_parser(commands)
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
    parser.add_argument("--root", metavar="DIR", help="the folder of the files")


def _size(text):
    size = int(text) if text.isdecimal() else 0
    if size < 8:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 8")
    return size


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
    sheet = sheet.transpose(0, 2, 1, 3).reshape(len(sheet) * size, columns * size)
    image = Image.fromarray(sheet)
    times = max(1, round(cell / size))
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
