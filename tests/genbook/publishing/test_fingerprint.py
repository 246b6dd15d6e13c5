"""`fingerprint`: equal for equal things, different for different ones, never silently blind."""

from functools import partial

import numpy as np
import pytest

from genbook.publishing import fingerprint
from genbook.publishing.fingerprint import digest, imported_modules, of_modules, of_value


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package in place of genbook: a function that writes its files."""
    monkeypatch.setattr(fingerprint, "PACKAGE", tmp_path)

    def write(files):
        for name, source in files.items():
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(source)
        fingerprint.read_sources()

    write({"__init__.py": ""})
    yield write
    monkeypatch.undo()
    fingerprint.read_sources()


def test_digest_counts_the_borders():
    assert digest("ab", "c") != digest("a", "bc")
    assert digest("ab") == digest(b"ab")


def test_every_way_to_import_is_seen(package):
    package(dict.fromkeys(["vae.py", "unet.py", "data.py", "sub/__init__.py", "sub/part.py"], ""))
    source = """
import genbook.vae
from genbook import unet as u
def later():
    from genbook.data import load
from genbook.sub.part import thing
import numpy.random
from elsewhere import genbook
from genbook import missing
"""
    assert imported_modules(source) - {"genbook", "genbook.sub"} == {
        "genbook.vae",
        "genbook.unet",
        "genbook.data",
        "genbook.sub.part",
    }


def test_relative_imports_are_resolved_where_they_stand(package):
    package(dict.fromkeys(["vae.py", "sub/__init__.py", "sub/part.py"], ""))
    assert imported_modules("from . import vae", "genbook") >= {"genbook.vae"}
    assert imported_modules("from .vae import VAE", "genbook") == {"genbook.vae"}
    assert imported_modules("from . import part", "genbook.sub") >= {"genbook.sub.part"}
    assert imported_modules("from ..vae import VAE", "genbook.sub") == {"genbook.vae"}


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
    def defined(source):
        names = {"__name__": "__main__", "Base": dict}
        exec(source, names)
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
    of_modules.cache_clear()
    assert of_modules(frozenset(["genbook.vae"])) == before
    fingerprint.read_sources()
    assert of_modules(frozenset(["genbook.vae"])) != before


@pytest.mark.parametrize(
    "value",
    [object(), iter([]), np.array([object()])],
    ids=["object", "iterator", "array of objects"],
)
def test_what_cannot_be_told_is_refused(value):
    with pytest.raises(TypeError, match="cannot tell what"):
        of_value(value)
