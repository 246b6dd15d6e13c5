"""The answers of the exam bank: every number and formula, computed in another way.

`says` finds the words in the answer and compares the last number in them with what the check has
computed, to the digits that are given. `holds` is for words whose value is a formula or fraction.
"""

import ast
import itertools
import math
import re

import numpy as np
import paddle
import pytest
import sympy as sp
from scipy import stats
from scipy.integrate import quad, solve_ivp
from scipy.optimize import brentq, minimize_scalar

from genbook import diffusion, inverse, solvers, unet, vae
from genbook.evaluation import metrics
from genbook.lab import exam

BANK = {f"{question.chapter}/{question.name}": question for question in exam.read_bank()}
CHECKS = {}
NORMAL = stats.norm


class Answer:
    """The answer to one question, as a single line."""

    def __init__(self, text):
        self.text = " ".join(text.split())

    def says(self, words, value):
        """The last number in these words is the value, rounded."""
        number = re.findall(r"-?\d[\d,]*(?:\.\d+)?", words)[-1]
        step = 10.0 ** -len(number.partition(".")[2])
        self.holds(words, float(number.replace(",", "")), value, 0.5001 * step)

    def holds(self, words, got, value, tolerance=1e-9):
        """The words are in the answer, and what they say is the value."""
        assert words in self.text, f"{words!r} is not in the answer"
        assert np.allclose(got, value, rtol=0, atol=tolerance), f"{words!r}: it is {value}"


def check(name):
    """The function checks the answer to the question of this name."""

    def keep(function):
        assert name in BANK and name not in CHECKS
        CHECKS[name] = function
        return function

    return keep


@pytest.mark.parametrize("name", sorted(BANK))
def test_the_answer_is_right(name):
    question = BANK[name]
    if question.kind in ("compute", "derive"):
        assert name in CHECKS, "a number or formula without a check"
    if name in CHECKS:
        CHECKS[name](Answer(question.answer))


def test_a_wrong_number_is_found():
    answer = Answer("It is 0.25 nats,\nor 1,155 and 2.")
    answer.says("It is 0.25", 0.2549)
    answer.says("or 1,155", 1155)
    for words, value in (("It is 0.25", 0.256), ("and 2.", 3), ("It is 0.3", 0.3)):
        with pytest.raises(AssertionError):
            answer.says(words, value)


FUNCTIONS = {"log": math.log, "sqrt": math.sqrt, "sin": math.sin, "cos": math.cos}
FUNCTIONS |= {
    "arctan": math.atan,
    "log2": math.log2,
    "e": math.e,
    "pi": math.pi,
    "floor": math.floor,
}


def python(latex):
    """A number in LaTeX as Python; None if there are letters or words in it."""
    text = re.sub(
        r"\\(left|right|[bB]ig+|[,;!])|\s*°", lambda m: "*D" if "°" in m[0] else "", latex
    )
    group = r"\{((?:[^{}]|\{[^{}]*\})*)\}"
    for _ in range(3):
        text = re.sub(rf"\\[td]?frac\s*{group}\s*{group}", r"((\1)/(\2))", text)
        text = re.sub(r"\\[td]?frac\s*(\d)\s*(\d)", r"((\1)/(\2))", text)
        text = re.sub(rf"\\sqrt{group}", r"sqrt(\1)", text)
        text = re.sub(r"\\sqrt\s*(\d)", r"sqrt(\1)", text)
        text = re.sub(rf"\^{group}", r"**(\1)", text)
    text = text.replace(r"\log_2", "log2").replace(r"\cdot", "*").replace("^", "**")
    text = text.replace(r"\lfloor", "floor(").replace(r"\rfloor", ")").replace(r"\pi", "pi")
    text = re.sub(r"\\?(log2|log|sin|cos|arctan)\s+(\d[\d.]*(?:\*D)?)", r"\1(\2)", text)
    text = re.sub(r"\\(log|sin|cos|arctan)\s*\(", r"\1(", text)
    text = re.sub(r"(?<=[\d)])\s*(?=\(|log|sin|cos|sqrt|pi)", "*", text)
    text = re.sub(r"(?<=\))\s*(?=\d)", "*", text)
    text = text.replace("log2*(", "log2(")
    names = set(re.findall(r"[A-Za-z]\w*", text)) - FUNCTIONS.keys() - {"D"}
    return None if names or "\\" in text or not re.search(r"\d", text) else text.strip()


def value(latex):
    text = python(latex)
    try:
        tree = ast.parse(text or "", mode="eval")
    except SyntaxError:
        return None
    if any(isinstance(node, (ast.Compare, ast.Tuple)) for node in ast.walk(tree)):
        return None
    return float(eval(compile(tree, "", "eval"), {"D": math.pi / 180, **FUNCTIONS}))


def equalities(text):
    """Pairs of numbers that a text says are equal, each with the words."""
    for formula in re.findall(r"\$+([^$]+)\$+", re.sub(r"```.*?```", "", text, flags=re.S)):
        parts = re.split(r"=|\\approx", formula)
        for one, other in itertools.pairwise(parts):
            values = value(one), value(other)
            if None not in values:
                yield *values, f"{one.strip()} = {other.strip()}"


@pytest.mark.parametrize("name", sorted(BANK))
def test_what_is_said_to_be_equal_is_equal(name):
    """All arithmetic of questions and answers, up to the rounding of the numbers in it."""
    for one, other, words in equalities(f"{BANK[name].text}\n\n{BANK[name].answer}"):
        digits = re.search(r"\.(\d+)$", words)
        half = 0.5001 * 10.0 ** -len(digits[1]) if digits else 0
        assert one == pytest.approx(other, rel=4e-3, abs=max(half, 6e-4)), words


