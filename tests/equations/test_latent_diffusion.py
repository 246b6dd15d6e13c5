import numpy as np
import paddle
import pytest
from scipy import stats

from genbook.latent import CodeScale


@pytest.mark.checks("eq-elbo-surgery", "The mean KL divergence is information plus mismatch")
def test_elbo_surgery(agree):
    """Three posteriors on a line: each of the three divergences by quadrature on 40,001 points."""
    z = np.linspace(-20, 20, 40_001)
    width = z[1] - z[0]
    posteriors = np.array([stats.norm.pdf(z, m, s) for m, s in ((-2, 0.5), (0.3, 1.2), (1, 0.8))])
    prior, aggregated = stats.norm.pdf(z), posteriors.mean(axis=0)

    def divergence(p, q):
        terms = np.zeros_like(p)
        np.log(p, where=p > 0, out=terms)
        return (p * (terms - np.log(np.maximum(q, 1e-300)))).sum() * width

    whole = np.mean([divergence(p, prior) for p in posteriors])
    information = np.mean([divergence(p, aggregated) for p in posteriors])
    agree(whole, information + divergence(aggregated, prior), tolerance=1e-9)


@pytest.mark.checks("eq-total-variance", "Mean and variance of the codes of all images")
def test_total_variance(agree):
    """Two million codes of seven images are drawn and scaled: mean 0 and mean square 1."""
    rng = np.random.default_rng(0)
    mu, logvar = rng.normal(1, 2, (7, 3)), rng.normal(-1, 1, (7, 3))
    index = rng.integers(0, 7, 2_000_000)
    z = mu[index] + np.exp(0.5 * logvar[index]) * rng.standard_normal((2_000_000, 3))
    scale = CodeScale(paddle.to_tensor(mu), paddle.to_tensor(logvar))
    u = scale.to_unit(paddle.to_tensor(z)).numpy()
    agree.in_mean(u, np.zeros(3))
    agree.in_mean(u**2, np.ones(3))
