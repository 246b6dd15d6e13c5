"""The search box finds the chapters."""

import re
from html.parser import HTMLParser

import pytest


class Words(HTMLParser):
    """The words of a page's paragraphs, and its title."""

    def __init__(self, text):
        super().__init__()
        self.open, self.words, self.title = [], [], ""
        self.feed(text[text.index("<article") : text.index("</article>")])

    def handle_starttag(self, tag, attributes):
        if tag in ("p", "h1"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if self.open and tag == self.open[-1]:
            self.open.pop()

    def handle_data(self, data):
        if self.open == ["p"]:
            self.words += re.findall(r"\b[a-z]{6,}\b", data)
        elif self.open == ["h1"]:
            self.title += data


@pytest.fixture(scope="module")
def terms(site):
    """For each page of the book, a long word that no other page has, if there is one."""
    pages = {path.stem: Words(path.read_text("utf-8")) for path in (site / "book").glob("*.html")}
    result = {}
    for name, page in pages.items():
        elsewhere = {word for other in pages if other != name for word in pages[other].words}
        own = sorted(set(page.words) - elsewhere, key=lambda word: (-len(word), word))
        if own:
            result[name] = own[0]
    assert len(result) > 20
    return result


def search(tab, address, term):
    """The names of the pages that a search lists, in its order."""
    tab.goto(f"{address}search.html?q={term}")
    tab.wait_for_function(
        "/finished|found|did not match/i.test("
        "document.querySelector('#search-results .search-summary')?.innerText)"
    )
    links = tab.locator("#search-results ul.search a").evaluate_all("a => a.map((e) => e.href)")
    return [re.sub(r".*/|\.html.*", "", link) for link in links]


def test_a_term_of_each_chapter_finds_the_chapter(tab, address, terms):
    missed = [
        f"{term!r} does not find {name}"
        for name, term in terms.items()
        if name not in search(tab, address, term)
    ]
    assert not missed, "\n".join(missed)


def test_a_word_that_is_nowhere_is_not_found(tab, address):
    assert search(tab, address, "qwertzuiop") == []


def test_a_reader_searches_from_a_chapter(tab, address):
    tab.goto(address + "book/vae.html")
    tab.keyboard.press("Control+k")
    tab.keyboard.type("reparameterize")
    tab.keyboard.press("Enter")
    tab.wait_for_url("**/search.html?q=reparameterize*")
    tab.wait_for_selector("#search-results ul.search a[href*='vae.html']")


def test_search_works_from_files(tab, site):
    assert "vae" in search(tab, site.as_uri() + "/", "reparameterize")
