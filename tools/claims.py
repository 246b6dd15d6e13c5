"""Run the whole book again under other arithmetic and with other seeds: do its claims hold?

    python tools/claims.py [run ...]

Each run builds all pages into a folder of its own, _build/claims/RUN, which keeps its trainings.
Prints each claim with its margin in each run, and ends with 1 if one does not hold.
"""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "book/_ext")]

from bookbuild.cache import BookCache  # noqa: E402
from bookbuild.claims import claims_of  # noqa: E402

RUNS = {
    "default": {},
    "avx512": {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE"},
    "avx2": {"ONEDNN_MAX_CPU_ISA": "AVX2"},
    "seed1": {"GENBOOK_SEED": "1"},
    "seed2": {"GENBOOK_SEED": "2"},
}
WORDS = 60  # characters of a sentence that the table shows


def run_pages(name):
    """Run all pages, and return their claims: {(page, sentence, inequality, cell): claim}."""
    folder = ROOT / "_build/claims" / name
    jupyter_book = Path(sys.executable).with_name("jupyter-book")
    build = [jupyter_book, "build", ".", "--path-output", folder]
    # "dummy" writes no pages. A claim that does not hold is only a warning here, which ends
    # nothing; a page that fails ends all.
    options = ["--builder", "custom", "--custom-builder", "dummy"]
    environment = {**os.environ, **RUNS[name]}
    subprocess.run(
        [*build, *options], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, check=True
    )
    cache = BookCache(folder / "_build/.jupyter_cache")
    newest = {r.uri: r for r in sorted(cache.list_cache_records(), key=lambda r: r.created)}
    return {
        (c.page, c.claim.says, c.needs, c.cell): c.claim
        for page, record in newest.items()
        for c in claims_of(cache.get_cache_bundle(record.pk).nb, page)
    }


def main(names):
    """Print the table; 1 if a claim does not hold in one of the runs."""
    found = {name: run_pages(name) for name in names}
    claims = dict.fromkeys(claim for run in found.values() for claim in run)
    print(" " * WORDS + "".join(f"{name:>14s}" for name in names))
    page, false = None, 0
    for claim in claims:
        if claim[0] != page:
            page = claim[0]
            print(page)
        results = [found[name].get(claim) for name in names]
        cells = [cell(result) for result in results]
        false += not all(result and result.holds for result in results)
        print(f"{claim[1][:WORDS]:{WORDS}s}" + "".join(f"{text:>14s}" for text in cells))
    print(f"{len(claims)} claims, {false} of which do not hold in every run")
    return int(false > 0 or not claims)


def cell(result):
    """How a claim came out in one run."""
    if result is None:
        return "missing"
    return result.room() if result.holds else f"FALSE {result.room()}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or list(RUNS)))
