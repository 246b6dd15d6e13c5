"""The prose of a MyST page: paragraphs, captions and alternative texts, without code and math."""

import re
from typing import NamedTuple

import yaml

from bookbuild.equations import NO_TEXT, PARSER


class Passage(NamedTuple):
    """A paragraph or heading: where it stands, what it is part of, and its text.

    kind: "paragraph", "heading", "item" (of a list), "picture" (caption or alternative text) or
    the name of the directive that it stands in. In the text, a formula, a piece of code or a
    reference is a "□", and a link to the glossary is ⟦term|words shown⟧.
    """

    line: int
    kind: str
    text: str


def passages(text, first_line=1, kind=None):
    """The passages of a page, or of what stands in a directive of it, in order."""
    items, heading = 0, False
    for token in PARSER.parse(text):
        line = first_line + token.map[0] if token.map else first_line
        items += {
            "bullet_list_open": 1,
            "ordered_list_open": 1,
            "bullet_list_close": -1,
            "ordered_list_close": -1,
        }.get(token.type, 0)
        heading = token.type == "heading_open" or (heading and token.type != "heading_close")
        if token.type == "inline":
            inside = "heading" if heading else "item" if items else "paragraph"
            yield Passage(line, kind or inside, words(token))
        elif token.type in ("fence", "colon_fence"):
            directive = re.match(r"\{([\w:-]+)\}", token.info.strip())
            if directive and directive[1] == "code-cell":
                yield from pictures(token.content, line)
            elif directive and directive[1] == "diagram":
                _, options, caption = token.content.split("---\n", 2)
                for said in (yaml.safe_load(options)["alt"], caption):
                    yield from (p._replace(line=line, kind="diagram") for p in passages(said))
            elif directive and directive[1] not in (*NO_TEXT, "math", "eval-rst", "bibliography"):
                content = re.sub(
                    r"\A(:[\w-]+:.*\n)+", lambda m: "\n" * m[0].count("\n"), token.content
                )
                yield from passages(content, line + 1, directive[1])


def pictures(cell, line):
    """Caption and alternative text of a code cell that draws."""
    options = re.match(r"---\n(.*?)\n---\n", cell, re.S)
    if options:
        drawn = (yaml.safe_load(options[1]) or {}).get("mystnb", {})
        for key, name in (("image", "alt"), ("figure", "caption")):
            if drawn.get(key, {}).get(name):
                yield from (
                    p._replace(line=line, kind="picture") for p in passages(drawn[key][name])
                )


def words(token):
    """The text of an inline token."""
    out = []
    for child in token.children:
        if child.type == "text":
            out.append(child.content)
        elif child.type in ("softbreak", "hardbreak"):
            out.append(" ")
        elif child.type == "myst_role" and child.meta["name"] == "term":
            shown, _, term = re.match(r"([^<]*?)\s*(<(.*)>)?$", child.content, re.S).groups()
            out.append(f"⟦{' '.join((term or shown).split())}|{' '.join(shown.split())}⟧")
        elif child.type in ("myst_role", "math_inline", "code_inline", "image"):
            out.append("□")
    return "".join(out)


def plain(text):
    """A passage as its reader sees it, links included."""
    return re.sub(r"⟦[^|⟧]*\|([^⟧]*)⟧", r"\1", text)
