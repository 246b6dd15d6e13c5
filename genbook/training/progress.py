"""How far a training is: a bar on the terminal, or in a file that the book's build shows."""

from __future__ import annotations

import contextlib
import os
import sys

from tqdm import tqdm

from genbook.training import ranks


@contextlib.contextmanager
def report():
    """Where to tell how far a training is: stderr, or the file that GENBOOK_PROGRESS names.

    While a chapter is executed, what goes to stderr would end up on its page; the build reads the
    file and shows it on the terminal.
    """
    path = os.environ.get("GENBOOK_PROGRESS")
    if not path:
        yield sys.stderr
        return
    with open(path, "a", encoding="utf-8") as file:
        yield file


@contextlib.contextmanager
def bar(steps, name, done):
    """A progress bar; on rank 0 alone."""
    with report() as stream:
        live = stream is sys.stderr
        with tqdm(
            total=steps,
            initial=done,
            desc=name,
            file=stream,
            mininterval=0.5,
            dynamic_ncols=live,
            disable=ranks.rank() > 0,
        ) as progress:
            yield progress
