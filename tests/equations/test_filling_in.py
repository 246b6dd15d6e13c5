import numpy as np
import paddle
import pytest
from genbook.diffusion import GaussianDiffusion, cosine_beta_schedule
from genbook.inverse import complete, energy_score, measured
from scipy import stats
from scipy.integrate import quad, solve_ivp

RHOS = [0.3, 0.8, 0.95]
LEVELS = [0.02, 0.3, 0.8, 0.99]  # alpha-bar


def two_pixels(level, alpha, rho):
    """The covariance of x_{t-1}^a, x_{t-1}^b, x_t^a, x_t^b, from the two steps of noise."""
    clean = np.array([[1, rho], [rho, 1]])
    earlier = level / alpha
    now = earlier * clean + (1 - earlier) * np.eye(2)
    later = alpha * now + (1 - alpha) * np.eye(2)
    cross = np.sqrt(alpha) * now
    return np.block([[now, cross], [cross, later]])


def regression(covariance, of, given):
    """The coefficients of the mean of some variables, given others."""
    return np.linalg.solve(covariance[np.ix_(given, given)], covariance[np.ix_(given, of)]).T


@pytest.mark.checks("eq-measurement-bayes", "images that fit a measurement")
def test_measurement_bayes(agree):
    """Two pixels with a normal prior: the product on a grid, against regression on y."""
    covariance, A, sigma, y = np.array([[1, 0.6], [0.6, 0.8]]), np.array([0.7, -0.4]), 0.5, 0.9
    grid = np.linspace(-7, 7, 701)
    x = np.stack(np.meshgrid(grid, grid, indexing="ij"), axis=-1)
    weight = stats.multivariate_normal([0, 0], covariance).pdf(x) * stats.norm.pdf(y, x @ A, sigma)
    weight /= weight.sum()
    found = np.einsum("ij,ijk->k", weight, x)
    gain = covariance @ A / (A @ covariance @ A + sigma**2)
    agree(found, gain * y, 1e-6)
    second = np.einsum("ij,ijk,ijl->kl", weight, x - found, x - found)
    agree(second, covariance - np.outer(gain, A @ covariance), 1e-6)


@pytest.mark.checks("eq-two-pixel-step", "a step back for two pixels")
def test_two_pixel_step(agree):
    """Regression with the joint covariance of both states, solved by NumPy."""
    for rho in RHOS:
        for level, alpha in ((0.1, 0.5), (0.6, 0.9), (0.97, 0.99)):
            r, earlier = level * rho, level / alpha * rho
            factor = np.sqrt(alpha) / (1 - r**2)
            expected = regression(two_pixels(level, alpha, rho), [1], [2, 3])[0]
            agree(np.array([factor * (earlier - r), factor * (1 - earlier * r)]), expected, 1e-12)


def exact_network(process, rho):
    """Predicts v for two pixels by the regression of x_0 on x_t, solved by NumPy."""
    clean = np.array([[1, rho], [rho, 1]])

    def network(x_t, t):
        level = process.alphas_cumprod[int(t[0])]
        later = level * clean + (1 - level) * np.eye(2)
        gain = np.sqrt(level) * clean @ np.linalg.inv(later)
        v = (np.sqrt(level) * np.eye(2) - gain) / np.sqrt(1 - level)
        return x_t @ paddle.to_tensor(v.T, dtype="float32")

    return network


def recursion(levels, rho, rounds=1):
    c, levels = 0.0, np.append(1.0, levels)
    for t in range(len(levels) - 1, 0, -1):
        alpha, r, earlier = levels[t] / levels[t - 1], levels[t] * rho, levels[t - 1] * rho
        for k in range(rounds):
            c = c * np.sqrt(alpha) if k else c
            c = (
                np.sqrt(alpha)
                / (1 - r**2)
                * ((earlier - r) * np.sqrt(levels[t]) + (1 - earlier * r) * c)
            )
    return c


@pytest.mark.checks("eq-replacement-recursion", "slope of a pixel that is filled in")
def test_replacement_recursion(agree):
    """The lesson's sampler with an exact network: the mean of 40,000 hidden pixels, in 12 steps,
    with one round and with three."""
    rho, y = 0.8, 2.0
    process = GaussianDiffusion(cosine_beta_schedule(12), "v", clip=100.0)
    for rounds in (1, 3):
        paddle.seed(rounds)
        known, mask = paddle.full([40_000, 2], y), paddle.to_tensor([1.0, 0.0])
        x = complete(process, exact_network(process, rho), known, mask, 12, rounds).numpy()
        expected = recursion(process.alphas_cumprod, rho, rounds)
        agree.in_mean(x[:, 1] / y, np.array(expected))


@pytest.mark.checks("eq-replacement-limit", "its limit for many steps")
def test_replacement_limit(agree):
    """The recursion with 100,000 steps of a linear and of the cosine schedule, and both forms."""
    for rho in RHOS:
        root = np.sqrt(1 - rho**2)
        agree((1 - root) / rho, rho / (1 + root), 1e-12)
        for betas in (cosine_beta_schedule(100_000), np.linspace(1e-7, 4e-4, 100_000)):
            agree(recursion(np.cumprod(1 - betas), rho), (1 - root) / rho, 1e-3)


