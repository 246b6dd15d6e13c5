"""The pages that must run do so side by side, one per core, before Sphinx reads them.

myst-nb executes a page when it reads it, so one page after the other. Here all pages whose
results are not in the cache run first; myst-nb then finds every page in the cache.
"""

from __future__ import annotations

import os
import re
import sys
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from pathlib import Path

from genbook import fingerprint
from jupyter_cache.base import CacheBundleIn
from nbclient.exceptions import CellExecutionError

from .cache import of_book, read_page
from .kernel import Page
from .progress import Progress


def run_missing_pages(app, env, docnames):
    """Execute the pages among `docnames` whose results are missing. The first failure ends all."""
    if env.mystnb_config.execution_mode != "cache":
        return
    cache = of_book(app)
    build = Path(app.outdir).parent
    pages = []
    for docname in in_toc_order(env, docnames):
        nb = read_page(env, docname)
        if nb is not None and not cache.holds(nb):
            pages.append(Page(docname, Path(env.doc2path(docname)), nb, build))
    known = last_seconds(cache)
    # The longest first, so that no core is left with it at the end; unknown ones may be long.
    pages.sort(key=lambda page: -known.get(page.docname, float("inf")))
    if pages:
        run(pages, cache)
    env.bookbuild_seconds = {page.docname: page.seconds for page in pages}


def run(pages: list[Page], cache) -> None:
    """Run `pages`, as many at a time as there are cores, and keep the results of each."""
    keys = {page: cache.key(page.nb) for page in pages}
    progress = Progress(sys.__stderr__)
    with ThreadPoolExecutor(cores()) as pool:
        waiting, running = list(pages), {}
        try:
            while waiting or running:
                while waiting and len(running) < cores():
                    page = waiting.pop(0)
                    running[pool.submit(page.run)] = page
                    progress.started(page)
                done, _ = wait(running, timeout=0.5, return_when=FIRST_COMPLETED)
                for future in done:
                    page = running.pop(future)
                    future.result()
                    keep(page, keys[page], cache)
                    progress.finished(page)
                progress.show(running.values())
        except BaseException as error:
            for other in running.values():
                other.stop()
            progress.clear()
            if isinstance(error, KeyboardInterrupt):
                message = "Interrupted. Finished pages and trainings are kept."
            else:
                message = failure(page, error)
            print(message, file=progress.stream, flush=True)
            # Sphinx would bury an exception's message under its own traceback.
            raise SystemExit(130 if isinstance(error, KeyboardInterrupt) else 1) from None


def keep(page: Page, key: str, cache) -> None:
    """Put the results of `page` in the cache, unless the code changed while it ran."""
    fingerprint.of_modules.cache_clear()
    if cache.key(page.nb) != key:
        raise RuntimeError("genbook was edited while this page ran; build again")
    results = CacheBundleIn(page.nb, page.docname, data={"execution_seconds": page.seconds})
    cache.cache_notebook_bundle(results, check_validity=False, overwrite=True)


def failure(page: Page, error: BaseException) -> str:
    """What to tell about a page that failed: where, and Python's own traceback."""
    text = str(error)
    if not isinstance(error, CellExecutionError):
        text = f"{type(error).__name__}: {text}\n{page.output.read_text(errors='replace')}"
    if not sys.__stderr__.isatty():
        text = re.sub(r"\x1b\[[0-9;]*m", "", text)
    return f"\n{page.docname}.md:{page.line()}: a cell failed, the build stops.\n\n{text}"


def last_seconds(cache) -> dict[str, float]:
    """How long each page took when it last ran."""
    records = sorted(cache.list_cache_records(), key=lambda record: record.created)
    return {record.uri: record.data["execution_seconds"] for record in records}


def in_toc_order(env, docnames) -> list[str]:
    """`docnames` as the reader meets them."""
    order = {docname: i for i, docname in enumerate(env.config.external_site_map)}
    return sorted(docnames, key=lambda name: order.get(name, len(order)))


def cores() -> int:
    """The processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def setup(app):
    """Connect the execution to the build."""
    app.connect("env-before-read-docs", run_missing_pages)