def test_most_arithmetic_can_be_read():
    found = [words for q in BANK.values() for *_, words in equalities(f"{q.text}\n\n{q.answer}")]
    assert len(found) > 150
    assert value(r"\frac12 \left( 1 + \frac13 \right)") == pytest.approx(2 / 3)
    assert value(r"0.4 \left( \frac{2}{4} + \frac{3\, (10 - 1)}{4} \right)") == pytest.approx(2.9)
    assert value(r"\frac{0.6}{1 + \sqrt{1 - 0.36}}") == pytest.approx(1 / 3)
    assert value(r"\lfloor (32 + 4 - 5) / 2 \rfloor + 1") == 16
    assert value(r"2 \sqrt{\frac49 + \frac19}") == pytest.approx(1.4907, abs=1e-4)
    assert value(r"\sin 60°") == pytest.approx(0.866, abs=1e-3)
    assert value(r"-80 - \log 10 + \log(1 + e^{-3})") == pytest.approx(-82.254, abs=1e-3)
    assert value(r"\bar\alpha_t") is None and value("x + 1") is None


# Probability


@check("probability/square-root")
def _(answer):
    density = lambda y: 2 * y
    for y in (0.2, 0.7):  # P(sqrt(u) <= y) = y^2, differentiated by differences
        assert density(y) == pytest.approx(((y + 1e-6) ** 2 - (y - 1e-6) ** 2) / 2e-6, rel=1e-6)
    answer.holds(r"= 2y$ for $0 < y < 1$", quad(density, 0, 1)[0], 1)
    answer.holds(r"\frac{2}{3}", 2 / 3, quad(math.sqrt, 0, 1)[0])


@check("probability/noisy-line")
def _(answer):
    x = np.linspace(-20, 30, 400_001)
    joint = NORMAL.pdf(x, 2, 2) * NORMAL.pdf(10, 3 * x + 1, 2)
    mean = (x * joint).sum() / joint.sum()
    answer.says("7.25 = 2.9", mean)
    answer.says("variance is $0.4", ((x - mean) ** 2 * joint).sum() / joint.sum())
    weight = np.polynomial.hermite_e.hermegauss(20)
    u, v = np.meshgrid(weight[0], weight[0])
    w = np.outer(weight[1], weight[1]) / (2 * math.pi)
    y = 3 * (2 + 2 * u) + 1 + 2 * v
    answer.says("+ 1 = 7", (w * y).sum())
    answer.says("+ 4 = 40", (w * (y - 7) ** 2).sum())


@check("probability/more-draws")
def _(answer):
    variance = 400 * 0.02**2
    answer.says("which is 6,400", brentq(lambda n: math.sqrt(variance / n) - 0.005, 1, 1e6))


@check("probability/mean-reciprocal")
def _(answer):
    w = np.array([1.0, 3.0])
    answer.holds(r"= \frac12$", 1 / w.mean(), 1 / 2)
    answer.holds(r"= \frac23$", (1 / w).mean(), 2 / 3)


# Divergence


@check("divergence/three-outcomes")
def _(answer):
    p, q = np.array([2, 1, 1]) / 4, np.array([1, 1, 2]) / 4
    answer.says("= 1.5", stats.entropy(p, base=2))
    answer.says("= 1.75", stats.entropy(p, base=2) + stats.entropy(p, q, base=2))
    answer.says("difference, $0.25", stats.entropy(p, q, base=2))


@check("divergence/two-blocks")
def _(answer):
    cells = (np.arange(400) + 0.5) / 100
    p = np.where((cells < 1) | (cells > 3), 0.5, 0.0) / 100
    best = {}
    for a, b in itertools.combinations(range(0, 401, 20), 2):
        q = np.where((np.arange(400) >= a) & (np.arange(400) < b), 1 / (b - a), 0)
        for way, divergence in (("pq", stats.entropy(p, q)), ("qp", stats.entropy(q, p))):
            best.setdefault(way, []).append((divergence, a / 100, b / 100))
    least = {way: min(found) for way, found in best.items()}
    answer.holds("best is $[0, 4]$", least["pq"][1:], (0, 4))
    intervals = {f[1:] for f in best["qp"] if f[0] < least["qp"][0] + 1e-9}
    assert intervals == {(0, 1), (3, 4)} and "$[0, 1]$ and $[3, 4]$" in answer.text
    answer.says(r"\log 2 \approx 0.69", least["pq"][0])
    answer.holds(r"divergence $\log 2$ as well", math.log(2), least["qp"][0])


@check("divergence/exponential")
def _(answer):
    for one, two in ((0.5, 2.0), (3.0, 1.0)):
        p = lambda x: one * math.exp(-one * x)
        log_ratio = lambda x: math.log(one / two) - (one - two) * x
        found = quad(lambda x: p(x) * log_ratio(x), 0, np.inf)[0]
        formula = math.log(one / two) + two / one - 1
        words = r"\log \frac{\lambda_1}{\lambda_2} + \frac{\lambda_2}{\lambda_1} - 1"
        answer.holds(words, formula, found, 1e-7)


@check("divergence/half-too-much")
def _(answer):
    wrong = lambda m1, s1, m2, s2: math.log(s2 / s1) + (s1**2 + (m1 - m2) ** 2) / (2 * s2**2)
    answer.says("returns $0.5", wrong(1.0, 2.0, 1.0, 2.0))
    p = lambda x: NORMAL.pdf(x, 1, 0.8)
    q = lambda x: NORMAL.pdf(x, 0, 1.5)
    true = quad(lambda x: p(x) * math.log(p(x) / q(x)), -8, 8)[0]
    answer.holds(r"The term $-\frac12$ is missing", wrong(1, 0.8, 0, 1.5) - 0.5, true, 1e-7)


# Data


@check("data/two-classifiers")
def _(answer):
    errors = [stats.binom.std(360, wrong / 360) / 360 for wrong in (36, 27)]
    answer.says("= 0.0158", errors[0])
    answer.says("/ 360} = 0.0139", errors[1])
    answer.says("0.0139^2} = 0.0210", math.hypot(*errors))
    answer.says("It is 1.2", 0.025 / math.hypot(*errors))


