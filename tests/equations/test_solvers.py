import numpy as np
from quadrature import integral
import paddle
import pytest
import sympy as sp
from genbook.diffusion import GaussianDiffusion, cosine_beta_schedule
from genbook.solvers import (
    denoiser,
    dpm_solver_2m,
    euler,
    heun,
    karras_levels,
    noise_levels,
    preconditioning,
)
from scipy import stats
from scipy.integrate import quad, solve_ivp
from scipy.optimize import brentq, minimize_scalar

PARTS = [(0.5, -1.0, 0.3), (0.2, 0.4, 0.5), (0.3, 1.5, 0.2)]  # weight, mean, deviation of x_0
LEVELS = [0.1, 0.6, 3.0]
SHARES = [0.1, 0.55, 0.9]


def clean(x_0):
    return sum(w * stats.norm.pdf(x_0, m, s) for w, m, s in PARTS)


def best(x, sigma):
    """The mean of x_0 given the noisy number x, by quadrature."""
    seen = lambda x_0: clean(x_0) * stats.norm.pdf(x, x_0, sigma)  # noqa: E731
    return integral(lambda x_0: x_0 * seen(x_0)) / integral(seen)


def share(x, sigma):
    """The share of noisy numbers below x."""
    return sum(w * stats.norm.cdf(x, m, np.hypot(s, sigma)) for w, m, s in PARTS)


def path(u, sigma):
    """Where a share u of the noisy numbers is below, by root search."""
    return brentq(lambda x: share(x, sigma) - u, -60, 60, xtol=1e-14, rtol=1e-14)


def slope(f, x, step=1e-4):
    return (f(x + step) - f(x - step)) / (2 * step)


@pytest.mark.checks("eq-flow-denoiser", "probability flow in the noise level")
def test_flow_denoiser(agree):
    """The path of a quantile, found by root search, and the mean of x_0 by quadrature."""
    for sigma in LEVELS:
        for u in SHARES:
            x = path(u, sigma)
            rise = slope(lambda s, u=u: path(u, s), sigma)
            agree((x - best(x, sigma)) / sigma, rise, 1e-5)


@pytest.mark.checks("eq-euler-mix", "Euler's step as a mixture of state and estimate")
def test_euler_mix(agree):
    """The code's step along the slope, against the mixture with given estimates."""
    x, estimate = np.array([1.3, -0.4]), np.array([0.2, 0.9])
    for sigma, then in ((5.0, 2.0), (0.4, 0.1), (0.4, 0.0)):
        got = euler(lambda x, s: estimate, x, [sigma, then])
        agree(got, then / sigma * x + (1 - then / sigma) * estimate, 1e-12)


@pytest.mark.checks("eq-ddim-is-euler", "DDIM is Euler's step in the noise level")
def test_ddim_is_euler(agree):
    """The code's DDIM step and its Euler step on one state, with an estimate that is clipped."""
    diffusion = GaussianDiffusion(cosine_beta_schedule(1000), "v")
    levels, signal = noise_levels(diffusion), diffusion.sqrt_alphas_cumprod
    rng = np.random.default_rng(0)
    x_t, v = (
        paddle.to_tensor(3 * rng.standard_normal((2, 1, 2, 2)), dtype="float32") for _ in range(2)
    )
    for t, s in ((900, 700), (500, 499), (80, 0), (80, -1)):
        now, then = (paddle.full([2], step, dtype="int64") for step in (t, s))
        ddim = diffusion.ddim_sample(lambda x, t: v, x_t, now, then)
        grid = [levels[t], levels[s] if s >= 0 else 0.0]
        step = euler(denoiser(lambda x, t: v, diffusion), x_t / float(signal[t]), grid)
        agree(step * float(signal[s] if s >= 0 else 1.0), ddim, 1e-5)


@pytest.mark.checks("eq-flow-bend", "a path bends where the denoiser changes its mind")
def test_flow_bend(agree):
    """Second differences of a quantile's path, and differences of the estimate along it."""
    for sigma in LEVELS:
        for u in SHARES:
            middle, step = path(u, sigma), 2e-3 * sigma
            around = path(u, sigma + step) + path(u, sigma - step)
            bend = (around - 2 * middle) / step**2
            change = slope(lambda s, u=u: best(path(u, s), s), sigma)
            rise = (middle - best(middle, sigma)) / sigma
            agree((rise - change) / sigma - rise / sigma, bend, 2e-4)
            agree(-change / sigma, bend, 2e-4)


def data_and_noise(deviation=0.6, n=400_000):
    rng = np.random.default_rng(0)
    return deviation * rng.choice([-1.0, 1.0], n), rng.standard_normal(n)


@pytest.mark.checks("eq-precond-in", "scale of the network's input")
def test_precond_in(agree):
    """The squares of 400,000 scaled inputs, for data of two numbers."""
    x_0, noise = data_and_noise()
    for sigma in LEVELS:
        c_in = preconditioning(sigma, 0.6)[2]
        agree(c_in, 1 / np.sqrt(0.6**2 + sigma**2), 1e-12)
        agree.in_mean((c_in * (x_0 + sigma * noise)) ** 2, 1.0)


