from fractions import Fraction
from itertools import product

import numpy as np
import paddle
import pytest
import sympy
from genbook.diffusion import GaussianDiffusion, cosine_beta_schedule
from scipy import stats
from scipy.integrate import quad

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
    r"""Counted path by path in a chain $x_0, \dots, x_3$ of three states, in exact fractions."""
    rng = np.random.default_rng(0)

    def row():
        counts = rng.integers(1, 9, 3).tolist()
        return [Fraction(count, sum(counts)) for count in counts]

    step = [[row() for _ in range(3)] for _ in range(3)]  # step[t][from][to]
    path = {
        p: step[0][p[0]][p[1]] * step[1][p[1]][p[2]] * step[2][p[2]][p[3]]
        for p in product(range(3), repeat=4)
    }  # given x_0 = p[0]
    for x_0, x_2, x_3 in product(range(3), repeat=3):
        here = sum(path[x_0, x_1, x_2, x_3] for x_1 in range(3))
        at_3 = sum(path[x_0, x_1, y, x_3] for x_1 in range(3) for y in range(3))
        at_2 = sum(path[x_0, x_1, x_2, y] for x_1 in range(3) for y in range(3))
        agree.exactly(here / at_2, step[2][x_2][x_3])  # whatever x_0
        agree.exactly(here / at_3, step[2][x_2][x_3] * at_2 / at_3)


def posterior_by_grid(t, x_0, x_t):
    """Mean and variance of q(x_{t-1} | x_t, x_0): Bayes' rule on a grid of 400,001 points."""
    beta, left = DIFFUSION.betas[t - 1], np.prod(1 - DIFFUSION.betas[: t - 1])
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


def world(x_t, t):
    """A pixel that is -0.5 or 1, each half of the time: q(x_0 | x_t), by Bayes' rule."""
    left = np.prod(1 - DIFFUSION.betas[:t])
    values = np.array([-0.5, 1.0])
    density = stats.norm.pdf(x_t, np.sqrt(left) * values, np.sqrt(1 - left))
    return values, density / density.sum()


def back(t, s, x_t):
    """q(x_s | x_t) in that world, from its own density at s: a grid and the weights."""
    alpha, left = np.prod(1 - DIFFUSION.betas[s:t]), np.prod(1 - DIFFUSION.betas[:s])
    x = np.linspace(-6, 6, 400_001)
    prior = sum(stats.norm.pdf(x, np.sqrt(left) * v, np.sqrt(1 - left)) for v in (-0.5, 1.0))
    weight = prior * stats.norm.pdf(x_t, np.sqrt(alpha) * x, np.sqrt(1 - alpha))
    return x, weight / weight.sum()


@pytest.mark.checks("eq-reverse-mixture", "back to a state, the clean image not known")
def test_reverse_mixture(agree):
    """Bayes' rule with the density of $x_s$ on a grid, for a pixel of two values: one step back,
    and many, which the code takes as one of a shorter process."""
    for t, s in ((50, 49), (300, 299), (300, 200), (700, 699), (700, 400), (950, 949), (950, 30)):
        x, weight = back(t, s, 0.2)
        values, share = world(0.2, t)
        left = np.prod(1 - DIFFUSION.betas[:s])
        short = GaussianDiffusion([1 - left, 1 - np.prod(1 - DIFFUSION.betas[s:t])])
        mean, variance, _ = short.q_posterior_mean_variance(
            pixel(*values), pixel(0.2, 0.2), index(2, 2)
        )
        mixture = sum(
            w * stats.norm.cdf(x, m, v**0.5)
            for w, m, v in zip(share, mean.numpy().ravel(), variance.numpy().ravel(), strict=True)
        )
        agree(np.cumsum(weight)[::400], mixture[::400], 1e-3)


@pytest.mark.checks("eq-reverse-moments", "mean and variance of one step back")
def test_reverse_moments(agree):
    """Bayes' rule with the density of $x_{t-1}$ on a grid, for a pixel of two values."""
    for t in (50, 300, 700, 950):
        x, weight = back(t, t - 1, 0.2)
        values, share = world(0.2, t)
        best = (share * values).sum()
        spread = (share * (values - best) ** 2).sum()
        left, before = np.prod(1 - DIFFUSION.betas[:t]), np.prod(1 - DIFFUSION.betas[: t - 1])
        beta = DIFFUSION.betas[t - 1]
        mean, variance, _ = DIFFUSION.q_posterior_mean_variance(pixel(best), pixel(0.2), index(t))
        agree(mean.item(), (weight * x).sum(), 1e-6)
        formula = variance.item() + before * beta**2 / (1 - left) ** 2 * spread
        agree(formula / (weight * (x - mean.item()) ** 2).sum(), 1.0, 1e-5)


