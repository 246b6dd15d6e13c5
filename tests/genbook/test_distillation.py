import re

import numpy as np
import paddle
import pytest

from genbook.diffusion import GaussianDiffusion, cosine_beta_schedule
from genbook.distillation import (
    consistency_loss,
    ddim,
    end,
    even_steps,
    jumps,
    progressive_loss,
    target_loss,
    two_steps_as_one,
)

PROCESS = GaussianDiffusion(cosine_beta_schedule(40), "v", clip=100.0)
LEVELS = np.append(1.0, PROCESS.alphas_cumprod)  # of the step -1 and of those from 0
RNG = np.random.default_rng(0)


def tensor(numbers):
    return paddle.to_tensor(np.asarray(numbers, dtype="float32"))


def steps(numbers):
    return paddle.to_tensor(np.asarray(numbers, dtype="int64"))


def model(x_t, t):
    """A v that depends on the state and on the step."""
    return paddle.tanh(x_t + 0.05 * t.astype("float32").reshape([-1] + [1] * (x_t.ndim - 1)))


def by_hand(x, t):
    """`end` of `model` for one step t, in numpy."""
    a = LEVELS[t + 1]
    return np.sqrt(a) * x - np.sqrt(1 - a) * np.tanh(x + 0.05 * max(t, 0))


def ddim_by_hand(x, t, s):
    estimate, a, b = by_hand(x, t), LEVELS[t + 1], LEVELS[s + 1]
    eps = (x - np.sqrt(a) * estimate) / np.sqrt(1 - a)
    return np.sqrt(b) * estimate + np.sqrt(1 - b) * eps


