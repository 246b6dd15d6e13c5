"""The pages behind the chapters: API reference, build status, citing."""

import ast
import html
import re
from pathlib import Path

import pytest
import yaml

import genbook
from public import modules

ROOT = Path(__file__).resolve().parents[2]


def public_names(path):
    """The functions and classes that a module defines for others."""
    tree = ast.parse(path.read_text("utf-8"))
    return [
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
    ]


@pytest.fixture(scope="module")
def built(new_book, tmp_path_factory):
    """A miniature book with the real back matter and one page with code."""
    book = new_book(tmp_path_factory.mktemp("back") / "book")
    for page in ("api", "status"):
        book.write(f"book/{page}.md", (ROOT / f"book/{page}.md").read_text("utf-8"))
    book.page("some", "```{code-cell} python3\nprint(1)\n```\n")
    assert book.build().ran() == {"some"}
    return book


def test_every_public_name_is_on_the_page(built):
    page = built.html("api")
    found = {
        what
        for module, path in modules()
        for what in (f"module-{module}", *(f"{module}.{name}" for name in public_names(path)))
    }
    missing = sorted(what for what in found if f'id="{what}"' not in page)
    assert not missing, "not on the page API reference:\n" + "\n".join(missing)


def test_a_docstring_reads_as_in_the_source(built):
    text = html.unescape(re.sub(r"<[^>]+>", "", built.html("api")))
    text = " ".join(text.split())
    assert "Of p(x_{t-1} | x_t): (mean, variance, log_variance, x_start estimate)." in text
    assert "KL(N(mu, sigma^2) || N(0, I)) of each row, in nats" in text


def took(status):
    """The seconds and the memory of the page `some`, as the build status shows them."""
    row = (
        r'href="some.html"><span class="doc">Page some</span></a>.*?<p>(\d+)</p>.*?<p>([\d–]+)</p>'
    )
    seconds, memory = re.search(row, status, re.S).groups()
    return int(seconds), memory


def test_the_status_names_pages_times_and_versions(built):
    page = built.html("status")
    seconds, memory = took(page)
    assert seconds < 600
    if Path("/proc/self/status").is_file():
        assert 10 < int(memory) < 10_000  # MiB of a kernel that has done next to nothing
    assert re.search(r"<p>paddlepaddle</p>.*?<p>3\.\d+\.\d+</p>", page, re.S)


def test_another_build_tells_the_same_and_a_new_run_is_told(built):
    before = built.html("status")
    assert built.build().ran() == set()
    assert built.html("status") == before
    seconds, _ = took(before)
    longer = f"import time; time.sleep({seconds + 2})"
    built.page("some", f"```{{code-cell}} python3\n{longer}\n```\n")
    built.build()
    assert took(built.html("status"))[0] > seconds


def test_the_citation_has_the_version_of_the_package():
    about = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    version = genbook.__version__
    assert about["version"] == version
    assert about["cff-version"] == "1.2.0" and {"authors", "title", "message"} <= about.keys()
    page = (ROOT / "book/citing.md").read_text("utf-8")
    assert f"version = {{{version}}}" in page and about["title"] in page
