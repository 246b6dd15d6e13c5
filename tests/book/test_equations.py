"""Every numbered equation has a name, and every claim among them a check."""

import ast
import re
from collections import Counter

import confirm
import pytest

from bookbuild import equations
from bookbuild.equations import Check, Equation, equations_of


def check_functions():
    """Every test function in tests/equations: its file, itself, and the equations it names."""
    for path in sorted((equations.ROOT / "tests/equations").glob("test_*.py")):
        for node in ast.parse(path.read_text("utf-8")).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                marks = [
                    d
                    for d in node.decorator_list
                    if isinstance(d, ast.Call) and ast.unparse(d.func) == "pytest.mark.checks"
                ]
                yield path.name, node, [ast.literal_eval(mark.args[0]) for mark in marks]


def faults(book, checked):
    """What is wrong between the equations and the names that checks give, in words."""
    found = []
    first = {}
    for equation in book:
        where = f"{equation.page}:{equation.line}"
        if not equation.label:
            found.append(
                f"{where}: a numbered equation without a name; "
                "write $$ ... $$ (eq-name), or `align*` for no number"
            )
        elif not re.match(r"(eq|def)-\w", equation.label):
            found.append(f"{where}: {equation.label} starts with neither eq- nor def-")
        elif equation.label in first:
            found.append(f"{where}: {equation.label} is taken by {first[equation.label]}")
        elif equation.label.startswith("eq-") and equation.label not in checked:
            found.append(f"{where}: {equation.label} has no check in tests/equations")
        first.setdefault(equation.label, where)
    found += [
        f"tests/equations: a check of {label}, which the book does not have"
        for label in sorted(checked - first.keys())
    ]
    return found


SOURCE = r"""
Unnumbered, and so nobody's business: $$x$$ and

$$
x = 1
$$

$$
a = b
$$ (eq-plain)

```{math}
:label: eq-directive
c = d
```

1. In a list:

   $$
   e = f
   $$ (def-list)

:::{admonition} A box
```{note}
$$
g = h
$$ (eq-nested)
```
:::

\begin{align*}
i = j
\end{align*}

```{code-cell} python3
text = '''
$$
k = l
$$ (eq-code)
'''
```

\begin{align}
m = n
\end{align}
"""


def test_equations_are_found_wherever_they_stand():
    found = [
        (e.label, e.line, e.latex.split("\n")[-2].strip()) for e in equations_of(SOURCE, "a.md")
    ]
    assert found == [
        ("eq-plain", 8, "a = b"),
        ("eq-directive", 12, "c = d"),
        ("def-list", 19, "e = f"),
        ("eq-nested", 25, "g = h"),
        ("", 43, r"m = n"),
    ]


@pytest.mark.parametrize(
    ("labels", "checked", "complaint"),
    [
        (["eq-a"], set(), "eq-a has no check"),
        (["eq-a"], {"eq-a", "eq-b"}, "a check of eq-b, which the book does not have"),
        (["eq-a", "eq-a"], {"eq-a"}, "eq-a is taken by a.md:1"),
        (["def-a", "def-a"], set(), "def-a is taken by a.md:1"),
        (["a"], set(), "a starts with neither eq- nor def-"),
        ([""], set(), "without a name"),
    ],
)
def test_each_kind_of_fault_is_found(labels, checked, complaint):
    [found] = faults([Equation(label, "a.md", i + 1) for i, label in enumerate(labels)], checked)
    assert complaint in found


def test_definitions_need_no_check_and_may_have_one():
    book = [Equation("eq-a", "a.md", 1), Equation("def-a", "a.md", 2), Equation("def-b", "a.md", 3)]
    assert faults(book, {"eq-a", "def-b"}) == []


def test_every_equation_of_the_book_is_checked_and_every_check_has_its_equation():
    checked = {label for _, _, labels in check_functions() for label in labels}
    found = faults(equations.equations_of_book(), checked)
    assert not found, "\n".join(found)


def test_a_person_has_held_each_formula_against_its_check():
    confirmed = confirm.confirmed()
    new = [
        e.label for e in equations.equations_of_book() if confirmed.pop(e.label, "") != e.digest()
    ]
    assert not new, (
        f"new or changed: {', '.join(new)}; to compare each with its checks and confirm it, run "
        "python tests/equations/confirm.py"
    )
    assert not confirmed, f"tests/equations/confirmed.txt: not in the book: {', '.join(confirmed)}"


def test_an_interrupted_comparison_keeps_what_was_confirmed(monkeypatch, tmp_path, capsys):
    lines = [line.split() for line in confirm.CONFIRMED.read_text("utf-8").splitlines()]
    old = {label: "0" if label.startswith("eq-kl-standard") else d for label, d in lines}
    text = "".join(f"{label} {digest}\n" for label, digest in old.items())
    monkeypatch.setattr(confirm, "CONFIRMED", tmp_path / "confirmed.txt")
    confirm.CONFIRMED.write_text(text.replace("eq-elbo-linear ", "eq-gone "), "utf-8")
    answers = iter("y")

    def answer(question):
        for said in answers:
            return said
        raise KeyboardInterrupt

    monkeypatch.setattr("builtins.input", answer)
    with pytest.raises(KeyboardInterrupt):
        confirm.main([])
    assert "def gaussian_kl" in capsys.readouterr().out  # which the check calls
    kept = dict(lines)
    del kept["eq-elbo-linear"]
    assert confirm.confirmed() == kept


