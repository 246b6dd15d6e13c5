"""The built site: it asks no other host for anything, and it reads well on a phone."""

import re
from functools import partial
from html.parser import HTMLParser
from urllib.parse import urlsplit

import pytest

BODY = r"""
Inline $x \in \mathbb{R}^n$, a {ref}`link <there>`, a paper: <https://arxiv.org/abs/2006.11239>,
and a word of Chinese: 零一二三.

$$
\log p(x) = \E_{q(z \mid x)}[\log p(x \mid z)] - \KL(q(z \mid x) \,\|\, p(z))
          + \KL(q(z \mid x) \,\|\, p(z \mid x)), \quad z \sim \N(\boldsymbol{0}, \mathbf{I})
$$ (elbo)

See {eq}`elbo`.

(there)=
## There

| a long heading of a column | another long heading | and one more long heading |
|---|---|---|
| 1 | 2 | 3 |

```{code-cell} python3
---
mystnb: {image: {alt: A line.}, figure: {name: fig-line, caption: A line.}}
---
import matplotlib.pyplot as plt
plt.plot([1, 2, 3], label="a long line of code that does not fit on the screen of a phone at all");
```

```{code-cell} python3
print("a long line of output " * 10)
```
"""


@pytest.fixture(scope="module")
def site(new_book, tmp_path_factory):
    """A built miniature book with all that a chapter has: its folder."""
    book = new_book(tmp_path_factory.mktemp("site") / "book")
    book.page("page", BODY)
    assert book.build().ran() == {"page"}
    return book.root / "_build/html"


class Requests(HTMLParser):
    """Collects the addresses that a browser asks for when it shows a page."""

    def __init__(self):
        super().__init__()
        self.addresses = []

    def handle_starttag(self, tag, attributes):
        if tag == "a":
            return  # asks for nothing before the reader clicks
        for name, value in attributes:
            if name in ("src", "href", "data", "poster") and value:
                self.addresses.append(value)
            if name in ("style", "srcset") and value:
                self.addresses += re.findall(r"//[^\s)'\"]+", value)


def asked_by_css(text):
    return re.findall(r"(?:@import|url\()\s*[\"']?([^\"')\s;]+)", text)


def requests_of(path):
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".css":
        return asked_by_css(text)
    parser = Requests()
    parser.feed(text)
    styles = "".join(re.findall(r"<style[^>]*>(.*?)</style>", text, re.DOTALL))
    scripts = "".join(re.findall(r"<script[^>]*>(.*?)</script>", text, re.DOTALL))
    return [*parser.addresses, *asked_by_css(styles), *re.findall(r"https?://[^\s\"']+", scripts)]


def test_no_file_of_the_site_asks_another_host(site):
    files = [*site.rglob("*.html"), *site.rglob("*.css")]
    assert len(files) > 5
    foreign = {(path.name, address) for path in files for address in requests_of(path)
               if urlsplit(address).netloc}
    assert not foreign


def test_the_site_starts_at_index_html(site):
    target = re.search(r"url=(\S+?)\"", (site / "index.html").read_text()).group(1)
    assert (site / target).is_file()


def test_mathjax_is_there_and_small(site):
    folder = site / "_static/mathjax"
    assert (folder / "tex-chtml.js").is_file()
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 4e6


@pytest.fixture
def show(site, show_page):
    """A function that shows a page of the site in a browser and returns the page's final HTML."""
    return partial(show_page, site)


def test_a_browser_typesets_the_equations(show, tmp_path):
    html = show("book/page.html", tmp_path)
    assert html.count("<mjx-container") >= 2
    assert "data-mjx-error" not in html
    assert "<mjx-merror" not in html


PHONE = """
<iframe src="book/page.html" width="390" height="800"></iframe>
<script>
const frame = document.querySelector("iframe");
function measure() {
  const page = frame.contentDocument;
  // The equations once more, for screen readers: there but not seen.
  page.querySelectorAll("mjx-assistive-mml").forEach((e) => e.remove());
  const cut = [...page.querySelectorAll("article *:not(mjx-container *)")].filter(
    (e) => e.clientWidth && e.scrollWidth > e.clientWidth + 1
      && frame.contentWindow.getComputedStyle(e).overflowX === "hidden");
  const names = cut.map((e) => `${e.tagName}.${e.className}`);
  document.title = `width ${page.documentElement.scrollWidth} cut [${names}]`;
}
frame.onload = () => setTimeout(measure, 5000);
</script>
"""


def test_on_a_phone_nothing_is_cut_off_and_the_page_never_scrolls_sideways(show, site, tmp_path):
    (site / "phone.html").write_text(PHONE)
    html = show("phone.html", tmp_path)
    width, cut = re.search(r"<title>width (\d+) cut \[(.*?)\]", html).groups()
    assert int(width) <= 390
    assert cut == ""
