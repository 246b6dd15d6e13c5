"""Figures that a reader can move: their data become files, and their script joins the page.

A cell puts out an element with all data in its attributes (`genbook.figures.interactive`).
"""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

STATIC = Path(__file__).parent / "static"
SUFFIXES = {"text/javascript": "js", "image/png": "png"}
ELEMENT = re.compile(r'<div class="interactive" [^>]*>')
ADDRESS = re.compile(r"data:([a-z/]+);base64,([A-Za-z0-9+/=]+)")


def serve_data(app, pagename, templatename, context, doctree):
    """Write the data of a page's figures into files of the site, and add their script."""
    body = context.get("body")
    if not body or not ELEMENT.search(body):
        return
    folder = Path(app.outdir, "_static", "figures")
    folder.mkdir(parents=True, exist_ok=True)

    def to_file(match):
        data = base64.b64decode(match[2])
        name = f"{hashlib.sha256(data).hexdigest()[:16]}.{SUFFIXES[match[1]]}"
        (folder / name).write_bytes(data)
        return context["pathto"](f"_static/figures/{name}", resource=True)

    context["body"] = ELEMENT.sub(lambda element: ADDRESS.sub(to_file, element[0]), body)
    app.add_js_file("interactive.js", loading_method="defer")
    app.add_css_file("interactive.css")


def setup(app):
    """Connect the figures to the build."""
    app.config.html_static_path.append(str(STATIC))  # script and style
    app.connect("html-page-context", serve_data)
