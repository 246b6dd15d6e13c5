from fractions import Fraction
from itertools import product

import numpy as np
import pytest
import sympy
from scipy import stats
from scipy.integrate import quad

normal = stats.norm.pdf


def joint(size_x, size_y, seed=0):
    """A table of joint probabilities in exact fractions: a dict (x, y) -> p."""
    counts = np.random.default_rng(seed).integers(1, 20, size_x * size_y).tolist()
    return {
        xy: Fraction(count, sum(counts))
        for xy, count in zip(product(range(size_x), range(size_y)), counts, strict=True)
    }


VALUES = {Fraction(-2): Fraction(1, 6), Fraction(1, 3): Fraction(1, 2), Fraction(5): Fraction(1, 3)}


def mean(f, p=VALUES):
    """The expectation of f under probabilities: a dict value -> p."""
    return sum(f(x) * weight for x, weight in p.items())


def variance(p):
    middle = mean(lambda x: x, p)
    return mean(lambda x: (x - middle) ** 2, p)


@pytest.mark.checks("eq-bayes", "Bayes' rule")
def test_bayes(agree):
    """A table of 3 by 4 joint probabilities, in exact fractions."""
    p = joint(3, 4)
    p_x = [sum(p[x, y] for y in range(4)) for x in range(3)]
    p_y = [sum(p[x, y] for x in range(3)) for y in range(4)]
    for x, y in p:
        agree.exactly(p[x, y] / p_y[y], (p[x, y] / p_x[x]) * p_x[x] / p_y[y])


@pytest.mark.checks("eq-variance-moments", "variance from the first two moments")
def test_variance_moments(agree):
    """A variable with three values, in exact fractions."""
    agree.exactly(variance(VALUES), mean(lambda x: x**2) - mean(lambda x: x) ** 2)


@pytest.mark.checks("eq-variance-sum", "variance of a sum of independent variables")
def test_variance_sum(agree):
    """Every pair of values of two variables, in exact fractions."""
    other = {Fraction(0): Fraction(1, 4), Fraction(7, 2): Fraction(3, 4)}
    a, b, c = Fraction(2), Fraction(-3), Fraction(5)
    total = {a * x + b * y + c: p * q for x, p in VALUES.items() for y, q in other.items()}
    assert len(total) == 6
    agree.exactly(variance(total), a**2 * variance(VALUES) + b**2 * variance(other))


@pytest.mark.checks("eq-covariance-map", "covariance after a linear map")
def test_covariance_map(agree):
    """NumPy's covariance of twenty points before and after the map, and the mean of the mapped
    distances, one point after the other."""
    rng = np.random.default_rng(0)
    points, a, b = rng.random((20, 3)), rng.standard_normal((2, 3)), rng.standard_normal(2)
    mapped = np.cov((points @ a.T + b).T, ddof=0)
    d = points - points.mean(axis=0)
    agree(mapped, np.mean([a @ np.outer(e, e) @ a.T for e in d], axis=0), 1e-12)
    agree(mapped, a @ np.cov(points.T, ddof=0) @ a.T, 1e-12)


@pytest.mark.checks("eq-change-line", "density after a function of one variable")
def test_change_line(agree):
    """Its integral over intervals, against the probability of the interval it comes from."""
    for g, slope, inverse in (
        (np.sinh, np.cosh, np.arcsinh),
        (lambda x: np.exp(-x), lambda x: -np.exp(-x), lambda y: -np.log(y)),
    ):
        for low, high in ((-0.4, 0.3), (0.5, 2.0)):
            ends = sorted((g(low), g(high)))
            area = quad(lambda y, s=slope, i=inverse: normal(i(y)) / abs(s(i(y))), *ends)[0]
            agree(area, stats.norm.cdf(high) - stats.norm.cdf(low), 1e-9)


@pytest.mark.checks("eq-change-space", "density after a function of several variables")
def test_change_space(agree):
    """Polar coordinates with a Jacobian by finite differences: Rayleigh's density of the radius."""

    def polar(x):
        return np.array([np.hypot(*x), np.arctan2(x[1], x[0])])

    for x in np.array([[0.3, 0.8], [-1.5, 0.4], [2.0, -1.0]]):
        jacobian = np.stack(
            [(polar(x + e) - polar(x - e)) / 2e-5 for e in 1e-5 * np.eye(2)], axis=1
        )
        formula = normal(x[0]) * normal(x[1]) / abs(np.linalg.det(jacobian))
        agree(formula, stats.rayleigh.pdf(np.hypot(*x)) / (2 * np.pi), 1e-9)


