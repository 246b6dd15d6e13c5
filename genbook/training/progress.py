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


class Bar(Hook):
    """A progress bar, on rank 0 alone; to be used as a context."""

    def __init__(self):
        self._stack = contextlib.ExitStack()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return self._stack.__exit__(*error)

    def on_start(self, training):
        """Draw the bar."""
        stream = self._stack.enter_context(report())
        self._bar = self._stack.enter_context(
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