@pytest.mark.checks("def-reverse-step", "one step back by the network's estimate")
def test_reverse_step(agree):
    """Monte Carlo: mean and variance of 50,000 draws of the code's step, against Bayes' rule on a
    grid for the image that the network says; at the first step that image itself."""
    paddle.seed(0)
    n, guess = 50_000, 0.75
    for t in (1, 2, 50, 700):
        x_t = noisy(t, guess)

        def network(x, step):
            x_0 = paddle.full_like(x, guess)
            return DIFFUSION.target(x_0, step, DIFFUSION.predict_noise_from_start(x, step, x_0))

        draws = DIFFUSION.p_sample(network, paddle.full([n, 1, 1, 1], x_t), index(t).expand([n]))
        draws = draws.numpy().ravel().astype(float)
        if t == 1:
            agree(draws, np.full(n, guess), 1e-6)
        else:
            mean, variance = posterior_by_grid(t, guess, x_t)
            agree.in_mean(draws, mean)
            agree.in_mean((draws - mean) ** 2, variance)


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


@pytest.mark.checks("eq-noise-from-v", "noise from $v$")
def test_noise_from_v(agree):
    """The noise that was mixed in, at six steps."""
    x_0, noise, t, x_t = noised()
    left = np.cumprod(1 - DIFFUSION.betas)[t.numpy()].reshape(-1, 1, 1, 1)
    v = DIFFUSION.target(x_0, t, noise).numpy()
    agree(np.sqrt(1 - left) * x_t.numpy() + np.sqrt(left) * v, noise, 1e-5)


@pytest.mark.checks("eq-error-forms", "the same error in three forms")
def test_error_forms(agree):
    """One wrong image, turned into the noise and the $v$ that belong to the same $x_t$."""
    x_0, noise, t, x_t = noised()
    t, x_0, noise, x_t = t[2:], x_0[2:], noise[2:], x_t[2:]  # more noise than float32 rounds
    left = np.cumprod(1 - DIFFUSION.betas)[t.numpy()].reshape(-1, 1, 1, 1)
    wrong = -0.5 * x_0 + 0.3
    wrong_noise = DIFFUSION.predict_noise_from_start(x_t, t, wrong)
    wrong_v = DIFFUSION.target(wrong, t, wrong_noise)
    image = (wrong - x_0).square().numpy()
    agree((1 - left) / left * (wrong_noise - noise).square().numpy() / image, 1 + 0 * left, 1e-3)
    of_v = (wrong_v - DIFFUSION.target(x_0, t, noise)).square().numpy()
    agree((1 - left) * of_v / image, 1 + 0 * left, 1e-3)


@pytest.mark.checks("eq-loss-minimum", "what a squared error leaves")
def test_loss_minimum(agree):
    """SymPy: three targets of two pixels with unknown probabilities, and any answer."""
    targets = [sympy.Matrix(sympy.symbols(f"v{k}_1:3")) for k in (1, 2, 3)]
    answer = sympy.Matrix(sympy.symbols("u1:3"))
    one, two = sympy.symbols("p1:3")
    chances = (one, two, 1 - one - two)

    def mean(f):
        return sum((p * f(v) for p, v in zip(chances, targets, strict=True)), 0 * f(answer))

    best = mean(lambda v: v)
    left = mean(lambda v: (v - answer).dot(v - answer))
    right = mean(lambda v: (v - best).dot(v - best)) + (best - answer).dot(best - answer)
    agree.exactly(left.expand(), right.expand())


@pytest.mark.checks("eq-label-mixture", "density of images whose label is drawn first")
def test_label_mixture(agree):
    """Monte Carlo: 200,000 draws of a label and then of a number, counted under six limits."""
    rng = np.random.default_rng(0)
    share, centre = np.array([0.2, 0.5, 0.3]), np.array([-2.0, 0.0, 1.0])
    x = centre[rng.choice(3, 200_000, p=share)] + 0.5 * rng.standard_normal(200_000)
    for limit in (-2.5, -1.5, -0.5, 0.0, 0.7, 1.5):
        below = quad(lambda u: (share * stats.norm.pdf(u, centre, 0.5)).sum(), -6, limit)[0]
        agree.in_mean(x < limit, below)


