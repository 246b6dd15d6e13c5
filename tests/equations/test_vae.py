import numpy as np
import paddle
import pytest
from genbook.vae import bernoulli_nll, reparameterize, squared_error
from scipy import optimize, stats
from scipy.integrate import quad

normal = stats.norm.pdf
log_normal = stats.norm.logpdf


def column(values):
    """One pixel or code component for each of N images: float64 tensor [N, 1]."""
    return paddle.to_tensor(np.asarray(values, dtype=np.float64)).reshape([-1, 1])


def expectation(f, mean, deviation):
    """The expectation of f(z) under N(mean, deviation^2), by adaptive quadrature."""
    low, high = mean - 12 * deviation, mean + 12 * deviation
    weighted = quad(lambda z: f(z) * normal(z, mean, deviation), low, high, epsabs=1e-12, limit=200)
    return weighted[0]


def log_evidence(log_likelihood):
    """log p(x) for a code with the prior N(0, 1), by adaptive quadrature."""
    evidence = quad(lambda z: np.exp(log_likelihood(z)) * normal(z), -12, 12, epsabs=1e-13)[0]
    return np.log(evidence)


def bound(log_likelihood, mean, deviation):
    """The ELBO for q = N(mean, deviation^2), by adaptive quadrature."""
    reconstruction = expectation(log_likelihood, mean, deviation)
    divergence = expectation(
        lambda z: log_normal(z, mean, deviation) - log_normal(z), mean, deviation
    )
    return reconstruction - divergence


def bent(z):
    """log p(x | z) at x = 0.4 of a decoder that is not linear."""
    return log_normal(0.4, np.sin(2 * z) + 0.3 * z, 0.5)


ENCODERS = [(0.0, 1.0), (0.3, 0.5), (-1.0, 0.7), (1.2, 0.2)]


@pytest.mark.checks("eq-elbo-jensen", "bound from Jensen's inequality")
def test_elbo_jensen(agree):
    """Exact sums over three codes: 1,000 random encoders, and the posterior."""
    rng = np.random.default_rng(0)
    prior, likelihood = np.array([0.5, 0.3, 0.2]), np.array([0.9, 0.05, 0.4])
    joint = prior * likelihood
    encoders = np.concatenate([rng.dirichlet(np.ones(3), 1000), [joint / joint.sum()]])
    bounds = (encoders * np.log(joint / encoders)).sum(axis=1)
    agree(bounds.max(), np.log(joint.sum()), 1e-12)
    agree(bounds.argmax(), 1000, 0.5)  # no other reaches the posterior's


@pytest.mark.checks("eq-elbo", "evidence lower bound")
def test_elbo(agree):
    """Quadrature: never above the evidence, and equal to it at the known posterior."""
    evidence = log_evidence(bent)
    for mean, deviation in ENCODERS:
        agree(max(0.0, bound(bent, mean, deviation) - evidence), 0.0, 1e-9)

    # x | z ~ N(2 z + 1, 0.5^2): evidence N(1, 4.25), posterior precision 1 + 4 / 0.25
    x, precision = 2.2, 17.0
    posterior = 2 * (x - 1) / 0.25 / precision, precision**-0.5
    agree(
        bound(lambda z: log_normal(x, 2 * z + 1, 0.5), *posterior),
        log_normal(x, 1, np.sqrt(4.25)),
        1e-9,
    )


@pytest.mark.checks("eq-elbo-gap", "gap between the evidence and its bound")
def test_elbo_gap(agree):
    """Both sides by quadrature, for a decoder that is not linear and four encoders."""
    evidence = log_evidence(bent)
    for mean, deviation in ENCODERS:
        gap = expectation(
            lambda z, m=mean, d=deviation: (
                log_normal(z, m, d) - (bent(z) + log_normal(z) - evidence)
            ),
            mean,
            deviation,
        )
        whole = expectation(
            lambda z, m=mean, d=deviation: bent(z) + log_normal(z) - log_normal(z, m, d),
            mean,
            deviation,
        )
        agree(whole, evidence - gap, 1e-9)
        agree(bound(bent, mean, deviation), evidence - gap, 1e-9)


LINEAR = (1.5, 0.2, 0.8, 1.7), (-0.7, 0.0, 1.2, 0.4)  # a, b, s and x


@pytest.mark.checks("eq-linear-exact", "evidence and posterior of the linear model")
def test_linear_exact(agree):
    """Evidence, posterior mean and posterior variance by adaptive quadrature."""
    for a, b, s, x in LINEAR:

        def moment(power, a=a, b=b, s=s, x=x):
            def joint(z):
                return z**power * normal(x, a * z + b, s) * normal(z)

            return quad(joint, -12, 12, epsabs=1e-13)[0]

        variance = a**2 + s**2
        evidence, mean = moment(0), moment(1) / moment(0)
        agree(normal(x, b, np.sqrt(variance)), evidence, 1e-10)
        agree(a * (x - b) / variance, mean, 1e-9)
        agree(s**2 / variance, moment(2) / evidence - mean**2, 1e-9)


@pytest.mark.checks("eq-elbo-linear", "bound of the linear model")
def test_elbo_linear(agree):
    """Both expectations of the bound by adaptive quadrature, for four encoders."""
    for a, b, s, x in LINEAR:

        def log_likelihood(z, a=a, b=b, s=s, x=x):
            return log_normal(x, a * z + b, s)

        for m, d in ENCODERS:
            formula = (
                -0.5 * np.log(2 * np.pi * s**2)
                - ((x - b - a * m) ** 2 + a**2 * d**2) / (2 * s**2)
                - 0.5 * (d**2 + m**2 - 1 - np.log(d**2))
            )
            agree(formula, bound(log_likelihood, m, d), 1e-8)


