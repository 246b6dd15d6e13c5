"""One build at a time, and a build that broke off is done again in full.

Sphinx takes a page for done once its file exists, even if the process ended while writing it, and
warns about a page only when it reads it. So a marker is set before the first page is read and
removed after a build without warnings. A build that finds the marker reads and writes every page
again; the results of the cells are kept elsewhere, so this takes seconds.
"""

from __future__ import annotations

import locale
import shutil
import sys
from pathlib import Path

from filelock import FileLock, Timeout
from sphinx.application import ENV_PICKLE_FILENAME


def begin(app, config):
    """Wait for any other build of this folder; forget the pages of one that broke off."""
    encoding = locale.getpreferredencoding(False)
    if encoding.lower().replace("-", "") != "utf8":
        raise SystemExit(
            f"genbook: Python takes all text for {encoding} here, and the book is in "
            "UTF-8; set PYTHONUTF8=1, as make does"
        )
    doctrees = Path(app.doctreedir)
    try:
        doctrees.mkdir(parents=True, exist_ok=True)
        acquire(app, doctrees / "lock")
        static = Path(app.outdir, "_static")
        if marker(app).exists():
            (doctrees / ENV_PICKLE_FILENAME).unlink(missing_ok=True)
            # Pages name some of these files with a checksum, if they exist when it is written.
            shutil.rmtree(static, ignore_errors=True)
        # Where a first build crashes, the theme still copies its logo, to a file of this name.
        if static.is_file():
            static.unlink()
    except OSError as error:
        raise SystemExit(f"genbook: cannot write into {doctrees}: {error.strerror}") from None


def acquire(app, path: Path) -> None:
    """Hold the lock at `path` until this process ends, however it ends."""
    app.bookbuild_lock = FileLock(path)
    try:
        app.bookbuild_lock.acquire(timeout=0)
    except Timeout:
        print("waiting: another process builds this book", file=sys.__stderr__, flush=True)
        app.bookbuild_lock.acquire()


def marker(app) -> Path:
    """The file that exists while a build is unfinished."""
    return Path(app.doctreedir, "unfinished")


def set_marker(app, env, docnames):
    """Mark the build as unfinished: from here on it reads and writes pages."""
    marker(app).touch()


def end(app, exception):
    """Remove the marker after a build without warnings."""
    if exception is None and not app._warncount:
        marker(app).unlink(missing_ok=True)


def setup(app):
    """Connect to the beginning, the first page, and the end."""
    app.connect("config-inited", begin, priority=50)  # before anything is read or written
    app.connect("env-before-read-docs", set_marker, priority=900)  # after the cells have run
    app.connect("build-finished", end, priority=900)