@check("data/ink")
def _(answer):
    side = np.arange(-40, 41) / 8
    spot = lambda r, c: np.exp(-(r**2) - 2 * c**2)
    ink = lambda a: spot(a * side[:, None], a * side).sum()
    answer.says("1.25^2 = 0.64", ink(1.25) / ink(1.0))
    width = [np.count_nonzero(spot(a * side, 0) > 0.5) for a in (1.0, 1.25)]
    assert width[1] < width[0] and "becomes smaller" in answer.text


# Autoencoder


@check("autoencoder/six-eigenvalues")
def _(answer):
    values = np.array([5, 3, 1, 0.5, 0.3, 0.2])
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(6, 6)))[0]
    cov = turn @ np.diag(values) @ turn.T

    def error(kept):
        rest = np.eye(6) - turn[:, kept] @ turn[:, kept].T
        return np.trace(rest @ cov @ rest.T)

    needed = next(j for j in range(7) if error(list(range(j))) <= 0.1 * np.trace(cov) + 1e-9)
    answer.says("so 3", needed)
    answer.says("0.2 = 1.0", error([0, 1, 2]))
    answer.says("10 - 6 = 4", error([0, 2]))


@check("autoencoder/shapes")
def _(answer):
    down = paddle.nn.Conv2D(3, 24, 5, stride=2, padding=2)
    up = paddle.nn.Conv2DTranspose(24, 3, 4, stride=2, padding=1)
    small = down(paddle.zeros([1, 3, 32, 32]))
    large = up(small)
    count = lambda layer: sum(weight.size for weight in layer.parameters())
    answer.holds(r"$24 \times 16 \times 16$", small.shape[1:], (24, 16, 16))
    answer.holds(r"$3 \times 32 \times 32$", large.shape[1:], (3, 32, 32))
    answer.says("= 1824", count(down))
    answer.says("= 1155", count(up))


@check("autoencoder/field")
def _(answer):
    def seen(place, strides):
        """The input pixels on which a place of the last layer depends."""
        places = {place}
        for stride in reversed(strides):
            places = {stride * i + k for i in places for k in (-1, 0, 1)}
        return places

    fields = [seen(place, (1, 2, 1, 2)) for place in (0, 1)]
    answer.says("sees 13", len(fields[0]))
    answer.says("squares are 4", min(fields[1]) - min(fields[0]))


@check("autoencoder/no-inverse")
def _(answer):
    weight, x = paddle.full([1, 1, 1, 1], 2.0), paddle.full([1, 1, 1, 1], 1.0)
    conv = paddle.nn.functional.conv2d(x, weight)
    back = paddle.nn.functional.conv2d_transpose(conv, weight)
    answer.holds("into $2x$", 2, conv.item())
    answer.holds("into $4x$", 4, back.item())


# VAE


@check("vae/four-numbers")
def _(answer):
    answer.says("14.0 = -106.0", -(92.0 + 14.0))
    answer.says("106.0 = 4.5", brentq(lambda gap: -101.5 - gap + 92.0 + 14.0, 0, 99))


@check("vae/price-of-a-code")
def _(answer):
    def price(mu, deviation):
        p, q = NORMAL(mu, deviation), NORMAL()
        return quad(lambda z: p.pdf(z) * (p.logpdf(z) - q.logpdf(z)), -9, 9)[0]

    answer.says("0) = 0.5", price(1, 1))
    answer.says("2) = 0.568", price(0, math.exp(-1)))
    answer.says("sum is $1.068", price(1, 1) + price(0, math.exp(-1)))
    mu, logvar = paddle.to_tensor([[1.0, 0.0]]), paddle.to_tensor([[0.0, -2.0]])
    answer.says("sum is $1.068", vae.gaussian_kl(mu, logvar).item())


@check("vae/forgotten-factor")
def _(answer):
    excess = lambda s: NORMAL.logpdf(0, 0, s) - NORMAL.logpdf(3, 0, s)  # of the error 9
    s_2 = brentq(lambda v: excess(math.sqrt(v)) - 9, 0.01, 10)
    answer.says("s^2 = 0.5", s_2)
    assert "uses more of its code" in answer.text


@check("vae/prior-as-guess")
def _(answer):
    a, s = 1.3, 0.7
    w, rho = s**2 / (a**2 + s**2), a**2 / s**2

    def gap(x):  # the evidence by quadrature, minus the bound by quadrature
        nodes, weights = np.polynomial.hermite_e.hermegauss(40)
        bound = (weights * NORMAL.logpdf(x, a * nodes, s)).sum() / math.sqrt(2 * math.pi)
        joint = lambda z: NORMAL.pdf(z) * NORMAL.pdf(x, a * z, s)
        return math.log(quad(joint, -12, 12)[0]) - bound

    nodes, weights = np.polynomial.hermite_e.hermegauss(12)
    mean = sum(u * gap(x * math.hypot(a, s)) for x, u in zip(nodes, weights))
    mean /= math.sqrt(2 * math.pi)
    answer.holds(r"\tfrac12 \log w + \frac1w - 1", 0.5 * math.log(w) + 1 / w - 1, mean, 1e-6)
    answer.holds(r"-\frac12 \log(1 + \rho) + \rho", rho - 0.5 * math.log(1 + rho), mean, 1e-6)


# Likelihood


@check("likelihood/better-variance")
def _(answer):
    cost = lambda v: -100 * NORMAL.logpdf(0.2, 0, math.sqrt(v))
    best = minimize_scalar(cost, bounds=(0.001, 1), method="bounded", options={"xatol": 1e-9})
    answer.says("4 / 100 = 0.04", best.x)
    answer.says("161 = 113", cost(1) - cost(0.04))


