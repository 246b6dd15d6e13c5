"""Grading what a class handed in: nbgrader's autograder, one CSV, feedback for each student."""

import csv
import io
import re
import sys
from pathlib import Path

from genbook.system import write_atomically

from . import AssignmentError
from .build import build, course, require_nbgrader, run

COLUMNS = ["student", "task", "score", "max_score", "to_grade_by_hand", "reason"]


def grade(submissions, out, seconds=300.0, memory=4 * 10**9, report=print):
    """Grade a folder of notebooks in the course folder `out`; the path of its grades.csv.

    submissions: a folder of STUDENT/TASK.ipynb or STUDENT_TASK.ipynb. out: made by `build`, or
    built now. seconds, memory: what one notebook may take, in seconds and bytes. report: is given
    a line for each notebook.

    What cannot be graded gets no points, and the reason stands in the CSV and in the feedback.
    Raises AssignmentError where nbgrader is missing or nothing was handed in, FileNotFoundError
    where the folder does not exist.
    """
    if sys.platform == "win32":
        raise AssignmentError(
            "the grader limits time and memory in ways that Windows does not "
            "have: run it in the Windows Subsystem for Linux"
        )
    require_nbgrader()
    import nbformat

    from .isolated import Isolated
    from .submissions import find, notebooks, without_points

    out = Path(out)
    if not any(one.path.is_file() for one in find(submissions, ())):
        raise AssignmentError(f"{submissions} holds no notebooks")
    if not (out / "source").exists():
        build(out)
    releases = {task: nbformat.read(path, as_version=4) for task, path in _tasks(out).items()}
    pre = "nbgrader.preprocessors."
    after = ["LimitOutput", "SaveAutoGrades", "AssignLatePenalties", "CheckCellMetadata"]
    options = {
        "Autograde": {"autograde_preprocessors": [Isolated, *(pre + name for name in after)]},
        "Isolated": {"seconds": seconds, "memory": memory},
    }
    with course(out, **options) as api:
        for student, task, notebook in notebooks(submissions, releases):
            try:
                _autograde(api, out, student, task, notebook)
            except AssignmentError as error:  # nothing that is handed in may stop the rest
                empty = without_points(releases[task], f"the grader failed: {error}")
                _autograde(api, out, student, task, empty)
            row = _row(api, out, student, task)
            report(
                f"{student} {task}: {row['score']:g} of {row['max_score']:g} points, "
                f"{row['to_grade_by_hand']:g} to grade by hand. {row['reason']}".strip()
            )
        return _write_csv(api, out, releases)


def export(out):
    """Write grades.csv and all feedback of the course folder `out` anew; the path of the CSV.

    For points and comments that were given by hand since. Raises AssignmentError where nothing
    has been graded, or nbgrader is missing.
    """
    out = Path(out)
    graded = sorted(out.glob("autograded/*/*/*.ipynb"))
    if not graded:
        raise AssignmentError(f"{out} holds nothing that was graded")
    require_nbgrader()
    with course(out) as api:
        for path in graded:
            run(api.generate_feedback, path.parent.name, path.parent.parent.name)
        return _write_csv(api, out, _tasks(out))


def _tasks(out):
    """The notebooks that students get, by the names of their tasks."""
    paths = sorted(out.glob("release/*/*.ipynb"))
    return {path.stem: path for path in paths if path.stem == path.parent.name}


def _autograde(api, out, student, task, notebook):
    """Grade one notebook and write its feedback."""
    import nbformat

    path = out / "submitted" / student / task / f"{task}.ipynb"
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)
    run(api.autograde, task, student)
    run(api.generate_feedback, task, student)


def _write_csv(api, out, tasks):
    """One row for each student and task of the course, in grades.csv."""
    with api.gradebook as gradebook:
        students = sorted(student.id for student in gradebook.students)
    rows = [_row(api, out, student, task) for student in students for task in tasks]
    questions = sorted({name for row in rows for name in row}.difference(COLUMNS))
    path = out / "grades.csv"
    text = io.StringIO()
    writer = csv.DictWriter(text, [*COLUMNS, *questions], restval="")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, text.getvalue().encode())
    return path


def _row(api, out, student, task):
    """What the gradebook holds of one student's task, and what the tests said."""
    from nbgrader.api import MissingEntry

    row = {"student": student, "task": task, "score": 0.0, "to_grade_by_hand": 0.0}
    with api.gradebook as gradebook:
        row["max_score"] = gradebook.find_assignment(task).max_score
        try:
            submission = gradebook.find_submission(task, student)
        except MissingEntry:
            return row | {"reason": "nothing was handed in"}
        row["score"] = submission.score
        for grade in (grade for notebook in submission.notebooks for grade in notebook.grades):
            row[grade.name] = grade.score
            if grade.needs_manual_grade:
                row["to_grade_by_hand"] += grade.max_score
    return row | {"reason": _said(out / "autograded" / student / task / f"{task}.ipynb")}


def _said(path):
    """Why a graded notebook got no points, or what its tests said that did not give them all."""
    import nbformat

    if not path.exists():
        return "the graded notebook has been removed"
    notebook = nbformat.read(path, as_version=4)
    reason = notebook.metadata.get("genbook", {}).get("reason")
    if reason:
        return reason
    return "; ".join(
        f"{cell.metadata.nbgrader.grade_id}: {words}"
        for cell in notebook.cells
        if cell.metadata.get("nbgrader", {}).get("grade")
        for output in cell.get("outputs", [])
        for words in _words(output)
    )


def _words(output):
    """What an output of a test says: its error, or its lines "3 of 4 points: why"."""
    if output.output_type == "error":
        return [output.evalue]
    return re.findall(r"^[\d.]+ of [\d.]+ points: .*", output.get("text", ""), re.M)
