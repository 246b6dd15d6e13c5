import numpy as np
import paddle
import pytest
import sympy
from genbook.vae import gaussian_kl
from scipy import optimize, stats
from scipy.integrate import quad

log_normal = stats.norm.logpdf


def kl_of_probabilities(p, q):
    """KL(p || q) in nats, term by term in plain Python, for nested lists of probabilities."""
    pairs = zip(np.ravel(p).tolist(), np.ravel(q).tolist(), strict=True)
    return sum(a * np.log(a / b) for a, b in pairs if a > 0)


def kl_of_densities(log_p, log_q, low=-15, high=15):
    """KL(p || q) in nats by adaptive quadrature."""
    return quad(
        lambda x: np.exp(log_p(x)) * (log_p(x) - log_q(x)), low, high, epsabs=1e-12, limit=400
    )[0]


@pytest.mark.checks("def-kl-divergence", "KL divergence")
def test_kl_divergence(agree):
    """Cross-entropy and entropy, term by term, and the mean logarithm of the quotient, against
    SciPy's relative entropy."""
    for seed in range(5):
        p, q = np.random.default_rng(seed).dirichlet(np.ones(6), 2)
        cross, own = (-sum(a * np.log(b) for a, b in zip(p, r, strict=True)) for r in (q, p))
        agree(cross - own, stats.entropy(p, q), 1e-12)
        agree(kl_of_probabilities(p, q), stats.entropy(p, q), 1e-12)


@pytest.mark.checks("eq-nats-bits", "nats and bits")
def test_nats_bits(agree):
    """SciPy's relative entropy to the base 2."""
    p, q = np.random.default_rng(0).dirichlet(np.ones(6), 2)
    agree(kl_of_probabilities(p, q) / np.log(2), stats.entropy(p, q, base=2), 1e-12)


@pytest.mark.checks("eq-kl-nonnegative", "the divergence is never negative")
def test_kl_nonnegative(agree):
    """10,000 random pairs of distributions, the closest nearly equal; and equal ones give 0."""
    rng = np.random.default_rng(0)
    for i in range(10_000):
        p, other = rng.dirichlet(np.ones(4), 2)
        q = p + (other - p) * 10 ** -(i % 5)
        divergence = kl_of_probabilities(p, q)
        agree(max(0.0, -divergence), 0.0, 1e-15)
        assert divergence > 0
    agree(kl_of_probabilities(p, p), 0.0, 0)


def two_bumps(x):
    return np.logaddexp(np.log(0.6) + log_normal(x, -2, 0.7), np.log(0.4) + log_normal(x, 2, 0.7))


@pytest.mark.checks("eq-moment-matching", "normal distribution that covers best")
def test_moment_matching(agree):
    """Numerical minimisation of the divergence, summed over 3,001 points."""
    x = np.linspace(-15, 15, 3001)
    log_p = two_bumps(x)
    p = np.exp(log_p) * (x[1] - x[0])

    def cost(m_log_s):
        return p @ (log_p - log_normal(x, m_log_s[0], np.exp(m_log_s[1])))

    found = optimize.minimize(
        cost, [0.0, 0.5], method="Nelder-Mead", options={"xatol": 1e-8, "fatol": 1e-13}
    ).x
    mean = 0.6 * -2 + 0.4 * 2
    variance = 0.7**2 + 0.6 * (-2 - mean) ** 2 + 0.4 * (2 - mean) ** 2
    agree([found[0], np.exp(2 * found[1])], [mean, variance], 1e-4)


@pytest.mark.checks("eq-kl-likelihood", "divergence and likelihood")
def test_kl_likelihood(agree):
    """Twelve data counted by value, the divergence of their shares summed over the values."""
    data = np.array([0, 0, 3, 1, 0, 2, 2, 0, 1, 0, 3, 0])
    shares = np.bincount(data) / len(data)
    for model in np.random.default_rng(0).dirichlet(np.ones(4), 5):
        likelihood = np.mean([np.log(model[x]) for x in data])
        agree(-likelihood - stats.entropy(shares), kl_of_probabilities(shares, model), 1e-12)


@pytest.mark.checks("eq-kl-chain", "chain rule of the divergence")
def test_kl_chain(agree):
    """Random tables of 3 by 4 probabilities, summed over all twelve pairs."""
    p, q = np.random.default_rng(0).dirichlet(np.ones(12), 2).reshape(2, 3, 4)
    p_x, q_x = p.sum(axis=1), q.sum(axis=1)
    inner = sum(p_x[x] * kl_of_probabilities(p[x] / p_x[x], q[x] / q_x[x]) for x in range(3))
    agree(kl_of_probabilities(p_x, q_x) + inner, kl_of_probabilities(p, q), 1e-12)


@pytest.mark.checks("eq-kl-additive", "divergences of independent dimensions add")
def test_kl_additive(agree):
    """The joint probabilities of three independent dimensions, summed over all 24 triples."""
    rng = np.random.default_rng(0)
    p, q = [[rng.dirichlet(np.ones(n)) for n in (2, 3, 4)] for _ in range(2)]
    together = [np.einsum("i,j,k->ijk", *factors) for factors in (p, q)]
    agree(sum(map(kl_of_probabilities, p, q)), kl_of_probabilities(*together), 1e-12)


