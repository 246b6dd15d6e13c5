import numpy as np
import paddle
import paddle.nn as nn
import paddle.nn.functional as F
import pytest

from genbook.accelerate import cpu


def untuned(function):
    """Paddle's own function where `tune` has put another in its place."""
    while function.__code__.co_filename == cpu.__file__:
        function = function.__wrapped__
    return function


@pytest.fixture
def stock(monkeypatch):
    """Paddle's layers as they come, for the time of a test; its two convolutions."""
    for layer in (nn.Conv2D, nn.Conv2DTranspose):
        monkeypatch.setattr(layer, "forward", untuned(layer.forward))
    return untuned(F.conv._conv_nd), untuned(F.conv2d_transpose)


def outputs_and_gradients(layers, x):
    results = []
    for layer in layers:
        layer.clear_gradients()
        y = layer(x)
        y.square().sum().backward()
        results += [y.numpy(), layer.weight.grad.numpy(), layer.bias.grad.numpy()]
    return results


@pytest.mark.parametrize("shape", [[4, 6, 8, 8], [1, 6, 5, 7], [64, 6, 28, 28]])
def test_fast_bias_changes_no_bit(stock, shape, monkeypatch):
    paddle.seed(0)
    layers = [
        nn.Conv2D(6, 10, 3, padding=1),
        nn.Conv2D(6, 10, 3, stride=2),
        nn.Conv2DTranspose(6, 10, 2, stride=2),
    ]
    for layer in layers:
        layer.bias.set_value(paddle.randn(layer.bias.shape))
    x = paddle.randn(shape)
    monkeypatch.setattr(F.conv, "_conv_nd", stock[0])
    monkeypatch.setattr(F, "conv2d_transpose", stock[1])
    before = outputs_and_gradients(layers, x)
    cpu.add_bias_fast()
    after = outputs_and_gradients(layers, x)
    for a, b in zip(before, after, strict=True):
        np.testing.assert_array_equal(a, b)


def test_layers_really_use_the_fast_bias(stock, monkeypatch):
    biases = []

    def spy(convolve):
        return lambda x, w, bias=None, *a, **k: biases.append(bias) or convolve(x, w, bias, *a, **k)

    monkeypatch.setattr(F.conv, "_conv_nd", spy(stock[0]))
    monkeypatch.setattr(F, "conv2d_transpose", spy(stock[1]))
    cpu.add_bias_fast()
    nn.Conv2D(1, 2, 3)(paddle.ones([1, 1, 8, 8]))
    nn.Conv2DTranspose(1, 2, 2)(paddle.ones([1, 1, 8, 8]))
    assert biases == [None, None]


def test_fast_bias_leaves_other_layouts_alone(stock, monkeypatch):
    monkeypatch.setattr(F.conv, "_conv_nd", stock[0])
    paddle.seed(0)
    x, weight, bias = paddle.randn([2, 8, 8, 3]), paddle.randn([5, 3, 3, 3]), paddle.randn([5])
    before = F.conv2d(x, weight, bias, data_format="NHWC").numpy()
    cpu.add_bias_fast()
    np.testing.assert_array_equal(F.conv2d(x, weight, bias, data_format="NHWC").numpy(), before)


def test_keeping_memory_changes_no_result():
    paddle.seed(0)
    x = paddle.randn([256, 1024])
    before = (x @ x.T).numpy()
    cpu.keep_freed_memory()
    np.testing.assert_array_equal((x @ x.T).numpy(), before)


def test_tune_can_be_called_again():
    cpu.tune()
    wrapped = F.conv._conv_nd
    cpu.tune()
    assert F.conv._conv_nd is wrapped


def test_denormals_are_flushed_inside_the_block_and_nowhere_else():
    tiny = paddle.full([8], 1e-38)
    denormal = tiny * 0.5
    with cpu.flush_denormals():
        results = (tiny * 0.5).numpy(), (denormal * 2.0).numpy()  # as a result, as an input
    assert (denormal > 0).all() and (tiny * 0.5 > 0).all()
    if cpu.can_flush_denormals():
        assert not np.any(results)


def test_flushing_ends_with_an_error_as_well():
    with pytest.raises(KeyError), cpu.flush_denormals():
        raise KeyError
    assert (paddle.full([8], 1e-38) * 0.5 > 0).all()
