"""What others learn of the site: previews of links, canonical addresses, a sitemap, a 404 page.

The address of the site is `html_baseurl` or the environment variable GENBOOK_URL; Read the Docs
gives it, too. Without it there are only titles and descriptions, and the 404 page supposes that
the site is at the root of its host.

sphinx-notfound-page makes the 404 page. Its two companions do less than what is here:
sphinx-sitemap lists only the pages that the last build wrote, so all others are gone after an
edit; sphinxext-opengraph puts LaTeX into descriptions and loads matplotlib in every build.
"""

from __future__ import annotations

import html
import os
import shutil
from pathlib import Path
from urllib.parse import urlsplit
from xml.sax.saxutils import escape

from docutils import nodes

CARD = Path(__file__).parent / "card.png"  # 1200 by 630, as those who show links expect it
LONGEST = 200  # letters of a description
NOT_FOUND = """\
<section><h1>This page does not exist</h1>
<p>Perhaps it has moved. The table of contents and the search know all pages.</p>
<p><a href="{home}">To the first page</a> · <a href="{search}">Search</a></p></section>"""
SITEMAP = """\
<?xml version="1.0" encoding="UTF-8"?>
<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">
{urls}
</urlset>
"""


def set_address(app, config):
    """Take the site's address from the environment if the configuration has none."""
    base = config.html_baseurl or os.environ.get("GENBOOK_URL")
    base = base or os.environ.get("READTHEDOCS_CANONICAL_URL", "")
    if base and urlsplit(base).scheme not in ("http", "https"):
        raise SystemExit(
            f"genbook: GENBOOK_URL is {base!r}; it must start with https:// or http://"
        )
    config.html_baseurl = base and base.rstrip("/") + "/"
    config.notfound_urls_prefix = prefix = urlsplit(config.html_baseurl).path or "/"
    home = f"{prefix}{config.root_doc}.html"
    config.notfound_context = {
        "title": "This page does not exist",
        "body": NOT_FOUND.format(home=home, search=f"{prefix}search.html"),
    }


def add_tags(app, pagename, templatename, context, doctree):
    """Add the tags from which others make a preview of a link to the page."""
    if doctree is None:
        return
    about, base = description(doctree), app.config.html_baseurl
    tags = {
        "og:type": "article" if context.get("parents") or context.get("prev") else "website",
        "og:site_name": app.config.html_title,
        "og:title": nodes.unescape(app.env.titles[pagename].astext()),
        "og:description": about,
    }
    if base:
        tags |= {
            "og:url": base + app.builder.get_target_uri(pagename),
            "og:image": f"{base}_static/{CARD.name}",
            "og:image:width": "1200",
            "og:image:height": "630",
            "twitter:card": "summary_large_image",
        }
    tags["description"] = about
    context["metatags"] = context.get("metatags", "") + "".join(
        f'\n<meta {"property" if ":" in name else "name"}="{name}" content="{html.escape(text)}" />'
        for name, text in tags.items()
        if text
    )


def description(doctree) -> str:
    """The first paragraph without formulas, cut at a word; "" if there is none."""
    for paragraph in doctree.findall(nodes.paragraph):
        in_section = isinstance(paragraph.parent, nodes.section)
        if in_section and not any(paragraph.findall(nodes.math)):
            text = " ".join(paragraph.astext().split())
            if len(text) > LONGEST:
                text = text[:LONGEST].rsplit(" ", 1)[0].rstrip(",;:") + " …"
            return text
    return ""


def write_files(app, exception):
    """Write the picture for previews and the sitemap, which both need the site's address."""
    base = app.config.html_baseurl
    if exception is not None or app.builder.format != "html" or not base:
        return
    shutil.copy2(CARD, Path(app.outdir, "_static", CARD.name))
    uris = map(app.builder.get_target_uri, sorted(app.env.found_docs))
    urls = "\n".join(f"  <url><loc>{escape(base + uri)}</loc></url>" for uri in uris)
    Path(app.outdir, "sitemap.xml").write_text(SITEMAP.format(urls=urls), encoding="utf-8")


def setup(app):
    """Connect to the build."""
    app.setup_extension("notfound.extension")
    app.connect("config-inited", set_address, priority=910)  # the table of contents sets root_doc
    app.connect("html-page-context", add_tags)
    app.connect("build-finished", write_files)
