"""One build at a time, and nothing half-written stays.

Sphinx takes a page for done once its file is there, be it cut off by the end of the process, and
it warns about a page only when it reads it. So a mark is set before the first page is read, and
taken away after a build without a warning. A build that finds the mark begins with no site and
reads every page anew; the results of the cells are kept elsewhere, so this takes seconds.
"""

from __future__ import annotations

import locale
import shutil
import sys
from pathlib import Path

from filelock import FileLock, Timeout
from sphinx.application import ENV_PICKLE_FILENAME


def begin(app, config):
    """Wait until no other build writes into this folder; forget what an unfinished one made."""
    encoding = locale.getpreferredencoding(False)
    if encoding.lower().replace("-", "") != "utf8":
        raise SystemExit(
            f"genbook: Python takes all text for {encoding} here, and the book is in "
            "UTF-8; set PYTHONUTF8=1, as make does"
        )
    doctrees = Path(app.doctreedir)
    try:
        doctrees.mkdir(parents=True, exist_ok=True)
        hold_lock(app, doctrees / "lock")
        if mark(app).exists():
            (doctrees / ENV_PICKLE_FILENAME).unlink(missing_ok=True)
            shutil.rmtree(app.outdir)
            Path(app.outdir).mkdir()
    except OSError as error:
        raise SystemExit(f"genbook: cannot write into {doctrees}: {error.strerror}") from None


def hold_lock(app, path: Path) -> None:
    """Hold the lock at `path` until this process ends, however it ends."""
    app.bookbuild_lock = FileLock(path)
    try:
        app.bookbuild_lock.acquire(timeout=0)
    except Timeout:
        print("waiting: another process builds this book", file=sys.__stderr__, flush=True)
        app.bookbuild_lock.acquire()


def mark(app) -> Path:
    """The file whose presence says that a build has begun to write, and not ended well."""
    return Path(app.doctreedir, "unfinished")


def set_mark(app, env, docnames):
    """From here on pages are read and written."""
    mark(app).touch()


def end(app, exception):
    """After a build without a warning, everything is written."""
    if exception is None and not app._warncount:
        mark(app).unlink(missing_ok=True)


def setup(app):
    """Connect to the beginning, the first page, and the end."""
    app.connect("config-inited", begin, priority=50)  # before anything is read or written
    app.connect("env-before-read-docs", set_mark, priority=900)  # after the cells have run
    app.connect("build-finished", end, priority=900)
