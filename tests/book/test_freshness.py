"""A page runs again when, and only when, something that its results depend on has changed."""

import pytest


def cell(code, caption=None):
    options = f"---\nmystnb: {{figure: {{caption: {caption}}}}}\n---\n" if caption else ""
    return f"```{{code-cell}} python3\n{options}{code}\n```\n"


@pytest.fixture
def two_pages(book):
    """Page `a` depends on genbook.deep through genbook.shallow; page `b` on neither."""
    book.write("genbook/deep.py", "WORD = 'first'\n")
    book.write("genbook/shallow.py", "from .deep import WORD\n")
    book.write("genbook/other.py", "")
    book.page("a", cell("from genbook import shallow\nprint(shallow.WORD, 'word')"))
    book.page("b", cell("print(6 * 7)"))
    assert book.build().ran() == {"a", "b"}
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


def test_other_data_run_every_page(two_pages, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "images.gz").write_bytes(b"pixels")
    two_pages.env["GENBOOK_DATA"] = str(tmp_path / "data")
    assert two_pages.build().ran() == {"a", "b"}
    assert two_pages.build().ran() == set()


def test_a_page_whose_imports_cannot_be_told_depends_on_all_modules(book):
    book.write("genbook/other.py", "")
    book.page("a", cell("%matplotlib inline\nprint(1)"))
    assert book.build().ran() == {"a"}
    book.write("genbook/other.py", "WORD = 'new'\n")
    assert book.build().ran() == {"a"}
