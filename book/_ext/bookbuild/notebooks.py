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
from .cache import page_keys, read_page

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
LABEL = "Notebook (.ipynb)"
TOOLTIP = "Download this page as a notebook that runs by itself"


def offer_notebook(app, pagename, templatename, context, doctree):
    """Write the notebook of a page into the site, and have the page offer it."""
    if doctree is None or pagename not in page_keys(app.env) or edition.name() != "digits":
        return  # the data sets of other editions are files, which an empty folder has not
    page = read_page(app.env, pagename)
    if not any(is_shown(cell) for cell in page.cells):
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
    blocks = with_hidden_cells(markdown.blocks(doctree, app.builder), page)
    sources = [source for source in (source_of(block, page) for block in blocks) if source]
    settings, helpers, codes = standalone(sources)
    codes = iter(codes)
    cells = [new_markdown_cell(about(app, doctree) + SPEED * bool(settings))]
    if settings:
        cells.append(new_code_cell(settings))
    cells += [new_markdown_cell(HELPERS), new_code_cell(helpers, metadata=FOLDED)]
    text = []
    for block in blocks:
        code = next(codes) if source_of(block, page) else ""
        if isinstance(block, str) or isinstance(block, markdown.Source) and not code:
            block = block if isinstance(block, str) else block.markdown
            if block.startswith("#") and text:  # a cell for each section
                cells.append(new_markdown_cell("\n\n".join(text)))
                text = []
            text.append(block)
        elif code:
            if text:
                cells.append(new_markdown_cell("\n\n".join(text)))
                text = []
            cells.append(new_code_cell(code, metadata=metadata(block, page)))
    if text:
        cells.append(new_markdown_cell("\n\n".join(text)))
    for i, cell in enumerate(cells):
        cell.id = f"cell-{i}"  # the same in every build
    notebook = new_notebook(
        cells=cells,
        metadata={
            "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
            "language_info": {"name": "python"},
        },
    )
    nbformat.validate(notebook)
    return notebook


def with_hidden_cells(blocks, page) -> list[markdown.Block]:
    """The blocks, with the cells that run but are not on the site."""
    result, following = [], 0
    for block in blocks:
        if isinstance(block, markdown.Cell):
            result += hidden_cells(page, following, block.index)
            following = block.index + 1
        result.append(block)
    return result + hidden_cells(page, following, len(page.cells))


def hidden_cells(page, start, end) -> list[markdown.Cell]:
    """The code cells from `start` to before `end`."""
    return [
        markdown.Cell(i)
        for i in range(start, end)
        if page.cells[i].cell_type == "code"
        and "site-only" not in page.cells[i].metadata.get("tags", ())
    ]


def source_of(block, page) -> str | Shown | None:
    """The Python that a block holds, if any."""
    if isinstance(block, markdown.Cell):
        return page.cells[block.index].source
    if isinstance(block, markdown.Source):
        parts = Path(block.path).with_suffix("").parts
        if "genbook" in parts and block.path.endswith(".py"):
            start = len(parts) - 1 - parts[::-1].index("genbook")
            return Shown(".".join(parts[start:]).removesuffix(".__init__"), block.text)
    return None


def is_shown(cell) -> bool:
    """Whether a cell is code that the site shows."""
    return cell.cell_type == "code" and not hiding(cell)


def hiding(cell) -> bool:
    return not {"remove-input", "remove-cell"}.isdisjoint(cell.metadata.get("tags", ()))


def metadata(block, page) -> dict:
    """The metadata of a notebook's cell: whether to fold it, and whether it may fail."""
    if not isinstance(block, markdown.Cell):
        return {}
    cell = page.cells[block.index]
    folded = FOLDED if hiding(cell) or block.folded else {}
    tags = [tag for tag in cell.metadata.get("tags", ()) if tag == "raises-exception"]
    tags += folded.get("tags", [])
    return {**folded, "tags": tags} if tags else {}


def about(app, doctree) -> str:
    """The first cell: what this is, and what it needs."""
    found = (re.match(r"([\w-]+)([^;]*)", line).groups() for line in requires("genbook"))
    versions = {name: ",".join(sorted(limits.split(","), reverse=True)) for name, limits in found}
    packages = " ".join(f'"{name}{versions[name]}"' for name in NEEDS)
    title = next(block for block in markdown.blocks(doctree, app.builder) if isinstance(block, str))
    return ABOUT.format(title=title.lstrip("# "), book=app.config.html_title, packages=packages)


def setup(app):
    """Connect the notebooks to the pages: before and after the theme makes its buttons at 501."""
    app.connect("html-page-context", offer_notebook, priority=400)
    app.connect("html-page-context", name_button, priority=502)
