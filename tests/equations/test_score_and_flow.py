import numpy as np
from quadrature import integral
import paddle
import pytest
import sympy as sp
from genbook.diffusion import GaussianDiffusion, linear_beta_schedule
from scipy import stats
from scipy.integrate import quad
from scipy.optimize import brentq

PARTS = [(0.5, -1.0, 0.3), (0.2, 0.4, 0.5), (0.3, 1.5, 0.2)]  # weight, mean, deviation of x_0
POINTS = [-1.7, -0.4, 0.3, 1.1, 2.0]
TAUS = [0.1, 0.3, 0.6]
CIRCLE = [(0.9, 0.1), (0.5, 0.5), (0.05, 0.95)]  # squares of the weights of image and noise


def clean(x_0):
    return sum(w * stats.norm.pdf(x_0, m, s) for w, m, s in PARTS)


def density(x, signal, noise):
    """Of signal * x_0 + noise * epsilon, by quadrature over x_0."""
    return integral(lambda x_0: clean(x_0) * stats.norm.pdf(x, signal * x_0, noise))


def posterior_mean(f, x, signal, noise):
    """The mean of f(x_0, epsilon) given x, by quadrature over x_0."""
    return integral(
        lambda x_0: (
            f(x_0, (x - signal * x_0) / noise) * clean(x_0) * stats.norm.pdf(x, signal * x_0, noise)
        )
    ) / density(x, signal, noise)


def slope(f, x, step=1e-4):
    return (f(x + step) - f(x - step)) / (2 * step)


def score(x, signal, noise):
    """By finite differences of the logarithm of the density."""
    return slope(lambda u: np.log(density(u, signal, noise)), x)


def beta(tau):
    return 0.1 + 19.9 * tau


def alpha_bar(tau):
    return np.exp(-0.1 * tau - 9.95 * tau**2)


def scales(tau):
    return np.sqrt(alpha_bar(tau)), np.sqrt(1 - alpha_bar(tau))


def mixture(x, tau, law=stats.norm.pdf):
    """The density of the noised mixture, or with stats.norm.cdf its distribution function."""
    a = alpha_bar(tau)
    return sum(w * law(x, np.sqrt(a) * m, np.sqrt(a * s**2 + 1 - a)) for w, m, s in PARTS)


def log_slope(x, tau):
    return slope(lambda u: np.log(mixture(u, tau)), x, 1e-5)


@pytest.mark.checks("eq-score-normal", "score of the normal distribution")
def test_score_normal(agree):
    """Symbolic differentiation of the log-density in two dimensions."""
    x, y, a, b = sp.symbols("x y a b", real=True)
    s = sp.Symbol("s", positive=True)
    normal = sp.exp(-((x - a) ** 2 + (y - b) ** 2) / (2 * s**2)) / (2 * sp.pi * s**2)
    agree.exactly(sp.diff(sp.log(normal), x), -(x - a) / s**2)
    agree.exactly(sp.diff(sp.log(normal), y), -(y - b) / s**2)


@pytest.mark.checks("eq-score-mixture", "score of a mixture")
def test_score_mixture(agree):
    """Finite differences of the logarithm of the mixture."""
    for x in POINTS:
        parts = np.array([w * stats.norm.pdf(x, m, s) for w, m, s in PARTS])
        scores = np.array([-(x - m) / s**2 for _, m, s in PARTS])
        agree(parts @ scores / parts.sum(), slope(lambda u: np.log(clean(u)), x, 1e-5), 1e-6)


@pytest.mark.checks("eq-score-mean", "score of noisy data as a mean of simple scores")
def test_score_mean(agree):
    """Quadrature over the clean number on both sides, and finite differences."""
    for a, b in CIRCLE:
        signal, noise = a**0.5, b**0.5
        for x in POINTS:
            simple = posterior_mean(lambda x_0, e: -(x - signal * x_0) / b, x, signal, noise)
            agree(simple, score(x, signal, noise), 1e-6)


@pytest.mark.checks("eq-score-noise", "score from the mean of the noise")
def test_score_noise(agree):
    """The code's noise for the clean number's mean, by quadrature, against finite differences."""
    diffusion = GaussianDiffusion(linear_beta_schedule(1000))
    for t in (50, 200, 500):
        signal = diffusion.sqrt_alphas_cumprod[t]
        noise = diffusion.sqrt_one_minus_alphas_cumprod[t]
        for x in POINTS[::2]:
            start = posterior_mean(lambda x_0, e: x_0, x, signal, noise)
            pixels = [paddle.full([1, 1, 1, 1], value, "float64") for value in (x, start)]
            predicted = diffusion.predict_noise_from_start(
                pixels[0], paddle.to_tensor([t]), pixels[1]
            ).item()
            agree(-predicted / noise, score(x, signal, noise), 1e-5)


