"""A page as plain Markdown, with the numbers that the site gives to what it refers to.

It is written from the page that Sphinx has read and resolved, not from the chapter's source:
there every cross-reference and citation is text, and every directive one of a few kinds of node.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

from docutils import nodes
from sphinx.locale import admonitionlabels
from sphinx.util.math import get_node_equation_number

from . import diagrams
from .page_checks import is_output


class Cell(NamedTuple):
    """The place of a code cell. index: of the cell in the page. folded: hidden until opened."""

    index: int
    folded: bool = False


class Source(NamedTuple):
    """Source of a file is shown here. markdown: the same as a fenced block."""

    path: str
    text: str
    markdown: str


class Unknown(Exception):
    """What has no form in Markdown here."""


def unknown(node) -> Unknown:
    """The exception for a node of a kind that has no form here: its kind, and its line."""
    line = f", line {node.line}" if getattr(node, "line", None) else ""
    return Unknown(f"`{node.tagname}`{line}, has no form in bookbuild/markdown.py")


Block = str | Cell | Source


def blocks(doctree: nodes.document, builder) -> Iterator[Block]:
    """The blocks of a page in order, the works that it cites at the end.

    doctree: resolved. builder: that of Sphinx, while it writes this page.
    """
    yield from _Page(builder).children(doctree)
    cited = {
        reference["reftitle"]
        for reference in doctree.findall(nodes.reference)
        if "reftitle" in reference and "bibtex-citation" in reference.parent.get("classes", ())
    }
    if cited:
        works = "\n".join(f"- {_escape(work)}" for work in sorted(cited))
        yield f"## References\n\n{works}"


SILENT = (nodes.target, nodes.comment, nodes.substitution_definition, nodes.Invisible)
# Text and cells of figures that a reader can move; what is checked when the site is built
SITE_ONLY = {"site-only", "tag_site-only", "tag_claim"}
THROUGH = {"document", "compound", "legend", "block"}


class _Page:
    """Writes the nodes of one page; a method for each kind that is not plain."""

    def __init__(self, builder):
        self.builder = builder
        self.macros = builder.config.mathjax3_config.get("tex", {}).get("macros", {})
        self.depth = 0  # of sections

    # Blocks

    def children(self, node) -> Iterator[Block]:
        """The blocks of all children."""
        for child in node.children:
            yield from self.block(child)

    def block(self, node) -> Iterator[Block]:
        """The blocks of one node."""
        if isinstance(node, SILENT):
            return
        method = getattr(self, f"block_{node.tagname}", None)
        if method:
            yield from method(node)
        elif isinstance(node, nodes.Admonition):
            yield from self.block_admonition(node)
        elif node.tagname in THROUGH:
            yield from self.children(node)
        else:
            raise unknown(node)

    def block_section(self, node):
        self.depth += 1
        yield from self.children(node)
        self.depth -= 1

    def block_title(self, node):
        number = self.builder.secnumbers.get("#" + node.parent["ids"][0])
        if number is None and self.depth == 1:
            number = self.builder.secnumbers.get("")
        start = f"{'.'.join(map(str, number))}. " if number else ""
        yield f"{'#' * self.depth} {start}{self.inline(node)}"

    def block_paragraph(self, node):
        text = self.inline(node)
        yield re.sub(r"^(\d*)(?=#|[-+] |(?<=\d)[.)] )", r"\1\\", text)

    def block_container(self, node):
        if not SITE_ONLY.isdisjoint(node["classes"]):
            return
        if node.get("nb_element") != "cell_code":
            yield from self.children(node)
            return
        yield Cell(node["cell_index"])
        for figure in node.findall(nodes.figure):
            yield from self.block_figure(figure)

    def block_figure(self, node):
        """Its number and caption; the picture itself is drawn by a cell, unless it is a diagram."""
        diagram = next(node.findall(diagrams.picture), None)
        if diagram is None and not is_output(node):
            raise unknown(node)
        caption = next(node.findall(nodes.caption), None)
        if caption is not None:
            text = f"**{self.label(node)}** {self.inline(caption)}"
            static = Path(self.builder.srcdir, "book/_static")
            yield f"{diagrams.as_image(diagram, static)}\n\n{text}" if diagram is not None else text

    def label(self, node) -> str:
        """What the site calls a figure, table or exercise, as "Fig. 1.2"; may be empty."""
        kind = self.builder.env.domains["std"].get_enumerable_node_type(node)
        number = kind and self.builder.fignumbers.get(kind, {}).get(node["ids"][0])
        if not number:
            return ""
        return self.builder.config.numfig_format[kind] % ".".join(map(str, number))

    def block_math_block(self, node):
        equations = [part.strip() for part in node.astext().split("\n\n") if part.strip()]
        if not node["nowrap"]:  # as on the site: the lines of one equation are aligned
            equations = [
                rf"\begin{{aligned}}{e}\end{{aligned}}" if r"\\" in e else e for e in equations
            ]
        text = self.math(" \\\\\n".join(equations))
        if len(equations) > 1:
            text = f"\\begin{{gathered}}\n{text}\n\\end{{gathered}}"
        if node["number"]:
            number = get_node_equation_number(SimpleNamespace(builder=self.builder), node)
            # inside of an environment of its own, after any other formula
            at = text.rindex(r"\end{") if node["nowrap"] else len(text)
            text = rf"{text[:at]} \tag{{{number}}} {text[at:]}".rstrip()
        yield f"$$\n{text}\n$$"

    def block_literal_block(self, node):
        ticks = "`" * max(3, 1 + max(map(len, re.findall("`+", node.astext())), default=0))
        language = node.get("language", "").replace("ipython3", "python").replace("default", "")
        fenced = f"{ticks}{language}\n{node.astext().rstrip()}\n{ticks}"
        is_included = "highlight_args" in node and node.get("source")
        yield Source(node["source"], node.astext(), fenced) if is_included else fenced

    def block_bullet_list(self, node):
        yield self._list(node, ["- "] * len(node))

    def block_enumerated_list(self, node):
        first = node.get("start", 1)
        yield self._list(node, [f"{first + i}. " for i in range(len(node))])

    def _list(self, node, marks):
        items = [self._inner(item) for item in node]
        loose = any(len(item) > 1 and not item[1].lstrip().startswith("- ") for item in items)
        texts = [_indent("\n\n".join(item), mark) for item, mark in zip(items, marks, strict=True)]
        return ("\n\n" if loose else "\n").join(texts)

    def block_block_quote(self, node):
        yield _quote("\n\n".join(self._inner(node)))

    def block_admonition(self, node):
        """A block quote, or folded text where the site folds it; code cells stay outside of it."""
        title, body = admonitionlabels.get(node.tagname, ""), list(node)
        if body and isinstance(body[0], nodes.title):
            title = f"{self.label(node)} {self.inline(body.pop(0))}".strip()
        folded = "dropdown" in node["classes"]
        inner = [block for child in body for block in self.block(child)]
        if not folded and (not inner or not isinstance(inner[0], str)):
            inner.insert(0, "")  # to carry the title
        for i, (is_text, part) in enumerate(groupby(inner, lambda block: isinstance(block, str))):
            if not is_text:
                yield from (b._replace(folded=folded) if isinstance(b, Cell) else b for b in part)
            elif folded:
                text = "\n\n".join(part)
                yield f"<details><summary><b>{title}</b></summary>\n\n{text}\n\n</details>"
            else:
                text = "\n\n".join([f"**{title}**", *part] if i == 0 else part)
                yield _quote(text.rstrip())

    def block_table(self, node):
        for title in node.findall(nodes.title):
            yield f"**{self.label(node)}** {self.inline(title)}"
        rows = [
            [
                " ".join(self._inner(entry)).replace("|", r"\|").replace("\n", " ")
                for entry in row.findall(nodes.entry)
            ]
            for row in node.findall(nodes.row)
        ]
        if next(node.findall(nodes.thead), None) is None:
            rows.insert(0, [""] * len(rows[0]))
        rows.insert(1, ["---"] * len(rows[0]))
        yield "\n".join(f"| {' | '.join(row)} |" for row in rows)

    def _inner(self, node) -> list[str]:
        """The blocks inside something that can hold no cell."""
        inner = [getattr(block, "markdown", block) for block in self.children(node)]
        if any(isinstance(b, Cell) for b in inner):
            raise unknown(next(node.findall(lambda n: n.get("nb_element") == "cell_code")))
        return inner

    # Inline

    def inline(self, node) -> str:
        """The children of a node as one line of text."""
        return "".join(map(self.span, node.children)).strip()

    def span(self, node) -> str:
        """An inline node."""
        if isinstance(node, nodes.Text):
            return _escape(re.sub(r"\s*\n\s*", " ", node.astext()))
        if isinstance(node, SILENT):
            return ""
        method = getattr(self, f"span_{node.tagname}", None)
        if method is None:
            raise unknown(node)
        return method(node)

    def span_inline(self, node):
        return "".join(map(self.span, node.children))

    span_number_reference = span_inline  # "Fig. 2.1" says enough where there is nothing to follow

    def span_emphasis(self, node):
        return f"*{self.inline(node)}*"

    def span_strong(self, node):
        return f"**{self.inline(node)}**"

    def span_literal(self, node):
        text = node.astext()
        return f"`` {text} ``" if "`" in text else f"`{text}`"

    def span_math(self, node):
        return f"${self.math(' '.join(node.astext().split()))}$"

    def span_reference(self, node):
        text, address = self.span_inline(node), node.get("refuri", "")
        return f"[{text}]({address})" if re.match(r"https?:|mailto:", address) else text

    # Mathematics

    def math(self, text: str) -> str:
        """A formula with the book's own macros written out."""
        for name, definition in self.macros.items():
            if not isinstance(definition, str):
                raise Unknown(f"the macro \\{name} has arguments; write the formula without")
            text = re.sub(rf"\\{name}(?![A-Za-z])", lambda _: definition, text)
        return text


def _indent(text: str, mark: str) -> str:
    """`mark` before the first line, and as much room before the others that are not empty."""
    return mark + textwrap.indent(text, " " * len(mark)).lstrip()


def _quote(text: str) -> str:
    """The lines of a block quote."""
    return "\n".join(f"> {line}".rstrip() for line in text.split("\n"))


def _escape(text: str) -> str:
    """Text in which no character has a meaning in Markdown, nor a dollar in a formula."""
    text = re.sub(r"([\\`*_$])", r"\\\1", text)
    return text.replace("<", "&lt;").replace("](", r"]\(")
