"""Pages load no more than they show: few icons of the theme's two thousand, and compact figures."""

import re
from functools import partial
from pathlib import Path

from PIL import Image
from sphinx.util import logging

LOGGER = logging.getLogger(__name__)

SCRIPTS = ("scripts/fontawesome.js", "vendor/fontawesome/*/js/all.min.js")  # by the theme's age
# "name": [width, height, [other names], "code point", "path" or ["path", "path"]],
ICON = re.compile(r'"?([\w-]+)"?:\[\d+,\d+,\[([^\]]*)\],"[0-9a-f]+",(?:"[^"]*"|\[[^\]]*\])\],?')
# <img src="../_images/name.png", as it is in a page
SHOWN = re.compile(r'(<img\b[^>]*\bsrc="(?:\.\./)*_images/)([^"/]+)\.png"')


def keep_used_icons(app, exception):
    """Take out of the theme's script the icons that no page and no other script names."""
    if exception is not None or app.builder.format != "html":
        return
    site, static = Path(app.outdir), Path(app.outdir, "_static")
    icons = [path for pattern in SCRIPTS for path in static.glob(pattern)]
    if not icons:
        LOGGER.warning("the theme keeps its icons elsewhere: adapt light.py")
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


def compact_figures(app, exception):
    """Show each figure as WebP, which holds the same pixels in half the bytes of PNG."""
    if exception is not None or app.builder.format != "html":
        return
    images = Path(app.outdir, "_images")
    for png in images.glob("*.png"):
        webp = png.with_suffix(".webp")
        if not webp.exists() or webp.stat().st_mtime < png.stat().st_mtime:
            with Image.open(png) as image:
                image.save(webp, lossless=True, method=2)
    for page in Path(app.outdir).rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        shown = SHOWN.sub(partial(smaller, images), text)
        if shown != text:
            page.write_text(shown, encoding="utf-8")


def smaller(images, shown) -> str:
    """The reference to a figure, to the smaller of its files."""
    sizes = {
        suffix: (images / f"{shown[2]}{suffix}").stat().st_size for suffix in (".png", ".webp")
    }
    return f'{shown[1]}{shown[2]}{min(sizes, key=sizes.get)}"'


def setup(app):
    """Lighten the site when it is complete."""
    app.connect("build-finished", compact_figures)
    app.connect("build-finished", keep_used_icons, priority=900)
