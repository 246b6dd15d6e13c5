"""Warnings about pages: pictures without words, and code wider than the page.

With `-W`, as `make book` builds, a warning fails the build.
"""

from __future__ import annotations

from docutils import nodes
from sphinx.util import logging

LOGGER = logging.getLogger(__name__)

WIDTH = 88  # columns of code that fit beside the contents on a laptop


def check_pictures(app, doctree):
    """Warn about a picture without alternative text, or drawn by a cell without a caption."""
    for image in doctree.findall(nodes.image):
        around = list(ancestors(image))
        if not image.get("alt"):
            LOGGER.warning(
                "a picture without an alternative text; in a code cell it is "
                "`mystnb: {image: {alt: ...}}`",
                location=image,
            )
        if any(node.get("nb_element") == "cell_code_output" for node in around) and not any(
            isinstance(node, nodes.figure) for node in around
        ):
            LOGGER.warning(
                "a picture without a caption; in a code cell it is "
                "`mystnb: {figure: {name: ..., caption: ...}}`",
                location=image,
            )


def check_width(app, doctree):
    """Warn about each line of a shown code cell or listing that is wider than WIDTH."""
    for block in doctree.findall(nodes.literal_block):
        if any(node.get("nb_element") == "cell_code_output" for node in ancestors(block)):
            continue
        for line in block.astext().splitlines():
            if len(line) > WIDTH:
                LOGGER.warning(
                    "a line of code has %d columns, %d fit the page: %s",
                    len(line),
                    WIDTH,
                    line.strip(),
                    location=block,
                    type="bookbuild",
                    subtype="width",
                )


def ancestors(node):
    """The nodes around `node`, from the inside out."""
    while node.parent is not None:
        node = node.parent
        yield node


def setup(app):
    """Check every page that is read."""
    app.connect("doctree-read", check_pictures)
    app.connect("doctree-read", check_width)
