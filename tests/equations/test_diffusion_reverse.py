from fractions import Fraction
from itertools import product

import numpy as np
import paddle
import pytest
from genbook.diffusion import GaussianDiffusion, cosine_beta_schedule

T = 1000
DIFFUSION = GaussianDiffusion(cosine_beta_schedule(T), prediction="v")
STEPS = [2, 3, 50, 300, 700, 950]  # as the text counts


def pixel(*values):
    """One pixel for each of N images: float32 tensor [N, 1, 1, 1]."""
    return paddle.to_tensor(values, dtype="float32").reshape([-1, 1, 1, 1])


def index(*steps):
    """Steps of the text, as the code counts them: int64 tensor [N]."""
    return paddle.to_tensor(steps, dtype="int64") - 1


@pytest.mark.checks("eq-posterior-bayes", "Bayes' rule for one step back")
def test_posterior_bayes(agree):
    r"""Counted path by path in a chain $x_0, \dots, x_3$ of three states, in whole fractions."""
    rng = np.random.default_rng(0)

    def row():
        counts = rng.integers(1, 9, 3).tolist()
        return [Fraction(count, sum(counts)) for count in counts]

    step = [[row() for _ in range(3)] for _ in range(3)]  # step[t][from][to]
    path = {p: step[0][p[0]][p[1]] * step[1][p[1]][p[2]] * step[2][p[2]][p[3]]
            for p in product(range(3), repeat=4)}  # given x_0 = p[0]
    for x_0, x_2, x_3 in product(range(3), repeat=3):
        here = sum(path[x_0, x_1, x_2, x_3] for x_1 in range(3))
        at_3 = sum(path[x_0, x_1, y, x_3] for x_1 in range(3) for y in range(3))
        at_2 = sum(path[x_0, x_1, x_2, y] for x_1 in range(3) for y in range(3))
        agree.exactly(here / at_3, step[2][x_2][x_3] * at_2 / at_3)


def posterior_by_grid(t, x_0, x_t):
    """Mean and variance of q(x_{t-1} | x_t, x_0): Bayes' rule on a grid of 400,001 points."""
    beta, left = DIFFUSION.betas[t - 1], np.prod(1 - DIFFUSION.betas[:t - 1])
    prior, spread = np.sqrt(left) * x_0, np.sqrt(1 - left)
    x = np.linspace(prior - 12 * spread, prior + 12 * spread, 400_001)
    log_weight = -((x - prior) ** 2) / (2 * spread**2)
    log_weight -= (x_t - np.sqrt(1 - beta) * x) ** 2 / (2 * beta)
    weight = np.exp(log_weight - log_weight.max())
    weight /= weight.sum()
    mean = (weight * x).sum()
    return mean, (weight * (x - mean) ** 2).sum()


def noisy(t, x_0):
    """A value of x_t that is neither typical nor out of reach."""
    left = np.prod(1 - DIFFUSION.betas[:t])
    return float(np.float32(np.sqrt(left) * x_0 - 1.3 * np.sqrt(1 - left)))


@pytest.mark.checks("eq-posterior-variance", "variance of one step back, the clean image known")
def test_posterior_variance(agree):
    """Bayes' rule on a grid of 400,001 points, at six steps."""
    for t in STEPS:
        _, variance = posterior_by_grid(t, 0.75, noisy(t, 0.75))
        got = DIFFUSION.q_posterior_mean_variance(pixel(0.75), pixel(noisy(t, 0.75)), index(t))[1]
        agree(got.item() / variance, 1.0, 1e-6)


@pytest.mark.checks("eq-posterior-mean", "mean of one step back, the clean image known")
def test_posterior_mean(agree):
    """Bayes' rule on a grid of 400,001 points, at six steps."""
    for t in STEPS:
        mean, _ = posterior_by_grid(t, 0.75, noisy(t, 0.75))
        got = DIFFUSION.q_posterior_mean_variance(pixel(0.75), pixel(noisy(t, 0.75)), index(t))[0]
        agree(got.item(), mean, 1e-6)


def noised(seed=0):
    """Clean pixels, noise, steps, and the mixture of both that the forward process makes."""
    rng = np.random.default_rng(seed)
    x_0, noise = pixel(*rng.uniform(-1, 1, 6)), pixel(*rng.standard_normal(6))
    t = index(*STEPS)
    return x_0, noise, t, DIFFUSION.q_sample(x_0, t, noise)


@pytest.mark.checks("eq-start-from-noise", "clean image from the noise")
def test_start_from_noise(agree):
    """Back from $x_t$, mixed of known image and noise, at six steps."""
    x_0, noise, t, x_t = noised()
    agree(DIFFUSION.predict_start_from_noise(x_t, t, noise), x_0, 1e-5)