def test_any_change_of_a_formula_is_seen():
    plus, minus, wrapped = (Equation("eq-a", "a.md", 1, s) for s in ("a + b", "a - b", "a\n + b\n"))
    assert plus.digest() == wrapped.digest() != minus.digest()


def test_every_check_names_one_equation_and_says_what_it_does():
    wrong = []
    for file, function, labels in check_functions():
        where = f"{file}:{function.lineno}: {function.name}"
        if len(labels) != 1:
            wrong.append(f"{where} must name one equation")
        if "agree" not in [argument.arg for argument in function.args.args]:
            wrong.append(f"{where} must take `agree`")
        if not ast.get_docstring(function):
            wrong.append(f"{where} must say how it checks")
    assert not wrong, "\n".join(wrong)


def test_each_checked_equation_is_put_into_words_once():
    said = Counter()
    for _, function, labels in check_functions():
        said.update({labels[0]: len(function.decorator_list[-1].args) - 1})
    wrong = [f"{label}: {times} times" for label, times in said.items() if times != 1]
    assert not wrong, "\n".join(wrong)


def test_the_table_keeps_the_order_of_the_book():
    checks = [
        Check("eq-b", "says | b", "quadrature", "1e-9", "1e-6"),
        Check("eq-a", "says a", "exact cases", "0", "exact"),
        Check("eq-a", "", "Monte Carlo", "1.2 s.e.", "5 s.e."),
    ]
    book = [Equation("eq-a", "a.md", 1), Equation("def-c", "a.md", 2), Equation("eq-b", "b.md", 1)]
    assert equations.table(checks, book).splitlines()[2:] == [
        "| {eq}`eq-a` | says a | exact cases | 0 | exact |",
        "|  |  | Monte Carlo | 1.2 s.e. | 5 s.e. |",
        r"| {eq}`eq-b` | says \| b | quadrature | 1e-9 | 1e-6 |",
    ]


CONFTEST = (equations.ROOT / "tests/equations/conftest.py").read_text(encoding="utf-8")


def project(root, bodies):
    """Makes a project whose checks have these bodies: test_0, test_1, ..."""
    folder = root / "tests/equations"
    folder.mkdir(parents=True)
    (folder / "conftest.py").write_text(CONFTEST)
    checks = (
        '@pytest.mark.checks("eq-a", "one is one")\n'
        f'def test_{i}(agree):\n    """By\n    counting."""\n    {body}\n'
        for i, body in enumerate(bodies)
    )
    head = "import numpy as np\nimport pytest\nimport sympy\n"
    (folder / "test_a.py").write_text("\n\n".join([head, *checks]))
    return root


AGREE = [  # (body, deviation, tolerance)
    ("agree([1.0, 2.0], np.array([1.0, 2.0004]), 1e-3)", "4e-4", "1e-3"),
    ("agree(1.0, 1.1, 0.2); agree(1.0, 1.1, 1.0)", "1e-1", "2e-1"),  # the worst of the two
    ("agree.in_mean([0.0, 1.0] * 50, np.array(0.5))", "0.0 s.e.", "5 s.e."),
    ("x = sympy.Symbol('x'); agree.exactly((x + 1)**2, x**2 + 2*x + 1)", "0", "exact"),
]


def test_a_check_reports_its_worst_deviation(tmp_path):
    checks = equations.run_checks(project(tmp_path, [body for body, *_ in AGREE]))
    assert checks == [Check("eq-a", "one is one", "By counting.", *said) for _, *said in AGREE]


DISAGREE = [
    "agree(1.0, 1.2, 0.1)",
    "agree(1.0, float('nan'), 0.1)",
    "agree([1.0], [[1.0]], 0.1)",
    "agree.in_mean([0.0, 1.0] * 50, np.array(0.9))",
    "agree.in_mean([1.0] * 50, np.array(1.0))",  # no spread, no standard error
    "agree.exactly(sympy.Symbol('x'), 1)",
    "pass",
]


def test_a_check_that_does_not_agree_fails(tmp_path):
    with pytest.raises(equations.CheckFailed) as said:
        equations.run_checks(project(tmp_path, ["agree(1.0, 1.0, 0.1)", *DISAGREE]))
    failed = re.findall(r"^(?:FAILED|ERROR) \S+::test_(\d+)", str(said.value), re.M)
    assert {int(i) for i in failed} == set(range(1, len(DISAGREE) + 1))


VERIFIED = (equations.ROOT / "book/verified.md").read_text(encoding="utf-8")


def check(tolerance):
    return (
        'import pytest\n\n@pytest.mark.checks("eq-a", "one is one")\ndef test_a(agree):\n'
        f'    """By counting."""\n    agree(1.0, 1.1, {tolerance})\n'
    )


def test_the_page_runs_the_checks_links_the_numbers_and_fails_with_a_check(book):
    (book.root / "tests/equations").mkdir(parents=True)
    book.write("tests/equations/conftest.py", CONFTEST)
    book.write("tests/equations/test_a.py", check(0.2))
    book.write("book/verified.md", VERIFIED.split("The checks are in the folder")[0])
    book.page("a", "$$\nx = 1\n$$ (eq-a)\n")
    assert book.build().ran() == {"verified"}
    assert re.search(r'href="a.html#equation-eq-a"[^\n]*\(1.1\)', book.html("verified"))
    assert "By counting." in book.html("verified")
    assert book.build().ran() == set()

    book.write("tests/equations/test_a.py", check(0.15))  # another tolerance is another table
    assert book.build().ran() == {"verified"}
    book.write("tests/equations/test_a.py", check(0.05))
    build = book.build()
    assert build.code == 1
    assert "1 failed" in build.err