@pytest.mark.checks("eq-normal-integral", "integral of the bell curve")
def test_normal_integral(agree):
    """SymPy's integral."""
    x = sympy.Symbol("x", real=True)
    agree.exactly(
        sympy.integrate(sympy.exp(-(x**2) / 2), (x, -sympy.oo, sympy.oo)), sympy.sqrt(2 * sympy.pi)
    )


def moments(density, low, high):
    """The integral of a density, its mean and its variance, by adaptive quadrature."""
    total = quad(density, low, high, epsabs=1e-13, limit=200)[0]
    middle = quad(lambda x: x * density(x), low, high, epsabs=1e-13, limit=200)[0] / total
    spread = quad(lambda x: (x - middle) ** 2 * density(x), low, high, epsabs=1e-13, limit=200)[0]
    return total, middle, spread / total


@pytest.mark.checks("eq-normal-moments", "mean and variance of the normal distribution")
def test_normal_moments(agree):
    """Integrals of the density, and of the scaled and shifted variable, by adaptive quadrature."""
    for mu, var in ((0.7, 2.0), (-3.0, 0.25)):

        def density(x, mu=mu, var=var):
            return np.exp(-((x - mu) ** 2) / (2 * var)) / np.sqrt(2 * np.pi * var)

        agree(moments(density, mu - 20, mu + 20), (1.0, mu, var), 1e-9)
        first, second = (
            quad(lambda e, k=k, m=mu, s=var**0.5: (m + s * e) ** k * normal(e), -12, 12)[0]
            for k in (1, 2)
        )
        agree([first, second - first**2], [mu, var], 1e-8)


def covariance(rng, size):
    """A random covariance matrix."""
    root = rng.standard_normal((size, size))
    return root @ root.T + 0.2 * np.eye(size)


@pytest.mark.checks("eq-normal-map", "linear map of a normal vector")
def test_normal_map(agree):
    """Densities at 50 points, by the change of variables."""
    rng = np.random.default_rng(0)
    mu, sigma, b, c = rng.random(3), covariance(rng, 3), rng.random((3, 3)), rng.random(3)
    x = rng.multivariate_normal(mu, sigma, 50)
    mapped = stats.multivariate_normal(b @ mu + c, b @ sigma @ b.T).logpdf(x @ b.T + c)
    before = stats.multivariate_normal(mu, sigma).logpdf(x)
    agree(mapped, before - np.log(abs(np.linalg.det(b))), 1e-9)


@pytest.mark.checks("eq-normal-sum", "sum of two independent normal variables")
def test_normal_sum(agree):
    """The convolution of the two densities by adaptive quadrature, at seven points."""
    for z in np.linspace(-3, 6, 7):
        convolution = quad(
            lambda x, z=z: normal(x, 1.0, 0.8) * normal(z - x, -0.5, 1.5), -10, 12, epsabs=1e-13
        )[0]
        agree(convolution, normal(z, 0.5, np.sqrt(0.8**2 + 1.5**2)), 1e-10)


@pytest.mark.checks("eq-complete-square", "completing the square")
def test_complete_square(agree):
    """SymPy multiplies out."""
    x, a, b = sympy.symbols("x a b")
    agree.exactly(a * x**2 - 2 * b * x, a * (x - b / a) ** 2 - b**2 / a)


PAIRS = [((-1.0, 2.0), (2.0, 1.0)), ((0.5, 0.3), (0.2, 0.9))]


@pytest.mark.checks("eq-normal-product", "product of two normal densities")
def test_normal_product(agree):
    """Mean and variance of the product by adaptive quadrature, and its shape at nine points."""
    for (m1, s1), (m2, s2) in PAIRS:

        def both(x, m1=m1, s1=s1, m2=m2, s2=s2):
            return normal(x, m1, s1) * normal(x, m2, s2)

        total, middle, spread = moments(both, -12, 12)
        l1, l2 = 1 / s1**2, 1 / s2**2
        mu, deviation = (l1 * m1 + l2 * m2) / (l1 + l2), (l1 + l2) ** -0.5
        agree([middle, spread], [mu, deviation**2], 1e-9)
        x = mu + deviation * np.linspace(-2, 2, 9)
        agree(both(x) / total, normal(x, mu, deviation), 1e-9)


