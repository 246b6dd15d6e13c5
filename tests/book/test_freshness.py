"""A page runs again when, and only when, something that its results depend on has changed."""

import shutil

import nbformat
import pytest

from bookbuild import cache


def cell(code, caption=None):
    options = f"---\nmystnb: {{figure: {{caption: {caption}}}}}\n---\n" if caption else ""
    return f"```{{code-cell}} python3\n{options}{code}\n```\n"


@pytest.fixture(scope="module")
def built(new_book, tmp_path_factory):
    """Page `a` depends on genbook.deep through genbook.shallow; page `b` on neither."""
    book = new_book(tmp_path_factory.mktemp("freshness") / "book")
    book.write("genbook/deep.py", "WORD = 'first'\n")
    book.write("genbook/shallow.py", "from .deep import WORD\n")
    book.write("genbook/other.py", "")
    book.page("a", cell("from genbook.shallow import WORD\nprint(WORD, 'word')"))
    book.page("b", cell("print(6 * 7)"))
    assert book.build().ran() == {"a", "b"}
    return book


@pytest.fixture
def two_pages(built, book):
    """A copy of that book."""
    shutil.copytree(built.root, book.root, dirs_exist_ok=True)
    return book


def test_nothing_runs_again_for_nothing(two_pages):
    assert two_pages.build().ran() == set()


def test_an_edit_to_an_imported_module_runs_the_pages_that_import_it(two_pages):
    assert "first word" in two_pages.html("a")
    two_pages.write("genbook/deep.py", "WORD = 'second'\n")
    assert two_pages.build().ran() == {"a"}
    assert "second word" in two_pages.html("a")


def test_taking_an_edit_back_shows_the_earlier_result_without_running(two_pages):
    two_pages.write("genbook/deep.py", "WORD = 'second'\n")
    two_pages.build()
    two_pages.write("genbook/deep.py", "WORD = 'first'\n")
    assert two_pages.build().ran() == set()
    assert "first word" in two_pages.html("a")


def test_edits_to_prose_captions_and_other_modules_run_nothing(two_pages):
    two_pages.write("genbook/other.py", "WORD = 'unused'\n")
    two_pages.page("b", cell("print(6 * 7)", caption="Six times seven") + "\nNew prose.\n")
    assert two_pages.build().ran() == set()
    assert "New prose." in two_pages.html("b")
    assert "42" in two_pages.html("b")


def test_another_lock_file_runs_every_page(two_pages):
    two_pages.write("requirements.txt", "some-package==2")
    assert two_pages.build().ran() == {"a", "b"}


def test_other_data_run_the_pages_that_name_them(two_pages, tmp_path):
    two_pages.page("b", cell("print('mnist')"))
    assert two_pages.build().ran() == {"b"}
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "images.gz").write_bytes(b"pixels")
    two_pages.env["GENBOOK_DATA"] = str(tmp_path / "data")
    assert two_pages.build().ran() == {"b"}
    assert two_pages.build().ran() == set()
    (tmp_path / "data" / "images.gz").write_bytes(b"other pixels")
    assert two_pages.build().ran() == {"b"}


def test_what_a_loader_keeps_for_itself_while_a_page_runs_runs_nothing_again(two_pages, tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    keep = f"""
import pathlib
for name in ("hanzi.pixels", "hanzi.pixels.part"):
    pathlib.Path({str(folder)!r}, name).write_bytes(b"images of hanzi")
print("kept")
"""
    two_pages.env["GENBOOK_DATA"] = str(folder)
    two_pages.page("b", cell(keep + "'hanzi'"))
    assert two_pages.build().ran() == {"b"}
    assert two_pages.build().ran() == set()


def test_a_page_whose_imports_cannot_be_told_depends_on_all_modules(monkeypatch):
    asked = []
    monkeypatch.setattr(cache.fingerprint, "of_modules", lambda names: asked.append(names) or "")
    page = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("%matplotlib inline")])
    cache.imported_code(page)
    assert asked == [frozenset(cache.fingerprint.SOURCES)]


TRAIN = """
import numpy as np
from genbook.data import Dataset
from genbook.diffusion import GaussianDiffusion, linear_beta_schedule
from genbook.figures.plots import image_grid
from genbook.training.recipes.diffusion import train_diffusion
from genbook.training.recipes.vae import train_baseline_vae

images = np.random.default_rng(0).random((130, 1, 8, 8), dtype="float32")
data = Dataset("digits", "train", images, np.arange(130) % 2, ("0", "1"))
train_baseline_vae(data, steps=2)
train_diffusion(data, GaussianDiffusion(linear_beta_schedule(10)), steps=2)
print("trained")
"""


def edit(book, module, old, new):
    path = book.root / "genbook" / module
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def runs(book):
    """The finished trainings that are kept: the name and the key of each."""
    files = (book.root / "_build/runs").glob("*.safetensors")
    return {tuple(file.stem.rsplit("-", 1)) for file in files}


def test_an_edit_retrains_what_it_touches_and_redraws_the_rest(book):
    book.page("a", cell(TRAIN))
    assert book.build().ran() == {"a"}
    first = runs(book)
    assert {name for name, _ in first} == {"baseline VAE", "diffusion"}

    edit(book, "figures/plots.py", "_mosaic(images, columns)", "_mosaic(images, columns=columns)")
    assert book.build().ran() == {"a"}  # drawn again
    assert runs(book) == first  # from the models that were there

    edit(book, "vae.py", "0.5 * (x_hat - x).square()", "(x_hat - x).square() * 0.5")
    assert book.build().ran() == {"a"}
    assert [name for name, _ in runs(book) - first] == ["baseline VAE"]

    edit(book, "training/loop.py", "steps // 20", "steps // 19")
    before = runs(book)
    assert book.build().ran() == {"a"}
    assert {name for name, _ in runs(book) - before} == {"baseline VAE", "diffusion"}


def test_a_training_is_kept_under_the_code_that_ran_it(book):
    """An edit after the import and before the training must not pass old results for new."""
    book.page(
        "a",
        cell(
            TRAIN.replace(
                "images =",
                """
old = "0.5 * (x_hat - x).square()"
if old in (text := open("../genbook/vae.py").read()):
    open("../genbook/vae.py", "w").write(text.replace(old, "(x_hat - x).square() * 0.5"))
images =""",
            )
        ),
    )
    assert book.build().code == 1
    before = runs(book)
    assert book.build().ran() == {"a"}
    assert [name for name, _ in runs(book) - before] == ["baseline VAE"]
