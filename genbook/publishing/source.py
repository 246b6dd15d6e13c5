"""The modules of genbook as source text: what each defines, and what that refers to.

Nothing is executed.
"""

from __future__ import annotations

import ast
import builtins
import symtable
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import NamedTuple

PACKAGE = Path(__file__).resolve().parents[1]
# Scopes that symtable calls functions, though they run where they are written
COMPREHENSIONS = {"listcomp", "setcomp", "dictcomp", "genexpr"}


class Source(NamedTuple):
    """A module's text, and whether it is a package's __init__."""

    text: str
    is_package: bool


SOURCES: dict[str, Source] = {}  # of every module of genbook, by its name


def read_sources() -> None:
    """Read the sources of the package.

    This happens once at import, so that a process hashes the code that it runs, whatever is
    edited while it runs.
    """
    SOURCES.clear()
    for path in PACKAGE.rglob("*.py"):
        parts = ("genbook", *path.relative_to(PACKAGE).with_suffix("").parts)
        name = ".".join(parts).removesuffix(".__init__")
        SOURCES[name] = Source(path.read_text(encoding="utf-8"), path.name == "__init__.py")


class NotStandalone(Exception):
    """Code that cannot be made independent of genbook; the message says which, and why."""


@dataclass(frozen=True)
class Import:
    """What another package holds: `import module` or, with a `name`, `from module import name`.

    Two are equal that bind the same thing: `import paddle.nn as nn`, `from paddle import nn`.
    """

    module: str = field(compare=False)
    name: str = field(compare=False)
    alias: str
    path: str = field(init=False)

    def __post_init__(self):
        object.__setattr__(self, "path", f"{self.module}.{self.name}".rstrip("."))

    def __str__(self):
        """The statement."""
        if self.name:
            renamed = f" as {self.alias}" * (self.alias != self.name)
            return f"from {self.module} import {self.name}{renamed}"
        renamed = f" as {self.alias}" * (self.alias != self.module)
        return f"import {self.module}{renamed}"


@dataclass(frozen=True)
class Global:
    """What a module of genbook defines under a name; the module itself where the name is empty."""

    module: str
    name: str

    def __str__(self):
        """The dotted path."""
        return f"{self.module}.{self.name}".rstrip(".")


Target = Import | Global


class Module:
    """A module of genbook."""

    def __init__(self, name: str, source: str, package: str = ""):
        """package: what `from .` refers to."""
        self.name, self.package = name, package
        self.lines = source.splitlines(keepends=True)
        try:
            self.tree = ast.parse(source)
        except SyntaxError:  # an action: this is what importing it does
            self.tree = ast.parse(f"raise SyntaxError({source!r})")
        self.future = ""  # the import that leaves annotations unevaluated
        self.imports: dict[str, Target] = {}
        self.definitions: dict[str, Definition] = {}
        self.actions: list[ast.stmt] = []  # statements that do something else than bind names
        for i, node in enumerate(self.tree.body):
            if isinstance(node, ast.ImportFrom) and node.module == "__future__":
                self.future = ast.unparse(node)
            elif isinstance(node, (ast.Import, ast.ImportFrom)):
                self.imports.update(imports_of(node, package))
            elif isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign)):
                self._define(node)
            elif not (i == 0 and ast.get_docstring(self.tree) is not None):
                self.actions.append(node)

    def _define(self, node):
        first, last = rows(node)
        while first > 1 and self.lines[first - 2].startswith("#"):
            first -= 1
        definition = Definition(self, node, first, last)
        names = bound_by(definition.text)
        for name in names:
            if name in self.definitions:
                self.actions.append(node)
            self.definitions.setdefault(name, definition)
        if not names:  # as in TABLE["key"] = value
            self.actions.append(node)

    @cached_property
    def code(self) -> str:
        """Its syntax tree as text, less what changes no result."""
        return code_of(self.tree)

    @cached_property
    def imported(self) -> list[str]:
        """The modules that it imports, anywhere in it, and names which may be modules.

        Importing a.b runs the __init__ of a as well.
        """
        targets = imports_in(self.tree, self.package)
        names = [name for target in targets for name in (target.module, str(target))]
        return [self.name.rpartition(".")[0], *names]

    def resolve(self, name: str) -> Target | None:
        """What a global name stands for; None for a builtin."""
        if name in self.definitions:
            return Global(self.name, name)
        if name in self.imports:
            return self.imports[name]
        if hasattr(builtins, name) or name == "__name__":
            return None
        raise NotStandalone(f"{self.name}: {name} is not bound by a definition or an import")


