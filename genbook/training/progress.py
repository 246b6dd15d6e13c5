"""Progress of a training: a bar on the terminal, or in a file that the book's build shows."""

from __future__ import annotations

import contextlib
import os
import sys

from tqdm import tqdm

from genbook.training import ranks
from genbook.training.loop import Hook


@contextlib.contextmanager
def report():
    """The stream for progress: stderr, or the file that GENBOOK_PROGRESS names.

    While a chapter is executed, what goes to stderr would end up on its page; the build reads the
    file and shows it on the terminal.
    """
    path = os.environ.get("GENBOOK_PROGRESS")
    if not path:
        yield sys.stderr
        return
    with open(path, "a", encoding="utf-8") as file:
        yield file


class Bar(Hook, contextlib.ExitStack):
    """A progress bar, on rank 0 alone; a context that takes it down."""

    def on_start(self, training):
        """Draw the bar."""
        stream = self.enter_context(report())
        self._bar = self.enter_context(
            tqdm(
                total=training.steps,
                initial=training.step,
                desc=training.name,
                file=stream,
                mininterval=0.5,
                dynamic_ncols=stream is sys.stderr,
                disable=ranks.rank() > 0,
            )
        )

    def on_step(self, training):
        """Move it on."""
        self._bar.set_postfix(loss=f"{training.rows[-1]['loss']:.4g}", refresh=False)
        self._bar.update()
