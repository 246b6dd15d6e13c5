"""The command `genbook assignment`."""

import argparse


def add_parser(commands):
    """Add `assignment` and its actions to the subcommands of `genbook`."""
    parser = commands.add_parser("assignment", help="make the lab's tasks, and grade them")
    actions = parser.add_subparsers(required=True, metavar="action")
    _add_build_parser(actions)
    _add_grade_parser(actions)
    _add_export_parser(actions)


def _add_build_parser(actions):
    parser = actions.add_parser("build", help="write the assignments, for students and instructors")
    parser.add_argument("out", metavar="OUT", help="a new folder; students get OUT/release")
    parser.add_argument(
        "--seed", type=_whole, metavar="N", help="of the hidden tests (default: drawn by chance)"
    )
    parser.set_defaults(run=_build)


def _add_grade_parser(actions):
    parser = actions.add_parser("grade", help="grade a folder of notebooks")
    parser.add_argument(
        "submissions",
        metavar="SUBMISSIONS",
        help="holds STUDENT/task1.ipynb or STUDENT_task1.ipynb, and so on",
    )
    parser.add_argument("out", metavar="OUT", help="the folder that build has made")
    parser.add_argument(
        "--seconds",
        type=_whole,
        default=300,
        metavar="N",
        help="that one notebook may take (default: %(default)s)",
    )
    parser.add_argument(
        "--memory",
        type=_whole,
        default=4,
        metavar="GB",
        help="that one notebook may take (default: %(default)s)",
    )
    parser.set_defaults(run=_grade)


def _add_export_parser(actions):
    parser = actions.add_parser(
        "export", help="write grades and feedback anew, with points by hand"
    )
    parser.add_argument("out", metavar="OUT", help="the folder with what was graded")
    parser.set_defaults(run=_export)


def _whole(text):
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def _build(args):
    from .build import build  # takes a second, and no other command needs it

    for path in build(args.out, args.seed):
        print(path)


def _grade(args):
    from .grade import grade

    print(grade(args.submissions, args.out, args.seconds, args.memory * 10**9))


def _export(args):
    from .grade import export

    print(export(args.out))