@check("likelihood/silent-axes")
def _(answer):
    def rate(v, noise):
        """The code of the linear model whose evidence is highest, by search; its price."""
        fit = lambda a: -(-0.5 * math.log(a**2 + noise) - v / (2 * (a**2 + noise)))
        a = minimize_scalar(fit, bounds=(0, 3), method="bounded", options={"xatol": 1e-9}).x
        w = noise / (a**2 + noise)
        return 0.5 * (w + a**2 * v / (a**2 + noise) ** 2 - 1 - math.log(w))

    prices = [rate(v, 0.5) for v in (2, 0.8, 0.3, 0.05)]
    assert max(prices[2:]) < 1e-6 and "the first two" in answer.text
    answer.says(r"\log 4 = 0.693", prices[0])
    answer.says(r"\log 1.6 = 0.235", prices[1])
    weighted = [rate(v, 1.0) for v in (2, 0.8, 0.3, 0.05)]
    assert max(weighted[1:]) < 1e-6
    answer.says(r"\log 2 = 0.347", weighted[0])


@check("likelihood/two-weights")
def _(answer):
    bound = lambda k: np.mean([np.log(np.mean(w)) for w in itertools.product((1, 4), repeat=k)])
    answer.says(r"\log 4 = 0.693", bound(1))
    answer.says(r"\frac14 \log 4 = 0.805", bound(2))
    answer.says("logarithm is $0.916", math.log(np.mean([1, 4])))
    assert bound(1) < bound(2) < math.log(2.5)


@check("likelihood/which-weight")
def _(answer):
    for c in (0.3, 2.0):
        mass = quad(lambda u: math.exp(-c * u**2), -np.inf, np.inf)[0]
        answer.holds(r"\sqrt{\pi / c_i}", math.sqrt(math.pi / c), mass, 1e-7)
        log_density = NORMAL.logpdf(0.4, 0, math.sqrt(1 / (2 * c)))
        answer.holds(r"1 / (2 c_i)", -c * 0.16 - math.log(mass), log_density, 1e-7)
        rest = math.log(mass) - 0.5 * math.log(math.pi)  # what depends on c in the loss
        answer.holds(r"-\frac12 \log c_i", -0.5 * math.log(c), rest, 1e-7)


# Latent space


@check("latent-space/shell")
def _(answer):
    squared = stats.chi2(128)
    answer.says("mean is 128", squared.mean())
    answer.says("128} = 16", squared.std())
    middle = stats.chi2(128, scale=0.5).mean()  # (a + b) / 2 has the variance 1/2
    answer.says("128 = 64", middle)
    answer.says("16 = 4", (squared.mean() - middle) / squared.std())


@check("latent-space/two-classes")
def _(answer):
    labels = np.repeat([0, 1], [60, 40])
    same = labels[:, None] == labels
    chance = (same.sum() - 100) / (100 * 99)  # all pairs of different codes
    answer.says(r"\frac{51}{99} = 0.515", chance)


@check("latent-space/one-third")
def _(answer):
    a, b, t = np.array([2, 0.0]), np.array([0, 2.0]), 1 / 3
    answer.holds(r"\frac23 a + \frac13 b", 2 / 3 * a + b / 3, a + t * (b - a))
    answer.says("= 1.49", np.linalg.norm(a + t * (b - a)))
    turned = 2 * np.array([math.cos(math.pi / 6), math.sin(math.pi / 6)])  # a third of 90 degrees
    answer.says("60° = 0.866", turned[0] / 2)
    answer.says("30° = 0.5", turned[1] / 2)
    answer.says("norm 2", np.linalg.norm(turned))


# Diffusion forward


def process(*betas):
    return diffusion.GaussianDiffusion(np.array(betas))


@check("diffusion-forward/three-steps")
def _(answer):
    state, noise = 1.0, 0.0  # factor of x_0, variance of the noise; one step after another
    for beta in (0.1, 0.2, 0.5):
        state, noise = math.sqrt(1 - beta) * state, (1 - beta) * noise + beta
    answer.says("0.5 = 0.36", state**2)
    answer.says("x_3 = 0.6", state)
    answer.says(r"+ 0.8", math.sqrt(noise))
    answer.says("= 0.5625", state**2 / noise)
    given = 0.0
    for beta in (0.2, 0.5):
        given = (1 - beta) * given + beta
    answer.says("0.4 = 0.6", given)


@check("diffusion-forward/faint-pixel")
def _(answer):
    variance = 0.25
    for _ in range(200):
        beta = 1 - 0.36 ** (1 / 200)
        variance = (1 - beta) * variance + beta
    answer.says("= 0.73", variance)


@check("diffusion-forward/three-images")
def _(answer):
    images = np.array([-1, 0, 1])
    weight = NORMAL.pdf(0.5, math.sqrt(0.5) * images, math.sqrt(0.5))
    weight /= weight.sum()
    for words, value in zip(("are 0.118", "0.118, 0.395", "and 0.486"), weight):
        answer.says(words, value)
    answer.holds("0.118 = 0.368", 0.368, weight @ images, 7e-4)


@check("diffusion-forward/no-roots")
def _(answer):
    answer.says("= 0.5", NORMAL(0, 0.5).var() + NORMAL(0, 0.5).var())
    right = process(0.5)
    noise = paddle.ones([1, 1, 1, 1])
    t = paddle.zeros([1], "int64")
    parts = right.q_sample(noise, t, 0 * noise), right.q_sample(0 * noise, t, noise)
    answer.holds("should be 1", 1, sum(x.item() ** 2 for x in parts), 1e-6)


# Diffusion reverse


@check("diffusion-reverse/one-step-back")
def _(answer):
    x_1 = np.linspace(-12, 12, 240_001)

    def posterior(x_0, x_2):
        density = NORMAL.pdf(x_1, math.sqrt(0.9) * x_0, math.sqrt(0.1))
        density *= NORMAL.pdf(x_2, math.sqrt(0.8) * x_1, math.sqrt(0.2))
        density /= density.sum()
        mean = density @ x_1
        return mean, density @ (x_1 - mean) ** 2

    answer.says("0.2 = 0.0714", posterior(0, 0)[1])
    answer.says("= 0.678", posterior(1, 0)[0])
    answer.says("= 0.319", posterior(0, 1)[0])


