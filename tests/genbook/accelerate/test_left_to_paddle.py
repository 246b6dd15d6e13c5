"""What acceleration leaves to Paddle, and gradients that are differentiated again."""

import paddle
import paddle.nn as nn
import paddle.nn.functional as F
import pytest

from genbook import accelerate
from genbook.accelerate import layers, onednn

pytestmark = pytest.mark.skipif(onednn.library() is None, reason="this Paddle has no oneDNN 3")

IMAGES = [8, 4, 64, 64]  # large enough
ROWS = [300, 50]


@pytest.fixture
def calls(monkeypatch):
    """The operations that were called; acceleration is on."""
    made, run = [], layers.run
    monkeypatch.setattr(layers, "run", lambda op, *tensors: made.append(op) or run(op, *tensors))
    with accelerate.enabled():
        paddle.seed(0)
        yield made


class Shifted(nn.Linear):
    """A layer with a forward of its own."""

    def forward(self, x):
        return F.linear(x, self.weight, self.bias) + 1


@pytest.mark.parametrize(
    "layer, shape",
    [
        (nn.Conv2D(4, 8, 3, groups=2), IMAGES),
        (nn.Conv2D(4, 8, 3, dilation=2), IMAGES),
        (nn.Conv2D(4, 8, 3, padding="same"), IMAGES),
        (nn.Conv2D(4, 8, 3, padding=[1, 1, 0, 0]), IMAGES),
        (nn.Conv2D(4, 8, 3, padding=1, padding_mode="reflect"), IMAGES),
        (nn.Conv2D(64, 8, 3, data_format="NHWC"), IMAGES),
        (nn.Conv2DTranspose(4, 8, 3, stride=2, output_padding=1), IMAGES),
        (nn.Conv2DTranspose(4, 8, 3, groups=2), IMAGES),
        (nn.Linear(8, 8), [4, 8]),  # small, like the next three
        (nn.Linear(600, 600), [600]),
        (nn.ReLU(), [8, 16]),
        (nn.MaxPool2D(2), [1, 1, 4, 4]),
        (Shifted(50, 50), ROWS),
        (nn.MaxPool2D(2, padding=1), IMAGES),
        (nn.MaxPool2D(3, ceil_mode=True), IMAGES),
        (nn.MaxPool2D(2, return_mask=True), IMAGES),
        (nn.MaxPool2D(2, data_format="NHWC"), IMAGES),
        (nn.GroupNorm(2, 4, weight_attr=False), IMAGES),
        (nn.GroupNorm(2, 64, data_format="NHWC"), IMAGES),
        (nn.GroupNorm(2, 4), [8, 4, 4096]),
        (nn.Silu(), [0, 16]),
    ],
    ids=lambda value: str(value)[:60],
)
def test_what_is_not_implemented_is_left_to_paddle(layer, shape, calls):
    layer(paddle.randn(shape))
    assert not calls


KNOWN = [
    (nn.Conv2D(4, 8, 3), IMAGES),
    (nn.Conv2DTranspose(4, 8, 3), IMAGES),
    (nn.Linear(50, 50), ROWS),
    (nn.GroupNorm(2, 4), IMAGES),
    (nn.MaxPool2D(2), IMAGES),
    (nn.ReLU(), IMAGES),
    (nn.Silu(), IMAGES),
    (nn.Sigmoid(), IMAGES),
]
NAMES = [type(layer).__name__ for layer, _ in KNOWN]
every_layer = pytest.mark.parametrize("layer, shape", KNOWN, ids=NAMES)


@every_layer
def test_the_same_layers_are_accelerated_without_those_settings(layer, shape, calls):
    layer(paddle.randn(shape))
    assert calls


@every_layer
def test_double_precision_is_left_to_paddle(layer, shape, calls):
    layer.to(dtype="float64")
    try:
        assert layer(paddle.randn(shape, dtype="float64")).dtype == paddle.float64
    finally:
        layer.to(dtype="float32")
    assert not calls


@every_layer
@pytest.mark.parametrize("full_graph", [True, False])
def test_static_graphs_are_left_to_paddle(layer, shape, full_graph, calls):
    def network(x):
        return layer(x)

    x = paddle.randn(shape)
    with paddle.no_grad():
        expected = layer(x).numpy()
        calls.clear()
        static = paddle.jit.to_static(network, full_graph=full_graph)
        assert abs(static(x).numpy() - expected).max() < 1e-4
    assert not (full_graph and calls)  # without it, the graph may have gaps


def test_hooks_are_called(calls):
    layer, seen = nn.Conv2D(4, 8, 3), []
    layer.register_forward_post_hook(lambda layer, x, y: seen.append(y.shape) or 2 * y)
    assert layer(paddle.randn(IMAGES)).shape == seen[0] and calls


def test_wrong_shapes_raise_what_paddle_raises():
    cases = [
        (nn.Conv2D(4, 8, 3), [8, 3, 16, 16]),
        (nn.Conv2DTranspose(4, 8, 3), [8, 3, 16, 16]),
        (nn.Linear(50, 50), [3000, 49]),
        (nn.GroupNorm(2, 4), [8, 6, 64, 64]),
    ]
    for layer, shape in cases:
        raised = []
        for switch in (accelerate.disable, accelerate.enable):
            switch()
            with pytest.raises(ValueError) as error:
                layer(paddle.randn(shape))
            raised.append(str(error.value))
        assert raised[0] == raised[1]
    accelerate.disable()