@dataclass(frozen=True, eq=False)
class Definition:
    """A statement at the top of a module that binds names."""

    module: Module
    node: ast.stmt
    first: int  # its lines, with the comment that is directly before it
    last: int

    @property
    def is_block(self) -> bool:
        """Whether it is a function or a class."""
        return isinstance(self.node, (ast.FunctionDef, ast.ClassDef))

    @cached_property
    def text(self) -> str:
        """Its lines."""
        return "".join(self.module.lines[self.first - 1 : self.last])

    @cached_property
    def code(self) -> str:
        """Its syntax tree as text, less what changes no result."""
        return code_of(self.node)

    @cached_property
    def references(self) -> dict[Target, bool]:
        """What it refers to outside of itself, and whether where it is defined: not when called."""
        own = bound_by(self.text)
        found: dict[Target, bool] = dict.fromkeys(self.imports_inside, False)
        for name, at_once in names_used(f"{self.module.future}\n{self.text}").items():
            target = None if name in own else self.module.resolve(name)
            if target:
                found[target] = found.get(target, False) or at_once
        return found

    @cached_property
    def imports_inside(self) -> list[Target]:
        """What it imports when it is called."""
        return imports_in(self.node, self.module.package)


def code_of(node: ast.AST) -> str:
    """A syntax tree as text, without docstrings, comments and places."""
    node = ast.parse(ast.unparse(node))
    for part in ast.walk(node):
        if isinstance(part, (ast.Module, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            if ast.get_docstring(part, clean=False) is not None:
                del part.body[0]
    return ast.dump(node)


@lru_cache(1000)
def _module(name: str, source: Source) -> Module:
    return Module(name, source.text, name if source.is_package else name.rpartition(".")[0])


def module(name: str) -> Module | None:
    """The module of this name; None where genbook has none."""
    return _module(name, SOURCES[name]) if name in SOURCES else None


def rows(node) -> tuple[int, int]:
    """The first and the last line of a statement, with its decorators; from 1."""
    decorators = getattr(node, "decorator_list", ())
    return min(n.lineno for n in (node, *decorators)), node.end_lineno


def imports_in(tree: ast.AST, package: str) -> list[Target]:
    """What is imported anywhere in a syntax tree."""
    nodes = (n for n in ast.walk(tree) if isinstance(n, (ast.Import, ast.ImportFrom)))
    return [target for node in nodes for _, target in imports_of(node, package)]


def imports_of(node, package: str) -> Iterator[tuple[str, Target]]:
    """The names that an import binds, and what they stand for.

    In pairs: `import genbook.vae, genbook.unet` binds one name for both.
    """
    if isinstance(node, ast.Import):
        for alias in node.names:
            bound = alias.asname or alias.name.split(".")[0]
            name = alias.name if alias.asname else bound
            own = name.split(".")[0] == "genbook"
            yield bound, Global(alias.name, "") if own else Import(name, "", bound)
        return
    above = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
    origin = ".".join([*above, *([node.module] if node.module else [])])
    for alias in node.names:
        bound = alias.asname or alias.name
        if origin.split(".")[0] != "genbook":
            yield bound, Import(origin, alias.name, bound)
        else:
            yield bound, Global(origin, "" if alias.name == "*" else alias.name)


def bound_by(source: str) -> set[str]:
    """The names that source binds in its own scope."""
    table = symtable.symtable(source, "<source>", "exec")
    inlined = {  # since Python 3.12 the variables of comprehensions are listed as well
        symbol.get_name()
        for child in table.get_children()
        if child.get_name() in COMPREHENSIONS
        for symbol in child.get_symbols()
        if symbol.is_local() and not symbol.is_parameter()
    }
    names = (s.get_name() for s in table.get_symbols() if s.is_assigned() or s.is_imported())
    return set(names) - inlined


def names_used(source: str) -> dict[str, bool]:
    """The global names that source uses, and whether where it stands: not when called later."""
    found: dict[str, bool] = {}
    for table, at_once in _scopes(symtable.symtable(source, "<source>", "exec"), True):
        for symbol in table.get_symbols():
            name = symbol.get_name()
            if symbol.is_global() and (symbol.is_referenced() or symbol.is_declared_global()):
                found[name] = found.get(name, False) or at_once
            elif table.get_type() == "module" and symbol.is_referenced():
                found[name] = True
    return dict(sorted(found.items()))


def _scopes(table, at_once: bool) -> Iterator[tuple[symtable.SymbolTable, bool]]:
    yield table, at_once
    for child in table.get_children():
        later = child.get_type() == "function" and child.get_name() not in COMPREHENSIONS
        yield from _scopes(child, at_once and not later)


read_sources()
