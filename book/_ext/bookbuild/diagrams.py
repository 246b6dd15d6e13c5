"""Diagrams: SVG written by hand in `book/diagrams`, part of the page, in the theme's colours.

    ```{diagram} unet
    ---
    name: fig-unet
    alt: What there is to see, for a person who cannot see it.
    ---
    The caption.
    ```

A page holds the SVG itself, whose classes `book/_static/diagrams.css` colours. In the files an
arrow is a line of the class `flow` or `grad`, and a formula is a text of the class `m`, with
subscripts and superscripts as in `q_{φ}(z | x)`. A notebook shows the same as a picture, and
a builder of no web pages the alternative text.
"""

from __future__ import annotations

import base64
import re
from html import escape
from pathlib import Path
from xml.etree import ElementTree

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.util.docutils import SphinxDirective

ElementTree.register_namespace("", "http://www.w3.org/2000/svg")
SVG = "{http://www.w3.org/2000/svg}"
COLOURS = ("data", "network", "noise", "loss", "code")  # what may be drawn in a colour
HEAD = "M0 1 L10 5 L0 9 L2.5 5 Z"  # of an arrow
# A part of a formula: one that is shifted, a letter of its own with its accent, anything else
PARTS = re.compile(
    r"(?P<shift>[_^])\{(?P<inner>[^}]*)\}|(?P<letter>(?<![A-Za-z])[A-Za-zα-ω](?![A-Za-z]))"
    r"(?P<accent>[\u0302\u0303]?)|(?P<rest>[A-Za-z]{2,}|[^A-Za-zα-ω_^]+)"
)
DOWN = {"_": 4, "^": -6}
ACCENTS = {"\u0302": "\u02c6", "\u0303": "\u02dc"}  # that every font has


class picture(nodes.General, nodes.Element):
    """The SVG of a diagram. Attributes: name, source (its text) and alt."""


class Diagram(SphinxDirective):
    """A diagram as a numbered figure; the argument is the name of its file."""

    required_arguments = 1
    has_content = True
    option_spec = {"name": directives.unchanged, "alt": directives.unchanged}

    def run(self):
        """The figure."""
        name = self.arguments[0]
        path = Path(self.env.srcdir, "book/diagrams", f"{name}.svg")
        if not path.is_file():
            raise self.error(f"no diagram {name}: there is no file book/diagrams/{name}.svg")
        for option in ("name", "alt"):
            if not self.options.get(option, "").strip():
                raise self.error(f"the diagram {name} has no option `{option}`")
        if not self.content:
            raise self.error(f"the diagram {name} has no caption")
        self.env.note_dependency(str(path))
        source, alt = path.read_text("utf-8"), " ".join(self.options["alt"].split())
        try:
            ElementTree.fromstring(source)
        except ElementTree.ParseError as error:
            raise self.error(f"book/diagrams/{name}.svg is not well-formed: {error}") from None
        figure = nodes.figure("", picture(name=name, source=source, alt=alt), classes=["diagram"])
        text = nodes.Element()
        self.state.nested_parse(self.content, self.content_offset, text)
        caption = nodes.caption(text[0].rawsource, "", *text[0].children)
        figure += caption
        for node in (figure, caption):
            self.set_source_info(node)
        self.add_name(figure)
        return [figure]


