"""Cells made to run without genbook."""

import inspect

import numpy as np
import paddle
import pytest

from genbook.publishing import fingerprint
from genbook.publishing.notebook import CannotCarry, Shown, standalone
from genbook.publishing.notebook.standins.training import loop as train_standin
from genbook.training import loop as train
from genbook.vae import VAE, vae_loss


@pytest.fixture
def modules(monkeypatch):
    """A function that adds modules to genbook: name=source."""

    def add(**sources):
        for name, source in sources.items():
            monkeypatch.setitem(
                fingerprint.SOURCES, f"genbook.{name}", fingerprint.Source(source, False)
            )

    return add


def run(notebook):
    """The names that the cells bind."""
    namespace = {"__name__": "__main__"}
    for cell in (notebook.settings, notebook.helpers, *notebook.cells):
        assert "genbook" not in "".join(s for s in cell.splitlines() if "import" in s)
        exec(compile(cell, "<cell>", "exec"), namespace)
    return namespace


def test_only_what_is_needed_is_carried_over(modules):
    modules(
        a="""
import json
import math

# How much is added.
STEP = 2


def other():
    return json.dumps(STEP)


def twice(x):
    return 2 * x


def f(x):
    '''Doubles and adds.'''
    return twice(math.floor(x)) + STEP  # a comment
"""
    )
    notebook = standalone(["from genbook.a import f\nimport math\n\ny = f(3.5)\n"])
    assert run(notebook)["y"] == 8
    assert "json" not in notebook.helpers
    assert "# How much is added.\nSTEP = 2\n\n\ndef twice(x):" in notebook.helpers
    assert "+ STEP  # a comment" in notebook.helpers
    assert notebook.cells == ["import math\n\ny = f(3.5)"]
    assert notebook.settings == ""


def test_shown_source_stands_where_it_is_shown(modules):
    modules(a="def g(x):\n    return x + 1\n\n\ndef f(x):\n    return g(x)\n")
    shown = Shown("genbook.a", "def f(x):\n    return g(x)\n")
    notebook = standalone(["from genbook.a import f", shown, "y = f(1)"])
    assert run(notebook)["y"] == 2
    assert notebook.cells == ["", "def f(x):\n    return g(x)", "y = f(1)"]
    assert "def g" in notebook.helpers and "def f" not in notebook.helpers


def test_source_that_is_needed_before_it_is_shown_is_a_helper_too(modules):
    modules(a="def f(x):\n    return x\n")
    shown = Shown("genbook.a", "def f(x):\n    return x\n")
    notebook = standalone(["from genbook.a import f\ny = f(1)", shown])
    assert run(notebook)["y"] == 1
    assert "def f" in notebook.helpers


def test_what_a_definition_needs_at_once_comes_before_it(modules):
    modules(
        a="""
def mark(f):
    return f


def default():
    return 5


class Base:
    pass


@mark
def f(x=default()):
    return x


class C(Base):
    pass
"""
    )
    base = Shown("genbook.a", "class Base:\n    pass")
    notebook = standalone(["from genbook.a import C, f\ny = f(), C()", base])
    assert run(notebook)["y"][0] == 5


def test_a_shown_method_is_given_to_its_class(modules):
    modules(
        a="""
class Base:
    def name(self):
        return "base"


class C(Base):
    def first(self):
        return 1

    @property
    def second(self):
        return 2

    def name(self):
        return super().name() + "!"
"""
    )
    shown = [
        Shown("genbook.a", "@property\ndef second(self):\n    return 2"),
        Shown("genbook.a", 'def name(self):\n    return super().name() + "!"'),
    ]
    notebook = standalone(["from genbook.a import C\nc = C()", *shown, "y = c.second, c.name()"])
    assert notebook.cells[1].endswith("    return 2\n\n\nC.second = second")
    notebook = notebook._replace(cells=[c.replace("return 2", "return 3") for c in notebook.cells])
    assert run(notebook)["y"] == (3, "base!")  # an edit of the cell counts


def test_a_piece_of_a_function_is_not_run(modules):
    modules(a="def f(x):\n    y = x + 1\n    return y\n")
    shown = Shown("genbook.a", "    y = x + 1")
    notebook = standalone(["from genbook.a import f\ny = f(1)", shown])
    assert notebook.cells[1] == ""
    assert run(notebook)["y"] == 2


def test_equal_names_do_not_clash(modules):
    modules(
        a="import time\n\n\ndef _help():\n    return 'a'\n\n\n"
        "def a():\n    return _help(), time.time() > 0\n",
        b="from time import time\n\nscale = 3\n\n\ndef _help():\n    return f'b{scale}'\n\n\n"
        "def b():\n    return _help(), time() > 0\n",
    )
    notebook = standalone(
        ["from genbook.a import a\nfrom genbook.b import b", "scale = 7\ny = a(), b()"]
    )
    assert run(notebook)["y"] == (("a", True), ("b3", True))


