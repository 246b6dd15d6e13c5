"""The prose is spelled right, has one term for one thing, and proves instead of asserting."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import prose

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "book").glob("*.md"))
RULES = yaml.safe_load(Path(__file__).with_name("vocabulary.yml").read_text("utf-8"))

each_page = pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)


def against_the_rules(text):
    """What a page says that it should not, in words."""
    return [
        f"line {passage.line}: {found[0]!r}; write {instead}"
        for passage in prose.passages(text)
        for never, instead in RULES.items()
        for found in re.finditer(
            rf"(?<![\w-])(?:{never})(?![\w-])", prose.plain(passage.text), re.I
        )
    ]


@each_page
def test_words_are_those_of_the_vocabulary(path):
    slips = against_the_rules(path.read_text("utf-8"))
    assert not slips, "\n".join(slips)


def test_spelling():
    where = ["book", "genbook", "tests", "README.md", "CONTRIBUTING.md", "RELEASE.md"]
    where += ["benchmarks/README.md", "_config.yml", "Makefile"]
    run = subprocess.run(
        [sys.executable, "-m", "codespell_lib", *where], cwd=ROOT, capture_output=True, text=True
    )
    assert run.stdout == "" and run.returncode == 0, run.stdout + run.stderr


SAMPLE = """\
# A heading

It can be shown that $x$ `dataset`, obviously.
A second line, as shown below: {term}`codes <code>`.

```{code-cell} python3
---
mystnb: {image: {alt: A gray box.}, figure: {name: fig-a, caption: The dataset.}}
---
obviously = "of course"
```

````{admonition} A box
:class: note

- We don't know.
````
"""


def test_prose_is_found_wherever_it_stands_and_code_is_not():
    found = [(passage.kind, passage.text) for passage in prose.passages(SAMPLE)]
    assert found == [
        ("heading", "A heading"),
        (
            "paragraph",
            "It can be shown that □ □, obviously. A second line, as shown below: ⟦code|codes⟧.",
        ),
        ("picture", "A gray box."),
        ("picture", "The dataset."),
        ("admonition", "We don't know."),
    ]


def test_each_slip_is_told_with_its_line():
    told = "\n".join(against_the_rules(SAMPLE))
    for slip in (
        "line 3: 'It can be shown'",
        "'obviously'",
        "'shown below'",
        "line 6: 'gray'",
        "line 6: 'dataset'",
        'line 16: "don\'t"',
    ):
        assert slip in told, told
    assert told.count("line") == 6
