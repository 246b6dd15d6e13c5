"""How the build ended: what ran and for how long, and where the book is."""

from __future__ import annotations

import os

from .cache import page_keys


def print_summary(app, exception):
    """Print what each page took, and where to look."""
    if exception is not None or app.builder.format != "html":
        return
    seconds = getattr(app.env, "bookbuild_seconds", {})
    pages = [docname for docname in app.config.external_site_map if docname in page_keys(app.env)]
    width = max(map(len, pages), default=0)
    print()
    for docname in pages:
        took = f"{seconds[docname]:8.1f} s" if docname in seconds else "    cached"
        print(f"{docname:<{width}}{took}")
    site = os.path.relpath(app.outdir)
    print(
        f"\nThe book is at {site}/index.html. To serve it: make serve, "
        f"or python -m http.server -d {site}",
        flush=True,
    )


def setup(app):
    """Connect the report to the end of the build."""
    app.connect("build-finished", print_summary, priority=901)
