from itertools import product

import numpy as np
import paddle
import pytest
import sympy
from genbook.evaluation.metrics import importance_weighted_bound
from genbook.vae import bernoulli_nll, region_weighted_loss, smooth_l1, squared_error
from scipy import optimize, stats
from scipy.integrate import quad

PIXELS = np.linspace(0.05, 0.95, 19)
NODE, WEIGHT = np.polynomial.hermite_e.hermegauss(40)
WEIGHT = WEIGHT / WEIGHT.sum()  # of N(0, 1) at the nodes


def pixel(value):
    """One image of one pixel: float64 tensor [1, 1, 1, 1]."""
    return paddle.to_tensor(np.full((1, 1, 1, 1), value, dtype=np.float64))


@pytest.mark.checks("eq-pixel-variance", "negative log-likelihood, normal pixel with a variance")
def test_pixel_variance(agree):
    """SciPy's log-density of the normal distribution, for three variances."""
    x_hat, x = (grid.reshape(-1, 1) for grid in np.meshgrid(PIXELS, PIXELS))
    half_square = squared_error(paddle.to_tensor(x_hat), paddle.to_tensor(x)).numpy()
    for s in (0.1, 0.5, 2.0):
        formula = half_square / s**2 + 0.5 * np.log(2 * np.pi * s**2)
        agree(formula, -stats.norm.logpdf(x, x_hat, s), 1e-9)


@pytest.mark.checks("eq-variance-beta", "the pixels' variance weighs the divergence")
def test_variance_beta(agree):
    """Search for the best encoder with the weight; the posterior for the variance is known, and so
    is SciPy's log-density, of which the right side is a multiple."""
    for a, s, x in ((1.5, 0.8, 1.7), (-0.7, 1.3, 0.4)):

        def weighted(m_log_d, a=a, s=s, x=x):
            m, d = m_log_d[0], np.exp(m_log_d[1])
            z = m + d * NODE
            log_ratio = stats.norm.logpdf(z, m, d) - stats.norm.logpdf(z)
            return WEIGHT @ (0.5 * (x - a * z) ** 2 + s**2 * log_ratio)

        m, log_d = optimize.minimize(weighted, [0.0, 0.0], method="BFGS", tol=1e-9).x
        precision = 1 + a**2 / s**2
        agree([m, np.exp(log_d)], [a * x / s**2 / precision, precision**-0.5], 1e-5)
        z = m + np.exp(log_d) * NODE
        nll = -stats.norm.logpdf(x, a * z, s) - 0.5 * np.log(2 * np.pi * s**2)  # E / s^2
        log_ratio = stats.norm.logpdf(z, m, np.exp(log_d)) - stats.norm.logpdf(z)
        agree(s**2 * (WEIGHT @ nll + WEIGHT @ log_ratio), weighted([m, log_d]), 1e-10)


@pytest.mark.checks("eq-best-variance", "cost of an image at the best variance")
def test_best_variance(agree):
    """Search over the variance for the smallest negative log-likelihood of random errors."""
    rng = np.random.default_rng(0)
    for scale in (0.1, 0.7):
        errors = scale * rng.standard_t(5, size=(50, 16))  # of 50 images of 16 pixels
        found = optimize.minimize_scalar(
            lambda log_s, u=errors: -stats.norm.logpdf(u, 0, np.exp(log_s)).sum(axis=1).mean(),
            bounds=(-5, 3),
            method="bounded",
            options={"xatol": 1e-10},
        )
        e = (errors**2).mean()
        for s2 in (0.5 * e, e, 3 * e):
            nll = -stats.norm.logpdf(errors, 0, np.sqrt(s2)).sum(axis=1).mean()
            agree(16 * (e / (2 * s2) + 0.5 * np.log(2 * np.pi * s2)) / nll, 1.0, 1e-12)
        agree(16 / 2 * (np.log(2 * np.pi * e) + 1), found.fun, 1e-9)
        agree(e, np.exp(2 * found.x), 1e-6)


@pytest.mark.checks("eq-huber-normaliser", "integral of the density behind Huber's loss")
def test_huber_normaliser(agree):
    """Adaptive quadrature in three pieces; for the knee at 1, of `smooth_l1` itself."""

    def huber(u, knee):
        inside = abs(u) <= knee
        return 0.5 * u**2 if inside else knee * abs(u) - 0.5 * knee**2

    def formula(knee):
        middle = stats.norm.cdf(knee) - stats.norm.cdf(-knee)  # erf(knee / sqrt 2)
        return np.sqrt(2 * np.pi) * middle + 2 / knee * np.exp(-(knee**2) / 2)

    for knee in (0.3, 1.0, 2.5):
        pieces = [(-np.inf, -knee), (-knee, knee), (knee, np.inf)]
        integral = sum(quad(lambda u: np.exp(-huber(u, knee)), *piece)[0] for piece in pieces)
        agree(formula(knee), integral, 1e-8)
    u = np.linspace(-40, 40, 800_001)
    density = np.exp(-smooth_l1(paddle.zeros(u.shape, "float64"), paddle.to_tensor(u)).numpy())
    agree(formula(1.0), density.sum() * (u[1] - u[0]), 1e-8)


