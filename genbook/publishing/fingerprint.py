"""What a result depends on, as one short hash.

The book never shows a stale figure and never trains twice for nothing. Both need an answer to
"what went into this?": for a page, the definitions of `genbook` that its cells reach; for a
training run, the code, the data, the starting weights, every setting, and the machine. What cannot
change a result does not count: comments, docstrings, formatting.
"""

from __future__ import annotations

import ast
import dis
import functools
import hashlib
import importlib.util
import sys
import sysconfig
import types
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import numpy as np

from genbook import system

from .package import Package
from .source import SOURCES, Global, NotStandalone, Target, imports_of, module
from .source import read_sources as read_sources  # for those who ask for hashes

# Members of a class that say nothing about what it computes
INCIDENTAL = {
    "__abstractmethods__",
    "__annotate__",
    "__annotate_func__",
    "__annotations__",
    "__annotations_cache__",
    "__dataclass_fields__",
    "__dataclass_params__",
    "__dict__",
    "__doc__",
    "__firstlineno__",
    "__match_args__",
    "__module__",
    "__static_attributes__",
    "__weakref__",
    "_abc_impl",
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
    return digest(*(f"{name}\n{_code(name, SOURCES[name].text)}" for name in closure(modules)))


def of_imports(source: str) -> str:
    """The hash of all that Python `source` imports from genbook, and what that needs in turn.

    Raises SyntaxError.
    """
    nodes = ast.walk(ast.parse(source))
    found = [n for n in nodes if isinstance(n, (ast.Import, ast.ImportFrom))]
    return of_definitions(t for node in found for t in imports_of(node, "").values())


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
                parts.add(f"{target}\n{_definition(package.definition(target))}")
                queue += package.references(target)
                continue
        except NotStandalone:  # it does what cannot be followed: its whole module counts
            pass
        parts.add(of_modules(frozenset({target.module} & SOURCES.keys())))
    # Whatever is imported runs, also where no definition is taken from it.
    modules = {t.module for t in seen if isinstance(t, Global)} & SOURCES.keys()
    parts |= {_actions(name) for name in closure(frozenset(modules))}
    return digest(*sorted(parts))


def closure(modules: frozenset[str]) -> list[str]:
    """`modules` and all modules of genbook that they import in turn, sorted."""
    seen: set[str] = set()
    queue = list(modules)
    while queue:
        name = queue.pop()
        if name not in seen and name in SOURCES:
            seen.add(name)
            queue += _imported(name, SOURCES[name])
    return sorted(seen)


@functools.lru_cache(1000)
def _imported(name: str, source) -> list[str]:
    """What a module imports, anywhere in it; importing a.b runs a's __init__ as well."""
    package = name if source.is_package else name.rpartition(".")[0]
    try:
        nodes = list(ast.walk(ast.parse(source.text)))
    except SyntaxError:  # whoever imports this module will be told, and by Python itself
        nodes = []
    found = [name.rpartition(".")[0]]
    for node in nodes:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            for target in imports_of(node, package).values():
                found += [target.module, str(target)]
    return found


@functools.lru_cache(10_000)
def _definition(definition) -> str:
    return _stripped(definition.node)


@functools.lru_cache(1000)
def _code(name: str, text: str) -> str:
    try:
        return _stripped(ast.parse(text))
    except SyntaxError:
        return text


def _actions(name: str) -> str:
    """What a module does when it is imported, beyond defining names."""
    try:
        home = module(name)
        return f"{name}\n{ast.dump(ast.Module(home.actions, []))}" if home else ""
    except NotStandalone:
        return SOURCES[name].text


def _stripped(node: ast.AST) -> str:
    """The syntax tree as text, without docstrings."""
    node = ast.parse(ast.unparse(node))
    for part in ast.walk(node):
        if isinstance(part, (ast.Module, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            if ast.get_docstring(part, clean=False) is not None:
                del part.body[0]
    return ast.dump(node)


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


def _of(value, above: tuple) -> str:
    """The hash of `value`; `above` are the things around it, which it may refer to."""

    def of(*values):
        return [_of(v, above) for v in values]

    if isinstance(value, np.generic):  # first, because a np.float64 is a float as well
        return _of(value.item(), above)
    if value is None or value is ... or isinstance(value, (bool, int, float, complex, str, bytes)):
        return digest(type(value).__name__, repr(value))
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        return digest(str(value.dtype), str(value.shape), np.ascontiguousarray(value).tobytes())
    if id(value) in above:  # it refers to itself, as a class does that calls super()
        return digest("above", str(above.index(id(value))))
    above = (*above, id(value))
    if isinstance(value, (list, tuple)):
        return digest(type(value).__name__, *of(*value))
    if isinstance(value, (set, frozenset)):
        return digest("set", *sorted(of(*value)))
    if isinstance(value, dict):
        return digest("dict", *sorted(digest(*of(*item)) for item in value.items()))
    if isinstance(value, (range, slice)):
        return digest(repr(value))
    if isinstance(value, partial):
        return digest("partial", *of(value.func, value.args, value.keywords))
    if isinstance(value, types.MethodType):
        return digest("method", value.__func__.__name__, *of(value.__self__, value.__func__))
    if isinstance(value, types.ModuleType):
        return _of_module(value, set(), above)
    if isinstance(value, (types.FunctionType, type)):
        return _of_definition(value, above)
    if isinstance(value, types.BuiltinFunctionType):  # {}.get, [].count; and len, np.dot
        owner = value.__self__
        held = [] if isinstance(owner, types.ModuleType) else of(owner)
        return digest("builtin", value.__module__ or "", value.__qualname__, *held)
    if isinstance(value, functools._lru_cache_wrapper):
        return digest("cache", *of(value.__wrapped__))
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
        library = _is_library(type(layer).__module__)
        settings = {
            key: item
            for key, item in vars(layer).items()
            # Paddle numbers its layers; `training` is set by whoever uses the network. What else
            # Paddle's own layers hold is derived from their settings.
            if key not in ("_full_name", "training")
            and (_is_setting(item) or not (library or key in _bookkeeping()))
        }
        hooks = [list(vars(layer)[key].values()) for key in HOOKS if vars(layer).get(key)]
        parts += [name, _of_definition(type(layer), above), _of(settings, above), _of(hooks, above)]
    for name, weight in network.state_dict().items():
        parts += [name, str(weight.stop_gradient), _of(weight, above)]
    return digest("network", *parts)


HOOKS = ("_forward_pre_hooks", "_forward_post_hooks")


@functools.cache
def _bookkeeping() -> set[str]:
    """What every layer holds for Paddle."""
    import paddle

    return set(vars(paddle.nn.Layer()))


def _is_setting(value) -> bool:
    if isinstance(value, (list, tuple)):
        return all(map(_is_setting, value))
    return value is None or isinstance(value, (bool, int, float, str))


def _of_module(found: types.ModuleType, names: set[str], above: tuple) -> str:
    """The hash of a module, of which code uses the attributes `names`."""
    name = found.__name__
    if name.split(".")[0] == "genbook":
        return digest(name, of_definitions([Global(name, "")]))
    if _is_library(name):
        return _of_library(name, "")
    file = getattr(found, "__file__", None)
    if file is None or not file.endswith(".py"):
        raise TypeError(f"cannot fingerprint the module {name}, which has no Python source")
    parts = [name, _code(name, Path(file).read_text(encoding="utf-8"))]
    for attribute in sorted(names & vars(found).keys()):
        item = getattr(found, attribute)
        parts.append(attribute)
        if isinstance(item, types.ModuleType) and id(item) not in above:
            parts.append(_of_module(item, names, (*above, id(item))))
        else:
            parts.append(_of(item, above))
    return digest(*parts)


def _of_library(module_name: str, name: str) -> str:
    root = sys.modules.get((module_name or "").partition(".")[0])
    return digest("library", module_name or "", name, str(getattr(root, "__version__", "")))


def _of_definition(thing, above: tuple) -> str:
    """The hash of a function or class."""
    home, name = thing.__module__ or "", thing.__qualname__
    parts = [home, name]
    if home.split(".")[0] == "genbook":
        parts.append(of_definitions([Global(home, name.partition(".")[0])]))
        if isinstance(thing, types.FunctionType):  # closures and lambdas hold more than source
            parts += [_of_code(thing.__code__), *_held(thing, above)]
    elif _is_library(home):
        parts.append(_of_library(home, name))
        if isinstance(thing, types.FunctionType):
            parts += [_of_code(thing.__code__), *_held(thing, above, defaults=False)]
    elif isinstance(thing, types.FunctionType):
        parts += [_of_code(thing.__code__), *_held(thing, above), *_used(thing, above)]
    else:
        above = (*above, id(thing))
        parts += [_of(base, above) for base in (type(thing), *thing.__bases__)]
        parts += [name + _of(item, above) for name, item in _members(thing)]
    return digest(*parts)


def _members(cls: type) -> list:
    """The name and value of each method and attribute that the class itself defines."""
    members = []
    for name, item in sorted(vars(cls).items()):
        if name in INCIDENTAL or isinstance(item, types.MemberDescriptorType):
            continue
        if isinstance(item, (staticmethod, classmethod)):
            item = (type(item).__name__, item.__func__)
        elif isinstance(item, property):
            item = (item.fget, item.fset)
        elif isinstance(item, functools.cached_property):
            item = item.func
        members.append((name, item))
    return members


def _held(function: types.FunctionType, above: tuple, defaults: bool = True) -> list[str]:
    """The hashes of the values in a function's closure, and of its defaults."""
    values = [cell.cell_contents for cell in function.__closure__ or ()]
    if defaults:
        values += [function.__defaults__, function.__kwdefaults__]
    return [_of(value, above) for value in values]


def _used(function: types.FunctionType, above: tuple) -> list[str]:
    """The hashes of the global names that a function uses, and of what it imports."""
    above = (*above, id(function))
    space, names = function.__globals__, _names(function.__code__)
    parts = []
    for name in sorted(names & space.keys()):
        value = space[name]
        try:
            if isinstance(value, types.ModuleType):
                parts += [name, _of_module(value, names, above)]
            else:
                parts += [name, _of(value, above)]
        except TypeError as error:
            raise TypeError(f"{function.__qualname__} uses {name}: {error}") from None
    for name in sorted(_imports(function.__code__, space.get("__package__") or "")):
        parts.append(_of_module(importlib.import_module(name), names, above))
    return parts


def _imports(code: types.CodeType, package: str) -> set[str]:
    """The modules that code imports when it runs."""
    found, constants = set(), [0, 0]
    for step in dis.get_instructions(code):
        if step.opname == "IMPORT_NAME":  # after the level and the names
            dots = "." * (constants[-2] if isinstance(constants[-2], int) else 0)
            found.add(importlib.util.resolve_name(dots + step.argval, package))
        elif step.opname.startswith("LOAD_"):
            constants = [constants[-1], step.argval]
    nested = (c for c in code.co_consts if isinstance(c, types.CodeType))
    return found.union(*(_imports(c, package) for c in nested))


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


def _names(code: types.CodeType) -> set[str]:
    nested = (c for c in code.co_consts if isinstance(c, types.CodeType))
    return set(code.co_names).union(*map(_names, nested))
