"""Source text whose names are resolved: what it binds, and to what of genbook it refers.

A `Module` is one of genbook, a `Cell` imports from it. Nothing is executed.
"""

from __future__ import annotations

import ast
import builtins
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property

from genbook.publishing import fingerprint

STANDINS = f"{__package__}.standins"


class CannotCarry(Exception):
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

    def statement(self, alias: str) -> str:
        """The import, under the name `alias`."""
        if self.name:
            return f"from {self.module} import {self.name}" + f" as {alias}" * (alias != self.name)
        return f"import {self.module}" + f" as {alias}" * (alias != self.module)


@dataclass(frozen=True)
class Global:
    """What a module of genbook defines under a name."""

    module: str
    name: str


@dataclass(frozen=True)
class Submodule:
    """A module of genbook as a value, as in `from . import cpu`."""

    module: str


Target = Import | Global | Submodule


@dataclass(frozen=True)
class Reference:
    """A place in a text that refers to something outside of it, or binds a name of its own."""

    target: Import | Global
    spelled: str
    start: int  # offsets in the text; of the whole f-string where the place is in one
    end: int
    deferred: bool  # looked up when a function is called, not where it is defined
    formatted: bool  # in an f-string
    inside: frozenset[str]  # the local names around it, which would hide a global one
    keywords: frozenset[str]  # those it is called with


class Text:
    """Python source and its tree. `where` names it in messages."""

    def __init__(self, where: str, source: str):
        self.where = where
        self.source = source
        try:
            self.tree = ast.parse(source)
        except SyntaxError as error:
            raise CannotCarry(f"{where}: not plain Python: {error}") from error
        self.lines = source.splitlines(keepends=True)
        self._starts = [0]
        for line in self.lines:
            self._starts.append(self._starts[-1] + len(line))

    def resolve(self, name: str) -> Target | None:
        """What a global name stands for; None where it is neither imported nor of genbook."""
        raise NotImplementedError

    def span(self, node) -> tuple[int, int]:
        """The offsets at which an expression begins and ends."""
        places = (node.lineno, node.col_offset), (node.end_lineno, node.end_col_offset)
        return tuple(  # the tree counts columns in bytes
            self._starts[line - 1] + len(self.lines[line - 1].encode()[:column].decode())
            for line, column in places
        )

    def rows(self, node) -> tuple[int, int]:
        """The first and the last line of a statement, with its decorators; from 1."""
        decorators = getattr(node, "decorator_list", ())
        return min(n.lineno for n in (node, *decorators)), node.end_lineno

    def row_span(self, first: int, last: int) -> tuple[int, int]:
        """The offsets at which the lines `first` to `last` begin and end."""
        return self._starts[first - 1], self._starts[last]

    def refuse(self, node, why: str):
        """Raise CannotCarry about a place in this text."""
        raise CannotCarry(f"{self.where}, line {node.lineno}: {why}")

    def rewritten(self, start: int, end: int, references, names, edits=()) -> str:
        """The source from `start` to `end`, each reference under its name in `names`.

        edits: (start, end, new text), applied as well.
        """
        edits, formatted = list(edits), {}
        for r in references:
            new = names[r.target]
            if new == r.spelled or not start <= r.start < end:
                continue
            span = (r.start, r.end)
            if r.formatted:  # Python before 3.12 does not tell where in the f-string
                text = formatted.get(span, self.source[r.start : r.end])
                old = re.compile(rf"(?<![\w.]){re.escape(r.spelled)}\b")
                formatted[span] = re.sub(r"\{[^{}]*\}", lambda m: old.sub(new, m[0]), text)
            else:
                edits.append((*span, new))
        edits += [(*span, new) for span, new in formatted.items()]
        pieces, at = [], start
        for a, b, new in sorted(edits):
            pieces += [self.source[at:a], new]
            at = b
        return "".join([*pieces, self.source[at:end]])


class Cell(Text):
    """A cell of a page. `imported` holds what the cells before it imported from genbook."""

    def __init__(self, where: str, source: str, imported: dict[str, Target]):
        super().__init__(where, source)
        self.imports: dict[str, Target] = {}
        self.import_nodes = []  # the statements that a notebook must do without
        for node in self.tree.body:
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                found = imports_of(self, node, "")
                if any(isinstance(target, (Global, Submodule)) for target in found.values()):
                    self.import_nodes.append(node)
                self.imports |= found
        self._known = {**imported, **self.imports}
        imports = (ast.Import, ast.ImportFrom)
        self.bound = bound_by(n for n in self.tree.body if not isinstance(n, imports))
        self.references = [r for node in self.tree.body for r in references_in(self, node)]
        self.strings = strings_in(self.tree)

    def resolve(self, name):
        return self._known.get(name)


@dataclass(frozen=True, eq=False)
class Definition:
    """A statement at the top of a module that binds names."""

    module: Module
    node: ast.stmt
    names: tuple[str, ...]
    first: int  # its lines, with the comment that stands directly before it
    last: int

    @property
    def is_block(self) -> bool:
        """Whether it is a function or a class."""
        return isinstance(self.node, (ast.FunctionDef, ast.ClassDef))

    @cached_property
    def references(self) -> list[Reference]:
        """What it refers to, and where it binds its own names."""
        return references_in(self.module, self.node)

    @property
    def span(self) -> tuple[int, int]:
        """Where its lines begin and end in the module."""
        return self.module.row_span(self.first, self.last)


