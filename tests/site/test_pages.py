"""Every page of the built site, in a browser, by day and by night, on a wide screen and a phone."""

import re
from pathlib import Path

import pytest

from bookbuild.cells import CELL

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.slow  # a visit of all pages takes minutes


def test_every_page_was_looked_at(visits, names):
    assert len(names) > 20
    assert set(visits.requests) == set(names)


@pytest.mark.parametrize(
    ("kinds", "promise"),
    [
        (["foreign"], "no request leaves the site"),
        (["missing"], "every file that a page asks for is there"),
        (["errors"], "no error on the console"),
        (["images"], "every image loads and is told in words"),
        (["formulas"], "every formula is typeset"),
        (["ids"], "an id is there once"),
        (["width"], "no sideways scroll, nothing cut off"),
        (["scrollers"], "what scrolls can be scrolled with the keyboard"),
        (["figures"], "figures are readable on both grounds"),
        (["sizes"], "images are of the size at which they are shown"),
        (["buttons"], "code has a copy button, output has none"),
        (["axe"], "WCAG 2.1 A and AA"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_no_page_breaks_the_promise(visits, kinds, promise):
    found = visits.of(*kinds)
    assert not found, f"{promise}, but:\n{found}"


def cells(page):
    """The code of the cells that a page shows: (options, code)."""
    for cell in CELL.finditer(page):
        if not re.search(r"remove-(input|cell)", cell["options"]):
            yield cell["code"].strip()


def test_copy_buttons_give_the_code_exactly(visits, site):
    pages = {
        name: path.read_text("utf-8")
        for name in visits.copied
        if (path := site / "_sources" / Path(name).with_suffix(".md")).is_file()
    }
    assert sum(len(visits.copied[name]) for name in pages) > 100
    for name, page in pages.items():
        copied = [text.strip() for text in visits.copied[name]]
        assert "" not in copied, name
        for code in cells(page):
            assert code in copied, f"{name}: no copy button gives\n{code}"


def test_copied_code_is_in_the_book_or_the_package(visits, site):
    sources = [
        path.read_text("utf-8")
        for folder in ("genbook", "tests", "book")
        for path in (ROOT / folder).rglob("*.py")
    ]
    for name in visits.copied:
        path = site / "_sources" / Path(name).with_suffix(".md")
        page = path.read_text("utf-8") if path.is_file() else ""
        for text in visits.copied[name]:
            assert any(same_lines(text, source) for source in (page, *sources)), (
                f"{name}: a copy button gives what no source holds:\n{text}"
            )


def same_lines(text, source):
    """Whether the lines of `text` follow each other in `source`, at whatever indentation."""
    strip = "\n".join(line.strip() for line in text.strip().splitlines())
    return strip in "\n".join(line.strip() for line in source.splitlines())
