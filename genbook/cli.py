"""The command `genbook`. `_parser` lists the subcommands, each with the function that it runs."""

import argparse
import contextlib
import dataclasses
import math
import os
import shutil
import sys
import warnings

import numpy as np
from PIL import Image

from genbook import __version__, accelerate, data
from genbook.data import files
from genbook.lab import exam
from genbook.lab.assignments import AssignmentError
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
    except (data.DataError, AssignmentError, exam.ExamError, OSError, _Failed) as error:
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

    def parse_known_args(self, args=None, namespace=None):
        """Refuse what is unknown here, where `prog` has the subcommand in it."""
        namespace, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return namespace, unknown


def _parser():
    parser = _Parser(prog="genbook", description="Data and models of the book, from the shell.")
    parser.add_argument("--version", action="version", version=f"genbook {__version__}")
    commands = parser.add_subparsers(required=True, metavar="command")
    data_parser = commands.add_parser("data", help="fetch or look at a data set")
    _add_data_actions(data_parser.add_subparsers(required=True, metavar="action"))
    _add_train_arguments(commands.add_parser("train", help="train a model, by one process or many"))
    _add_sample_arguments(commands.add_parser("sample", help="draw samples of a trained model"))
    assignment = commands.add_parser("assignment", help="make the lab's tasks, and grade them")
    _add_assignment_actions(assignment.add_subparsers(required=True, metavar="action"))
    examination = commands.add_parser("exam", help="write an exam, and its answers")
    _add_exam_actions(examination.add_subparsers(required=True, metavar="action"))
    return parser


def _add_data_actions(actions):
    fetch = actions.add_parser("fetch", help="download a data set and check its files")
    fetch.set_defaults(run=_fetch)
    show = actions.add_parser("show", help="count a data set's images and show some")
    show.set_defaults(run=_show)
    for action in (fetch, show):
        action.add_argument("name", choices=data.NAMES, help="one of %(choices)s", metavar="name")
        _add_root(action)
    show.add_argument("--split", choices=data.SPLITS, default="train")
    show.add_argument("--size", type=_size, help="pixels per side (default: the set's own)")
    show.add_argument("--out", type=_png, metavar="FILE.png", help="for a contact sheet")


def _add_root(parser):
    parser.add_argument("--root", type=_path, metavar="DIR", help="where the data set's files are")


def _add_train_arguments(parser):
    parser.description = "Train a model of the book. What is not given is as the book has it."
    parser.set_defaults(run=_train)
    one_of, default = "one of %(choices)s", " (default: %(default)s)"
    add = parser.add_argument
    add("model", choices=spec.MODELS, metavar="model", help=one_of)
    add("--data", choices=data.NAMES, default="digits", metavar="NAME", help=one_of + default)
    _add_root(parser)
    add("--size", type=_size, help="pixels per side, a multiple of 4")
    add("--steps", type=_whole(1), help="of training (default: the book's, for this data set)")
    add("--batch-size", type=_whole(1), metavar="B", help="images per step, of all processes")
    add("--lr", type=float, help="the peak of the learning rate (default: the book's)")
    add("--seed", type=_whole(0), default=0)
    add("--prediction", choices=spec.PREDICTIONS, help="of a diffusion model (default: v)")
    add("--out", type=_path, metavar="FOLDER", help="for all files (default: MODEL-DATA)")
    add("--resume", action="store_true", help="from the checkpoint in FOLDER, with its settings")
    here = "processes on this machine, one core or GPU each" + default
    add("--nproc", type=_whole(1), default=1, metavar="N", help=here)
    machines = "machines; give this command to each of them" + default
    add("--nnodes", type=_whole(1), default=1, metavar="M", help=machines)
    add("--master", metavar="HOST:PORT", help="where they meet, on one of them")


def _add_sample_arguments(parser):
    parser.set_defaults(run=_sample)
    default = "(default: %(default)s)"
    add = parser.add_argument
    add(
        "file",
        type=_path,
        metavar="MODEL.safetensors",
        help="what genbook train has made, or its folder",
    )
    add("--out", type=_png, metavar="FILE.png", required=True, help="the contact sheet")
    add("--count", type=_whole(1), default=64, metavar="N", help=default)
    add("--seed", type=_whole(0), default=0)
    add("--steps", type=_whole(1), default=50, help=f"of DDIM, for a diffusion model {default}")
    _add_root(parser)
    guidance = f"how far a diffusion model goes past its labels {default}"
    add("--guidance", type=float, default=0.5, help=guidance)


