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


@dataclass
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

    def add(student, task, path, problem=None):
        student = re.sub(r"[^\w.@ -]", "_", student).strip(" .-@") or "_"  # a folder and a pattern
        if problem is None and task.lower() not in tasks:
            problem = f"a notebook is named {path.name}, and not after a task"
        found.append(Submission(student, None if problem else task.lower(), path, problem))

    for path in sorted(p for p in folder.iterdir() if not p.name.startswith((".", "__"))):
        if path.is_dir():
            notebooks = [p for p in sorted(path.iterdir()) if _is_notebook(p)]
            for notebook in notebooks:
                add(path.name, notebook.stem, notebook)
            if not notebooks:
                add(path.name, None, path, "no notebook (.ipynb) was handed in")
        elif _is_notebook(path):
            student, _, task = path.stem.rpartition("_")
            add(student or path.stem, task, path)
    places = [(one.student, one.task) for one in found]
    for one in found:
        if one.task and places.count((one.student, one.task)) > 1:
            one.problem = "handed in more than once; keep one"
    return found


def notebooks(folder, releases):
    """Yields (student, task, notebook to grade) for all that was handed in.

    releases: the notebooks that students got, by the names of their tasks.
    """
    found = find(folder, releases)
    for student in sorted({one.student for one in found}):
        theirs = [one for one in found if one.student == student]
        strays = "; ".join(one.problem for one in theirs if one.task is None)
        for task, release in releases.items():
            one = next((one for one in theirs if one.task == task), None)
            if one is None and not strays:
                continue
            try:
                if one is None:
                    raise Unusable(f"no {task}.ipynb: {strays}")
                if one.problem:
                    raise Unusable(one.problem)
                notebook = rebuild(read(one.path), release)
            except Unusable as unusable:
                notebook = without_points(release, str(unusable))
            yield student, task, notebook


def _is_notebook(path):
    return path.suffix.lower() == ".ipynb" and not path.name.startswith(".")


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
    added ones count; all others are as they were given, at their places: no test can be lost or
    changed, nor anything that a test needs, which nbgrader's OverwriteCells would not restore. An
    answer is known by its mark in the metadata, its id, or its line "Answer:". An added cell stays
    after the cell of the assignment that it followed. Raises Unusable where no answer is found.
    """
    notebook = copy.deepcopy(release)
    official = {cell.metadata.nbgrader.grade_id: cell for cell in notebook.cells}
    by_source = {cell.source: name for name, cell in official.items()}
    blocks: dict = {None: []} | {name: [cell] for name, cell in official.items()}
    answered = set()
    place = None
    for kind, source, marks, attachments in cells:
        name = next((m for m in [*marks, by_source.get(source)] if m in official), None)
        if name is None or name in answered:  # a copied cell takes its mark along
            if source.strip():
                new_cell = getattr(nbformat.v4, f"new_{kind}_cell")
                blocks[place].append(new_cell(source))
            continue
        place, cell = name, official[name]
        if cell.metadata.nbgrader.solution:
            answered.add(name)
            cell.source = source
            if attachments and cell.cell_type == "markdown":
                cell.attachments = attachments
    if not answered:
        raise Unusable("the notebook has none of the cells of this task: is it another one?")
    notebook.cells = [cell for block in blocks.values() for cell in block]
    return notebook


def without_points(release, reason):
    """The untouched assignment, which is not run but gets no points for this reason."""
    notebook = copy.deepcopy(release)
    notebook.metadata["genbook"] = {"reason": reason}
    return notebook
