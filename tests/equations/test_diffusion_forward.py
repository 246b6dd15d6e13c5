import numpy as np
import paddle
import pytest
from genbook.diffusion import GaussianDiffusion, cosine_beta_schedule, linear_beta_schedule
from scipy import stats
from scipy.integrate import quad
from scipy.special import expit, logit

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
        below = quad(
            lambda y: np.exp(-((y - mean) ** 2) / (2 * beta)) / np.sqrt(2 * np.pi * beta),
            mean - 12 * deviation,
            u,
            epsabs=1e-12,
        )[0]
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


@pytest.mark.checks("eq-forward-variance", "variance of a pixel from step to step")
def test_forward_variance(agree):
    """Monte Carlo: 200,000 pixels that are 0 or 1 equally often, through eight steps."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 2, 200_000) * 1.0
    variance, distance = 0.25, -0.75
    for beta in cosine_beta_schedule(8):
        x = np.sqrt(1 - beta) * x + np.sqrt(beta) * rng.standard_normal(len(x))
        variance = (1 - beta) * variance + beta
        distance *= 1 - beta
        agree.in_mean((x - x.mean()) ** 2, variance)
        agree(variance - 1, distance, 1e-12)


@pytest.mark.checks("eq-forward-jump", "from any state to any later one")
def test_forward_jump(agree):
    """Mean and variance carried through the single steps in between, for four pairs of states."""
    for betas in SCHEDULES:
        left = GaussianDiffusion(betas).alphas_cumprod
        for s, t in ((1, 2), (10, 300), (400, 900), (998, 999)):
            mean, variance = 0.7, 0.0
            for beta in betas[s:t]:
                mean, variance = np.sqrt(1 - beta) * mean, (1 - beta) * variance + beta
            ratio = left[t - 1] / left[s - 1]
            agree(np.sqrt(ratio) * 0.7, mean, 1e-12)
            agree(1 - ratio, variance, 1e-12)


@pytest.mark.checks("eq-forward-end", "limit on what is left at the end")
def test_forward_end(agree):
    """The logarithm of the code's product for both schedules; that of the linear one for five $T$
    is at most -10.05, and lower by 8 per cent at most."""
    for betas in SCHEDULES:
        left = np.log(GaussianDiffusion(betas).alphas_cumprod[-1])
        agree(sum(np.log(1 - beta) for beta in betas) / left, 1.0, 1e-12)
        agree(max(0.0, left + sum(betas)), 0.0, 0.0)
    for steps in (100, 250, 500, 1000, 4000):
        left = np.log(GaussianDiffusion(linear_beta_schedule(steps)).alphas_cumprod[-1])
        agree(max(0.0, left + 10.05), 0.0, 0.0)
        agree(left / -10.05, 1.0, 0.08)


@pytest.mark.checks("eq-forward-angle", "image and noise as a turning pair")
def test_forward_angle(agree):
    """The code's factors of image and noise against those of the angle, at all steps."""
    for betas in SCHEDULES:
        diffusion = GaussianDiffusion(betas)
        one, t = of_all_steps(1.0)
        image = diffusion.q_sample(one, t, paddle.zeros_like(one)).numpy().ravel()
        noise = diffusion.q_sample(paddle.zeros_like(one), t, one).numpy().ravel()
        agree(image, np.cos(np.arctan2(noise, image)), 1e-6)
        agree(image**2, np.cumprod(1 - betas), 1e-6)


@pytest.mark.checks("eq-log-snr", r"$\bar\alpha_t$ from the logarithm of the ratio")
def test_log_snr(agree):
    """SciPy's logit and logistic function, at all steps."""
    for betas in SCHEDULES:
        left = GaussianDiffusion(betas).alphas_cumprod
        level = np.log(left / (1 - left))
        agree(level, logit(left), 1e-9)
        agree(1 / (1 + np.exp(-level)), expit(logit(left)), 1e-12)


@pytest.mark.checks("eq-image-posterior", "which image was noised")
def test_image_posterior(agree):
    """Bayes' rule with SciPy's densities, for five images of three pixels."""
    rng = np.random.default_rng(0)
    images, noise = rng.uniform(-1, 1, (5, 3)), rng.standard_normal(3)
    for left in (0.9, 0.4, 0.01):
        x_t = np.sqrt(left) * images[2] + np.sqrt(1 - left) * noise
        d = ((x_t - np.sqrt(left) * images) ** 2).sum(axis=1) / (2 * (1 - left))
        density = [
            stats.multivariate_normal(np.sqrt(left) * image, 1 - left).pdf(x_t) for image in images
        ]
        agree(np.exp(-d) / np.exp(-d).sum(), density / np.sum(density), 1e-12)


@pytest.mark.checks("eq-forward-covariance", "covariance of two states of one path")
def test_forward_covariance(agree):
    """Monte Carlo: 200,000 paths of ten steps."""
    rng, betas = np.random.default_rng(0), cosine_beta_schedule(10)
    left = GaussianDiffusion(betas).alphas_cumprod
    path = [rng.standard_normal(200_000)]
    for beta in betas:
        step = np.sqrt(1 - beta) * path[-1] + np.sqrt(beta) * rng.standard_normal(200_000)
        path.append(step)
    for s, t in ((1, 2), (3, 7), (2, 9)):
        agree.in_mean(path[s] * path[t], np.sqrt(left[t - 1] / left[s - 1]))


@pytest.mark.checks("eq-exploding-sigma", "the same process without shrinking")
def test_exploding_sigma(agree):
    r"""Noise added step by step, of such sizes that the scaled state has the variance of $x_t$."""
    diffusion = GaussianDiffusion(linear_beta_schedule(1000))
    variance = 0.0  # of y given the image
    for beta, left in zip(diffusion.betas, diffusion.alphas_cumprod, strict=True):
        variance += beta / left  # the noise of one step, at the scale of y
        agree((1 - left) / left / variance, 1.0, 1e-9)
        agree(1 / (left / (1 - left)) / variance, 1.0, 1e-9)


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