@pytest.mark.checks("eq-resampling-round", "one round of going back and forth")
def test_resampling_round(agree):
    """The noise of a step as a matrix, and the regression with the joint covariance back."""
    for rho in RHOS:
        for level, alpha, s in ((0.1, 0.5, 0.0), (0.6, 0.9, -0.4), (0.97, 0.99, 1.0)):
            r, earlier = level * rho, level / alpha * rho
            back = regression(two_pixels(level, alpha, rho), [1], [2, 3])[0]
            expected = back @ (np.sqrt(alpha) * np.array([1, s]))
            found = alpha / (1 - r**2) * ((earlier - r) + (1 - earlier * r) * s)
            agree(np.array(found), np.array(expected), 1e-12)


@pytest.mark.checks("eq-resampling-fixed", "where going back and forth ends")
def test_resampling_fixed(agree):
    """Two thousand rounds, each by regression."""
    for rho in RHOS:
        for level, alpha in ((0.1, 0.5), (0.6, 0.9), (0.97, 0.99)):
            back, s = regression(two_pixels(level, alpha, rho), [1], [2, 3])[0], 0.0
            for _ in range(2000):
                s = back @ (np.sqrt(alpha) * np.array([1, s]))
            agree(np.array(alpha * (level / alpha * rho)), np.array(s), 1e-9)


PARTS = [(0.3, -1.0, 0.3), (0.7, 0.8, 0.5)]  # weight, mean, deviation of x_0


def prior(x):
    return sum(w * stats.norm.pdf(x, m, d) for w, m, d in PARTS)


@pytest.mark.checks("eq-measured-likelihood", "likelihood of a noisy image")
def test_measured_likelihood(agree):
    """Quadrature, against the joint density of y and x_t, which is normal for each part."""
    a, sigma, y = 0.8, 0.4, 0.3
    for level in LEVELS:
        for x_t in (-1.2, 0.1, 0.9):

            def joint(x):
                return prior(x) * stats.norm.pdf(x_t, np.sqrt(level) * x, np.sqrt(1 - level))

            ends = {"points": [x_t, -1, 0.8], "epsabs": 1e-13, "limit": 400}
            of_x_t = quad(joint, -6, 6, **ends)[0]
            found = quad(lambda x: stats.norm.pdf(y, a * x, sigma) * joint(x), -6, 6, **ends)[0]
            both = one = 0
            for w, m, d in PARTS:
                line, noises = np.array([a, np.sqrt(level)]), np.diag([sigma**2, 1 - level])
                both += w * stats.multivariate_normal(
                    line * m, d**2 * np.outer(line, line) + noises
                ).pdf([y, x_t])
                one += w * stats.norm.pdf(
                    x_t, np.sqrt(level) * m, np.sqrt(level * d**2 + 1 - level)
                )
            agree(np.array(found / of_x_t), np.array(both / one), 1e-7)


@pytest.mark.checks("eq-measured-variance", "variance of a clean pixel, given the noisy one")
def test_measured_variance(agree):
    """Quadrature over the clean pixel."""
    for s in (0.5, 1.0, 1.7):
        for level in LEVELS:

            def density(x, k=0):
                noisy = stats.norm.pdf(0.4, np.sqrt(level) * x, np.sqrt(1 - level))
                return x**k * stats.norm.pdf(x, 0, s) * noisy

            mass, first, second = (
                quad(density, -14, 14, args=(k,), points=[0, 0.4], epsabs=1e-14)[0]
                for k in range(3)
            )
            formula = s**2 * (1 - level) / (s**2 * level + 1 - level)
            agree(np.array(formula), np.array(second / mass - (first / mass) ** 2), 1e-7)


@pytest.mark.checks("eq-measured-gradient", "gradient of the likelihood")
def test_measured_gradient(agree):
    """Finite differences of the normal log-density, for a nonlinear estimate of three pixels."""
    rng = np.random.default_rng(0)
    A, W = rng.normal(size=(2, 3)), rng.normal(size=(3, 3))
    y, x, r2, sigma = rng.normal(size=2), rng.normal(size=3), 0.3, 0.2
    S = r2 * A @ A.T + sigma**2 * np.eye(2)

    def log_density(u):
        return stats.multivariate_normal(A @ np.tanh(W @ u), S).logpdf(y)

    h = 1e-5 * np.eye(3)
    slopes = [(log_density(x + e) - log_density(x - e)) / 2e-5 for e in h]
    J = (1 - np.tanh(W @ x) ** 2)[:, np.newaxis] * W
    agree(J.T @ A.T @ np.linalg.inv(S) @ (y - A @ np.tanh(W @ x)), np.array(slopes), 1e-6)


