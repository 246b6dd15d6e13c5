"""What the site says about itself once it knows its address, and what a dead link leads to."""

import http.server
import threading
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import pytest

URL = "https://example.org/lab/genbook"
TEXT = "A first *paragraph* that says “what” the page is about, in so many words. " * 5


@pytest.fixture(scope="module")
def small(new_book, tmp_path_factory):
    """A miniature book that knows its address: the folder of its site."""
    book = new_book(tmp_path_factory.mktemp("address") / "book")
    book.page("page", TEXT)
    book.env["GENBOOK_URL"] = URL
    build = book.build()
    assert build.code == 0, build.out + build.err
    return book.root / "_build/html"


class Tags(HTMLParser):
    """The meta tags of a page, by name or property, and its links by relation."""

    def __init__(self, path):
        super().__init__()
        self.meta, self.links = {}, {}
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag == "meta":
            name = attributes.get("property") or attributes.get("name")
            assert name not in self.meta or name in (None, "viewport"), f"{name} twice"
            self.meta[name] = attributes.get("content")
        if tag == "link":
            self.links[attributes["rel"]] = attributes["href"]


def test_a_page_describes_itself(small):
    tags = Tags(small / "book/page.html")
    assert tags.meta["og:title"] == "Page page"
    assert tags.meta["og:description"] == tags.meta["description"]
    assert tags.meta["description"].startswith("A first paragraph that says “what”")
    assert 100 < len(tags.meta["description"]) <= 202
    assert tags.meta["og:url"] == tags.links["canonical"] == f"{URL}/book/page.html"


def test_the_picture_for_links_is_there(small):
    from PIL import Image

    meta = Tags(small / "book/page.html").meta
    path = small / meta["og:image"].removeprefix(f"{URL}/")
    size = int(meta["og:image:width"]), int(meta["og:image:height"])
    assert Image.open(path).size == size == (1200, 630)


def test_the_sitemap_lists_every_page_once(small):
    name = "{http://www.sitemaps.org/schemas/sitemap/0.9}loc"
    found = [e.text for e in ElementTree.parse(small / "sitemap.xml").iter(name)]
    pages = {f"{URL}/{path.relative_to(small)}" for path in small.glob("book/*.html")}
    assert set(found) == pages and len(found) == len(pages) == 2


def test_an_address_that_is_none_stops_the_build(book):
    book.env["GENBOOK_URL"] = "example.org/genbook"
    build = book.build()
    assert build.code != 0
    assert "it must start with https:// or http://" in build.out + build.err


@pytest.mark.parametrize("at", ["/lab/genbook/nothing", "/lab/genbook/book/very/deep/nothing.html"])
def test_a_dead_link_leads_to_a_page_that_works(small, tab, at):
    """Whatever was asked for, the page finds its style, and its links lead into the book."""

    class Host(http.server.SimpleHTTPRequestHandler):
        def do_GET(self):
            path = small / self.path.split("?")[0].removeprefix("/lab/genbook/")
            found = self.path.startswith("/lab/genbook/") and path.is_file()
            self.send_response(200 if found else 404)
            self.send_header("Content-Type", self.guess_type(path if found else "404.html"))
            self.end_headers()
            self.wfile.write((path if found else small / "404.html").read_bytes())

        def log_message(self, *arguments):
            pass

    missing = []
    tab.on("response", lambda r: missing.append(r.url) if r.status == 404 else None)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Host) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        host = f"http://127.0.0.1:{server.server_port}"
        tab.goto(host + at)
        assert missing == [host + at]  # and nothing that the page asks for
        tab.get_by_role("main").get_by_role("link", name="To the first page").click()
        tab.wait_for_url(f"{host}/lab/genbook/book/index.html")
        server.shutdown()
