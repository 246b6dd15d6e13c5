"""The bank of exam questions, and the exams that `genbook exam build` draws from it."""

import re
from collections import Counter
from pathlib import Path

import pytest
import yaml

import prose
from bookbuild.equations import PARSER
from genbook import cli
from genbook.lab import exam

ROOT = Path(__file__).resolve().parents[3]
BANK = exam.read_bank()
PAGES = "".join(path.read_text("utf-8") for path in sorted((ROOT / "book").glob("*.md")))
RULES = yaml.safe_load((ROOT / "tests/book/vocabulary.yml").read_text("utf-8"))

QUESTION = """\
# A chapter

## first
kind: compute
level: 1
minutes: 5
rests on: eq-elbo

How much is $1 + 1$?

**Answer.** It is $2$.

**Points.**

- 1: two
"""

each_question = pytest.mark.parametrize("question", BANK, ids=lambda q: f"{q.chapter}/{q.name}")


# Chapters that nobody has written questions about so far.
NONE_YET = ("transformer", "flow-matching", "one-step", "discrete-codes")


def test_every_chapter_has_questions_of_every_level_and_all_kinds_occur():
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text("utf-8"))
    pages = [chapter["file"] for part in toc["parts"] for chapter in part["chapters"]]
    chapters = [page.removeprefix("book/") for page in pages]
    assert (
        exam.CHAPTERS == [name for name in chapters if name not in NONE_YET][: len(exam.CHAPTERS)]
    )
    asked = Counter(question.chapter for question in BANK)
    assert list(asked) == exam.CHAPTERS and min(asked.values()) >= 3
    assert len(BANK) >= 64
    levels = Counter(question.level for question in BANK)
    assert set(levels) == set(exam.LEVELS) and min(levels.values()) >= 15
    assert {question.kind for question in BANK} == set(exam.KINDS)


@each_question
def test_a_question_is_of_its_chapter_and_rests_on_what_the_book_has(question):
    for label in question.rests_on.split(", "):
        assert f"({label})" in PAGES, f"the book has no {label}"
    chapter = (ROOT / f"book/{question.chapter}.md").read_text("utf-8")
    assert f"\n# {question.title}\n" in chapter
    assert any(label in chapter for label in question.rests_on.split(", "))


@each_question
def test_points_and_minutes_are_in_proportion(question):
    assert 2 <= question.worth <= 10
    assert 0.45 <= question.worth / question.minutes <= 1


@each_question
def test_formulas_are_such_as_pandoc_and_jupyter_read(question):
    for text in (question.text, question.answer, *(what for _, what in question.points)):
        plain = re.sub(r"```.*?```|`[^`]*`", "", text, flags=re.S)
        assert not re.search(r"\$\$[^$]*\n\s*\n[^$]*\$\$", plain), "an empty line in a formula"
        formulas = re.findall(r"(?<!\$)\$([^$]+)\$(?!\$)(.?)", plain.replace("$$", "\0"))
        for formula, after in formulas:
            assert formula.strip() == formula and not after.isdigit(), formula
        assert plain.replace("$$", "").count("$") % 2 == 0 and plain.count("$$") % 2 == 0
        macros = r"\\(KL|E|N|R)\b"
        assert not re.search(macros, plain), "a macro that only the book defines"


@each_question
def test_words_are_those_of_the_book(question):
    for text in (question.text, question.answer, *(what for _, what in question.points)):
        for passage in prose.passages(text):
            shown = prose.plain(passage.text)
            for never, instead in RULES.items():
                found = re.search(rf"(?<![\w-])(?:{never})(?![\w-])", shown, re.I)
                assert not found, f"{found[0]!r}; write {instead}"


def test_no_page_of_the_book_shows_the_bank():
    assert "../genbook/lab/exam" not in PAGES
    assert not any(question.answer in PAGES for question in BANK)


def test_the_whole_bank_is_written(tmp_path):
    sheet, key = exam.build(tmp_path / "exam")
    assert (sheet.name, key.name) == ("questions.md", "answers.md")
    sheet, key = sheet.read_text("utf-8"), key.read_text("utf-8")
    for question in BANK:
        assert question.text in sheet and question.text in key
        assert question.answer in key and question.answer not in sheet
    assert "**Points.**" in key and "Answer" not in sheet
    headings = [t for t in PARSER.parse(sheet) if t.type == "heading_open"]
    assert len(headings) == 1 + len(BANK)
    assert f"{len(BANK)} questions, {sum(q.minutes for q in BANK)} minutes" in sheet


