"""The definitions of genbook, and what each of them needs."""

from __future__ import annotations

import ast
from collections.abc import Iterable

from .source import SOURCES, Definition, Global, Module, NotStandalone, Target, module

# Definitions that others replace where only Paddle and NumPy are at hand. Both compute the same.
REPLACED = {Global("genbook.training", "fit"): Global("genbook.training.loop", "fit")}
# The table of which a notebook holds only the entries whose keys it writes out.
TABLE = Global("genbook.data", "_SOURCES")


class Package:
    """The modules of genbook, with the table cut where that is asked for."""

    def __init__(self):
        self._table: Definition | None = None

    def definition(self, target: Global) -> Definition:
        """The statement that defines `target`."""
        if target == TABLE and self._table:
            return self._table
        home = module(target.module)
        if home is None or target.name not in home.definitions:
            raise NotStandalone(f"{target.module} does not define {target.name}")
        return home.definitions[target.name]

    def origin(self, target: Target) -> Target:
        """`target` where it is defined: a module may hand on what it imports itself."""
        while isinstance(target, Global):
            if str(target) in SOURCES:
                return Global(str(target), "")
            if target in REPLACED:
                return REPLACED[target]
            home = module(target.module)
            if home is None or target.name in home.definitions or target.name not in home.imports:
                break
            target = home.imports[target.name]
        return target

    def references(self, target: Global) -> dict[Target, bool]:
        """What a definition refers to, and whether at once (see `Definition.references`)."""
        if not target.name:  # a module as a whole
            return {}
        references = self.definition(target).references
        return {self.origin(t): at_once for t, at_once in references.items()}

    def reached(self, targets: Iterable[Target]) -> dict[Target, None]:
        """`targets` and all that they refer to in turn."""
        reached: dict[Target, None] = {}
        queue = list(targets)
        while queue:
            target = queue.pop()
            if target not in reached:
                reached[target] = None
                if isinstance(target, Global):
                    queue += self.references(target)
        return reached

    def before(self, target: Global) -> list[Target]:
        """What must be there before a definition is run."""
        return [t for t, at_once in self.references(target).items() if at_once and t != target]

    def cut_table(self, keys: set[str], targets: list[Target]) -> None:
        """Keep of the table the entries for `keys`, and for what the code of `targets` passes."""
        while True:
            self._cut(keys)
            reached = {t for t in self.reached(targets) if isinstance(t, Global) and t.name}
            nodes = (self.definition(t).node for t in reached - {TABLE})
            more = set().union(*map(strings_passed_in, nodes))
            if more <= keys:
                return
            keys = keys | more

    def _cut(self, keys: set[str]) -> None:
        self._table = None
        whole = self.definition(TABLE)
        lines, entries = list(whole.module.lines), getattr(whole.node, "value", None)
        assert isinstance(entries, ast.Dict)
        for key, value in zip(entries.keys, entries.values, strict=True):
            if not isinstance(key, ast.Constant) or key.value not in keys:
                for row in range((key or value).lineno - 1, value.end_lineno or 0):
                    lines[row] = "\n"  # all others keep their places
        cut = Module(whole.module.name, "".join(lines), whole.module.package)
        self._table = cut.definitions[TABLE.name]


def strings_in(tree: ast.AST) -> set[str]:
    """The strings that are written out in a piece of code."""
    constants = (n.value for n in ast.walk(tree) if isinstance(n, ast.Constant))
    return {value for value in constants if isinstance(value, str)}


def strings_passed_in(tree: ast.AST) -> set[str]:
    """The strings that are written out as an argument of a call."""
    calls = (n for n in ast.walk(tree) if isinstance(n, ast.Call))
    arguments = (a for call in calls for a in (*call.args, *(k.value for k in call.keywords)))
    return {a.value for a in arguments if isinstance(a, ast.Constant) and isinstance(a.value, str)}
