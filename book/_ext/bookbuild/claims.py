"""Sentences about results, and the claims beside them which say whether they hold in this build.

A cell with the tag `claim` calls `genbook.publishing.claims.claim`. The page folds it, the page
"Verified" lists all, and a false one is a warning and so a red build, of a complete site: a note
at its place and the page "Build status" say which sentence to doubt.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from docutils import nodes
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

from genbook.publishing.claims import KEY, Claim

from . import edition
from .cache import of_book, read_page
from .cells import CELL
from .equations import equations_of_book

LOGGER = logging.getLogger(__name__)
TAG = "claim"
DOUBT = (
    "In this build the next claim does not hold. Doubt the sentence “{says}”: {needs} is {found}."
)


class Checked(NamedTuple):
    """A claim of a page: the number of its cell there, what it compares, and how it came out."""

    page: str
    cell: int
    needs: str
    claim: Claim

    @property
    def label(self) -> str:
        """The label of the place on the page."""
        return label(self.page, self.cell)


def label(docname: str, cell: int) -> str:
    """The label of a page's cell with claims, the first of which is 1."""
    return f"claim-{Path(docname).name}-{cell}"


def of_page(env, docname: str) -> list[Checked]:
    """The claims of a page in order, from the results that are kept of it."""
    page = read_page(env, docname)
    cache = of_book(env)
    if page is None or not cache.holds(page):
        return []  # a build that runs no pages
    return list(claims_of(cache.get_cache_bundle(cache.match_cache_notebook(page).pk).nb, docname))


def of_whole_book(env) -> list[Checked]:
    """The claims of all pages, in the order of the contents."""
    return [checked for page in env.config.external_site_map for checked in of_page(env, page)]


def claims_of(nb, docname: str) -> Iterator[Checked]:
    """The claims of an executed notebook. ValueError for a call that ran never or repeatedly."""
    cells = (cell for cell in nb.cells if TAG in cell.metadata.get("tags", ()))
    for number, cell in enumerate(cells, start=1):
        found = [Claim(**o.metadata[KEY]) for o in cell.outputs if KEY in o.get("metadata", ())]
        needs = needs_of(cell.source)
        if len(needs) != len(found):
            raise ValueError(
                f"{docname}: a cell with claims calls `claim` once for each sentence, not in a "
                f"loop, a function or a condition:\n{cell.source}"
            )
        yield from (Checked(docname, number, *pair) for pair in zip(needs, found))


def without_claims(text: str) -> str:
    """The source of a page with empty lines for its cells with claims."""
    return CELL.sub(lambda c: "\n" * c[0].count("\n") if checks(c) else c[0], text)


def checks(cell: re.Match) -> bool:
    """Whether a cell in the source of a page makes claims."""
    return cell["options"] == f":tags: [{TAG}]\n"


def quotes_of(text: str) -> list[str]:
    """The words that the cells with claims quote, from the source of their page."""
    codes = [cell["code"] for cell in CELL.finditer(text) if checks(cell)]
    return [ast.literal_eval(call.args[0]) for code in codes for call in calls(code)]


def needs_of(source: str) -> list[str]:
    """What each claim of a cell compares, in order: `kl.mean() < 3`."""
    return [compared(call) for call in calls(source)]


def calls(source: str) -> list[ast.Call]:
    """The calls of `claim` in a cell, in order."""
    values = (node.value for node in ast.parse(source).body if isinstance(node, ast.Expr))
    return [v for v in values if isinstance(v, ast.Call) and ast.unparse(v.func) == "claim"]


def compared(call: ast.Call) -> str:
    """The inequality of a call of `claim`."""
    given = {"value": call.args[1]} | {keyword.arg: keyword.value for keyword in call.keywords}
    sign = ast.Eq() if "equals" in given else ast.Lt()
    first, *rest = (given[k] for k in ("above", "value", "equals", "below") if k in given)
    return ast.unparse(ast.Compare(first, [sign] * len(rest), rest))


