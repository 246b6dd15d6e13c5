"""What building this book takes beyond Jupyter Book, one idea per module.

accessible   what screen readers stumble over in what the tools write
address      what the site tells those who link to it, and those who follow a dead link
api          the docstrings of `genbook` on the page "API reference"
cache        a page's results are kept under everything they depend on
edition      the same book on another data set
equations    the numbered equations, and the checks that vouch for them
execute      the pages that must run do so side by side, one per core
kernel       one page in one kernel
progress     what runs now, on the terminal
pictures     every picture has a caption and words for those who cannot see it
notebooks    each page with code is also a notebook that runs by itself
markdown     a page as plain Markdown, for its notebook
interactive  figures that a reader can move
light        pages load no more than they show
looks        an edit of styles and scripts reaches the site
offline      MathJax is served from the site itself
report       how the build ended
status       what each page took, on a page of its own
whole        one build at a time, and nothing half-written stays
"""

from . import (
    accessible,
    address,
    api,
    cache,
    edition,
    execute,
    interactive,
    light,
    looks,
    notebooks,
    offline,
    pictures,
    report,
    status,
    whole,
)


def setup(app):
    """Connect every part to the build."""
    for part in (
        whole,
        edition,
        cache,
        execute,
        pictures,
        notebooks,
        interactive,
        accessible,
        offline,
        looks,
        light,
        address,
        api,
        status,
        report,
    ):
        part.setup(app)
    return {"version": "1", "parallel_read_safe": False, "parallel_write_safe": True}
