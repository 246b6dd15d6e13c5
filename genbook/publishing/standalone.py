"""Cells that import from genbook, made to run without it: `standalone`."""

from __future__ import annotations

import ast
import re
import sys
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from .package import Package, strings_in, strings_passed_in
from .source import (
    Definition,
    Global,
    Import,
    NotStandalone,
    Target,
    bound_by,
    imports_in,
    imports_of,
    module,
    names_used,
    rows,
)

# What a notebook may import: the packages its reader is told to install, and what comes with them.
ALLOWED = {"paddle", "numpy", "matplotlib", "mpl_toolkits", "sklearn", "scipy", "PIL"}
# What a reader may want to set, in a cell before all others.
SETTINGS = (Global("genbook.training.loop", "STEPS_SCALE"),)
TITLE = "# @title Helpers from the book"  # the line that Colab shows where it folds a cell
WARNINGS = Import("warnings", "", "warnings")
QUIET = 'warnings.filterwarnings("ignore", "No ccache found")  # Paddle says so at every import'


@dataclass(frozen=True)
class Shown:
    """Lines of a module of genbook that a page shows. module: as in "genbook.vae"."""

    module: str
    text: str


class Standalone(NamedTuple):
    """What `standalone` makes of some cells."""

    settings: str  # what a reader may set; may be empty
    helpers: str  # what the cells need
    cells: list[str]  # one for each that was given; empty where nothing of it is to be run


def standalone(cells: Iterable[str | Shown]) -> Standalone:
    """Cells that do the same without genbook, run after `settings` and `helpers`.

    cells: Python source that may import from genbook, and between them sources that are shown.
    A shown source becomes a cell where it is shown: functions and classes as they are, a method as
    a function that its class is then given, a piece of a function not at all. What the cells need
    besides, or before it is shown, goes into the helpers.

    Raises NotStandalone where the cells, or what they need, import something else than Python's
    own library and the packages in ALLOWED, where two things have one name, or where the code does
    what cannot be followed.
    """
    package = Package()
    parts: list[_CellPart | _ShownPart] = []
    imported: dict[str, Target] = {}
    for i, cell in enumerate(cells, 1):
        if isinstance(cell, Shown):
            parts.append(_ShownPart(cell, package))
        else:
            parts.append(_CellPart(f"cell {i}", cell, imported, package))
    targets = [t for part in parts for t in (*part.needs, *part.defines)]
    package.cut_table(set().union(*(part.strings for part in parts)), targets)
    carried = package.reached([*targets, WARNINGS])
    _require_allowed(parts, carried, package)
    _require_distinct(parts, carried, package)
    settings = [package.definition(t).text.strip() for t in SETTINGS if t in carried]
    return Standalone(
        "\n".join(settings),
        _helper_cell(_helpers(parts, carried, package), carried, package),
        [part.code() for part in parts],
    )


class _CellPart:
    """A cell of the page; `imported` holds what the cells so far imported, and is updated."""

    def __init__(self, where: str, source: str, imported: dict[str, Target], package: Package):
        self.where, self.source = where, source
        try:
            self.tree = ast.parse(source)
        except SyntaxError as error:
            raise NotStandalone(f"{where}: not plain Python: {error}") from error
        self.imports: dict[str, Target] = {}
        self.dropped: set[int] = set()  # the lines of imports from genbook
        for node in self.tree.body:
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                found = {name: package.origin(t) for name, t in imports_of(node, "")}
                self.imports |= found
                if "genbook" in re.split(r"\W+", ast.unparse(node)):
                    self._require_plain(node, found, package)
                    self.dropped |= set(range(node.lineno, (node.end_lineno or 0) + 1))
        imported.update(self.imports)
        self.binds = bound_by(source) - self.imports.keys()
        self.defines: list[Global] = []
        self.needs = [t for t in map(imported.get, names_used(source)) if isinstance(t, Global)]
        self.strings = strings_in(self.tree)

    def _require_plain(self, node, found, package):
        for name, target in found.items():
            if isinstance(target, Import) or not target.name:
                continue  # a module is refused where it is used
            if name != target.name:
                place = f"{self.where}, line {node.lineno}"
                raise NotStandalone(f"{place}: import {target} under its own name, not as {name}")
            package.definition(target)  # raises where there is none, even if it is not used

    def code(self) -> str:
        """The source less its imports from genbook."""
        lines = self.source.splitlines()
        kept = [line for i, line in enumerate(lines, 1) if i not in self.dropped]
        text = "\n".join(kept).strip("\n")
        return re.sub(r"\n{3,}", "\n\n", text) if self.dropped else text


