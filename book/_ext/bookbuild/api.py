"""The docstrings of `genbook` on the page "API reference".

They are plain text with `names` in backquotes, as one reads them in the source. Sphinx would read
them as reStructuredText, in which x_t, |x| and * mean something else.
"""

from __future__ import annotations

import re


def as_plain_text(app, what, name, obj, options, lines):
    """Change the `lines` of a docstring so that Sphinx shows what they say."""
    lines[:] = [to_rst(line) for line in lines]


def to_rst(line: str) -> str:
    """A line of plain text as reStructuredText.

    >>> to_rst("`x_t` is in [-1, 1]; |x_0| <= 1")
    '``x_t`` is in [-1, 1]; \\\\|x\\\\_0\\\\| <= 1'
    """
    parts = re.split(r"`([^`]+)`", line)  # text, name, text, name, ...
    return "".join(
        f"``{part}``" if i % 2 else re.sub(r"([\\*_|])", r"\\\1", part)
        for i, part in enumerate(parts)
    )


def leave_out(app, what, name, obj, skip, options):
    """Leave out the fields of a NamedTuple: "Alias for field number 0" is no help."""
    return True if type(obj).__name__ == "_tuplegetter" else None


def setup(app):
    """Connect the docstrings to the build."""
    app.setup_extension("sphinx.ext.autodoc")
    app.setup_extension("sphinx.ext.napoleon")  # where a docstring has Args, Returns, Raises
    app.connect("autodoc-process-docstring", as_plain_text, priority=400)  # napoleon has 500
    app.connect("autodoc-skip-member", leave_out)
