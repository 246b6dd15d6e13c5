"""Links, anchors and downloads of the built site, served by a host and opened as files."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[2]


class Page(HTMLParser):
    """What a page links to, what it loads and where it can be entered."""

    def __init__(self, text):
        super().__init__()
        self.links, self.loads, self.ids, self.text = [], [], set(), text
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.ids |= {value for name in ("id", "name") if (value := attributes.get(name))}
        if tag == "a" and attributes.get("href"):
            self.links.append(attributes["href"])
        elif tag != "a":
            self.loads += [
                value
                for name in ("src", "href", "data", "poster", "action")
                if (value := attributes.get(name))
            ]
            for name in ("style", "srcset"):
                self.loads += re.findall(r"//[^\s)'\"]+", attributes.get(name) or "")


@pytest.fixture(scope="module")
def pages(site, names):
    """The parsed pages by their paths."""
    return {name: Page((site / name).read_text("utf-8")) for name in names}


def asked_by_css(text):
    return re.findall(r"(?:@import|url\()\s*[\"']?([^\"')\s;]+)", text)


def test_no_file_of_the_site_asks_another_host(site, pages):
    asked = {
        name: [
            *page.loads,
            *asked_by_css("".join(re.findall(r"<style[^>]*>(.*?)</style>", page.text, re.S))),
        ]
        for name, page in pages.items()
    }
    asked |= {
        str(path.relative_to(site)): asked_by_css(path.read_text("utf-8"))
        for path in site.rglob("*.css")
    }
    foreign = [
        f"{name}: {address}"
        for name, addresses in asked.items()
        for address in addresses
        if urlsplit(address).netloc
    ]
    assert not foreign, "\n".join(foreign)


def target(name, link):
    """The file in the site, and the place in it, that a link on a page leads to."""
    parts = urlsplit(urljoin(f"/{name}", link))
    return unquote(parts.path).lstrip("/"), unquote(parts.fragment)


def internal(page):
    """The links of a page that stay on the site."""
    return [link for link in page.links if not urlsplit(link).scheme and not urlsplit(link).netloc]


def test_every_link_leads_somewhere_from_a_host_and_from_a_folder(site, pages):
    broken = []
    count = 0
    for name, page in pages.items():
        for link in internal(page):
            count += 1
            path, place = target(name, link)
            # A file has no root to start from, and a folder has no page to show. A host shows the
            # page 404 at any depth, so that page starts from the root.
            if link.startswith("/") and name != "404.html" or not (site / path).is_file():
                broken.append(f"{name}: {link}: no such file")
            elif place and path in pages and place not in pages[path].ids:
                broken.append(f"{name}: {link}: no such place on that page")
    assert not broken, "\n".join(broken)
    assert count > 1000


def test_links_to_other_hosts_are_secure_and_whole(pages):
    links = {
        (name, link)
        for name, page in pages.items()
        for link in page.links
        if urlsplit(link).scheme or urlsplit(link).netloc
    }
    assert len(links) > 20
    bad = [
        f"{name}: {link}"
        for name, link in links
        if not re.fullmatch(r"https://[\w.-]+\.[a-z]{2,}(/\S*)?|mailto:\S+@\S+", link)
    ]
    assert not bad, "\n".join(bad)


def test_downloads_are_working_files(site, pages):
    notebooks = sources = 0
    for name, page in pages.items():
        for link in internal(page):
            path, _ = target(name, link)
            if not path.startswith("_sources/"):
                continue
            if path.endswith(".ipynb"):
                notebook = nbformat.read(site / path, as_version=4)
                nbformat.validate(notebook)
                assert any(cell.cell_type == "code" for cell in notebook.cells), path
                notebooks += 1
            else:
                text = (site / path).read_text("utf-8")
                assert re.search(r"^# \S", text, re.M), path
                sources += 1
    assert notebooks > 10
    assert sources > 20


def test_a_reader_downloads_by_the_button(tab, address, names):
    tab.goto(address + next(name for name in names if name.endswith("/vae.html")))
    for suffix, check in ((".ipynb", json.loads), (".md", str)):
        tab.click(".dropdown-download-buttons > button")
        with tab.expect_download() as download:
            tab.click(f".dropdown-download-buttons a[href$='{suffix}']")
        assert download.value.suggested_filename.endswith("vae" + suffix)
        assert check(Path(download.value.path()).read_text("utf-8"))


def test_a_reader_walks_through_the_book_as_files(tab, site):
    """From the first page to the last by `next`, and `previous` leads back."""
    wrong = []
    tab.on("pageerror", lambda error: wrong.append(f"{tab.url}: {error}"))
    tab.on(
        "console",
        lambda message: message.type == "error" and wrong.append(f"{tab.url}: {message.text}"),
    )
    tab.on("requestfailed", lambda request: wrong.append(f"{tab.url}: {request.url}"))
    tab.on(
        "request",
        lambda request: (
            request.url.startswith(("file:", "data:", "blob:"))
            or wrong.append(f"{tab.url}: {request.url}")
        ),
    )

    tab.goto((site / "index.html").as_uri())
    tab.wait_for_url("**/book/index.html")
    there = [tab.url]
    while tab.locator("a.right-next").count():
        tab.click("a.right-next")
        tab.wait_for_load_state()
        before = tab.locator("a.left-prev").evaluate("link => link.href")
        assert before == there[-1], f"{tab.url} goes back to {before}"
        there.append(tab.url)
        assert len(there) <= 100, "`next` goes round in circles"
    tab.click("a.left-prev")
    tab.wait_for_url(there[-2])
    listed = re.findall(r"(?:file|root): (\S+)", (ROOT / "_toc.yml").read_text("utf-8"))
    assert there == [(site / f"{page}.html").as_uri() for page in listed]
    assert not wrong, "\n".join(wrong)