class _ShownPart:
    """A shown source, found again in its module."""

    def __init__(self, shown: Shown, package: Package):
        home = module(shown.module)
        if home is None:
            raise NotStandalone(f"{shown.module} is not a module of genbook")
        self.where, self.tree = shown.module, home.tree
        text = textwrap.dedent(shown.text).strip("\n")
        first, last = self._find(home, text.splitlines())
        classes = (n for n in home.tree.body if isinstance(n, ast.ClassDef))
        self.cls = next((n for n in classes if n.lineno < first <= (n.end_lineno or 0)), None)
        body = (self.cls or home.tree).body
        nodes = [n for n in body if first <= rows(n)[0] and rows(n)[1] <= last]
        covered = {i for start, end in map(rows, nodes) for i in range(start, end + 1)}
        others = (home.lines[i - 1].strip() for i in range(first, last + 1) if i not in covered)
        kinds: tuple[type, ...] = (ast.FunctionDef,)
        if not self.cls:
            kinds = (ast.FunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign)
        runs = (
            bool(nodes)
            and all(isinstance(n, kinds) for n in nodes)
            and all(not line or line.startswith("#") for line in others)
        )
        self.text = text if runs else ""
        self.methods = [n.name for n in nodes if isinstance(n, ast.FunctionDef)]
        self.imports: dict[str, Target] = {}
        self.needs: list[Target] = []
        self.defines: list[Global] = []
        self.binds = bound_by(self.text) if self.cls else set()
        self.strings = set().union(*map(strings_passed_in, nodes)) if runs else set()
        if runs and self.cls:
            self.needs = [Global(home.name, self.cls.name)]
        elif runs:
            names = bound_by(self.text)
            self.defines = [Global(home.name, n) for n in home.definitions if n in names]
            self.needs = [t for target in self.defines for t in package.before(target)]

    @staticmethod
    def _find(home, wanted: list[str]) -> tuple[int, int]:
        """The first and the last of the lines in their module, from 1."""
        lines = home.lines
        places = [
            i
            for i in range(len(lines))
            if lines[i].strip() == wanted[0].strip()
            and wanted == textwrap.dedent("".join(lines[i : i + len(wanted)])).splitlines()
        ]
        if len(places) != 1:
            raise NotStandalone(
                f"{home.name} has these lines {len(places)} times, where once "
                f"is expected: {wanted[0]} ..."
            )
        return places[0] + 1, places[0] + len(wanted)

    def code(self) -> str:
        """The lines as a cell, methods with what gives them to their class."""
        if not self.cls or not self.text:
            return self.text
        owner = self.cls.name
        text = self.text.replace("super()", f"super({owner}, self)")
        return "\n".join([text, "\n", *(f"{owner}.{name} = {name}" for name in self.methods)])


def _require_allowed(parts, carried, package: Package) -> None:
    """Raise NotStandalone for an import that a notebook cannot have, or cannot be followed."""
    imported = [
        (part.where, target)
        for part in parts
        if isinstance(part, _CellPart)
        for target in imports_in(part.tree, "")
    ]
    for target in carried:
        if isinstance(target, Import):
            continue
        if not target.name:
            raise NotStandalone(
                f"{target} is a module of genbook, used as a value; import what you need of it"
            )
        definition = package.definition(target)
        home = definition.module
        if home.actions:
            raise NotStandalone(
                f"{home.name}, line {home.actions[0].lineno}: this does more than define a name, "
                f"so that {target.name} of the same module cannot stand alone"
            )
        for alias, other in home.imports.items():
            renamed = isinstance(other, Global) and alias != other.name
            if renamed and other in definition.references:
                raise NotStandalone(f"{home.name}: import {other} under its own name, not {alias}")
        if any(isinstance(t, Global) for t in definition.imports_inside):
            raise NotStandalone(
                f"{target}: an import from genbook inside a function; put it at the module's top"
            )
        imported += [(str(target), other) for other in package.references(target)]
    for where, target in imported:
        name = target.module
        if name.split(".")[0] not in {*ALLOWED, *sys.stdlib_module_names, "genbook"}:
            raise NotStandalone(
                f"{where} imports {name}; a notebook may import "
                f"{', '.join(sorted(ALLOWED))} and what comes with Python"
            )