def _add_assignment_actions(actions):
    build = actions.add_parser("build", help="write the assignments, for students and instructors")
    build.set_defaults(run=_build)
    build.add_argument("out", metavar="OUT", help="a new folder; students get OUT/release")
    seed = "of the hidden tests (default: drawn by chance)"
    build.add_argument("--seed", type=_whole(1), metavar="N", help=seed)

    grade = actions.add_parser("grade", help="grade a folder of notebooks")
    grade.set_defaults(run=_grade)
    layout = "holds STUDENT/task1.ipynb or STUDENT_task1.ipynb, and so on"
    grade.add_argument("submissions", metavar="SUBMISSIONS", help=layout)
    grade.add_argument("out", metavar="OUT", help="the folder that build has made")
    limit = "that one notebook may take (default: %(default)s)"
    grade.add_argument("--seconds", type=_whole(1), default=300, metavar="N", help=limit)
    grade.add_argument("--memory", type=_whole(1), default=4, metavar="GB", help=limit)

    again = "write grades and feedback anew, with points by hand"
    export = actions.add_parser("export", help=again)
    export.set_defaults(run=_export)
    export.add_argument("out", metavar="OUT", help="the folder with what was graded")


def _add_exam_actions(actions):
    build = actions.add_parser("build", help="write questions.md and answers.md")
    build.set_defaults(run=_exam)
    add = build.add_argument
    add("out", metavar="OUT", type=_path, help="the folder for both")
    chapters = "to ask about, such as vae unet (default: all)"
    add("--chapters", nargs="+", default=(), metavar="NAME", help=chapters)
    minutes = "of an exam that is drawn (default: all questions)"
    add("--minutes", type=_whole(1), metavar="N", help=minutes)
    add("--seed", type=_whole(0), metavar="N", help="of the draw (default: drawn by chance)")
    bank = "with your own questions (default: the book's)"
    add("--bank", type=_path, default=exam.BANK, metavar="DIR", help=bank)


def _whole(least, most=math.inf):
    """The argparse type of a whole number from `least` to `most`."""

    def number(text):
        value = int(text) if text.isascii() and text.isdecimal() else -1
        if not least <= value <= most:
            limits = f"of at least {least}" if most == math.inf else f"from {least} to {most}"
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number {limits}")
        return value

    return number


_size = _whole(8, data.MOST_SIZE)


def _path(text):
    """The argparse type of a path: the shell leaves `~` alone in --out=~/sheet.png."""
    return str(files.expanded(text))


def _png(text):
    """The argparse type of a picture to be written, so that nothing is computed in vain."""
    path = files.expanded(text)
    if path.suffix.lower() != ".png":
        raise argparse.ArgumentTypeError(f"{text!r} does not end in .png")
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {path.parent}")
    return str(path)


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

    names = [field.name for field in dataclasses.fields(spec.TrainingSpec)]
    with _one_line_errors(), accelerate.enabled():
        training = spec.TrainingSpec(**{name: getattr(args, name) for name in names})
        file = launch.launch(training, args.nproc, args.nnodes, args.master)
    if file:
        print(f"model: {file}")


def _sample(args):
    from genbook import models

    if os.path.isdir(args.file):
        args.file = os.path.join(args.file, "model.safetensors")
    with _one_line_errors(), accelerate.enabled():
        images = models.sample(
            args.file, args.count, args.seed, args.steps, args.guidance, args.root
        )
    columns = math.ceil(math.sqrt(len(images)))
    cells = np.zeros((columns * math.ceil(len(images) / columns), *images.shape[2:]), np.uint8)
    cells[: len(images)] = np.rint(255 * images[:, 0])
    _sheet(cells.reshape(-1, columns, *images.shape[2:])).save(args.out, format="PNG")
    print(f"contact sheet: {args.out}")


def _build(args):
    from genbook.lab.assignments.build import build

    for path in build(args.out, args.seed):
        print(path)


def _grade(args):
    from genbook.lab.assignments.grade import grade

    print(grade(args.submissions, args.out, args.seconds, args.memory * 10**9))


def _export(args):
    from genbook.lab.assignments.grade import export

    print(export(args.out))


def _exam(args):
    for path in exam.build(args.out, args.chapters, args.minutes, args.seed, args.bank):
        print(path)


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