@check("diffusion-reverse/from-v")
def _(answer):
    x_0, eps = np.linalg.solve([[0.8, 0.6], [-0.6, 0.8]], [1, 0.5])  # x_t and v by definition
    answer.says("0.6 \\cdot 0.5 = 0.5", x_0)
    answer.says("0.8 \\cdot 0.5 = 1.0", eps)


@check("diffusion-reverse/ddim-by-hand")
def _(answer):
    x_0 = brentq(lambda x_0: 0.6 * x_0 + 0.8 * 0.5 - 1, -9, 9)
    answer.says("0.6 = 1", x_0)
    answer.says("0.6 \\cdot 0.5 = 1.1", 0.8 * x_0 + 0.6 * 0.5)
    # eta = 1 is the posterior of a jump: x_s has a prior around 0.8 x_0, and x_t is seen
    left = 0.36 / 0.64
    x = np.linspace(-9, 9, 180_001)
    density = NORMAL.pdf(x, 0.8 * x_0, 0.6) * NORMAL.pdf(
        1, math.sqrt(left) * x, math.sqrt(1 - left)
    )
    density /= density.sum()
    mean = density @ x
    answer.says("= 0.246", density @ (x - mean) ** 2)
    answer.says("= 0.969", mean)


@check("diffusion-reverse/least-loss")
def _(answer):
    for bar in (0.1, 0.7):
        a, b = math.sqrt(bar), math.sqrt(1 - bar)
        mix = np.array([[a, b], [-b, a]])  # x_t and v of x_0 and epsilon
        cov = mix @ mix.T
        answer.holds("two is $a b - a b = 0$", 0, cov[0, 1])
        answer.holds("a^2 + b^2 = 1", 1, cov[1, 1] - cov[0, 1] ** 2 / cov[0, 0])
        x_0 = (np.linalg.inv(mix) @ [1, 0])[0]  # x_t = 1 and v = 0
        answer.holds(r"\hat x_0 = \sqrt{\bar\alpha_t}\, x_t", a, x_0)


# U-Net


@check("unet/folding-saves")
def _(answer):
    plain, folded = paddle.nn.Conv2D(32, 64, 3, padding=1), paddle.nn.Conv2D(128, 64, 3, padding=1)
    count = lambda layer: sum(weight.size for weight in layer.parameters())
    work = lambda layer, places: layer.weight.size * places
    answer.says("64 = 18496", count(plain))
    answer.says("256 = 4718592", work(plain, 16 * 16))
    answer.says("64 = 73792", count(folded))
    answer.says("64 \\cdot 64 = 4718592", work(folded, 8 * 8))


@check("unet/twice-as-wide")
def _(answer):
    count = lambda width: sum(p.size for p in unet.UNet(width=width, classes=10).parameters())
    answer.says("+ 4 = 400420", count(32))
    assert 3.9 < count(64) / count(32) < 4 and "nearly 4" in answer.text


@check("unet/slow-and-fast-hands")
def _(answer):
    omega = 10000.0 ** (-np.arange(4) / 4)
    embed = lambda t: np.concatenate([np.sin(omega * t), np.cos(omega * t)])
    answer.says("so it is 4", embed(37) @ embed(37))
    answer.says("= 1.696", embed(30) @ embed(40))
    assert 2 * math.pi / omega[-1] > 1000


# Diffusion bound


@check("diffusion-bound/one-term")
def _(answer):
    bar, before = 1 / 2, 3 / 4  # ratios 1 and 3
    beta = 1 - bar / before
    factor = math.sqrt(before) * beta / (1 - bar)  # of x_0 in the posterior's mean
    variance = (1 - before) / (1 - bar) * beta
    nats = factor**2 * 0.5 / (2 * variance)
    answer.holds(r"\frac12 (3 - 1) \cdot 0.5 = 0.5$ nats", 0.5, nats)
    answer.holds("which is $0.5$", 0.5, (math.sqrt(bar) / math.sqrt(1 - bar)) ** 2 * 0.5)


@check("diffusion-bound/prior-price")
def _(answer):
    def price(x_0):
        q, p = NORMAL(0.1 * x_0, math.sqrt(0.99)), NORMAL()
        return quad(lambda x: q.pdf(x) * (q.logpdf(x) - p.logpdf(x)), -9, 9, epsabs=1e-12)[0]

    answer.says("= 0.2525", 100 * price(math.sqrt(0.5)))


@check("diffusion-bound/best-step-variance")
def _(answer):
    d, m, tilde = 5.0, 1.7, 0.3
    term = lambda v: d / 2 * (tilde / v - 1 - math.log(tilde / v)) + tilde / v * m
    best = minimize_scalar(term, bounds=(0.01, 3), method="bounded", options={"xatol": 1e-10})
    words = r"\sigma_t^2 = \tilde\beta_t \left( 1 + \frac{2M}{D} \right)"
    answer.holds(words, tilde * (1 + 2 * m / d), best.x, 1e-5)
    words = r"\frac{D}{2} \log\left( 1 + \frac{2M}{D} \right)"
    answer.holds(words, d / 2 * math.log(1 + 2 * m / d), best.fun)


# Score and flow


@check("score-and-flow/from-score")
def _(answer):
    eps = 1.5 * 0.6  # score of a normal density around 0.8 x_0 with the variance 0.36
    x_0 = brentq(lambda x_0: -(1 - 0.8 * x_0) / 0.36 + 1.5, -9, 9)
    answer.says("(-1.5) = 0.9", eps)
    answer.says("= 0.575", x_0)


@check("score-and-flow/two-bumps")
def _(answer):
    log_p = lambda x: np.log(NORMAL.pdf(x, -2) + NORMAL.pdf(x, 2))
    for x in (-1.3, 0.2, 1.0):
        slope = (log_p(x + 1e-5) - log_p(x - 1e-5)) / 2e-5
        answer.holds(r"= -x + 2 \tanh(2x)", -x + 2 * math.tanh(2 * x), slope, 1e-7)
    bend = (log_p(1e-3) - 2 * log_p(0) + log_p(-1e-3)) / 1e-6
    answer.holds("-1 + 4 = 3 > 0", 3, bend, 1e-4)


