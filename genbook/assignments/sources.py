"""Code of the package as text: with all it needs, with methods left out, with a part blanked."""

import ast
import importlib.util
import textwrap
from functools import cache
from pathlib import Path

BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"  # the grading tool's own words


def standalone(*names, without=(), instead=None):
    """Python text that defines `names` and all of the package that they use, and runs alone.

    names: such as "genbook.vae.VAE". without: names that are left to somebody else, functions
    and classes as well as methods ("genbook.vae.VAE.encode"). instead: maps a name to the one
    whose code stands in its place. Definitions stand before their uses. Raises ValueError where
    a name does not exist, or where two modules define the same.
    """
    text = _Standalone(set(without), instead or {})
    for name in names:
        text.add(*name.rsplit(".", 1))
    return text.joined()


def definition(name):
    """The text of one function or class, or of a method of a class, moved to the margin."""
    path = name.split(".")
    module = _module(".".join(path[:2]))
    node = module.definitions[path[2]]
    for part in path[3:]:
        node = next(n for n in node.body if getattr(n, "name", None) == part)
    return textwrap.dedent(module.lines_of(node))


def blank_body(text):
    """A function's text with its body, less the docstring, marked as the solution."""
    (function,) = ast.parse(text).body
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return _marked(text, body[0].lineno, body[-1].end_lineno)


def blank_arguments(text, target):
    """A text in which the arguments of the call assigned to `target` are the solution.

    They stand on lines of their own.
    """
    calls = [
        node.value for node in ast.walk(ast.parse(text))
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


class _Module:
    """A module's text, where its top-level names come from, and what it imports."""

    def __init__(self, name):
        self.name = name
        spec = importlib.util.find_spec(name)
        if spec is None:
            raise ValueError(f"there is no module {name}")
        self.package = name if spec.submodule_search_locations else name.rpartition(".")[0]
        self.text = Path(spec.origin).read_text(encoding="utf-8")
        self.definitions, self.imports = {}, {}
        for node in ast.parse(self.text).body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                self.definitions[node.name] = node
            elif isinstance(node, ast.Assign):
                names = [n.id for t in node.targets for n in ast.walk(t) if isinstance(n, ast.Name)]
                self.definitions.update(dict.fromkeys(names, node))
            elif isinstance(node, ast.Import):
                self.imports.update({a.asname or a.name: (a.name, None) for a in node.names})
            elif isinstance(node, ast.ImportFrom):
                base = importlib.util.resolve_name("." * node.level + (node.module or ""),
                                                   self.package)
                self.imports.update({a.asname or a.name: (base, a.name) for a in node.names})

    def lines_of(self, node, without=()):
        """The lines of a definition, its decorators included, less the methods `without`."""
        lines = self.text.splitlines()
        start = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])
        gone = set()
        body = getattr(node, "body", [])
        for before, method in zip(body, body[1:]):
            if getattr(method, "name", None) in without:  # with the comment in front of it
                gone.update(range(before.end_lineno + 1, method.end_lineno + 1))
        kept = (n for n in range(start, node.end_lineno + 1) if n not in gone)
        return "\n".join(lines[n - 1] for n in kept) + "\n"


_module = cache(_Module)


class _Standalone:
    def __init__(self, without, instead):
        self.without, self.instead = without, instead
        self.seen, self.owner, self.parts, self.imports = set(), {}, [], set()

    def add(self, module_name, name):
        """Add a definition after all that it uses."""
        full = f"{module_name}.{name}"
        if full in self.instead:
            return self.add(*self.instead[full].rsplit(".", 1))
        if full in self.without or full in self.seen:
            return
        self.seen.add(full)
        module = _module(module_name)
        if name in module.imports:
            return self._add_imported(name, *module.imports[name])
        if name not in module.definitions:
            raise ValueError(f"{module_name} does not define {name}")
        if self.owner.setdefault(name, module_name) != module_name:
            raise ValueError(f"{name} is defined in {self.owner[name]} and in {module_name}")
        node = module.definitions[name]
        left_out = {n.removeprefix(full + ".") for n in self.without if n.startswith(full + ".")}
        text = module.lines_of(node, left_out)
        used = {n.id for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Name)}
        for other in sorted(used & (module.definitions.keys() | module.imports.keys())):
            self.add(module_name, other)
        self.parts.append(text)

    def _add_imported(self, name, module, attribute):
        if module.split(".")[0] == "genbook":
            if attribute != name:
                raise ValueError(f"{module} is imported as {name}: it cannot be copied")
            self.add(module, name)
        elif attribute is None:
            self.imports.add(f"import {module}" + (f" as {name}" if name != module else ""))
        else:
            same = attribute == name
            self.imports.add(f"from {module} import {attribute}" + ("" if same else f" as {name}"))

    def joined(self):
        plain = sorted(i for i in self.imports if i.startswith("import "))
        head = "\n".join([*plain, *sorted(self.imports.difference(plain))])
        return "\n\n\n".join(filter(None, [head, *(p.strip("\n") for p in self.parts)])) + "\n"
