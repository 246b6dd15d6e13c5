"""A bank of exam questions with answers, and exams that are drawn from it.

Each chapter has a Markdown file beside this one. A question begins with `## name` and what is known
about it; then come its text, `**Answer.**`, and under `**Points.**` a list of what earns them.
"""

from __future__ import annotations

import dataclasses
import re
import secrets
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from random import Random

BANK = Path(__file__).parent
CHAPTERS = """probability divergence data autoencoder vae likelihood latent-space diffusion-forward
diffusion-reverse unet diffusion-bound score-and-flow solvers guidance filling-in pitfalls judging
improving latent-diffusion comparison scaling""".split()
KINDS = ("compute", "derive", "design", "mistake", "predict", "read", "true-false")
LEVELS = {1: "recall", 2: "apply", 3: "derive or judge"}

_QUESTION = re.compile(
    r"(\S+)\nkind: (\S+)\nlevel: ([1-3])\nminutes: ([1-9]\d*)\nrests on: (.+?)\n\s*\n"
    r"(.+?)\n\s*\n\*\*Answer\.\*\*\s+(.+?)\n\s*\n\*\*Points\.\*\*\s*\n(.+)",
    re.S,
)


class ExamError(RuntimeError):
    """An exam that cannot be made; the message says why, in one line."""


@dataclasses.dataclass(frozen=True)
class Question:
    """A question of the bank: of the file `chapter` with the heading `title`.

    rests_on: names of the book's equations. points: how many, and what earns them.
    """

    chapter: str
    title: str
    name: str
    kind: str
    level: int
    minutes: int
    rests_on: str
    text: str
    answer: str
    points: tuple[tuple[int, str], ...]

    @property
    def worth(self) -> int:
        """All points of the question."""
        return sum(points for points, _ in self.points)


def read_bank(folder: str | Path = BANK) -> list[Question]:
    """All questions in the Markdown files of a folder, in the order of the book's chapters."""
    place = {chapter: k for k, chapter in enumerate(CHAPTERS)}
    paths = sorted(Path(folder).glob("*.md"), key=lambda p: (place.get(p.stem, len(place)), p.stem))
    questions: dict[tuple[str, str], Question] = {}
    for path in paths:
        try:
            title, *parts = re.split(r"^## ", path.read_text(encoding="utf-8"), flags=re.M)
        except UnicodeDecodeError:
            raise ExamError(f"{path} is not a text in UTF-8") from None
        for part in parts:
            question = _question(path, title.strip().removeprefix("# "), part)
            if questions.setdefault((path.stem, question.name), question) is not question:
                raise ExamError(f"{path}: two questions are called {question.name}")
    if not questions:
        raise ExamError(f"{folder} holds no file of questions that ends in .md")
    return list(questions.values())


def _question(path: Path, title: str, part: str) -> Question:
    where, found = f"{path}: question {part.splitlines()[0]!r}", _QUESTION.match(part)
    if not found:
        raise ExamError(f"{where} does not have the form of the others")
    name, kind, level, minutes, rests_on, text, answer, scheme = found.groups()
    if kind not in KINDS:
        raise ExamError(f"{where} is of the kind {kind}, not one of {', '.join(KINDS)}")
    points = re.findall(r"^- ([1-9]\d*): (.+)$", scheme, re.M)
    if len(points) < len(scheme.strip().splitlines()):
        raise ExamError(f"{where} has points that are not of the form '- 2: what earns them'")
    earned = tuple((int(worth), what) for worth, what in points)
    about = path.stem, title, name, kind, int(level), int(minutes)
    return Question(*about, rests_on, text, answer, earned)


def draw(questions: Sequence[Question], minutes: int, seed: int) -> list[Question]:
    """Questions for so many minutes at most, spread evenly over chapters, levels and kinds."""
    drawn: list[Question] = []
    rest = sorted(questions, key=lambda q: Random(f"{seed} {q.chapter} {q.name}").random())
    left = minutes
    while rest := [question for question in rest if question.minutes <= left]:
        had = Counter(label for q in drawn for label in (q.chapter, q.level, q.kind))
        best = min(rest, key=lambda q: (had[q.chapter], had[q.level], had[q.kind]))
        rest.remove(best)
        drawn.append(best)
        left -= best.minutes
    if not drawn:
        raise ExamError(f"no question is short enough for {minutes} minutes")
    return sorted(drawn, key=questions.index)


def build(
    out: str | Path,
    chapters: Collection[str] = (),
    minutes: int | None = None,
    seed: int | None = None,
    bank: str | Path = BANK,
) -> tuple[Path, Path]:
    """Write questions.md, for students, and answers.md, for yourself, into the folder `out`.

    chapters: to ask about, or all. minutes: of an exam that is drawn; all questions if None. seed:
    of the draw; by chance if None. Returns the two paths. Raises ExamError where there is nothing
    to write, and where a file of these names exists.
    """
    questions = read_bank(bank)
    known = list(dict.fromkeys(question.chapter for question in questions))
    if unknown := [chapter for chapter in chapters if chapter not in known]:
        raise ExamError(f"the bank has no chapter {unknown[0]}, only {', '.join(known)}")
    questions = [q for q in questions if not chapters or q.chapter in chapters]
    drawn = "All questions."
    if minutes is not None:
        seed = secrets.randbelow(10**6) if seed is None else seed
        questions = draw(questions, minutes, seed)
        drawn = f"Drawn for {minutes} minutes with the seed {seed}."
    paths = Path(out) / "questions.md", Path(out) / "answers.md"
    for path in paths:
        if path.exists():
            raise ExamError(f"{path} exists already: name another folder, or remove it")
    Path(out).mkdir(parents=True, exist_ok=True)
    time, worth = sum(q.minutes for q in questions), sum(q.worth for q in questions)
    total = f"{len(questions)} questions, {time} minutes, {worth} points."
    sheet, key = ["# Exam", total], ["# Answers", f"{total} {drawn}"]
    for k, question in enumerate(questions, 1):
        head = f"## Question {k} ({question.worth} points, {question.minutes} minutes)"
        sheet += [head, question.text]
        about = f"{question.title}, `{question.name}`. Kind: {question.kind}. "
        about += f"Level {question.level}: {LEVELS[question.level]}. Rests on: {question.rests_on}."
        key += [head, about, question.text, f"**Answer.** {question.answer}"]
        key += ["**Points.**", "\n".join(f"- {points}: {what}" for points, what in question.points)]
    for path, parts in zip(paths, (sheet, key)):
        path.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    return paths
