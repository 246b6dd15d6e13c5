"""Holds each formula that is new or was changed against its checks: do they agree?

    python tests/equations/confirm.py [eq-name ...]

A check types the formula again, so it vouches for what the page prints only as long as a person has
compared the two. `confirmed.txt` keeps a digest of each formula that was; a test asks for the rest.
"""

import ast
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parents[1] / "book/_ext")]

from bookbuild import equations  # noqa: E402

CONFIRMED = HERE / "confirmed.txt"


def confirmed() -> dict[str, str]:
    """The digest of each formula that was compared, by its label."""
    return dict(line.split() for line in CONFIRMED.read_text("utf-8").splitlines())


def checks_of(label: str) -> list[str]:
    """The source of each check of an equation."""
    found = []
    for path in sorted(HERE.glob("test_*.py")):
        text = path.read_text("utf-8")
        for node in ast.parse(text).body:
            if isinstance(node, ast.FunctionDef):
                marks = map(ast.unparse, node.decorator_list)
                if any(repr(label) in mark for mark in marks):
                    found.append(f"# {path.name}\n{ast.get_source_segment(text, node)}")
    return found


def main(names: list[str]) -> None:
    """Ask about the equations named, or about all that were not compared as they are now."""
    known, labels = confirmed(), {}
    for equation in equations.equations_of_book():
        label = equation.label
        changed = known.get(label) != equation.digest()
        labels[label] = known.get(label)
        if label in names or (not names and changed):
            print(f"\n{equation.page}:{equation.line}: {label}\n\n{equation.latex.strip()}\n")
            print("\n\n".join(checks_of(label)) or "It has no check.")
            if input("\nDo formula and checks agree? [y/N] ").strip().lower() == "y":
                labels[label] = equation.digest()
    lines = [f"{label} {digest}\n" for label, digest in labels.items() if digest]
    CONFIRMED.write_text("".join(lines), "utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
