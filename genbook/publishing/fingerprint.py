"""What a result depends on, as one short hash.

The book never shows a stale figure and never trains twice for nothing. Both need an answer to
"what went into this?": for a page, the `genbook` modules that its cells import; for a training
run, the code, the data, the starting weights and every setting.
"""

from __future__ import annotations

import ast
import hashlib
import types
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from genbook import system

PACKAGE = Path(__file__).resolve().parents[1]


class Source(NamedTuple):
    """A module's text, and whether it is a package's __init__."""

    text: str
    is_package: bool


SOURCES: dict[str, Source] = {}  # of every module of genbook, by its name


def digest(*parts: bytes | str) -> str:
    """The SHA-256 of `parts`, each preceded by its length so that borders count."""
    h = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        h.update(len(data).to_bytes(8, "little"))
        h.update(data)
    return h.hexdigest()


def read_sources() -> None:
    """Read the sources of the package; until the next call, hashes speak of them.

    This happens once at import, so that a process hashes the code that it runs, whatever is
    edited while it runs.
    """
    SOURCES.clear()
    for path in PACKAGE.rglob("*.py"):
        parts = ("genbook", *path.relative_to(PACKAGE).with_suffix("").parts)
        name = ".".join(parts).removesuffix(".__init__")
        SOURCES[name] = Source(path.read_text(encoding="utf-8"), path.name == "__init__.py")
    of_modules.cache_clear()


