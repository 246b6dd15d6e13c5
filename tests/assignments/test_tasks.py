"""The lab's own tasks through nbgrader, from the built course to the exported CSV."""

import csv

import pytest

pytest.importorskip("nbgrader", reason="needs nbgrader: pip install 'genbook[grading]'")

from genbook.lab.assignments.build import TASKS, build
from genbook.lab.assignments.grade import grade


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """The rows of grades.csv by (student, task): the solutions, and the stubs."""
    folder = tmp_path_factory.mktemp("tasks")
    out, handed_in = folder / "out", folder / "in"
    handed_in.mkdir()
    build(out, seed=0)
    for task in TASKS:
        for student, version in {"solution": "source", "stub": "release"}.items():
            text = (out / version / task / f"{task}.ipynb").read_text(encoding="utf-8")
            (handed_in / f"{student}_{task}.ipynb").write_text(text, encoding="utf-8")
    (handed_in / "late_task1.ipynb").write_bytes(b"")
    path = grade(handed_in, out, seconds=1200, report=lambda line: None)
    with open(path, newline="", encoding="utf-8") as file:
        return {(row["student"], row["task"]): row for row in csv.DictReader(file)}


def points(task, by_hand):
    """The points of a task's cells, by name: those of its tests, or those graded by a person."""
    marks = (cell["metadata"]["nbgrader"] for cell in TASKS[task].cells((1, 2, 3)))
    return {m["grade_id"]: m["points"] for m in marks if m["grade"] and m["solution"] == by_hand}


@pytest.mark.parametrize("task", TASKS)
def test_the_solution_gets_full_marks(rows, task):
    row = rows["solution", task]
    assert row["reason"] == ""
    assert {name: float(row[name]) for name in points(task, False)} == points(task, False)
    assert float(row["to_grade_by_hand"]) == sum(points(task, True).values())
    assert float(row["score"]) + float(row["to_grade_by_hand"]) == float(row["max_score"])


@pytest.mark.parametrize("task", TASKS)
def test_the_stub_gets_nothing_for_any_blank(rows, task):
    row = rows["stub", task]
    assert float(row["score"]) == 0 and float(row["to_grade_by_hand"]) == 0
    for name in points(task, False):
        assert float(row[name]) == 0 and f"{name}: " in row["reason"]


def test_a_task_that_is_not_handed_in(rows):
    assert rows["late", "task2"]["score"] == "0.0"
    assert rows["late", "task2"]["reason"] == "nothing was handed in"
