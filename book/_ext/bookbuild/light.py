"""Pages load what they show: of the theme's icons, those in use; pictures in few colours."""

import os
import re
from pathlib import Path

from PIL import Image
from sphinx.util import logging

LOGGER = logging.getLogger(__name__)

LARGE = 50_000  # bytes of a picture that is worth the time
SCRIPTS = ("scripts/fontawesome.js", "vendor/fontawesome/*/js/all.min.js")  # by the theme's age
# "name": [width, height, [other names], "code point", "path" or ["path", "path"]],
ICON = re.compile(r'"?([\w-]+)"?:\[\d+,\d+,\[([^\]]*)\],"[0-9a-f]+",(?:"[^"]*"|\[[^\]]*\])\],?')


def keep_used_icons(app, exception):
    """Take out of the theme's script the icons that no page and no other script names."""
    if exception is not None or app.builder.format != "html":
        return
    site, static = Path(app.outdir), Path(app.outdir, "_static")
    icons = [path for pattern in SCRIPTS for path in static.glob(pattern)]
    if not icons:
        LOGGER.warning("the theme keeps its icons elsewhere: adapt light.py")
    texts = [*site.rglob("*.html"), *static.glob("*.js"), *static.glob("scripts/*.js")]
    used = {name for path in texts if path not in icons
            for name in re.findall(r"\bfa-([a-z0-9-]+)", path.read_text(encoding="utf-8"))}

    def keep(icon):
        names = {icon[1], *re.findall(r'"([^"]+)"', icon[2])}
        return icon[0] if names & used else ""

    for path in icons:
        path.write_text(ICON.sub(keep, path.read_text(encoding="utf-8")), encoding="utf-8")


def reduce_colours(app, exception):
    """Give each large picture 256 colours of its own: it becomes three times smaller."""
    if exception is not None or app.builder.format != "html":
        return
    for path in Path(app.outdir, "_images").glob("*.png"):
        if path.stat().st_size < LARGE:
            continue
        with Image.open(path) as picture:
            if picture.mode != "RGBA":
                continue
            few = picture.quantize(256, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
        part = path.with_suffix(".part")  # a build may be killed here
        few.save(part, "png", optimize=True)
        os.replace(part, path)


def setup(app):
    """Lighten the site when it is complete."""
    app.connect("build-finished", keep_used_icons, priority=900)
    app.connect("build-finished", reduce_colours)
