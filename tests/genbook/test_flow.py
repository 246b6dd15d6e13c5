import re

import numpy as np
import paddle
import pytest

from genbook.diffusion import GaussianDiffusion, cosine_beta_schedule
from genbook.flow import euler, flow_loss, log_likelihood, midpoint, velocity, velocity_from_v

RNG = np.random.default_rng(0)


def tensor(numbers):
    return paddle.to_tensor(np.asarray(numbers, dtype="float32"))


def test_loss_compares_with_the_direction_of_the_line():
    x_0, noise = RNG.normal(size=(2, 3, 1, 2, 2))
    tau, seen = [0.0, 0.2504, 1.0], []

    def model(x, t):
        seen.append((x.numpy(), t.tolist()))
        return tensor(np.ones(x.shape))

    found = flow_loss(model, tensor(x_0), tensor(noise), tensor(tau))
    [(x, t)] = seen
    assert t == [0, 250, 1000]
    level = np.array([0.0, 0.25, 1.0]).reshape(3, 1, 1, 1)
    np.testing.assert_allclose(x, (1 - level) * x_0 + level * noise, atol=1e-6)
    expected = ((1 - (noise - x_0)) ** 2).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5)


def test_what_is_drawn():
    """Standard normal noise, and times that are even from 0 to 1."""
    seen = []

    def model(x, t):
        seen.append((x.numpy(), t.numpy()))
        return 0 * x

    paddle.seed(0)
    x_0 = paddle.zeros([40_000, 2])
    loss = flow_loss(model, x_0).numpy()
    [(x, t)] = seen
    assert t.min() == 0 and t.max() == 1000
    np.testing.assert_allclose(np.quantile(t, [0.25, 0.5, 0.75]), [250, 500, 750], atol=12)
    late = t > 900
    assert abs((x[late] / t[late, None] * 1000).std() - 1) < 0.03
    assert abs(x.mean()) < 0.01 and abs(loss.mean() - 1) < 0.03
    assert abs(np.corrcoef(x[:, 0], x[:, 1])[0, 1]) < 0.02


def test_the_loss_lets_gradients_through():
    a = tensor(2.0)
    a.stop_gradient = False
    x_0, noise = tensor([[1.0, -1.0]]), tensor([[0.5, 0.5]])
    flow_loss(lambda x, t: a + 0 * x, x_0, noise, tensor([0.5])).sum().backward()
    assert np.isclose(a.grad.item(), 2 * (2.5 + 0.5) / 2)


def test_velocity_tells_the_nearest_thousandth_and_keeps_no_gradient():
    told = []
    weight = tensor(1.0)
    weight.stop_gradient = False

    def model(x, t):
        told.append(t.tolist())
        return weight * x

    move, x = velocity(model), tensor([[1.0], [2.0]])
    for tau in (0.0, 0.2496, 1.0):
        assert move(x, tau).stop_gradient
    assert told == [[0, 0], [250, 250], [1000, 1000]]


def test_velocity_from_v_moves_along_the_straight_path():
    """At each step of the schedule: one pair of image and noise, seen in both coordinates."""
    process = GaussianDiffusion(cosine_beta_schedule(50), "v")
    x_0, noise = RNG.normal(size=(2, 3, 1, 2, 2))
    for step in (0, 7, 25, 49):
        c = process.sqrt_alphas_cumprod[step]
        s = process.sqrt_one_minus_alphas_cumprod[step]

        def model(x_t, t, c=c, s=s, step=step):
            assert t.tolist() == 3 * [step]
            np.testing.assert_allclose(x_t.numpy(), c * x_0 + s * noise, atol=1e-5)
            return tensor(c * noise - s * x_0)

        tau = s / (c + s)
        x = tensor((1 - tau) * x_0 + tau * noise)
        found = velocity_from_v(model, process)(x, tau)
        np.testing.assert_allclose(found.numpy(), noise - x_0, atol=1e-4)


def test_velocity_from_v_takes_the_nearest_step_and_keeps_no_gradient():
    process = GaussianDiffusion(cosine_beta_schedule(50), "v")
    noise = process.sqrt_one_minus_alphas_cumprod
    times = noise / (noise + process.sqrt_alphas_cumprod)
    weight, told = tensor(1.0), []
    weight.stop_gradient = False

    def model(x, t):
        told.append(int(t[0]))
        return weight * x

    move = velocity_from_v(model, process)
    for tau in (0.0, times[20] + 0.4 * (times[21] - times[20]), 1.0):
        assert move(tensor([[1.0]]), tau).stop_gradient
    assert told == [0, 20, 49]


def curve(x, tau):
    """A velocity with a known solution: x = a * exp(tau + tau^2)."""
    return (1 + 2 * tau) * x


@pytest.mark.parametrize(("solver", "order"), [(euler, 1), (midpoint, 2)])
def test_solvers_have_their_order(solver, order):
    start = np.array([1.0, -2.0])
    true = start * np.exp(0.11 - 2)
    errors = [
        np.abs(solver(curve, start, np.linspace(1, 0.1, steps + 1)) - true).max()
        for steps in (64, 128)
    ]
    assert abs(np.log2(errors[0] / errors[1]) - order) < 0.15