@check("score-and-flow/second-moment")
def _(answer):
    for start in (0.2, 3.0):  # many short steps of the process itself
        m, step = start, 1e-5
        for _ in range(70_000):
            m = (1 - step) ** 2 * m + 2 * step
        words = r"m(\tau) = 1 + \big( m(0) - 1 \big) e^{-2 \tau}"
        answer.holds(words, 1 + (start - 1) * math.exp(-1.4), m, 1e-4)
    path = solve_ivp(lambda _, m: -2 * m + 2, (0, 0.7), [3.0], rtol=1e-10, atol=1e-12)
    answer.holds("= -2m + 2", 1 + 2 * math.exp(-1.4), path.y[0, -1], 1e-7)


@check("score-and-flow/straight-path")
def _(answer):
    x_0, eps = np.linalg.solve([[0.75, 0.25], [-1, 1]], [1, 2])  # the state and the velocity
    answer.says("0.25 \\cdot 2 = 0.5", x_0)
    answer.says("0.75 \\cdot 2 = 2.5", eps)
    answer.says("0.25 = -10", -(1 - 0.75 * x_0) / 0.25**2)


# Solvers


@check("solvers/constant-denoiser")
def _(answer):
    one = lambda x, sigma: np.ones_like(x)
    x = np.array([9.0])
    answer.says("1 = 3", solvers.euler(one, x, np.array([8.0, 2.0]))[0])
    answer.holds("the estimate, 1", 1, solvers.euler(one, x, np.array([8.0, 2.0, 0.0])))
    answer.holds("leads to 1 as well", 1, solvers.euler(one, x, np.array([8.0, 0.0])))


@check("solvers/how-much-change")
def _(answer):
    seen = {4.0: 0.0, 1.0: 1.0}  # the estimate changes by 1
    denoise = lambda x, sigma: np.full_like(x, seen[float(sigma)])
    x = np.array([2.0])
    euler = 2.0 / 4
    answer.holds(r"\frac12 (e^h - 1)", 0.5 * (math.exp(math.log(4)) - 1), 1.5)
    answer.says("(4 - 1) = 1.5", solvers.heun(denoise, x, np.array([4.0, 1.0]))[0] - euler)
    h = math.log(4)
    exact = quad(lambda u: math.exp(-(h - u)) * u / h, 0, h)[0]
    answer.says("1.386} = 0.459", exact)
    assert 3 < 1.5 / exact < 3.5 and "factor of about three" in answer.text


@check("solvers/read-orders")
def _(answer):
    n = np.array([16, 32, 64])
    order = lambda errors: -np.polyfit(np.log(n), np.log(errors), 1)[0]
    answer.says("order 1", order([0.20, 0.10, 0.05]))
    answer.says("B the order 2", order([0.16, 0.04, 0.01]))
    answer.says("needs 320", brentq(lambda k: 0.05 * 64 / k - 0.01, 1, 9999))


@check("solvers/scales")
def _(answer):
    for sigma, data in ((0.5, 0.5), (3.0, 0.5), (0.2, 0.7)):
        out = lambda c, sigma=sigma, data=data: (1 - c) ** 2 * data**2 + c**2 * sigma**2
        best = minimize_scalar(out)
        words = r"c = \frac{\sigma_d^2}{\sigma^2 + \sigma_d^2}"
        answer.holds(words, data**2 / (sigma**2 + data**2), best.x, 1e-6)
        words = r"\frac{\sigma\, \sigma_d}{\sqrt{\sigma^2 + \sigma_d^2}}"
        answer.holds(words, sigma * data / math.hypot(sigma, data), math.sqrt(best.fun), 1e-7)
        assert math.sqrt(best.fun) < min(sigma, data)
    answer.says("c = 0.5", minimize_scalar(lambda c: (1 - c) ** 2 / 4 + c**2 / 4).x)
    answer.says("= 0.354", math.sqrt(minimize_scalar(lambda c: (1 - c) ** 2 / 4 + c**2 / 4).fun))


# Guidance


@check("guidance/mixing-twice")
def _(answer):
    start = lambda eps: brentq(lambda x_0: 0.8 * x_0 + 0.6 * eps - 1, -9, 9)
    guided = 0.8 + 1.5 * (0.8 - 0.2)
    answer.says("0.2 = 1.7", guided)
    answer.says("0.8 = -0.025", start(guided))
    answer.says("0.8 = 0.65", start(0.8))
    answer.says("0.8 = 1.1", start(0.2))
    answer.says("1.1 = -0.025", start(0.8) + 1.5 * (start(0.8) - start(0.2)))


@check("guidance/hidden-classifier")
def _(answer):
    joint = np.array([0.3, 0.7]) * [0.6, 0.2]
    answer.says("0.32 = 0.5625", joint[0] / joint.sum())
    answer.says("and 0.4375", joint[1] / joint.sum())
    answer.says("0.7 = -0.025", joint @ [0.5, -0.7] / joint.sum())


@check("guidance/three-sharpened")
def _(answer):
    prior, reads = np.array([0.5, 0.3, 0.2]), np.array([0.9, 0.5, 0.1])
    given = prior * reads / (prior @ reads)
    products = given**2 / prior * (prior @ reads) ** 2
    answer.holds("0.405, 0.075 and 0.002", (0.405, 0.075, 0.002), products)
    answer.says("sum 0.482", products.sum())
    sharp = given**2 / prior  # p(x|y)^(1 + w) / p(x)^w
    sharp /= sharp.sum()
    for words, value in zip(("is 0.726", "0.726, 0.242", "and 0.032"), given):
        answer.says(words, value)
    for words, value in zip(("is 0.840", "0.840, 0.156", "and 0.004"), sharp):
        answer.says(words, value)
    assert 0.3 < 1 - sharp[1] / given[1] < 0.4 and "about a third" in answer.text