@pytest.mark.checks("eq-measured-v", "$v$ that is led by a measurement")
def test_measured_v(agree):
    """The lesson's code for two normal pixels, against the mean of the clean image given both the
    noisy one and the measurement, by regression."""
    rho, sigma, y = 0.8, 0.3, -0.7
    process = GaussianDiffusion(cosine_beta_schedule(1000), "v", clip=100.0)
    clean, A = np.array([[1, rho], [rho, 1]]), np.array([[0.6, 0.5]])
    x_t = np.array([[0.4, -1.1]])
    for step in (50, 300, 600, 900):
        level = process.alphas_cumprod[step]
        later = level * clean + (1 - level) * np.eye(2)
        left = clean - level * clean @ np.linalg.inv(later) @ clean
        r2 = (A @ left @ A.T).item() / (A @ A.T).item()
        model = measured(
            exact_network(process, rho), process, A, [[y]], sigma, lambda a, r2=r2: r2 + 0 * a
        )
        t = paddle.to_tensor([step])
        x = paddle.to_tensor(x_t, dtype="float32")
        found = process.predict_start(model, x, t).numpy()
        line = np.vstack([np.sqrt(level) * np.eye(2), A])
        noises = np.diag([1 - level, 1 - level, sigma**2])
        gain = clean @ line.T @ np.linalg.inv(line @ clean @ line.T + noises)
        agree(found[0], gain @ [*x_t[0], y], 1e-4)


@pytest.mark.checks("eq-two-pixel-variance", "what is not known of the known pixel")
def test_two_pixel_variance(agree):
    """The inverse of the posterior's precision matrix, by NumPy."""
    for rho in RHOS:
        for level in LEVELS:
            precision = np.linalg.inv([[1, rho], [rho, 1]]) + level / (1 - level) * np.eye(2)
            r = level * rho
            formula = 1 - level * (1 + rho**2 - 2 * rho * r) / (1 - r**2)
            agree(np.array(formula), np.linalg.inv(precision)[0, 0], 1e-9)


@pytest.mark.checks("eq-energy-gap", "what a wrong distribution scores worse")
def test_energy_gap(agree):
    """Three and four points with weights: all pairs, against sums over single truths."""
    rng = np.random.default_rng(0)
    x, z = rng.normal(size=(3, 2)), rng.normal(size=(4, 2))
    q, p = np.array([0.5, 0.2, 0.3]), np.array([0.1, 0.2, 0.3, 0.4])

    def mean(a, b, of_a, of_b):
        return sum(u * v * np.linalg.norm(i - j) for i, u in zip(a, of_a) for j, v in zip(b, of_b))

    def score(a, of_a, truth):
        return mean(a, [truth], of_a, [1]) - mean(a, a, of_a, of_a) / 2

    worse = sum(v * (score(x, q, t) - score(z, p, t)) for t, v in zip(z, p))
    gap = mean(x, z, q, p) - mean(x, x, q, q) / 2 - mean(z, z, p, p) / 2
    agree(np.array(gap), np.array(worse), 1e-12)
    # The lesson's score is right in the mean: equal weights, 40,000 sets of four draws
    draws = x[rng.integers(0, 3, (40_000, 4))]
    even = np.full(3, 1 / 3)
    found = energy_score(draws, np.broadcast_to(z[0], (40_000, 2)))
    agree.in_mean(found, np.array(score(x, even, z[0])))


@pytest.mark.checks("eq-energy-line", "the same for numbers")
def test_energy_line(agree):
    """Two normal distributions: closed means of absolute values, against quadrature."""
    for m, s in ((0.0, 1.0), (0.7, 0.4), (-1.0, 2.0)):

        def absolute(mean, deviation):
            u = mean / deviation
            return deviation * (2 * stats.norm.pdf(u) + u * (2 * stats.norm.cdf(u) - 1))

        gap = (
            absolute(m, np.hypot(s, 1))
            - absolute(0, s * np.sqrt(2)) / 2
            - absolute(0, np.sqrt(2)) / 2
        )
        square = quad(lambda u: (stats.norm.cdf(u, m, s) - stats.norm.cdf(u)) ** 2, -15, 15)[0]
        agree(np.array(gap), np.array(square), 1e-7)


@pytest.mark.checks("eq-energy-shadow", "mean shadow of a vector")
def test_energy_shadow(agree):
    """Monte Carlo over 200,000 directions in three and in five dimensions: two vectors that point
    differently and have the lengths 1 and 3."""
    rng = np.random.default_rng(0)
    for dimensions in (3, 5):
        direction = rng.normal(size=(200_000, dimensions))
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        one, three = np.eye(dimensions)[0], np.zeros(dimensions)
        three[1:3] = 3 / np.sqrt(2)
        ratio = 3 * np.abs(direction @ one) - np.abs(direction @ three)
        agree.in_mean(ratio, np.array(0.0))


@pytest.mark.checks("eq-replacement-variance", "variance of a pixel that is filled in")
def test_replacement_variance(agree):
    """The differential equation of the exercise, solved by SciPy from almost pure noise."""
    for rho in RHOS:

        def slope(a, w):
            return (1 - w * (1 + (a * rho) ** 2) / (1 - (a * rho) ** 2)) / a

        end = solve_ivp(slope, (1e-6, 1), [1.0], rtol=1e-10, atol=1e-12, method="LSODA").y[0, -1]
        agree(np.array((1 - rho**2) * np.arctanh(rho) / rho), np.array(end), 1e-6)
