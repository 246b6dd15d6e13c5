"""The lab's own tasks through nbgrader, from the built course to the exported CSV."""

import csv

import pytest

pytest.importorskip("nbgrader", reason="needs nbgrader: pip install '.[grading]'")

from genbook.lab.assignments.build import TASKS, build
from genbook.lab.assignments.grade import grade


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """The folder of the built course."""
    out = tmp_path_factory.mktemp("tasks") / "out"
    build(out, seed=0)
    return out


def graded(course, folder, version, student):
    """The rows of grades.csv by (student, task), once `student` has handed in this version."""
    for task in TASKS:
        text = (course / version / task / f"{task}.ipynb").read_text(encoding="utf-8")
        (folder / f"{student}_{task}.ipynb").write_text(text, encoding="utf-8")
    (folder / "late_task1.ipynb").write_bytes(b"")
    path = grade(folder, course, seconds=3600, report=lambda line: None)
    with open(path, newline="", encoding="utf-8") as file:
        return {(row["student"], row["task"]): row for row in csv.DictReader(file)}


@pytest.fixture(scope="module")
def solutions(course, tmp_path_factory):
    """The rows of who has handed in the solutions, which train for minutes."""
    return graded(course, tmp_path_factory.mktemp("solutions"), "source", "solution")


@pytest.fixture(scope="module")
def stubs(course, tmp_path_factory):
    """The rows of who has handed in what students get."""
    return graded(course, tmp_path_factory.mktemp("stubs"), "release", "stub")


def points(task, by_hand):
    """The points of a task's cells, by name: those of its tests, or those graded by a person."""
    marks = (cell["metadata"]["nbgrader"] for cell in TASKS[task].cells((1, 2, 3)))
    return {m["grade_id"]: m["points"] for m in marks if m["grade"] and m["solution"] == by_hand}


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_the_solution_gets_full_marks(solutions, task):
    row = solutions["solution", task]
    assert row["reason"] == ""
    assert {name: float(row[name]) for name in points(task, False)} == points(task, False)
    assert float(row["to_grade_by_hand"]) == sum(points(task, True).values())
    assert float(row["score"]) + float(row["to_grade_by_hand"]) == float(row["max_score"])


@pytest.mark.parametrize("task", TASKS)
def test_the_stub_gets_nothing_for_any_blank(stubs, task):
    row = stubs["stub", task]
    assert float(row["score"]) == 0 and float(row["to_grade_by_hand"]) == 0
    for name in points(task, False):
        assert float(row[name]) == 0 and f"{name}: " in row["reason"]


def test_a_task_that_is_not_handed_in(stubs):
    assert stubs["late", "task2"]["score"] == "0.0"
    assert stubs["late", "task2"]["reason"] == "nothing was handed in"
