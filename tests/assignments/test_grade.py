"""Grading: what is handed in cannot stop the grader, nor keep points that the tests do not give.

Most of it runs on a course of one tiny task, which needs no Paddle.
"""

import copy
import csv
import json
import os
import time

import pytest

from genbook import cli

nbgrader = pytest.importorskip("nbgrader", reason="needs nbgrader: pip install '.[grading]'")

import nbformat

from genbook.lab.assignments import cells as make
from genbook.lab.assignments.build import course, run, write_notebook
from genbook.lab.assignments.grade import grade

RIGHT = "# Answer: double\ndef double(x):\n    return 2 * x"
WHY = "<!-- Answer: why -->\nBecause."


def mini_cells():
    return [
        make.text("intro", "# Double"),
        make.given("setup", "import sys\nstart = 1"),
        make.answer("double", 'def double(x):\n    """Twice x."""\n'
                    "    ### BEGIN SOLUTION\n    return 2 * x\n    ### END SOLUTION"),
        make.test("double-test", 2, [], 'assert double(3) == 6, "3 is not doubled"',
                  'assert double(4) == 8, "4 is not doubled"'),
        make.test("half-test", 4, [], "", value="4 if double(3) == 6 else 1"),
        *make.question("why", 3, "Why?", "Because."),
    ]  # fmt: skip


@pytest.fixture(scope="module")
def mini(tmp_path_factory):
    """A course of one task, mini, and the notebook that students get."""
    out = tmp_path_factory.mktemp("mini") / "out"
    write_notebook(out / "source/mini/mini.ipynb", mini_cells())
    with course(out) as api:
        run(api.generate_assignment, "mini")
    return out, json.loads((out / "release/mini/mini.ipynb").read_text(encoding="utf-8"))


def answered(notebook, code=RIGHT, why=WHY):
    """A student's notebook with these answers."""
    notebook = copy.deepcopy(notebook)
    for cell in notebook["cells"]:
        name = cell["metadata"]["nbgrader"]["grade_id"]
        cell["source"] = {"double": code, "why": why}.get(name, cell["source"])
    return notebook


def code_cell(source):
    return {"cell_type": "code", "id": "mine", "metadata": {}, "source": source,
            "execution_count": None, "outputs": []}  # fmt: skip


def with_cell(notebook, source, at=0):
    """A notebook with one more cell."""
    notebook = copy.deepcopy(notebook)
    notebook["cells"].insert(at, code_cell(source))
    return notebook


def place(notebook, name):
    return [c["metadata"].get("nbgrader", {}).get("grade_id") for c in notebook["cells"]].index(
        name
    )


def graded(out, folder, **limits):
    """The rows of grades.csv for the students in `folder`, by student."""
    lines = []
    path = grade(folder, out, report=lines.append, **limits)
    students = {p.stem.removesuffix("_mini") for p in folder.iterdir()}
    with open(path, newline="", encoding="utf-8") as file:
        rows = {row["student"]: row for row in csv.DictReader(file)}
    assert len(lines) == len(students)
    return {student: rows[student] for student in students}


def hand_in(folder, notebooks):
    for student, content in notebooks.items():
        if not isinstance(content, (str, bytes)):
            content = json.dumps(content)
        path = folder / f"{student}_mini.ipynb"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())


