"""What holds for the text of every chapter, and what other pages say of the source."""

import ast
import re
import types
from collections import Counter
from pathlib import Path

import pytest
import yaml

import public
from bookbuild.cells import CELL

ROOT = Path(__file__).resolve().parents[2]
CHAPTERS = sorted((ROOT / "book").glob("*.md"))
WIDTH = 88  # columns of code that fit a page
each_chapter = pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)


def code_cells(text):
    """The (options, code) of the code cells in a page's text."""
    for cell in CELL.finditer(text):
        in_dashes = cell["options"].startswith("---")
        yield yaml.safe_load(cell["options"].strip("-\n")) if in_dashes else {}, cell["code"]


def test_the_contents_list_every_chapter_and_no_other():
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    listed = [toc["root"], *(c["file"] for part in toc["parts"] for c in part["chapters"])]
    there = {f"book/{path.stem}" for path in CHAPTERS}
    assert len(listed) == len(set(listed)), f"twice in _toc.yml: {sorted(listed)}"
    forgotten, gone = sorted(there - set(listed)), sorted(set(listed) - there)
    assert not forgotten and not gone, f"not in _toc.yml: {forgotten}; no such file: {gone}"


@each_chapter
def test_code_cells_are_fenced_with_backticks(path):
    """Any other fence shows the code and does not run it."""
    fences = re.findall(r"^\s*(?::::+|~~~+)\s*\{code-cell\}.*", path.read_text("utf-8"), re.M)
    assert not fences, "\n".join(fences)


@each_chapter
def test_figures_have_a_name_a_caption_and_an_alternative_text(path):
    """A picture with no words at all is found by the build, which sees what the cells draw."""
    wrong = []
    for options, code in code_cells(path.read_text("utf-8")):
        words = options.get("mystnb")
        if words:
            figure = words.get("figure", {})
            if not words.get("image", {}).get("alt"):
                wrong.append(f"no alternative text (image: alt:) of\n{code}")
            if not figure.get("caption"):
                wrong.append(f"no caption (figure: caption:) of\n{code}")
            if not figure.get("name", "").startswith("fig-"):
                wrong.append(f"no name that begins with fig- (figure: name:) of\n{code}")
    assert not wrong, "\n".join(wrong)


def test_labels_are_unique():
    labels = Counter()
    for path in CHAPTERS:
        text = path.read_text("utf-8")
        labels.update(re.findall(r"^\$\$\s*\(([\w:.-]+)\)", text, re.M))  # equations
        labels.update(re.findall(r"^:label:\s*(\S+)", text, re.M))
        labels.update(re.findall(r"^\(([\w:.-]+)\)=", text, re.M))  # sections
        labels.update(re.findall(r"^```\{diagram\}.*\n---\nname: (\S+)", text, re.M))
        for options, _ in code_cells(text):
            labels.update(filter(None, [options.get("mystnb", {}).get("figure", {}).get("name")]))
    twice = [label for label, count in labels.items() if count > 1]
    assert not twice, f"labels of two things: {twice}"


@each_chapter
def test_code_fits_the_page(path):
    text = path.read_text("utf-8")
    blocks = [code for _, code in code_cells(text)]
    blocks += re.findall(r"^```\w+\n(.*?)^```\s*$", text, re.M | re.S)
    for file, options in re.findall(r"^```\{literalinclude\} (\S+)\n(.*?)^```", text, re.M | re.S):
        source = (path.parent / file).read_text("utf-8")
        name = re.search(r":pyobject: (\S+)", options)
        # Of a lesson any part may be copied; of a module of tests one check is shown.
        if name and file.startswith("../tests"):
            found = next(
                n for n in ast.walk(ast.parse(source)) if getattr(n, "name", "") == name[1]
            )
            source = ast.get_source_segment(source, found)
        blocks.append(source)
    shown = [line for block in blocks for line in block.splitlines()]
    long = [f"{len(line)} columns: {line}" for line in shown if len(line) > WIDTH]
    assert not long, f"a page shows {WIDTH} columns of code; these are longer:\n" + "\n".join(long)


def test_the_api_reference_lists_the_public_modules():
    """That each of their names is on the page is for the build to show: `test_back_matter.py`."""
    text = (ROOT / "book/api.md").read_text("utf-8")
    listed = re.findall(r"^\.\. automodule:: (\S+)$", text, re.M)
    assert len(listed) == len(set(listed)), f"twice in book/api.md: {sorted(listed)}"
    there = {name for name, _ in public.modules()}
    missing, gone = sorted(there - set(listed)), sorted(set(listed) - there)
    assert not missing and not gone, f"not in book/api.md: {missing}; no public module: {gone}"


def test_the_headings_of_the_api_reference_are_its_modules():
    text = (ROOT / "book/api.md").read_text("utf-8")
    headings = re.findall(r"^### `(.*)`$", text, re.M)
    assert headings == re.findall(r"^\.\. automodule:: (\S+)$", text, re.M)


def test_the_python_of_the_readme_is_of_this_package():
    """It compiles, and what it imports and calls of modules exists."""
    code = "\n".join(
        re.findall(r"^```python\n(.*?)^```$", (ROOT / "README.md").read_text("utf-8"), re.M | re.S)
    )
    tree = ast.parse(code)
    names: dict = {}
    imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert imports, "README has no Python"
    exec(compile(ast.Module(imports, []), "README.md", "exec"), names)
    missing = [
        ast.unparse(node)
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and isinstance(names.get(node.value.id), types.ModuleType)
        and not hasattr(names[node.value.id], node.attr)
    ]
    assert not missing, f"README uses what does not exist: {missing}"


@pytest.mark.parametrize(
    "file", ["README.md", "CONTRIBUTING.md", "RELEASE.md", "benchmarks/README.md"]
)
def test_files_and_targets_that_are_named_exist(file):
    text = (ROOT / file).read_text("utf-8")
    paths = re.findall(r"(?<![\w/.])(?:book|genbook|tests|tools|benchmarks)/[\w./-]*", text)
    paths = {p.rstrip(".") for p in paths if not re.search("hope|task4", p)}  # the recipes' own
    gone = sorted(path for path in paths if not (ROOT / path).exists())
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.M)
    called = re.findall(r"`make ([a-z-]+)", text)
    for block in re.findall(r"^```sh\n(.*?)^```$", text, re.M | re.S):
        called += re.findall(r"(?:^|&& )make ([a-z-]+)", block, re.M)
    unknown = sorted(set(called) - set(targets))
    assert called and not gone and not unknown, f"no such files: {gone}; no targets: {unknown}"
