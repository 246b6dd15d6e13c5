"""Sentences about results have claims, and a claim that does not hold is seen."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import paddle
import pytest
import unclaimed
from cells import codes

from bookbuild import claims
from bookbuild.cells import CELL
from genbook.publishing.claims import claim
from genbook.publishing.source import bound_by

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(path.stem for path in (ROOT / "book").glob("*.md"))


def cell(code):
    """A cell with claims, as a page has it."""
    return f"```{{code-cell}} ipython3\n:tags: [claim]\n{code}\n```\n"


PAGE = f"""\
```{{code-cell}} ipython3
x = 0.75
print(x)
```

About three quarters of the
samples are legible, and more than a half.

{
    cell('''from genbook.publishing.claims import claim

claim("About three quarters of the samples are legible", x, above=0.6, below=0.9)
claim("more than a half", x, above=HALF, error=0.05)''')
}
"""


@pytest.fixture
def shown(monkeypatch):
    """What `claim` shows, in a list."""
    found = []
    monkeypatch.setattr("genbook.publishing.claims.display", found.append)
    return found


@pytest.mark.parametrize(
    ("value", "bounds", "holds", "margin"),
    [
        (0.9, {"above": 0.8}, True, 1 / 9),
        (0.8, {"above": 0.8}, False, 0),
        (0.7, {"above": 0.8}, False, -1 / 8),
        (3, {"above": 2, "below": 5}, True, 1 / 3),
        (6, {"above": 2, "below": 5}, False, -1 / 6),
        ([5, 3, 4], {"above": 2}, True, 1 / 3),
        ([5, 1, 4], {"above": 2}, False, -1 / 2),
        (0.9, {"above": 0.8, "error": 0.02}, True, 5),
        (0.9, {"above": 0.8, "error": 0.04}, False, 2.5),
        ([0.9, 0.9], {"below": 1.0, "error": [0.01, 0.04]}, False, 2.5),
        (7, {"equals": 7}, True, 0),
        (7.5, {"equals": 7}, False, -0.5 / 7.5),
        (True, {"equals": True}, True, 0),
        ([0.9, 0.9], {"above": 0.8, "error": [0.0, 0.04]}, False, 2.5),
        (4, {"below": [5, 8]}, True, 1 / 5),
        ([[5], [4]], {"above": [1, 2]}, True, 1 / 2),
        (paddle.ones([2], "bfloat16"), {"below": paddle.to_tensor(2.0)}, True, 1 / 2),
        (np.nan, {"above": 0}, False, -np.inf),
        (np.nan, {"equals": 0}, False, -np.inf),
        (np.inf, {"below": 3}, False, -np.inf),
        (np.inf, {"above": 3}, False, -np.inf),
    ],
)
def test_claims_hold_by_a_margin(shown, value, bounds, holds, margin):
    claim("a sentence", value, **bounds)
    assert shown[0].holds is holds
    assert shown[0].margin == pytest.approx(margin)
    json.dumps(shown[0]._repr_mimebundle_())  # as a notebook keeps it


@pytest.mark.parametrize(
    ("value", "bounds"),
    [
        (1, {}),
        ([], {"above": 0}),
        (1, {"error": 0.1}),
        (1, {"equals": 1, "above": 0}),
        (1, {"above": 2, "error": -1}),
    ],
)
def test_a_claim_without_something_to_compare_is_an_error(shown, value, bounds):
    with pytest.raises(ValueError, match="a claim needs"):
        claim("a sentence", value, **bounds)


@pytest.mark.parametrize(
    ("value", "bounds", "room"),
    [
        (7, {"equals": 7}, "exact"),
        (7, {"above": 7}, "0%"),
        (0.9999, {"below": 1}, "0.01%"),
        (3, {"above": 2}, "33%"),
        (3, {"above": 2, "error": 0.25}, "4.0 s.e."),
    ],
)
def test_margins_as_text(shown, value, bounds, room):
    claim("a sentence", value, **bounds)
    assert shown[0].room() == room


def test_claims_are_shown_on_their_page_and_listed(book):
    book.page("a", PAGE.replace("HALF", "0.5"))
    book.page("verified", "```{claims}\n```\n\n```{doubts}\n```")
    assert book.build().ran() == {"a"}
    page, verified = book.html("a"), book.html("verified")
    assert page.count("<summary") == 1 and "Checked in this build" in page
    assert 'id="claim-a-1"' in page and 'href="a.html#claim-a-1"' in verified
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", verified))
    for words in ("0.6 < x < 0.9", "0.5 < x", "0.75 ± 0.05", "5.0 s.e.", "17%"):
        assert words in re.sub(r"&lt;", "<", text), text
    assert "In this build every claim holds." in verified
    notebook = (book.root / "_build/html/_sources/book/a.ipynb").read_text("utf-8")
    assert "claim" not in notebook


def test_a_claim_that_does_not_hold_ends_a_complete_build_red(book):
    book.page("a", PAGE.replace("HALF", "0.65"))
    book.page("status", "```{doubts}\n```")
    for _ in "again", "from the cache":
        build = book.build()
        assert build.code == 1
        assert re.search(
            r"book/a.*a claim does not hold: “more than a half”: "
            r"0.65 < x is 0.75 ± 0.05 \(2.0 s.e.\)",
            build.err,
        ), build.err
    for page in ("a", "status"):
        assert "more than a half" in re.sub(r"\s+", " ", book.html(page))
    assert "Doubt the sentence" in book.html("a")
    assert "every claim holds" not in book.html("status")


@pytest.mark.parametrize(("edition", "warnings"), [("digits", 1), ("mnist", 0)])
def test_only_the_prose_of_the_default_edition_must_hold(monkeypatch, edition, warnings):
    false = claims.Checked("book/a", 1, "x < 1", claims.Claim("x is small", 2.0, 0.0, -0.5, False))
    said = []
    monkeypatch.setattr(claims, "of_whole_book", lambda env: [false])
    monkeypatch.setattr(claims.LOGGER, "warning", lambda *words, **place: said.append(words))
    monkeypatch.setenv("GENBOOK_EDITION", edition)
    claims.report(None, None)
    assert len(said) == warnings


def test_a_claim_quotes_its_page(book):
    book.page("a", PAGE.replace("HALF", "0.5").replace("samples are legible, and", "samples, and"))
    build = book.build()
    assert build.code == 1 and "the page does not say what is claimed: 'About three" in build.err


def test_a_call_in_a_loop_is_no_claim():
    assert claims.needs_of(
        "claim('a b', x.mean(), below=y)\nfor i in x:\n    claim('c', i, above=1)"
    ) == ["x.mean() < y"]


def test_a_cell_whose_claims_cannot_be_told_apart_is_an_error(book):
    book.page("a", PAGE.replace("HALF", "0.5").replace("claim(", "for _ in 1, 2: claim(", 1))
    build = book.build()
    assert build.code == 1 and "once for each sentence" in build.err, build.err


@pytest.mark.parametrize(
    ("call", "needs"),
    [
        ("claim('a', x / y, above=1, below=2)", "1 < x / y < 2"),
        ("claim('a', x, below=2 * z, error=e)", "x < 2 * z"),
        ("claim('a', x, above=y)", "y < x"),
        ("claim('a', x > 0 and y, equals=True)", "(x > 0 and y) == True"),
        ("claim('a', x > 0, equals=True)", "(x > 0) == True"),
    ],
)
def test_what_a_claim_compares(call, needs):
    assert claims.needs_of(call) == [needs]


@pytest.mark.parametrize("page", PAGES)
def test_sentences_about_results_have_claims(page):
    missing = [f"book/{s.page}.md:{s.line}: {s.text}" for s in unclaimed.unclaimed(page)]
    assert not missing, "\n".join(missing)


def test_sentences_after_an_output_may_need_claims(monkeypatch, tmp_path):
    (tmp_path / "book").mkdir()
    cell = "```{code-cell} ipython3\n# a comment\nx = 1\n```"
    text = f"# A\n\nMost.\n\n{cell}\n\nIt shrinks.\n\n# B\n\nMost.\n"
    (tmp_path / "book/a.md").write_text(text, "utf-8")
    monkeypatch.setattr(unclaimed, "ROOT", tmp_path)
    assert [s.text for s in unclaimed.unclaimed("a")] == ["It shrinks."]


@pytest.mark.parametrize("page", PAGES)
def test_only_cells_that_are_tagged_make_claims(page):
    for cell in CELL.finditer((ROOT / f"book/{page}.md").read_text("utf-8")):
        assert claims.checks(cell) == ("claim(" in cell["code"]), cell[0]


@pytest.mark.parametrize("page", PAGES)
def test_exceptions_are_needed(page):
    found = {s.text for s in unclaimed.unclaimed(page, excepted=())}
    for words in unclaimed.exceptions(page):
        matches = {words} & found or {text for text in found if words in text}
        assert len(matches) == 1, f"{len(matches)} sentences for {words!r}"


@pytest.mark.parametrize("page", PAGES)
def test_claims_leave_the_names_of_a_page_alone(page):
    text = (ROOT / f"book/{page}.md").read_text("utf-8")
    own = {name for code in codes(claims.without_claims(text)) for name in bound_by(code)}
    for cell in filter(claims.checks, CELL.finditer(text)):
        assert not bound_by(cell["code"]) & own, cell[0]


def test_other_seeds_and_their_claims(book):
    book.page(
        "a",
        """\
