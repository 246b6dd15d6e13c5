import numpy as np
import paddle
import paddle.nn as nn
import pytest
from scipy.signal import correlate

from genbook import cpu, onednn

pytestmark = pytest.mark.skipif(onednn.library() is None, reason="this Paddle has no oneDNN 3")


@pytest.fixture(autouse=True)
def tuned():
    cpu.tune()
    paddle.seed(0)


def by_hand(x, weight, bias, stride, padding):
    """The definition, in float64: a correlation of each image with each filter."""
    x = np.pad(x.astype("float64"), [(0, 0), (0, 0), (padding,) * 2, (padding,) * 2])
    y = [[correlate(image, kernel, mode="valid")[0] for kernel in weight] for image in x]
    return np.array(y)[:, :, ::stride, ::stride] + bias.reshape(-1, 1, 1)


SHAPES = [
    # x, weight, stride, padding
    ((2, 3, 8, 8), (5, 3, 3, 3), 1, 1),
    ((3, 8, 9, 7), (6, 8, 3, 3), 2, 1),
    ((2, 4, 6, 6), (4, 4, 1, 1), 1, 0),
    ((1, 16, 5, 5), (32, 16, 2, 2), 2, 0),
]


def layer_of(weight, stride, padding, transposed=False):
    kind = nn.Conv2DTranspose if transposed else nn.Conv2D
    channels = weight[:2] if transposed else weight[1::-1]
    layer = kind(*channels, weight[2:], stride=stride, padding=padding)
    layer.bias.set_value(paddle.randn(layer.bias.shape))
    return layer


@pytest.mark.parametrize("x, weight, stride, padding", SHAPES)
def test_convolution_against_its_definition(x, weight, stride, padding):
    layer, x = layer_of(weight, stride, padding), paddle.randn(x)
    assert onednn.takes(layer, x)
    expected = by_hand(x.numpy(), layer.weight.numpy(), layer.bias.numpy(), stride, padding)
    np.testing.assert_allclose(layer(x).numpy(), expected, atol=1e-4)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("x, weight, stride, padding", SHAPES)
def test_gradients_against_finite_differences(x, weight, stride, padding, transposed):
    if transposed:
        weight = (weight[1], weight[0], *weight[2:])
    layer, x = layer_of(weight, stride, padding, transposed), paddle.randn(x)
    x.stop_gradient = False
    dy = paddle.randn(layer(x).shape)
    gradients = paddle.grad([layer(x)], [x, layer.weight, layer.bias], [dy])
    for variable, gradient in zip((x, layer.weight, layer.bias), gradients, strict=True):
        direction, value = paddle.randn(variable.shape), variable.clone()
        results = []
        for sign in (1, -1):  # the layer is linear in each, so a large step is exact
            variable.set_value(value + sign * direction)
            results.append((layer(x) * dy).sum().item())
        variable.set_value(value)
        slope = (results[0] - results[1]) / 2
        scale = (gradient.square().sum() * direction.square().sum()).sqrt().item()
        assert abs((gradient * direction).sum().item() - slope) < 1e-4 * scale


@pytest.mark.parametrize("x, weight, stride, padding", SHAPES)
def test_transposed_convolution_is_the_adjoint(x, weight, stride, padding):
    # <conv(x), y> = <x, transposed(y)> for the same filters
    layer = layer_of(weight, stride, padding)
    x = paddle.randn(x)
    y = paddle.randn(layer(x).shape)
    back = layer_of(weight, stride, padding, transposed=True)
    back.weight.set_value(layer.weight)
    layer.bias.set_value(paddle.zeros_like(layer.bias))
    back.bias.set_value(paddle.zeros_like(back.bias))
    adjoint = back(y)
    reached = x[:, :, : adjoint.shape[2], : adjoint.shape[3]]  # a stride may skip the last rows
    np.testing.assert_allclose((layer(x) * y).sum().item(), (reached * adjoint).sum().item(),
                               rtol=1e-3, atol=1e-2)


def test_layers_without_bias():
    x = paddle.randn([2, 3, 6, 6])
    for kind in (nn.Conv2D, nn.Conv2DTranspose):
        layer = kind(3, 4, 3, bias_attr=False)
        with_bias = kind(3, 4, 3)
        with_bias.weight.set_value(layer.weight)
        with_bias.bias.set_value(paddle.zeros([4]))
        np.testing.assert_array_equal(layer(x).numpy(), with_bias(x).numpy())


def test_a_view_is_read_where_it_lies():
    layer = nn.Conv2D(3, 4, 3, padding=1)
    x = paddle.randn([4, 6, 8, 8])
    for view in (x[1:3, ::2], x[:, 3:].transpose([0, 1, 3, 2])):
        copy = paddle.to_tensor(view.numpy())
        np.testing.assert_array_equal(layer(view).numpy(), layer(copy).numpy())


def test_the_same_bits_each_time():
    layer, x = nn.Conv2D(3, 16, 3, padding=1), paddle.randn([8, 3, 16, 16])
    results = []
    for _ in range(3):
        layer.clear_gradients()
        y = layer(x)
        y.square().sum().backward()
        results.append((y.numpy(), layer.weight.grad.numpy(), layer.bias.grad.numpy()))
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("settings", [
    {"groups": 3}, {"dilation": 2}, {"padding": "same"}, {"padding_mode": "reflect", "padding": 1},
    {"data_format": "NHWC"}, {"padding": [1, 1, 0, 0]},
])
def test_what_it_does_not_know_is_left_to_paddle(settings):
    layer = nn.Conv2D(3, 6, 3, **settings)
    x = paddle.randn([2, 8, 8, 3] if "data_format" in settings else [2, 3, 8, 8])
    assert not onednn.takes(layer, x)
    assert layer(x).shape[0] == 2


def test_an_asked_for_output_size_is_left_to_paddle():
    layer = nn.Conv2DTranspose(3, 2, 3, stride=2)
    assert layer(paddle.randn([1, 3, 4, 4]), output_size=[10, 10]).shape == [1, 2, 10, 10]


def test_sampling_keeps_no_gradients():
    layer = nn.Conv2D(3, 4, 3)
    with paddle.no_grad():
        assert layer(paddle.randn([1, 3, 8, 8])).stop_gradient
