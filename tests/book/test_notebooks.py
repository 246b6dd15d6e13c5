"""The notebooks that the pages offer: they run by themselves and compute what the chapters do."""

import ast
import importlib
import inspect
import json
import os
import re
import subprocess
import sys
import textwrap
import venv
from concurrent.futures import ThreadPoolExecutor
from html.parser import HTMLParser
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import nbformat
import pytest
from packaging.requirements import Requirement

from bookbuild.cells import CELL

ROOT = Path(__file__).resolve().parents[2]
LISTED = re.findall(r"\b(book/[\w-]+)$", (ROOT / "_toc.yml").read_text("utf-8"), re.M)
CHAPTERS = {Path(page).name: (ROOT / f"{page}.md").read_text("utf-8") for page in LISTED}


def shows_code(text):
    return any(not re.search("remove-input|claim", c["options"]) for c in CELL.finditer(text))


NAMES = [name for name, text in CHAPTERS.items() if shows_code(text)]
each_notebook = pytest.mark.parametrize("name", NAMES)
UNET = re.compile(r"^from genbook\.(unet|training\.recipes\.diffusion) import", re.M)
MANY = ("improving", "latent-space")  # they train many networks
SLOW = [name for name in NAMES if name in MANY or UNET.search(CHAPTERS[name])]


@pytest.fixture(scope="module")
def site(new_book, tmp_path_factory):
    """The book's own chapters, built without executing them: the folder of the build."""
    book = new_book(tmp_path_factory.mktemp("chapters") / "book")
    config = (book.root / "_config.yml").read_text("utf-8")
    config = config.replace("execute_notebooks: cache", "execute_notebooks: 'off'")
    book.write("_config.yml", config)
    book.write("_toc.yml", (ROOT / "_toc.yml").read_text("utf-8"))
    for name in (*(f"{name}.md" for name in CHAPTERS), "references.bib"):
        book.write(f"book/{name}", (ROOT / "book" / name).read_text("utf-8"))
    for path in re.findall(r"\{literalinclude\} \.\./(tests/\S+)", "".join(CHAPTERS.values())):
        book.write(path, (ROOT / path).read_text("utf-8"))
    build = book.build("-q")  # not gated: without outputs there are no figures to refer to
    assert build.code == 0, build.err
    assert "no notebook can be made" not in build.err, build.err
    return book.root / "_build"


@pytest.fixture(scope="module")
def notebooks(site):
    """The notebooks by the names of their chapters."""
    folder = site / "html/_sources/book"
    return {name: nbformat.read(folder / f"{name}.ipynb", 4) for name in NAMES}


@pytest.fixture(scope="module")
def pages(site):
    """The pages as Jupyter Book would execute them."""
    folder = site / "jupyter_execute/book"
    return {name: nbformat.read(folder / f"{name}.ipynb", 4) for name in NAMES}


@pytest.fixture(scope="module")
def timed(pages):
    """The cells that print how long something took: never the same twice."""
    cells = [cell for page in pages.values() for cell in page.cells if cell.cell_type == "code"]
    return {
        cell.source
        for cell in cells
        if "timing" in cell.metadata.get("tags", ())
        or re.search("perf_counter|timing", cell.source)
    }