def imported_modules(source: str, package: str = "genbook") -> set[str]:
    """The `genbook` modules that Python `source` imports by name (`package` resolves `from .`)."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, base]).rstrip(".")
            found.add(base)
            # `from genbook import vae` names a module; `from genbook.vae import VAE` does not.
            found.update(f"{base}.{alias.name}" for alias in node.names)
    return found & SOURCES.keys()


@cache
def of_modules(modules: frozenset[str]) -> str:
    """The hash of the sources of `modules` and of all `genbook` modules they import in turn.

    Raises ValueError for a module that is not of this package.
    """
    seen, queue = set(), sorted(modules)
    while queue:
        name = queue.pop()
        if name in seen:
            continue
        if name not in SOURCES:
            raise ValueError(f"{name} is not a module of genbook")
        seen.add(name)
        package = name if SOURCES[name].is_package else name.rpartition(".")[0]
        try:
            queue.extend(imported_modules(SOURCES[name].text, package))
        except SyntaxError:  # whoever imports this module will be told, and by Python itself
            pass
        if "." in name:  # importing a.b runs a's __init__ as well
            queue.append(name.rpartition(".")[0])
    return digest(*(f"{name}\n{SOURCES[name].text}" for name in sorted(seen)))


def of_environment() -> str:
    """The hash of what else decides how results are rounded: processor, threads, acceleration."""
    from genbook import accelerate

    enabled = accelerate.enabled()
    names = (name for name in SOURCES if name.startswith("genbook.accelerate"))
    code = of_modules(frozenset(names)) if enabled else ""
    return digest(system.instruction_set(), system.threads(), code)


def of_value(value) -> str:
    """The hash of anything a training run is made of: numbers, arrays, networks, functions.

    A function or class of `genbook` counts with its module's source; any other function (a lambda
    in a chapter) with its code and the values that this code refers to. Raises TypeError for a
    value whose content cannot be told: a result that depended on it could go stale unseen.
    """
    return _of(value, ())


def _of(value, above: tuple) -> str:
    """The hash of `value`; `above` are the definitions it stands in, which may refer to it."""

    def of(*values):
        return [_of(v, above) for v in values]

    if isinstance(value, np.generic):  # first, because a np.float64 is a float as well
        return _of(value.item(), above)
    if value is None or isinstance(value, (bool, int, float, str, bytes)):
        return digest(type(value).__name__, repr(value))
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        return digest(str(value.dtype), str(value.shape), np.ascontiguousarray(value).tobytes())
    if isinstance(value, (list, tuple)):
        return digest(type(value).__name__, *of(*value))
    if isinstance(value, dict):
        return digest("dict", *of(*sorted(value.items())))
    if isinstance(value, partial):
        return digest("partial", *of(value.func, value.args, value.keywords))
    if isinstance(value, types.MethodType):
        return digest("method", value.__func__.__name__, *of(value.__self__))
    if isinstance(value, (types.FunctionType, type, types.ModuleType, types.BuiltinFunctionType)):
        return _of_definition(value, above)
    if hasattr(value, "sublayers"):
        return _of_network(value, above)
    if hasattr(value, "numpy"):  # a tensor
        return _of(value.numpy(), above)
    if type(value).__module__.startswith("genbook."):
        return digest(*of(type(value), vars(value)))
    raise TypeError(
        f"cannot tell what a {type(value).__name__} holds; pass numbers, arrays, "
        "networks, functions or objects of genbook"
    )


def _of_network(network, above: tuple) -> str:
    """The hash of a network: for each layer its class and settings, and all weights."""
    parts = []
    for name, layer in network.named_sublayers(include_self=True):
        settings = {
            key: item
            for key, item in vars(layer).items()
            # Paddle numbers its layers; `training` is set by whoever uses the network.
            if _is_setting(item) and key not in ("_full_name", "training")
        }
        parts += [name, _of_definition(type(layer), above), _of(settings, above)]
    for name, weight in network.state_dict().items():
        parts += [name, str(weight.stop_gradient), _of(weight, above)]
    return digest("network", *parts)


def _is_setting(value) -> bool:
    if isinstance(value, (list, tuple)):
        return all(map(_is_setting, value))
    return value is None or isinstance(value, (bool, int, float, str))


def _of_definition(thing, above: tuple) -> str:
    """The hash of a function, class, module or built-in."""
    if id(thing) in above:  # it refers to itself, as a class does that calls super()
        return digest("above", str(above.index(id(thing))))
    above = (*above, id(thing))
    module = thing.__name__ if isinstance(thing, types.ModuleType) else thing.__module__ or ""
    parts = [module, getattr(thing, "__qualname__", "")]
    if module.split(".")[0] == "genbook":  # the source covers what it calls
        parts.append(of_modules(frozenset([module])))
    if isinstance(thing, types.FunctionType):
        parts += _of_function(thing, above)
    elif isinstance(thing, type) and module == "__main__":  # a chapter's class
        parts += [_of(base, above) for base in thing.__bases__]
        parts += [name + _of(item, above) for name, item in _members(thing)]
    elif isinstance(getattr(thing, "__self__", None), (dict, list, tuple)):  # {}.get, [].count
        parts.append(_of(thing.__self__, above))
    return digest(*parts)


def _members(cls: type) -> list:
    """The name and value of each method and attribute that the class itself defines."""
    ignored = (
        "__dict__",
        "__weakref__",
        "__doc__",
        "__module__",
        "__firstlineno__",
        "__static_attributes__",
    )
    members = []
    for name, item in sorted(vars(cls).items()):
        if name not in ignored:
            if isinstance(item, (staticmethod, classmethod)):
                item = item.__func__
            elif isinstance(item, property):
                item = (item.fget, item.fset)
            members.append((name, item))
    return members


def _of_function(function: types.FunctionType, above: tuple) -> list[str]:
    """The hashes of a function's own code and of the values that it holds or refers to."""
    values = [cell.cell_contents for cell in function.__closure__ or ()]
    module = function.__module__.split(".")[0]
    if module in ("genbook", "__main__"):  # for a library's functions the lock file speaks
        values += [function.__defaults__, function.__kwdefaults__]
    if module == "__main__":
        names = sorted(_names(function.__code__))
        values += [(n, function.__globals__[n]) for n in names if n in function.__globals__]
    return [_of_code(function.__code__), *(_of(value, above) for value in values)]


def _of_code(code: types.CodeType) -> str:
    return digest(code.co_code, *code.co_names, *map(_of_constant, code.co_consts))


def _of_constant(value) -> str:
    if isinstance(value, types.CodeType):
        return _of_code(value)
    if isinstance(value, frozenset):  # its order changes from process to process
        return repr(sorted(map(repr, value)))
    return repr(value)


def _names(code: types.CodeType) -> set[str]:
    nested = (c for c in code.co_consts if isinstance(c, types.CodeType))
    return set(code.co_names).union(*map(_names, nested))


read_sources()
