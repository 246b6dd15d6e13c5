"""Cells that import from genbook, made to run without it: `standalone`."""

from __future__ import annotations

import ast
import re
import sys
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from .package import Package
from .source import (
    CannotCarry,
    Cell,
    Definition,
    Global,
    Import,
    Reference,
    bound_by,
    strings_in,
    strings_passed_in,
)

# What a notebook may import: the packages its reader is told to install, and what comes with them.
ALLOWED = {"paddle", "numpy", "matplotlib", "mpl_toolkits", "sklearn", "scipy", "PIL"}
# What a reader may want to set, in a cell before all others.
SETTINGS = (Global("genbook.training.loop", "STEPS_SCALE"),)
TITLE = "# @title Helpers from the book"  # the line that Colab shows where it folds a cell
WARNINGS = Import("warnings", "", "warnings")
QUIET = '{}.filterwarnings("ignore", "No ccache found")  # Paddle says so at every import'


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
    A shown source becomes a cell where it stands: functions and classes as they are, a method as
    a function that its class is then given, a piece of a function not at all. What the cells need
    besides, or before it is shown, goes into the helpers, with the definitions in `standins` for
    those of the package. Of two definitions of one name, one gets the name of its module before it.

    Raises CannotCarry where the cells, or what they need, import something else than Python's own
    library and the packages in ALLOWED, or do what cannot be followed.
    """
    package = Package()
    parts = list(_parts(cells, package))
    targets = [t for part in parts for t in (*part.needs, *part.defines)]
    package.cut_tables(set().union(*(part.strings for part in parts)), targets)
    carried = package.reached([*targets, WARNINGS])
    helpers = _helpers(parts, carried, package)
    names = _names(parts, carried, package)
    _check(parts, carried, package)
    future = any(package.definition(t).module.future for t in helpers)
    settings = [t for t in carried if t in SETTINGS]
    return Standalone(
        "\n".join(_text(package.definition(t), package, names) for t in settings),
        _helper_cell(helpers, carried, future, package, names),
        [part.code(names) for part in parts],
    )


class _CellPart:
    """A cell of the page."""

    def __init__(self, text: Cell, package: Package):
        self.text = text
        self.references = package.located(text.references)
        self.imports = {
            a: package.origin(t) for a, t in text.imports.items() if isinstance(t, Global)
        }
        for target in self.imports.values():
            package.definition(target)  # a name that is not there is told even where it is not used
        self.needs = [r.target for r in self.references if isinstance(r.target, Global)]
        renamed = {a: t for a, t in self.imports.items() if a != t.name}
        self.needs += renamed.values()  # where it stands, `a = name` takes the import's place
        self.defines = []
        self.strings = strings_in(text.tree)
        self.binds = text.bound | renamed.keys()

    def code(self, names) -> str:
        """The source less its imports from genbook."""
        text, edits = self.text, []
        for node in text.import_nodes:
            aliases = [
                f"{a.asname} = {a.name}\n"
                for a in node.names
                if isinstance(node, ast.ImportFrom)
                and a.asname not in (None, a.name)
                and a.asname in self.imports
            ]
            edits.append((*text.row_span(*text.rows(node)), "".join(aliases)))
        dotted = [r for r in self.references if "." in r.spelled]
        code = text.rewritten(0, len(text.source), dotted, names, edits)
        return re.sub(r"\n{3,}", "\n\n", code).strip("\n") if edits else code.strip("\n")


class _ShownPart:
    """A shown source, found again in its module."""

    def __init__(self, shown: Shown, package: Package):
        self.text = package.module(shown.module)
        if self.text is None:
            raise CannotCarry(f"{shown.module} is not a module of genbook")
        self._find(textwrap.dedent(shown.text).strip("\n").splitlines())
        self.needs, self.defines, self.strings, self.binds = [], [], set(), set()
        self.references = []
        if not self.runs:
            return
        self.strings = set().union(*map(strings_passed_in, self.nodes))
        if self.cls:
            owner = Global(self.text.name, self.cls.name)
            self.needs = [owner]
            self.binds = bound_by(self.nodes)
            self.references = package.references(owner)
        else:
            names = bound_by(self.nodes)
            self.defines = [Global(self.text.name, n) for n in self.text.definitions if n in names]
            self.needs = [t for target in self.defines for t in package.before(target)]
            self.references = [r for t in self.defines for r in package.references(t)]

    def _find(self, wanted: list[str]) -> None:
        """Where the lines are, the statements they consist of, and the class around them."""
        lines = self.text.lines
        places = [
            i
            for i in range(len(lines))
            if lines[i].strip() == wanted[0].strip()
            and wanted == textwrap.dedent("".join(lines[i : i + len(wanted)])).splitlines()
        ]
        if len(places) != 1:
            raise CannotCarry(
                f"{self.text.where} has these lines {len(places)} times, where once "
                f"is expected: {wanted[0]} ..."
            )
        self.first, self.last = places[0] + 1, places[0] + len(wanted)
        classes = (n for n in self.text.tree.body if isinstance(n, ast.ClassDef))
        self.cls = next((n for n in classes if n.lineno < self.first <= n.end_lineno), None)
        self.nodes, rest = [], set(range(self.first, self.last + 1))
        for node in (self.cls or self.text.tree).body:
            first, last = self.text.rows(node)
            if self.first <= first and last <= self.last:
                self.nodes.append(node)
                rest -= set(range(first, last + 1))
        others = (lines[i - 1].strip() for i in rest)
        kinds = (
            ast.FunctionDef
            if self.cls
            else (ast.FunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign)
        )
        self.runs = (
            bool(self.nodes)
            and all(isinstance(n, kinds) for n in self.nodes)
            and all(not line or line.startswith("#") for line in others)
        )

    def code(self, names) -> str:
        """The lines as a cell, methods with what gives them to their class."""
        if not self.runs:
            return ""
        edits = []
        for node in self.nodes if self.cls else ():
            calls = (
                n
                for n in ast.walk(node)
                if isinstance(n, ast.Call)
                and not n.args
                and isinstance(n.func, ast.Name)
                and n.func.id == "super"
            )
            both = f"{self._owner(names)}, {node.args.args[0].arg}"
            edits += [(*self.text.span(call), f"super({both})") for call in calls]
        span = self.text.row_span(self.first, self.last)
        code = textwrap.dedent(self.text.rewritten(*span, self.references, names, edits))
        code = code.strip("\n")
        if not self.cls:
            return code
        return "\n".join(
            [code, "\n", *(f"{self._owner(names)}.{n.name} = {n.name}" for n in self.nodes)]
        )

    def _owner(self, names) -> str:
        return names[Global(self.text.name, self.cls.name)]


def _parts(cells, package: Package) -> Iterator[_CellPart | _ShownPart]:
    imported = {}
    for i, cell in enumerate(cells, 1):
        if isinstance(cell, Shown):
            yield _ShownPart(cell, package)
        else:
            text = Cell(f"cell {i}", cell, imported)
            imported = {**imported, **text.imports}
            yield _CellPart(text, package)


def _helpers(parts, carried, package: Package) -> list[Global]:
    """The definitions that must stand before all cells, in the order of the package."""
    shown = {}
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
        definition = package.definition(target)
        return (
            _depth(target.module, package, ()),
            target.module,
            definition.module.stands_in,
            definition.first,
            target.name,
        )

    return sorted(helpers.difference(SETTINGS), key=place)


def _depth(name: str, package: Package, above: tuple[str, ...]) -> int:
    """How many modules, each imported by the next, come before this one."""
    imports = package.module(name).imports.values()
    imported = {t.module for t in imports if not isinstance(t, Import)}
    below = [n for n in imported - {name, *above} if package.module(n)]
    return 1 + max((_depth(n, package, (*above, name)) for n in below), default=0)


def _names(parts, carried, package: Package) -> dict[Global | Import, str]:
    """The name of each definition and import in the notebook, where all share one scope."""
    uses: dict[Global | Import, list[Reference]] = {}
    for target in carried:
        for r in package.references(target) if isinstance(target, Global) else ():
            uses.setdefault(r.target, []).append(r)
    cells = [part for part in parts if isinstance(part, _CellPart)]
    binds = set().union(*(part.binds for part in parts))
    names = {t: t.name for part in cells for a, t in part.imports.items() if a == t.name}
    for target, name in names.items():
        if name in binds and any(
            r.target == target
            for t in carried
            if t != target and isinstance(t, Global)
            for r in package.references(t)
        ):
            raise CannotCarry(
                f"a cell binds {name}, which the page also imports from "
                f"{target.module}, whose other code needs it; take another name"
            )
    own = {a: t for part in cells for a, t in part.text.imports.items() if isinstance(t, Import)}
    shown = [t for part in parts for t in part.defines]
    rest = sorted(carried, key=lambda t: (not isinstance(t, Import), t not in shown, repr(t)))
    for target in rest:
        if target in names:
            continue
        wanted = target.alias if isinstance(target, Import) else target.name
        prefix = (
            target.module.replace(".", "_")
            if isinstance(target, Import)
            else target.module.rpartition(".")[2]
        )
        taken = binds | set(names.values()) | {a for a, t in own.items() if t != target}
        taken |= {n for r in uses.get(target, ()) if r.spelled != wanted for n in r.inside}
        longer = f"{prefix}_{wanted.lstrip('_')}"
        candidates = (wanted, longer, *(f"{longer}_{i}" for i in range(2, 99)))
        names[target] = next(name for name in candidates if name not in taken)
    return names


def _check(parts, carried, package: Package) -> None:
    """Raise CannotCarry for a forbidden import, and for a call that a stand-in cannot take."""
    definitions = {package.definition(t): None for t in carried if isinstance(t, Global)}
    code = [(d.module, d.node, package.located(d.references)) for d in definitions]
    code += [(p.text, p.text.tree, p.references) for p in parts if isinstance(p, _CellPart)]
    allowed = {*ALLOWED, *sys.stdlib_module_names}
    for text, tree, references in code:
        imports = [r.target.module for r in references if isinstance(r.target, Import)]
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                imports += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                imports.append(node.module)
        for name in imports:
            if name.split(".")[0] not in {*allowed, "genbook"}:
                text.refuse(
                    tree if hasattr(tree, "lineno") else tree.body[0],
                    f"imports {name}; a notebook may import {', '.join(sorted(ALLOWED))} "
                    "and what comes with Python",
                )
        for r in references:
            if r.keywords and isinstance(r.target, Global):
                definition = package.definition(r.target)
                if definition.module.stands_in and isinstance(definition.node, ast.FunctionDef):
                    arguments = definition.node.args
                    known = {a.arg for a in (*arguments.args, *arguments.kwonlyargs)}
                    if unknown := r.keywords - known:
                        raise CannotCarry(
                            f"{text.where}: a call of {r.spelled} with {', '.join(sorted(unknown))}"
                            f", which the version in {definition.module.where} does not have"
                        )


def _helper_cell(helpers, carried, future, package: Package, names) -> str:
    """The imports and the definitions, those of a module together."""
    imports = [t for t in carried if isinstance(t, Import) and t != WARNINGS]
    lines = [WARNINGS.statement(names[WARNINGS]), "", QUIET.format(names[WARNINGS]), ""]
    lines += sorted(
        (t.statement(names[t]) for t in imports),
        key=lambda s: (
            s.split()[1].split(".")[0] not in sys.stdlib_module_names,
            s.startswith("from"),
            s,
        ),
    )
    blocks = ["from __future__ import annotations"] * future + ["\n".join(lines)]
    done, before = set(), None
    for target in helpers:
        definition = package.definition(target)
        if definition in done:
            continue
        done.add(definition)
        text = _text(definition, package, names)
        if before is None or before.module.name != definition.module.name:
            blocks.append(f"\n# {target.module.replace('.', '/')}.py\n\n{text}")
        elif definition.is_block or before.is_block:
            blocks.append("\n" + text)
        else:
            blocks[-1] += "\n" + text
        before = definition
    return "\n\n".join([TITLE, *blocks])


def _text(definition: Definition, package: Package, names) -> str:
    """A definition as it stands in its module, under the names of the notebook."""
    references = package.located(definition.references)
    text = definition.module.rewritten(*definition.span, references, names).strip("\n")
    value = getattr(definition.node, "value", None)
    return re.sub(r"\n\n+", "\n", text) if isinstance(value, ast.Dict) else text
