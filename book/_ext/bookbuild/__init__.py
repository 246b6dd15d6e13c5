"""What building this book takes beyond Jupyter Book, one idea per module.

equations      the numbered equations, and their checks
kernel         one page in one kernel
markdown       a page as plain Markdown, for its notebook

and the parts below, each of which connects itself to the build.
"""

PARTS = (
    "build_lock",  # one build at a time; one that broke off is done again in full
    "contents",  # the pages are those of the table of contents
    "edition",  # the same book on another data set
    "cache",  # a page's results are kept under everything they depend on
    "execute",  # the pages that must run do so side by side, one per core
    "page_checks",  # warnings about pictures without words and code that is too wide
    "claims",  # what the pages say of their results, and whether it holds
    "notebooks",  # each page with code is also a notebook that runs by itself
    "diagrams",  # hand-written SVG as a numbered figure
    "interactive",  # figures that a reader can move
    "link_previews",  # what others learn of the site: previews, addresses, a sitemap, a page 404
    "api",  # the docstrings of `genbook` on the page "API reference"
    "status",  # what each page took, on a page of its own
    "assets",  # the site's own MathJax, figures, icons and styles
    "progress",  # what runs now, and at the end what ran
)


def setup(app):
    """Connect every part to the build."""
    for part in PARTS:
        app.setup_extension(f"{__name__}.{part}")
    return {"version": "1", "parallel_read_safe": False, "parallel_write_safe": True}
