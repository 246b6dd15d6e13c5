"""What runs now: live lines on a terminal, a full line every few seconds elsewhere."""

from __future__ import annotations

import shutil
from time import monotonic

EVERY = 10  # seconds between two lines about a page where lines stay, as in a CI log


class Progress:
    """Reports on `stream` which pages start, run and end."""

    def __init__(self, stream):
        self.stream = stream
        self._live = stream.isatty()
        self._drawn = 0  # live lines on the screen
        self._said = {}  # page -> when we last wrote about it

    def started(self, page) -> None:
        """`page` starts."""
        self._say(f"{page.docname}: start")
        self._said[page] = monotonic()

    def finished(self, page) -> None:
        """`page` is done."""
        self._say(f"{page.docname}: done in {page.seconds:.0f} s")

    def show(self, pages) -> None:
        """Tell how far each of the running `pages` is."""
        if self._live:
            self._draw([self._status(page) for page in pages])
            return
        for page in pages:
            if monotonic() - self._said[page] >= EVERY:
                self._say(self._status(page))
                self._said[page] = monotonic()

    def clear(self) -> None:
        """Take the live lines off the screen."""
        self._draw([])

    def _status(self, page) -> str:
        cells = len(page.nb.cells)
        status = f"{page.docname}: {page.elapsed():.0f} s, {100 * page.cell // cells}% of the page"
        training = page.training()
        return f"{status}, {training}" if training else status

    def _say(self, line: str) -> None:
        self.clear()
        print(line, file=self.stream, flush=True)

    def _draw(self, lines: list[str]) -> None:
        if self._drawn:
            self.stream.write(f"\x1b[{self._drawn}A\x1b[J")
        width = shutil.get_terminal_size().columns - 1
        self.stream.writelines(line[:width] + "\n" for line in lines)
        self.stream.flush()
        self._drawn = len(lines)
