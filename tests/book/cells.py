"""The functions that chapters define in their cells, for tests: without running the chapter."""

import ast
from pathlib import Path
from types import SimpleNamespace

from bookbuild.cells import CELL

ROOT = Path(__file__).resolve().parents[2]


def functions(page, **names):
    """All functions and classes of a page, as attributes, beside what the page imports.

    names: what they refer to besides; the page itself would have computed it.
    """
    found = dict(names)
    text = (ROOT / f"book/{page}.md").read_text("utf-8")
    for cell in CELL.finditer(text):
        tree = ast.increment_lineno(
            ast.parse(cell["code"]), text.count("\n", 0, cell.start("code"))
        )
        for node in tree.body:
            if isinstance(node, (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef)):
                if getattr(node, "name", None) not in names:
                    exec(compile(ast.Module([node], []), f"book/{page}.md", "exec"), found)
    return SimpleNamespace(**found)


def codes(text):
    """The code of each cell of a page."""
    return [cell["code"] for cell in CELL.finditer(text)]
