"""What the tools write that a screen reader stumbles over, put right in the finished page."""

import re

REPAIRS = (
    # sphinx-exercise gives the body of each exercise the same id, to which nothing refers.
    (re.compile(r'<section id="(exercise|solution)-content">'), r"<section>"),
    # ARIA has given up this role for what it now calls an item of a list, which it is in.
    (re.compile(r' role="doc-biblioentry"'), r' role="listitem"'),
)


def repair(app, pagename, templatename, context, doctree):
    """Mend the text of a page."""
    for wrong, right in REPAIRS:
        context["body"] = wrong.sub(right, context.get("body", ""))


def setup(app):
    """Look at each page before it is written."""
    app.connect("html-page-context", repair)