@pytest.mark.checks("eq-precond-target", "variance of the network's target")
def test_precond_target(agree):
    """The squares of 400,000 targets, for data of two numbers and any skip."""
    x_0, noise = data_and_noise()
    for sigma in LEVELS:
        for skip in (0.1, 0.3, 1.0):
            c_out = np.sqrt((1 - skip) ** 2 * 0.6**2 + skip**2 * sigma**2)
            agree.in_mean(((x_0 - skip * (x_0 + sigma * noise)) / c_out) ** 2, 1.0)


@pytest.mark.checks("eq-precond-out", "scales that amplify the network's errors least")
def test_precond_out(agree):
    """The code's scales, against a numerical search for the least variance of the target."""
    for deviation in (0.5, 1.0, 2.0):
        for sigma in LEVELS:

            def variance(skip, sigma=sigma, deviation=deviation):
                return (1 - skip) ** 2 * deviation**2 + skip**2 * sigma**2

            found = minimize_scalar(variance, bounds=(0, 1), method="bounded")
            c_skip, c_out, _ = preconditioning(sigma, deviation)
            agree(c_skip, found.x, 1e-4)
            agree(c_out, np.sqrt(found.fun), 1e-6)


@pytest.mark.checks("eq-v-precond", "$v$ as preconditioning for unit variance")
def test_v_precond(agree):
    """The code's estimate from v at three steps, against the scales for the deviation 1."""
    diffusion = GaussianDiffusion(cosine_beta_schedule(1000), "v", clip=1e6)
    levels = noise_levels(diffusion)
    x, v = 0.7, -0.4
    for t in (3, 500, 900):
        sigma = levels[t]
        pixel = paddle.full([1, 1, 1, 1], x, dtype="float64")

        def network(x_t, t, sigma=sigma):
            agree(x_t.item(), preconditioning(sigma, 1.0)[2] * x, 1e-6)
            return paddle.full_like(x_t, v)

        got = denoiser(network, diffusion)(pixel, sigma).item()
        agree(got, x / (1 + sigma**2) - sigma / np.sqrt(1 + sigma**2) * v, 1e-6)
        c_skip, c_out, _ = preconditioning(sigma, 1.0)
        agree(c_skip * x - c_out * v, got, 1e-6)


@pytest.mark.checks("eq-flow-log", "probability flow in the logarithm of the noise level")
def test_flow_log(agree):
    """Differences of a quantile's path in the new clock, in both forms."""
    for sigma in LEVELS:
        for u in SHARES:
            clock, x = -np.log(sigma), path(u, sigma)
            estimate = best(x, sigma)
            agree(estimate - x, slope(lambda c, u=u: path(u, np.exp(-c)), clock), 1e-5)
            grown = slope(lambda c, u=u: np.exp(c) * path(u, np.exp(-c)), clock)
            agree(np.exp(clock) * estimate, grown, 1e-4)


@pytest.mark.checks("eq-flow-integral", "a step of the flow as an integral over estimates")
def test_flow_integral(agree):
    """Quadrature of the estimates on a quantile's path, against the end of the path."""
    for sigma, then in ((3.0, 1.0), (0.6, 0.2)):
        h = np.log(sigma / then)
        for u in SHARES:

            def estimate(c, u=u, sigma=sigma):
                level = sigma * np.exp(-c)
                return best(path(u, level), level)

            added = quad(lambda c, h=h: np.exp(c - h) * estimate(c), 0, h, epsabs=1e-9)[0]
            agree(np.exp(-h) * path(u, sigma) + added, path(u, then), 1e-7)


@pytest.mark.checks("eq-two-m-error", "error of a step of DPM-Solver++(2M)")
def test_two_m_error(agree):
    """SymPy integrates and expands; the code's step, for estimates that change linearly."""
    h, u = sp.symbols("h u", positive=True)
    exact = sp.integrate(sp.exp(-(h - u)) * u, (u, 0, h))
    agree.exactly(exact, h - 1 + sp.exp(-h))
    difference = exact - h / 2 * (1 - sp.exp(-h))
    agree.exactly(sp.series(exact, h, 0, 4).removeO(), h**2 / 2 - h**3 / 6)
    constant = h / 2 * (1 - sp.exp(-h))
    agree.exactly(sp.series(constant, h, 0, 4).removeO(), h**2 / 2 - h**3 / 4)
    agree.exactly(sp.series(difference, h, 0, 4).removeO(), h**3 / 12)
    for length in (0.1, 0.5):
        grid = np.exp([0.3, 0.0, -length])  # the estimate is minus log sigma
        x = np.array([0.4])
        middle = euler(lambda x, s: np.array([-np.log(s)]), x, grid[:2])
        got = dpm_solver_2m(lambda x, s: np.array([-np.log(s)]), x, grid)
        truth = np.exp(-length) * middle + float(exact.subs(h, length))
        agree(truth - got, [float(difference.subs(h, length))], 1e-9)


