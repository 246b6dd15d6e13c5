"""Code of the package as text: without the package, with a part left out or blanked."""

import ast
import inspect
import pkgutil
import textwrap
from typing import Any

from genbook.publishing.standalone import Shown
from genbook.publishing.standalone import standalone as make_standalone

BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"  # the grading tool's own words
DATA = "digits"  # the data set of all assignments; text for the others is left out
FUTURE = "from __future__ import annotations\n\n"  # not allowed within a function, nor needed


def standalone(*names, without=()):
    """Python text that defines `names` and all of the package that they use, and runs alone.

    names: such as "genbook.vae.VAE". without: functions, classes and methods
    ("genbook.vae.VAE.encode") that are left to somebody else.
    """
    places = [name.rpartition(".") for name in names]
    cell = "\n".join(f"from {module} import {name}" for module, _, name in places)
    cell += f"\n\n{', '.join(name for _, _, name in places)}, {DATA!r}"
    methods = [n for n in without if inspect.isclass(pkgutil.resolve_name(n.rpartition(".")[0]))]
    # What is shown is what the reader has in front of him: no helper defines it.
    shown = [Shown(n.rpartition(".")[0], definition(n)) for n in without if n not in methods]
    made = make_standalone([*shown, cell])
    text = f"{made.settings}\n\n{made.helpers}".strip().replace(FUTURE, "")
    for name in methods:
        text = _without_method(text, *name.split(".")[-2:])
    return text + "\n"


def definition(name):
    """The text of one function or class, or of a method of a class, moved to the margin."""
    return textwrap.dedent(inspect.getsource(pkgutil.resolve_name(name)))


def blank_body(text):
    """A function's text with its body, less the docstring, marked as the solution."""
    (function,) = ast.parse(text).body
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return _marked(text, body[0].lineno, body[-1].end_lineno)


def blank_arguments(text, target):
    """A text in which the arguments of the call assigned to `target` are the solution.

    They stand on lines of their own.
    """
    calls: list[Any] = [
        node.value
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == target
    ]
    if len(calls) != 1:
        raise ValueError(f"{target} is assigned {len(calls)} times")
    return _marked(text, calls[0].args[0].lineno, calls[0].args[-1].end_lineno)


def _marked(text, first, last):
    lines = text.splitlines()
    indent = " " * (len(lines[first - 1]) - len(lines[first - 1].lstrip()))
    lines[last:last] = [indent + END]
    lines[first - 1 : first - 1] = [indent + BEGIN]
    return "\n".join(lines) + "\n"


def _without_method(text, owner, name):
    """A text less a method of a class, and less the comment in front of it."""
    cls = next(n for n in ast.parse(text).body if getattr(n, "name", None) == owner)
    places = [i for i, n in enumerate(cls.body) if getattr(n, "name", None) == name]
    if len(places) != 1 or not places[0]:
        raise ValueError(f"{owner} has no method {name} after its docstring")
    before, method = cls.body[places[0] - 1], cls.body[places[0]]
    lines = text.splitlines(keepends=True)
    return "".join(lines[: before.end_lineno] + lines[method.end_lineno :])
