"""Each page with code as a notebook that runs without genbook, for the reader to download.

The text comes from the page that Sphinx has resolved, the code from its cells and from the package
(`genbook.publishing.standalone`). A page that cannot run alone is a warning, and so a red build.
"""

from __future__ import annotations

import re
from importlib.metadata import requires
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from sphinx.util import logging

from genbook.publishing.standalone import NotStandalone, Shown, standalone

from . import edition, markdown
from .cache import read_page
from .equations import ROOT

LOGGER = logging.getLogger(__name__)

NEEDS = ("paddlepaddle", "numpy", "matplotlib", "scikit-learn")
ABOUT = """\
This notebook is the chapter **{title}** of *{book}*, an executable textbook on generative models. \
It runs from top to bottom by itself, in any folder, with Python 3.10 to 3.13 and these packages:

```sh
pip install {packages}
```

Code: [Apache License 2.0](https://www.apache.org/licenses/LICENSE-2.0). \
Text: [CC BY 4.0](https://creativecommons.org/licenses/by/4.0/)."""
SPEED = """

It trains with PaddlePaddle as it is installed. On a processor without a GPU that takes about four \
to five times as long as the times on the site, for which PaddlePaddle was accelerated."""
HELPERS = """\
**Helpers from the book.** The next cell holds what the chapter uses and does not show: data, \
training, figures. Run it; there is no need to read it now."""
FOLDED = {"cellView": "form", "jupyter": {"source_hidden": True}, "tags": ["hide-input"]}
SITE_ONLY = {"site-only", "claim"}  # tags of cells that no notebook has
LABEL = "Notebook (.ipynb)"
TOOLTIP = "Download this page as a notebook that runs by itself"


def offer_notebook(app, pagename, templatename, context, doctree):
    """Write the notebook of a page into the site, and have the page offer it."""
    if doctree is None or edition.name() != "digits":
        return  # the data sets of other editions are files, which an empty folder has not
    page = read_page(app.env, pagename)
    if page is None or all(cell.cell_type != "code" or is_hidden(cell) for cell in page.cells):
        return
    try:
        notebook = make(app, page, doctree)
    except (NotStandalone, markdown.Unknown) as error:
        LOGGER.warning("no notebook can be made of this page: %s", error, location=pagename)
        return
    path = Path(app.outdir, "_sources", f"{pagename}.ipynb")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8")
    context["ipynb_source"] = f"{pagename}.ipynb"


def name_button(app, pagename, templatename, context, doctree):
    """Name the download in the page's menu; the theme says only `.ipynb`."""
    for group in context.get("header_buttons", ()):
        for button in group.get("buttons", ()):
            if button["label"] == "download-notebook-button":
                button.update(text=LABEL, tooltip=TOOLTIP)


def make(app, page, doctree):
    """The notebook of a page: `page` as myst-nb reads it, and as Sphinx has resolved it."""
    blocks = with_hidden_cells(list(markdown.blocks(doctree, app.builder)), page)
    sources = [source_of(block, page) for block in blocks]
    settings, helpers, codes = standalone(filter(None, sources))
    title = next(block for block in blocks if isinstance(block, str)).lstrip("# ")
    cells = [new_markdown_cell(about(title, app.config.html_title) + SPEED * bool(settings))]
    if settings:
        cells.append(new_code_cell(settings))
    cells += [new_markdown_cell(HELPERS), new_code_cell(helpers, metadata=FOLDED)]
    codes = iter(codes)
    for block, source in zip(blocks, sources):
        if code := source and next(codes):
            cells.append(new_code_cell(code, metadata=metadata(block, page)))
        elif not isinstance(block, markdown.Cell):
            add_text(cells, getattr(block, "markdown", block))
    for i, cell in enumerate(cells):
        cell.id = f"cell-{i}"  # the same in every build
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    language = {"kernelspec": kernel, "language_info": {"name": "python"}}
    return new_notebook(cells=cells, metadata=language)  # which validates it


def add_text(cells, text: str) -> None:
    """Add text to the last cell, or in a new one: after code, for a section, around a diagram."""
    last = cells[-1]
    if last.cell_type == "code" or text.startswith(("#", "<img")) or last.source.startswith("<img"):
        cells.append(new_markdown_cell(text))
    else:
        last.source += f"\n\n{text}"


def with_hidden_cells(blocks, page) -> list[markdown.Block]:
    """The blocks, with the cells that run but are not on the site."""
    shown = {block.index for block in blocks if isinstance(block, markdown.Cell)}
    hidden = [
        markdown.Cell(i)
        for i, cell in enumerate(page.cells)
        if cell.cell_type == "code" and i not in shown and SITE_ONLY.isdisjoint(tags(cell))
    ]
    result = []
    for block in blocks:
        while isinstance(block, markdown.Cell) and hidden and hidden[0].index < block.index:
            result.append(hidden.pop(0))
        result.append(block)
    return result + hidden


def source_of(block, page) -> str | Shown | None:
    """The Python that a block holds, if any."""
    if isinstance(block, markdown.Cell):
        return page.cells[block.index].source
    if isinstance(block, markdown.Source) and block.path.endswith(".py"):
        parts = Path(block.path).relative_to(ROOT).with_suffix("").parts
        if parts[0] == "genbook":
            return Shown(".".join(parts).removesuffix(".__init__"), block.text)
    return None


def tags(cell) -> list[str]:
    """The tags of a cell."""
    return cell.metadata.get("tags", [])


def is_hidden(cell) -> bool:
    """Whether the site does not show the code of a cell, or only folded, as a claim."""
    return not {"remove-input", "remove-cell", "claim"}.isdisjoint(tags(cell))


def metadata(block, page) -> dict:
    """The metadata of a notebook's cell: whether to fold it, and whether it may fail."""
    if isinstance(block, markdown.Source):
        return {}
    cell = page.cells[block.index]
    folded = FOLDED if is_hidden(cell) or block.folded else {}
    kept = [tag for tag in tags(cell) if tag == "raises-exception"] + folded.get("tags", [])
    return {**folded, "tags": kept} if kept else {}


def about(title: str, book: str) -> str:
    """The first cell: what this is, and what it needs."""
    found = (re.match(r"([\w-]+)([^;]*)", line).groups() for line in requires("genbook"))
    versions = {name: ",".join(sorted(limits.split(","), reverse=True)) for name, limits in found}
    packages = " ".join(f'"{name}{versions[name]}"' for name in NEEDS)
    return ABOUT.format(title=title, book=book, packages=packages)


def setup(app):
    """Connect the notebooks to the pages: before and after the theme makes its buttons at 501."""
    app.connect("html-page-context", offer_notebook, priority=400)
    app.connect("html-page-context", name_button, priority=502)