@pytest.mark.checks("eq-normal-product-factor", "factor of that product")
def test_normal_product_factor(agree):
    """The integral of the product by adaptive quadrature."""
    for (m1, s1), (m2, s2) in PAIRS:
        integral = moments(
            lambda x, p=(m1, s1), q=(m2, s2): normal(x, *p) * normal(x, *q), -12, 12
        )[0]
        agree(integral, normal(m1, m2, np.sqrt(s1**2 + s2**2)), 1e-10)


@pytest.mark.checks("eq-complete-square-vector", "completing the square, vectors")
def test_complete_square_vector(agree):
    """SymPy multiplies out, with a symmetric 2 by 2 matrix of symbols."""
    x, b = (sympy.Matrix(sympy.symbols(f"{name}1 {name}2")) for name in "xb")
    p, q, r = sympy.symbols("p q r")
    matrix = sympy.Matrix([[p, q], [q, r]])
    centre = matrix.inv() * b
    left = x.T * matrix * x - 2 * b.T * x
    right = (x - centre).T * matrix * (x - centre) - b.T * matrix.inv() * b
    agree.exactly(left[0], right[0])


def plane_moments(log_density, centre=(0.0, 0.0), half=9.0):
    """Mean [2] and covariance [2, 2] of a density in the plane, on a grid of 601 by 601 points."""
    axes = [np.linspace(c - half, c + half, 601) for c in centre]
    points = np.stack(np.meshgrid(*axes), axis=-1).reshape(-1, 2)
    weight = log_density(points)
    weight = np.exp(weight - weight.max())
    return np.average(points, axis=0, weights=weight), np.cov(points.T, aweights=weight, ddof=0)


@pytest.mark.checks("eq-normal-product-vector", "product of two normal densities, vectors")
def test_normal_product_vector(agree):
    """Mean and covariance of the product on a grid of 601 by 601 points."""
    rng = np.random.default_rng(1)
    m1, m2, s1, s2 = rng.random(2), -rng.random(2), covariance(rng, 2), covariance(rng, 2)
    first, second = stats.multivariate_normal(m1, s1), stats.multivariate_normal(m2, s2)
    middle, spread = plane_moments(lambda x: first.logpdf(x) + second.logpdf(x))
    l1, l2 = np.linalg.inv(s1), np.linalg.inv(s2)
    agree(spread, np.linalg.inv(l1 + l2), 1e-8)
    agree(middle, np.linalg.inv(l1 + l2) @ (l1 @ m1 + l2 @ m2), 1e-8)


M, V, A, B, S = 0.4, 1.7, -0.6, 0.3, 0.5  # x ~ N(m, v) and y = a x + b + s eps


@pytest.mark.checks("eq-linear-marginal", "scaled, shifted and noisy version of a normal variable")
def test_linear_marginal(agree):
    """The integral over $x$ by adaptive quadrature, at seven values of $y$."""
    for y in np.linspace(-3, 3, 7):
        integral = quad(
            lambda x, y=y: normal(x, M, np.sqrt(V)) * normal(y, A * x + B, S),
            -14,
            14,
            epsabs=1e-13,
            limit=200,
        )[0]
        agree(integral, normal(y, A * M + B, np.sqrt(A**2 * V + S**2)), 1e-10)


@pytest.mark.checks("eq-linear-posterior", "normal variable, given a noisy version of it")
def test_linear_posterior(agree):
    """Mean and variance of Bayes' rule by adaptive quadrature, at four values of $y$."""
    for y in (-2.0, 0.0, 0.3, 1.5):
        w = 1 / (1 / V + A**2 / S**2)
        _, middle, spread = moments(
            lambda x, y=y: normal(x, M, np.sqrt(V)) * normal(y, A * x + B, S), -14, 14
        )
        agree([middle, spread], [w * (M / V + A * (y - B) / S**2), w], 1e-9)


def parts(seed=0):
    """A normal vector with a part a of two dimensions and a part b of two."""
    rng = np.random.default_rng(seed)
    mu, sigma = rng.random(4), covariance(rng, 4)
    a, b = slice(0, 2), slice(2, 4)
    return mu, sigma, a, b


