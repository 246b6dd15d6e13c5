import numpy as np
from quadrature import integral
import paddle
import pytest
import sympy as sp
from genbook.diffusion import GaussianDiffusion, cosine_beta_schedule
from genbook.flow import _divergence, euler, flow_loss, log_likelihood, velocity_from_v
from genbook.solvers import euler as euler_in_noise_level
from scipy import stats
from scipy.integrate import quad, solve_ivp
from scipy.special import expit

PARTS = [(0.5, -1.0, 0.3), (0.2, 0.4, 0.5), (0.3, 1.5, 0.2)]  # weight, mean, deviation of x_0
TIMES = [0.15, 0.5, 0.9]
POINTS = [-1.1, 0.2, 0.8]
ANGLES = [0.2, np.pi / 4, 1.3]


def clean(x_0):
    return sum(w * stats.norm.pdf(x_0, m, s) for w, m, s in PARTS)


def given(x, tau, x_0):
    """The density of the state x at tau on the straight path, given x_0."""
    return stats.norm.pdf(x, (1 - tau) * x_0, tau)


def density(x, tau):
    """The density of all states, by quadrature."""
    return integral(lambda x_0: clean(x_0) * given(x, tau, x_0))


def mean_given(f, x, tau):
    """The mean of f(x_0) given the state x, by quadrature."""
    seen = lambda x_0: clean(x_0) * given(x, tau, x_0)  # noqa: E731
    return integral(lambda x_0: f(x_0) * seen(x_0)) / integral(seen)


def velocity(x, tau):
    """The velocity of the cloud from the mean image."""
    return (x - mean_given(lambda x_0: x_0, x, tau)) / tau


def closed(x, tau):
    """The same in closed form, part by part, for arrays."""
    x = np.asarray(x)[..., None]
    w, m, s = np.array(PARTS).T
    variance = (1 - tau) ** 2 * s**2 + tau**2
    away = x - (1 - tau) * m
    r = w * stats.norm.pdf(away, 0, np.sqrt(variance))
    u = (tau - (1 - tau) * s**2) / variance * away - m
    return (r * u).sum(axis=-1) / r.sum(axis=-1)


def draw(n=200_000, seed=0):
    rng = np.random.default_rng(seed)
    w, m, s = np.array(PARTS).T
    part = rng.choice(3, n, p=w)
    return m[part] + s[part] * rng.standard_normal(n), rng.standard_normal(n)


def slope(f, x, step=1e-4):
    return (f(x + step) - f(x - step)) / (2 * step)


def tensor(numbers):
    return paddle.to_tensor(np.asarray(numbers), dtype="float64")


@pytest.mark.checks("eq-flow-conditional", "velocity of the states of one image")
def test_flow_conditional(agree):
    """Both sides of the continuity equation by differences, for the normal density of one image."""
    for tau in TIMES:
        for x in POINTS:
            for x_0 in (-0.4, 1.2):
                u = lambda y, t, x_0=x_0: (y - x_0) / t  # noqa: E731
                change = slope(lambda t, x=x, x_0=x_0: given(x, t, x_0), tau)
                flow = slope(lambda y, t=tau, x_0=x_0, u=u: given(y, t, x_0) * u(y, t), x)
                agree(-flow, change, 1e-4)


@pytest.mark.checks("eq-flow-marginal", "velocity of the cloud, a mean over paths")
def test_flow_marginal(agree):
    """The continuity equation of the whole density, by quadrature and differences."""
    for tau in TIMES:
        for x in POINTS:
            change = slope(lambda t, x=x: density(x, t), tau, 1e-3)

            def flux(y, t=tau):
                return density(y, t) * mean_given(lambda x_0: (y - x_0) / t, y, t)

            agree(-slope(flux, x, 1e-3), change, 1e-4)


