import re

import numpy as np
import paddle
import pytest

from genbook.diffusion import GaussianDiffusion, cosine_beta_schedule
from genbook.inverse import complete, energy_score, measured

PROCESS = GaussianDiffusion(cosine_beta_schedule(8), "v", clip=100.0)
RNG = np.random.default_rng(0)


def image(numbers):
    return paddle.to_tensor(np.asarray(numbers, dtype="float32"))


def test_known_pixels_are_kept_and_hidden_ones_are_not_looked_at():
    known = RNG.standard_normal((3, 1, 4, 4)).astype("float32")
    mask = image(RNG.random((1, 4, 4)) < 0.5)
    other = known + 9 * (1 - mask.numpy())
    found = []
    for start in (known, other):
        paddle.seed(0)
        found.append(complete(PROCESS, lambda x, t: 0.3 * x, image(start), mask, 4, 2).numpy())
    np.testing.assert_array_equal(found[0], found[1])
    at = np.broadcast_to(mask.numpy() == 1, known.shape)
    np.testing.assert_array_equal(found[0][at], known[at])
    assert np.abs(found[0] - known)[~at].min() > 0


def test_what_the_network_sees():
    """Every step `repeats` times, and known pixels with the mean and deviation of the step."""
    seen = []

    def network(x, t):
        seen.append((int(t[0]), x.numpy()))
        return 0 * x

    paddle.seed(0)
    complete(PROCESS, network, paddle.full([20_000, 2], 2.0), image([1, 0]), 4, 3)
    times = [int(t) for t in PROCESS.ddim_timesteps(4)]
    assert [t for t, _ in seen] == [t for t in times for _ in range(3)]
    for t, x in seen:
        level = PROCESS.alphas_cumprod[t]
        assert abs(x[:, 0].mean() - 2 * np.sqrt(level)) < 0.04
        assert abs(x[:, 0].std() - np.sqrt(1 - level)) < 0.02
    firsts = [x[:, 0] for _, x in seen]
    assert all(abs(np.corrcoef(a, b)[0, 1]) < 0.04 for a, b in zip(firsts, firsts[1:]))


def test_between_two_rounds_the_noise_of_the_step_comes_back():
    """v = 0 means x_0 = sqrt(alpha_bar) x_t; the hidden pixel's variance follows by hand."""
    seen = []

    def network(x, t):
        seen.append(x.numpy()[:, 1])
        return 0 * x

    paddle.seed(1)
    complete(PROCESS, network, paddle.zeros([40_000, 2]), image([1, 0]), 3, 2)
    levels = np.append(PROCESS.alphas_cumprod, 1.0)
    times = [*PROCESS.ddim_timesteps(3), -1]
    variance, expected = 1.0, []
    for t, s in zip(times[:-1], times[1:]):
        a, b = levels[t], levels[s]
        fresh = (1 - b) / (1 - a) * (1 - a / b)
        gain = np.sqrt(b * a) + np.sqrt(1 - b - fresh) * (1 - a) / np.sqrt(1 - a)
        expected.append(variance)
        after = gain**2 * variance + fresh
        expected.append(a / b * after + 1 - a / b)
        variance = gain**2 * expected[-1] + fresh
    found = [x.var() for x in seen]
    np.testing.assert_allclose(found, expected, rtol=0.04)


def test_measured_adds_the_gradient_of_the_normal_log_likelihood():
    """Finite differences of the log-density, image by image, each with its own step."""
    W = RNG.normal(size=(4, 4)) / 2
    A, y = RNG.normal(size=(2, 4)), RNG.normal(size=(3, 2))
    x = RNG.normal(size=(3, 1, 2, 2))
    steps = np.array([1, 4, 6])

    def network(x_t, t):
        return paddle.tanh(x_t.flatten(1) @ image(W)).reshape(x_t.shape)

    def variance(alpha_bar):
        return 0.5 * (1 - alpha_bar)

    model = measured(network, PROCESS, A, y, 0.3, variance)
    t, x_t = paddle.to_tensor(steps), image(x)
    with paddle.no_grad():  # as the samplers call it
        found = model(x_t, t).numpy().reshape(3, 4)
    for i, step in enumerate(steps):
        level = PROCESS.alphas_cumprod[step]

        def log_density(u, i=i, level=level):
            x_0 = np.sqrt(level) * u - np.sqrt(1 - level) * np.tanh(u @ W)
            S = variance(level) * A @ A.T + 0.09 * np.eye(2)
            error = y[i] - A @ x_0
            return -0.5 * error @ np.linalg.solve(S, error)

        u, h = x[i].ravel(), 1e-5 * np.eye(4)
        slope = np.array([(log_density(u + e) - log_density(u - e)) / 2e-5 for e in h])
        expected = np.tanh(u @ W) - np.sqrt((1 - level) / level) * slope
        np.testing.assert_allclose(found[i], expected, rtol=2e-3, atol=2e-4)


def test_energy_score_is_that_of_all_pairs():
    samples, truth = RNG.normal(size=(2, 3, 4)), RNG.normal(size=(2, 4))
    found = energy_score(samples, truth)
    assert found.shape == (2,)
    for x, z, score in zip(samples, truth, found):
        off = np.mean([np.linalg.norm(a - z) for a in x])
        pairs = [np.linalg.norm(x[i] - x[j]) for i, j in ((0, 1), (0, 2), (1, 2))]
        assert np.isclose(score, off - np.mean(pairs) / 2)


def nothing(x, t):
    return 0 * x


EPS = GaussianDiffusion(cosine_beta_schedule(8))
WRONG = {
    "a mask [2] and repeats of at least 1, got [3], 1": lambda: complete(
        PROCESS, nothing, paddle.zeros([5, 2]), paddle.zeros([3]), 2
    ),
    "got [2], 0": lambda: complete(PROCESS, nothing, paddle.zeros([5, 2]), paddle.zeros([2]), 2, 0),
    "A must be [M, D] and y [N, M], got [2, 4] and [3, 4]": lambda: measured(
        nothing, PROCESS, np.zeros((2, 4)), np.zeros((3, 4)), 0.1, np.sqrt
    ),
    "got [4] and [3, 4]": lambda: measured(
        nothing, PROCESS, np.zeros(4), np.zeros((3, 4)), 0.1, np.sqrt
    ),
    "got [2, 4] and [2]": lambda: measured(
        nothing, PROCESS, np.zeros((2, 4)), np.zeros(2), 0.1, np.sqrt
    ),
    'prediction "v", got 0 and "v"': lambda: measured(
        nothing, PROCESS, np.eye(2), np.zeros((3, 2)), 0, np.sqrt
    ),
    'prediction "v", got 0.1 and "eps"': lambda: measured(
        nothing, EPS, np.eye(2), np.zeros((3, 2)), 0.1, np.sqrt
    ),
    "3 measurements for 1 images": lambda: measured(
        nothing, PROCESS, np.eye(2), np.zeros((3, 2)), 0.1, np.sqrt
    )(paddle.zeros([1, 2]), paddle.to_tensor([0])),
    "got [2, 1, 3] and [2, 3]": lambda: energy_score(np.zeros((2, 1, 3)), np.zeros((2, 3))),
    "got [2, 4, 3] and [2, 5]": lambda: energy_score(np.zeros((2, 4, 3)), np.zeros((2, 5))),
    "got [2, 3] and [2, 3]": lambda: energy_score(np.zeros((2, 3)), np.zeros((2, 3))),
}


@pytest.mark.parametrize("words", WRONG)
def test_wrong_input_is_named(words):
    with pytest.raises(ValueError, match=re.escape(words)):
        WRONG[words]()