@pytest.mark.checks("eq-joint-square", "logarithm of a joint normal density, one part completed")
def test_joint_square(agree):
    """The quadratic form itself, at 20 points."""
    mu, sigma, a, b = parts()
    precision = np.linalg.inv(sigma)
    l_aa, l_ab, l_bb = precision[a, a], precision[a, b], precision[b, b]
    shift, rest = np.linalg.inv(l_aa) @ l_ab, l_bb - l_ab.T @ np.linalg.inv(l_aa) @ l_ab
    for d in np.random.default_rng(1).standard_normal((20, 4)):
        moved = d[a] + shift @ d[b]
        agree(
            -0.5 * moved @ l_aa @ moved - 0.5 * d[b] @ rest @ d[b], -0.5 * d @ precision @ d, 1e-10
        )


@pytest.mark.checks("eq-normal-marginal", "marginal of a normal vector")
def test_normal_marginal(agree):
    """The joint density summed over the other part, on a grid of 601 by 601 points."""
    mu, sigma, a, b = parts()
    axis, step = np.linspace(-15, 15, 601, retstep=True)
    grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    for x_b in ([0.0, 0.5], [1.0, -1.0], [-2.0, 0.3]):
        points = np.hstack([grid, np.tile(x_b, (len(grid), 1))])
        total = stats.multivariate_normal(mu, sigma).pdf(points).sum() * step**2
        agree(total, stats.multivariate_normal(mu[b], sigma[b, b]).pdf(x_b), 1e-9)


@pytest.mark.checks("eq-normal-conditional", "one part of a normal vector, given the other")
def test_normal_conditional(agree):
    """Mean and covariance of a slice of the joint density, on a grid of 601 by 601 points."""
    mu, sigma, a, b = parts()
    for x_b in ([0.0, 0.5], [1.0, -1.0]):
        gain = sigma[a, b] @ np.linalg.inv(sigma[b, b])
        centre, spread = mu[a] + gain @ (x_b - mu[b]), sigma[a, a] - gain @ sigma[b, a]
        got = plane_moments(
            lambda x_a, x_b=x_b: stats.multivariate_normal(mu, sigma).logpdf(
                np.hstack([x_a, np.tile(x_b, (len(x_a), 1))])
            ),
            half=12.0,
        )
        agree(got[0], centre, 1e-7)
        agree(got[1], spread, 1e-7)


@pytest.mark.checks("eq-jensen", "Jensen's inequality")
def test_jensen(agree):
    """1,000 random distributions over five values, four convex functions: none violates it."""
    rng = np.random.default_rng(0)
    for f in (np.square, np.exp, lambda x: -np.log(x), np.abs):
        for _ in range(1000):
            x, p = rng.uniform(0.1, 4, 5), rng.dirichlet(np.ones(5))
            agree(max(0.0, f(p @ x) - p @ f(x)), 0.0, 1e-12)


def draws(n):
    """Every outcome of n draws of VALUES, with its probability."""
    for outcome in product(VALUES.items(), repeat=n):
        values, weights = zip(*outcome, strict=True)
        yield values, np.prod(weights)


@pytest.mark.checks("eq-standard-error", "standard error of a mean")
def test_standard_error(agree):
    """Every outcome of two to four draws of a variable with three values, in exact fractions."""
    truth = mean(lambda x: x)
    for n in (2, 3, 4):
        square = sum(p * (sum(values) / n - truth) ** 2 for values, p in draws(n))
        agree.exactly(sympy.sqrt(square), sympy.sqrt(variance(VALUES) / n))


@pytest.mark.checks("eq-sample-variance", "variance estimated from draws")
def test_sample_variance(agree):
    """Its expectation over every outcome of two to four draws, in exact fractions."""

    def estimate(values):
        n = len(values)
        middle = sum(values) / n
        return sum((value - middle) ** 2 for value in values) / (n - 1)

    for n in (2, 3, 4):
        agree.exactly(sum(p * estimate(values) for values, p in draws(n)), variance(VALUES))


@pytest.mark.checks("eq-importance", "importance sampling")
def test_importance(agree):
    """Monte Carlo: 100,000 weighted draws, against SciPy's tail of the normal distribution; the
    integral by quadrature."""
    x = 4 + 1.2 * np.random.default_rng(0).standard_normal(100_000)
    weighted = (x > 4) * normal(x) / normal(x, 4, 1.2)
    agree.in_mean(weighted, stats.norm.sf(4))
    integral = quad(lambda x: normal(x) / normal(x, 4, 1.2) * normal(x, 4, 1.2), 4, 16)[0]
    agree(integral / stats.norm.sf(4), 1.0, 1e-9)
    agree(weighted.mean() / stats.norm.sf(4), 1.0, 0.05)  # wrong weights spread too widely to fail
