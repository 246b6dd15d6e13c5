import numpy as np
import paddle
import pytest
import sympy as sp
from quadrature import integral

from genbook.diffusion import GaussianDiffusion, cosine_beta_schedule
from genbook.distillation import (
    consistency_loss,
    ddim,
    end,
    even_steps,
    jumps,
    target_loss,
    two_steps_as_one,
)
from genbook.solvers import euler, preconditioning
from scipy import stats
from scipy.optimize import minimize_scalar

PARTS = [(0.5, -1.0, 0.3), (0.2, 0.4, 0.5), (0.3, 1.5, 0.2)]  # weight, mean, deviation of x_0
LEVELS = [0.1, 0.6, 3.0]


def clean(x_0):
    return sum(w * stats.norm.pdf(x_0, m, s) for w, m, s in PARTS)


def noisy(x, sigma):
    return sum(w * stats.norm.pdf(x, m, np.hypot(s, sigma)) for w, m, s in PARTS)


def mean_given(x, sigma, g=lambda x_0: x_0):
    """The mean of g(x_0) given the noisy number x, by quadrature."""
    seen = lambda x_0: clean(x_0) * stats.norm.pdf(x, x_0, sigma)  # noqa: E731
    return integral(lambda x_0: g(x_0) * seen(x_0)) / integral(seen)


def draws(n=400_000):
    """Of x_0, and of the noise."""
    rng = np.random.default_rng(0)
    weights, means, deviations = np.array(PARTS).T
    part = rng.choice(3, n, p=weights)
    return means[part] + deviations[part] * rng.standard_normal(n), rng.standard_normal(n)


@pytest.mark.checks("eq-onestep-variance", "variance of the estimate and of what is left open")
def test_onestep_variance(agree):
    """All three variances by quadrature, over the noisy numbers and over the clean ones."""
    mean = integral(lambda x_0: x_0 * clean(x_0))
    total = integral(lambda x_0: (x_0 - mean) ** 2 * clean(x_0))
    for sigma in LEVELS:
        x = np.linspace(-3 - 5 * sigma, 3.5 + 5 * sigma, 801)
        density = noisy(x, sigma) * (x[1] - x[0])
        first = np.array([mean_given(z, sigma) for z in x])
        second = np.array([mean_given(z, sigma, np.square) for z in x])
        of_estimate = density @ (first - mean) ** 2
        agree(of_estimate + density @ (second - first**2), total, 1e-4)


@pytest.mark.checks("eq-onestep-loss", "squared error of v and of the end")
def test_onestep_loss(agree):
    """The code's loss, and the squared error of its ends with given targets."""
    process = GaussianDiffusion(cosine_beta_schedule(1000), "v")
    rng = np.random.default_rng(0)
    for step in (3, 400, 999):
        x, f, v = (paddle.to_tensor(a, dtype="float32") for a in rng.standard_normal((3, 6, 2)))
        t = paddle.full([6], step, dtype="int64")
        ends = process.predict_start_from_v(x, t, v)
        a = process.alphas_cumprod[step]
        expected = ((ends - f) ** 2).mean().item() / (1 - a)
        got = target_loss(process, lambda x_t, t, v=v: v, x, t, f).item()
        agree(got / expected, 1.0, 1e-4)


@pytest.mark.checks("eq-pairs-minimum", "best student of pairs")
def test_pairs_minimum(agree):
    """The constant with the least mean squared error of a random teacher's samples, by search."""
    rng = np.random.default_rng(0)
    for start in (-0.7, 0.4):
        samples = np.tanh(2 * start + rng.standard_normal(2000))  # of one start
        best = minimize_scalar(lambda f, s=samples: np.mean((s - f) ** 2), tol=1e-12).x
        agree(best, samples.mean(), 1e-6)


