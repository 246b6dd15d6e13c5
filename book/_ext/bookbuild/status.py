"""The page "Build status": what each chapter took when it ran, and with what it ran.

myst-nb's own table shows when a page was last looked up as well, and so would differ from build
to build. What stands here was noted when the page ran, and is kept with its results.
"""

from __future__ import annotations

import os
import platform
from importlib.metadata import version

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

from .cache import of_book, page_keys

TIMES = "build-times"  # the class of the tables whose rows come at the end


class Times(SphinxDirective):
    """A table of all pages with code. Content: its three headings, one a line."""

    has_content = True

    def run(self):
        pages_with_status(self.env).add(self.env.docname)
        return [table(self, list(self.content), [], classes=[TIMES])]


class Versions(SphinxDirective):
    """A table of versions. Content: its two headings and then names of packages, one a line."""

    has_content = True

    def run(self):
        pages_with_status(self.env).add(self.env.docname)
        machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPU"
        rows = [["Python", f"{platform.python_version()}, {machine}"]]
        rows += [[name, version(name)] for name in self.content[2:]]
        return [table(self, self.content[:2], rows)]


def table(directive, head, rows, **attributes):
    """A docutils table with these texts; its head can be translated."""
    group = nodes.tgroup("", *(nodes.colspec(colwidth=1) for _ in head), cols=len(head))
    words = [nodes.paragraph(text, text) for text in head]
    for word in words:
        directive.set_source_info(word)
    group += nodes.thead("", row(*words))
    group += nodes.tbody("", *(row(*(nodes.paragraph("", text) for text in r)) for r in rows))
    return nodes.table("", group, **attributes)


def row(*cells):
    """A row of a table, one node a cell."""
    return nodes.row("", *(nodes.entry("", cell) for cell in cells))


def fill(app, doctree, docname):
    """Put a row for each page with code into the tables that wait for them."""
    waiting = [t for t in doctree.findall(nodes.table) if TIMES in t["classes"]]
    if not waiting:
        return
    notes = {record.hashkey: record.data for record in of_book(app).list_cache_records()}
    rows = []
    for page in app.config.external_site_map:
        if page in page_keys(app.env):
            noted = notes[page_keys(app.env)[page]]
            memory = noted.get("peak_memory")
            rows.append((page, f"{noted['execution_seconds']:.0f}",
                         f"{memory / 2**20:.0f}" if memory else "–"))
    for times in waiting:
        body = next(times.findall(nodes.tbody))
        for page, *numbers in rows:
            uri = app.builder.get_relative_uri(docname, page)
            link = nodes.reference("", app.env.titles[page].astext(), refuri=uri, internal=True)
            body += row(nodes.paragraph("", "", link), *(nodes.paragraph("", n) for n in numbers))


def pages_with_status(env) -> set[str]:
    """The pages that have such tables; kept from build to build."""
    if not hasattr(env, "bookbuild_status"):
        env.bookbuild_status = set()
    return env.bookbuild_status


def outdated(app, env, added, changed, removed):
    """The pages with such tables: they tell of this build, whether or not their text is old."""
    return list(pages_with_status(env) - removed)


def setup(app):
    """Connect the status to the build."""
    app.add_directive("build-times", Times)
    app.add_directive("build-versions", Versions)
    app.connect("env-get-outdated", outdated)
    app.connect("doctree-resolved", fill)