def code(notebook):
    """The code of a notebook, or of a page less its claims, which no notebook has."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return [cell.source for cell in cells if "claim" not in cell.metadata.get("tags", ())]


@pytest.fixture(scope="module")
def bare(notebooks, tmp_path_factory):
    """The Python of an environment with the packages that a notebook asks for, and no other.

    They are links to those that are installed here.
    """
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder, symlinks=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    asked = re.findall(r'"([\w-]+)[<>=]', notebooks[NAMES[0]].cells[0].source)
    assert "paddlepaddle" in asked and len(asked) == 4
    for name in installed_with([*asked, "setuptools"]):  # which came with Python before 3.12
        for top in {file.parts[0] for file in distribution(name).files} - {"..", "__pycache__"}:
            if not (packages / top).exists():
                (packages / top).symlink_to(distribution(name).locate_file(top))
    return folder / "bin/python"


def installed_with(names):
    """These distributions, and all that they require in turn."""
    found, queue = set(), list(names)
    while queue:
        name = queue.pop()
        try:
            requirements = [Requirement(line) for line in distribution(name).requires or ()]
        except PackageNotFoundError:  # not needed on this system
            continue
        found.add(name)
        needed = (r.name for r in requirements if not r.marker or r.marker.evaluate({"extra": ""}))
        queue += set(needed) - found
    return found


def run(mode, python, notebooks, folder, scale=0.01):
    """What each cell of the `notebooks` (name -> cells) prints, run by `python` in this folder."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("GENBOOK", "PYTHON"))}
    environment |= {"OMP_NUM_THREADS": "1", "GENBOOK_PROGRESS": os.devnull}
    # Freed memory is kept from the start, which saves half of the time (genbook.accelerate.memory).
    environment |= {
        "MALLOC_MMAP_MAX_": "0",
        "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1),
        "MALLOC_TOP_PAD_": str(2**28),
    }
    if mode == "package":
        environment["PYTHONPATH"] = str(ROOT)
    file = folder.parent / f"{folder.name}-{mode}.json"
    file.write_text(json.dumps(notebooks))
    done = subprocess.run(
        [python, Path(__file__).with_name("run_cells.py"), mode, str(scale), file],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=3600,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(file.read_text())


@pytest.fixture(scope="module")
def printed(request, pages, notebooks, bare, tmp_path_factory):
    """What notebooks and chapters print at a hundredth of their training, cell by cell.

    They are those that the selected tests ask for. The notebooks run outside of the source, in the
    `bare` environment.
    """
    tests = (item for item in request.session.items if "printed" in item.fixturenames)
    asked = {item.callspec.params["name"] for item in tests}
    short = {
        name: [
            re.sub(r"^STEPS_SCALE = 1$", "STEPS_SCALE = 0.01", cell, flags=re.M)
            for cell in code(notebook)
        ]
        for name, notebook in notebooks.items()
        if name in asked
    }
    cells = {"alone": short, "package": {name: code(pages[name]) for name in short}}
    empty, pythons = tmp_path_factory.mktemp("empty"), {"alone": bare, "package": sys.executable}
    with ThreadPoolExecutor() as both:
        said = dict(
            zip(cells, both.map(lambda mode: run(mode, pythons[mode], cells[mode], empty), cells))
        )
    assert not list(empty.iterdir())  # nothing is left behind
    return {
        mode: {name: list(zip(cells[mode][name], said[mode][name])) for name in short}
        for mode in cells
    }


def test_the_environment_has_the_four_packages_and_not_genbook(bare, tmp_path):
    cells = {
        "a": ["import genbook"],
        "b": ["from genbook.vae import VAE"],
        "c": ["import tqdm"],
        "d": ["import paddle, numpy, matplotlib, sklearn\nprint(1)"],
    }
    said = run("alone", bare, cells, tmp_path)
    assert all("ModuleNotFoundError" in said[name][-1] for name in "abc")
    assert said["d"] == ["1\n"]


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in NAMES]
)
def test_a_notebook_runs_alone_and_prints_what_its_chapter_prints(printed, timed, name):
    def said(mode):
        cells = printed[mode][name]
        assert not any("Traceback" in text for _, text in cells), cells[-1]
        return [text for cell, text in cells if text and cell not in timed]

    assert said("alone") == said("package")
    assert said("alone")


@each_notebook
def test_a_notebook_is_valid_and_plain(notebooks, name):
    notebook = notebooks[name]
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    assert all(not cell.outputs for cell in notebook.cells if cell.cell_type == "code")
    assert "pip install" in notebook.cells[0].source
    imports = [
        line
        for cell in code(notebook)
        for line in cell.splitlines()
        if re.match(r"\s*(import|from)\b.*\bgenbook", line)
    ]
    assert not imports, "\n".join(imports)
    assert not any("mystnb:" in cell for cell in code(notebook))
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    assert not re.search(r"\{[\w:-]+\}`|^:::|^```\{|^\$\$ *\(|\\(E|KL|N)(?![A-Za-z])", text, re.M)
    assert text.count("$$") % 2 == 0