@pytest.mark.parametrize("minutes", [45, 90, 180])
@pytest.mark.parametrize("seed", [0, 7, 2026])
def test_an_exam_is_spread_evenly_and_fills_its_time(minutes, seed):
    drawn = exam.draw(BANK, minutes, seed)
    assert minutes - 3 <= sum(question.minutes for question in drawn) <= minutes
    assert [q for q in BANK if q in drawn] == drawn, "in the order of the chapters"
    chapters = Counter(question.chapter for question in drawn)
    assert max(chapters.values()) <= 1 + len(drawn) // len(exam.CHAPTERS)
    levels = Counter(question.level for question in drawn)
    assert max(levels.values()) - min(levels[level] for level in exam.LEVELS) <= 2


def test_a_seed_draws_the_same_exam_again_and_another_seed_another(tmp_path):
    def drawn(seed, folder):
        return [p.read_text("utf-8") for p in exam.build(tmp_path / folder, minutes=60, seed=seed)]

    assert drawn(7, "a") == drawn(7, "b") != drawn(8, "c")
    (key,) = re.findall(r"seed (\d+)", drawn(None, "d")[1])
    assert drawn(int(key), "e") == drawn(int(key), "f")


def test_the_command_writes_some_chapters(tmp_path, capsys):
    out = tmp_path / "exam"
    assert cli.main(["exam", "build", str(out), "--chapters", "vae", "unet"]) == 0
    assert capsys.readouterr().out.split() == [str(out / "questions.md"), str(out / "answers.md")]
    key = (out / "answers.md").read_text("utf-8")
    assert key.count("\n## ") == sum(q.chapter in ("vae", "unet") for q in BANK)
    assert "`four-numbers`. Kind: read. Level 1: recall. Rests on: eq-elbo, eq-elbo-gap." in key


def test_a_teacher_has_questions_of_her_own(tmp_path, capsys):
    (tmp_path / "mine.md").write_text(QUESTION, encoding="utf-8")
    out = tmp_path / "exam"
    assert cli.main(["exam", "build", str(out), "--bank", str(tmp_path), "--minutes", "5"]) == 0
    assert "$1 + 1$" in (out / "questions.md").read_text("utf-8")


WRONG = {
    "kind": ("kind: compute", "kind: riddle", "question 'first' is of the kind riddle, not one of"),
    "level": ("level: 1", "level: 4", "question 'first' does not have the form"),
    "minutes": ("minutes: 5", "minutes: five", "question 'first' does not have the form"),
    "answer": ("**Answer.**", "Answer:", "question 'first' does not have the form"),
    "points": ("- 1: two", "- one point", "question 'first' has points that are not of the form"),
    "no name": ("## first", "## ", "question '' does not have the form"),
}


@pytest.mark.parametrize("old, new, error", WRONG.values(), ids=WRONG)
def test_a_fault_of_the_bank_is_named_in_one_line(old, new, error, tmp_path, capsys):
    (tmp_path / "mine.md").write_text(QUESTION.replace(old, new), encoding="utf-8")
    assert cli.main(["exam", "build", str(tmp_path / "exam"), "--bank", str(tmp_path)]) == 1
    message = capsys.readouterr().err
    assert error in message and str(tmp_path / "mine.md") in message and message.count("\n") == 1
    assert not (tmp_path / "exam").exists()


def test_what_cannot_be_written_is_named_in_one_line(tmp_path, capsys):
    def error(*args):
        assert cli.main(["exam", "build", str(tmp_path / "exam"), *args]) == 1
        out, message = capsys.readouterr()
        assert not out and message.startswith("genbook: ") and message.count("\n") == 1
        return message

    empty, twice, latin = tmp_path / "empty", tmp_path / "twice", tmp_path / "latin"
    for folder in (empty, twice, latin):
        folder.mkdir()
    (twice / "mine.md").write_text(QUESTION + "\n" + QUESTION.partition("\n\n")[2], "utf-8")
    (latin / "mine.md").write_bytes(b"# \xe9")
    assert "the bank has no chapter vea, only probability" in error("--chapters", "vea")
    assert "no question is short enough for 2 minutes" in error("--minutes", "2")
    assert "holds no file of questions" in error("--bank", str(empty))
    assert "two questions are called first" in error("--bank", str(twice))
    assert "not a text in UTF-8" in error("--bank", str(latin))
    (tmp_path / "exam").mkdir()
    (tmp_path / "exam/answers.md").write_text("mine", encoding="utf-8")
    assert "answers.md exists already" in error()
    assert [path.name for path in (tmp_path / "exam").iterdir()] == ["answers.md"]
