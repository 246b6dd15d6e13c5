"""The page "Build status": what each chapter took when it ran, and with what it ran.

myst-nb's own table shows when a page was last looked up as well, and so would differ from build
to build. These numbers were measured when the page ran, and are kept with its results.
"""

from __future__ import annotations

import platform
from importlib.metadata import version

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.util.docutils import SphinxDirective

from genbook.system import cores

from .cache import of_book, page_keys

PAGE = "book/status"
PACKAGES = (
    "paddlepaddle",
    "numpy",
    "scipy",
    "scikit-learn",
    "matplotlib",
    "jupyter-book",
    "sphinx",
    "myst-nb",
)


class Status(SphinxDirective):
    """A table about the build; its content holds the headings, one a line."""

    has_content = True

    def run(self):
        headings = [nodes.paragraph(text, text) for text in self.content]
        for heading in headings:
            self.set_source_info(heading)  # so that it can be translated
        rows = times(self.env) if self.name == "build-times" else versions()
        columns = (nodes.colspec(colwidth=1) for _ in headings)
        group = nodes.tgroup("", *columns, cols=len(headings))
        group += [nodes.thead("", row(headings)), nodes.tbody("", *map(row, rows))]
        return [nodes.table("", group)]


def row(cells):
    """A row of a table, a text or a node for each cell."""
    cells = (nodes.paragraph("", cell) if isinstance(cell, str) else cell for cell in cells)
    return nodes.row("", *(nodes.entry("", cell) for cell in cells))


def times(env):
    """For each page with code, in order: a link to it, its seconds and its mebibytes."""
    noted = {record.hashkey: record.data for record in of_book(env).list_cache_records()}
    for page in env.config.external_site_map:
        data = noted.get(page_keys(env).get(page))
        if data is None:
            continue  # no code, or a build that runs no pages
        target = {"refdomain": "std", "reftype": "doc", "reftarget": f"/{page}", "refdoc": PAGE}
        link = pending_xref("", nodes.inline(), refexplicit=False, **target)
        memory = data.get("peak_memory")  # not every system tells
        yield (
            nodes.paragraph("", "", link),
            f"{data['execution_seconds']:.0f}",
            f"{memory / 2**20:.0f}" if memory else "–",
        )


def versions():
    """What the pages ran with."""
    machine = f"{platform.system()} {platform.machine()}, {cores()} CPU"
    python = ("Python", f"{platform.python_version()} ({machine})")
    return [python, *((name, version(name)) for name in PACKAGES)]


def read_last(app, env, docnames):
    """Have the page read whenever another is, and after it: then all results are known."""
    if docnames and PAGE in env.found_docs:
        docnames[:] = [*(name for name in docnames if name != PAGE), PAGE]


def setup(app):
    """Connect the status to the build."""
    app.add_directive("build-times", Status)
    app.add_directive("build-versions", Status)
    app.connect("env-before-read-docs", read_last)
