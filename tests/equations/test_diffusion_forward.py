import numpy as np
import paddle
import pytest
from genbook.diffusion import GaussianDiffusion, cosine_beta_schedule, linear_beta_schedule
from scipy import stats
from scipy.integrate import quad

SCHEDULES = [linear_beta_schedule(1000), cosine_beta_schedule(1000)]


def of_all_steps(value, steps=1000):
    """The same pixel at every step: tensors [T, 1, 1, 1] and [T]."""
    return paddle.full([steps, 1, 1, 1], value), paddle.arange(steps)


@pytest.mark.checks("eq-forward-kernel", "one step of noising as a distribution")
def test_forward_kernel(agree):
    """Its integral up to $u$ by quadrature, against the share of noise that leads below $u$."""
    x, beta = 0.7, 0.02
    mean, deviation = np.sqrt(1 - beta) * x, np.sqrt(beta)
    for u in np.linspace(0.3, 1.1, 9):
        below = quad(lambda y: np.exp(-((y - mean) ** 2) / (2 * beta)) / np.sqrt(2 * np.pi * beta),
                     mean - 12 * deviation, u, epsabs=1e-12)[0]
        agree(below, stats.norm.cdf((u - np.sqrt(1 - beta) * x) / np.sqrt(beta)), 1e-9)


@pytest.mark.checks("def-alpha-bar", "share of the image that is left")
def test_alpha_bar(agree):
    """The sum of the logarithms."""
    for betas in SCHEDULES:
        alphas_cumprod = GaussianDiffusion(betas).alphas_cumprod
        agree(np.log(alphas_cumprod), [np.sum(np.log1p(-betas[:t])) for t in range(1, 1001)], 1e-10)


@pytest.mark.checks("eq-q-sample", "any number of noising steps at once")
def test_q_sample(agree):
    """Mean and variance carried through 1,000 single steps, under both schedules."""
    for betas in SCHEDULES:
        diffusion = GaussianDiffusion(betas)
        mean, variance, course = 0.7, 0.0, []
        for beta in betas:
            mean, variance = np.sqrt(1 - beta) * mean, (1 - beta) * variance + beta
            course.append((mean, variance))
        means, variances = np.array(course).T
        x_start, t = of_all_steps(0.7)
        centre = diffusion.q_sample(x_start, t, paddle.zeros_like(x_start)).numpy().ravel()
        above = diffusion.q_sample(x_start, t, paddle.ones_like(x_start)).numpy().ravel()
        agree(centre, means, 1e-6)
        agree((above - centre) ** 2, variances, 1e-6)


@pytest.mark.checks("def-cosine-schedule", "cosine schedule")
def test_cosine_schedule(agree):
    r"""The cosine of the double angle, against the product of all $1 - \beta_s$ up to $T - 1$."""
    for steps in (10, 1000):
        double = np.cos(np.pi * (np.arange(steps) / steps + 0.008) / 1.008)
        left = np.cumprod(1 - cosine_beta_schedule(steps))[:-1]
        agree(left, ((1 + double) / (1 + double[0]))[1:], 1e-12)
        agree(cosine_beta_schedule(steps)[-1], 0.999, 0)


@pytest.mark.checks("eq-snr", "signal-to-noise ratio")
def test_snr(agree):
    r"""The variances of both parts of $x_t$, where image and noise are $\pm 1$ equally often."""
    for betas in SCHEDULES:
        diffusion = GaussianDiffusion(betas)
        one, t = of_all_steps(1.0)
        zero = paddle.zeros_like(one)
        signal = [diffusion.q_sample(sign * one, t, zero).numpy() for sign in (-1, 1)]
        noise = [diffusion.q_sample(zero, t, sign * one).numpy() for sign in (-1, 1)]
        ratio = (np.var(signal, axis=0) / np.var(noise, axis=0)).ravel()
        formula = diffusion.alphas_cumprod / (1 - diffusion.alphas_cumprod)
        agree(ratio / formula, np.ones(1000), 1e-5)
