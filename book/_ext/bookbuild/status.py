"""The page "Build status": what each chapter took when it ran, and with what it ran.

myst-nb's own table shows when a page was last looked up as well, and so would differ from build
to build. These numbers were measured when the page ran, and are kept with its results.
"""

from __future__ import annotations

import platform
from importlib.metadata import version

from sphinx.util.docutils import SphinxDirective

from genbook.system import cores

from .cache import of_book, page_keys

PAGES = ("book/status", "book/verified")
PACKAGES = "paddlepaddle numpy scipy scikit-learn matplotlib jupyter-book sphinx myst-nb".split()


class Status(SphinxDirective):
    """A table about the build; its content holds the headings, one a line."""

    has_content = True

    def run(self):
        rows = times(self.env) if self.name == "build-times" else versions()
        lines = [self.content, ["---"] * len(self.content), *rows]
        return self.parse_text_to_nodes("\n".join(f"| {' | '.join(line)} |" for line in lines))


def times(env):
    """For each page with code, in order: a link to it, its seconds and its mebibytes."""
    noted = {record.hashkey: record.data for record in of_book(env).list_cache_records()}
    for page in env.config.external_site_map:
        data = noted.get(page_keys(env).get(page))
        if data is None:
            continue  # no code, or a build that runs no pages
        memory = data.get("peak_memory")  # not every system tells
        mebibytes = f"{memory / 2**20:.0f}" if memory else "–"
        yield f"{{doc}}`/{page}`", f"{data['execution_seconds']:.0f}", mebibytes


def versions():
    """What the pages ran with."""
    machine = f"{platform.system()} {platform.machine()}, {cores()} CPU"
    python = ("Python", f"{platform.python_version()} ({machine})")
    return [python, *((name, version(name)) for name in PACKAGES)]


def read_last(app, env, docnames):
    """Have these pages read whenever another is, and after it: then all results are known."""
    if docnames:
        last = [name for name in PAGES if name in env.found_docs]
        docnames[:] = [*(name for name in docnames if name not in last), *last]


def setup(app):
    """Connect the status to the build."""
    app.add_directive("build-times", Status)
    app.add_directive("build-versions", Status)
    app.connect("env-before-read-docs", read_last)