@pytest.mark.checks("eq-flow-quantile", "on a line a path of the flow is a quantile")
def test_flow_quantile(agree):
    """A general solver of differential equations follows the flow, with estimates by quadrature."""
    for u in SHARES:
        end = solve_ivp(
            lambda s, x: [(x[0] - best(x[0], s)) / s],
            (3.0, 0.2),
            [path(u, 3.0)],
            rtol=1e-8,
            atol=1e-10,
        )
        agree(share(end.y[0, -1], 0.2), share(path(u, 3.0), 3.0), 1e-6)


@pytest.mark.checks("eq-heun-weight", "Heun's step by estimates")
def test_heun_weight(agree):
    """The code's step along the mean of two slopes, with estimates that are given."""
    x = np.array([1.3, -0.4])
    for sigma, then in ((5.0, 2.0), (0.4, 0.1), (80.0, 1.0)):
        first, second = np.array([0.2, 0.9]), np.array([-0.3, 1.1])
        got = heun(lambda x, s, now=sigma: first if s == now else second, x, [sigma, then])
        guess = then / sigma * x + (1 - then / sigma) * first
        h = np.log(sigma / then)
        agree(got, guess + 0.5 * (np.exp(h) - 1) * (second - first), 1e-9)


@pytest.mark.checks("eq-linear-weight", "weight of an estimate that changes linearly")
def test_linear_weight(agree):
    """Quadrature of the integral."""
    for h in (0.1, 1.0, 3.0):
        found = quad(lambda u, h=h: np.exp(u - h) * u / h, 0, h)[0]
        agree(1 - (1 - np.exp(-h)) / h, found, 1e-10)


@pytest.mark.checks("eq-two-stages", "methods of second order with two slopes")
def test_two_stages(agree):
    """SymPy expands the exact end and the method's, for dx / dt = x + t."""
    k, a, x, t = sp.symbols("k a x t")
    slope = lambda x, t: x + t  # noqa: E731
    second = 1 / (2 * a)
    first = 1 - 1 / (2 * a)
    one = slope(x, t)
    two = slope(x + a * k * one, t + a * k)
    exact = (x + t + 1) * sp.exp(k) - (t + k) - 1
    method = sp.expand(x + k * (first * one + second * two))
    agree.exactly(sp.series(exact, k, 0, 3).removeO(), method)


@pytest.mark.checks("eq-mended-weight", "Heun's step with a mean of estimates")
def test_mended_weight(agree):
    """The exact step of the flow for a constant estimate, which is the mean of two."""
    x, first, second = 1.3, 0.2, -0.7
    for sigma, then in ((5.0, 2.0), (80.0, 1.0)):
        h = np.log(sigma / then)
        mean = (first + second) / 2
        truth = solve_ivp(lambda c, x, mean=mean: mean - x, (0, h), [x], rtol=1e-10, atol=1e-12).y[
            0, -1
        ]
        guess = then / sigma * x + (1 - then / sigma) * first
        agree(guess + 0.5 * (1 - np.exp(-h)) * (second - first), truth, 1e-8)


@pytest.mark.checks("eq-flow-normal", "probability flow of normal data")
def test_flow_normal(agree):
    """The code's 2M with 4,000 steps, and the estimate of normal data by quadrature."""
    s = 0.7

    def normal(x_0):
        return stats.norm.pdf(x_0, 0, s)

    for x, sigma in ((0.5, 0.3), (-1.2, 1.0)):
        seen = lambda x_0, x=x, sigma=sigma: normal(x_0) * stats.norm.pdf(x, x_0, sigma)  # noqa: E731
        estimate = integral(lambda x_0: x_0 * seen(x_0)) / integral(seen)
        agree(s**2 / (s**2 + sigma**2) * x, estimate, 1e-6)
    x = np.array([2.5, -40.0])
    grid = np.geomspace(20.0, 0.1, 4001)
    got = dpm_solver_2m(lambda x, sigma: s**2 / (s**2 + sigma**2) * x, x, grid)
    agree(got, np.sqrt((s**2 + 0.1**2) / (s**2 + 20.0**2)) * x, 1e-4)


@pytest.mark.checks("eq-euler-angle", "what a step of Euler's method keeps of normal data")
def test_euler_angle(agree):
    """The code's step on one number, against the cosine of the angle."""
    s = 0.7
    for sigma, then in ((20.0, 1.0), (1.0, 0.4), (0.4, 0.0)):
        got = euler(lambda x, sigma: s**2 / (s**2 + sigma**2) * x, np.array([1.0]), [sigma, then])
        exact = np.sqrt((s**2 + then**2) / (s**2 + sigma**2))
        kept = (s**2 + sigma * then) / np.sqrt((s**2 + sigma**2) * (s**2 + then**2))
        agree(got / exact, [kept], 1e-12)
        agree(kept, np.cos(np.arctan(sigma / s) - np.arctan(then / s)), 1e-12)


@pytest.mark.checks("eq-rho-limit", "levels for a large exponent")
def test_rho_limit(agree):
    """The code's levels for an exponent of a million, against a geometric sequence."""
    got = karras_levels(9, 0.01, 80.0, rho=1e6)[:-1]
    agree(np.log(got), np.linspace(np.log(80.0), np.log(0.01), 9), 1e-4)