def drawn(name: str, source: str, alt: str, style: str = "") -> str:
    """The SVG to show: with its arrowheads, its formulas set, and ids that no other has.

    style: CSS to put into it, where it is a file by itself.
    """
    root = ElementTree.fromstring(source)
    root.attrib |= {"role": "img", "aria-label": alt, "class": "diagram-picture"}
    width, height = root.get("viewBox", "").split()[2:]
    root.set("style", f"--width: {width}px")
    heads = ElementTree.Element(f"{SVG}defs")
    for element in list(root.iter()):
        classes = element.get("class", "").split()
        if not {"flow", "grad"}.isdisjoint(classes):
            colour = next((c for c in COLOURS if c in classes), "ink")
            colour = "loss" if "grad" in classes else colour
            element.set("marker-end", f"url(#diagram-{name}-{colour})")
            if all(head.get("class") != f"head {colour}" for head in heads):
                heads.append(head_of(f"diagram-{name}-{colour}", colour))
        if "m" in classes:
            set_formula(element)
    root.insert(0, heads)
    if style:
        ElementTree.SubElement(root, f"{SVG}style").text = style
        root.attrib |= {"width": width, "height": height}
        root.set("style", "background: #fff")
    return re.sub(r">[ \n]+<", "><", ElementTree.tostring(root, encoding="unicode"))


def head_of(identity: str, colour: str) -> ElementTree.Element:
    """The head of the arrows of one colour; it touches what is 2 units beyond the line's end."""
    box = {"viewBox": "0 0 10 10", "refX": "8", "refY": "5", "orient": "auto"}
    size = {"markerUnits": "userSpaceOnUse", "markerWidth": "10", "markerHeight": "10"}
    marker = ElementTree.Element(f"{SVG}marker", {"id": identity, "class": f"head {colour}"})
    marker.attrib |= box | size
    ElementTree.SubElement(marker, f"{SVG}path", {"d": HEAD})
    return marker


def set_formula(text: ElementTree.Element) -> None:
    """Set a formula: single letters in italics, subscripts and superscripts shifted."""
    parts, text.text, height = list(PARTS.finditer(text.text or "")), None, 0

    def put(shown, kind="", small=False, down=0, **moved):
        nonlocal height
        part = ElementTree.SubElement(text, f"{SVG}tspan", moved)
        part.text = shown.replace(" ", "\u2005")
        if kind or small:
            part.set("class", f"{kind} small".strip() if small else kind)
        if down != height:
            part.set("dy", str(down - height))
        height = down

    back: dict[str, str] = {}
    for part in parts:
        if part["shift"]:
            for inner in PARTS.finditer(part["inner"]):
                kind = "i" if inner["letter"] else ""
                put(inner[0], kind, small=True, down=DOWN[part["shift"]])
        elif part["letter"]:
            put(part["letter"], "i", **back)
        else:
            put(part["rest"], **back)
        back = {}
        if part["accent"]:  # over the letter, and then on as if it were not there
            put(ACCENTS[part["accent"]], dx="-0.37em")
            back = {"dx": "0.04em"}


def as_image(node: picture, static: Path) -> str:
    """An HTML image of the diagram in the colours of a light page, complete in itself.

    static: the folder of the style.
    """
    style = (static / "diagrams.css").read_text("utf-8")
    text = drawn(node["name"], node["source"], node["alt"], style)
    data = base64.b64encode(text.encode()).decode()
    return f'<img alt="{escape(node["alt"])}" src="data:image/svg+xml;base64,{data}">'


def visit_html(self, node):
    """Write the SVG into the page, in a box in which it scrolls where it is too wide."""
    svg = drawn(node["name"], node["source"], node["alt"])
    self.body.append(f'<div class="diagram-box">{svg}</div>')
    raise nodes.SkipNode


def visit_latex(self, node):
    """Write the alternative text in place of the picture."""
    self.body.append(rf"\textit{{{self.encode(node['alt'])}}}" + "\n")
    raise nodes.SkipNode


def visit_text(self, node):
    """Write the alternative text."""
    self.add_text(f"[{node['alt']}]")
    raise nodes.SkipNode


def skip(self, node):
    """Leave the picture out; its caption says what it means."""
    raise nodes.SkipNode


def setup(app):
    """Add the directive, and what each builder makes of it."""
    app.add_directive("diagram", Diagram)
    app.add_node(
        picture,
        html=(visit_html, None),
        latex=(visit_latex, None),
        text=(visit_text, None),
        man=(skip, None),
        texinfo=(skip, None),
    )
