"""The public modules of the package, which the API reference lists."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def modules():
    """The modules of the package by name, those apart that no reader imports."""
    for path in sorted((ROOT / "genbook").rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        inner = name.startswith("genbook.lab.assignments.") or name in (
            "genbook.__main__",
            "genbook.publishing.package",
            "genbook.publishing.source",
        )
        if name != "genbook" and not inner and ast.parse(path.read_text("utf-8")).body[1:]:
            yield name, path