@pytest.mark.checks("eq-noise-from-start", "noise from the clean image")
def test_noise_from_start(agree):
    """Back from $x_t$, mixed of known image and noise, at six steps."""
    x_0, noise, t, x_t = noised()
    agree(DIFFUSION.predict_noise_from_start(x_t, t, x_0), noise, 1e-5)


@pytest.mark.checks("def-v", "what the network predicts")
def test_v(agree):
    r"""Finite differences of $\cos(a)\, x_0 + \sin(a)\, \epsilon$, whose slope in $a$ is $v$."""
    x_0, noise, t, _ = noised()
    angle = np.arccos(np.sqrt(DIFFUSION.alphas_cumprod[t.numpy()]))
    x, e = x_0.numpy().ravel().astype(float), noise.numpy().ravel().astype(float)
    ahead, behind = (np.cos(a) * x + np.sin(a) * e for a in (angle + 1e-5, angle - 1e-5))
    agree(DIFFUSION.target(x_0, t, noise).numpy().ravel(), (ahead - behind) / 2e-5, 1e-6)


@pytest.mark.checks("eq-start-from-v", "clean image from $v$")
def test_start_from_v(agree):
    """Back from $x_t$ and the finite difference of the mixture along its angle."""
    x_0, noise, t, x_t = noised()
    angle = np.arccos(np.sqrt(DIFFUSION.alphas_cumprod[t.numpy()]))
    x, e = x_0.numpy().ravel().astype(float), noise.numpy().ravel().astype(float)
    ahead, behind = (np.cos(a) * x + np.sin(a) * e for a in (angle + 1e-5, angle - 1e-5))
    v = pixel(*(ahead - behind) / 2e-5)
    agree(DIFFUSION.predict_start_from_v(x_t, t, v), x_0, 1e-6)


@pytest.mark.checks("def-diffusion-loss", "loss of the diffusion model")
def test_diffusion_loss(agree):
    """Monte Carlo: a network that says 0 pays the mean square of $v$, known for four steps."""
    paddle.seed(0)
    diffusion = GaussianDiffusion([0.1, 0.3, 0.5, 0.7], prediction="v")
    x_0 = paddle.to_tensor([[[[0.2, -0.9], [0.6, 1.0]]]]).expand([32, 1, 2, 2])
    draws = [diffusion.training_loss(lambda x, t: 0 * x, x_0).item() for _ in range(400)]
    square = (0.2**2 + 0.9**2 + 0.6**2 + 1) / 4
    left = [0.9, 0.9 * 0.7, 0.9 * 0.7 * 0.5, 0.9 * 0.7 * 0.5 * 0.3]
    agree.in_mean(draws, np.mean([a + (1 - a) * square for a in left]))


@pytest.mark.checks("eq-ddim-step", "step to any earlier state")
def test_ddim_step(agree):
    """Monte Carlo on 100,000 draws: $x_s$ has the mean and variance of noising $x_0$ directly."""
    paddle.seed(0)
    diffusion = GaussianDiffusion(cosine_beta_schedule(20))  # coarse: a step aside would show
    n, t, s = 100_000, 14, 8
    x_0, now, then = paddle.full([n, 1, 1, 1], 0.6), index(t).expand([n]), index(s).expand([n])
    noise = paddle.randn(x_0.shape)
    x_t = diffusion.q_sample(x_0, now, noise)
    left = np.prod(1 - diffusion.betas[:s])
    for eta in (0.0, 0.5, 1.0):
        x_s = diffusion.ddim_sample(lambda x, t: noise, x_t, now, then, eta)
        rest = x_s.numpy().ravel().astype(float) - np.sqrt(left) * 0.6
        agree.in_mean(rest, 0.0)
        agree.in_mean(rest**2, 1 - left)


@pytest.mark.checks("def-ddim-sigma", "new noise of that step")
def test_ddim_sigma(agree):
    r"""For $\eta = 1$: the precisions of forward step and prior add up to that of the posterior."""
    for t, s in ((2, 1), (300, 299), (700, 400), (950, 10)):
        zero, one = pixel(0.0), pixel(1.0)
        quiet, loud = (DIFFUSION.ddim_sample(lambda x, t: x, pixel(0.3), index(t), index(s), 1.0, e)
                       for e in (zero, one))
        alpha, left = np.prod(1 - DIFFUSION.betas[s:t]), np.prod(1 - DIFFUSION.betas[:s])
        precision = alpha / (1 - alpha) + 1 / (1 - left)
        agree((loud - quiet).item(), precision**-0.5, 1e-6)
