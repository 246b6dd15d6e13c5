import numpy as np
import pytest
import sympy
from genbook.evaluation.metrics import class_entropy, frechet_distance
from scipy import stats


@pytest.mark.checks("def-class-entropy", "class entropy")
def test_class_entropy(agree):
    """SciPy's entropy with the logarithm to the base $K$, in three cases."""
    for counts in ([5, 3, 2, 0], [1, 1, 1, 1], [7, 0, 0, 0]):
        probabilities = np.eye(4).repeat(counts, axis=0)
        agree(class_entropy(probabilities), stats.entropy(counts, base=4), 1e-12)


@pytest.mark.checks("eq-frechet-line", "cheapest way between two normal distributions on a line")
def test_frechet_line(agree):
    """Gauss-Hermite quadrature with ten nodes, which is exact for this polynomial."""
    node, weight = np.polynomial.hermite_e.hermegauss(10)
    for m1, s1, m2, s2 in ((0, 1, 0, 1), (1.5, 0.4, -0.3, 1.1), (0, 2, 1, 0.5)):
        cost = (weight * (m1 + s1 * node - m2 - s2 * node) ** 2).sum() / np.sqrt(2 * np.pi)
        agree(cost, (m1 - m2) ** 2 + (s1 - s2) ** 2, 1e-12)


@pytest.mark.checks("eq-frechet", "cheapest way between two normal distributions in the plane")
def test_frechet(agree):
    """Search: of 200,000 linear maps from the one set onto the other, the cheapest."""
    rng = np.random.default_rng(0)
    a = rng.standard_normal((50, 2)) @ [[1.0, 0.4], [0.0, 0.6]]
    b = rng.standard_normal((70, 2)) @ [[0.5, -0.2], [0.9, 1.5]] + [1.0, -2.0]
    # Every map that gives a the covariance of b turns or mirrors a between two square roots.
    root_a, root_b = (np.linalg.cholesky(np.cov(set_.T)) for set_ in (a, b))
    spheres = np.linalg.solve(root_a, (a - a.mean(0)).T)
    angle = np.linspace(0, 2 * np.pi, 100_001)
    cos, sin = np.cos(angle), np.sin(angle)
    cheapest = np.inf
    for mirror in (1, -1):
        turn = np.array([[cos, -mirror * sin], [sin, mirror * cos]])  # [2, 2, angles]
        maps = np.einsum("ij,jka->aik", root_b, turn)
        # The cost of moving the centred a: |a|^2 + |map a|^2 - 2 <a, map a>, over n - 1
        cross = np.einsum("aij,jn,ni->a", maps, spheres, a - a.mean(0)) / (len(a) - 1)
        cost = np.trace(np.cov(a.T)) + np.trace(np.cov(b.T)) - 2 * cross
        cheapest = min(cheapest, cost.min() + ((a.mean(0) - b.mean(0)) ** 2).sum())
    agree(frechet_distance(a, b), cheapest, 1e-6)


@pytest.mark.checks("eq-entropy-uniform", "class entropy and divergence from equal shares")
def test_entropy_uniform(agree):
    """SciPy's relative entropy of random shares of 2 to 10 classes and of equal ones."""
    rng = np.random.default_rng(0)
    for classes in range(2, 11):
        counts = rng.integers(0, 20, classes) + np.eye(classes, dtype=int)[0]
        divergence = stats.entropy(counts, np.ones(classes))
        probabilities = np.eye(classes).repeat(counts, axis=0)
        agree(class_entropy(probabilities), 1 - divergence / np.log(classes), 1e-12)


@pytest.mark.checks("eq-exchange", "what two crossed ways cost more than two in order")
def test_exchange(agree):
    """SymPy multiplies out, and finds the sign where each second place is behind the first."""
    a, a1, b, b1 = sympy.symbols("a a1 b b1", real=True)
    crossed, straight = (a - b1) ** 2 + (a1 - b) ** 2, (a - b) ** 2 + (a1 - b1) ** 2
    agree.exactly(crossed - straight, 2 * (a1 - a) * (b1 - b))
    c, d = sympy.symbols("c d", positive=True)
    more = (crossed - straight).subs({a1: a + c, b1: b + d})
    agree.exactly(sympy.sign(sympy.expand(more)), 1)


@pytest.mark.checks("eq-frechet-means", "the bias of the squared distance of two means")
def test_frechet_means(agree):
    """20,000 pairs of sets of 5 and 9 correlated, exponentially distributed points."""
    rng = np.random.default_rng(0)
    mix = np.array([[1.0, 0.5, 0.0], [0.0, 0.8, -0.3]])
    means = [(rng.exponential(size=(20_000, n, 2)) @ mix).mean(axis=1) for n in (5, 9)]
    expected = (1 / 5 + 1 / 9) * np.trace(mix.T @ mix)  # exponential draws have variance 1
    agree.in_mean(((means[0] - means[1]) ** 2).sum(axis=1), expected)
