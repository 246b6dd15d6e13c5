"""The assignments as they are written: what students get, and what they do not."""

import ast
import builtins
import inspect
import json
import sys
from pathlib import Path

import pytest

import genbook
from genbook import cli, vae
from genbook.lab.assignments import AssignmentError
from genbook.lab.assignments.build import TASKS, build, run, write_sources
from genbook.publishing.source import bound_by, names_used

pytest.importorskip("nbgrader", reason="needs nbgrader: pip install '.[grading]'")

BLANKS = {
    "task1": {"network"},
    "task2": {"reparameterize", "gaussian-kl", "improve", "figure", "why-reparameterize",
              "role-of-kl", "codes"},
    "task3": {"q_sample", "q_posterior_mean_variance", "p_sample", "last-step", "compare"},
}  # fmt: skip
BLANKS["task1"] |= {"sizes", "compare"}


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    out = tmp_path_factory.mktemp("course") / "out"
    assert cli.main(["assignment", "build", str(out), "--seed", "1234"]) == 0
    return out


def cells(course, version, task):
    path = course / version / task / f"{task}.ipynb"
    notebook = json.loads(path.read_text(encoding="utf-8"))
    return {cell["metadata"]["nbgrader"]["grade_id"]: cell for cell in notebook["cells"]}


def text(cell):
    return "".join(cell["source"])


@pytest.mark.parametrize("task", TASKS)
def test_students_get_neither_solutions_nor_hidden_tests(course, task):
    source, release = (cells(course, version, task) for version in ("source", "release"))
    assert list(source) == list(release)
    blanks = {
        name
        for name, cell in release.items()
        if text(cell) != text(source[name]) and "HIDDEN" not in text(source[name])
    }
    assert blanks == BLANKS[task]
    for name, cell in release.items():
        assert "SOLUTION" not in text(cell) and "HIDDEN" not in text(cell)
        assert "1235" not in text(cell), "the seed of the hidden tests"
        if name in blanks:
            assert "YOUR CODE HERE" in text(cell) or "YOUR ANSWER HERE" in text(cell)
    assert any("1235" in text(cell) for cell in source.values())


@pytest.mark.parametrize("task", TASKS)
def test_a_notebook_needs_nothing_of_ours(course, task):
    allowed = {"paddle", "numpy", "matplotlib", "sklearn", "scipy"}  # sklearn stands on scipy
    for version in ("source", "release"):
        for cell in cells(course, version, task).values():
            if cell["cell_type"] != "code":
                continue
            for node in ast.walk(ast.parse(text(cell))):
                names = []
                if isinstance(node, ast.Import):
                    names = [alias.name for alias in node.names]
                elif isinstance(node, ast.ImportFrom):
                    names = [node.module]
                for name in names:
                    package = name.split(".")[0]
                    assert package in allowed or package in sys.stdlib_module_names, name


def test_the_code_is_that_of_the_lessons(course):
    source = cells(course, "source", "task2")
    for name in ("reparameterize", "gaussian-kl"):
        lines = [
            x for x in text(source[name]).splitlines() if "###" not in x and "# Answer" not in x
        ]
        assert "\n".join(lines) in inspect.getsource(vae)


@pytest.mark.parametrize("task", TASKS)
def test_a_solution_uses_only_what_comes_before_it(task):
    known = set(vars(builtins))
    for cell in TASKS[task].cells((1, 2, 3)):
        if cell["cell_type"] == "code":
            known |= bound_by(cell["source"])
            if cell["metadata"]["nbgrader"]["solution"]:
                assert set(names_used(cell["source"])) <= known, cell["id"]


def test_the_lessons_show_no_marks():
    for path in Path(genbook.__file__).parent.glob("*.py"):
        assert "SOLUTION" not in path.read_text(encoding="utf-8"), path


def test_the_seed_makes_the_hidden_tests(course, tmp_path, monkeypatch):
    monkeypatch.setattr("genbook.lab.assignments.build.TASKS", {"task3": TASKS["task3"]})
    write_sources(tmp_path / "same", 1234)
    write_sources(tmp_path / "other", 1235)
    first, again, other = (
        (folder / "source/task3/task3.ipynb").read_bytes()
        for folder in (course, tmp_path / "same", tmp_path / "other")
    )
    assert first == again != other


def test_assignments_are_not_overwritten(course, capsys):
    assert cli.main(["assignment", "build", str(course)]) == 1
    assert "already holds assignments" in capsys.readouterr().err


def test_without_nbgrader_the_command_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "nbgrader", None)
    with pytest.raises(AssignmentError, match=r"pip install '.\[grading\]'"):
        build(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_failure_of_nbgrader_is_told_in_its_own_words():
    log = "[INFO] Converting\n[ERROR] Traceback:\n      raise OSError(x)\n    OSError: the disk is full"
    failed = {"success": False, "log": log, "error": "NbGraderException: see above"}
    with pytest.raises(AssignmentError, match="^nbgrader failed: OSError: the disk is full$"):
        run(lambda: failed)
    with pytest.raises(AssignmentError, match="no reason given"):
        run(lambda: {"success": False})
