"""Which files become pages, and how plain Sphinx builds the same book."""

import os
import subprocess
import sys

import nbformat
import pytest

STRAY = "raise SystemError('a stray notebook ran')"


def put_notebook(book, path):
    """A notebook that the table of contents does not list."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(STRAY)])
    book.write(path, nbformat.writes(notebook))


def pages(site):
    """The pages of a site that came from files of the book."""
    return {path.stem for path in (site / "_sources").rglob("*.md")} | {
        path.stem for path in (site / "_sources").rglob("*.ipynb")
    }


@pytest.fixture
def odd(new_book, tmp_path):
    """A book whose folder has a name full of characters that mean something elsewhere."""
    book = new_book(tmp_path / "course [2024] #1 50% 图书*")
    book.page("chapter", "```{code-cell} python3\nprint('it', 'ran')\n```\n")
    return book


def test_only_listed_files_become_pages_wherever_the_book_is(odd):
    for folder in ("handed-in [late]", "book", "venv/lib", "~", "a*b"):
        put_notebook(odd, f"{folder}/stray.ipynb")
        odd.write(f"{folder}/notes.md", "# Notes\n\n![](nothing.png)\n")
    assert odd.build().ran() == {"chapter"}
    assert "it ran" in odd.html("chapter")
    assert pages(odd.root / "_build/html") == {"index", "chapter"}


def test_a_listed_name_with_glob_characters_is_one_page(odd):
    odd.page("see [ab]?*", "Listed.")
    odd.write("book/see a-.md", "# Not listed\n")
    build = odd.build()
    assert build.code == 0, build.out + build.err
    assert pages(odd.root / "_build/html") == {"index", "chapter", "see [ab]?*"}


def test_a_listed_page_that_does_not_exist_is_an_error(book):
    book.write("_toc.yml", "format: jb-book\nroot: book/index\nchapters:\n- file: book/hope\n")
    build = book.build("-q")  # not gated: this is no mere warning
    assert build.code != 0
    assert "_toc.yml lists book/hope" in build.out + build.err


def test_plain_sphinx_builds_the_same_book_from_any_folder(odd, tmp_path):
    """As Read the Docs does: `jupyter-book config sphinx` writes conf.py, Sphinx takes over."""
    old = tmp_path / "runs" / "theirs"
    old.parent.mkdir()
    old.touch()
    os.utime(old, (0, 0))  # the build forgets trainings of its own that are so old
    jupyter_book = "from jupyter_book.cli.main import main; main()"
    for command in (
        [sys.executable, "-c", jupyter_book, "config", "sphinx", str(odd.root)],
        [sys.executable, "-m", "sphinx", "-T", "-n", "-W", "--keep-going", "-b", "html"]
        + [str(odd.root), "out"],
    ):
        run = subprocess.run(command, cwd=tmp_path, env=odd.env, capture_output=True, text=True)
        assert run.returncode == 0, run.stdout + run.stderr
    assert "it ran" in (tmp_path / "out/book/chapter.html").read_text("utf-8")
    assert old.is_file()
    assert {path.name for path in tmp_path.iterdir()} == {
        *("out", odd.root.name, "runs"),  # what was there, or was asked for
        *(".jupyter_cache", "jupyter_execute"),  # myst-nb's, which puts them beside any site
        "_build",
    }


def test_a_build_that_crashed_is_done_again_and_removes_nothing_of_others(book):
    """The output folder may hold more than the site: a repository, a domain's name."""
    book.write("_build/html/_static", "the theme's logo, as a crash leaves it")
    book.write("_build/html/CNAME", "book.example.org")
    book.write("_build/.doctrees/unfinished", "")
    book.page("chapter", "Text.")
    build = book.build()
    assert build.code == 0, build.out + build.err
    assert (book.root / "_build/html/CNAME").is_file()


def test_code_wider_than_the_page_turns_the_build_red(book):
    config = (book.root / "_config.yml").read_text("utf-8")
    book.write("_config.yml", config.replace("    suppress_warnings: [bookbuild.width]\n", ""))
    wide = "print(" + " + ".join(["1"] * 30) + ")"
    assert len(wide) > 88
    book.page("chapter", f"```{{code-cell}} python3\nprint('-' * 100)\n{wide}\n```\n")
    build = book.build()
    assert build.code != 0
    assert f"a line of code has {len(wide)} columns" in build.err
    assert build.err.count("columns") == 1  # what is printed may be wide: it scrolls


def test_a_page_does_not_run_the_start_of_the_users_own_profile(book):
    home = ".ipython/profile_default"
    book.write(f"{home}/startup/theirs.py", "theirs = True")
    book.write(f"{home}/ipython_config.py", "c.InteractiveShellApp.exec_lines = ['more = True']")
    book.page("chapter", "```{code-cell} python3\nprint({'theirs', 'more'} & {*globals()})\n```\n")
    assert book.build().ran() == {"chapter"}
    assert "set()" in book.html("chapter")
