"""What building this book takes beyond Jupyter Book, one idea per module.

api            the docstrings of `genbook` on the page "API reference"
assets         the site's own MathJax, figures, icons and styles
build_lock     one build at a time; one that broke off is done again in full
cache          a page's results are kept under everything they depend on
contents       the pages are those of the table of contents
edition        the same book on another data set
equations      the numbered equations, and their checks
execute        the pages that must run do so side by side, one per core
interactive    figures that a reader can move
kernel         one page in one kernel
link_previews  what a link to a page shows, its canonical address, the sitemap, the page 404
markdown       a page as plain Markdown, for its notebook
notebooks      each page with code is also a notebook that runs by itself
page_checks    warnings about pictures without words and code that is too wide
progress       what runs now, and at the end what ran
status         what each page took, on a page of its own
"""

from . import (
    api,
    assets,
    build_lock,
    cache,
    contents,
    edition,
    execute,
    interactive,
    link_previews,
    notebooks,
    page_checks,
    progress,
    status,
)


def setup(app):
    """Connect every part to the build."""
    for part in (
        build_lock,
        contents,
        edition,
        cache,
        execute,
        page_checks,
        notebooks,
        interactive,
        link_previews,
        api,
        status,
        assets,
        progress,
    ):
        part.setup(app)
    return {"version": "1", "parallel_read_safe": False, "parallel_write_safe": True}
