"""The numbered equations of the book, and the checks in tests/equations that vouch for them.

An equation's name says what it needs: `eq-...` is a claim and has at least one check, `def-...`
is a definition and may have one. The page "Verified" runs all checks and shows them.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import yaml
from markdown_it.renderer import RendererHTML
from myst_parser.config.main import MdParserConfig
from myst_parser.parsers.mdit import create_md_parser

from genbook.publishing import fingerprint

ROOT = Path(__file__).resolve().parents[3]
CONFIG = yaml.safe_load((ROOT / "_config.yml").read_text("utf-8"))["sphinx"]["config"]
PARSER = create_md_parser(
    MdParserConfig(enable_extensions=set(CONFIG["myst_enable_extensions"])), RendererHTML
)
NO_TEXT = ("code", "code-block", "code-cell", "literalinclude")  # directives without prose inside


class Equation(NamedTuple):
    """A numbered equation: its name ("" if it has none), its place, and its LaTeX."""

    label: str
    page: str
    line: int
    latex: str = ""

    def digest(self) -> str:
        """A short hash of its LaTeX, whatever its white space."""
        return fingerprint.digest(" ".join(self.latex.split()))[:12]


class Check(NamedTuple):
    """What one check found: how it was made, its largest deviation and the tolerance, as text."""

    label: str
    says: str
    how: str
    deviation: str
    tolerance: str


class CheckFailed(Exception):
    """A check failed; the message is what pytest printed."""


# The equations, read from the sources


def equations_of(text: str, page: str = "", first_line: int = 1) -> Iterator[Equation]:
    """The numbered equations of a MyST source, in order, those inside directives included."""
    for token in PARSER.parse(text):
        if token.map is None:
            continue
        line = first_line + token.map[0]
        if token.type == "math_block_label":
            yield Equation(token.info, page, line, token.content)
        elif token.type == "amsmath" and token.meta["numbered"] != "*":
            yield Equation(
                "", page, line, token.content
            )  # it gets a number that nothing can refer to
        elif token.type in ("fence", "colon_fence"):
            directive = re.match(r"\{([\w:-]+)\}", token.info.strip())
            if directive and directive[1] == "math":
                label = re.search(r"^:?(?:label|name):\s*(\S+)", token.content, re.M)
                if label:
                    yield Equation(label[1], page, line, token.content)
            elif directive and directive[1] not in NO_TEXT:
                yield from equations_of(token.content, page, line + 1)


def equations_of_book() -> list[Equation]:
    """All numbered equations, in the order of the contents."""
    pages = re.findall(r"^\W*(?:root|file): (\S+)", (ROOT / "_toc.yml").read_text("utf-8"), re.M)
    return [
        equation
        for page in pages
        for equation in equations_of((ROOT / f"{page}.md").read_text("utf-8"), f"{page}.md")
    ]


# The checks, run


def run_checks(root: Path = ROOT) -> list[Check]:
    """Run tests/equations and return what each check found. Raises CheckFailed."""
    pytest = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "tests/equations"]
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.xml")
        run = subprocess.run(
            [*pytest, f"--junitxml={report}"], cwd=root, capture_output=True, text=True
        )
        if run.returncode != 0:
            raise CheckFailed(f"\n{run.stdout}{run.stderr}")
        cases = ElementTree.parse(report).iter("testcase")
        return [
            Check(**{p.get("name"): p.get("value") for p in case.iter("property")})
            for case in cases
        ]


def table(checks: list[Check], equations: list[Equation]) -> str:
    """The checks in the order of the equations, as a MyST table whose numbers are links."""
    of_label = defaultdict(list)
    for check in checks:
        of_label[check.label].append(check)
    rows = [
        "| Number | What it says | How it was checked | Deviation | Tolerance |",
        "|---|---|---|---|---|",
    ]
    for equation in equations:
        for i, check in enumerate(of_label[equation.label]):
            number = f"{{eq}}`{equation.label}`" if i == 0 else ""
            cells = (number, check.says, check.how, check.deviation, check.tolerance)
            rows.append("| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |")
    return "\n".join(rows)


def state() -> str:
    """The hash of all that the checks and their table depend on: equations, checks, `genbook`."""
    sources = [path.read_text("utf-8") for path in sorted(ROOT.glob("tests/equations/*.py"))]
    code = map(fingerprint.of_imports, sources)
    labels = [(equation.label, equation.page) for equation in equations_of_book()]
    return fingerprint.digest(repr(labels), *code, *sources)
