"""What building the book needs of the package: fingerprints, chapters as notebooks.

As a Sphinx extension it loads the book's own, `bookbuild`, from the checkout that is being built.
Jupyter Book's `local_extensions` would do so in `jupyter-book build` only: the `conf.py` that
`jupyter-book config sphinx` writes, for Read the Docs and plain Sphinx, lacks the path.
"""

import sys
from pathlib import Path


def setup(app):
    """Load `bookbuild` from the folder `book/_ext` beside the book's configuration."""
    sys.path.insert(0, str(Path(app.srcdir, "book", "_ext")))
    app.setup_extension("bookbuild")
    return {"parallel_read_safe": False, "parallel_write_safe": True}
