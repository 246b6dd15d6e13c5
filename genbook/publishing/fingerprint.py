"""What a result depends on, as one short hash.

The book never shows a stale figure and never trains twice for nothing. Both need an answer to
"what went into this?": for a page, the definitions of `genbook` that its cells reach; for a
training run, the code, the data, the starting weights, every setting, and the machine. What cannot
change a result does not count: comments, docstrings, formatting.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import modulefinder
import sys
import sysconfig
import types
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from genbook import system

from .package import Package
from .source import SOURCES, Global, Module, NotStandalone, Target, code_of, imports_in, module

ATOMS = (bool, int, float, complex, str, bytes, range)
# Members of a class that say nothing about what it computes
INCIDENTAL = set(
    """__abstractmethods__ __annotate__ __annotate_func__ __annotations__ __annotations_cache__
    __dataclass_fields__ __dataclass_params__ __dict__ __doc__ __firstlineno__ __match_args__
    __module__ __static_attributes__ __weakref__ _abc_impl""".split()
)
# What things consist of that are made of others
PARTS: dict[type, tuple[str, ...]] = {
    partial: ("func", "args", "keywords"),
    property: ("fget", "fset"),
    slice: ("start", "stop", "step"),
    staticmethod: ("__func__",),
    classmethod: ("__func__",),
    types.MethodType: ("__self__", "__func__"),
    functools.cached_property: ("func",),
    functools._lru_cache_wrapper: ("__wrapped__",),
}
HAS_DOCSTRING = 0x4000000  # flag of code since Python 3.13
LIBRARIES = [Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib", "platlib")]


def digest(*parts: bytes | str) -> str:
    """The SHA-256 of `parts`, each preceded by its length so that borders count."""
    h = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        h.update(len(data).to_bytes(8, "little"))
        h.update(data)
    return h.hexdigest()


# --- genbook, by its sources --------------------------------------------------------------------


def of_modules(modules: frozenset[str]) -> str:
    """The hash of the code of `modules` and of all `genbook` modules they import in turn.

    Raises ValueError for a module that is not of this package.
    """
    if missing := sorted(modules - SOURCES.keys()):
        raise ValueError(f"{missing[0]} is not a module of genbook")
    return digest(*(f"{home.name}\n{home.code}" for home in closure(modules)))


def of_imports(source: str) -> str:
    """The hash of all that Python `source` imports from genbook, and what that needs in turn.

    Raises SyntaxError.
    """
    return of_definitions(imports_in(ast.parse(source), ""))


def of_definitions(targets: Iterable[Target]) -> str:
    """The hash of definitions of genbook, and of all that they refer to in turn."""
    package, parts = Package(), set()
    queue, seen = [package.origin(t) for t in targets], set()
    while queue:
        target = queue.pop()
        if target in seen:
            continue
        seen.add(target)
        parts.add(str(target))
        if not isinstance(target, Global):
            continue
        try:
            if target.name:
                parts.add(f"{target}\n{package.definition(target).code}")
                queue += package.references(target)
                continue
        except NotStandalone:  # it does what cannot be followed: its whole module counts
            pass
        parts.add(of_modules(frozenset({target.module} & SOURCES.keys())))
    # Whatever is imported runs, also where no definition is taken from it.
    modules = {t.module for t in seen if isinstance(t, Global)} & SOURCES.keys()
    for home in closure(modules):
        parts.add(f"{home.name}\n{ast.dump(ast.Module(home.actions, []))}")
    return digest(*sorted(parts))


def closure(names: Iterable[str]) -> list[Module]:
    """These modules and all modules of genbook that they import in turn, sorted by name."""
    found: dict[str, Module] = {}
    queue = list(names)
    while queue:
        name = queue.pop()
        if name not in found and (home := module(name)):
            found[name] = home
            queue += home.imported
    return [found[name] for name in sorted(found)]


# --- the machine --------------------------------------------------------------------------------


def of_environment() -> str:
    """The hash of what decides how results are rounded: processor, threads, acceleration."""
    from genbook import accelerate

    code = of_acceleration() if accelerate.is_enabled() else ""
    return digest(system.instruction_set(), system.threads(), code)


def of_acceleration() -> str:
    """The hash of the code with which Paddle is accelerated."""
    return of_modules(frozenset(n for n in SOURCES if n.startswith("genbook.accelerate")))


# --- values -------------------------------------------------------------------------------------


def of_value(value) -> str:
    """The hash of anything a training run is made of: numbers, arrays, networks, functions.

    A function or class of genbook counts with the definitions that it reaches; one of the user's
    own, in a chapter or a module, with its code and the values that this code refers to, in turn;
    one of an installed library with its name and the library's version. Raises TypeError for a
    value whose content is unknown: a result that depended on it could go stale unnoticed.
    """
    return _of(value, ())


def _of(value, above: tuple, names: Iterable[str] = ()) -> str:
    """The hash of `value`; `above` are the things around it, which it may refer to.

    names: the attributes that are used, where it is a module.
    """

    def of(*values):
        return [_of(v, above) for v in values]

    if isinstance(value, np.generic):  # first, because a np.float64 is a float as well
        return _of(value.item(), above)
    if value is None or value is ... or isinstance(value, ATOMS):
        return digest(type(value).__name__, repr(value))
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        return digest(str(value.dtype), str(value.shape), np.ascontiguousarray(value).tobytes())
    if id(value) in above:  # it refers to itself, as a class does that calls super()
        return digest("above", str(above.index(id(value))))
    above = (*above, id(value))
    for kind, parts in PARTS.items():
        if isinstance(value, kind):
            return digest(kind.__name__, *of(*(getattr(value, part) for part in parts)))
    if isinstance(value, (list, tuple)):
        return digest(type(value).__name__, *of(*value))
    if isinstance(value, (set, frozenset)):
        return digest("set", *sorted(of(*value)))
    if isinstance(value, dict):
        return digest("dict", *sorted(digest(*of(*item)) for item in value.items()))
    if isinstance(value, types.ModuleType):
        return _of_module(value, above, names)
    if isinstance(value, (types.FunctionType, type)):
        return _of_definition(value, above)
    if isinstance(value, types.BuiltinFunctionType):  # {}.get, [].count; and len, np.dot
        owner = value.__self__
        held = [] if isinstance(owner, types.ModuleType) else of(owner)
        return digest("builtin", value.__module__ or "", value.__qualname__, *held)
    if hasattr(value, "sublayers"):
        return _of_network(value, above)
    if hasattr(value, "numpy"):  # a tensor
        return _of(value.numpy(), above)
    if not _is_library(type(value).__module__) and hasattr(value, "__dict__"):
        return digest(*of(type(value), vars(value)))
    if isinstance(value, np.ufunc):
        return digest("ufunc", value.__name__)
    raise TypeError(
        f"cannot fingerprint a {type(value).__module__}.{type(value).__qualname__}: its content is "
        "unknown. Pass what a training depends on as numbers, arrays, networks or functions, or "
        "train without `folder` and GENBOOK_RUNS"
    )


def _is_library(name: str) -> bool:
    """Whether a module is installed: part of Python, or of a package with a version."""
    root = (name or "builtins").partition(".")[0]
    if root in ("genbook", "__main__"):
        return False
    if root in sys.stdlib_module_names:
        return True
    file = getattr(sys.modules.get(name), "__file__", None)
    return file is not None and any(folder in Path(file).parents for folder in LIBRARIES)


def _of_network(network, above: tuple) -> str:
    """The hash of a network: for each layer its class and settings, and all weights."""
    parts = []
    for name, layer in network.named_sublayers(include_self=True):
        members, library = vars(layer), _is_library(type(layer).__module__)
        settings = {
            key: item
            for key, item in members.items()
            # Paddle numbers its layers; `training` is set by whoever uses the network. What else
            # Paddle's own layers hold is derived from their settings.
            if key not in ("_full_name", "training")
            and (_is_setting(item) or not (library or key in _bookkeeping()))
        }
        hooks = [
            list(members[key].values())
            for key in ("_forward_pre_hooks", "_forward_post_hooks")
            if members.get(key)
        ]
        parts += [name, *(_of(part, above) for part in (type(layer), settings, hooks))]
    for name, weight in network.state_dict().items():
        parts += [name, str(weight.stop_gradient), _of(weight, above)]
    return digest("network", *parts)


@functools.cache
def _bookkeeping() -> set[str]:
    """What every layer holds for Paddle."""
    import paddle

    return set(vars(paddle.nn.Layer()))


def _is_setting(value) -> bool:
    if isinstance(value, (list, tuple)):
        return all(map(_is_setting, value))
    return value is None or isinstance(value, (bool, int, float, str))


def _of_module(found: types.ModuleType, above: tuple, names: Iterable[str]) -> str:
    """The hash of a module, of which code uses the attributes `names`."""
    name = found.__name__
    if name.split(".")[0] == "genbook":
        return digest(name, of_definitions([Global(name, "")]))
    if _is_library(name):
        return _of_library(name, "")
    file = getattr(found, "__file__", None)
    if file is None or not file.endswith(".py"):
        raise TypeError(f"cannot fingerprint the module {name}, which has no Python source")
    parts = [name, _code_of_text(Path(file).read_text(encoding="utf-8"))]
    for attribute in sorted(vars(found).keys() & set(names)):
        parts += [attribute, _of(getattr(found, attribute), above, names)]
    return digest(*parts)


@functools.lru_cache(1000)
def _code_of_text(text: str) -> str:
    return code_of(ast.parse(text))


def _of_library(module_name: str, name: str) -> str:
    root = sys.modules.get((module_name or "").partition(".")[0])
    return digest("library", module_name or "", name, str(getattr(root, "__version__", "")))


def _of_definition(thing, above: tuple) -> str:
    """The hash of a function or class."""
    home, name = thing.__module__ or "", thing.__qualname__
    parts, own, library = [home, name], home.split(".")[0] == "genbook", _is_library(home)
    if own:
        parts.append(of_definitions([Global(home, name.partition(".")[0])]))
    elif library:
        parts.append(_of_library(home, name))
    elif isinstance(thing, type):
        parts += [_of(base, above) for base in (type(thing), *thing.__bases__)]
        for member, item in sorted(vars(thing).items()):
            if member not in INCIDENTAL and not isinstance(item, types.MemberDescriptorType):
                parts.append(member + _of(item, above))
    if isinstance(thing, types.FunctionType):  # closures and lambdas hold more than source
        held = [cell.cell_contents for cell in thing.__closure__ or ()]
        if not library:
            held += [thing.__defaults__, thing.__kwdefaults__]
        parts += [_of_code(thing.__code__), *(_of(value, above) for value in held)]
        if not own and not library:
            parts += _used(thing, above)
    return digest(*parts)


def _used(function: types.FunctionType, above: tuple) -> list[str]:
    """The hashes of the global names that a function uses, and of what it imports."""
    space, codes = function.__globals__, list(_nested(function.__code__))
    names, parts = {name for code in codes for name in code.co_names}, []
    for name in sorted(names & space.keys()):
        try:
            parts += [name, _of(space[name], above, names)]
        except TypeError as error:
            raise TypeError(f"{function.__qualname__} uses {name}: {error}") from None
    found = {name for code in codes for name in _imports(code, space.get("__package__") or "")}
    return parts + [_of(importlib.import_module(name), above, names) for name in sorted(found)]


def _nested(code: types.CodeType) -> Iterator[types.CodeType]:
    """Compiled code, and that of the functions within it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _nested(constant)


def _imports(code: types.CodeType, package: str) -> Iterator[str]:
    """The modules that code imports when it runs."""
    for kind, arguments in modulefinder.ModuleFinder().scan_opcodes(code):
        if kind != "store":
            *level, _, name = arguments
            yield importlib.util.resolve_name("." * sum(level) + name, package)


def _of_code(code: types.CodeType) -> str:
    """The hash of compiled code, without its docstring."""
    constants = list(code.co_consts)
    named = (
        code.co_flags & HAS_DOCSTRING
        if sys.version_info >= (3, 13)
        else (not code.co_name.startswith("<"))
    )
    if named and constants and isinstance(constants[0], str):
        constants[0] = None
    return digest(code.co_code, *code.co_names, *map(_of_constant, constants))


def _of_constant(value) -> str:
    if isinstance(value, types.CodeType):
        return _of_code(value)
    if isinstance(value, frozenset):  # its order changes from process to process
        return repr(sorted(map(repr, value)))
    return repr(value)
