"""What the reader sees of styles, scripts and icons is what the book's folder holds."""

import re

from PIL import Image


def test_an_edit_of_a_style_reaches_the_site_and_runs_nothing(book):
    book.page("page", "```{code-cell} python3\nprint(1)\n```\n")
    assert book.build().ran() == {"page"}
    book.write("book/_static/genbook.css", "p { color: rebeccapurple; }\n")
    assert book.build().ran() == set()
    static = book.root / "_build/html/_static"
    assert "rebeccapurple" in (static / "genbook.css").read_text()


def test_the_site_holds_the_icons_it_shows_and_no_others(book):
    book.page("page", "Text.")
    assert book.build().code == 0
    static = book.root / "_build/html/_static"
    [script] = [
        *static.glob("scripts/fontawesome.js"),
        *static.glob("vendor/fontawesome/*/js/all.min.js"),
    ]
    icons = script.read_text("utf-8")
    assert "bars:[" in icons and '"magnifying-glass":[' in icons
    assert "hippo" not in icons
    assert len(icons) < 200_000


def test_a_figure_is_shown_by_its_smaller_file_with_the_same_pixels(book):
    book.page(
        "page",
        """```{code-cell} python3
---
mystnb: {image: {alt: A line.}, figure: {name: fig-line, caption: A line.}}
---
import matplotlib.pyplot as plt
plt.plot([1, 2, 3]);
```
""",
    )
    for _ in range(2):  # a second build changes nothing
        assert book.build().code == 0
        [name] = re.findall(
            r'<img alt="A line\."[^>]*src="\.\./_images/(\w+\.webp)"', book.html("page")
        )
    webp = book.root / "_build/html/_images" / name
    png = webp.with_suffix(".png")
    assert webp.stat().st_size < png.stat().st_size
    with Image.open(webp) as one, Image.open(png) as other:
        assert one.convert("RGBA").tobytes() == other.convert("RGBA").tobytes()
