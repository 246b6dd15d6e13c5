"""What the site says about itself to those who come from elsewhere.

Titles and descriptions for whoever shows a link to a page, and a page for addresses that do not
exist. Where the site's own address is known, from `html_baseurl` or the environment variable
GENBOOK_URL, there are also a picture for links, each page's true address, and `sitemap.xml`.
"""

from __future__ import annotations

import html
import os
import shutil
from pathlib import Path
from urllib.parse import urlsplit
from xml.sax.saxutils import escape

from docutils import nodes
from sphinx.locale import _

CARD = Path(__file__).parent / "card.png"  # 1200 by 630, as those who show links expect it
LONGEST = 200  # letters of a description

# A site in a folder of a host: the page that is not there may have been asked for at any depth.
# Where the address of the site is not known, that folder is guessed as GitHub Pages has it.
GUESS = """<script>if (location.protocol !== "file:") document.write('<base href="' +
 (location.hostname.endsWith(".github.io") ? "/" + location.pathname.split("/")[1] + "/" : "/") +
 '">')</script>"""
NOT_FOUND = """\
<section><h1>{title}</h1>
<p>{text}</p>
<p><a href="{home}">{first}</a> · <a href="{search}">{find}</a></p></section>"""


def learn_address(app, config):
    """Take the site's address from the environment where the configuration has none."""
    base = config.html_baseurl or os.environ.get("GENBOOK_URL", "")
    if base and urlsplit(base).scheme not in ("http", "https"):
        raise SystemExit(
            f"genbook: GENBOOK_URL is {base!r}; it must start with https:// or http://"
        )
    config.html_baseurl = base and base.rstrip("/") + "/"


def describe(app, pagename, templatename, context, doctree):
    """Add what others show of a page that link to it."""
    if pagename == "404":
        base = app.config.html_baseurl
        first = f'<base href="{html.escape(urlsplit(base).path)}">' if base else GUESS
        context["metatags"] = first + context.get("metatags", "")
        return
    if doctree is None:
        return
    tags = {
        "og:type": "article" if context.get("parents") or context.get("prev") else "website",
        "og:site_name": app.config.html_title,
        "og:title": nodes.unescape(app.env.titles[pagename].astext()),
        "og:description": description(doctree),
    }
    if base := app.config.html_baseurl:
        tags |= {
            "og:url": base + app.builder.get_target_uri(pagename),
            "og:image": f"{base}_static/{CARD.name}",
            "og:image:width": "1200",
            "og:image:height": "630",
            "twitter:card": "summary_large_image",
        }
    lines = [
        f'<meta property="{name}" content="{html.escape(text)}" />'
        for name, text in tags.items()
        if text
    ]
    if tags["og:description"]:
        text = html.escape(tags["og:description"])
        lines.append(f'<meta name="description" content="{text}" />')
    context["metatags"] = "\n".join([context.get("metatags", ""), *lines, ""])


def description(doctree) -> str:
    """The beginning of a page's text: whole words of its first paragraph."""
    for paragraph in doctree.findall(nodes.paragraph):
        in_section = isinstance(paragraph.parent, nodes.section)
        if not in_section or any(paragraph.findall(nodes.math)):
            continue
        text = " ".join(paragraph.astext().split())
        if len(text) > LONGEST:
            text = text[:LONGEST].rsplit(" ", 1)[0].rstrip(",;:") + " …"
        return text
    return ""


def not_found(app):
    """The page that a host shows where there is none."""
    home = app.builder.get_relative_uri("404", app.config.root_doc)
    body = NOT_FOUND.format(
        title=_("This page does not exist"),
        text=_("Perhaps it has moved. The table of contents and the search know all pages."),
        home=home,
        first=_("To the first page"),
        search="search.html",
        find=_("Search"),
    )
    yield "404", {"title": _("This page does not exist"), "body": body}, "page.html"


def write_files(app, exception):
    """Put the picture for links and the list of all pages into the site."""
    if exception is not None or app.builder.format != "html" or not app.config.html_baseurl:
        return
    shutil.copy2(CARD, Path(app.outdir, "_static", CARD.name))
    uris = (app.builder.get_target_uri(name) for name in sorted(app.env.found_docs))
    urls = "".join(
        f"  <url><loc>{escape(app.config.html_baseurl + uri)}</loc></url>\n" for uri in uris
    )
    Path(app.outdir, "sitemap.xml").write_text(
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f'<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">\n{urls}</urlset>\n',
        encoding="utf-8",
    )


def setup(app):
    """Connect to the build."""
    app.connect("config-inited", learn_address)
    app.connect("html-collect-pages", not_found)
    app.connect("html-page-context", describe)
    app.connect("build-finished", write_files)
