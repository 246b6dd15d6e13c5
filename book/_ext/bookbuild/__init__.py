"""What building this book takes beyond Jupyter Book, one idea per module.

    api        the docstrings of `genbook` on the page "API reference"
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
    report     how the build ended
    status     what each page took, on a page of its own
"""

from . import api, cache, edition, execute, notebooks, offline, pictures, report, status


def setup(app):
    """Connect every part to the build."""
    for part in (edition, cache, execute, pictures, notebooks, offline, report, api, status):
        part.setup(app)
    return {"version": "1", "parallel_read_safe": False, "parallel_write_safe": True}