@pytest.mark.checks("eq-grey-mass", "integral of the cross-entropy's exponential over grey pixels")
def test_grey_mass(agree):
    """Gauss-Legendre quadrature of `bernoulli_nll` with 60 nodes."""
    node, weight = np.polynomial.legendre.leggauss(60)
    x, weight = (node + 1) / 2, weight / 2
    for lam in (0.02, 0.3, 0.49, 0.8, 0.99):
        nll = bernoulli_nll(paddle.full(x.shape, lam, "float64"), paddle.to_tensor(x)).numpy()
        eta = np.log(lam / (1 - lam))
        agree((1 - lam) * (np.exp(eta) - 1) / eta, weight @ np.exp(-nll), 1e-8)
        agree((2 * lam - 1) / eta, weight @ np.exp(-nll), 1e-8)


@pytest.mark.checks("eq-continuous-bernoulli-mean", "mean of the continuous Bernoulli")
def test_continuous_bernoulli_mean(agree):
    """Adaptive quadrature of both moments."""
    for lam in (0.02, 0.3, 0.49, 0.8, 0.99):

        def density(x, lam=lam):
            return lam**x * (1 - lam) ** (1 - x)

        mean = quad(lambda x: x * density(x), 0, 1)[0] / quad(density, 0, 1)[0]
        eta = np.log(lam / (1 - lam))
        agree(np.exp(eta) / (np.exp(eta) - 1) - 1 / eta, mean, 1e-9)
        agree(lam / (2 * lam - 1) - 1 / eta, mean, 1e-9)


@pytest.mark.checks("eq-cross-entropy-curvature", "cross-entropy near its minimum")
def test_cross_entropy_curvature(agree):
    """First and second differences of the cross-entropy, relative to the formula."""
    h = 1e-4
    for m in (0.05, 0.3, 0.5, 0.9):
        low, mid, high = (bernoulli_nll(pixel(at), pixel(m)).item() for at in (m - h, m, m + h))
        agree((high - 2 * mid + low) / h**2 * m * (1 - m), 1.0, 1e-3)
        for moved in (low, high):
            agree((moved - mid) / (h**2 / (2 * m * (1 - m))), 1.0, 5e-3)


@pytest.mark.checks("eq-region-optimum", "best output under region weights")
def test_region_optimum(agree):
    """Search for the minimum of `region_weighted_loss`, for cross-entropy and squared error."""
    for share, white, black in ((0.5, 2.0, 1.0), (0.3, 1.0, 3.0), (0.1, 5.0, 0.5)):
        for pixel_loss in (bernoulli_nll, smooth_l1):

            def loss(x_hat, share=share, weights=(white, black), pixel_loss=pixel_loss):
                of_white, of_black = (
                    region_weighted_loss(
                        pixel(x_hat), pixel(x), 0.5, *weights, pixel_loss=pixel_loss
                    ).item()
                    for x in (1.0, 0.0)
                )
                return share * of_white + (1 - share) * of_black

            found = optimize.minimize_scalar(
                loss, bounds=(1e-3, 1 - 1e-3), method="bounded", options={"xatol": 1e-9}
            )
            agree(white * share / (white * share + black * (1 - share)), found.x, 1e-5)


@pytest.mark.checks("eq-collapse", "slope of the best linear decoder")
def test_collapse(agree):
    """Search for the slope of the highest mean log-evidence, by Gauss-Hermite quadrature."""
    for v, s2 in ((2.0, 0.5), (1.0, 0.99), (1.0, 1.01), (0.5, 2.0)):
        x = np.sqrt(v) * NODE

        def cost(a, x=x, s2=s2):
            return -WEIGHT @ stats.norm.logpdf(x, 0, np.sqrt(a**2 + s2))

        found = optimize.minimize_scalar(
            cost, bounds=(0, 3), method="bounded", options={"xatol": 1e-9}
        )
        agree(max(0.0, v - s2), found.x**2, 1e-4)