class Module(Text):
    """A module of genbook, or one that stands in for some of its definitions."""

    def __init__(self, name: str, source: str, package: str):
        super().__init__(name, source)
        stands_in = name.startswith(f"{STANDINS}.")
        self.name = name.replace(STANDINS, "genbook") if stands_in else name
        self.package = package  # that `from .` refers to
        self.stands_in = stands_in
        self.future = False  # whether annotations are left unevaluated
        self.imports: dict[str, Target] = {}
        self.definitions: dict[str, Definition] = {}
        self.actions: list[ast.stmt] = []  # statements that do something else than bind names
        for i, node in enumerate(self.tree.body):
            if isinstance(node, ast.ImportFrom) and node.module == "__future__":
                self.future = True
            elif isinstance(node, (ast.Import, ast.ImportFrom)):
                self.imports |= imports_of(self, node, package)
            elif isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign)):
                self._define(node)
            elif not (i == 0 and ast.get_docstring(self.tree) is not None):
                self.actions.append(node)

    def _define(self, node):
        first, last = self.rows(node)
        while first > 1 and self.lines[first - 2].startswith("#"):
            first -= 1
        names = tuple(sorted(bound_by([node])))
        definition = Definition(self, node, names, first, last)
        for name in names:
            if name in self.definitions:
                self.refuse(node, f"{name} is defined a second time")
            self.definitions[name] = definition
        if not names:  # as in TABLE["key"] = value
            self.actions.append(node)

    def resolve(self, name):
        if name in self.definitions:
            return Global(self.name, name)
        if name in self.imports:
            return self.imports[name]
        if hasattr(builtins, name) or name == "__name__":
            return None
        raise CannotCarry(f"{self.where}: {name} is not bound by a definition or an import")


def imports_of(text: Text, node, package: str) -> dict[str, Target]:
    """The names that an import binds, and what they stand for."""
    found = {}
    if isinstance(node, ast.Import):
        for alias in node.names:
            base = alias.name.split(".")[0]
            if base == "genbook":
                target = alias.name if alias.asname else base
                found[alias.asname or base] = Submodule(target)
            else:
                name = alias.name if alias.asname else base
                found[alias.asname or base] = Import(name, "", alias.asname or base)
        return found
    above = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
    origin = ".".join([*above, *([node.module] if node.module else [])])
    for alias in node.names:
        if alias.name == "*":
            text.refuse(node, "import * does not say what it imports")
        bound = alias.asname or alias.name
        if origin.split(".")[0] != "genbook":
            found[bound] = Import(origin, alias.name, bound)
        elif f"{origin}.{alias.name}" in fingerprint.SOURCES:
            found[bound] = Submodule(f"{origin}.{alias.name}")
        else:
            found[bound] = Global(origin, alias.name)
    return found


def bound_by(nodes: Iterable[ast.AST]) -> set[str]:
    """The names that statements bind in their own scope, not in functions or classes in them."""
    names, outer = set(), set()
    queue = list(nodes)
    while queue:
        node = queue.pop()
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(node.name)
            continue
        if isinstance(node, ast.Lambda):
            continue
        if isinstance(node, (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)):
            walrus = (n for n in ast.walk(node) if isinstance(n, ast.NamedExpr))
            names.update(n.target.id for n in walrus)
            continue
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.alias):
            names.add(node.asname or node.name.split(".")[0])
        elif isinstance(node, ast.Global):
            outer.update(node.names)
        elif isinstance(node, (ast.ExceptHandler, ast.MatchAs, ast.MatchStar)) and node.name:
            names.add(node.name)
        queue.extend(ast.iter_child_nodes(node))
    return names - outer


def strings_in(tree: ast.AST) -> set[str]:
    """The strings that are written out in a piece of code."""
    constants = (n.value for n in ast.walk(tree) if isinstance(n, ast.Constant))
    return {value for value in constants if isinstance(value, str)}


def strings_passed_in(tree: ast.AST) -> set[str]:
    """The strings that are written out as an argument of a call."""
    calls = (n for n in ast.walk(tree) if isinstance(n, ast.Call))
    arguments = (a for call in calls for a in (*call.args, *(k.value for k in call.keywords)))
    return {a.value for a in arguments if isinstance(a, ast.Constant) and isinstance(a.value, str)}


def references_in(text: Text, node: ast.stmt) -> list[Reference]:
    """What a statement refers to outside of itself, and where it binds names of its module."""
    finder = _Finder(text, text.resolve, getattr(text, "future", False))
    finder.visit(node)
    return finder.found


