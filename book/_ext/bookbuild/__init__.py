"""What building this book takes beyond Jupyter Book, one idea per module.

    cache      a page's results are kept under everything they depend on
    edition    the same book on another data set
    equations  the numbered equations, and the checks that vouch for them
    execute    the pages that must run do so side by side, one per core
    kernel     one page in one kernel
    progress   what runs now, on the terminal
    pictures   every picture has a caption and words for those who cannot see it
    notebooks  each page with code is also a notebook that runs by itself
    markdown   a page as plain Markdown, for its notebook
    offline    MathJax is served from the site itself
    looks      an edit of styles and scripts reaches the site
    light      of the theme's icons, those that the site shows
    accessible what screen readers stumble over in what the tools write
    report     how the build ended
"""

from . import (
    accessible, cache, edition, execute, light, looks, notebooks, offline, pictures, report,
)


def setup(app):
    """Connect every part to the build."""
    for part in (edition, cache, execute, pictures, notebooks, accessible, offline,
                 looks, light, report):
        part.setup(app)
    return {"version": "1", "parallel_read_safe": False, "parallel_write_safe": True}