@each_notebook
def test_a_page_offers_its_notebook(site, name):
    html = (site / f"html/book/{name}.html").read_text("utf-8")
    link = re.search(r'<a href="([^"]+\.ipynb)".*?</a>', html, re.S)
    assert (site / "html/book" / link[1]).is_file()
    assert "Notebook (.ipynb)" in re.sub(r"<[^>]+>", "", link[0])


def test_a_page_that_shows_no_code_offers_none(site):
    offering = [
        name
        for name in set(CHAPTERS) - set(NAMES)
        if f"_sources/book/{name}.ipynb" in (site / f"html/book/{name}.html").read_text("utf-8")
    ]
    assert not offering, sorted(offering)


class Blocks(HTMLParser):
    """Collects the text of each block of code, whatever its colours."""

    def __init__(self, html):
        super().__init__()
        self.found, self._inside = [], False
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        if tag == "pre":
            self._inside = True
            self.found.append("")

    def handle_endtag(self, tag):
        if tag == "pre":
            self._inside = False

    def handle_data(self, data):
        if self._inside:
            self.found[-1] += data


def sources(chapter):
    """The files and the sources that a chapter shows, as Python finds them."""
    pattern = r"^```\{literalinclude\} \.\./(\S+\.py)\n(.*?)^```"
    found = re.findall(pattern, chapter, re.M | re.S)
    assert len(found) == chapter.count("{literalinclude}")
    for path, options in found:
        options = dict(re.findall(r"^:([\w-]+): *(.*)$", options, re.M))
        text = (ROOT / path).read_text("utf-8")
        if "start-at" in options:
            yield path, text[text.index(options["start-at"]) :]
        elif path.startswith("genbook/"):
            shown = importlib.import_module(path.removesuffix(".py").replace("/", "."))
            assert Path(shown.__file__) == ROOT / path
            for part in options["pyobject"].split("."):
                shown = getattr(shown, part)
            yield path, textwrap.dedent(inspect.getsource(shown))
        else:
            nodes = {getattr(node, "name", None): node for node in ast.parse(text).body}
            node = nodes[options["pyobject"]]
            first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
            yield path, "\n".join(text.splitlines()[first - 1 : node.end_lineno])


@pytest.mark.parametrize("name", [n for n, text in CHAPTERS.items() if "{literalinclude}" in text])
def test_what_is_shown_is_what_ran(site, notebooks, name):
    blocks = Blocks((site / f"html/book/{name}.html").read_text("utf-8")).found
    for path, source in sources(CHAPTERS[name]):
        assert source.strip() in [block.strip() for block in blocks]
        if path.startswith("genbook/"):
            # A method outside of its class has to say which class it is of.
            cells = [re.sub(r"super\(\w+, self\)", "super()", c) for c in code(notebooks[name])]
            assert any(cell.startswith(source.strip()) for cell in cells), source


PAGE = r"""
A price of 5\$, an_underscore, and $\KL(q \| p)$ by {cite:t}`a2020`; see {eq}`eq-one`,
{numref}`fig-line`, {ref}`sec-there` and <https://example.org>.

$$
\E[x] &= 1 \\ &= 2
$$ (eq-one)

:::{note}
Read **this**.
:::

:::{admonition} Solution
:class: dropdown
It is $\E[y]$.
:::

1984\. It was a year.

(sec-there)=
## There

| a | b |
|---|---|
| 1 | `x` |

```{code-cell} python3
:tags: [remove-cell]
from genbook.diffusion import GaussianDiffusion, linear_beta_schedule
import numpy as np
```

```{literalinclude} ../genbook/diffusion.py
:pyobject: linear_beta_schedule
```

```{literalinclude} ../genbook/diffusion.py
:lines: 3-4
```

```{code-cell} python3
---
mystnb: {image: {alt: A line.}, figure: {name: fig-line, caption: A line.}}
---
import matplotlib.pyplot as plt
print(GaussianDiffusion(linear_beta_schedule(10)).timesteps)
plt.plot([1, 2]);
```
"""
BIB = "@misc{a2020, author = {Ann Author}, title = {A Paper}, year = 2020}"