class _Finder(ast.NodeVisitor):
    """Follows Python's rules of scope through one statement."""

    def __init__(self, text: Text, resolve: Callable[[str], Target | None], future: bool):
        self.text, self.resolve, self.future = text, resolve, future
        self.found: list[Reference] = []
        self._scopes: list[tuple[bool, set[str]]] = []  # (whether it is a class, its names)
        self._deferred = False
        self._f_string = None  # the outermost that we are in
        self._keywords: dict[int, frozenset[str]] = {}  # of each function that is called

    def _locals(self) -> frozenset[str]:
        """The names that hide global ones here: those of a class do so in its own body only."""
        visible = [names for is_class, names in self._scopes[:-1] if not is_class]
        visible += [names for _, names in self._scopes[-1:]]
        return frozenset().union(*visible)

    def _found(self, node, target, spelled, span=None):
        span = self.text.span(self._f_string or node) if span is None else span
        keywords = self._keywords.get(id(node), frozenset())
        self.found.append(
            Reference(
                target,
                spelled,
                *span,
                self._deferred,
                self._f_string is not None,
                self._locals(),
                keywords,
            )
        )

    def _target(self, node) -> Target | None:
        """What a name, or a dotted name that begins with a module of genbook, stands for."""
        if isinstance(node, ast.Name) and node.id not in self._locals():
            return self.resolve(node.id)
        if isinstance(node, ast.Attribute):
            base = self._target(node.value)
            if isinstance(base, Submodule):
                name = f"{base.module}.{node.attr}"
                if name in fingerprint.SOURCES:
                    return Submodule(name)
                return Global(base.module, node.attr)
        return None

    def visit_Name(self, node):
        target = self._target(node)
        if isinstance(target, Submodule) and isinstance(node.ctx, ast.Load):
            self.text.refuse(node, f"{node.id} is a module of genbook, used as a value")
        if isinstance(target, (Import, Global)):
            self._found(node, target, node.id)

    def visit_Attribute(self, node):
        target = self._target(node)
        if isinstance(target, Submodule):
            self.text.refuse(node, f"{target.module} is a module of genbook, used as a value")
        if target is None:
            self.generic_visit(node)
        else:
            self._found(node, target, ast.unparse(node))

    def visit_Call(self, node):
        self._keywords[id(node.func)] = frozenset(k.arg for k in node.keywords if k.arg)
        self.generic_visit(node)

    def visit_JoinedStr(self, node):
        outer, self._f_string = self._f_string, self._f_string or node
        self.generic_visit(node)
        self._f_string = outer

    def visit_Import(self, node):
        self._imports(node)

    def visit_ImportFrom(self, node):
        self._imports(node)

    def _imports(self, node):
        if self._scopes:
            for target in imports_of(self.text, node, "genbook").values():
                if not isinstance(target, Import):
                    self.text.refuse(
                        node,
                        "an import from genbook inside a function; put it at the top of the module",
                    )

    def visit_FunctionDef(self, node):
        self._binds(node, "def")
        arguments = node.args
        for early in (*node.decorator_list, *arguments.defaults, *arguments.kw_defaults):
            if early is not None:
                self.visit(early)
        every = [
            *arguments.posonlyargs,
            *arguments.args,
            *arguments.kwonlyargs,
            *filter(None, (arguments.vararg, arguments.kwarg)),
        ]
        annotations = (*(a.annotation for a in every), node.returns)
        for annotation in filter(None, annotations if not self.future else ()):
            self.visit(annotation)
        names = {a.arg for a in every} | bound_by(node.body)
        self._enter(names, node.body, deferred=True)

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_Lambda(self, node):
        for default in filter(None, (*node.args.defaults, *node.args.kw_defaults)):
            self.visit(default)
        every = [
            *node.args.posonlyargs,
            *node.args.args,
            *node.args.kwonlyargs,
            *filter(None, (node.args.vararg, node.args.kwarg)),
        ]
        self._enter({a.arg for a in every}, [node.body], deferred=True)

    def visit_ClassDef(self, node):
        self._binds(node, "class")
        for early in (*node.decorator_list, *node.bases, *node.keywords):
            self.visit(early)
        self._enter(bound_by(node.body), node.body, is_class=True)

    def visit_AnnAssign(self, node):
        for part in (node.target, None if self.future else node.annotation, node.value):
            if part is not None:
                self.visit(part)

    def _comprehension(self, node):
        targets = (n for g in node.generators for n in ast.walk(g.target))
        names = {n.id for n in targets if isinstance(n, ast.Name)}
        self._enter(names, ast.iter_child_nodes(node))

    visit_ListComp = visit_SetComp = visit_DictComp = visit_GeneratorExp = _comprehension

    def _enter(self, names, body, *, deferred=False, is_class=False):
        before = self._deferred
        self._deferred |= deferred
        self._scopes.append((is_class, names))
        for node in body:
            self.visit(node)
        self._scopes.pop()
        self._deferred = before

    def _binds(self, node, keyword: str):
        """The name after `def` or `class`, which the tree gives no place."""
        if self._scopes:
            return
        target = self.resolve(node.name)
        if isinstance(target, Global):
            start, _ = self.text.span(node)
            pattern = re.compile(rf"\b{keyword}\s+({node.name})\b")
            self._found(node, target, node.name, pattern.search(self.text.source, start).span(1))
