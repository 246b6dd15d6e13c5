"""Sentences that seem to say something about a computed result and have no claim.

    python tests/book/unclaimed.py vae

prints those of a page. What only seems so, because it says what follows from a formula or what
somebody else found, is in `exceptions/vae.txt`: some words of each sentence, a line each.
"""

import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "book/_ext")]

import prose  # noqa: E402
from bookbuild.cells import CELL  # noqa: E402
from bookbuild.claims import quotes_of, without_claims  # noqa: E402

EXCEPTIONS = Path(__file__).with_name("exceptions")
RESULT = re.compile(
    r"\d|\b(?:twice|half|double[sd]?|thirds?|quarters?|tenth|hundredths?|per cent|tenfold|"
    r"most|mostly|few|fewer|more|less|least|nearly|almost|hardly|barely|clearly|far|much|several|"
    r"better|best|worse|worst|about|roughly|equally|agrees?|none of|majority|negligible|blurred|"
    r"beats?|outperforms?|exceeds?|drop(?:s|ped)?|decreases?|increases?|shrinks?|coincide|"
    r"grow(?:s|n)?|falls?|fell|rises?|improves?|fails?|wins?|loses?|hurts?|helps?|"
    r"(?:high|low|small|short|long|near|fast|slow|sharp|soft|bold|clear|narrow|dark|bright|great|"
    r"strong|weak|cheap|steep)(?:er|est)|(?:large|close|wide|late|noisie|easie|earlie)(?:r|st))\b",
    re.I,
)
END = re.compile(r"(?<=[.!?:])\s+(?=[A-Z□⟦(*“])")


class Sentence(NamedTuple):
    """A sentence of a page, and the line on which its passage begins."""

    page: str
    line: int
    text: str


def unclaimed(page: str, excepted: Sequence[str] | None = None) -> Iterator[Sentence]:
    """The sentences of a page near an output that seem to speak of a result, without a claim.

    excepted: words of the sentences to leave out; by default those of `exceptions`.
    """
    source = (ROOT / "book" / f"{page}.md").read_text("utf-8")
    quotes = [bare(quote) for quote in quotes_of(source)]
    excepted = exceptions(page) if excepted is None else excepted
    text = without_claims(source)
    near = sections_with_code(text)
    for passage in prose.passages(text):
        if passage.kind in ("heading", "exercise", "diagram") or not (
            passage.kind == "picture" or passage.line in near
        ):
            continue
        whole = prose.plain(passage.text)
        claimed = [span for quote in quotes for span in spans(quote, whole)]
        start = 0
        for sentence in END.split(whole):
            first = whole.index(sentence, start)
            start = last = first + len(sentence)
            if (
                RESULT.search(sentence)
                and not any(a < last and b > first for a, b in claimed)
                and not any(words in sentence for words in excepted)
            ):
                yield Sentence(page, passage.line, sentence)


def sections_with_code(text: str) -> set[int]:
    """The lines that come after a code cell in the same section."""
    # A comment in a cell looks like a heading.
    heads = CELL.sub(lambda cell: cell["head"] + "\n" * (cell[0].count("\n") - 1), text)
    lines, after = set(), False
    for number, line in enumerate(heads.splitlines(), start=1):
        if re.match(r"#+ ", line):
            after = line.startswith(("## Summary", "## What"))
        after = after or line.startswith("```{code-cell}")
        if after:
            lines.add(number)
    return lines


def spans(words: str, text: str) -> Iterator[tuple[int, int]]:
    """Where words occur in a text."""
    for found in re.finditer(re.escape(words), text):
        yield found.span()


def bare(quote: str) -> str:
    """Words of a page's source as `prose` gives them."""
    return prose.plain(" ".join(passage.text for passage in prose.passages(quote)))


def exceptions(page: str) -> list[str]:
    """Words of the sentences of a page that need no claim."""
    file = EXCEPTIONS / f"{page}.txt"
    return file.read_text("utf-8").splitlines() if file.exists() else []


if __name__ == "__main__":
    for page in sys.argv[1:]:
        for sentence in unclaimed(page):
            print(f"book/{sentence.page}.md:{sentence.line}: {sentence.text}")