@pytest.mark.checks("eq-label-average", "what is learned from hidden labels")
def test_label_average(agree):
    """SymPy: a table of two labels and three targets with unknown probabilities."""
    table = sympy.Matrix(2, 3, sympy.symbols("p1:7", positive=True))
    targets = sympy.Matrix(sympy.symbols("v1:4"))
    total = sum(table)
    left = (sympy.ones(1, 2) * table * targets)[0] / total
    right = sum(
        sum(table.row(y)) / total * (table.row(y) * targets)[0] / sum(table.row(y))
        for y in range(2)
    )
    agree.exactly(left, right)


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
    """Monte Carlo on 100,000 draws: $x_s$ has the mean and variance of noising $x_0$ directly. And
    the sum of the three parts, for draws of both noises."""
    paddle.seed(0)
    diffusion = GaussianDiffusion(cosine_beta_schedule(20))  # coarse: a step aside would show
    n, t, s = 100_000, 14, 8
    x_0, now, then = paddle.full([n, 1, 1, 1], 0.6), index(t).expand([n]), index(s).expand([n])
    noise = paddle.randn(x_0.shape)
    x_t = diffusion.q_sample(x_0, now, noise)
    left, alpha = np.prod(1 - diffusion.betas[:s]), np.prod(1 - diffusion.betas[s:t])
    fresh = paddle.randn(x_0.shape)
    for eta in (0.0, 0.5, 1.0):
        x_s = diffusion.ddim_sample(lambda x, t: noise, x_t, now, then, eta, fresh)
        sigma = eta * (alpha / (1 - alpha) + 1 / (1 - left)) ** -0.5
        parts = np.sqrt(left) * x_0 + np.sqrt(1 - left - sigma**2) * noise + sigma * fresh
        agree(x_s, parts, 1e-5)
        rest = x_s.numpy().ravel().astype(float) - np.sqrt(left) * 0.6
        agree.in_mean(rest, 0.0)
        agree.in_mean(rest**2, 1 - left)


@pytest.mark.checks("def-ddim-sigma", "new noise of that step")
def test_ddim_sigma(agree):
    r"""For $\eta = 1$ the precisions of forward step and prior add up to that of the posterior; for
    $\eta = 0.5$ half of it."""
    for t, s in ((2, 1), (300, 299), (700, 400), (950, 10)):
        zero, one = pixel(0.0), pixel(1.0)
        alpha, left = np.prod(1 - DIFFUSION.betas[s:t]), np.prod(1 - DIFFUSION.betas[:s])
        precision = alpha / (1 - alpha) + 1 / (1 - left)
        for eta in (0.5, 1.0):
            quiet, loud = (
                DIFFUSION.ddim_sample(lambda x, t: x, pixel(0.3), index(t), index(s), eta, e)
                for e in (zero, one)
            )
            agree((loud - quiet).item(), eta * precision**-0.5, 1e-6)


def gaussian_gain(t, s, c):
    """What a DDIM step multiplies x_t by, for a pixel N(0, c^2) and its best noise."""
    left = np.prod(1 - DIFFUSION.betas[:t])
    exact = GaussianDiffusion(DIFFUSION.betas, clip=1e6)
    gain = np.sqrt(1 - left) / (left * c**2 + 1 - left)
    return exact.ddim_sample(lambda x, t: float(gain) * x, pixel(1.0), index(t), index(s)).item()


@pytest.mark.checks("eq-gaussian-estimates", "best estimates for a normal pixel")
def test_gaussian_estimates(agree):
    r"""The mean of $x_0$ and of the noise given $x_t$, by quadrature over $x_0$."""
    for left in (0.95, 0.5, 0.02):
        for c, x_t in ((0.5, 0.4), (1.3, -2.0)):
            a, b = np.sqrt(left), np.sqrt(1 - left)

            def mean(f, a=a, b=b, c=c, x_t=x_t):
                def joint(x):
                    return stats.norm.pdf(x, 0, c) * stats.norm.pdf(x_t, a * x, b)

                peak = [a * c**2 * x_t / (a**2 * c**2 + b**2)]
                parts = [
                    quad(
                        lambda x, g=g: g(x) * joint(x),
                        -12 * c,
                        12 * c,
                        points=peak,
                        epsabs=1e-13,
                        limit=200,
                    )[0]
                    for g in (f, lambda x: 1.0)
                ]
                return parts[0] / parts[1]

            variance = left * c**2 + 1 - left
            agree(a * c**2 / variance * x_t, mean(lambda x: x), 1e-8)
            agree(b / variance * x_t, mean(lambda x, a=a, b=b, x_t=x_t: (x_t - a * x) / b), 1e-8)