@pytest.mark.parametrize(("solver", "evaluations"), [(euler, 1), (midpoint, 2)])
def test_solvers_take_uneven_steps(solver, evaluations):
    """For a velocity that is linear in time, Euler sums starts, and the midpoint is exact."""
    asked = []

    def rising(x, tau):
        asked.append(tau)
        return 0 * x + 2 * tau

    found = solver(rising, tensor([3.0]), [1.0, 0.8, 0.2]).item()
    exact = 3.0 - (1 - 0.04)
    assert np.isclose(found, exact if solver is midpoint else 3 - 0.2 * 2 - 0.6 * 1.6)
    assert len(asked) == 2 * evaluations
    assert np.isclose(asked[-1], 0.5 if solver is midpoint else 0.8)


def test_log_likelihood_of_a_linear_flow():
    """dx / dtau = A x with A symmetric and diagonal: the trace is exact, the density normal."""
    a = np.array([0.7, -0.4, 1.1])

    def model(x, t):
        return x * tensor(a)

    x = RNG.normal(size=(4, 3))
    found = log_likelihood(model, tensor(x), np.linspace(0, 1, 101))
    ends = x * np.exp(a)
    expected = (-(ends**2) / 2 - np.log(2 * np.pi) / 2 + a).sum(axis=1)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected, rtol=1e-3)


def test_log_likelihood_is_right_in_the_mean_and_asks_in_the_middle():
    """Off the diagonal the signs matter; over many rows the estimates have the trace as mean."""
    J, told = RNG.normal(size=(3, 3)), []

    def model(x, t):
        told.append(int(t[0]))
        return 1e-3 * (x.flatten(1) @ tensor(J.T)).reshape(x.shape)

    x = paddle.zeros([50_000, 1, 3, 1])
    paddle.seed(0)
    times = [0.0, 0.1, 1.0]
    found = log_likelihood(model, x, times) + 1.5 * np.log(2 * np.pi)
    assert told == [0, 50, 100, 550]
    steps = np.diff(times)
    spread = sum((J[i, j] + J[j, i]) ** 2 for i in range(3) for j in range(i))
    deviation = 1e-3 * np.sqrt(spread * (steps**2).sum())
    assert abs(found.mean() - 1e-3 * np.trace(J)) < 4 * deviation / np.sqrt(50_000)
    assert np.isclose(found.std(), deviation, rtol=0.02)


def test_log_likelihood_under_no_grad():
    with paddle.no_grad():
        found = log_likelihood(lambda x, t: x, paddle.zeros([1, 2]), [0.0, 1.0])
    assert np.isclose(found[0], 2 - np.log(2 * np.pi))


def nothing(x, t):
    return 0 * x


ONES = paddle.ones([2, 3])
BAD = {
    "noise of another shape": (lambda: flow_loss(nothing, ONES, paddle.ones([2, 1])), "one shape"),
    "a prediction that broadcasts": (lambda: flow_loss(lambda x, t: x[:, :1], ONES), "one shape"),
    "times of another number": (lambda: flow_loss(nothing, ONES, tau=tensor([0.5])), "tau must"),
    "a time above 1": (lambda: flow_loss(nothing, ONES, tau=tensor([0.5, 1.2])), "tau must"),
    "a time below 0": (lambda: flow_loss(nothing, ONES, tau=tensor([0.5, -0.1])), "tau must"),
    "not a time": (lambda: flow_loss(nothing, ONES, tau=tensor([0.5, np.nan])), "tau must"),
    "a velocity at 1.1": (lambda: velocity(nothing)(ONES, 1.1), "got 1.1"),
    "a velocity at -0.1": (lambda: velocity(nothing)(ONES, -0.1), "got -0.1"),
    "another prediction": (
        lambda: velocity_from_v(nothing, GaussianDiffusion([0.1, 0.2], "eps")),
        'got "eps"',
    ),
    "rising times": (lambda: euler(nothing, ONES, [0.0, 1.0]), "falling"),
    "a time twice": (lambda: euler(nothing, ONES, [1.0, 0.5, 0.5]), "falling"),
    "a single time": (lambda: midpoint(nothing, ONES, [1.0]), "falling"),
    "a table of times": (lambda: midpoint(nothing, ONES, [[1.0, 0.0]]), "falling"),
    "a start above 1": (lambda: euler(nothing, ONES, [1.5, 0.0]), "from 0 to 1"),
    "an end below 0": (lambda: euler(nothing, ONES, [1.0, -0.5]), "from 0 to 1"),
    "falling times of a likelihood": (lambda: log_likelihood(nothing, ONES, [1.0, 0.0]), "falling"),
    "a likelihood from 0.1 on": (lambda: log_likelihood(nothing, ONES, [0.1, 1.0]), "from 0 to 1"),
    "a likelihood up to 0.9": (lambda: log_likelihood(nothing, ONES, [0.0, 0.9]), "from 0 to 1"),
}


@pytest.mark.parametrize("name", BAD)
def test_wrong_inputs_get_one_clear_error(name):
    call, words = BAD[name]
    with pytest.raises(ValueError, match=re.escape(words)):
        call()
