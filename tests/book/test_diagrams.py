"""The diagrams: drawn in the theme's colours, described in words, with the shapes of the code."""

import base64
import re
import shutil
from pathlib import Path
from xml.etree import ElementTree

import nbformat
import paddle
import pytest
import yaml

from bookbuild import diagrams
from genbook.autoencoder import AutoEncoder
from genbook.data import load
from genbook.diffusion import GaussianDiffusion, cosine_beta_schedule
from genbook.training.recipes import diffusion as pixels
from genbook.training.recipes import latent as codes

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "book/diagrams").iterdir(), key=lambda path: path.stem)
STYLE = (ROOT / "book/_static/diagrams.css").read_text("utf-8")
USE = re.compile(r"^```\{diagram\} (\S+)\n---\n(.*?)^---\n(.*?)^```$", re.M | re.S)
PAGES = {path.stem: path.read_text("utf-8") for path in (ROOT / "book").glob("*.md")}
USES = [(page, use) for page, text in PAGES.items() for use in USE.finditer(text)]
TEXT_WIDTH = 688  # pixels of a page's text on a laptop
each_file = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
each_use = pytest.mark.parametrize("page, use", USES, ids=[use[1] for _, use in USES])


def test_every_diagram_is_used_once_and_no_other():
    assert len(re.findall(r"\{diagram\}", "".join(PAGES.values()))) == len(USES)
    assert sorted(use[1] for _, use in USES) == [path.stem for path in FILES]


@each_use
def test_a_diagram_is_described_and_announced(page, use):
    options = yaml.safe_load(use[2])
    assert options["name"].startswith("fig-") and use[3].strip()
    assert len(options["alt"].split()) > 20, "an alternative text that says what is drawn"
    before = PAGES[page][: use.start()]
    assert f"{{numref}}`{options['name']}`" in before, "the text refers to it before it comes"


@each_file
def test_a_file_is_small_and_has_no_colours_styles_or_ids(path):
    text = path.read_text("utf-8")
    assert len(text.splitlines()) <= 120 and len(text.encode()) < 8000
    assert not re.findall(r"#[0-9a-fA-F]{3,8}\b|rgb|hsl|\bfill=|\bstroke=|style|\bid=", text)
    elements = [*ElementTree.fromstring(text).iter()]
    tags = {element.tag.removeprefix(diagrams.SVG) for element in elements}
    assert tags <= {"svg", "g", "rect", "circle", "path", "text", "tspan"}
    unknown = {
        name
        for element in elements
        for name in element.get("class", "").split()
        if not re.search(rf"\.{name}\b", STYLE)
    }
    assert not unknown, f"classes that the style has not: {unknown}"
    _, _, width, height = map(float, elements[0].get("viewBox").split())
    assert width <= TEXT_WIDTH and height <= 480


def parts_of(network, *inputs):
    """By their names, the shape of what each part of a network gives and takes, for one image."""
    found = {}

    def note(name):
        def hook(layer, inputs, output):
            found[name], found[f"{name} input"] = output.shape[1:], inputs[0].shape[1:]

        return hook

    for name, part in network.named_sublayers():
        part.register_forward_post_hook(note(name))
    network.eval()
    with paddle.no_grad():
        output = network(*inputs)
    outputs = output if isinstance(output, tuple) else [output]
    return {**found, "x": inputs[0].shape[1:], "output": outputs[0].shape[1:]}


@pytest.fixture(scope="module")
def shapes():
    """The shapes in the networks that the recipes train, by diagram and part."""
    digits, process = load("digits"), GaussianDiffusion(cosine_beta_schedule(10))
    with pytest.MonkeyPatch.context() as patch:
        for recipe in (pixels, codes):
            patch.setattr(recipe, "fit", lambda *arguments, **options: {})
        unet, _ = pixels.train_diffusion(digits, process)
        vae, _ = codes.train_first_stage(digits)
        denoiser, _, _ = codes.train_latent_diffusion(digits, vae, process)
    t = paddle.to_tensor([0])
    image = paddle.to_tensor(digits.images[:1])
    in_unet = parts_of(unet, image, t)
    of_vae = parts_of(vae, image)
    return {
        "autoencoder": parts_of(AutoEncoder(in_channels=3), image.expand([1, 3, 16, 16])),
        "unet": in_unet,
        "resblock": {**in_unet, "up1.norm1": in_unet["up1 input"]},
        "latent-diffusion": {
            "x": of_vae["x"],
            "x_hat": of_vae["output"],
            "mu": of_vae["to_mu"],
            "denoiser": parts_of(denoiser, paddle.zeros([1, vae.latent_dim]), t)["output"],
        },
    }


@each_file
def test_shapes_are_those_of_the_networks(path, shapes):
    labels = [e for e in ElementTree.parse(path).iter() if "shape" in e.get("class", "").split()]
    for label in labels:
        shape = [int(n) for n in label.get("data-shape").split(",")]
        assert label.text == "×".join(map(str, shape))
        assert shape == list(shapes[path.stem][label.get("data-part")]), label.get("data-part")
    assert bool(labels) == (path.stem in shapes)