def test_the_same_import_in_other_words_is_no_clash(modules):
    modules(a="import os.path as path\n\n\ndef f():\n    return path.sep\n")
    shown = Shown("genbook.a", "def f():\n    return path.sep")
    notebook = standalone(["from os import path\nfrom genbook.a import f", shown, "y = f()"])
    assert notebook.cells[1] == shown.text
    assert run(notebook)["y"]


def test_modules_and_other_names_are_followed(modules):
    modules(
        tools="X = 4\n\n\ndef draw(n):\n    return n * X\n",
        a="from . import tools\nfrom .tools import X as FOUR\n\n\n"
        "def f(draw):\n    return tools.draw(draw), f'{tools.X} {FOUR}'\n",
    )
    notebook = standalone(
        [
            "import genbook.tools as t\nfrom genbook import tools\nfrom genbook.a import f as g\n",
            "y = g(2)\nz = t.draw(tools.X)",
        ]
    )
    bound = run(notebook)
    assert bound["y"] == (8, "4 4")
    assert bound["z"] == 16


def test_annotations_that_are_not_evaluated_stay_so(modules):
    modules(a="from __future__ import annotations\n\n\ndef f(x: Missing = 1) -> f:\n    return x\n")
    assert run(standalone(["from genbook.a import f\ny = f()"]))["y"] == 1


def test_only_the_data_sets_that_are_named_are_carried_over():
    digits = standalone(['from genbook.data import load\ny = load("digits").images'])
    assert "SKELETONS" not in digits.helpers and "urllib" not in digits.helpers
    assert run(digits)["y"].shape == (1437, 1, 16, 16)
    both = standalone(['from genbook.data import load\ny = load("digits"), load("strokes")'])
    assert "SKELETONS" in both.helpers


@pytest.mark.parametrize(
    ("source", "cell", "why"),
    [
        ("import tqdm\n\n\ndef f():\n    return tqdm\n", "f()", "imports tqdm"),
        ("def f():\n    import filelock\n", "f()", "imports filelock"),
        ("def f():\n    from . import data\n", "f()", "inside a function"),
        ("print('side effect')\n\n\ndef f():\n    pass\n", "f()", "more than define a name"),
        ("def f():\n    return g()\n", "f()", "g is not bound"),
        ("def f():\n    return __file__\n", "f()", "__file__ is not bound"),
        ("def f():\n    pass\n\n\ndef f():\n    pass\n", "f()", "a second time"),
        (
            "def f():\n    pass\n\n\ndef g():\n    return f()\n",
            "from genbook.a import g\nf = 1\ng()",
            "a cell binds f",
        ),
        ("def f():\n    pass\n", "from genbook.a import h", "does not define h"),
        ("def f():\n    pass\n", "from genbook.missing import h\nh()", "does not define h"),
        ("def f():\n    pass\n", "import genbook.a as a\nprint(a)", "used as a value"),
        ("def f():\n    pass\n", "%matplotlib inline", "not plain Python"),
        ("def f():\n    pass\n", "import pandas", "imports pandas"),
        ("def f():\n    pass\n", 'from genbook.data import load\nload("mnist")', "imports tqdm"),
        (
            "from .training.loop import fit\n\n\n"
            "def f():\n    return fit(1, 2, steps=3, folder=4)\n",
            "f()",
            "a call of fit with folder",
        ),
    ],
)
def test_what_cannot_be_carried_over_is_refused(modules, source, cell, why):
    modules(a=source)
    with pytest.raises(CannotCarry, match=why):
        standalone([f"from genbook.a import f\n{cell}"])


def test_source_that_the_module_does_not_have_is_refused():
    with pytest.raises(CannotCarry, match="0 times"):
        standalone([Shown("genbook.vae", "def no_such_function():\n    pass")])


def trained(fit, **settings):
    images = np.random.default_rng(0).random((60, 1, 8, 8), dtype="float32")
    paddle.seed(1)
    model = VAE((1, 8, 8), hidden=(16,), latent_dim=2)
    history = fit(model, vae_loss, images, steps=7, batch_size=16, seed=3, **settings)
    noise = paddle.randn([2]).numpy()  # the random state that is left
    return history, {k: v.numpy() for k, v in model.state_dict().items()}, noise, model.training


@pytest.mark.parametrize("settings", [{}, {"ema": 0.9, "lr": 0.01}])
def test_the_short_fit_trains_as_the_long_one(settings, capsys, monkeypatch):
    monkeypatch.delenv("GENBOOK_RUNS", raising=False)
    history, weights, noise, mode = trained(train.fit, **settings)
    history_, weights_, noise_, mode_ = trained(train_standin.fit, **settings)
    for key in history.keys() - {"seconds"}:
        np.testing.assert_array_equal(history[key], history_[key])
    assert history.keys() == history_.keys()
    for key in weights:
        np.testing.assert_array_equal(weights[key], weights_[key])
    np.testing.assert_array_equal(noise, noise_)
    assert mode == mode_


def test_stand_ins_take_what_they_stand_in_for_takes():
    taken = inspect.signature(train.fit).parameters
    for name, parameter in inspect.signature(train_standin.fit).parameters.items():
        assert taken[name] == parameter