@pytest.mark.checks("eq-flow-denoiser-form", "velocity from the mean image")
def test_flow_denoiser_form(agree):
    """The mean of noise less image among 2 million states near a place."""
    x_0, noise = draw(2_000_000)
    for tau in TIMES:
        x = (1 - tau) * x_0 + tau * noise
        for place in (-0.5, 0.8):
            near = np.abs(x - place) < 0.01
            agree.in_mean((noise - x_0)[near] - velocity(place, tau), 0.0)


@pytest.mark.checks("eq-flow-gradient", "both losses have one gradient")
def test_flow_gradient(agree):
    """Gradients in the weights of a polynomial, by 200,000 draws; the code's loss, line by line."""
    x_0, noise = draw()
    tau = 0.6
    x = (1 - tau) * x_0 + tau * noise
    grid = np.linspace(-6, 6, 4001)
    u = np.interp(x, grid, closed(grid, tau))
    theta = np.array([0.3, -0.8, 0.2])
    powers = np.stack([x**0, x, x**2])
    output = theta @ powers
    for power in powers:
        agree.in_mean(2 * power * (output - (noise - x_0)) - 2 * power * (output - u), 0.0)
    gap = (output - (noise - x_0)) ** 2 - (output - u) ** 2
    agree.in_mean(gap - ((noise - x_0) ** 2 - u**2), 0.0)
    few = slice(0, 1000)
    loss = flow_loss(
        lambda x, t: theta[0] + theta[1] * x + theta[2] * x**2,
        tensor(x_0[few, None]),
        tensor(noise[few, None]),
        tensor(np.full(1000, tau)),
    )
    agree(loss, (output - (noise - x_0))[few] ** 2, 1e-9)


@pytest.mark.checks("eq-flow-floor", "what the best network leaves of the loss")
def test_flow_floor(agree):
    """The variance of the velocities by draws, against the posterior variance by quadrature."""
    x_0, noise = draw()
    grid = np.linspace(-7, 7, 281)
    for tau in TIMES:
        x = (1 - tau) * x_0 + tau * noise
        left = (noise - x_0 - closed(x, tau)) ** 2
        mean = np.array([mean_given(lambda x_0: x_0, y, tau) for y in grid])
        square = np.array([mean_given(lambda x_0: x_0**2, y, tau) for y in grid])
        p = np.array([density(y, tau) for y in grid])
        error = np.trapezoid(p * (square - mean**2), grid)
        agree.in_mean(left, error / tau**2)


@pytest.mark.checks("eq-flow-angle", "the straight path as a multiple of the circle")
def test_flow_angle(agree):
    """States of one pair in both coordinates."""
    for phi in ANGLES:
        c, s = np.cos(phi), np.sin(phi)
        tau = s / (c + s)
        on_circle = c * 0.7 + s * -1.9
        agree((1 - tau) * 0.7 + tau * -1.9, on_circle / (c + s), 1e-12)
        agree((1 - tau) ** 2 / tau**2, c**2 / s**2, 1e-12)


@pytest.mark.checks("eq-flow-from-v", "velocity from $v$")
def test_flow_from_v(agree):
    """The code's velocity for the v of one pair, against the direction of its line."""
    process = GaussianDiffusion(cosine_beta_schedule(1000), "v")
    x_0, noise = 0.7, -1.9
    for t in (50, 500, 950):
        c, s = process.sqrt_alphas_cumprod[t], process.sqrt_one_minus_alphas_cumprod[t]
        v = c * noise - s * x_0
        tau = s / (c + s)
        x = tensor([[(1 - tau) * x_0 + tau * noise]])
        found = velocity_from_v(lambda x, t, v=v: paddle.full_like(x, v), process)(x, tau)
        agree((c + s) * v + (s - c) * (c * x_0 + s * noise), noise - x_0, 1e-9)
        agree(found, [[noise - x_0]], 1e-5)