@pytest.mark.checks("eq-tweedie", "Tweedie's formula")
def test_tweedie(agree):
    """The clean number's mean by quadrature, against finite differences of the log-density."""
    for a, b in CIRCLE:
        for x in POINTS:
            mean = posterior_mean(lambda x_0, e: x_0, x, a**0.5, b**0.5)
            agree(mean, (x + b * score(x, a**0.5, b**0.5)) / a**0.5, 1e-6)


@pytest.mark.checks("eq-score-matching", "denoising score matching")
def test_score_matching(agree):
    """Integrals on a grid of 20,001 points, for three numbers as data and three functions."""
    data, weight, a = np.array([-1.0, 0.5, 1.2]), np.array([0.5, 0.3, 0.2]), 0.6
    x = np.linspace(-8, 8, 20_001)
    joint = weight * stats.norm.pdf(x[:, np.newaxis], np.sqrt(a) * data, np.sqrt(1 - a))
    simple = -(x[:, np.newaxis] - np.sqrt(a) * data) / (1 - a)
    p = joint.sum(axis=1)
    true = np.gradient(np.log(p), x)

    def mean(values):
        return (joint * values).sum() * (x[1] - x[0])

    constant = mean((true[:, np.newaxis] - simple) ** 2)
    for f in (np.zeros_like(x), np.sin(3 * x), true + 0.3):
        known, wanted = mean((f[:, np.newaxis] - simple) ** 2), mean((f - true)[:, np.newaxis] ** 2)
        agree(known - wanted, constant, 1e-4)


@pytest.mark.checks("eq-alpha-bar-limit", "what is left of the image in the limit of small steps")
def test_alpha_bar_limit(agree):
    """The code's product over 200,000 steps, against the integral by quadrature."""
    steps = 200_000
    diffusion = GaussianDiffusion(linear_beta_schedule(steps))
    for tau in (0.1, 0.5, 0.9):
        left = np.log(diffusion.alphas_cumprod[round(tau * steps) - 1])
        agree(left, -quad(beta, 0, tau)[0], 1e-3)


def normal_at(tau, mean=0.7, variance=0.3, rate=3.0):
    """Mean and variance at time tau of dx = -rate / 2 x + sqrt(rate) dW from a normal start."""
    left = np.exp(-rate * tau)
    return np.sqrt(left) * mean, left * variance + 1 - left


@pytest.mark.checks("eq-mean-change", "how the mean of a function changes")
def test_mean_change(agree):
    """Gauss-Hermite quadrature of a wave under a normal law whose course is known."""
    node, weight = np.polynomial.hermite_e.hermegauss(60)
    weight = weight / weight.sum()

    def at(tau):
        mean, variance = normal_at(tau)
        return mean + np.sqrt(variance) * node

    for tau in (0.05, 0.3, 1.0):
        x, rate = at(tau), 3.0
        change = slope(lambda u: (weight * np.sin(1.3 * at(u))).sum(), tau, 1e-5)
        drift = (weight * 1.3 * np.cos(1.3 * x) * (-0.5 * rate * x)).sum()
        spread = 0.5 * rate * (weight * -(1.3**2) * np.sin(1.3 * x)).sum()
        agree(change, drift + spread, 1e-7)


@pytest.mark.checks("eq-fokker-planck", "Fokker-Planck equation")
def test_fokker_planck(agree):
    """Finite differences in time and space of the noised mixture's closed density."""
    for tau in TAUS:
        for x in POINTS:
            change = slope(lambda u: mixture(x, u), tau, 1e-5)
            carried = slope(lambda u: -0.5 * beta(tau) * u * mixture(u, tau), x)
            bend = slope(lambda v: slope(lambda u: mixture(u, tau), v, 1e-3), x, 1e-3)
            agree(change, -carried + 0.5 * beta(tau) * bend, 1e-4)


@pytest.mark.checks("eq-probability-flow", "probability flow")
def test_probability_flow(agree):
    """On a line a flow keeps the share of points on its left; finite differences of this share."""
    for tau in TAUS:
        for x in POINTS:
            share = slope(lambda u: mixture(x, u, stats.norm.cdf), tau, 1e-5)
            velocity = -share / mixture(x, tau)
            f, g, s = -0.5 * beta(tau) * x, np.sqrt(beta(tau)), log_slope(x, tau)
            agree(f - 0.5 * g**2 * s, velocity, 1e-5)
            agree(-0.5 * beta(tau) * (x + s), velocity, 1e-5)