@pytest.mark.checks("eq-pairs-random", "mean sample of a perfect random teacher")
def test_pairs_random(agree):
    """Means of means, one exact step of the reverse process after the other, on a grid."""
    alphas = np.array([0.9, 0.8, 0.6, 0.5])
    bars = np.cumprod(alphas)
    grid = np.linspace(-6, 6, 1201)

    def density(x, bar):
        return sum(
            w * stats.norm.pdf(x, np.sqrt(bar) * m, np.sqrt(bar * s**2 + 1 - bar))
            for w, m, s in PARTS
        )

    f = grid.copy()  # the mean of x_0 given x_0
    for t, alpha in enumerate(alphas):
        before = density(grid, bars[t - 1] if t else 1.0)
        seen = stats.norm.pdf(grid[:, None], np.sqrt(alpha) * grid, np.sqrt(1 - alpha))
        weights = seen * before  # [x_t, x_{t-1}]
        f = weights @ f / weights.sum(axis=1)
    sigma = np.sqrt((1 - bars[-1]) / bars[-1])
    for i in (400, 600, 700):
        agree(f[i], mean_given(grid[i] / np.sqrt(bars[-1]), sigma), 1e-4)


X, D, D2, S, S1, S2 = sp.symbols("x D D_2 sigma sigma_1 sigma_2", positive=True)


def step(x, estimate, now, then):
    return then / now * x + (1 - then / now) * estimate


@pytest.mark.checks("eq-two-teacher-steps", "two steps of the teacher")
def test_two_teacher_steps(agree):
    """The code's two steps of Euler's method along the slope, with given estimates."""
    given = {4.0: np.array([0.3, -0.8]), 1.5: np.array([0.6, -1.1])}
    x = np.array([3.0, -2.5])
    first = step(x, given[4.0], 4.0, 1.5)
    second = step(first, given[1.5], 1.5, 0.2)
    agree(euler(lambda x, sigma: given[sigma], x, [4.0, 1.5, 0.2]), second, 1e-12)


@pytest.mark.checks("eq-two-into-one", "target of one step for two")
def test_two_into_one(agree):
    """Both forms and the step with them, by SymPy; and the code's target, with estimates known."""
    two = step(step(X, D, S, S1), D2, S1, S2)
    first = (two - S2 / S * X) / (1 - S2 / S)
    second = ((S2 / S1 - S2 / S) * D + (1 - S2 / S1) * D2) / (1 - S2 / S)
    agree.exactly(first, second)
    agree.exactly(step(X, second, S, S2), two)
    process = GaussianDiffusion(cosine_beta_schedule(1000), "v", clip=100.0)
    levels = process.sqrt_one_minus_alphas_cumprod / process.sqrt_alphas_cumprod
    x = paddle.to_tensor([[0.8], [-0.3]])
    v = {700: 0.4, 400: -0.9}
    model = lambda x_t, t: v[int(t[0])] * paddle.ones_like(x_t)  # noqa: E731
    times = [paddle.full([2], k, dtype="int64") for k in (700, 400, 100)]
    got = two_steps_as_one(process, model, x, *times).numpy()
    estimate = end(process, model, x, times[0])
    x_1 = process.ddim_sample(model, x, times[0], times[1])
    estimate_2 = end(process, model, x_1, times[1])
    at = dict(zip((S, S1, S2), levels[[700, 400, 100]], strict=True))
    weights = [float(sp.diff(second, symbol).subs(at)) for symbol in (D, D2)]
    agree(got, weights[0] * estimate.numpy() + weights[1] * estimate_2.numpy(), 1e-4)


@pytest.mark.checks("eq-consistency-boundary", "scales at the clean end")
def test_consistency_boundary(agree):
    """Limits by SymPy, the code's scales at a tiny level, and its end where there is no noise."""
    agree.exactly(sp.limit(S1**2 / (S**2 + S1**2), S, 0), 1)
    agree.exactly(sp.limit(S * S1 / sp.sqrt(S**2 + S1**2), S, 0), 0)
    agree(preconditioning(1e-7, 0.6)[:2], [1.0, 0.0], 1e-6)
    process = GaussianDiffusion(cosine_beta_schedule(10), "v")
    x = paddle.to_tensor([[0.4, -2.0]])
    wild = lambda x_t, t: 100 + x_t  # noqa: E731
    agree(end(process, wild, x, paddle.to_tensor([-1])), x, 0.0)


