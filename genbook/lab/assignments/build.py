"""Assignments written into a course folder, in the form of nbgrader."""

import contextlib
import logging
import os
import re
import secrets
import sys
import warnings
from pathlib import Path

from . import AssignmentError, task1, task2, task3

TASKS = {"task1": task1, "task2": task2, "task3": task3}

CONFIG = """\
# Read by nbgrader's commands when they are started in this folder.
c = get_config()
c.CourseDirectory.course_id = "genbook"
c.ClearSolutions.code_stub = {"python": "# YOUR CODE HERE"}
"""


def build(out, seed=None):
    """Write the three tasks into the folder `out`, which becomes a course of nbgrader.

    seed: of the hidden tests and of the samples that are graded; drawn by chance if None.
    Makes source/ (with solutions and hidden tests, for instructors), release/ (for students)
    and gradebook.db. Returns the paths of the notebooks in release/. Raises AssignmentError
    where `out` already holds assignments, and where nbgrader is missing.
    """
    out = Path(out)
    if (out / "source").exists():
        raise AssignmentError(
            f"{out} already holds assignments, perhaps with changes of yours: "
            "name another folder, or remove this one"
        )
    require_nbgrader()
    write_sources(out, secrets.randbelow(2**31) if seed is None else seed)
    (out / "nbgrader_config.py").write_text(CONFIG, encoding="utf-8")
    with course(out) as api:
        for name in TASKS:
            run(api.generate_assignment, name)
    return [out / "release" / name / f"{name}.ipynb" for name in TASKS]


def write_sources(out, seed):
    """Write the instructors' version of each task to the folder out/source."""
    hidden = tuple(1 + (seed + k) % 2**31 for k in range(3))  # students' copies have the seed 0
    for name, task in TASKS.items():
        write_notebook(out / "source" / name / f"{name}.ipynb", task.cells(hidden))


def write_notebook(path, cells):
    """Write a Python notebook of these cells."""
    import nbformat  # comes with nbgrader

    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    notebook = nbformat.v4.new_notebook(cells=nbformat.from_dict(cells), metadata=metadata)
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)


def require_nbgrader():
    """Raise AssignmentError where nbgrader is not installed."""
    try:
        import nbgrader  # noqa: F401
    except ImportError:
        raise AssignmentError(
            "assignments need nbgrader, which is not installed: with Python "
            "3.11 or newer, run pip install '.[grading]' in a copy of the source"
        ) from None


@contextlib.contextmanager
def course(folder, **options):
    """The interface of nbgrader to the course in `folder`.

    options: settings of its classes, such as Autograde={"...": ...}.
    """
    from nbgrader.apps import NbGraderAPI
    from traitlets.config import Config
    from traitlets.log import get_logger

    config = Config(
        {
            "CourseDirectory": {"root": str(Path(folder).resolve()), "course_id": "genbook"},
            "ClearSolutions": {"code_stub": {"python": "# YOUR CODE HERE"}},
            **options,
        }
    )
    # It writes every file that it copies to the log, starts `alembic` by this name, and has its
    # database complain of what is no mistake.
    log, path = logging.getLogger(get_logger().name), os.environ.get("PATH", "")
    handlers, log.handlers = log.handlers, [logging.NullHandler()]
    propagate, log.propagate = log.propagate, False
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), path])
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Object of type <Submitted")
            yield NbGraderAPI(config=config)
    finally:
        log.handlers, log.propagate, os.environ["PATH"] = handlers, propagate, path


def run(action, *args):
    """One action of nbgrader's interface; AssignmentError with its words where it fails."""
    result = action(*args)
    if not result["success"]:
        words = f"{result.get('log', '')}\n{result.get('error', '')}".strip().splitlines()
        words = [line.strip() for line in words] or ["no reason given"]
        errors = [line for line in words if re.match(r"[\w.]*(Error|Exception|Entry)(: |$)", line)]
        raise AssignmentError(f"nbgrader failed: {(errors or words)[0]}")