@pytest.mark.checks("eq-flow-error", "errors of the velocity and of $v$")
def test_flow_error(agree):
    """A wrong estimate of the image, turned into noise, v and velocity, and their errors."""
    x_0, noise, guess = 0.7, -1.9, 0.1
    for phi in ANGLES:
        c, s = np.cos(phi), np.sin(phi)
        x = c * x_0 + s * noise
        eps = (x - c * guess) / s
        of_v = (c * eps - s * guess) - (c * noise - s * x_0)
        of_u = (eps - guess) - (noise - x_0)
        agree((1 + np.sin(2 * phi)) * of_v**2, of_u**2, 1e-9)


@pytest.mark.checks("eq-flow-clock", "how fast the time runs with the angle")
def test_flow_clock(agree):
    """Differences of the time."""
    time = lambda phi: np.sin(phi) / (np.cos(phi) + np.sin(phi))  # noqa: E731
    for phi in ANGLES:
        agree(1 / (1 + np.sin(2 * phi)), slope(time, phi), 1e-7)


@pytest.mark.checks("eq-flow-same-loss", "flow matching and $v$ weigh all errors alike")
def test_flow_same_loss(agree):
    """For normal data and a bad denoiser: both integrals, each error computed in its own form."""
    deviation = 0.6

    def factor(signal, noise):
        """Of the state, in the estimate of the image: wrong by up to 40%, where noise is high."""
        share = 1 - 0.4 * noise**2 / (signal**2 + noise**2)
        return share * signal * deviation**2 / (signal**2 * deviation**2 + noise**2)

    def of_image(signal, noise):
        """The error of the image for these weights of the two."""
        k = factor(signal, noise)
        return (1 - k * signal) ** 2 * deviation**2 + k**2 * noise**2

    straight = quad(lambda t: of_image(1 - t, t) / t**2, 1e-9, 1)[0]
    circle = quad(lambda p: of_image(np.cos(p), np.sin(p)) / np.sin(p) ** 2, 1e-9, np.pi / 2)[0]
    agree(straight, circle, 1e-6)
    times = np.array([0.3, 0.8])
    for tau in times:  # the error of the velocity is that of the image over tau^2
        x_0, noise = deviation * draw()[1], draw(seed=1)[1]
        x = (1 - tau) * x_0 + tau * noise
        u = (x - factor(1 - tau, tau) * x) / tau
        agree.in_mean((u - (noise - x_0)) ** 2, of_image(1 - tau, tau) / tau**2)


@pytest.mark.checks("eq-flow-euler", "Euler's step along the flow is DDIM's")
def test_flow_euler(agree):
    """The code's step in the time, and the code's step in the noise level."""
    x, image = np.array([0.4, -1.3]), np.array([0.9, 0.2])
    for tau, then in ((0.9, 0.5), (0.5, 0.1), (0.3, 0.0)):
        found = euler(lambda x, t: (x - image) / t, x, [tau, then]) / (1 - then)
        levels = [tau / (1 - tau), then / (1 - then)]
        agree(found, euler_in_noise_level(lambda x, s: image, x / (1 - tau), levels), 1e-12)
        ratio = levels[1] / levels[0]
        agree(found, ratio * x / (1 - tau) + (1 - ratio) * image, 1e-12)
        agree((1 - then / tau) / (1 - then), 1 - ratio, 1e-12)


def flow_of(start, steps=400):
    """The paths from these noises along the closed form, and velocities: [steps + 1, N]."""
    times = np.linspace(1, 0, steps + 1)
    found = solve_ivp(lambda t, x: closed(x, t), (1, 0), start, t_eval=times, rtol=1e-9, atol=1e-10)
    return times, found.y.T