@check("guidance/testing-guidance")
def _(answer):
    def network(x, t, y=None):
        return x * 0 - 5.0 if y is None else x * 0 + y.astype("float32").reshape([-1, 1, 1, 1])

    def mixed(scale, *labels):
        model = diffusion.guided(network, paddle.to_tensor(labels), scale)
        t = paddle.zeros([len(labels)], "int64")
        return model(paddle.zeros([len(labels), 1, 1, 1]), t).flatten().numpy()

    answer.holds(r"$(1 + w)\, y + 5 w$", 1.5 * 4 + 2.5, mixed(0.5, 4)[0])
    answer.holds("result must be $y$", (0, 1, 2), mixed(0, 0, 1, 2))
    answer.says("result must be 19", mixed(2, 3)[0])


# Filling in


@check("filling-in/blocks-of-two")
def _(answer):
    a = np.kron(np.eye(2), [[0.5, 0.5]])
    answer.holds(r"A A^\top = \tfrac12 I", np.eye(2) / 2, a @ a.T)
    answer.holds("y = (2, 1)", (2, 1), a @ [1, 3, 2, 0])
    answer.says("4 - 2 = 2", 4 - np.linalg.matrix_rank(a))


@check("filling-in/too-little-slope")
def _(answer):
    b = np.linspace(-9, 9, 90_001)
    density = stats.multivariate_normal(cov=[[1, 0.6], [0.6, 1]]).pdf(
        np.stack([np.full_like(b, 2), b], 1)
    )
    density /= density.sum()
    mean = density @ b
    answer.says("2 = 1.2", mean)
    answer.says("0.36 = 0.64", density @ (b - mean) ** 2)
    bars = np.cos(np.linspace(0, math.pi / 2, 20_001)[:-1]) ** 2
    slope = 0.0  # the recursion of the chapter, in many small steps
    for before, bar in zip(bars[-2::-1], bars[:0:-1]):
        alpha, rho, earlier = bar / before, 0.6 * bar, 0.6 * before
        known = (earlier - rho) * math.sqrt(bar)
        slope = math.sqrt(alpha) / (1 - rho**2) * (known + (1 - earlier * rho) * slope)
    answer.holds(r"= \frac13", 1 / 3, slope, 1e-3)
    answer.holds("mean is 0.667", 0.667, 2 * slope, 1e-3)


@check("filling-in/pull-of-a-measurement")
def _(answer):
    x_0 = np.linspace(-9, 9, 90_001)
    seen = lambda x_t: NORMAL.pdf(x_0) * NORMAL.pdf(x_t, math.sqrt(0.5) * x_0, math.sqrt(0.5))
    measured = NORMAL.pdf(1.5, x_0, 0.5)
    log_likelihood = lambda x_t: math.log((seen(x_t) * measured).sum() / seen(x_t).sum())
    answer.says("0.75 = 0.748", (log_likelihood(1 + 1e-4) - log_likelihood(1 - 1e-4)) / 2e-4)
    both = seen(1) * measured
    answer.says("becomes $0.707 + 0.529 = 1.236", (both @ x_0) / both.sum())
    answer.says("/ 6 = 1.236", (both @ x_0) / both.sum())


@check("filling-in/three-completions")
def _(answer):
    x = np.array([0.0, 2, 4])
    score = lambda x: inverse.energy_score(np.reshape(x, [1, 3, 1]), np.ones([1, 1])).item()
    answer.holds(r"\frac83 = \frac13", 1 / 3, score(x))
    away = np.abs(x - 1).mean()
    answer.holds(r"\frac89 = \frac79", 7 / 9, away - np.abs(x - x[:, None]).mean() / 2)
    pairs = np.abs(x - x[:, None])
    answer.holds(r"with the mean $\frac83", 8 / 3, pairs.sum() / 6)
    answer.holds(r"mean is $\frac{16}{9}", 16 / 9, pairs.mean())
    answer.says("so it scores 1", score(np.full(3, 2.0)))


# Pitfalls


@check("pitfalls/short-line")
def _(answer):
    bar = np.prod(1 - np.linspace(0.0001, 0.02, 250))
    answer.says("0.0201 = 2.51", np.linspace(0.0001, 0.02, 250).sum())
    answer.holds("= 0.081", 0.081, bar, 2e-3)
    answer.says("= 0.28", math.sqrt(bar))


@check("pitfalls/loop-that-stops")
def _(answer):
    steps = process(*np.linspace(0.01, 0.3, 20))
    visible, hidden = (diffusion.cosine_beta_schedule(n)[0] for n in (20, 1000))
    answer.holds(r"variance is $\beta_1$", 1 - steps.alphas_cumprod[0], 0.01)
    grey = 2 / 255
    assert math.sqrt(visible) > 5 * grey and math.sqrt(hidden) < grey


@check("pitfalls/v-as-noise")
def _(answer):
    c = math.sqrt(0.5)
    mix = np.array([[c, c], [-c, c]])  # rows: x_t and v; columns: x_0 and epsilon
    found = (mix[0] - c * mix[1]) / c
    answer.says("= 1.707", found[0])
    answer.says(r"+ 0.293", found[1])
    steps = process(*diffusion.cosine_beta_schedule(1000))
    error = []
    for t in (5, 500, 950):
        a, b = math.sqrt(steps.alphas_cumprod[t]), math.sqrt(1 - steps.alphas_cumprod[t])
        error.append(abs(np.array([(a + b * b) / a - 1, (b - a * b) / a])).max())
    assert error[0] < 0.01 < error[1] < error[2] and "harmless at little noise" in answer.text


# Judging


@check("judging/diagonal-frechet")
def _(answer):
    signs = np.array(list(itertools.product((-1, 1), repeat=2))) * math.sqrt(3) / 2
    one, two = signs * [2, 3], signs * [1, 3] + [3, 4]
    answer.says("d^2 = 26", metrics.frechet_distance(one, two))


