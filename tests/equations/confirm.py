"""Holds each formula that is new or was changed against its checks: do they agree?

    python tests/equations/confirm.py [eq-name ...]

A check types the formula again, so it vouches for what the page prints only as long as a person has
compared the two. `confirmed.txt` keeps a digest of each formula that was; a test asks for the rest.
"""

import ast
import importlib
import inspect
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parents[1] / "book/_ext")]

from bookbuild import equations  # noqa: E402

CONFIRMED = HERE / "confirmed.txt"


def confirmed() -> dict[str, str]:
    """The digest of each formula that was compared, by its label."""
    return dict(line.split() for line in CONFIRMED.read_text("utf-8").splitlines())


def checks_of(label: str) -> list[str]:
    """The source of each check of an equation, and of what it calls of the package."""
    found, called = [], []
    for path in sorted(HERE.glob("test_*.py")):
        text = path.read_text("utf-8")
        tree = ast.parse(text)
        for node in tree.body:
            if isinstance(node, ast.FunctionDef):
                marks = map(ast.unparse, node.decorator_list)
                if any(repr(label) in mark for mark in marks):
                    found.append(f"# {path.name}\n{ast.get_source_segment(text, node)}")
                    called += package_code(node, tree)
    return found + list(dict.fromkeys(called))


def package_code(check: ast.FunctionDef, tree: ast.Module) -> Iterator[str]:
    """The functions of `genbook` that a check names, and the methods of its classes."""
    names = {node.id for node in ast.walk(check) if isinstance(node, ast.Name)}
    attributes = {node.attr for node in ast.walk(check) if isinstance(node, ast.Attribute)}
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("genbook"):
            for alias in node.names:
                found = getattr(importlib.import_module(node.module), alias.name)
                members = vars(found).items() if isinstance(found, type) else ()
                functions = [m for name, m in members if name in attributes]
                if (alias.asname or alias.name) in names:
                    functions.append(found)
                yield from (
                    f"# {node.module}\n{textwrap.dedent(inspect.getsource(function))}"
                    for function in functions
                    if inspect.isfunction(function)
                )


def main(names: list[str]) -> None:
    """Ask about the equations named, or about all that were not compared as they are now."""
    book, known = equations.equations_of_book(), confirmed()
    digests = {equation.label: known.get(equation.label) for equation in book}
    try:
        for equation in book:
            label, digest = equation.label, equation.digest()
            if label in names or (not names and digests[label] != digest):
                print(f"\n{equation.page}:{equation.line}: {label}\n\n{equation.latex.strip()}\n")
                print("\n\n".join(checks_of(label)) or "It has no check.")
                if input("\nDo formula and checks agree? [y/N] ").strip().lower() == "y":
                    digests[label] = digest
    finally:  # Ctrl-C keeps what was confirmed so far
        lines = [f"{label} {digest}\n" for label, digest in digests.items() if digest]
        CONFIRMED.write_text("".join(lines), "utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