@pytest.mark.checks("eq-ddim-deficit", "variance that a DDIM step loses")
def test_ddim_deficit(agree):
    """The step on a normal pixel, by the code and in float64, for three widths and four pairs of
    states."""
    for c in (0.3, 1.0, 2.0):
        for t, s in ((300, 100), (700, 650), (900, 200), (999, 500)):
            then, now = (np.prod(1 - DIFFUSION.betas[:k]) for k in (s, t))
            v_s, v_t = then * c**2 + 1 - then, now * c**2 + 1 - now
            gain = (np.sqrt(then * now) * c**2 + np.sqrt((1 - then) * (1 - now))) / v_t
            agree(gaussian_gain(t, s, c), gain, 1e-4)  # of float32
            angle = np.arccos(np.sqrt(now)) - np.arccos(np.sqrt(then))
            loss = v_s - gain**2 * v_t
            agree(c**2 * np.sin(angle) ** 2 / v_t / loss, 1.0, 1e-9)
            agree(min(0.0, loss), 0.0, 0)


@pytest.mark.checks("eq-ddim-shrink", "spread that is left after even DDIM steps")
def test_ddim_shrink(agree):
    """The code's loop on a normal pixel of variance 1, with even angles; the bound for
    all $n$ up to 1,000."""
    for n in (2, 5, 10, 40):
        angle = np.linspace(0, np.pi / 2 - 1e-6, n + 1)
        left = np.cos(angle) ** 2
        even = GaussianDiffusion(1 - left[1:] / left[:-1], clip=1e9)
        x = pixel(1.0)
        for t in range(n - 1, -1, -1):
            scale = float(np.sin(angle[t + 1]))
            now, then = (paddle.to_tensor([k]) for k in (t, t - 1))
            x = even.ddim_sample(lambda x, t, k=scale: k * x, x, now, then)
        agree(x.item(), np.cos(np.pi / 2 / n) ** n, 1e-3)
    n = np.arange(1, 1001)
    over = np.cos(np.pi / 2 / n) ** n - (1 - np.pi**2 / 8 / n)
    agree(np.minimum(over, 0), 0 * over, 1e-12)


@pytest.mark.checks("eq-posterior-precisions", "one step back by adding precisions")
def test_posterior_precisions(agree):
    """Bayes' rule on a grid of 400,001 points, at six steps."""
    for t in STEPS:
        x_t = noisy(t, 0.75)
        mean, variance = posterior_by_grid(t, 0.75, x_t)
        beta, before = DIFFUSION.betas[t - 1], np.prod(1 - DIFFUSION.betas[: t - 1])
        precision = 1 / (1 - before) + (1 - beta) / beta
        agree(variance * precision, 1.0, 1e-6)
        total = np.sqrt(before) * 0.75 / (1 - before) + np.sqrt(1 - beta) * x_t / beta
        agree(total / precision, mean, 1e-6)


@pytest.mark.checks("eq-reverse-stationary", "one step back for a normal pixel of variance 1")
def test_reverse_stationary(agree):
    """The code's posterior at the best estimate, at six steps."""
    for t in STEPS:
        left = np.prod(1 - DIFFUSION.betas[:t])
        mean = DIFFUSION.q_posterior_mean_variance(
            pixel(0.8 * np.sqrt(left)), pixel(0.8), index(t)
        )[0]
        alpha, before = 1 - DIFFUSION.betas[t - 1], np.prod(1 - DIFFUSION.betas[: t - 1])
        quotient = (before * (1 - alpha) + 1 - before) / (1 - left)
        agree(quotient, (1 - left) / (1 - left), 1e-9)
        agree(mean.item(), np.sqrt(alpha) * quotient * 0.8, 1e-6)
        agree(mean.item(), np.sqrt(alpha) * 0.8, 1e-6)