def _require_distinct(parts, carried, package: Package) -> None:
    """Raise NotStandalone where two things have one name: in a notebook all share one scope."""
    names: dict[str, Target] = {}
    cells = [target for part in parts for target in part.imports.values()]
    for target in [*carried, *cells]:
        name = target.alias if isinstance(target, Import) else target.name
        if names.setdefault(name, target) != target:
            raise NotStandalone(
                f"{names[name]} and {target} have one name in a notebook; rename one of them"
            )
    needed = {
        other
        for target in carried
        if isinstance(target, Global)
        for other in package.references(target)
        if other != target
    }
    for part in parts:
        for name in part.binds & names.keys():
            if names[name] in needed:
                raise NotStandalone(
                    f"{part.where} binds {name}, and other code of the page needs "
                    f"{names[name]}; rename one of them"
                )


def _helpers(parts, carried, package: Package) -> list[Global]:
    """The definitions that must be there before all cells, in the order of the package."""
    shown: dict[Target, int] = {}
    for i, part in enumerate(parts):
        for target in part.defines:
            shown.setdefault(target, i)
    in_time = set(shown)
    for i, part in enumerate(parts):
        in_time -= {t for t in package.reached(part.needs) if shown.get(t, -1) > i}
    helpers = {t for t in carried if isinstance(t, Global) and t not in in_time}
    while True:  # and what these need when they are defined
        before = package.reached(t for helper in helpers for t in package.before(helper))
        more = {t for t in before if isinstance(t, Global)} - helpers
        if not more:
            break
        helpers |= more

    def place(target):
        return (
            _depth(target.module, ()),
            target.module,
            package.definition(target).first,
            str(target),
        )

    return sorted(helpers.difference(SETTINGS), key=place)


def _depth(name: str, above: tuple[str, ...]) -> int:
    """How many modules, each imported by the next, come before this one."""
    home = module(name)
    imported = {t.module for t in home.imports.values() if isinstance(t, Global)} if home else set()
    below = [n for n in imported - {name, *above} if module(n)]
    return 1 + max((_depth(n, (*above, name)) for n in below), default=0)


def _helper_cell(helpers, carried, package: Package) -> str:
    """The imports and the definitions, those of a module together."""

    def order(statement):
        stdlib = statement.split()[1].split(".")[0] in sys.stdlib_module_names
        return not stdlib, statement.startswith("from"), statement

    imports = [str(t) for t in carried if isinstance(t, Import) and t != WARNINGS]
    lines = [str(WARNINGS), "", QUIET, "", *sorted(imports, key=order)]
    definitions = list(dict.fromkeys(map(package.definition, helpers)))
    future = any(d.module.future for d in definitions)
    blocks = ["from __future__ import annotations"] * future + ["\n".join(lines)]
    before: Definition | None = None
    for definition in definitions:
        text = definition.text.strip("\n")
        if isinstance(getattr(definition.node, "value", None), ast.Dict):
            text = re.sub(r"\n\n+", "\n", text)  # a table that was cut
        if before is None or before.module.name != definition.module.name:
            blocks.append(f"\n# {definition.module.name.replace('.', '/')}.py\n\n{text}")
        elif definition.is_block or before.is_block:
            blocks.append("\n" + text)
        else:
            blocks[-1] += "\n" + text
        before = definition
    return "\n\n".join([TITLE, *blocks])
