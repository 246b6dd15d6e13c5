"""What the reader sees of styles, scripts and icons is what the book's folder holds."""


def test_an_edit_of_a_style_reaches_the_site_and_runs_nothing(book):
    book.page("page", "```{code-cell} python3\nprint(1)\n```\n")
    assert book.build().ran() == {"page"}
    book.write("book/_static/genbook.css", "p { color: rebeccapurple; }\n")
    assert book.build().ran() == set()
    static = book.root / "_build/html/_static"
    assert "rebeccapurple" in (static / "genbook.css").read_text()


def test_the_site_holds_the_icons_it_shows_and_no_others(book):
    assert book.build().code == 0
    static = book.root / "_build/html/_static"
    [script] = [*static.glob("scripts/fontawesome.js"),
                *static.glob("vendor/fontawesome/*/js/all.min.js")]
    icons = script.read_text("utf-8")
    assert 'bars:[' in icons and '"magnifying-glass":[' in icons
    assert "hippo" not in icons
    assert len(icons) < 200_000