@pytest.mark.checks("eq-consistency-chain", "the best student is the teacher's run")
def test_consistency_chain(agree):
    """A student that answers with the teacher's own run has no loss; the run is the answer."""
    process = GaussianDiffusion(cosine_beta_schedule(40), "v", clip=100.0)
    times = even_steps(process, 5)
    teacher = lambda x_t, t: paddle.tanh(x_t)  # noqa: E731

    def student(x_t, t):
        """v of the end to which the teacher's steps lead from each state."""
        found = []
        for x, now in zip(x_t, t.tolist(), strict=True):
            rest = times[times <= now]
            u = x.unsqueeze(0)
            final = ddim(process, teacher, u, rest) if len(rest) > 1 else u
            one = paddle.to_tensor([now])
            start, noise = final, process.predict_noise_from_start(u, one, final)
            found.append(process.target(start, one, noise))
        return paddle.concat(found)

    paddle.seed(0)
    x_start = paddle.randn([30, 2])
    agree(consistency_loss(process, student, x_start, times, teacher), 0.0, 1e-6)
    x = paddle.randn([5, 2])
    agree(jumps(process, student, x, times[:1]), ddim(process, teacher, x, times), 1e-4)


@pytest.mark.checks("eq-unbiased-slope", "mean noise, slope and score")
def test_unbiased_slope(agree):
    """The mean noise by quadrature; differences of the logarithm of the known density."""
    for sigma in LEVELS:
        for x in (-1.3, 0.2, 2.0):
            noise = mean_given(x, sigma, lambda x_0, x=x, s=sigma: (x - x_0) / s)
            agree((x - mean_given(x, sigma)) / sigma, noise, 1e-8)
            h = 1e-4
            score = (np.log(noisy(x + h, sigma)) - np.log(noisy(x - h, sigma))) / (2 * h)
            agree(-sigma * score, noise, 1e-5)


@pytest.mark.checks("eq-stopped-gradient", "gradient with a stopped target")
def test_stopped_gradient(agree):
    """Backpropagation through a small network, and its Jacobian by finite differences."""
    rng = np.random.default_rng(0)
    W, x, target = rng.standard_normal((3, 2)), rng.standard_normal(2), rng.standard_normal(3)
    f = lambda W: np.tanh(W @ x)  # noqa: E731
    J = np.stack([(f(W + h) - f(W - h)) / 2e-5 for h in 1e-5 * np.eye(6).reshape(6, 3, 2)], axis=1)
    w = paddle.to_tensor(W, stop_gradient=False)
    ends = paddle.tanh(w @ paddle.to_tensor(x))
    (0.5 * (ends - paddle.to_tensor(target)).square().sum()).backward()
    agree(w.grad.numpy().ravel(), J.T @ (f(W) - target), 1e-8)


def bent(x):
    """A flow map for the checks, with its second derivative."""
    return np.tanh(2 * x), -8 * np.tanh(2 * x) * (1 - np.tanh(2 * x) ** 2)


@pytest.mark.checks("eq-training-minimum", "what consistency training learns")
def test_training_minimum(agree):
    """400,000 random targets less their mean by quadrature: no power of x predicts the rest."""
    x_0, noise = draws()
    now, then = 0.6, 0.5
    x, targets = x_0 + now * noise, bent(x_0 + then * noise)[0]
    grid = np.linspace(-4, 5, 400)
    shift = lambda x_0, z: bent(x_0 + then * (z - x_0) / now)[0]  # noqa: E731
    best = [mean_given(z, now, lambda x_0, z=z: shift(x_0, z)) for z in grid]
    rest = targets - np.interp(x, grid, best)
    for power in range(4):
        agree.in_mean(rest * x**power, 0.0)