def f(z):
    return np.sin(2 * z) + 0.2 * z**3


def slope(g, at, step=1e-3):
    """The derivative of g, by central differences of fourth order."""
    near, far = g(at + step) - g(at - step), g(at + 2 * step) - g(at - 2 * step)
    return (8 * near - far) / (12 * step)


@pytest.mark.checks("eq-score-gradient", "gradient by the score function")
def test_score_gradient(agree):
    r"""Finite differences of $\E[f(z)]$, itself by quadrature."""
    for mu, sigma in ((0.3, 0.7), (-1.0, 1.3)):
        change = slope(lambda m, s=sigma: expectation(f, m, s), mu)

        def log_slope(z, m=mu, s=sigma):
            return slope(lambda u: log_normal(z, u, s), m)

        agree(expectation(lambda z, g=log_slope: f(z) * g(z), mu, sigma), change, 1e-8)
        score = expectation(lambda z, m=mu, s=sigma: f(z) * (z - m) / s**2, mu, sigma)
        agree(score, change, 1e-8)


@pytest.mark.checks("eq-reparameterize", "draw from a normal distribution")
def test_reparameterize(agree):
    r"""Quantiles of $\epsilon$ become SciPy's quantiles of $\N(\mu, \sigma^2)$."""
    share = np.linspace(0.001, 0.999, 999)
    epsilon = column(stats.norm.ppf(share))
    for mu, sigma in ((0.3, 0.7), (-1.0, 1.3)):
        logvar = column(np.full(999, np.log(sigma**2)))
        z = reparameterize(column(np.full(999, mu)), logvar, epsilon)
        agree(z.numpy()[:, 0], stats.norm.ppf(share, mu, sigma), 1e-12)


@pytest.mark.checks("eq-pathwise-gradient", "gradient through the draw")
def test_pathwise_gradient(agree):
    r"""Finite differences of $\E[f(z)]$, itself by quadrature."""
    for mu, sigma in ((0.3, 0.7), (-1.0, 1.3)):

        def slope_of_f(e, m=mu, s=sigma):
            return 2 * np.cos(2 * (m + s * e)) + 0.6 * (m + s * e) ** 2

        pathwise = expectation(slope_of_f, 0, 1)
        agree(pathwise, slope(lambda m, s=sigma: expectation(f, m, s), mu), 1e-8)


@pytest.mark.checks("eq-pathwise-sigma", "gradient of the spread through the draw")
def test_pathwise_sigma(agree):
    r"""Finite differences of $\E[f(z)]$, itself by quadrature."""
    for mu, sigma in ((0.3, 0.7), (-1.0, 1.3)):

        def noise_times_slope(e, m=mu, s=sigma):
            return e * (2 * np.cos(2 * (m + s * e)) + 0.6 * (m + s * e) ** 2)

        pathwise = expectation(noise_times_slope, 0, 1)
        agree(pathwise, slope(lambda s, m=mu: expectation(f, m, s), sigma), 1e-8)


@pytest.mark.checks("eq-diagonal-gap", "gap of an encoder without correlation")
def test_diagonal_gap(agree):
    """Search for the smallest divergence, by Gauss-Hermite quadrature in the plane."""
    node, weight = np.polynomial.hermite_e.hermegauss(20)
    e = np.stack(np.meshgrid(node, node), axis=-1).reshape(-1, 2)
    w = np.outer(weight, weight).ravel() / (2 * np.pi)
    for precision in ([[9.0, 6.0], [6.0, 6.0]], [[2.0, -1.5], [-1.5, 3.0]]):
        precision = np.array(precision)
        posterior = stats.multivariate_normal([0.4, -1.0], np.linalg.inv(precision))

        def divergence(parameters, posterior=posterior):
            m, d = parameters[:2], np.exp(parameters[2:])
            z = m + d * e
            return w @ (log_normal(z, m, d).sum(axis=1) - posterior.logpdf(z))

        found = optimize.minimize(divergence, np.zeros(4), method="BFGS")
        gap = 0.5 * np.log(precision[0, 0] * precision[1, 1] / np.linalg.det(precision))
        agree(gap, found.fun, 1e-6)


PIXELS = np.linspace(0.05, 0.95, 19)


@pytest.mark.checks("eq-pixel-normal", "negative log-likelihood, normal pixel")
def test_pixel_normal(agree):
    """SciPy's log-density of the normal distribution."""
    x_hat, x = (grid.reshape(-1, 1) for grid in np.meshgrid(PIXELS, PIXELS))
    got = squared_error(paddle.to_tensor(x_hat), paddle.to_tensor(x)).numpy()
    agree(got + 0.5 * np.log(2 * np.pi), -log_normal(x, x_hat, 1), 1e-12)


@pytest.mark.checks("eq-pixel-bernoulli", "negative log-likelihood, Bernoulli pixel")
def test_pixel_bernoulli(agree):
    """SciPy's probabilities of ink and ground."""
    x_hat, x = (grid.reshape(-1, 1) for grid in np.meshgrid(PIXELS, [0.0, 1.0]))
    got = bernoulli_nll(paddle.to_tensor(x_hat), paddle.to_tensor(x))
    agree(got, -stats.bernoulli.logpmf(x, x_hat), 1e-9)