```{code-cell} ipython3
import numpy as np
import paddle

paddle.seed(0)
draws = [np.random.default_rng(0).random(), paddle.rand([1]).item()]
print("drawn")
```

Each draw is a number.

```{code-cell} ipython3
:tags: [claim]
from genbook.publishing.claims import claim

claim("Each draw is a number.", draws, above=0, below=1)
claim("draw is a number", draws[0], equals=np.random.Generator(np.random.PCG64(0)).random())
draws = draws[:1]
```

```{code-cell} ipython3
:tags: [claim]
claim("Each draw is a number.", draws, above=0, below=1)
```
""",
    )
    shutil.copytree(ROOT / "tools", book.root / "tools")
    script = [sys.executable, "-W", "ignore", "tools/claims.py", "default", "seed1"]
    run = subprocess.run(script, cwd=book.root, env=book.env, capture_output=True, text=True)
    assert run.returncode == 1, run.stderr
    lines = [re.split(r"\s{2,}", line) for line in run.stdout.splitlines()]
    assert lines[0] == ["", "default", "seed1"]
    assert lines[1] == ["book/a"]
    assert lines[2][0] == "Each draw is a number." and lines[2][1] != lines[2][2]
    assert lines[3][:2] == ["draw is a number", "exact"] and lines[3][2].startswith("FALSE")
    assert lines[5] == ["3 claims, 1 of which do not hold in every run"]
    book.page("b", "```{code-cell} ipython3\n1 / 0\n```")  # no table that lacks a page
    run = subprocess.run(script[:-1], cwd=book.root, env=book.env, capture_output=True, text=True)
    assert run.returncode == 1 and "ZeroDivisionError" in run.stderr and not run.stdout
