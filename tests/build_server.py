"""Builds books, each in a process forked after Jupyter Book was imported: that takes seconds.

Reads a line of JSON for each build: the `folder` of the book, the `options` of `jupyter-book
build`, the `environment`, and the files for `out` and `err`. Answers with the exit code.
"""

import importlib
import json
import os
import signal
import sys

IMPORTED = """
jupyter_book.cli.main jupyter_book.sphinx nbclient PIL.Image scipy.ndimage sphinx.builders.html
sphinx.ext.autodoc sphinx.ext.napoleon sphinx.ext.mathjax sphinx_book_theme sphinx_comments
sphinx_copybutton sphinx_design sphinx_exercise sphinx_external_toc sphinx_multitoc_numbering
sphinx_togglebutton sphinxcontrib.bibtex myst_nb.sphinx_ext myst_nb.ext.download
"""
HANGS = 900  # seconds


def build(folder, options, environment, out, err):
    """What the command `jupyter-book build` does in a process of its own."""
    signal.alarm(HANGS)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for number, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), number)
    sys.path[0] = folder  # its own genbook comes before any other
    sys.argv = ["jupyter-book", "build", ".", *options]
    sys.modules["jupyter_book.cli.main"].main()


def main():
    """Serve until there is nobody to serve."""
    for name in IMPORTED.split():
        importlib.import_module(name)
    for line in sys.stdin:
        child = os.fork()
        if not child:
            return build(**json.loads(line))
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
