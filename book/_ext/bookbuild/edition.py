"""The same book on another data set: `make book DATA=mnist`.

The chapters load the handwritten digits by name. In another edition their code names another data
set, so that what a page shows is what ran. The prose is that of the digits; a note says so, and its
claims mark what does not hold.
"""

import ast
import os
import re

from genbook import data

from .cells import CELL

NAMES = {"digits": "UCI digits", "mnist": "MNIST", "hanzi": "Chinese MNIST"}

# The chapters compare all images with each other, in memory that grows with their square.
MOST = 4000

NOTE = """
```{{admonition}} The {name} edition
This is the book on another data set, {name}, with {most:,} images to train on and at most as many
to test with. Code, figures and printed numbers are of this data set. The prose was written for
the default edition, whose data set is the {default}. What it says of results was checked here,
too: a warning marks each sentence that does not hold.
```
"""


def name():
    """The data set of this build, from GENBOOK_EDITION. An unknown one ends the build."""
    edition = os.environ.get("GENBOOK_EDITION") or "digits"
    if edition not in NAMES:
        raise SystemExit(
            f"genbook: there is no edition {edition!r}; choose from {', '.join(NAMES)}"
        )
    return edition


def adapt(text: str) -> str:
    """The source of a page as this edition has it."""
    edition = name()
    if edition == "digits" or 'load("digits"' not in text:
        return text
    note = NOTE.format(name=NAMES[edition], default=NAMES["digits"], most=MOST)

    def adapted(cell):
        return cell["head"] + cell["options"] + load_other(cell["code"], edition) + cell["end"]

    text = CELL.sub(adapted, text)
    return re.sub(r"^# .*\n", lambda title: title[0] + note, text, count=1, flags=re.M)


def load_other(code: str, edition: str) -> str:
    """The code with the data of an edition in place of the digits, wherever it loads them."""
    ends = [len(line.encode()) for line in code.splitlines(keepends=True)]
    starts = [sum(ends[:i]) for i in range(len(ends))]
    changes = []  # (start, end, new) in bytes
    for call in ast.walk(ast.parse(code)):
        if isinstance(call, ast.Call) and ast.unparse(call).startswith("load('digits'"):
            name = call.args[0]
            first = starts[name.lineno - 1] + name.col_offset
            last = starts[call.end_lineno - 1] + call.end_col_offset - 1  # before the bracket
            changes.append((first, first + len('"digits"'), f'"{edition}"'))
            changes.append((last, last, f", most={MOST}"))
    raw = code.encode()
    for first, last, new in sorted(changes, reverse=True):
        raw = raw[:first] + new.encode() + raw[last:]
    return raw.decode()


def check(app, config):
    """End the build at once if the edition does not exist or its data cannot be loaded."""
    if name() != "digits":  # the others' first time shows on the terminal, not on a page
        try:
            data.load(name())
        except data.DataError as error:
            raise SystemExit(f"genbook: {error}") from None


def adapt_source(app, docname, source):
    """Sphinx reads each page as this edition has it."""
    source[0] = adapt(source[0])


def setup(app):
    """Connect the edition to the build."""
    app.connect("config-inited", check)
    app.connect("source-read", adapt_source, priority=100)  # before the cells are read