@pytest.mark.checks("eq-reverse-sde", "reverse stochastic differential equation")
def test_reverse_sde(agree):
    """Conditional mean and variance a time of 1e-6 earlier, for normal data, in closed form."""
    h, rate = 1e-6, 3.0
    for tau in (0.05, 0.3, 1.0):
        (before, v_before), (after, v_after) = normal_at(tau - h), normal_at(tau)
        covariance = np.exp(-0.5 * rate * h) * v_before
        for x in (-1.0, 0.2, 1.5):
            mean = before + covariance / v_after * (x - after)
            f, g, s = -0.5 * rate * x, np.sqrt(rate), -(x - after) / v_after
            agree((mean - x) / h, -f + g**2 * s, 1e-3)
            agree((mean - x) / h, rate * (0.5 * x + s), 1e-3)
        agree((v_before - covariance**2 / v_after) / h, g**2, 1e-3)


@pytest.mark.checks("eq-reverse-mean", "mean of one step back, from the score")
def test_reverse_mean(agree):
    """The code's posterior mean at the clean number's mean, both by quadrature; SymPy expands it to
    the first order in the step's noise."""
    diffusion = GaussianDiffusion(linear_beta_schedule(1000))
    for t in (50, 200, 500):
        signal = diffusion.sqrt_alphas_cumprod[t]
        noise = diffusion.sqrt_one_minus_alphas_cumprod[t]
        for x in POINTS[::2]:
            start = posterior_mean(lambda x_0, e: x_0, x, signal, noise)
            pixels = [paddle.full([1, 1, 1, 1], value, "float64") for value in (start, x)]
            mean = diffusion.q_posterior_mean_variance(*pixels, paddle.to_tensor([t]))[0].item()
            b = diffusion.betas[t]
            agree((x + b * score(x, signal, noise)) / np.sqrt(1 - b), mean, 1e-6)
    x, b, s = sp.symbols("x b s")
    exact = (x + b * s) / sp.sqrt(1 - b)
    agree.exactly(sp.series(exact, b, 0, 2).removeO(), x + b * x / 2 + b * s)


@pytest.mark.checks("eq-flow-rescaled", "probability flow in the coordinates of DDIM")
def test_flow_rescaled(agree):
    """The path of a quantile, found by root search, and the mean noise by quadrature."""

    def path(tau, share):
        return brentq(lambda x: mixture(x, tau, stats.norm.cdf) - share, -9, 9, xtol=1e-14)

    for tau in TAUS:
        for share in (0.1, 0.55, 0.9):

            def scaled(u):
                return path(u, share) / scales(u)[0]

            noise = slope(lambda u: scales(u)[1] / scales(u)[0], tau, 1e-5)
            rise = slope(scaled, tau, 1e-5) / noise
            mean = posterior_mean(lambda x_0, e: e, path(tau, share), *scales(tau))
            agree(rise, mean, 1e-5)


@pytest.mark.checks("eq-ddim-euler", "DDIM as Euler's method")
def test_ddim_euler(agree):
    """The code's step for given noise, against the formula, over four strides."""
    diffusion = GaussianDiffusion(linear_beta_schedule(1000), clip=1e6)
    level = np.append(1.0, diffusion.alphas_cumprod)  # by the number of steps of noise
    for t, s in ((1000, 950), (600, 300), (300, 299), (50, 0)):
        x, noise = 0.8, -1.3
        pixel = paddle.full([1, 1, 1, 1], x, "float64")
        now, then = paddle.to_tensor([t - 1]), paddle.to_tensor([s - 1])
        got = diffusion.ddim_sample(lambda x_t, t: paddle.full_like(x_t, noise), pixel, now, then)
        sigma = np.sqrt((1 - level) / level)
        euler = x / np.sqrt(level[t]) + (sigma[s] - sigma[t]) * noise
        agree(got.item() / np.sqrt(level[s]) / euler, 1.0, 1e-5)


@pytest.mark.checks("eq-velocity-mean", "a flow with the mean velocity keeps the densities")
def test_velocity_mean(agree):
    """Three points of the plane as data: a sum over a grid for each, finite differences in time."""
    data, share = np.array([[-1.0, 0.4], [0.5, -0.8], [1.2, 1.0]]), np.array([0.5, 0.3, 0.2])
    axis = np.linspace(-7, 7, 141)
    noise = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 1, 2)  # [N, 1, 2]
    weight = np.exp(-(noise**2).sum(axis=2) / 2) * share  # [N, 3]
    weight /= weight.sum()
    a = np.array([1.3, -0.7])  # of the function sin(a x)

    for tau in (0.3, 0.5, 0.8):
        change = slope(lambda u: (weight * np.sin(((1 - u) * data + u * noise) @ a)).sum(), tau)
        x = (1 - tau) * data + tau * noise  # [N, 3, 2]
        gradient = np.cos(x @ a)[..., np.newaxis] * a
        agree(change, (weight * (gradient * (noise - data)).sum(axis=2)).sum(), 1e-6)
        came = (x[:, :, np.newaxis] - (1 - tau) * data) / tau  # the noise for each origin of x
        chance = np.exp(-(came**2).sum(axis=3) / 2) * share  # [N, 3, 3]
        u = (chance[..., np.newaxis] * (came - data)).sum(axis=2) / chance.sum(axis=2)[..., None]
        agree(change, (weight * (gradient * u).sum(axis=2)).sum(), 1e-6)