def test_what_is_graded(mini, tmp_path, monkeypatch):
    """Answers count, wherever they come from; tests are those of the assignment."""
    monkeypatch.setenv("SECRET_TOKEN", "s3cret")
    out, release = mini
    nothing = "import os\nassert 'SECRET_TOKEN' not in os.environ and not os.path.exists('notebook.ipynb')"
    right = answered(release, f"{nothing}\n{RIGHT}")

    bare = copy.deepcopy(right)  # as a service keeps it that knows no marks
    for cell in bare["cells"]:
        cell["metadata"] = {}
        cell.pop("id")
    bare["nbformat_minor"] = 4

    deleted = answered(release, "def double(x):\n    return 0")
    deleted["cells"] = [c for c in deleted["cells"] if not c["id"].endswith("-test")]

    edited = answered(release, "double = None")
    for cell in edited["cells"]:
        if cell["id"].endswith("-test"):
            cell["source"] = "2"
            cell["metadata"]["tags"] = ["skip-execution"]
            cell["metadata"]["nbgrader"] |= {"points": 100, "locked": False, "solution": True}
            cell["outputs"] = [{"output_type": "execute_result", "execution_count": 1,
                                "metadata": {}, "data": {"text/plain": "100"}}]  # fmt: skip

    marked = answered(release, "double = None")
    for cell in marked["cells"]:
        if cell["id"].endswith("-test"):
            cell["metadata"]["nbgrader"]["grade_id"] = cell["id"] = "x" + cell["id"]
            cell["source"] = "pass"

    # An added cell, and a copy of the answer's cell that comes after it and counts
    helped = with_cell(answered(release, "double = None"), "def helper(x):\n    return x + x", 1)
    copied = copy.deepcopy(helped["cells"][place(helped, "double")])
    copied["source"] = "double = lambda value: helper(value)"
    helped["cells"].insert(place(helped, "double") + 1, copied)

    swallow = "get_ipython().set_custom_exc((BaseException,), lambda *a, **k: None)"
    hand_in(tmp_path, {
        "张三": right, "bare": bare, "helped": helped,
        "stub": release, "deleted": deleted, "edited": edited, "marked": marked,
        "wrong": answered(release, "def double(x):\n    return x + 3"),
        "tampered": with_cell(right, "check = lambda: 4", at=4),
        "swallowed": with_cell(answered(release, "double = None"), swallow),
    })  # fmt: skip

    rows = graded(out, tmp_path)
    scores = {s: (row["double-test"], row["half-test"]) for s, row in rows.items()}
    full, none = ("2.0", "4.0"), ("0.0", "0.0")
    assert scores == {
        "张三": full, "bare": full, "helped": full, "tampered": full,
        "stub": ("0.0", "1.0"), "deleted": ("0.0", "1.0"), "edited": none, "marked": none,
        "wrong": ("0.0", "4.0"), "swallowed": none,
    }  # fmt: skip
    assert {row["max_score"] for row in rows.values()} == {"9.0"}
    assert rows["张三"]["to_grade_by_hand"] == "3.0" and rows["张三"]["reason"] == ""
    assert rows["stub"]["to_grade_by_hand"] == "0.0"  # nothing was answered: nothing to read
    assert "double-test: 4 is not doubled" in rows["wrong"]["reason"]
    feedback = (out / "feedback/wrong/mini/mini.html").read_text(encoding="utf-8")
    assert "4 is not doubled" in feedback
    assert all((out / f"feedback/{s}/mini/mini.html").exists() for s in rows)


def test_what_cannot_be_graded_gets_zero_with_a_reason(mini, tmp_path):
    out, release = mini
    right = json.dumps(answered(release))
    hand_in(tmp_path, {
        "broken": right[:-20],
        "empty": b"",
        "no-cells": dict(release, cells=[]),
        "not-cells": dict(release, cells="none"),
        "number": b"7",
        "deep": b"[" * 200_000,
        "latin": right.replace("Because", "D\u00e9j\u00e0").encode("latin-1", "replace"),
        "utf16": right.encode("utf-16"),
        "other": dict(release, cells=[code_cell("print('quite another notebook')")]),
        "large": right + " " * 21_000_000,
        "importing": answered(release, code="import nothing_of_this_name\n" + RIGHT),
        "solutions": answered(release, code="from genbook.vae import VAE\n" + RIGHT),
        "loud": with_cell(answered(release), "while True:\n    print('x' * 100_000)", at=3),
        "killed": with_cell(answered(release), "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)"),
        "hungry": answered(release, code="memory = bytearray(9 * 10**9)\n" + RIGHT),
    })  # fmt: skip
    text = json.dumps(answered(release, why="D\u00e9j\u00e0 vu"), ensure_ascii=False)
    (tmp_path / "latin_mini.ipynb").write_bytes(text.encode("latin-1"))
    (tmp_path / "linked_mini.ipynb").symlink_to(tmp_path / "empty_mini.ipynb")
    (tmp_path / "renamed").mkdir()
    (tmp_path / "renamed" / "homework final (2).ipynb").write_text(right)
    (tmp_path / "nothing").mkdir()
    (tmp_path / "nothing" / "mini.py").write_text("double = 2")
    (tmp_path / "zz-right").mkdir()
    (tmp_path / "zz-right" / "Mini.ipynb").write_text(right)

    rows = graded(out, tmp_path, memory=4 * 10**9)
    last = rows.pop("zz-right")
    assert last["score"] == "6.0" and last["to_grade_by_hand"] == "3.0"
    says = {
        "broken": "not a Jupyter notebook", "empty": "empty file", "no-cells": "none of the cells",
        "not-cells": "not a Jupyter notebook", "number": "not a Jupyter notebook",
        "deep": "not a Jupyter notebook", "latin": "not in UTF-8", "utf16": "not in UTF-8",
        "other": "none of the cells", "large": "clear its outputs",
        "importing": "name 'double' is not defined", "solutions": "name 'double' is not defined",
        "loud": "put out more than 10 MB", "killed": "its Python process died",
        "hungry": "name 'double' is not defined",
        "linked": "a link", "renamed": "named homework final (2).ipynb",
        "nothing": "no notebook (.ipynb) was handed in",
    }  # fmt: skip
    for student, row in rows.items():
        assert float(row["score"]) == 0, student
        assert says[student] in row["reason"], student
    assert set(rows) == set(says)


