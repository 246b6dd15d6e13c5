"""`fingerprint`: equal for equal things, different for different ones, never silently blind."""

import importlib
import sys
from functools import partial

import numpy as np
import pytest

from genbook import accelerate, system
from genbook.publishing import fingerprint, source
from genbook.publishing.fingerprint import digest, of_imports, of_modules, of_value


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package in place of genbook: a function that writes its files."""
    monkeypatch.setattr(source, "PACKAGE", tmp_path)

    def write(files):
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(text)
        source.read_sources()

    write({"__init__.py": ""})
    yield write
    monkeypatch.undo()
    source.read_sources()


def test_digest_counts_the_borders():
    assert digest("ab", "c") != digest("a", "bc")
    assert digest("ab") == digest(b"ab")


WAYS = [
    "import genbook.vae",
    "import genbook.vae as v",
    "import genbook.vae, genbook.alone",
    "from genbook import vae as u",
    "def later():\n    from genbook.vae import f",
    "from genbook.vae import f as g",
    "from genbook.vae import *",
    "from genbook.sub.part import thing",
    "from genbook.sub import thing",
    "from genbook.sub import relative",
    "from genbook.sub import deeper",
    "from genbook.sub import above",
    "from genbook import sub\nsub.thing()",
]


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_import_is_seen(package, way):
    files = {
        "alone.py": "",
        "vae.py": "def f():\n    return 1\n",
        "sub/__init__.py": "from .part import thing\nfrom . import part\nfrom .. import vae\n\n\n"
        "def relative():\n    return part.thing()\n\n\n"
        "def deeper():\n    from .part import thing\n    return thing()\n\n\n"
        "def above():\n    return vae.f()\n",
        "sub/part.py": "from ..vae import f\n\n\ndef thing():\n    return f()\n",
    }
    package(files)
    before = of_imports(way)
    package({"other.py": "x = 1\n"})
    assert of_imports(way) == before
    package({"vae.py": "def f():\n    return 2\n"})
    assert of_imports(way) != before


def test_only_the_definitions_that_are_reached_count(package):
    text = "A = 1\n\n\ndef f():\n    return g(A)\n\n\ndef g(x):\n    return x\n"
    package({"metrics.py": text})
    page = "from genbook.metrics import f"
    before = of_imports(page)
    package({"metrics.py": text + "\n\ndef h():\n    return 5\n"})
    assert of_imports(page) == before
    for old, new in (("A = 1", "A = 2"), ("return x", "return 2 * x"), ("g(A)", "g(-A)")):
        package({"metrics.py": text.replace(old, new)})
        assert of_imports(page) != before, new


def test_what_runs_on_import_counts(package):
    text = "def f():\n    return 1\n"
    package({"__init__.py": "", "metrics.py": text, "other.py": ""})
    page, found = "from genbook.metrics import f", []
    found.append(of_imports(page))
    package({"metrics.py": f"import os\n{text}\n\nos.environ['A'] = '1'\n"})
    found.append(of_imports(page))
    package({"metrics.py": f"from . import other\n{text}", "other.py": "print(1)\n"})
    found.append(of_imports(page))
    package({"metrics.py": text, "__init__.py": "print(1)\n"})
    found.append(of_imports(page))
    assert len(set(found)) == 4


def test_code_that_cannot_be_followed_counts_as_a_whole(package):
    text = "try:\n    import fast\nexcept ImportError:\n    fast = None\n\n\n"
    text += "def f():\n    return fast\n\n\ndef g():\n    return 1\n"
    package({"metrics.py": text})
    before = of_imports("from genbook.metrics import f")
    package({"metrics.py": text.replace("return 1", "return 2")})
    assert of_imports("from genbook.metrics import f") != before


def test_a_module_that_is_no_python_counts_with_its_text(package):
    package({"metrics.py": "def f():\n    return 1\n"})
    page, found = "from genbook.metrics import f", []
    for text in ("def f():\n    return 1\n", "def f(:\n    return 1\n", "def f(:\n    return 2\n"):
        package({"metrics.py": text})
        found += [of_imports(page), of_modules(frozenset(["genbook.metrics"]))]
    assert len(set(found)) == 6


DOCUMENTED = '"""Module."""\n\n\ndef f(x):\n    """Function."""\n    return 2 * x  # comment\n'


@pytest.mark.parametrize(
    "old, new",
    [
        ("Module", "Another"),
        ("Function", "Another"),
        ("# comment", "# another"),
        ("2 * x", "2*x"),
        ("\n\n\n", "\n"),
        ("2 * x", "(2 * x)"),
    ],
)
def test_comments_docstrings_and_formatting_do_not_count(package, old, new):
    def hashes(text):
        package({"vae.py": text})
        return of_imports("from genbook.vae import f"), of_modules(frozenset(["genbook.vae"]))

    assert hashes(DOCUMENTED) == hashes(DOCUMENTED.replace(old, new))


def test_a_training_does_not_depend_on_how_its_progress_is_shown(monkeypatch):
    training = "from genbook.training.recipes.vae import train_improved_vae"
    before = of_imports(training)

    def changed(name, old, new):
        module = source.SOURCES[f"genbook.{name}"]
        assert old in module.text
        with monkeypatch.context() as patch:
            edited = module._replace(text=module.text.replace(old, new))
            patch.setitem(source.SOURCES, f"genbook.{name}", edited)
            return of_imports(training) != before

    for name in ("progress", "checkpointer", "trainer", "spec", "launch"):
        assert not changed(f"training.{name}", "def ", "def _"), name
    for name in ("models", "cli", "evaluation.metrics", "unet"):
        assert not changed(name, "return ", "return 2 * "), name
    assert changed("training.loop", "0.5 * (1 + math.cos", "0.6 * (1 + math.cos")
    assert changed("vae", "logvar", "log_variance")


def test_a_modules_fingerprint_follows_what_it_imports(package):
    package(
        {
            "top.py": "from . import middle\n",
            "middle.py": "from .bottom import x\n",
            "bottom.py": "x = 1\n",
            "other.py": "",
        }
    )
    before = of_modules(frozenset(["genbook.top"]))
    package({"other.py": "x = 2\n"})
    assert of_modules(frozenset(["genbook.top"])) == before
    package({"bottom.py": "x = 2\n"})
    assert of_modules(frozenset(["genbook.top"])) != before


def test_modules_may_import_each_other(package):
    package({"one.py": "from . import two\n", "two.py": "from . import one\n"})
    assert of_modules(frozenset(["genbook.one"])) == of_modules(frozenset(["genbook.two"]))


def test_a_package_runs_its_init(package):
    package({"vae.py": ""})
    before = of_modules(frozenset(["genbook.vae"]))
    package({"__init__.py": "x = 1\n"})
    assert of_modules(frozenset(["genbook.vae"])) != before


def test_an_unknown_module_is_an_error(package):
    with pytest.raises(ValueError, match="genbook.nothing"):
        of_modules(frozenset(["genbook.nothing"]))


def scaled(factor):
    return lambda x: factor * x


@pytest.mark.parametrize(
    "one, other",
    [
        (1, 1.0),
        (1, True),
        ("1", 1),
        ([1, 2], (1, 2)),
        ([1, [2]], [1, 2]),
        ({"a": 1}, {"a": 2}),
        (np.zeros(4), np.zeros((2, 2))),
        (np.zeros(4), np.zeros(4, np.float32)),
        (np.zeros(4), np.array([0, 0, 0, 1.0])),
        (partial(max, 1), partial(max, 2)),
        (scaled(2), scaled(3)),
        (np.zeros, np.ones),
        (np.exp, np.log),
        (slice(1), slice(2)),
        (range(1), range(2)),
        ({"a": 1}.get, {"a": 2}.get),
    ],
)
def test_different_values_differ(one, other):
    assert of_value(one) != of_value(other)


@pytest.mark.parametrize(
    "one, other",
    [
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        (np.arange(6).reshape(2, 3).T, np.arange(6).reshape(2, 3).T.copy()),
        (np.float64(2), 2.0),
        (scaled(2), scaled(2)),
    ],
)
def test_equal_values_agree(one, other):
    assert of_value(one) == of_value(other)


def in_chapter(source, **names):
    """A function as a chapter would define it."""
    names = {"__name__": "__main__", **names}
    exec(f"f = {source}", names)
    return names["f"]


def test_a_chapters_function_counts_with_its_code_and_the_values_it_uses():
    double = of_value(in_chapter("lambda x: 2 * x"))
    assert double == of_value(in_chapter("lambda x: 2 * x"))
    assert double != of_value(in_chapter("lambda x: 3 * x"))
    assert of_value(in_chapter("lambda x: x.min()")) != of_value(in_chapter("lambda x: x.max()"))
    weighted = "lambda x: beta * x"
    assert of_value(in_chapter(weighted, beta=1)) != of_value(in_chapter(weighted, beta=2))
    assert of_value(in_chapter("lambda x, b=1: x")) != of_value(in_chapter("lambda x, b=2: x"))
    either = "lambda x: x in {'one', 'two', 'three'}"
    assert of_value(in_chapter(either)) != of_value(in_chapter(either.replace("two", "ten")))
    nested = "lambda x: (lambda y: beta * y)(x)"
    assert of_value(in_chapter(nested, beta=1)) != of_value(in_chapter(nested, beta=2))


def test_lambdas_of_genbook_differ_by_their_constants(package):
    package({"recipes.py": ""})
    double, triple = (in_chapter(f"lambda x: {n} * x", __name__="genbook.recipes") for n in (2, 3))
    assert of_value(double) != of_value(triple)


def test_networks_count_with_their_weights():
    paddle = pytest.importorskip("paddle")
    network = paddle.nn.Linear(2, 3)
    before = of_value(network)
    assert of_value(network) == before
    network.weight.set_value(network.weight + 1)
    assert of_value(network) != before
    assert of_value(network.weight) == of_value(network.weight.numpy())


def networks():
    """Pairs that differ in one thing that is not a weight."""
    nn = pytest.importorskip("paddle").nn
    frozen = nn.Linear(2, 3)
    frozen.weight.stop_gradient = True
    return [
        (nn.Sequential(nn.Linear(2, 3), nn.ReLU()), nn.Sequential(nn.Linear(2, 3), nn.Tanh())),
        (nn.Dropout(0.1), nn.Dropout(0.9)),
        (nn.MaxPool2D(2, 2), nn.MaxPool2D(3, 3)),
        (nn.Linear(2, 3), frozen),
    ]


@pytest.mark.parametrize("index", range(4))
def test_networks_count_with_their_layers_and_settings(index):
    one, other = networks()[index]
    other.set_state_dict(one.state_dict())
    assert of_value(one) != of_value(other)


def test_networks_built_alike_agree():
    nn = pytest.importorskip("paddle").nn
    one, other = (nn.Sequential(nn.Conv2D(1, 2, 3), nn.BatchNorm2D(2)) for _ in range(2))
    other.set_state_dict(one.state_dict())
    other.eval()
    assert of_value(one) == of_value(other)


CLASS = """
class Small(Base):
    scale = 1
    def __init__(self):
        super().__init__()
    def forward(self, x):
        return self.scale * x
    @staticmethod
    def helper(x):
        return x + 5