@pytest.mark.checks("eq-kl-normal", "divergence of two normal distributions")
def test_kl_normal(agree):
    """SymPy integrates the definition."""
    x, m1, m2 = sympy.symbols("x mu_1 mu_2", real=True)
    s1, s2 = sympy.symbols("sigma_1 sigma_2", positive=True)

    def log_density(m, s):
        return -((x - m) ** 2) / (2 * s**2) - sympy.log(s) - sympy.log(2 * sympy.pi) / 2

    integrand = (log_density(m1, s1) - log_density(m2, s2)).subs(x, m1 + s1 * x)
    bell = sympy.exp(-(x**2) / 2) / sympy.sqrt(2 * sympy.pi)
    integral = sympy.integrate(sympy.expand(integrand) * bell, (x, -sympy.oo, sympy.oo))
    distance = (s1**2 + (m1 - m2) ** 2) / (2 * s2**2)
    agree.exactly(integral, sympy.log(s2 / s1) + distance - sympy.Rational(1, 2))


@pytest.mark.checks("eq-kl-standard-normal", "divergence from the standard normal distribution")
def test_kl_standard_normal(agree):
    """The definition by adaptive quadrature, in six cases."""
    for mu, sigma in ((0, 1), (0.5, 1), (0, 0.2), (-1.5, 0.6), (2, 1.5), (0.1, 1.7)):
        got = gaussian_kl(*paddle.to_tensor([[[float(mu)]], [[2 * np.log(sigma)]]], "float64"))
        integral = kl_of_densities(lambda x, m=mu, s=sigma: log_normal(x, m, s), log_normal)
        agree(got, [integral], 1e-9)


@pytest.mark.checks("eq-kl-diagonal", "the same in $J$ independent dimensions")
def test_kl_diagonal(agree):
    """Monte Carlo: 200,000 draws from $p$ in five dimensions, densities by SciPy."""
    rng = np.random.default_rng(0)
    mu, logvar = rng.normal(size=(1, 5)), rng.normal(size=(1, 5))
    p = stats.multivariate_normal(mu[0], np.diag(np.exp(logvar[0])))
    prior = stats.multivariate_normal(np.zeros(5), np.eye(5))
    z = p.rvs(200_000, random_state=rng)
    formula = gaussian_kl(paddle.to_tensor(mu), paddle.to_tensor(logvar))
    agree.in_mean(p.logpdf(z) - prior.logpdf(z), formula.item())


@pytest.mark.checks("eq-kl-diagonal")
def test_kl_diagonal_one_by_one(agree):
    """The definition by adaptive quadrature, in three dimensions one by one."""
    mu = np.array([[0.8, -1.5, 0.0], [2.0, 0.1, -0.3]])
    logvar = np.array([[-1.0, 0.6, 0.0], [1.0, -3.0, 2.0]])

    def divergence(m, s):
        return kl_of_densities(lambda z: log_normal(z, m, s), log_normal, m - 12 * s, m + 12 * s)

    each = np.vectorize(divergence)(mu, np.exp(logvar / 2))  # [2, 3]
    got = gaussian_kl(paddle.to_tensor(mu), paddle.to_tensor(logvar))
    agree(got, each.sum(axis=1), 1e-9)


def normal_pair(seed=0, size=3):
    """Two random normal distributions: mean and covariance of each."""
    rng = np.random.default_rng(seed)
    roots = rng.normal(size=(2, size, size))
    return zip(rng.normal(size=(2, size)), roots @ roots.swapaxes(1, 2) + np.eye(size), strict=True)


@pytest.mark.checks("eq-quadratic-form", "mean of a quadratic form")
def test_quadratic_form(agree):
    """Monte Carlo: 200,000 draws in three dimensions, with a matrix that is not symmetric."""
    (mu, sigma), _ = normal_pair()
    rng = np.random.default_rng(1)
    m, a = rng.normal(size=3), rng.normal(size=(3, 3))
    d = rng.multivariate_normal(mu, sigma, 200_000) - m
    agree.in_mean(np.einsum("ni,ij,nj->n", d, a, d), np.trace(a @ sigma) + (mu - m) @ a @ (mu - m))


@pytest.mark.checks("eq-kl-normal-general", "divergence of two normal distributions, vectors")
def test_kl_normal_general(agree):
    """Monte Carlo: 200,000 draws from $p$ in three dimensions, densities by SciPy."""
    (mu_1, cov_1), (mu_2, cov_2) = normal_pair()
    between, inverse = mu_1 - mu_2, np.linalg.inv(cov_2)
    formula = 0.5 * (
        np.trace(inverse @ cov_1)
        + between @ inverse @ between
        - 3
        + np.log(np.linalg.det(cov_2) / np.linalg.det(cov_1))
    )
    p, q = stats.multivariate_normal(mu_1, cov_1), stats.multivariate_normal(mu_2, cov_2)
    x = p.rvs(200_000, random_state=np.random.default_rng(1))
    agree.in_mean(p.logpdf(x) - q.logpdf(x), formula)


@pytest.mark.checks("eq-information-bound", "what the divergence of an encoder consists of")
def test_information_bound(agree):
    """The mutual information of four images and five codes from their joint table."""
    rng = np.random.default_rng(0)
    q, p_z = rng.dirichlet(np.ones(5), 4), rng.dirichlet(np.ones(5))
    together, q_z = q / 4, q.mean(axis=0)
    information = (
        stats.entropy(np.full(4, 0.25)) + stats.entropy(q_z) - stats.entropy(together, axis=None)
    )
    left = np.mean([kl_of_probabilities(row, p_z) for row in q])
    agree(left, information + kl_of_probabilities(q_z, p_z), 1e-12)