def place(app, doctree):
    """Fold the cells with claims, make them places to link to, and mark what does not hold."""
    docname = app.env.docname
    cells = [n for n in doctree.findall(nodes.container) if "tag_claim" in n["classes"]]
    if not cells:
        return
    text = plain(without_claims(Path(app.env.doc2path(docname)).read_text("utf-8")))
    checked = of_page(app.env, docname)
    for number, node in enumerate(cells, start=1):
        here = [c for c in checked if c.cell == number]
        name = label(docname, number)
        node["ids"].append(name)
        app.env.domains["std"].anonlabels[name] = docname, name
        node.update_all_atts(
            {"hide_mode": "all", "prompt_show": prompt(here), "prompt_hide": prompt(here)}
        )
        for c in here:
            if plain(c.claim.says) not in text:
                LOGGER.warning(
                    "the page does not say what is claimed: %r", c.claim.says, location=node
                )
            if not c.claim.holds:
                says = DOUBT.format(says=c.claim.says, found=c.claim.found(), needs=c.needs)
                node.parent.insert(node.parent.index(node), doubt(says))


def plain(text: str) -> str:
    """Text with single spaces for all white space."""
    return " ".join(text.split())


def prompt(claims: list[Checked]) -> str:
    """The line that unfolds a cell."""
    if all(c.claim.holds for c in claims):
        return "Checked in this build"
    return "Checked in this build: does not hold"


def doubt(text: str) -> nodes.Element:
    """The note before a claim that does not hold."""
    return nodes.warning("", nodes.paragraph("", text))


def report(app, env):
    """Warn of each claim that does not hold.

    The prose is that of the default edition; in another, the notes on the pages are enough.
    """
    for c in of_whole_book(env):
        if not c.claim.holds and edition.name() == "digits":
            LOGGER.warning(
                "a claim does not hold: “%s”: %s is %s (%s)",
                c.claim.says,
                c.needs,
                c.claim.found(),
                c.claim.room(),
                location=c.page,
                type="bookbuild",
                subtype="claim",
            )


class Counts(SphinxDirective):
    """Its content, with the numbers of this build: %(statements)s, %(claims)s, ..."""

    has_content = True

    def run(self):
        """Count, and parse."""
        claims, equations = of_whole_book(self.env), equations_of_book()
        statements = sum(equation.label.startswith("eq-") for equation in equations)
        counts = {
            "statements": statements,
            "definitions": len(equations) - statements,
            "claims": len(claims),
            "hold": sum(c.claim.holds for c in claims),
            "pages": len({c.page for c in claims}),
        }
        numbers = {name: f"{count:,}" for name, count in counts.items()}
        return self.parse_text_to_nodes("\n".join(self.content) % numbers)


class Claims(SphinxDirective):
    """The claims of the book as a table for each chapter, or only those that do not hold."""

    def run(self):
        """`claims`: all; `doubts`: those that do not hold, or a sentence that there are none."""
        checked = of_whole_book(self.env)
        if self.name == "doubts":
            checked = [c for c in checked if not c.claim.holds]
            if not checked:
                return self.parse_text_to_nodes("In this build every claim holds.")
        lines = []
        for page in dict.fromkeys(c.page for c in checked):
            rows = [row(c) for c in checked if c.page == page]
            title = self.env.titles[page].astext()
            lines += ["", f":::{{dropdown}} {title} ({len(rows)})"]
            lines += [
                "| | Sentence | Claim | Value | Margin |",
                "|---|---|---|---|---|",
                *rows,
                ":::",
            ]
        return self.parse_text_to_nodes("\n".join(lines))


def row(c: Checked) -> str:
    """A line of the table."""
    link = f"{{ref}}`{c.cell} <{c.label}>`"
    cells = (link, c.claim.says, f"`{c.needs}`", c.claim.found(), c.claim.room())
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


def setup(app):
    """Connect the claims to the build."""
    app.add_directive("counts", Counts)
    app.add_directive("claims", Claims)
    app.add_directive("doubts", Claims)
    app.connect("doctree-read", place)
    app.connect("env-updated", report)