def test_even_steps_run_from_the_noise_to_the_clean_state_and_nest():
    assert even_steps(PROCESS, 4).tolist() == [39, 29, 19, 9, -1]
    assert even_steps(PROCESS, 1).tolist() == [39, -1]
    assert even_steps(PROCESS, 40).tolist() == list(range(39, -2, -1))
    assert even_steps(PROCESS, 16)[:3].tolist() == [39, 36, 34]  # of 37.5 - 1 the lower one
    assert even_steps(PROCESS, 16).dtype == np.int64
    for k in (16, 8, 4, 2):
        assert even_steps(PROCESS, k)[::2].tolist() == even_steps(PROCESS, k // 2).tolist()


def test_end_reads_v_at_each_state_s_own_step():
    x = RNG.standard_normal((4, 1, 2, 2))
    t = [0, 5, 39, -1]
    found = end(PROCESS, model, tensor(x), steps(t)).numpy()
    assert found.dtype == np.float32
    for row, step, image in zip(found, t, x):
        np.testing.assert_allclose(row, by_hand(image, step), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(found[3], tensor(x).numpy()[3])


def test_target_loss_is_the_squared_error_of_v():
    x, v = RNG.standard_normal((2, 3, 5))
    t = np.array([1, 20, 39])
    a = LEVELS[t + 1][:, np.newaxis]
    target = np.sqrt(a) * x - np.sqrt(1 - a) * v
    found = target_loss(PROCESS, model, tensor(x), steps(t), tensor(target))
    expected = np.mean((np.tanh(x + 0.05 * t[:, np.newaxis]) - v) ** 2)
    assert np.isclose(float(found), expected, rtol=1e-4)


@pytest.mark.parametrize(("t", "middle", "s"), [(39, 20, 3), (30, 29, 28), (9, 4, -1)])
def test_one_step_with_the_target_ends_where_two_end(t, middle, s):
    x = RNG.standard_normal((3, 2))
    now = [paddle.full([3], step, dtype="int64") for step in (t, middle, s)]
    target = two_steps_as_one(PROCESS, model, tensor(x), *now).numpy()
    a, b = LEVELS[t + 1], LEVELS[s + 1]
    one = np.sqrt(b) * target + np.sqrt(1 - b) * (x - np.sqrt(a) * target) / np.sqrt(1 - a)
    two = ddim_by_hand(ddim_by_hand(x, t, middle), middle, s)
    np.testing.assert_allclose(one, two, rtol=1e-3, atol=1e-4)


class Watched:
    """`model`, which keeps the states and steps that it is asked for, row by row."""

    def __init__(self):
        self.x, self.t = [], []

    def __call__(self, x_t, t):
        self.x.append(x_t.numpy())
        self.t.append(t.numpy())
        return model(x_t, t)


def test_progressive_loss_trains_where_the_student_starts():
    times, x = even_steps(PROCESS, 8), RNG.standard_normal((4000, 1))
    student, teacher = Watched(), Watched()
    paddle.seed(0)
    loss = progressive_loss(PROCESS, student, teacher, tensor(x), times)
    [t] = student.t
    assert sorted(set(t.tolist())) == sorted(times[:-1:2].tolist())
    assert np.bincount(t)[times[:-1:2]].min() > 850
    first, second = teacher.t
    np.testing.assert_array_equal(first, t)
    follower = dict(zip(times[:-1].tolist(), times[1:].tolist()))
    np.testing.assert_array_equal(second, [follower[step] for step in t.tolist()])
    # the noise: mean and deviation of x_t less its image
    [x_t] = student.x
    a = LEVELS[t + 1][:, np.newaxis]
    noise = (x_t - np.sqrt(a) * x) / np.sqrt(1 - a)
    assert abs(noise.mean()) < 0.06 and abs(noise.std() - 1) < 0.04
    # and the target, row by row
    expected = []
    for row, step in zip(x_t.astype(float), t.tolist()):
        middle = follower[step]
        s = follower[middle]
        two = ddim_by_hand(ddim_by_hand(row, step, middle), middle, s)
        p, q = LEVELS[step + 1], LEVELS[s + 1]
        ratio = np.sqrt((1 - q) / (1 - p))
        f = (two - ratio * row) / (np.sqrt(q) - ratio * np.sqrt(p))
        expected.append((by_hand(row, step) - f) ** 2 / (1 - p))
    assert np.isclose(float(loss), np.mean(expected), rtol=1e-2)


@pytest.mark.parametrize("taught", [True, False])
def test_consistency_loss_compares_neighbours(taught):
    times, x = even_steps(PROCESS, 8), RNG.standard_normal((4000, 1))
    student, teacher = Watched(), Watched()
    paddle.seed(0)
    loss = consistency_loss(PROCESS, student, tensor(x), times, teacher if taught else None)
    seen_s, t = student.t
    assert sorted(set(t.tolist())) == sorted(times[:-1].tolist())
    follower = dict(zip(times[:-1].tolist(), times[1:].tolist()))
    s = np.array([follower[step] for step in t.tolist()])
    np.testing.assert_array_equal(seen_s, s.clip(min=0))
    x_s, x_t = (rows.astype(float) for rows in student.x)
    a, b = LEVELS[t + 1][:, np.newaxis], LEVELS[s + 1][:, np.newaxis]
    noise = (x_t - np.sqrt(a) * x) / np.sqrt(1 - a)
    assert abs(noise.mean()) < 0.06 and abs(noise.std() - 1) < 0.04
    if taught:
        expected = [ddim_by_hand(row, step, follower[step]) for row, step in zip(x_t, t.tolist())]
    else:
        assert teacher.t == []
        expected = np.sqrt(b) * x + np.sqrt(1 - b) * noise
    np.testing.assert_allclose(x_s, expected, rtol=2e-2, atol=2e-3)
    ends = [
        (by_hand(high, step) - by_hand(low, follower[step])) ** 2 / (1 - LEVELS[step + 1])
        for high, low, step in zip(x_t, x_s, t.tolist())
    ]
    assert np.isclose(float(loss), np.mean(ends), rtol=1e-2)


def test_no_gradient_flows_through_the_target():
    """f = sqrt(a) x - sqrt(1 - a) w: the derivative by w through the noisier side only."""
    w = paddle.to_tensor([0.3], stop_gradient=False)
    seen = []

    def network(x_t, t):
        seen.append((x_t.numpy(), t.numpy()))
        return w * paddle.ones_like(x_t)

    x, times = RNG.standard_normal((200, 1)), even_steps(PROCESS, 4)
    paddle.seed(0)
    consistency_loss(PROCESS, network, tensor(x), times).backward()
    (x_s, _), (x_t, t) = seen
    follower = dict(zip(times[:-1].tolist(), times[1:].tolist()))
    s = np.array([follower[step] for step in t.tolist()])
    a, b = LEVELS[t + 1][:, np.newaxis], LEVELS[s + 1][:, np.newaxis]
    error = (np.sqrt(a) * x_t - np.sqrt(1 - a) * 0.3) - (np.sqrt(b) * x_s - np.sqrt(1 - b) * 0.3)
    expected = np.mean(-2 * error / np.sqrt(1 - a))
    assert np.isclose(w.grad.item(), expected, rtol=1e-3)


def test_ddim_takes_each_step():
    x, times = RNG.standard_normal((3, 2)), [39, 17, 4, -1]
    found = ddim(PROCESS, model, tensor(x), times).numpy()
    for t, s in zip(times[:-1], times[1:]):
        x = ddim_by_hand(x, t, s)
    np.testing.assert_allclose(found, x, rtol=1e-3, atol=1e-4)


def test_ddim_adds_noise_if_asked():
    x = paddle.zeros([4, 2])
    found = []
    for eta in (0.0, 0.0, 1.0):
        paddle.seed(len(found))
        found.append(ddim(PROCESS, model, x, [39, 17, -1], eta).numpy())
    np.testing.assert_array_equal(found[0], found[1])
    assert np.abs(found[0] - found[2]).min() > 1e-4


def test_jumps_put_fresh_noise_between_the_ends():
    x = RNG.standard_normal((20_000, 1))
    watched = Watched()
    paddle.seed(0)
    found = jumps(PROCESS, watched, tensor(x), [39, 20]).numpy()
    assert [int(t[0]) for t in watched.t] == [39, 20]
    np.testing.assert_array_equal(watched.x[0], tensor(x).numpy())
    first, a = by_hand(x, 39), LEVELS[21]
    noise = (watched.x[1] - np.sqrt(a) * first) / np.sqrt(1 - a)
    assert abs(noise.mean()) < 0.03 and abs(noise.std() - 1) < 0.03
    assert abs(np.corrcoef(noise.ravel(), x.ravel())[0, 1]) < 0.03
    np.testing.assert_allclose(found, by_hand(watched.x[1].astype(float), 20), rtol=1e-3, atol=1e-4)


def test_what_samples_keeps_no_gradient():
    w = paddle.to_tensor([0.3], stop_gradient=False)

    def network(x_t, t):
        return w * x_t

    x, t = paddle.ones([2, 2]), [steps([k, k]) for k in (9, 4, -1)]
    assert jumps(PROCESS, network, x, [39]).stop_gradient
    assert ddim(PROCESS, network, x, [39, -1]).stop_gradient
    assert two_steps_as_one(PROCESS, network, x, *t).stop_gradient
    assert not end(PROCESS, network, x, t[0]).stop_gradient


WRONG = {
    "steps must be whole, from 1 to 40, got 0": lambda: even_steps(PROCESS, 0),
    "steps must be whole, from 1 to 40, got 41": lambda: even_steps(PROCESS, 41),
    "steps must be whole, from 1 to 40, got 2.5": lambda: even_steps(PROCESS, 2.5),
    "an even number of steps is expected, got 3": lambda: progressive_loss(
        PROCESS, model, model, paddle.zeros([2, 2]), even_steps(PROCESS, 3)
    ),
    "target and x_t must have one shape, got [2] and [2, 2]": lambda: target_loss(
        PROCESS, model, paddle.zeros([2, 2]), steps([3, 3]), paddle.zeros([2])
    ),
}


@pytest.mark.parametrize("words", WRONG)
def test_wrong_input_is_named(words):
    with pytest.raises(ValueError, match=re.escape(words)):
        WRONG[words]()
