import pytest

from bookbuild import edition

PAGE = """---
file_format: mystnb
---

# A chapter

Text.

```{code-cell} ipython3
digits = load("digits", channels=3)
digits, test = load("digits"), load("digits", "test")
strokes = load("strokes")
print('load("digits") 零'), load("digits").images  # load("digits")
```

The call `load("digits")` loads them.
"""


def test_the_default_edition_leaves_every_page_as_it_is(monkeypatch):
    for value in (None, "", "digits"):
        monkeypatch.delenv("GENBOOK_EDITION", raising=False)
        if value is not None:
            monkeypatch.setenv("GENBOOK_EDITION", value)
        assert edition.adapt(PAGE) == PAGE


def test_another_edition_loads_its_data_and_says_so_under_the_title(monkeypatch):
    monkeypatch.setenv("GENBOOK_EDITION", "mnist")
    page = edition.adapt(PAGE)
    assert 'digits = load("mnist", channels=3, most=4000)\n' in page
    assert 'digits, test = load("mnist", most=4000), load("mnist", "test", most=4000)\n' in page
    assert 'strokes = load("strokes")\n' in page
    assert (
        """print('load("digits") 零'), load("mnist", most=4000).images  # load("digits")""" in page
    )
    assert 'The call `load("digits")` loads them.' in page
    head, _, rest = page.partition("# A chapter\n")
    assert head == PAGE.partition("# A chapter\n")[0]
    assert rest.lstrip().startswith("```{admonition} The MNIST edition")
    assert rest.index("```\n") < rest.index("Text.")


def test_a_page_without_that_data_is_left_alone(monkeypatch):
    monkeypatch.setenv("GENBOOK_EDITION", "hanzi")
    page = PAGE.replace("digits", "strokes")
    assert edition.adapt(page) == page


def test_an_unknown_edition_ends_the_build_and_names_the_known_ones(monkeypatch):
    monkeypatch.setenv("GENBOOK_EDITION", "letters")
    with pytest.raises(SystemExit, match="'letters'; choose from digits, mnist, hanzi"):
        edition.check(None, None)


def test_an_edition_whose_data_cannot_be_had_ends_the_build_before_anything_runs(
    monkeypatch, tmp_path
):
    monkeypatch.setenv("GENBOOK_EDITION", "hanzi")
    monkeypatch.setenv("GENBOOK_DATA", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(SystemExit, match="archive.zip"):
        edition.check(None, None)