@pytest.mark.checks("eq-flow-cost", "pairs of a flow cost no more, for every convex cost")
def test_flow_cost(agree):
    """Costs of 2,000 pairs of the flow and of random pairs, and the means between them."""
    x_0, noise = draw(2000)
    times, paths = flow_of(noise)
    line = paths[0] - paths[-1]
    costs = (np.abs, np.square, lambda d: np.exp(d / 2), lambda d: np.maximum(d - 0.5, 0))
    for cost in costs:
        on_path = np.mean([cost(closed(x, t)) for t, x in zip(times, paths)], axis=0)
        at_state = np.mean([cost(closed((1 - t) * x_0 + t * noise, t)) for t in times], axis=0)
        assert cost(line).mean() <= on_path.mean() + 1e-3
        agree.in_mean(on_path - at_state, 0.0)
        error = (cost(noise - x_0) - at_state).std() / np.sqrt(2000)
        assert at_state.mean() <= cost(noise - x_0).mean() + 4 * error
        agree(line, np.mean([closed(x, t) for t, x in zip(times, paths)], axis=0), 0.02)


@pytest.mark.checks("eq-flow-saved", "what the flow's pairs save")
def test_flow_saved(agree):
    """Straightness along 4,000 paths and variance of crossing lines at random states, by draws."""
    x_0, noise = draw(4000)
    times, paths = flow_of(noise)
    middle = (times[1:] + times[:-1]) / 2
    line = paths[0] - paths[-1]
    speeds = np.diff(paths, axis=0) / np.diff(times)[:, None]
    S = ((speeds - line) ** 2).mean(axis=0)
    V = np.mean([(noise - x_0 - closed((1 - t) * x_0 + t * noise, t)) ** 2 for t in middle], axis=0)
    agree.in_mean((noise - x_0) ** 2 - line**2 - S - V, 0.0)


@pytest.mark.checks("eq-flow-part", "velocity of a normal distribution")
def test_flow_normal(agree):
    """Least squares on 200,000 draws, and quadrature for the mean image."""
    rng = np.random.default_rng(0)
    for m, s in ((0.8, 0.5), (-1.0, 1.4)):
        x_0, noise = m + s * rng.standard_normal(200_000), rng.standard_normal(200_000)
        for tau in TIMES:
            k = (tau - (1 - tau) * s**2) / ((1 - tau) ** 2 * s**2 + tau**2)
            x = (1 - tau) * x_0 + tau * noise
            rest = noise - x_0 + m - k * (x - (1 - tau) * m)
            agree.in_mean(rest, 0.0)
            agree.in_mean(rest * x, 0.0)
    for tau in TIMES:  # the mixture of such parts
        for x in POINTS:
            agree(closed(x, tau), velocity(x, tau), 1e-6)


@pytest.mark.checks("eq-flow-likelihood", "the log-density along a flow")
def test_flow_likelihood(agree):
    """The flow solved numerically with its divergence, against the density of the mixture; and the
    code's sum for a linear flow, whose density is normal."""

    def change(t, state):
        x, _ = state
        return [closed(x, t), slope(lambda y: closed(y, t), x)]

    for x in POINTS:
        end, total = solve_ivp(change, (0, 1), [x, 0.0], rtol=1e-9, atol=1e-11).y[:, -1]
        agree(stats.norm.logpdf(end) + total, np.log(clean(x)), 1e-5)
        tau = 0.4
        state = solve_ivp(change, (0, tau), [x, 0.0], rtol=1e-9, atol=1e-11).y[:, -1]
        agree(np.log(clean(x)) - state[1], np.log(density(state[0], tau)), 1e-5)
    found = log_likelihood(lambda x, t: -0.7 * x, tensor([[0.3]]), np.linspace(0, 1, 201))
    agree(found, [stats.norm.logpdf(0.3, 0, np.exp(0.7))], 1e-4)


def jacobian(seed, size=4):
    return np.random.default_rng(seed).standard_normal((size, size))


def all_signs(size):
    return np.array(np.meshgrid(*size * [[-1.0, 1.0]])).reshape(size, -1).T


@pytest.mark.checks("eq-hutchinson", "trace by random signs")
def test_hutchinson(agree):
    """The mean over all vectors of four signs; the code's estimates of many rows."""
    for seed in (0, 1):
        J = jacobian(seed)
        agree(np.mean([z @ J @ z for z in all_signs(4)]), np.trace(J), 1e-12)
        paddle.seed(seed)
        x = paddle.zeros([40_000, 4], dtype="float64")
        u, estimates = _divergence(lambda x, t: x @ tensor(J.T), x, 0.5)
        agree.in_mean(estimates, np.trace(J))