def test_what_onednn_refuses_is_left_to_paddle(calls, monkeypatch):
    def refuse(*args):
        raise onednn.Unsupported

    refuse.cache_clear = lambda: None
    monkeypatch.setattr(layers, "compiled", refuse)
    for layer, shape in KNOWN:
        layer(paddle.randn(shape))
    assert not calls


def test_an_argument_that_changed_in_place_has_no_gradient(calls):
    x = paddle.randn(IMAGES)
    x.stop_gradient = False
    h = 2 * x
    y = nn.Conv2D(4, 8, 3)(h)
    h.add_(paddle.ones_like(h))
    with pytest.raises(Exception, match="modified"):
        y.sum().backward()


def test_a_gradient_can_be_taken_twice(calls):
    x = paddle.randn(IMAGES)
    x.stop_gradient = False
    y = nn.Conv2D(4, 8, 3)(x).square().sum()
    first, second = (paddle.grad(y, x, retain_graph=True)[0] for _ in range(2))
    assert (first == second).all()


@every_layer
def test_gradients_of_some_arguments(layer, shape, calls):
    """paddle.grad with respect to the input alone, or to a parameter alone."""
    x = paddle.randn(shape)
    x.stop_gradient = False
    variables = [x, *layer.parameters()]
    together = paddle.grad(layer(x).sum(), variables)
    for variable, expected in zip(variables, together, strict=True):
        (alone,) = paddle.grad(layer(x).sum(), variable)
        assert (alone - expected).abs().max() <= 1e-5 * expected.abs().max()


class Critic(nn.Layer):
    """A user's own network. composed: some of its layers are made of Paddle's basic ops.

    Paddle's group_norm, max_pool2d and conv2d_transpose have no second derivative that works.
    """

    def __init__(self, composed):
        super().__init__()
        self.composed = composed
        self.convolve = nn.Conv2D(4, 8, 3, stride=2, padding=1)
        self.norm = nn.GroupNorm(2, 8)
        self.grow = nn.Conv2DTranspose(8, 8, 2, stride=2, bias_attr=False)
        self.score = nn.Linear(8 * 32 * 32, 3)

    def forward(self, x):
        h = F.silu(self.normalize(self.convolve(x)))
        h = F.sigmoid(self.pool(F.relu(self.enlarge(h))))
        return self.score(h.reshape([len(h), -1]))

    def normalize(self, x):
        if not self.composed:
            return self.norm(x)
        rows = x.reshape([len(x), 2, -1])
        rows = (rows - rows.mean(2, keepdim=True)) / (
            rows.var(2, unbiased=False, keepdim=True) + 1e-5
        ).sqrt()
        weight, bias = (p.reshape([-1, 1, 1]) for p in (self.norm.weight, self.norm.bias))
        return rows.reshape(x.shape) * weight + bias

    def enlarge(self, x):
        if not self.composed:
            return self.grow(x)
        n, c, h, w = x.shape
        weight = self.grow.weight.reshape([c, 32]).t().reshape([32, c, 1, 1])
        y = F.conv2d(x, weight).reshape([n, 8, 2, 2, h, w])
        return y.transpose([0, 1, 4, 2, 5, 3]).reshape([n, 8, 2 * h, 2 * w])

    def pool(self, x):
        if not self.composed:
            return nn.MaxPool2D(2)(x)
        n, c, h, w = x.shape
        windows = x.reshape([n, c, h // 2, 2, w // 2, 2])
        largest = windows.detach() == windows.detach().max([3, 5], keepdim=True)
        return (windows * largest.astype("float32")).sum([3, 5])  # equals are zeros of a ReLU


def penalty(composed):
    """The gradient penalty of a critic and its gradients."""
    paddle.seed(0)
    critic = Critic(composed)
    for parameter in (critic.norm.weight, critic.norm.bias):
        parameter.set_value(1 + 0.1 * paddle.randn(parameter.shape))
    x = paddle.randn([16, 4, 64, 64])  # large enough after the convolution, too
    x.stop_gradient = False
    (gradient,) = paddle.grad(critic(x).sum(), x, create_graph=True)
    result = (gradient.square().sum([1, 2, 3]).sqrt() - 1).square().mean()
    variables = [x, *critic.parameters()]
    return [result, *paddle.grad(result, variables, allow_unused=True)]


def test_a_gradient_penalty(calls):
    accelerate.disable()
    before = penalty(composed=True)
    accelerate.enable()
    accelerated = penalty(composed=False)
    assert len(calls) >= 8
    accelerate.disable()
    after = penalty(composed=True)
    for expected, ours, again in zip(before, accelerated, after, strict=True):
        if expected is None:  # a bias that the penalty does not depend on
            assert ours is None or not ours.any()
            continue
        assert (expected == again).all()
        assert (ours - expected).abs().max() <= 1e-3 * expected.abs().max() + 1e-7