def test_never_ending_notebooks_are_ended_with_all_that_they_started(mini, tmp_path):
    out, release = mini
    flag = tmp_path / "alive"
    orphan = f"""
import os, time
if os.fork() == 0:
    os.setsid()
    while True:
        open({str(flag)!r}, "a").write("x")
        time.sleep(0.2)
"""
    folder = tmp_path / "in"
    folder.mkdir()
    hand_in(folder, {"busy": with_cell(answered(release), orphan + "while True: pass", at=3)})
    for seconds in (6, 60, 600):
        row = graded(out, folder, seconds=seconds)["busy"]
        assert row["score"] == "0.0" and f"did not end within {seconds} s" in row["reason"]
        if flag.exists():
            break
    size = flag.stat().st_size  # somebody has written
    time.sleep(1)
    assert flag.stat().st_size == size


def test_a_runner_that_is_held_up_is_ended_from_outside(mini, monkeypatch):
    from genbook.lab.assignments import isolated

    monkeypatch.setattr(isolated, "GRACE", 0.0)  # and less than it takes to start
    notebook = isolated.run(nbformat.from_dict(mini[1]), 0.01, 10**9, 10**6)
    assert notebook.metadata["genbook"] == {"reason": "it did not end within 0.01 s"}


def test_handed_in_twice(mini, tmp_path):
    out, release = mini
    hand_in(tmp_path, {"both": answered(release)})
    (tmp_path / "both").mkdir()
    (tmp_path / "both/mini.ipynb").write_text(json.dumps(answered(release)))
    path = grade(tmp_path, out, report=lambda line: None)
    with open(path, newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["student"] == "both"]
    assert [row["score"] for row in rows] == ["0.0"] and "more than once" in rows[0]["reason"]


def test_grading_again_and_points_by_hand(mini, tmp_path, capsys):
    out, release = mini
    hand_in(tmp_path, {"again": b"{"})
    assert graded(out, tmp_path)["again"]["score"] == "0.0"
    hand_in(tmp_path, {"again": answered(release)})
    row = graded(out, tmp_path)["again"]
    assert [row[k] for k in ("score", "to_grade_by_hand", "reason")] == ["6.0", "3.0", ""]

    with course(out) as api, api.gradebook as gradebook:
        grade_of_why = gradebook.find_grade("why", "mini", "mini", "again")
        grade_of_why.manual_score, grade_of_why.needs_manual_grade = 2.5, False
        gradebook.find_comment("why", "mini", "mini", "again").manual_comment = "Well said."
        gradebook.db.commit()
    assert cli.main(["assignment", "export", str(out)]) == 0
    with open(capsys.readouterr().out.strip(), newline="", encoding="utf-8") as file:
        (row,) = (row for row in csv.DictReader(file) if row["student"] == "again")
    assert [row[k] for k in ("score", "why", "to_grade_by_hand")] == ["8.5", "2.5", "0.0"]
    feedback = (out / "feedback/again/mini/mini.html").read_text(encoding="utf-8")
    assert "Well said." in feedback


def test_there_is_nothing_to_export(tmp_path, capsys):
    assert cli.main(["assignment", "export", str(tmp_path)]) == 1
    assert "nothing that was graded" in capsys.readouterr().err


@pytest.mark.parametrize(
    "folder, says",
    [
        ("missing", "is not a folder"),
        ("submissions", "holds no notebooks"),
        ("", "holds no notebooks"),  # but a folder
    ],
)
def test_a_folder_without_submissions(folder, says, tmp_path, capsys):
    out = tmp_path / "out"
    (tmp_path / "submissions").mkdir()
    assert cli.main(["assignment", "grade", os.path.join(tmp_path, folder), str(out)]) == 1
    assert says in capsys.readouterr().err and not out.exists()
