"""Builds that are killed, disturbed, or cramped: in the end the same site, or a word why not."""

import hashlib
import os
import shutil
import subprocess
import time

import pytest

# A build is killed as soon as the first of these files is there: when a page starts, a training
# has a checkpoint, a page has results, the pages are read, and the site is written.
MOMENTS = (
    "progress/*.log",
    "runs/*.checkpoint",
    ".jupyter_cache/executed/*/base.ipynb",
    ".doctrees/unfinished",
    "html/book/*.html",
)
HANGS = 600  # seconds; no busy machine takes as long

TRAIN = """
import importlib
import numpy as np
checkpointer = importlib.import_module("genbook.training.checkpointer")  # no notebook has it
checkpointer.SECONDS_BETWEEN_CHECKPOINTS, checkpointer.SHARE_OF_CHECKPOINTS = 0, float("inf")
from genbook.data import Dataset
from genbook.training.recipes.vae import train_baseline_vae

images = np.random.default_rng(0).random((130, 1, 8, 8), dtype="float32")
data = Dataset("digits", "train", images, np.arange(130) % 2, ("0", "1"))
model, history = train_baseline_vae(data, steps=40)
print("loss", history["loss"][-1], "零")
"""

DRAW = """---
mystnb: {image: {alt: A line.}, figure: {name: fig-line, caption: A line.}}
---
import matplotlib.pyplot as plt
plt.plot([1, 2]);"""


def cell(code):
    return f"```{{code-cell}} python3\n{code}\n```\n"


def fill(book):
    """Give `book` a training, a figure, and a page of prose."""
    book.page("a", cell(TRAIN))
    book.page("b", cell(DRAW) + "\nSee {numref}`fig-line`.\n")
    book.page("c", "Prose on [the other page](b.md).\n")
    return book


def site(book):
    """A hash of every file of the site, less Sphinx's own note on its settings."""
    root = book.root / "_build/html"
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.name != ".buildinfo"
    }


@pytest.fixture(scope="module")
def undisturbed(new_book, tmp_path_factory):
    """A book that was built in peace."""
    book = fill(new_book(tmp_path_factory.mktemp("undisturbed") / "a book"))
    assert book.build_apart().ran() == {"a", "b"}
    return book


@pytest.fixture
def built(undisturbed, book):
    """A copy of that book, which may be damaged."""
    shutil.copytree(undisturbed.root, book.root, dirs_exist_ok=True)
    return book


@pytest.mark.slow
def test_a_build_killed_at_any_moment_is_carried_on(undisturbed, book):
    """In the end there is the same site, byte for byte; so two cold builds are equal, too."""
    fill(book)
    for files in MOMENTS:
        process = book.start()
        while process.poll() is None and not any((book.root / "_build").glob(files)):
            time.sleep(0.01)
        assert process.poll() is None, f"the build ended without {files}"
        process.kill()
        process.communicate()
    done = book.build()
    assert done.code == 0, done.err
    assert site(book) == site(undisturbed)


def test_what_a_killed_build_left_half_written_is_written_anew(undisturbed, built):
    build = built.root / "_build"
    for results in (build / ".jupyter_cache/executed").iterdir():
        content = (results / "base.ipynb").read_text(encoding="utf-8")
        (results / "base.ipynb").write_text(content[: len(content) // 2], encoding="utf-8")
    (build / "html/book/c.html").write_text("<html><body>half a pa")
    (build / "html/searchindex.js").write_text("Search.setIndex({")
    (build / ".doctrees/unfinished").touch()
    assert built.build().ran() == {"a", "b"}
    assert site(built) == site(undisturbed)


@pytest.mark.parametrize("content", [b"", b"no database"])
def test_a_list_of_results_that_cannot_be_read_is_begun_anew(undisturbed, built, content):
    build = built.root / "_build"
    (build / ".jupyter_cache/global.db").write_bytes(content)
    (build / ".doctrees/environment.pickle").write_bytes(b"half a pickle")
    (build / ".doctrees/unfinished").touch()
    assert built.build().ran() == {"a", "b"}
    assert site(built) == site(undisturbed)


@pytest.mark.slow
def test_two_builds_at_once_take_turns(undisturbed, book):
    fill(book)
    processes = [book.start(), book.start()]
    said = [process.communicate(timeout=HANGS) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    assert sum("waiting: another process builds this book" in err for _, err in said) == 1
    assert site(book) == site(undisturbed)


def test_a_narrow_environment(undisturbed, book):
    """No HOME, no UTF-8, no rights for others."""
    fill(book)
    book.env.pop("HOME")
    book.env["LC_ALL"] = "C"
    before = os.umask(0o077)
    try:
        assert book.build_apart().ran() == {"a", "b"}
    finally:
        os.umask(before)
    assert site(book) == site(undisturbed)


def test_another_encoding_is_named_with_the_way_out(book):
    book.page("a", "零")
    book.env |= {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    build = book.build_apart()
    assert build.code == 1
    assert "set PYTHONUTF8=1" in build.err
    book.env["PYTHONUTF8"] = "1"
    assert book.build_apart().code == 0


@pytest.fixture
def small_disk(tmp_path):
    """A disk with room for the miniature book, but not for its site."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=5m", "tmpfs", str(tmp_path)]
    try:
        mounted = subprocess.run(mount, capture_output=True).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("a disk can be mounted by root on Linux only")
    yield tmp_path
    subprocess.run(["umount", "--lazy", str(tmp_path)], check=True)


def remount(disk, options):
    subprocess.run(["mount", "-o", f"remount,{options}", str(disk)], check=True)


@pytest.mark.slow
def test_a_full_disk_is_named_and_with_more_room_the_build_goes_on(undisturbed, small_disk, book):
    fill(book)
    build = book.build_apart()
    assert build.code == 1
    assert "No space left on device" in build.err
    remount(small_disk, "size=200m")
    assert book.build_apart().code == 0
    assert site(book) == site(undisturbed)


def test_a_disk_that_cannot_be_written_is_named(small_disk, book):
    fill(book)
    (book.root / "_build").mkdir()
    remount(small_disk, "ro")
    build = book.build_apart()
    assert build.code == 1
    assert "Read-only file system" in build.err
