"""The page "Build status": what each chapter took when it ran, and with what it ran.

myst-nb's own table shows when a page was last looked up as well, and so would differ from build
to build. These numbers were measured when the page ran, and are kept with its results.
"""

from __future__ import annotations

import platform
from importlib.metadata import version

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

from .cache import of_book, page_keys
from .execute import cores

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

WAITING = "build-status"  # the class of the tables that get their rows when all pages were read


class Status(SphinxDirective):
    """A table about the build; its content holds the headings, one a line."""

    has_content = True

    def run(self):
        words = [nodes.paragraph(text, text) for text in self.content]
        for word in words:
            self.set_source_info(word)  # so that they can be translated
        group = nodes.tgroup("", *(nodes.colspec(colwidth=1) for _ in words), cols=len(words))
        group += [nodes.thead("", row(*words)), nodes.tbody()]
        shown(self.env)[self.env.docname] = None  # nothing yet
        return [nodes.table("", group, classes=[WAITING, self.name])]


def row(*cells):
    """A row of a table, one node a cell."""
    return nodes.row("", *(nodes.entry("", cell) for cell in cells))


def times(app) -> list[tuple[str, str, str]]:
    """For each page with code, in order: its name, its seconds and its mebibytes."""
    noted = {record.hashkey: record.data for record in of_book(app).list_cache_records()}
    keys, rows = page_keys(app.env), []
    for page in filter(keys.__contains__, app.config.external_site_map):
        if keys[page] not in noted:
            continue  # a build that runs no pages
        data = noted[keys[page]]
        memory = data.get("peak_memory")  # older results have none, and not every system tells
        rows.append(
            (page, f"{data['execution_seconds']:.0f}", f"{memory / 2**20:.0f}" if memory else "–")
        )
    return rows


def versions() -> list[tuple[str, str]]:
    """What the pages ran with."""
    machine = f"{platform.system()} {platform.machine()}, {cores()} CPU"
    python = ("Python", f"{platform.python_version()} ({machine})")
    return [python, *((name, version(name)) for name in PACKAGES)]


def fill(app, doctree, docname):
    """Put the rows into the tables that wait for them."""
    for table in doctree.findall(nodes.table):
        if WAITING not in table["classes"]:
            continue
        body = next(table.findall(nodes.tbody))
        if "build-versions" in table["classes"]:
            body += [row(*(nodes.paragraph("", cell) for cell in cells)) for cells in versions()]
            continue
        for page, *numbers in times(app):
            title = app.env.titles[page].astext()
            uri = app.builder.get_relative_uri(docname, page)
            link = nodes.paragraph("", "", nodes.reference("", title, refuri=uri, internal=True))
            body += row(link, *(nodes.paragraph("", number) for number in numbers))


def changed(app, env):
    """The pages whose tables would show something new."""
    state = (times(app), versions())
    pages = [page for page, before in shown(env).items() if before != state]
    shown(env).update(dict.fromkeys(pages, state))
    return pages


def shown(env) -> dict:
    """What the tables have shown, by page; kept from build to build."""
    if not hasattr(env, "bookbuild_shown"):
        env.bookbuild_shown = {}
    return env.bookbuild_shown


def forget(app, env, docname):
    """A page that is gone shows nothing."""
    shown(env).pop(docname, None)


def setup(app):
    """Connect the status to the build."""
    app.add_directive("build-times", Status)
    app.add_directive("build-versions", Status)
    app.connect("env-purge-doc", forget)
    app.connect("env-updated", changed)
    app.connect("doctree-resolved", fill)
