"""Every picture has words: an alternative text always, and a caption where a cell drew it."""

from docutils import nodes
from sphinx.util import logging

LOGGER = logging.getLogger(__name__)


def check_pictures(app, doctree):
    """Warn about pictures that a reader who cannot see them would miss."""
    for image in doctree.findall(nodes.image):
        if not image.get("alt"):
            LOGGER.warning(
                "a picture without an alternative text; in a code cell it is "
                "`mystnb: {image: {alt: ...}}`",
                location=image,
            )
        if drawn_by_cell(image) and not within(image, nodes.figure):
            LOGGER.warning(
                "a picture without a caption; in a code cell it is "
                "`mystnb: {figure: {name: ..., caption: ...}}`",
                location=image,
            )


def drawn_by_cell(image) -> bool:
    """Whether a code cell put out this picture."""
    return any(node.get("nb_element") == "cell_code_output" for node in ancestors(image))


def within(node, kind) -> bool:
    """Whether `node` lies inside a node of this kind."""
    return any(isinstance(ancestor, kind) for ancestor in ancestors(node))


def ancestors(node):
    """The nodes around `node`, from the inside out."""
    while node.parent is not None:
        node = node.parent
        yield node


def setup(app):
    """Look at the pictures of every page that is read."""
    app.connect("doctree-read", check_pictures)