def set_as(formula):
    """The parts of a formula as (text, class, dx, dy)."""
    text = ElementTree.Element("text")
    text.text = formula
    diagrams.set_formula(text)
    return [(p.text, *(p.get(k, "") for k in ("class", "dx", "dy"))) for p in text]


def test_a_formula_has_italic_letters_and_shifted_indices():
    assert set_as("q_{φ}(z)") == [
        ("q", "i", "", ""),
        ("φ", "i small", "", "4"),
        ("(", "", "", "-4"),
        ("z", "i", "", ""),
        (")", "", "", ""),
    ]
    assert [part[:2] for part in set_as("log 2")] == [("log", ""), ("\u20052", "")]
    over = set_as("x\u0302_{t−1}")
    assert [part[0] for part in over] == ["x", "\u02c6", "t", "−1"]
    assert over[1][2].startswith("-") and over[2][3] == "4"


def test_an_arrow_has_a_head_of_its_colour_under_a_name_of_its_own():
    source = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 5">{}</svg>'
    lines = (
        '<path class="flow" d="M0 0"/><path class="grad" d="M0 0"/><path class="flow" d="M1 0"/>'
    )
    svg = diagrams.drawn("one", source.format(lines), "An alternative text")
    heads = re.findall(r'<marker id="([\w-]+)" class="head (\w+)"', svg)
    assert heads == [("diagram-one-ink", "ink"), ("diagram-one-loss", "loss")]
    assert svg.count("url(#diagram-one-ink)") == 2 and svg.count("url(#diagram-one-loss)") == 1
    assert 'role="img"' in svg and 'aria-label="An alternative text"' in svg


A_DIAGRAM = """See {numref}`fig-a`.

```{diagram} vae-plate
---
name: fig-a
alt: A code & an image.
---
A model of $x$.
```

```{code-cell} python3
print(1)
```
"""


@pytest.fixture(scope="module")
def built(new_book, tmp_path_factory):
    """A book whose page shows a diagram, built as `make book` does."""
    book = new_book(tmp_path_factory.mktemp("diagrams") / "book")
    book.page("page", A_DIAGRAM)
    build = book.build()
    assert build.code == 0, build.err
    return book


def test_a_page_holds_the_picture_as_a_numbered_figure(built):
    page = built.html("page")
    assert re.search(r'<figure class="[^"]*\bdiagram\b[^"]*" id="fig-a">', page)
    assert re.search(r'<svg [^>]*role="img"[^>]*aria-label="A code &amp; an image\."', page)
    assert re.search(r'href="#fig-a"[^>]*><span class="std std-numref">Fig\. 1\.1</span>', page)
    assert "_static/diagrams.css" in page


def test_a_notebook_has_the_picture_in_it(built):
    notebook = nbformat.read(built.root / "_build/html/_sources/book/page.ipynb", 4)
    [cell] = [cell.source for cell in notebook.cells if cell.source.startswith("<img")]
    assert "A code &amp; an image." in cell and "**Fig. 1.1** A model of $x$." in cell
    svg = base64.b64decode(re.search('base64,([^"]+)', cell)[1]).decode()
    ElementTree.fromstring(svg)
    assert "--data:" in svg and "background: #fff" in svg


@pytest.mark.parametrize("builder", ["latex", "gettext", "text"])
def test_other_builders_have_its_words(built, builder):
    shutil.rmtree(built.root / "_build/.doctrees")  # those of web pages do not fit gettext
    build = built.build("--builder", "custom", "--custom-builder", builder)
    assert build.code == 0, build.err
    folder = built.root / "_build" / builder
    files = [path for path in folder.rglob("*") if path.suffix in (".tex", ".pot", ".txt")]
    said = "".join(path.read_text("utf-8", "replace") for path in files)
    assert "A model of" in said
    assert "an image." in said or builder == "gettext"


def test_an_edit_of_a_picture_reaches_the_page_and_runs_nothing(built):
    path = built.root / "book/diagrams/vae-plate.svg"
    built.write(f"book/diagrams/{path.name}", path.read_text("utf-8").replace("model", "pattern"))
    assert built.build().ran() == set()
    assert ">pattern</text>" in built.html("page")


def test_mistakes_are_named(book):
    diagram = A_DIAGRAM.split("```{code-cell}")[0]
    book.write("book/diagrams/broken.svg", "<svg><path></svg>")
    mistakes = {
        "file": ("vae-plate", "typo", "no diagram typo: there is no file book/diagrams/typo.svg"),
        "xml": ("vae-plate", "broken", "book/diagrams/broken.svg is not well-formed: mismatched"),
        "alt": ("alt: A code & an image.\n", "", "the diagram vae-plate has no option `alt`"),
        "name": ("name: fig-a\n", "", "the diagram vae-plate has no option `name`"),
        "caption": ("A model of $x$.\n", "", "the diagram vae-plate has no caption"),
    }
    for page, (right, wrong, _) in mistakes.items():
        book.page(page, diagram.replace(right, wrong))
    build = book.build()
    assert build.code != 0
    for page, (*_, told) in mistakes.items():
        assert re.search(rf"{page}\.md:\d+: .*{re.escape(told)}", build.err), build.err
