"""What runs now, and at the end what ran: live on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import os
import shutil
from collections import defaultdict

from .cache import page_keys

EVERY = 10  # seconds between two lines about a page where lines stay, as in a CI log


class Progress:
    """Reports on `stream` which pages start, run and end."""

    def __init__(self, stream):
        self.stream = stream
        self._live = stream.isatty()
        self._drawn = 0  # live lines on the screen
        self._reported = defaultdict(float)  # page -> its seconds at its last line

    def say(self, line: str) -> None:
        """Print a line that stays."""
        self.clear()
        print(line, file=self.stream, flush=True)

    def show(self, pages) -> None:
        """Report how far each of the running `pages` is."""
        if self._live:
            self._draw([self._status(page) for page in pages])
            return
        for page in pages:
            if page.elapsed() - self._reported[page] >= EVERY:
                self.say(self._status(page))
                self._reported[page] = page.elapsed()

    def clear(self) -> None:
        """Take the live lines off the screen."""
        self._draw([])

    def _status(self, page) -> str:
        cells = len(page.nb.cells)
        status = f"{page.docname}: {page.elapsed():.0f} s, {100 * page.cell // cells}% of the page"
        training = page.training()
        return f"{status}, {training}" if training else status

    def _draw(self, lines: list[str]) -> None:
        if self._drawn:
            self.stream.write(f"\x1b[{self._drawn}A\x1b[J")
        width = shutil.get_terminal_size().columns - 1
        self.stream.writelines(line[:width] + "\n" for line in lines)
        self.stream.flush()
        self._drawn = len(lines)


def print_summary(app, exception):
    """Print what each page took, and where the site is."""
    if exception is not None or app.builder.format != "html":
        return
    seconds = getattr(app.env, "bookbuild_seconds", {})
    pages = list(filter(page_keys(app.env).get, app.config.external_site_map))
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
    """Print the summary after everything else."""
    app.connect("build-finished", print_summary, priority=901)
