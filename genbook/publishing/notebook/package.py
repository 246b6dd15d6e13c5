"""The definitions of genbook, and what each of them needs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from genbook.publishing import fingerprint

from .source import (
    STANDINS,
    CannotCarry,
    Definition,
    Global,
    Import,
    Module,
    Reference,
    strings_passed_in,
)

# Tables of which a notebook holds only the entries whose keys it writes out.
TABLES = (Global("genbook.data", "_SOURCES"),)


class Package:
    """The modules of genbook, each read once, with the definitions that stand in for some."""

    def __init__(self):
        self._modules: dict[str, Module | None] = {}
        self._tables: dict[Global, Definition] = {}

    def module(self, name: str) -> Module | None:
        """The module of this name; None where genbook has none."""
        if name not in self._modules:
            source = fingerprint.SOURCES.get(name)
            package = name if source and source.is_package else name.rpartition(".")[0]
            self._modules[name] = source and Module(name, source.text, package)
        return self._modules[name]

    def definition(self, target: Global) -> Definition:
        """What defines `target`: the package, or what stands in for it."""
        if target in self._tables:
            return self._tables[target]
        standin = self.module(target.module.replace("genbook", STANDINS, 1))
        if standin and target.name in standin.definitions:
            return standin.definitions[target.name]
        home = self.module(target.module)
        if home is None or target.name not in home.definitions:
            raise CannotCarry(f"{target.module} does not define {target.name}")
        if home.actions:
            home.refuse(
                home.actions[0],
                "this does more than define a name, so that "
                f"{target.name} of the same module cannot stand alone",
            )
        return home.definitions[target.name]

    def origin(self, target: Global | Import) -> Global | Import:
        """`target` where it is defined: a module may hand on what it imports itself."""
        while isinstance(target, Global):
            home = self.module(target.module)
            if home is None or target.name in home.definitions or target.name not in home.imports:
                break
            target = home.imports[target.name]
        return target

    def located(self, references: Iterable[Reference]) -> list[Reference]:
        """References to where their targets are defined."""
        return [replace(r, target=self.origin(r.target)) for r in references]

    def references(self, target: Global) -> list[Reference]:
        """What a definition refers to."""
        return self.located(self.definition(target).references)

    def reached(self, targets: Iterable[Global | Import]) -> dict[Global | Import, None]:
        """`targets` and all that they refer to in turn."""
        reached, queue = {}, list(targets)
        while queue:
            target = queue.pop()
            if target not in reached:
                reached[target] = None
                if isinstance(target, Global):
                    queue += (r.target for r in self.references(target))
        return reached

    def before(self, target: Global) -> list[Global | Import]:
        """What must be there before a definition is run."""
        return [r.target for r in self.references(target) if not r.deferred and r.target != target]

    def cut_tables(self, keys: set[str], targets: list[Global | Import]) -> None:
        """Keep of each table the entries for `keys`, and for what the code of `targets` passes."""
        while True:
            for table in TABLES:
                self._cut(table, keys)
            reached = {t for t in self.reached(targets) if isinstance(t, Global)}.difference(TABLES)
            more = set().union(*(strings_passed_in(self.definition(t).node) for t in reached))
            if more <= keys:
                return
            keys = keys | more

    def _cut(self, table: Global, keys: set[str]) -> None:
        self._tables.pop(table, None)
        whole = self.definition(table)
        module, entries = whole.module, whole.node.value
        lines = list(module.lines)
        for key, value in zip(entries.keys, entries.values, strict=True):
            if key.value not in keys:  # an empty line leaves all others in their places
                for i in range(key.lineno, value.end_lineno + 1):
                    lines[i - 1] = "\n"
        cut = Module(module.where, "".join(lines), module.package)
        self._tables[table] = cut.definitions[table.name]
