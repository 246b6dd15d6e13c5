"""The pages that must run do so side by side, one per core, before Sphinx reads them.

myst-nb executes a page when it reads it, so one page after the other. Here all pages whose
results are not in the cache run first; myst-nb then finds every page in the cache.
"""

from __future__ import annotations

import re
import sys
import time
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from pathlib import Path

from jupyter_cache.base import CacheBundleIn
from nbclient.exceptions import CellExecutionError

from genbook.publishing.source import read_sources
from genbook.system import cores

from .cache import of_book, read_page
from .kernel import Page, list_fonts
from .progress import Progress


def run_missing_pages(app, env, docnames):
    """Execute the pages among `docnames` whose results are missing. The first failure ends all."""
    if env.mystnb_config.execution_mode != "cache":
        return
    cache = of_book(env)
    build = build_folder(Path(app.outdir))
    pages = []
    for docname in docnames:
        nb = read_page(env, docname)
        if nb is not None and not cache.holds(nb):
            pages.append(Page(docname, Path(env.doc2path(docname)), nb, build))
    known = last_seconds(cache)
    place = {docname: i for i, docname in enumerate(env.config.external_site_map)}
    # The longest first, so that no core is left with it at the end. Unknown ones may be long, the
    # later chapters above all: the models grow as the book goes on.
    pages.sort(
        key=lambda page: (known.get(page.docname, float("inf")), place.get(page.docname, 0)),
        reverse=True,
    )
    try:
        if pages:
            list_fonts(build)
            run(pages, cache)
    except KeyboardInterrupt:
        print("Interrupted. Finished pages and trainings are kept.", file=sys.__stderr__)
        raise SystemExit(130) from None
    forget_old_runs(build / "runs")
    env.bookbuild_seconds = {page.docname: page.seconds for page in pages}


def build_folder(outdir: Path) -> Path:
    """Where trainings and logs are kept: `_build`, also beside an output folder elsewhere.

    `sphinx-build` takes any folder for its output, and what lies beside it is not ours.
    """
    return outdir.parent if outdir.parent.name == "_build" else outdir.parent / "_build"


def run(pages: list[Page], cache) -> None:
    """Run `pages`, as many at a time as there are cores, and keep the results of each."""
    keys = {page: cache.key(page.nb) for page in pages}
    progress = Progress(sys.__stderr__)
    waiting, running = list(pages), {}
    with ThreadPoolExecutor(len(pages)) as pool:
        try:
            while waiting or running:
                # A page that waits for a training of another page leaves its core to a third, but
                # keeps its memory.
                while sum(not page.waits() for page in running.values()) < cores():
                    if queued := [page for page in running.values() if page.queues]:
                        queued[0].queues = False
                    elif waiting and len(running) < 3 * cores():
                        page = waiting.pop(0)
                        running[pool.submit(page.run)] = page
                        progress.say(f"{page.docname}: start")
                    else:
                        break
                done, _ = wait(running, timeout=0.5, return_when=FIRST_COMPLETED)
                for future in done:
                    page = running.pop(future)
                    keep(page, future, keys[page], cache)
                    progress.say(f"{page.docname}: done in {page.seconds:.0f} s")
                progress.show(running.values())
        except BaseException:
            for page in running.values():
                page.stop()
            raise
        finally:
            progress.clear()


def keep(page: Page, future, key: str, cache) -> None:
    """Put the results of `page` in the cache. If a cell failed or wrote to stderr, end the build.

    Sphinx would bury the message of another exception under its own traceback.
    """
    try:
        future.result()
    except Exception as error:
        raise SystemExit(failure(page, error)) from None
    read_sources()
    if cache.key(page.nb) != key:
        raise SystemExit(f"{page.docname}: genbook was edited while this page ran; build again.")
    if text := stderr(page):
        raise SystemExit(f"{page.docname}: a cell wrote to stderr, and so on the page:\n\n{text}")
    took = {"execution_seconds": page.seconds, "peak_memory": page.peak_memory}
    results = CacheBundleIn(page.nb, page.docname, data=took)
    cache.cache_notebook_bundle(results, check_validity=False, overwrite=True)


def stderr(page: Page) -> str:
    """What the cells of `page` wrote to stderr: warnings, which do not belong in a book."""
    outputs = (output for cell in page.nb.cells for output in cell.get("outputs", ()))
    return "".join(o.text for o in outputs if o.output_type == "stream" and o.name == "stderr")


def forget_old_runs(runs: Path, days: float = 30) -> None:
    """Delete the trainings that no page has used for so many days."""
    for file in runs.glob("*"):
        if time.time() - file.stat().st_mtime > days * 86_400:
            file.unlink(missing_ok=True)


def failure(page: Page, error: Exception) -> str:
    """The message about a page that failed: the place, and Python's own traceback."""
    text = str(error)
    if not isinstance(error, CellExecutionError):  # the kernel died: its last words
        text = f"{type(error).__name__}: {text}\n{page.output.read_text(errors='replace')}"
    if not sys.__stderr__.isatty():
        text = re.sub(r"\x1b\[[0-9;]*m", "", text)
    return f"\n{page.docname}.md:{page.line()}: a cell failed, the build stops.\n\n{text}"


def last_seconds(cache) -> dict[str, float]:
    """How long each page took when it last ran."""
    records = sorted(cache.list_cache_records(), key=lambda record: record.created)
    return {record.uri: record.data["execution_seconds"] for record in records}


def setup(app):
    """Connect the execution to the build."""
    app.connect("env-before-read-docs", run_missing_pages)
