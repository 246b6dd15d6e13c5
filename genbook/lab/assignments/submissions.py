"""What a class hands in: which notebook is whose, and what of it is graded."""

import copy
import re
import warnings
from dataclasses import dataclass
from pathlib import Path

import nbformat

MOST_BYTES = 20_000_000  # of a notebook; full of figures it has one or two million


class Unusable(Exception):
    """Why a submission cannot be graded, in words for its author."""


@dataclass(frozen=True)
class Submission:
    """One notebook, or what is known of it. task: None where its name does not tell."""

    student: str
    task: str | None
    path: Path
    problem: str | None = None


def find(folder, tasks):
    """The submissions in a folder of STUDENT/TASK.ipynb or STUDENT_TASK.ipynb, sorted.

    Every notebook is one, whatever its name: one that is not named after a task, or that is handed
    in twice, has a `problem`. A student's folder without a notebook gives one with no task.
    Raises FileNotFoundError where the folder does not exist.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a folder")
    found = []
    for path in sorted(p for p in folder.iterdir() if not p.name.startswith((".", "__"))):
        if path.is_dir():
            notebooks = [p for p in sorted(path.iterdir()) if _is_notebook(p)]
            found += [_submission(path.name, p.stem, p, tasks) for p in notebooks]
            if not notebooks:
                problem = "no notebook (.ipynb) was handed in"
                found.append(Submission(_identifier(path.name), None, path, problem))
        elif _is_notebook(path):
            student, _, task = path.stem.rpartition("_")
            found.append(_submission(student or path.stem, task, path, tasks))
    places = [(s.student, s.task) for s in found]
    return [
        Submission(s.student, s.task, s.path, "handed in more than once; keep one")
        if s.task and places.count((s.student, s.task)) > 1 else s for s in found
    ]  # fmt: skip


def _submission(student, name, path, tasks):
    if name.lower() in tasks:
        return Submission(_identifier(student), name.lower(), path)
    problem = f"a notebook is named {path.name}, and not after a task"
    return Submission(_identifier(student), None, path, problem)


def _is_notebook(path):
    return path.suffix.lower() == ".ipynb" and not path.name.startswith(".")


def _identifier(name):
    """A student's name as a folder may be called anywhere, and a pattern may not trip over."""
    return re.sub(r"[^\w.@ -]", "_", name).strip(" .-@") or "_"


def read(path):
    """The cells of a notebook as (type, source, id, attachments); Unusable says what is wrong."""
    if path.is_symlink() or not path.is_file():
        raise Unusable("the notebook is a link and not a file")
    size = path.stat().st_size
    if size > MOST_BYTES:
        raise Unusable(
            f"the notebook has {size / 1e6:.0f} MB, at most {MOST_BYTES / 1e6:.0f} are "
            "taken: clear its outputs"
        )
    if not size:
        raise Unusable("the notebook is an empty file")
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise Unusable("the notebook is not in UTF-8") from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of ids that are missing or twice
            notebook = nbformat.reads(text, as_version=4)
        return [_cell(cell) for cell in notebook.cells]
    except Exception as error:  # a broken file can break the reader anywhere
        words = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise Unusable(f"the file is not a Jupyter notebook: {words[:100]}") from None


def _cell(cell):
    source = "".join(cell.source)
    if cell.cell_type not in ("code", "markdown", "raw"):
        raise ValueError(f"unknown type of cell: {cell.cell_type}")
    marks = [cell.metadata.get("nbgrader", {}).get("grade_id"), cell.get("id")]
    tag = re.search(r"^(?:# Answer:|<!-- Answer:) ([\w-]+)", source, re.M)
    marks.append(tag and tag[1])
    return cell.cell_type, source, [m for m in marks if isinstance(m, str)], cell.get("attachments")


def rebuild(cells, release):
    """The student's answers in the assignment's own notebook.

    cells: of `read`. release: the notebook that students got. Of the student's cells, answers and
    added ones count; all others stand as they were given, at their places, so that no test can be
    lost or changed. An answer is known by its mark in the metadata, its id, or its line "Answer:".
    An added cell stays after the cell of the assignment that it followed. Raises Unusable where no
    answer is found.
    """
    official = {cell.metadata.nbgrader.grade_id: cell for cell in release.cells}
    by_source = {cell.source: name for name, cell in official.items()}
    notebook = copy.deepcopy(release)
    answers: dict = {}
    added: dict = {}
    place = None
    for kind, source, marks, attachments in cells:
        name = next((m for m in [*marks, by_source.get(source)] if m in official), None)
        if name is None or name in answers:  # a copied cell takes its mark along
            if source.strip():
                added.setdefault(place, []).append((kind, source))
            continue
        place = name
        if official[name].metadata.nbgrader.solution:
            answers[name] = source, attachments
    if not answers:
        raise Unusable("the notebook has none of the cells of this task: is it another one?")
    notebook.cells = _new_cells(added.get(None, []))
    for cell in copy.deepcopy(release.cells):
        name = cell.metadata.nbgrader.grade_id
        if name in answers:
            cell.source, attachments = answers[name]
            if attachments and cell.cell_type == "markdown":
                cell.attachments = attachments
        notebook.cells += [cell, *_new_cells(added.get(name, []))]
    return notebook


def _new_cells(added):
    make = {"code": nbformat.v4.new_code_cell, "markdown": nbformat.v4.new_markdown_cell,
            "raw": nbformat.v4.new_raw_cell}  # fmt: skip
    return [make[kind](source) for kind, source in added]
