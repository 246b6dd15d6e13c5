"""No stale figures: a page's results are kept under everything they depend on.

jupyter-cache knows a page by its cells alone, so an edit to `genbook` would leave yesterday's
figures in the book. `BookCache` adds the rest: the definitions that the cells import, the lock
file, the data and the processor. It leaves out what cannot change a result: prose, captions,
alternative texts.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from jupyter_cache.cache.db import DB_NAME
from jupyter_cache.cache.main import JupyterCacheBase
from myst_nb.core.execute import cache as myst_nb_cache
from myst_nb.core.read import create_nb_reader
from nbformat.reader import NotJSONError
from sqlalchemy.exc import DatabaseError

from genbook import data, system
from genbook.publishing import fingerprint

from . import edition, equations

LOCK = equations.ROOT / "requirements.txt"


class BookCache(JupyterCacheBase):
    """A jupyter-cache whose key holds the code that the cells import, the lock and the data."""

    def create_hashed_notebook(self, nb, nb_metadata=("kernelspec",), cell_metadata=("tags",)):
        """The notebook's code cells, and the key of their results."""
        bare, cells = super().create_hashed_notebook(nb, nb_metadata, cell_metadata)
        return bare, fingerprint.digest(
            cells,
            imported_code(nb),
            LOCK.read_bytes(),
            data_state(nb),
            checks_state(nb),
            # what rounds the results of all kernels, which have one thread and are accelerated
            system.instruction_set(),
            fingerprint.of_acceleration(),
            os.environ.get("GENBOOK_SEED", ""),
        )

    def key(self, nb) -> str:
        """The key under which the results of `nb` are kept."""
        return self.create_hashed_notebook(nb)[1]

    def holds(self, nb) -> bool:
        """Whether the results of `nb` are there."""
        try:
            self.match_cache_notebook(nb)
        except KeyError:
            return False
        return True

    def match_cache_notebook(self, nb):
        """The record of the results of `nb`; KeyError where they are missing or not whole."""
        record = super().match_cache_notebook(nb)
        try:
            self.get_cache_bundle(record.pk)
        except (NotJSONError, UnicodeDecodeError):
            raise KeyError(record.hashkey) from None
        return record

    def cache_notebook_bundle(self, bundle, *arguments, **options):
        """Keep results, in place of what a killed build may have left there."""
        folder = self._get_notebook_path_cache(self.key(bundle.nb)).parent
        shutil.rmtree(folder, ignore_errors=True)
        return super().cache_notebook_bundle(bundle, *arguments, **options)

    def mend(self) -> None:
        """Start a new list of results if a killed build left one that cannot be read."""
        try:
            self.list_cache_records()
        except (RuntimeError, DatabaseError):  # jupyter-cache makes the first of some of these
            (self.path / DB_NAME).unlink()
            self._db = None


def of_book(env) -> BookCache:
    """The cache of the book being built."""
    return BookCache(env.mystnb_config.execution_cache_path)


def data_state(nb) -> str:
    """Names, sizes and times of the data files, for a page that names a data set with files.

    Their content would take long to read.
    """
    code = "".join(cell.source for cell in nb.cells if cell.cell_type == "code")
    named = [name for name in data.NAMES if re.search(rf"""["']{name}["']""", code)]
    try:
        files = [path for name in named for path in data.files_of(name)]
    except data.DataError as error:  # the page that loads them will show it
        return str(error)
    stats = ((path, path.stat()) for path in files)
    return "\n".join(f"{path} {stat.st_size} {stat.st_mtime_ns}" for path, stat in stats)


def checks_state(nb) -> str:
    """The equations of the book and their checks, for the page that runs the checks."""
    runs = any("equations.run_checks" in cell.source for cell in nb.cells)
    return equations.state() if runs else ""


def imported_code(nb) -> str:
    """The hash of what the cells of `nb` import from `genbook`, and of all that this needs."""
    sources = [cell.source for cell in nb.cells if cell.cell_type == "code"]
    try:
        return fingerprint.digest(*map(fingerprint.of_imports, sources))
    except SyntaxError:  # a magic or a mistake: it may import anything
        return fingerprint.of_modules(frozenset(fingerprint.SOURCES))


def read_page(env, docname: str):
    """The notebook of a page, read the way myst-nb reads it; None where no cell is to run."""
    path = env.doc2path(docname)
    text = edition.adapt(Path(path).read_text(encoding="utf-8"))
    reader = create_nb_reader(path, env.myst_config, env.mystnb_config, text)
    if reader is None:
        return None
    nb = reader.read(text)
    return nb if any(cell.cell_type == "code" for cell in nb.cells) else None


def use_book_cache(app):
    """Make myst-nb look for results in the book's cache."""
    if not hasattr(myst_nb_cache, "get_cache"):
        raise RuntimeError("myst-nb no longer takes its cache from `get_cache`; adapt cache.py")
    myst_nb_cache.get_cache = BookCache
    of_book(app.env).mend()


def outdated(app, env, added, changed, removed):
    """The pages whose results were made by other code than today's, though their text is old."""
    keys = page_keys(env)
    return [name for name in keys.keys() & env.found_docs if current_key(env, name) != keys[name]]


def note_key(app, docname, source):
    """Remember the key of the results that a page is about to show."""
    page_keys(app.env)[docname] = current_key(app.env, docname)


def current_key(env, docname: str) -> str | None:
    """The key of the results of a page as its code is now; None where it has none."""
    nb = read_page(env, docname)
    return nb and of_book(env).key(nb)


def page_keys(env) -> dict[str, str | None]:
    """For each page the key of the results it shows; kept from build to build."""
    return vars(env).setdefault("bookbuild_keys", {})


def setup(app):
    """Connect the cache to the build."""
    app.connect("builder-inited", use_book_cache)
    app.connect("env-get-outdated", outdated)
    app.connect("source-read", note_key)
