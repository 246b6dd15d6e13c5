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
        if not image.get("alt"):
            LOGGER.warning(
                "a picture without an alternative text; in a code cell it is "
                "`mystnb: {image: {alt: ...}}`",
                location=image,
            )
        if is_output(image) and not any(isinstance(n, nodes.figure) for n in ancestors(image)):
            LOGGER.warning(
                "a picture without a caption; in a code cell it is "
                "`mystnb: {figure: {name: ..., caption: ...}}`",
                location=image,
            )


def check_width(app, doctree):
    """Warn about each line of a shown code cell or listing that is wider than WIDTH."""
    for block in doctree.findall(nodes.literal_block):
        lines = [] if is_output(block) else block.astext().splitlines()
        for line in lines:
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


def is_output(node) -> bool:
    """Whether a code cell put out the node."""
    return any(n.get("nb_element") == "cell_code_output" for n in ancestors(node))


def setup(app):
    """Check every page that is read."""
    app.connect("doctree-read", check_pictures)
    app.connect("doctree-read", check_width)