@pytest.fixture(scope="module")
def book(new_book, tmp_path_factory):
    """A miniature book whose page has all that a chapter may have."""
    book = new_book(tmp_path_factory.mktemp("page") / "book")
    book.write("book/references.bib", BIB)
    book.page("page", PAGE)
    book.page("works", "```{bibliography}\n```")
    book.build().ran()
    return book


def notebook_of(book, name="page"):
    return book.root / f"_build/html/_sources/book/{name}.ipynb"


def test_directives_become_plain_markdown(book):
    cells = nbformat.read(notebook_of(book), 4).cells
    text = "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    assert r"A price of 5\$, an\_underscore, and $D_{\mathrm{KL}}(q \| p)$" in text
    assert "(1.1)," in text
    assert "Fig. 1.1, There and [https://example.org](https://example.org)." in text
    assert r"1984\. It was a year." in text
    assert (
        "$$\n\\begin{aligned}\\operatorname{\\mathbb{E}}[x] &= 1 \\\\ &= 2\\end{aligned} "
        "\\tag{1.1}\n$$" in text
    )
    assert "> **Note**\n>\n> Read **this**." in text
    assert "<details><summary><b>Solution</b></summary>\n\nIt is $" in text
    assert "## 1.1. There\n\n| a | b |\n| --- | --- |\n| 1 | `x` |" in text
    assert "**Fig. 1.1** A line." in text
    assert "by Author [2020];" in text and "## References\n\n- Ann Author. A paper. 2020." in text
    assert "at t = 0 has one step of noise" in text  # a piece of source that cannot be run


def test_cells_that_the_site_hides_are_in_the_notebook_and_folded(book):
    cells = nbformat.read(notebook_of(book), 4).cells
    hidden = next(cell for cell in cells if cell.source == "import numpy as np")
    assert hidden.metadata.jupyter.source_hidden


def test_the_same_book_gives_the_same_bytes(book):
    first = notebook_of(book).read_bytes()
    notebook_of(book).unlink()
    book.page("page", PAGE + "\n")
    assert book.build().ran() == set()
    assert notebook_of(book).read_bytes() == first


def test_a_page_that_cannot_stand_by_itself_fails_the_build(book):
    book.write("genbook/bar.py", "from tqdm import tqdm\n\n\ndef bar():\n    return tqdm()\n")
    book.page("other", "```{code-cell} python3\nfrom genbook.bar import bar\nprint(bar)\n```\n")
    build = book.build()
    assert build.code == 1
    assert re.search(r"no notebook can be made of this page: genbook.bar.*imports tqdm", build.err)


COPY = """
<iframe src="book/page.html" width="900" height="800"></iframe>
<script>
const frame = document.querySelector("iframe");
function copy() {
  const copied = [], page = frame.contentDocument;
  page.execCommand = () => copied.push(page.activeElement.value);
  page.querySelectorAll("button.copybtn").forEach((button) => button.click());
  document.body.innerText = JSON.stringify(copied);
}
frame.onload = () => setTimeout(copy, 3000);
</script>
"""


def test_the_copy_button_copies_the_code_and_nothing_else(book, show_page, tmp_path):
    site = book.root / "_build/html"
    (site / "copy.html").write_text(COPY)
    html = show_page(site, "copy.html", tmp_path)
    parser = HTMLParser()
    texts = []
    parser.handle_data = texts.append
    parser.feed(html)
    copied = json.loads(next(text for text in texts if text.startswith("[")))
    diffusion = (ROOT / "genbook/diffusion.py").read_text("utf-8")
    assert len(copied) == 3
    assert copied[0].strip() in diffusion and ast.parse(copied[0])
    assert copied[1].strip() in diffusion
    assert (
        copied[2].strip() == PAGE[PAGE.index("import matplotlib") :].removesuffix("```\n").strip()
    )