@pytest.mark.checks("eq-rate-distortion", "error and rate of the linear model")
def test_rate_distortion(agree):
    """Search over decoder and encoder; both terms by Gauss-Hermite quadrature."""
    x, e = (grid.ravel() for grid in np.meshgrid(NODE, NODE))
    weight = np.outer(WEIGHT, WEIGHT).ravel()
    for v, beta in ((2.0, 0.5), (1.0, 0.1), (1.0, 0.9)):
        data = np.sqrt(v) * x

        def terms(parameters, data=data):
            a, slope, d = parameters[0], parameters[1], np.exp(parameters[2])
            z = slope * data + d * e
            log_ratio = stats.norm.logpdf(e) - np.log(d) - stats.norm.logpdf(z)
            return weight @ (data - a * z) ** 2, weight @ log_ratio

        def cost(parameters, beta=beta):
            error, rate = terms(parameters)
            return 0.5 * error + beta * rate

        best = optimize.minimize(cost, [0.8, 0.6, -0.5], method="BFGS", tol=1e-9).x
        agree(terms(best), [beta, 0.5 * np.log(v / beta)], 1e-4)


class OnePixel:
    """A VAE with one pixel and one code component; its encoder is N(0.5, 0.7^2)."""

    def encode(self, x, labels=None):
        column = paddle.ones([len(x), 1], "float64")
        return 0.5 * column, 2 * np.log(0.7) * column

    def decode(self, z, labels=None):
        return paddle.nn.functional.sigmoid(2 * z - 0.3).reshape([-1, 1, 1, 1])


@pytest.mark.checks("eq-iw-bound", "importance-weighted bound")
def test_iw_bound(agree):
    """Quadrature over three codes, with which 50,000 draws agree; the evidence is higher, and it is
    the mean of the mean weight."""
    paddle.seed(0)
    z = 0.5 + 0.7 * NODE
    w = stats.norm.pdf(z) / stats.norm.pdf(z, 0.5, 0.7) / (1 + np.exp(0.3 - 2 * z))
    triples = (w[:, None, None] + w[:, None] + w) / 3
    expected = WEIGHT @ (WEIGHT @ (np.log(triples) @ WEIGHT))
    white = paddle.ones([50_000, 1, 1, 1], "float64")
    agree.in_mean(importance_weighted_bound(OnePixel(), white, 3), expected)
    evidence = WEIGHT @ (1 / (1 + np.exp(0.3 - 2 * NODE)))
    agree(max(0.0, expected - np.log(evidence)), 0.0, 1e-12)
    agree(np.log(WEIGHT @ (WEIGHT @ (triples @ WEIGHT))), np.log(evidence), 1e-6)


@pytest.mark.checks("eq-iw-monotone", "the bound never falls with more codes")
def test_iw_monotone(agree):
    """Exact sums over all outcomes for one to seven codes of three values."""
    guess, weights = np.array([0.2, 0.5, 0.3]), np.array([4.0, 0.3, 0.1])
    bounds = []
    for k in range(1, 8):
        outcomes = np.array(list(product(range(3), repeat=k)))  # [3^k, k]
        chance = guess[outcomes].prod(axis=1)
        bounds.append(chance @ np.log(weights[outcomes].mean(axis=1)))
    falls = np.diff([*bounds, np.log(guess @ weights)]).clip(max=0)
    agree(falls, np.zeros(7), 1e-12)


@pytest.mark.checks("eq-iw-rate", "how fast the bound becomes tight")
def test_iw_rate(agree):
    """Exact sums for 10,000 codes of two values, relative to the formula."""
    k, share, high, low = 10_000, 0.3, 2.0, 0.5
    count = np.arange(k + 1)
    mean_weight = (count * high + (k - count) * low) / k
    bound = stats.binom.pmf(count, k, share) @ np.log(mean_weight)
    p, variance = share * high + (1 - share) * low, share * (1 - share) * (high - low) ** 2
    agree((np.log(p) - bound) / (variance / (2 * k * p**2)), 1.0, 1e-3)


@pytest.mark.checks("eq-coupling", "determinant of an affine coupling")
def test_coupling(agree):
    """SymPy, the Jacobian of two numbers that stay and two that change."""
    z = sympy.symbols("z:4")
    scales, shifts = ([sympy.Function(f"{name}{i}")(*z[:2]) for i in (0, 1)] for name in "st")
    x = [*z[:2], *(c * sympy.exp(s) + t for c, s, t in zip(z[2:], scales, shifts, strict=True))]
    determinant = sympy.Matrix(x).jacobian(z).det()
    agree.exactly(sympy.exp(sum(scales)), sympy.simplify(determinant))
