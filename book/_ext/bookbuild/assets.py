"""The site's files: complete without another host, no larger than needed, never outdated."""

from __future__ import annotations

import re
import shutil
from importlib.util import find_spec
from pathlib import Path

from PIL import Image
from sphinx.util import logging

from genbook.publishing import fingerprint

LOGGER = logging.getLogger(__name__)

# What the pages load of MathJax at once or on demand (a rare command, the menu's accessibility
# tools); the package brings 24 MB, most of it the same code bundled in other ways.
MATHJAX = (
    "tex-chtml.js",
    "output/chtml/fonts/woff-v2",
    "input/tex/extensions",
    "a11y",
    "sre/mathmaps/base.json",
    "sre/mathmaps/en.json",
)
SCRIPTS = ("scripts/fontawesome.js", "vendor/fontawesome/*/js/all.min.js")  # by the theme's age
# "name": [width, height, [other names], "code point", "path" or ["path", "path"]],
ICON = re.compile(r'"?([\w-]+)"?:\[\d+,\d+,\[([^\]]*)\],"[0-9a-f]+",(?:"[^"]*"|\[[^\]]*\])\],?')
# <img src="../_images/name.png", as it is in a page
FIGURE = re.compile(r'(<img\b[^>]*\bsrc="(?:\.\./)*_images/)([^"/]+)\.png"')
REPAIRS = (
    # sphinx-exercise gives the body of each exercise the same id, to which nothing refers.
    (re.compile(r'<section id="(exercise|solution)-content">'), r"<section>"),
    # ARIA has deprecated this role in favour of listitem.
    (re.compile(r' role="doc-biblioentry"'), r' role="listitem"'),
)


def fingerprint_static(app, config):
    """Rewrite all pages, without reading or running them, when a static file has changed.

    Sphinx copies static files only when it writes a page, and writes none when no text has
    changed; a changed setting makes it write all.
    """
    config.bookbuild_static = fingerprint.digest(
        *(
            part
            for folder in (Path(app.srcdir, name) for name in config.html_static_path)
            for path in sorted(folder.rglob("*"))
            if path.is_file()
            for part in (path.relative_to(folder).as_posix(), path.read_bytes())
        )
    )


def repair_accessibility(app, pagename, templatename, context, doctree):
    """Repair markup of the tools that screen readers stumble over."""
    for wrong, right in REPAIRS:
        context["body"] = wrong.sub(right, context.get("body", ""))


def finish_site(app, exception):
    """Complete and slim the files of a finished site."""
    if exception is None and app.builder.format == "html":
        site = Path(app.outdir)
        copy_mathjax(site)
        compress_figures(site)
        remove_unused_icons(site)


def copy_mathjax(site: Path) -> None:
    """Copy MathJax into the site, so that no page asks another host for it."""
    source = Path(find_spec("sphinx-mathjax-offline").origin).parent / "static" / "mathjax"
    target = site / "_static" / "mathjax"
    for part in MATHJAX:
        if (source / part).is_dir():
            shutil.copytree(source / part, target / part, dirs_exist_ok=True)
        else:
            (target / part).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source / part, target / part)


def compress_figures(site: Path) -> None:
    """Show each figure as lossless WebP where that is smaller than PNG; it often is by half."""
    smaller = {}
    for png in site.glob("_images/*.png"):
        webp = png.with_suffix(".webp")
        if not webp.exists() or webp.stat().st_mtime < png.stat().st_mtime:
            part = webp.with_suffix(".part")
            with Image.open(png) as image:
                image.save(part, format="WEBP", lossless=True, method=2)
            part.replace(webp)  # never half a file
        smaller[png.stem] = min(png, webp, key=lambda file: file.stat().st_size).name
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        shown = FIGURE.sub(lambda figure: f'{figure[1]}{smaller[figure[2]]}"', text)
        if shown != text:
            page.write_text(shown, encoding="utf-8")


def remove_unused_icons(site: Path) -> None:
    """Remove from the theme's script the icons that no page and no other script names.

    It holds two thousand icons; the site shows a few dozen.
    """
    static = site / "_static"
    icons = [path for pattern in SCRIPTS for path in static.glob(pattern)]
    if not icons:
        LOGGER.warning("the theme keeps its icons elsewhere: adapt SCRIPTS in assets.py")
    texts = [*site.rglob("*.html"), *static.glob("*.js"), *static.glob("scripts/*.js")]
    used = {
        name
        for path in texts
        if path not in icons
        for name in re.findall(r"\bfa-([a-z0-9-]+)", path.read_text(encoding="utf-8"))
    }

    def keep(icon):
        names = {icon[1], *re.findall(r'"([^"]+)"', icon[2])}
        return icon[0] if names & used else ""

    for path in icons:
        path.write_text(ICON.sub(keep, path.read_text(encoding="utf-8")), encoding="utf-8")


def setup(app):
    """Connect to the build."""
    app.add_config_value("bookbuild_static", "", "html", types=(str,))
    app.config.mathjax_path = "mathjax/tex-chtml.js"
    app.connect("config-inited", fingerprint_static)
    app.connect("html-page-context", repair_accessibility)
    app.connect("build-finished", finish_site)