"""


@pytest.mark.parametrize(
    "old, new",
    [("scale = 1", "scale = 2"), ("self.scale * x", "self.scale + x"), ("x + 5", "x + 6")],
)
def test_a_chapters_class_counts_with_all_that_it_defines(old, new):
    def defined(text):
        names = {"__name__": "__main__", "Base": dict}
        exec(text, names)
        return of_value(names["Small"])

    assert defined(CLASS) == defined(CLASS)
    assert defined(CLASS) != defined(CLASS.replace(old, new))


def test_a_function_may_call_itself():
    names = {"__name__": "__main__"}
    exec("def f(n):\n    return n and n * f(n - 1)", names)
    assert of_value(names["f"]) == of_value(names["f"])


def test_a_process_hashes_the_code_that_it_runs(package, tmp_path):
    package({"vae.py": "x = 1\n"})
    before = of_modules(frozenset(["genbook.vae"]))
    (tmp_path / "vae.py").write_text("x = 2\n")
    assert of_modules(frozenset(["genbook.vae"])) == before
    source.read_sources()
    assert of_modules(frozenset(["genbook.vae"])) != before


@pytest.mark.parametrize(
    "value",
    [object(), iter([]), np.array([object()]), np.random.default_rng(0)],
    ids=["object", "iterator", "array of objects", "generator"],
)
def test_what_cannot_be_fingerprinted_is_refused(value):
    with pytest.raises(TypeError, match="cannot fingerprint .*Pass what a training depends on"):
        of_value(value)


# A user's own module

MYLIB = '''
import functools
import math
from dataclasses import dataclass
import mysettings
from mysettings import GAMMA
import mypackage

ALPHA = 1
TABLE = {"a": [1, 2], 3: {4}}

def helper(x):
    """Help."""
    return ALPHA * x

class Base:
    offset = 10

    def shift(self, x):
        return x + self.offset

class Scaled(Base):
    scale = 20

    def __init__(self, by=30):
        self.by = by

    def __call__(self, x):
        return self.scale * self.shift(x) * self.by

    @property
    def half(self):
        return 0.5

    @staticmethod
    def third(x):
        return x / 3

    @classmethod
    def make(cls):
        return cls(40)

    @functools.cached_property
    def later(self):
        return 50

SCALED = Scaled()

@dataclass
class Config:
    weight: float = 60.0

CONFIG = Config()

@functools.lru_cache
def cached(x):
    return 70 * x

def decorated(function):
    @functools.wraps(function)
    def wrapped(x):
        return 80 + function(x)
    return wrapped

def recursive(n):
    return n and 90 * recursive(n - 1)

def uses_global(x): return ALPHA * x
def uses_default(x, beta=2): return beta * x
def uses_keyword(x, *, beta=3): return beta * x
def uses_call(x): return helper(x)
def uses_nested(x):
    def inner(y):
        return (lambda z: ALPHA * z)(y)
    return inner(x)
def uses_comprehension(x): return [ALPHA * y for y in x]
def uses_table(x): return TABLE["a"]
def uses_class(x): return Scaled().shift(x)
def uses_instance(x): return SCALED(x)
def uses_method(x): return SCALED.half, Scaled.third(x), Scaled.make(), SCALED.later
def uses_settings(x): return mysettings.GAMMA * x
def uses_settings_by_name(x): return GAMMA * x
def uses_settings_inside(x):
    import mysettings as m
    from mysettings import GAMMA as g
    return m.GAMMA * g * x
def uses_getattr(x): return getattr(mysettings, "GAM" + "MA")
def uses_package(x): return mypackage.part.DELTA * x
def uses_function_of_package(x): return mypackage.part.times(x)
def uses_config(x): return CONFIG.weight * x
def uses_cached(x): return cached(x)
def uses_recursive(x): return recursive(x)
@decorated
def uses_decorator(x): return 100 * x
uses_partial = functools.partial(helper, x=110)
uses_lambda = lambda x, scale=120: scale * x
uses_bound_method = SCALED.shift
def uses_closure_of(k):
    return lambda x: k * x
uses_closure = uses_closure_of(130)
'''
OTHERS = {
    "mysettings.py": "GAMMA = 4\n",
    "mypackage/__init__.py": "from mypackage import part\n",
    "mypackage/part.py": "DELTA = 5\nEPSILON = 6\n\n\ndef times(x):\n    return EPSILON * x\n",
}
CHANGES = [  # (function, file, old, new)
    ("uses_global", "mylib.py", "ALPHA = 1", "ALPHA = 5"),
    ("uses_default", "mylib.py", "beta=2", "beta=5"),
    ("uses_keyword", "mylib.py", "beta=3", "beta=5"),
    ("uses_call", "mylib.py", "ALPHA = 1", "ALPHA = 5"),
    ("uses_call", "mylib.py", "    return ALPHA * x\n\nclass", "    return ALPHA + x\n\nclass"),
    ("uses_nested", "mylib.py", "ALPHA = 1", "ALPHA = 5"),
    ("uses_nested", "mylib.py", "ALPHA * z", "ALPHA + z"),
    ("uses_comprehension", "mylib.py", "ALPHA = 1", "ALPHA = 5"),
    ("uses_table", "mylib.py", "{4}", "{5}"),
    ("uses_table", "mylib.py", "[1, 2]", "[2, 1]"),
    ("uses_class", "mylib.py", "offset = 10", "offset = 11"),
    ("uses_class", "mylib.py", "x + self.offset", "x - self.offset"),
    ("uses_class", "mylib.py", "by=30", "by=31"),
    ("uses_instance", "mylib.py", "scale = 20", "scale = 21"),
    ("uses_instance", "mylib.py", "SCALED = Scaled()", "SCALED = Scaled(7)"),
    ("uses_method", "mylib.py", "return 0.5", "return 0.6"),
    ("uses_method", "mylib.py", "x / 3", "x / 4"),
    ("uses_method", "mylib.py", "cls(40)", "cls(41)"),
    ("uses_method", "mylib.py", "return 50", "return 51"),
    ("uses_settings", "mysettings.py", "4", "5"),
    ("uses_settings_by_name", "mysettings.py", "4", "5"),
    ("uses_settings_inside", "mysettings.py", "4", "5"),
    ("uses_getattr", "mysettings.py", "4", "5"),
    ("uses_package", "mypackage/part.py", "DELTA = 5", "DELTA = 6"),
    ("uses_function_of_package", "mypackage/part.py", "EPSILON = 6", "EPSILON = 7"),
    ("uses_config", "mylib.py", "60.0", "61.0"),
    ("uses_cached", "mylib.py", "70", "71"),
    ("uses_recursive", "mylib.py", "90", "91"),
    ("uses_decorator", "mylib.py", "80", "81"),
    ("uses_decorator", "mylib.py", "100", "101"),
    ("uses_partial", "mylib.py", "x=110", "x=111"),
    ("uses_partial", "mylib.py", "ALPHA = 1", "ALPHA = 5"),
    ("uses_lambda", "mylib.py", "120", "121"),
    ("uses_bound_method", "mylib.py", "offset = 10", "offset = 11"),
    ("uses_closure", "mylib.py", "130", "131"),
]
OWN = ("mylib", "mysettings", "mypackage", "mypackage.part")


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A function that writes a user's modules, imports them anew and returns `mylib`."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def write(changed="", old="", new=""):
        for name, text in {"mylib.py": MYLIB, **OTHERS}.items():
            assert name != changed or old in text
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(text.replace(old, new) if name == changed else text)
        for name in OWN:
            sys.modules.pop(name, None)
        importlib.invalidate_caches()
        return importlib.import_module("mylib")

    yield write
    for name in OWN:
        sys.modules.pop(name, None)


@pytest.mark.parametrize("function, file, old, new", CHANGES)
def test_what_a_users_function_uses_counts(own, function, file, old, new):
    before = of_value(getattr(own(), function))
    assert of_value(getattr(own(), function)) == before
    assert of_value(getattr(own(file, old, new), function)) != before


@pytest.mark.parametrize("function", sorted({function for function, *_ in CHANGES}))
def test_what_a_users_function_does_not_use_does_not_count(own, function):
    before = of_value(getattr(own(), function))
    documented = own("mylib.py", '"""Help."""', '"""Aid."""  # of another kind\n')
    assert of_value(getattr(documented, function)) == before
    more = own("mylib.py", "import math", "import math\nUNUSED = 7")
    assert of_value(getattr(more, function)) == before


def test_an_attribute_that_is_set_at_run_time_counts(own):
    mylib = own()
    before = [of_value(mylib.uses_global), of_value(mylib.uses_settings)]
    mylib.ALPHA = mylib.mysettings.GAMMA = 7
    after = [of_value(mylib.uses_global), of_value(mylib.uses_settings)]
    assert before[0] != after[0] and before[1] != after[1]


def test_a_users_value_that_cannot_be_fingerprinted_is_named(own):
    mylib = own()
    mylib.ALPHA = np.random.default_rng(0)
    with pytest.raises(TypeError, match="uses_call uses helper: helper uses ALPHA: cannot finger"):
        of_value(mylib.uses_call)


def test_what_a_users_layer_holds_counts():
    nn = pytest.importorskip("paddle").nn

    class Gated(nn.Layer):
        def __init__(self, gate=None):
            super().__init__()
            self.gate = gate

    def gated(gate):
        return of_value(Gated(gate))

    assert gated({"a": 1}) == gated({"a": 1}) != gated({"a": 2})
    assert gated(np.zeros(2)) != gated(np.ones(2))
    assert gated(nn.functional.relu) != gated(nn.functional.gelu)
    assert gated(lambda x: 1 * x) != gated(lambda x: 2 * x)
    with pytest.raises(TypeError, match="cannot fingerprint"):
        gated(np.random.default_rng(0))
    hooked = Gated()
    before = of_value(hooked)
    hooked.register_forward_post_hook(lambda layer, x, y: 2 * y)
    assert of_value(hooked) != before


# The machine


def test_the_machine_counts(monkeypatch):
    before = fingerprint.of_environment()
    assert fingerprint.of_environment() == before
    for name in ("instruction_set", "threads"):
        with monkeypatch.context() as patch:
            patch.setattr(system, name, lambda: "another")
            assert fingerprint.of_environment() != before, name
    other = not accelerate.is_enabled()
    monkeypatch.setattr(accelerate, "is_enabled", lambda: other)
    assert fingerprint.of_environment() != before
