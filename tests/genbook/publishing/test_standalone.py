"""Cells made to run without genbook."""

import re
from pathlib import Path

import numpy as np
import paddle
import pytest
from cells import codes

from bookbuild.claims import without_claims
from genbook.publishing import source as sources
from genbook.publishing.standalone import NotStandalone, Shown, standalone
from genbook.training import fit, loop
from genbook.vae import VAE, vae_loss


@pytest.fixture
def modules(monkeypatch):
    """A function that adds modules to genbook: name=source."""

    def add(**given):
        for name, text in given.items():
            monkeypatch.setitem(sources.SOURCES, f"genbook.{name}", sources.Source(text, False))

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


CLASHES = {
    "two definitions": (
        "def _help():\n    return 1\n\n\ndef f():\n    return _help()\n",
        "def _help():\n    return 2\n\n\ndef g():\n    return _help()\n",
        "f(), g()",
        "genbook.[ab]._help and genbook.[ab]._help have one name",
    ),
    "two imports": (
        "import time\n\n\ndef f():\n    return time.time()\n",
        "from time import time\n\n\ndef g():\n    return time()\n",
        "f(), g()",
        "time and .*time have one name",
    ),
    "a definition and an import": (
        "import math\n\n\ndef f():\n    return math.pi\n",
        "math = 3\n\n\ndef g():\n    return math\n",
        "f(), g()",
        "math and .*math have one name",
    ),
    "a definition and a cell": (
        "scale = 3\n\n\ndef f():\n    return scale\n",
        "def g():\n    pass\n",
        "scale = 7\nf()",
        "cell 1 binds scale, and other code of the page needs genbook.a.scale",
    ),
    "an import and a cell": (
        "import math\n\n\ndef f():\n    return math.pi\n",
        "def g():\n    pass\n",
        "for math in range(3):\n    f()",
        "cell 1 binds math",
    ),
}


@pytest.mark.parametrize("kind", CLASHES)
def test_two_things_of_one_name_are_refused(modules, kind):
    a, b, cell, why = CLASHES[kind]
    modules(a=a, b=b)
    with pytest.raises(NotStandalone, match=f"{why}.*; rename one of them"):
        standalone([f"from genbook.a import f\nfrom genbook.b import g\n{cell}"])


def test_names_that_hide_others_in_a_scope_of_their_own_are_no_clash(modules):
    modules(a="import math\nscale = 3\n\n\ndef f():\n    return scale * math.floor(1.5)\n")
    cell = """
from genbook.a import f

def g(scale):
    math = scale
    return math

y = [scale for scale in range(3)], (lambda math: math)(5), g(2), f()
"""
    assert run(standalone([cell]))["y"] == ([0, 1, 2], 5, 2, 3)


ROOT = Path(__file__).resolve().parents[3]
PAGES = {
    path.stem: codes(without_claims(path.read_text("utf-8"))) for path in ROOT.glob("book/*.md")
}


@pytest.mark.parametrize("page", [p for p, cells in PAGES.items() if cells and p != "verified"])
def test_no_page_has_two_things_of_one_name(page):
    assert standalone(PAGES[page]).helpers


def test_the_same_import_in_other_words_is_no_clash(modules):
    modules(a="import os.path as path\n\n\ndef f():\n    return path.sep\n")
    shown = Shown("genbook.a", "def f():\n    return path.sep")
    notebook = standalone(["from os import path\nfrom genbook.a import f", shown, "y = f()"])
    assert notebook.cells[1] == shown.text
    assert run(notebook)["y"]


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
        ("def f():\n    pass\n\n\ndef f():\n    pass\n", "f()", "more than define a name"),
        ("X = {}\nX[1] = 2\n\n\ndef f():\n    return X\n", "f()", "more than define a name"),
        ("def f():\n    pass\n", "from genbook.a import f as g\ng()", "under its own name"),
        ("from .vae import VAE as V\n\n\ndef f():\n    return V\n", "f()", "its own name"),
        ("from . import vae\n\n\ndef f():\n    return vae.VAE\n", "f()", "used as a value"),
        ("def f():\n    pass\n", "from genbook.a import h", "does not define h"),
        ("def f():\n    pass\n", "from genbook.missing import h\nh()", "does not define h"),
        ("def f():\n    pass\n", "import genbook.a as a\nprint(a)", "used as a value"),
        ("def f():\n    pass\n", "%matplotlib inline", "not plain Python"),
        ("def f():\n    pass\n", "import pandas", "imports pandas"),
        ("def f():\n    pass\n", 'from genbook.data import load\nload("mnist")', "as a value"),
    ],
)
def test_what_cannot_be_carried_over_is_refused(modules, source, cell, why):
    modules(a=source)
    with pytest.raises(NotStandalone, match=why):
        standalone([f"from genbook.a import f\n{cell}"])


def test_source_that_the_module_does_not_have_is_refused():
    with pytest.raises(NotStandalone, match="0 times"):
        standalone([Shown("genbook.vae", "def no_such_function():\n    pass")])


def trained(fit, **settings):
    images = np.random.default_rng(0).random((60, 1, 8, 8), dtype="float32")
    paddle.seed(1)
    model = VAE((1, 8, 8), hidden=(16,), latent_dim=2)
    history = fit(model, vae_loss, images, steps=7, batch_size=16, seed=3, **settings)
    noise = paddle.randn([2]).numpy()  # the random state that is left
    return history, {k: v.numpy() for k, v in model.state_dict().items()}, noise, model.training


@pytest.mark.parametrize("settings", [{}, {"ema": 0.9, "lr": 0.01}])
def test_a_notebook_trains_with_the_loop_itself_and_to_the_same_bits(settings, monkeypatch):
    monkeypatch.delenv("GENBOOK_RUNS", raising=False)
    notebook = standalone(["from genbook.training import fit\nf = fit"])
    assert notebook.settings.endswith("STEPS_SCALE = 1")
    assert "filelock" not in notebook.helpers
    alone = trained(run(notebook)["fit"], **settings)
    for other in (trained(fit, **settings), trained(loop.fit, **settings)):
        for mine, theirs in zip(alone[:2], other[:2], strict=True):
            assert list(mine) == list(theirs)
            for key in mine.keys() - {"seconds"}:
                np.testing.assert_array_equal(mine[key], theirs[key])
        np.testing.assert_array_equal(alone[2], other[2])
        assert alone[3] == other[3]


def test_a_notebook_says_how_far_a_training_is_and_leaves_no_line(capsys):
    trained(loop.fit, name="small")
    said = capsys.readouterr().out
    assert "small: step 7 of 7, loss" in said
    assert re.sub(r"[^\n]*\r", "", said) == ""


def test_a_quick_look_takes_a_part_of_the_steps(monkeypatch):
    monkeypatch.setattr(loop, "STEPS_SCALE", 0.5)
    assert len(trained(loop.fit)[0]["loss"]) == 4
    monkeypatch.setattr(loop, "STEPS_SCALE", 1e-6)
    assert len(trained(loop.fit)[0]["loss"]) == 1
