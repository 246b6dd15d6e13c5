from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from genbook.vae import gaussian_kl
from paddle import to_tensor
from scipy import stats
from scipy.integrate import quad


@pytest.mark.checks("eq-linear-end", "what a linear schedule leaves of the image")
def test_linear_end(agree):
    """The product over all steps, for three small schedules; the rest is of second order."""
    for steps in (100, 1000, 3000):
        low, high = 1e-4, 0.02 * 100 / steps
        betas = [low + (high - low) * k / (steps - 1) for k in range(steps)]
        agree(np.sum(betas), steps / 2 * (low + high), 1e-12)
        left = np.prod([1 - beta for beta in betas])
        agree(np.log(left), -steps / 2 * (low + high), 0.01)


@pytest.mark.checks("eq-range-snr", "signal-to-noise ratio of images in another range")
def test_range_snr(agree):
    """Monte Carlo: variance of the image's part of a million noisy pixels, over the noise's."""
    rng = np.random.default_rng(0)
    x_0, noise = rng.choice([-1.0, -0.2, 1.0], 1_000_000), rng.standard_normal(1_000_000)
    level = 0.6
    half = np.sqrt(level) * (x_0 + 1) / 2 + np.sqrt(1 - level) * noise
    ratio = level * np.var([-1.0, -0.2, 1.0]) / (1 - level) / 4
    agree.in_mean((half - half.mean()) ** 2 / (1 - level) - 1, np.array(ratio))


@pytest.mark.checks("eq-never-drawn", "a step that is never drawn")
def test_never_drawn(agree):
    """All sequences of draws counted in small cases, and the exponential for many draws."""
    for steps, draws in ((2, 5), (3, 6), (5, 4)):
        cases = list(product(range(steps), repeat=draws))
        missing = sum(steps - 1 not in case for case in cases)
        agree.exactly((1 - Fraction(1, steps)) ** draws, Fraction(missing, len(cases)))
    agree((1 - 1 / 1000) ** 13_816 * 1e6, 1.0, 0.01)


@pytest.mark.checks("eq-half-forgotten", "divergence saved by forgetting a half")
def test_half_forgotten(agree):
    """The true divergence by quadrature, the reported one by the code."""
    for mu, s in ((0.0, -2.0), (0.7, -0.5), (-1.2, 0.3)):

        def integrand(z):
            log_q = stats.norm.logpdf(z, mu, np.exp(s))
            return np.exp(log_q) * (log_q - stats.norm.logpdf(z))

        reach = 12 * np.exp(s)
        true = quad(integrand, mu - reach, mu + reach, epsabs=1e-12)[0]
        reported = gaussian_kl(*(to_tensor([[value]], "float64") for value in (mu, s))).item()
        agree(0.5 * (np.exp(2 * s) - np.exp(s) - s), true - reported, 1e-8)


@pytest.mark.checks("eq-ranks", "variance of averaged gradients")
def test_ranks(agree):
    """Monte Carlo: 400,000 draws of four correlated numbers."""
    rng = np.random.default_rng(0)
    sigma, ranks = 1.7, 4
    for rho in (0.0, 0.3, 1.0):
        covariance = sigma**2 * (rho + (1 - rho) * np.eye(ranks))
        g = rng.multivariate_normal(np.zeros(ranks), covariance, 400_000)
        agree.in_mean(g.mean(axis=1) ** 2, np.array(sigma**2 * (1 + (ranks - 1) * rho) / ranks))
