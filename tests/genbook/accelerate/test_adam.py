"""Adam by NumPy: Paddle's own steps, and nothing of what it leaves to Paddle."""

import numpy as np
import paddle
import paddle.nn as nn
import pytest

from genbook import accelerate
from genbook.accelerate import adam

SIZES = (1, 7, adam.CHUNK, adam.CHUNK + 3)


def steps_of(optimizer, append, monkeypatch, **settings):
    """The parameters after five steps, each with its own gradient, and the optimiser's state."""
    monkeypatch.setattr(paddle.optimizer.Adam, "_append_optimize_op", append)
    rng = np.random.default_rng(0)
    parameters = [
        paddle.create_parameter([size], "float32", default_initializer=nn.initializer.Normal())
        for size in SIZES
    ]
    for parameter in parameters:
        parameter.set_value(rng.standard_normal(parameter.shape).astype("float32"))
    made = optimizer(parameters=parameters, **settings)
    for step in range(5):
        made.set_lr(0.1 / (step + 1))
        for parameter in parameters:
            scale = 10.0 ** rng.integers(-6, 3)
            parameter.grad = paddle.to_tensor(
                (scale * rng.standard_normal(parameter.shape)).astype("float32")
            )
        made.step()
    state = [v.numpy() for v in made.state_dict().values() if isinstance(v, paddle.Tensor)]
    return [p.numpy() for p in parameters], state


def replaced(calls):
    own = paddle.optimizer.Adam._append_optimize_op

    def append(self, *args):
        result = adam.append_optimize_op(self, *args)
        calls.append(result is not NotImplemented)
        return own(self, *args) if result is NotImplemented else result

    return append


def test_the_steps_are_paddles(monkeypatch):
    calls, own = [], paddle.optimizer.Adam._append_optimize_op
    expected = steps_of(paddle.optimizer.Adam, own, monkeypatch)
    monkeypatch.undo()
    found = steps_of(paddle.optimizer.Adam, replaced(calls), monkeypatch)
    assert all(calls)
    for one, other in zip(expected[0] + expected[1], found[0] + found[1], strict=True):
        # 1 - 0.999 in float32, as Paddle keeps it, has an error of 6e-5; a step is at most 0.1.
        np.testing.assert_allclose(other, one, rtol=2e-5, atol=1e-5)


def test_a_step_by_hand(monkeypatch):
    """Algorithm 1 of the paper, in float64."""
    p, m, v = np.array([0.5]), 0.0, 0.0
    w = np.array([0.5], np.float32)
    mean, square = np.zeros(1, np.float32), np.zeros(1, np.float32)
    for t, g in enumerate((0.3, -2.0, 1e-4), start=1):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        p = p - 0.01 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        correction = np.sqrt(1 - 0.999**t)
        adam.update(
            w,
            np.array([g], np.float32),
            mean,
            square,
            step=0.01 * correction / (1 - 0.9**t),
            beta1=0.9,
            beta2=0.999,
            epsilon=1e-8 * correction,
        )
    np.testing.assert_allclose(w, p, rtol=1e-6)


@pytest.mark.parametrize(
    "optimizer, settings",
    [
        (paddle.optimizer.AdamW, {}),
        (paddle.optimizer.Adam, {"amsgrad": True}),
        (paddle.optimizer.Adam, {"lazy_mode": True}),
    ],
)
def test_other_variants_are_left_to_paddle(optimizer, settings, monkeypatch):
    calls = []
    steps_of(optimizer, replaced(calls), monkeypatch, **settings)
    assert not any(calls)


def test_it_is_there_while_accelerated():
    own = paddle.optimizer.Adam._append_optimize_op
    with accelerate.enabled():
        assert (paddle.optimizer.Adam._append_optimize_op is own) == adam.is_compiled()
    assert paddle.optimizer.Adam._append_optimize_op is own