@pytest.mark.checks("eq-training-bias", "the blur of a step of consistency training")
def test_training_bias(agree):
    """The conditional mean by quadrature, for shorter and shorter steps."""
    for now, x in ((0.6, 0.3), (3.0, -1.0)):
        mean = mean_given(x, now)
        left = mean_given(x, now, lambda x_0, m=mean: (x_0 - m) ** 2)
        for part in (0.02, 0.01, 0.005):
            then = now * (1 - part)
            point = lambda x_0, s=then, x=x, n=now: x_0 + s * (x - x_0) / n  # noqa: E731
            value, second = bent(point(mean))
            exact = mean_given(x, now, lambda x_0, p=point: bent(p(x_0))[0]) - value
            agree(exact / (0.5 * second * part**2 * left), 1.0, 10 * part)


@pytest.mark.checks("eq-many-into-one", "target of one step for many")
def test_many_into_one(agree):
    """Four of the code's steps with given estimates, and one with the target."""
    sigmas = [5.0, 2.0, 0.9, 0.4, 0.1]
    given = {s: np.array([np.sin(7 * s), np.cos(s)]) for s in sigmas}
    x = np.array([2.0, -4.0])
    weights = np.diff(1 / np.array(sigmas)) / (1 / sigmas[-1] - 1 / sigmas[0])
    target = sum(w * given[s] for w, s in zip(weights, sigmas[:-1], strict=True))
    many = euler(lambda x, s: given[s], x, sigmas)
    agree(euler(lambda x, s: target, x, [5.0, 0.1]), many, 1e-12)
    agree(weights.sum(), 1.0, 1e-12)


@pytest.mark.checks("eq-consistency-normal", "consistency of normal data")
def test_consistency_normal(agree):
    """Slopes fitted to 400,000 random targets, and the code's step of Euler's method."""
    _, noise = draws()
    s, slope = 0.7, 0.8
    x_0 = s * np.random.default_rng(1).standard_normal(len(noise))
    for now, then in ((2.0, 1.0), (0.5, 0.2)):
        a = slope * (s**2 + now * then) / (s**2 + now**2)
        x = x_0 + now * noise
        agree.in_mean(x * (slope * (x_0 + then * noise) - a * x), 0.0)
        point = euler(lambda x, sigma: s**2 * x / (s**2 + sigma**2), 1.0, [now, then])
        agree(slope * point, a, 1e-12)


@pytest.mark.checks("eq-unstopped-loss", "loss with a gradient through both sides")
def test_unstopped_loss(agree):
    """The sum of the losses at 20,000 levels, from the moments of pairs, for one slope."""
    s, top = 0.8, 3.0
    sigma = np.linspace(0, top, 20_001)
    a = np.exp(-sigma)
    own, pair = s**2 + sigma**2, s**2 + sigma[1:] * sigma[:-1]
    losses = a[1:] ** 2 * own[1:] + a[:-1] ** 2 * own[:-1] - 2 * a[1:] * a[:-1] * pair
    z = sp.symbols("z")
    f = sp.exp(-z)
    density = sp.diff(f, z) ** 2 * (0.64 + z**2) + 2 * f * sp.diff(f, z) * z + f**2
    agree(losses.sum() / sigma[1], float(sp.integrate(density, (z, 0, 3))), 1e-3)


@pytest.mark.checks("eq-unstopped-end", "what agreeing with itself leaves of the slope")
def test_unstopped_end(agree):
    """The minimum of the sum over 4,000 levels, by linear algebra."""
    for s, top in ((1.0, 4.0), (0.5, 6.0)):
        k = 4000
        sigma = np.linspace(0, top, k + 1)
        own, pair = s**2 + sigma**2, s**2 + sigma[1:] * sigma[:-1]
        # Each level's slope is a fixed multiple of the next one's, from the top down.
        diagonal, right = 2 * own[1:], np.zeros(k)
        diagonal[-1], right[0] = own[-1], pair[0]
        for i in range(1, k):
            factor = pair[i] / diagonal[i - 1]
            diagonal[i] -= factor * pair[i]
            right[i] += factor * right[i - 1]
        tau = top / s
        agree(right[-1] / diagonal[-1], 1 / (1 + tau * np.arctan(tau)), 1e-3)
