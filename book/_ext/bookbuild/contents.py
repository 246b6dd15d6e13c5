"""The book's pages are those of its table of contents; other files in the checkout are not read.

sphinx-external-toc can exclude other files, but searches for them with the checkout's own path as
a glob: in a path such as `course [2024]` it finds none, and a notebook that lies about there would
be run and published. So the pages are included by name instead.
"""

from __future__ import annotations

import glob
from pathlib import Path


def include_pages(app, config):
    """Include the files of `_toc.yml` and no others. Ends the build if one does not exist."""
    patterns = []
    for name in config.external_site_map:
        files = [
            file
            for file in (name, *(name + suffix for suffix in config.source_suffix))
            if file.endswith(tuple(config.source_suffix)) and Path(app.srcdir, file).is_file()
        ]
        if not files:
            raise SystemExit(f"genbook: _toc.yml lists {name}, and there is no such page")
        patterns += map(glob.escape, files)
    config.include_patterns = patterns


def setup(app):
    """Connect to the build, after sphinx-external-toc has read the table at 900."""
    app.connect("config-inited", include_pages, priority=910)
