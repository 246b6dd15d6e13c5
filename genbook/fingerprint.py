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

import numpy as np

PACKAGE = Path(__file__).resolve().parent


def digest(*parts: bytes | str) -> str:
    """The SHA-256 of `parts`, each preceded by its length so that borders count."""
    h = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        h.update(len(data).to_bytes(8, "little"))
        h.update(data)
    return h.hexdigest()


def imported_modules(source: str, package: str = "genbook") -> set[str]:
    """The `genbook` modules that Python `source` imports by name (`package` resolves `from .`)."""
    found = set()
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
    return {name for name in found if name.split(".")[0] == "genbook" and _file(name)}


def _file(module: str) -> Path | None:
    """The file that holds `module` of this package, or None where there is no such module."""
    path = PACKAGE.joinpath(*module.split(".")[1:])
    if path.is_dir():
        return path / "__init__.py"
    path = path.with_suffix(".py")
    return path if path.is_file() else None


@cache
def of_modules(modules: frozenset[str]) -> str:
    """The hash of the sources of `modules` and of all `genbook` modules they import in turn."""
    seen, queue = {}, sorted(modules)
    while queue:
        name = queue.pop()
        if name in seen:
            continue
        file = _file(name)
        if file is None:
            raise ValueError(f"{name} is not a module of genbook")
        seen[name] = file.read_text(encoding="utf-8")
        package = name if file.name == "__init__.py" else name.rpartition(".")[0]
        try:
            queue.extend(imported_modules(seen[name], package))
        except SyntaxError:  # whoever imports this module will be told, and by Python itself
            pass
        if "." in name:  # importing a.b runs a's __init__ as well
            queue.append(name.rpartition(".")[0])
    return digest(*(f"{name}\n{seen[name]}" for name in sorted(seen)))


def of_value(value) -> str:
    """The hash of anything a training run is made of: numbers, arrays, networks, functions.

    A function of `genbook` counts with its module's source; any other function (a lambda in a
    chapter) with its code and the values that this code refers to. Raises TypeError for a value
    whose content cannot be told: a result that depended on it could go stale unseen.
    """
    if isinstance(value, np.generic):  # first, because a np.float64 is a float as well
        return of_value(value.item())
    if value is None or isinstance(value, (bool, int, float, str, bytes)):
        return digest(type(value).__name__, repr(value))
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        return digest(str(value.dtype), str(value.shape), np.ascontiguousarray(value).tobytes())
    if isinstance(value, (list, tuple)):
        return digest(type(value).__name__, *map(of_value, value))
    if isinstance(value, dict):
        return digest("dict", *(of_value(item) for item in sorted(value.items())))
    if isinstance(value, partial):
        return digest("partial", *map(of_value, (value.func, value.args, value.keywords)))
    if isinstance(value, types.MethodType):
        return digest("method", value.__func__.__name__, of_value(value.__self__))
    if isinstance(value, types.FunctionType):
        return _of_function(value)
    if isinstance(value, (type, types.ModuleType, types.BuiltinFunctionType)):
        return _of_definition(value)
    if hasattr(value, "state_dict"):  # a network: its class and its weights
        weights = {k: v.numpy() for k, v in value.state_dict().items()}
        return digest(_of_definition(type(value)), of_value(weights))
    if hasattr(value, "numpy"):  # a tensor
        return of_value(value.numpy())
    if type(value).__module__.startswith("genbook."):
        return digest(_of_definition(type(value)), of_value(vars(value)))
    raise TypeError(f"cannot tell what a {type(value).__name__} holds; pass numbers, arrays, "
                    "networks, functions or objects of genbook")


def _of_definition(thing) -> str:
    """The hash of a class, module or built-in: its name, and its source where that is ours."""
    if isinstance(thing, type) and thing.__module__ == "__main__":  # defined in a chapter
        methods = [f for f in vars(thing).values() if isinstance(f, types.FunctionType)]
        return digest(thing.__qualname__, *map(_of_function, methods),
                      *map(_of_definition, thing.__bases__))
    module = thing.__name__ if isinstance(thing, types.ModuleType) else thing.__module__ or ""
    name = f"{module}:{getattr(thing, '__qualname__', '')}"
    ours = module.split(".")[0] == "genbook"
    return digest(name, of_modules(frozenset([module])) if ours else "")


def _of_function(function: types.FunctionType) -> str:
    closure = [cell.cell_contents for cell in function.__closure__ or ()]
    values = [*closure, function.__defaults__, function.__kwdefaults__]
    if function.__module__.split(".")[0] == "genbook":
        # The source covers what a function calls; its own code tells lambdas of one name apart.
        code = digest(_of_definition(function), _of_code(function.__code__))
    elif function.__module__ == "__main__":
        code = _of_code(function.__code__)
        names = sorted(_names(function.__code__))
        values += [(n, function.__globals__[n]) for n in names if n in function.__globals__]
    else:  # a library's: the lock file speaks for it, but not for the values it holds
        code, values = digest(_of_definition(function), _of_code(function.__code__)), closure
    return digest("function", code, *map(of_value, values))


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