@pytest.mark.checks("eq-v-velocity", "$v$ as the velocity along a circle")
def test_v_velocity(agree):
    """Symbolic differentiation, and the code's target at three noise levels."""
    angle, start, noise = sp.symbols("angle start noise")
    velocity = sp.diff(sp.cos(angle) * start + sp.sin(angle) * noise, angle)
    agree.exactly(velocity, sp.cos(angle) * noise - sp.sin(angle) * start)
    diffusion = GaussianDiffusion(linear_beta_schedule(1000), "v")
    for t in (10, 400, 900):
        at = {angle: float(np.arccos(diffusion.sqrt_alphas_cumprod[t])), start: 0.3, noise: -1.2}
        pixels = [paddle.full([1, 1, 1, 1], value, "float64") for value in (0.3, -1.2)]
        got = diffusion.target(pixels[0], paddle.to_tensor([t]), pixels[1]).item()
        agree(got, float(velocity.subs(at)), 1e-6)


@pytest.mark.checks("eq-v-flow", "the mean of $v$ is the probability flow")
def test_v_flow(agree):
    """The means of $v$ and noise by quadrature, the speed of the angle by finite differences."""
    for tau in TAUS:
        signal, noise = scales(tau)
        speed = slope(lambda u: np.arccos(scales(u)[0]), tau, 1e-5)
        for x in POINTS:
            mean = posterior_mean(lambda x_0, e: signal * e - noise * x_0, x, signal, noise)
            e = posterior_mean(lambda x_0, e: e, x, signal, noise)
            inner = signal * e - noise * (x - noise * e) / signal
            for form in (
                beta(tau) / 2 * signal / noise * inner,
                beta(tau) / 2 * (e / noise - x),
                -beta(tau) / 2 * (x + log_slope(x, tau)),
            ):
                agree(speed * mean, form, 1e-4)


@pytest.mark.checks("eq-velocity-parts", "noise, image and score from the velocity")
def test_velocity_parts(agree):
    """All three means by quadrature, the score by finite differences."""
    for tau in (0.2, 0.5, 0.8):
        for x in POINTS:
            u = posterior_mean(lambda x_0, e: e - x_0, x, 1 - tau, tau)
            agree(x + (1 - tau) * u, posterior_mean(lambda x_0, e: e, x, 1 - tau, tau), 1e-8)
            agree(x - tau * u, posterior_mean(lambda x_0, e: x_0, x, 1 - tau, tau), 1e-8)
            agree(-(x + (1 - tau) * u) / tau, score(x, 1 - tau, tau), 1e-5)


@pytest.mark.checks("eq-score-mean-zero", "mean of a score")
def test_score_mean_zero(agree):
    """Quadrature, with the score of the mixture by finite differences."""
    agree(integral(lambda x: clean(x) * slope(lambda u: np.log(clean(u)), x)), 0.0, 1e-4)


@pytest.mark.checks("eq-tweedie-normal", "clean number from a noisy one, both normal")
def test_tweedie_normal(agree):
    """Bayes' rule by quadrature over the clean number."""
    deviation = 0.7
    for a in (0.05, 0.4, 0.95):
        for x in POINTS:

            def weight(x_0, power=0):
                kernel = stats.norm.pdf(x, np.sqrt(a) * x_0, np.sqrt(1 - a))
                return x_0**power * stats.norm.pdf(x_0, 0, deviation) * kernel

            mass, first = (
                quad(
                    weight,
                    -6,
                    6,
                    args=(k,),
                    epsabs=1e-14,
                    limit=200,
                    points=[x / np.sqrt(a)] if abs(x / np.sqrt(a)) < 6 else None,
                )[0]
                for k in (0, 1)
            )
            v = a * deviation**2 + 1 - a
            agree(first / mass, (1 - (1 - a) / v) * x / np.sqrt(a), 1e-8)
            agree(first / mass, np.sqrt(a) * deviation**2 / v * x, 1e-8)


@pytest.mark.checks("eq-remix", "Euler's method along the straight path")
def test_remix(agree):
    """The step with the mean velocity, noise and clean number, each by its own quadrature."""
    for tau, h in ((0.9, 0.3), (0.5, 0.1), (0.2, 0.2)):
        for x in POINTS:
            u, noise, start = (
                posterior_mean(f, x, 1 - tau, tau)
                for f in (lambda x_0, e: e - x_0, lambda x_0, e: e, lambda x_0, e: x_0)
            )
            agree(x - h * u, (1 - tau + h) * start + (tau - h) * noise, 1e-8)
