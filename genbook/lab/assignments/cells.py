"""The cells of an assignment: text, given code, answers, questions and tests."""

import textwrap

from .sources import BEGIN, END, standalone

HIDDEN = "### BEGIN HIDDEN TESTS", "### END HIDDEN TESTS"  # the grading tool's own words

IMPORTS = """\
import matplotlib.pyplot as plt
import numpy as np
import paddle
import paddle.nn as nn
import paddle.nn.functional as F
"""
CARRIED = (
    "data.load",
    "training.loop.fit",
    "figures.plots.image_rows",
    "figures.plots.loss_curves",
    "autoencoder._maps",  # this and the next are called by the answers
    "vae._same_shape",
)


def text(name, source):
    """A passage to read."""
    return _cell("markdown", name, source, locked=True)


def given(name, source, folded=False):
    """Code that is run and not changed; folded, where it need not be read."""
    return _cell("code", name, source, locked=True, folded=folded)


def setup():
    """What every assignment begins with: imports, the digits, a training loop, figures."""
    helpers = standalone(*(f"genbook.{name}" for name in CARRIED))
    return given("setup", f"{helpers}\n\n{IMPORTS}", folded=True)


def answer(name, source):
    """Code to be written where the source has a marked solution."""
    return _cell("code", name, f"# Answer: {name}\n{source}", solution=True)


def drawing(name, points, solution):
    """Code to be written that a person grades, for its figure."""
    source = f"# Answer: {name}\n{_solution(solution)}"
    return _cell("code", name, source, solution=True, points=points)


def question(name, points, asked, solution):
    """A question to be answered in words, which a person grades: two cells."""
    source = f"<!-- Answer: {name} -->\n{_solution(solution)}"
    return [
        text(f"{name}-question", f"**Question ({points} points).** {asked.strip()}"),
        _cell("markdown", name, source, solution=True, points=points),
    ]


def test(name, points, needs, calls, hidden="", value=None):
    """A check of the answers, with points.

    It stands in a function, so that its helpers neither replace the student's names nor can be
    replaced. needs: the names of the package that it carries. calls: the lines that run it;
    hidden: lines that the student's copy does not have. value: an expression for the points
    where some may be given, else all are for getting this far.
    """
    body = (standalone(*needs) + "\n" if needs else "") + calls.strip() + "\n"
    if hidden:
        body += f"{HIDDEN[0]}\n{hidden.strip()}\n{HIDDEN[1]}\n"
    body += f"return {value or points}  # points"
    source = "def check():\n" + textwrap.indent(body, "    ") + "\n\n\ncheck()"
    return _cell("code", name, source, locked=True, points=points, folded=True)


def checked(name, points, check, answer, hidden, before=""):
    """A test that gives the share of the points that a check of the package finds earned.

    check: such as "genbook.lab.checks.vae.check_gaussian_kl". answer: what it is called with.
    hidden: the seeds that the student's copy does not have. before: lines that run first.
    """
    needs = [check, "genbook.lab.checks.compare.marks"]
    value = f"marks({points}, {check.rpartition('.')[2]}, {answer}, seeds)"
    return test(name, points, needs, f"{before}\nseeds = [0]", f"seeds += {hidden}", value)


def _solution(source):
    return f"{BEGIN}\n{source.strip()}\n{END}"


def _cell(kind, name, source, *, locked=False, solution=False, points=None, folded=False):
    nbgrader = {
        "schema_version": 3, "grade_id": name, "grade": points is not None, "locked": locked,
        "solution": solution, "task": False,
    }  # fmt: skip
    if points is not None:
        nbgrader["points"] = points
    metadata = {"nbgrader": nbgrader}
    if folded:
        metadata["jupyter"] = {"source_hidden": True}
    cell = {"cell_type": kind, "id": name, "metadata": metadata, "source": source.strip()}
    if kind == "code":
        cell |= {"execution_count": None, "outputs": []}
    return cell
