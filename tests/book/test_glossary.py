"""Each chapter links a term of the glossary where it first uses it."""

import re
from collections import Counter
from functools import cache
from pathlib import Path

import pytest
import yaml

import prose

ROOT = Path(__file__).resolve().parents[2]
BACK_MATTER = ("Teaching", "Back matter")  # parts of the contents that teach no terms
PARTS = yaml.safe_load((ROOT / "_toc.yml").read_text("utf-8"))["parts"]
CHAPTERS = [
    chapter["file"]
    for part in PARTS
    if part["caption"] not in BACK_MATTER
    for chapter in part["chapters"]
]

# Ordinary words as well, which a chapter may use in another sense than the glossary's.
ORDINARY = {
    "bit",
    "code",
    "conditional",
    "convex",
    "copy",
    "evidence",
    "hole",
    "independence",
    "marginal",
    "precision",
    "rank",
    "reconstruction",
    "score",
    "surprise",
    "warm-up",
}


@cache
def terms():
    """The terms of the glossary, in lower case."""
    body = re.search(r"```\{glossary\}\n(.*?)^```", text_of("book/glossary"), re.M | re.S)[1]
    return [term.lower() for term in re.findall(r"^([^\s:][^\n]*)\n  \S", body, re.M)]


def text_of(page):
    return (ROOT / f"{page}.md").read_text("utf-8")


@cache
def body(text):
    """The passages of a chapter less headings, pictures, and what it says that one will learn."""
    found, headings = [], 0
    for passage in prose.passages(text):
        headings += passage.kind == "heading"
        says_goals = passage.kind == "item" or passage.text.startswith("In this chapter")
        if passage.kind not in ("heading", "picture", "diagram") and not (
            headings == 1 and says_goals
        ):
            found.append(passage)
    return found


def links(text):
    """The terms that a page links."""
    return {
        term.lower()
        for passage in prose.passages(text)
        for term in re.findall(r"⟦([^|]*)\|", passage.text)
    }


@cache
def mention(term):
    """The pattern of a term, alone or in the plural."""
    return re.compile(rf"(?<![\w-]){re.escape(term)}(s|es)?(?![\w-])", re.I)


@cache
def longer_terms(term):
    """The patterns of those terms that contain this one as a word."""
    return [mention(other) for other in terms() if other != term and mention(term).search(other)]


def without_link(text, term):
    """The first passage in which a chapter uses `term`, where it does so without a link."""
    plain = mention(term)
    for passage in body(text):
        masked = passage.text
        for pattern in (re.compile(r"⟦[^⟧]*⟧"), *longer_terms(term)):
            masked = pattern.sub(lambda m: "□" * len(m[0]), masked)
        found, link = plain.search(masked), passage.text.lower().find(f"⟦{term}|")
        if found and not 0 <= link < found.start():
            return passage
        if link >= 0:
            return None
    return None


@pytest.mark.parametrize("page", CHAPTERS, ids=lambda page: page.split("/")[-1])
def test_the_first_use_of_a_term_is_a_link(page):
    text = text_of(page)
    missing = [
        f"line {passage.line}: make it {{term}}`{term}`: {passage.text[:60]}..."
        for term in terms()
        if term not in ORDINARY
        for passage in [without_link(text, term)]
        if passage
    ]
    assert not missing, "\n".join(missing)


@pytest.mark.parametrize("page", CHAPTERS, ids=lambda page: page.split("/")[-1])
def test_a_chapter_uses_terms_of_the_glossary(page):
    found = sorted(links(text_of(page)))
    assert len(found) >= 4, f"a chapter links at least 4 terms of the glossary; here: {found}"


def test_each_term_is_linked_by_a_chapter_and_each_link_is_a_term():
    linked = set().union(*(links(text_of(page)) for page in CHAPTERS))
    assert linked == set(terms()), (
        f"no chapter links {sorted(set(terms()) - linked)}; "
        f"not in the glossary: {sorted(linked - set(terms()))}"
    )


def test_the_examples_of_contributing_are_terms():
    examples = re.findall(r"\{term\}`([^`]+)`", (ROOT / "CONTRIBUTING.md").read_text("utf-8"))
    unknown = [example for example in examples if example.lower() not in terms()]
    assert examples and not unknown, f"CONTRIBUTING links what is no term: {unknown}"


def test_terms_are_in_the_glossary_once_and_in_order():
    twice = [term for term, count in Counter(terms()).items() if count > 1]
    assert not twice, f"twice in the glossary: {twice}"
    ordered = sorted(terms(), key=lambda term: term.replace("é", "e"))
    misplaced = [term for term, other in zip(terms(), ordered) if term != other]
    assert not misplaced, f"not in the order of the alphabet, from the first on: {misplaced}"