@check("judging/four-classes")
def _(answer):
    shares = np.array([2, 1, 1, 0]) / 4
    answer.says("2 = 0.75", stats.entropy(shares) / math.log(4))
    answer.says("1.5 = 0.5", stats.entropy(shares, np.full(4, 0.25), base=2))


@check("judging/few-images")
def _(answer):
    cov = np.array([[30, 6], [6, 10.0]])
    distance = lambda n, m: np.trace(cov / n + cov / m)  # the covariance of the difference
    answer.says("40 = 0.16", distance(500, 500))
    answer.says("40 = 0.88", distance(500, 50))
    answer.says("by 0.72", distance(500, 50) - distance(500, 500))


# Improving


@check("improving/lag")
def _(answer):
    average, alpha = 0.0, 0.995
    for k in range(1, 10_001):
        average = alpha * average + (1 - alpha) * k
    answer.says("lag is 199", 10_000 - average)
    words = r"\ell = \frac{\alpha}{1 - \alpha}"
    answer.holds(words, alpha / (1 - alpha), 10_000 - average, 1e-6)


@check("improving/two-labels")
def _(answer):
    weights = sp.Rational(1, 10) * sp.Matrix([sp.exp(-80), sp.exp(-83)])
    answer.says("= 0.953", float(weights[0] / sum(weights)))
    answer.says("= -82.25", float(sp.log(sum(weights))))


# Latent diffusion


@check("latent-diffusion/who-pays")
def _(answer):
    encoder = np.eye(1000)  # a code for each image, and no two share one
    information = np.mean([stats.entropy(row, encoder.mean(0)) for row in encoder[:5]])
    answer.says("1000 = 6.91", information)
    answer.says("6.91 = 5.09", 12 - information)


@check("latent-diffusion/scale-of-a-code")
def _(answer):
    parts = [NORMAL(m, math.sqrt(v)) for m, v in ((-2, 0.1), (0, 0.2), (2, 0.3))]
    density = lambda z: sum(part.pdf(z) for part in parts) / 3
    moment = lambda k: quad(lambda z: z**k * density(z), -9, 9, limit=200)[0]
    answer.holds("The mean is 0", 0, moment(1), 1e-7)
    answer.says("0.2 = 2.867", moment(2))
    answer.says("is 1.693", math.sqrt(moment(2)))
    answer.says("1.693 = 0.591", 1 / math.sqrt(moment(2)))


@check("latent-diffusion/small-codes")
def _(answer):
    bar = brentq(lambda bar: 0.01 * bar - (1 - bar), 0, 1)
    answer.says("1.01 = 0.990", bar)
    t = (np.arange(100_000) + 0.5) / 100_000
    noisy = np.mean(1 - np.cos(math.pi / 2 * t) ** 2 > 0.01 * np.cos(math.pi / 2 * t) ** 2)
    answer.says("So 94", 100 * noisy)
    answer.says("which is 6.3", 100 * (1 - noisy))


# Comparison


@check("comparison/three-trainings")
def _(answer):
    scores = [0.80, 0.86, 0.83]
    answer.says("mean is 0.83", np.mean(scores))
    answer.says("/ 2} = 0.03", np.std(scores, ddof=1))
    answer.says("= 0.017", stats.sem(scores))


@check("comparison/ten-thousand-images")
def _(answer):
    passes = sum(2 for _ in range(20))  # of milliseconds; two a step
    answer.says("0.002 = 80", 60 + 10_000 * 2 / 1000)
    answer.says("0.4 = 4180", 180 + 10_000 * passes * 10 / 1000)
    answer.says("0.014 = 210", 70 + 10_000 * (passes * 0.3 + 2) / 1000)
    answer.says("0.4 = 450", 180 / (passes * 10 / 1000))


# Scaling


@check("scaling/ring")
def _(answer):
    ranks, numbers, sent = 4, 1_200_000, 0
    for _ in range(2 * (ranks - 1)):  # rounds of the ring
        sent += numbers // ranks
    answer.says("1.2 = 1.8", sent / 1e6)
    answer.says("1.2 = 7.2", sum(2 * numbers for _ in range(ranks - 1)) / 1e6)
    answer.says("below 2.4", 2 * numbers / 1e6)


@check("scaling/what-limits")
def _(answer):
    step = lambda undivided, exchange: 80 / 4 + undivided + exchange
    answer.says("takes $80 / 4 + 20 + 5 = 45", step(20, 5))
    a, c = 0.8, 0.05
    efficiency = 1 / (a + 4 * (1 - a + c))
    answer.says("45 = 2.22", 4 * efficiency)
    answer.says("4 = 0.556", efficiency)
    answer.says("saves 2.5", step(20, 5) - step(20, 2.5))
    answer.says("work saves 10", step(20, 5) - step(10, 5))


@check("scaling/short-numbers")
def _(answer):
    short = lambda x: paddle.to_tensor(x, "float32").cast("bfloat16").cast("float32").numpy()
    near = np.unique(short(np.arange(256, 511, 0.25)))
    assert set(np.diff(near)) == {2.0}
    answer.says("7} = 2", np.diff(near).max())
    answer.says("300.6 is rounded to 300", short([300.6])[0])
    whole = np.arange(256, 513)
    wrong = np.abs(short(whole) - whole) / whole
    assert set(whole[wrong == 0]) == set(range(256, 513, 2)) and wrong.argmax() == 1
    answer.says("257 = 0.00389", wrong.max())


@check("scaling/clipped-too-early")
def _(answer):
    limit = lambda g: g / max(1, np.linalg.norm(g))
    ranks = np.array([[3.0, 0], [-1, 0]])
    answer.holds("their mean is $(0, 0)$", (0, 0), np.mean([limit(g) for g in ranks], axis=0))
    answer.holds("whole batch is $(1, 0)$", (1, 0), limit(ranks.mean(0)))