@pytest.mark.checks("eq-hutchinson-variance", "variance of the trace by signs")
def test_hutchinson_variance(agree):
    """The variance over all vectors of four signs."""
    for seed in (0, 1, 2):
        J = jacobian(seed)
        expected = sum((J[i, j] + J[j, i]) ** 2 for j in range(4) for i in range(j))
        agree(np.var([z @ J @ z for z in all_signs(4)]), expected, 1e-12)


@pytest.mark.checks("eq-hutchinson-normal", "variance of the trace by normal numbers")
def test_hutchinson_normal(agree):
    """SymPy's moments of standard normal numbers, term by term."""
    z = sp.symbols("z0:3")
    J = jacobian(3, 3).round(2)
    form = sp.expand(sum(J[i, j] * z[i] * z[j] for i in range(3) for j in range(3)))

    def mean(polynomial):
        moment = {0: 1, 2: 1, 4: 3}
        return sum(
            c * np.prod([moment.get(k, 0) for k in powers])
            for powers, c in sp.Poly(polynomial, *z).terms()
        )

    variance = float(mean(sp.expand(form**2)) - mean(form) ** 2)
    expected = 2 * (np.diag(J) ** 2).sum()
    expected += sum((J[i, j] + J[j, i]) ** 2 for j in range(3) for i in range(j))
    agree(variance, expected, 1e-9)


@pytest.mark.checks("eq-flow-line", "lines between quantiles")
def test_flow_line(agree):
    """Ends of the flow's paths, found by a solver, against the quantiles of the mixture."""
    q = np.array([0.1, 0.45, 0.8, 0.97])
    ends = flow_of(stats.norm.ppf(q))[1][-1]
    below = [sum(w * stats.norm.cdf(x, m, s) for w, m, s in PARTS) for x in ends]
    agree(below, q, 1e-6)
    fine = np.linspace(0.001, 0.999, 999)
    starts, noises = flow_of(stats.norm.ppf(fine))[1][-1], stats.norm.ppf(fine)
    for tau in TIMES:
        assert (np.diff((1 - tau) * starts + tau * noises) > 0).all()


@pytest.mark.checks("eq-flow-straightness", "straightness of the flow to normal data")
def test_flow_straightness(agree):
    """Paths of one part by a solver, and the variance of their speeds."""
    for s in (0.3, 0.8, 1.5):
        u = lambda t, x, s=s: (t - (1 - t) * s**2) / ((1 - t) ** 2 * s**2 + t**2) * x  # noqa: E731
        times = np.linspace(1, 0, 2001)
        path = solve_ivp(u, (1, 0), [1.0], t_eval=times, rtol=1e-10, atol=1e-12).y[0]
        expected = np.var(np.diff(path) / np.diff(times))
        slopes = quad(
            lambda t, s=s: (t - (1 - t) * s**2) ** 2 / ((1 - t) ** 2 * s**2 + t**2), 0, 1
        )[0]
        agree(slopes - (1 - s) ** 2, expected, 1e-4)


@pytest.mark.checks("eq-logit-normal", "density of logit-normal times")
def test_logit_normal(agree):
    """Differences of the distribution function, and the share of a million draws in an interval."""
    drawn = expit(0.4 + 0.8 * np.random.default_rng(0).standard_normal(1_000_000))
    p = lambda t: stats.norm.pdf(np.log(t / (1 - t)), 0.4, 0.8) / (t * (1 - t))  # noqa: E731
    for tau in (0.1, 0.5, 0.8):
        share = lambda t: stats.norm.cdf((np.log(t / (1 - t)) - 0.4) / 0.8)  # noqa: E731
        agree(p(tau), slope(share, tau), 1e-5)
        agree.in_mean((drawn < tau).astype(float), share(tau))
