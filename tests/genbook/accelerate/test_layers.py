import copy
import threading

import numpy as np
import paddle
import paddle.nn as nn
import paddle.nn.functional as F
import pytest
from scipy.signal import correlate

from genbook import accelerate
from genbook.accelerate import layers, onednn

pytestmark = pytest.mark.skipif(onednn.library() is None, reason="this Paddle has no oneDNN 3")


@pytest.fixture(autouse=True)
def enabled():
    paddle.seed(0)
    with accelerate.enabled():
        yield


@pytest.fixture
def amx(monkeypatch):
    """As if the processor had AMX; oneDNN does what it can."""
    monkeypatch.setattr(onednn, "has_amx", lambda: True)


@pytest.fixture
def calls(monkeypatch):
    """The operations that were called."""
    made, run = [], layers.run
    monkeypatch.setattr(layers, "run", lambda op, *tensors: made.append(op) or run(op, *tensors))
    return made


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
def test_convolution_against_its_definition(x, weight, stride, padding, calls):
    layer, x = layer_of(weight, stride, padding), paddle.randn(x)
    expected = by_hand(x.numpy(), layer.weight.numpy(), layer.bias.numpy(), stride, padding)
    np.testing.assert_allclose(layer(x).numpy(), expected, atol=1e-4)
    assert calls


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
    np.testing.assert_allclose(
        (layer(x) * y).sum().item(), (reached * adjoint).sum().item(), rtol=1e-3, atol=1e-2
    )


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


def test_sampling_keeps_no_gradients():
    layer = nn.Conv2D(3, 4, 3)
    with paddle.no_grad():
        assert layer(paddle.randn([1, 3, 8, 8])).stop_gradient


def relu(x):
    return np.maximum(x, 0)


def silu(x):
    return x / (1 + np.exp(-x))


def group_norm(x, weight, bias, groups=4, epsilon=1e-5):
    rows = x.reshape(len(x), groups, -1)
    mean, variance = rows.mean(axis=2, keepdims=True), rows.var(axis=2, keepdims=True)
    x_hat = ((rows - mean) / np.sqrt(variance + epsilon)).reshape(x.shape)
    return x_hat * weight.reshape(-1, 1, 1) + bias.reshape(-1, 1, 1)


def max_pool(x, size=2, stride=2):
    windows = np.lib.stride_tricks.sliding_window_view(x, (size, size), axis=(2, 3))
    return windows[:, :, ::stride, ::stride].max(axis=(4, 5))


def others():
    """name: a layer or function, its parameters, and its definition in float64."""
    norm = nn.GroupNorm(4, 16)
    norm.weight.set_value(paddle.randn([16]))
    norm.bias.set_value(paddle.randn([16]))
    return {
        "relu": (nn.ReLU(), [], relu),
        "silu": (F.silu, [], silu),
        "sigmoid": (nn.Sigmoid(), [], lambda x: 1 / (1 + np.exp(-x))),
        "max_pool": (nn.MaxPool2D(2, 2), [], max_pool),
        "overlapping max_pool": (nn.MaxPool2D(3, 2), [], lambda x: max_pool(x, 3, 2)),
        "group_norm": (norm, [norm.weight, norm.bias], group_norm),
    }


OTHERS = ["relu", "silu", "sigmoid", "max_pool", "overlapping max_pool", "group_norm"]
IMAGES = [[40, 16, 16, 16], [64, 16, 13, 15]]  # large enough


@pytest.mark.parametrize("shape", IMAGES)
@pytest.mark.parametrize("name", OTHERS)
def test_other_layers_against_their_definitions(name, shape, calls):
    layer, parameters, definition = others()[name]
    x = 3 + 2 * paddle.randn(shape)
    expected = definition(*(v.numpy().astype("float64") for v in (x, *parameters)))
    np.testing.assert_allclose(layer(x).numpy(), expected, rtol=1e-5, atol=1e-5)
    assert calls


@pytest.mark.parametrize("shape", IMAGES)
@pytest.mark.parametrize("name", OTHERS)
def test_gradients_of_other_layers_against_finite_differences(name, shape):
    layer, parameters, definition = others()[name]
    x = 3 * paddle.randn(shape)
    x.stop_gradient = False
    y = layer(x)
    dy = paddle.randn(y.shape)
    variables = [x, *parameters]
    gradients = paddle.grad([y], variables, [dy])
    values = [v.numpy().astype("float64") for v in variables]
    for i, gradient in enumerate(gradients):
        direction = np.random.default_rng(i).standard_normal(values[i].shape)
        results = []
        for step in (1e-6, -1e-6):  # small enough to pass hardly any kink
            moved = [v + step * direction if j == i else v for j, v in enumerate(values)]
            results.append((definition(*moved) * dy.numpy()).sum())
        slope = (results[0] - results[1]) / 2e-6
        scale = np.linalg.norm(gradient.numpy()) * np.linalg.norm(direction)
        assert abs((gradient.numpy() * direction).sum() - slope) < 1e-4 * scale


@pytest.mark.parametrize("name", OTHERS)
def test_other_layers_agree_with_paddle(name):
    # With many equal numbers in a window: the gradient goes to the same one of them.
    layer, parameters, _ = others()[name]
    x = paddle.round(paddle.randn(IMAGES[0]))
    x.stop_gradient = False
    dy, results = None, []
    for switch in (accelerate.enable, accelerate.disable):
        switch()
        y = layer(x)
        dy = paddle.randn(y.shape) if dy is None else dy
        results.append([y, *paddle.grad([y], [x, *parameters], [dy])])
    for ours, theirs in zip(*results, strict=True):
        scale = theirs.abs().max().item()
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=0, atol=2e-5 * scale)


@pytest.mark.parametrize("name", OTHERS)
def test_other_layers_give_the_same_bits_each_time(name):
    layer, parameters, _ = others()[name]
    x = paddle.randn(IMAGES[1])
    x.stop_gradient = False
    dy, results = paddle.randn(layer(x).shape), []
    for _ in range(3):
        y = layer(x)
        results.append([y, *paddle.grad([y], [x, *parameters], [dy])])
    for again in results[1:]:
        for a, b in zip(results[0], again, strict=True):
            np.testing.assert_array_equal(a.numpy(), b.numpy())


@pytest.mark.parametrize("name", OTHERS)
def test_other_layers_read_a_view_where_it_lies(name):
    layer = others()[name][0]
    view = paddle.randn([64, 32, 16, 16])[:, ::2].transpose([0, 1, 3, 2])
    copy = paddle.to_tensor(view.numpy())
    np.testing.assert_array_equal(layer(view).numpy(), layer(copy).numpy())


@pytest.mark.parametrize("frozen", ["x", "weight", "bias"])
def test_a_frozen_tensor_changes_no_other_gradient_of_a_convolution(frozen):
    results = []
    for stop in (False, True):
        paddle.seed(0)
        layer, x = nn.Conv2D(3, 16, 3), paddle.randn([4, 3, 8, 8])
        variables = {"x": x, "weight": layer.weight, "bias": layer.bias}
        for name, variable in variables.items():
            variable.stop_gradient = stop and name == frozen
        layer(x).square().sum().backward()
        results.append([v.grad.numpy() for k, v in variables.items() if k != frozen])
    assert variables[frozen].grad is None
    for a, b in zip(*results, strict=True):
        np.testing.assert_array_equal(a, b)


def test_frozen_parameters_get_no_gradient():
    norm = others()["group_norm"][0]
    norm.weight.stop_gradient = True
    x = paddle.randn(IMAGES[0])
    norm(x).sum().backward()
    assert norm.weight.grad is None and norm.bias.grad is not None and x.grad is None


LINEAR = [(128, 64, 64), (170, 100, 41), (128, 266, 512)]  # images, inputs, outputs


def linear_arrays(n, i, o, bf16):
    """x, weight, bias and dy as float32; with bf16, numbers that bfloat16 holds."""
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(shape) for shape in ((n, i), (i, o), (o,), (n, o))]
    return [(a * 8).round().astype("float32") if bf16 else a.astype("float32") for a in arrays]


def results_of(x, weight, bias, dy):
    """y and the gradients of x, weight and bias of an nn.Linear."""
    layer, x = nn.Linear(*weight.shape), paddle.to_tensor(x, stop_gradient=False)
    layer.weight.set_value(weight)
    layer.bias.set_value(bias)
    y = layer(x)
    y.backward(paddle.to_tensor(dy))
    return [tensor.numpy() for tensor in (y, x.grad, layer.weight.grad, layer.bias.grad)]


def products(x, weight, bias, dy):
    """The same by the definitions, in float64."""
    x, weight, bias, dy = (a.astype("float64") for a in (x, weight, bias, dy))
    return x @ weight + bias, dy @ weight.T, x.T @ dy, dy.sum(axis=0)


@pytest.mark.parametrize("shape", LINEAR)
def test_a_linear_layer_with_bfloat16_factors_against_its_definition(shape, amx):
    """Numbers that bfloat16 holds exactly give exact sums."""
    arrays = linear_arrays(*shape, bf16=True)
    with layers.bfloat16_products():
        results = results_of(*arrays)
    for result, expected in zip(results, products(*arrays), strict=True):
        np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("shape", LINEAR)
def test_a_linear_layer_rounds_its_factors_by_no_more_than_bfloat16(shape, amx):
    x, weight, bias, dy = linear_arrays(*shape, bf16=False)
    with layers.bfloat16_products():
        results = results_of(x, weight, bias, dy)
    sizes = products(*map(np.abs, (x, weight, bias, dy)))
    for result, expected, size in zip(results, products(x, weight, bias, dy), sizes, strict=True):
        assert (np.abs(result - expected) <= (2**-7 + 2**-16 + 1e-5) * size).all()  # of two factors


def convolution_results(layer, x, dy):
    """y and the gradients of x, weight and bias."""
    x = paddle.to_tensor(x, stop_gradient=False)
    y = layer(x)
    gradients = paddle.grad([y], [x, layer.weight, layer.bias], [paddle.to_tensor(dy)])
    return [tensor.numpy() for tensor in (y, *gradients)]


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("x, weight, stride, padding", SHAPES)
def test_a_convolution_with_bfloat16_factors(x, weight, stride, padding, transposed, amx):
    """Numbers that bfloat16 holds give exact sums; others err by the rounding of two factors."""
    if transposed:
        weight = (weight[1], weight[0], *weight[2:])
    layer, x = layer_of(weight, stride, padding, transposed), paddle.randn(x).numpy()
    dy = paddle.randn(layer(paddle.to_tensor(x)).shape).numpy()
    rounded = layer_of(weight, stride, padding, transposed)
    rounded.weight.set_value((8 * layer.weight).round())
    for of, images, slopes in ((rounded, (8 * x).round(), (8 * dy).round()), (layer, x, dy)):
        exact = convolution_results(of, images, slopes)  # in float32, tested by hand
        with layers.bfloat16_products():
            rounded_ = convolution_results(of, images, slopes)
        for parameter in (of.weight, of.bias):
            parameter.set_value(parameter.abs())
        sizes = convolution_results(of, np.abs(images), np.abs(slopes))
        most = 1e-5 if of is rounded else 2**-7 + 2**-16 + 1e-5
        for result, expected, size in zip(rounded_, exact, sizes, strict=True):
            assert (np.abs(result - expected) <= most * size).all()


@pytest.fixture
def rounded(amx, monkeypatch):
    """Whether factors were rounded, of each product."""
    asked, compiled = [], layers.compiled
    monkeypatch.setattr(layers, "compiled", lambda *args: asked.append(args[-1]) or compiled(*args))
    return asked


def network_of_products():
    return nn.Sequential(nn.Conv2D(4, 8, 3), nn.Flatten(), nn.Linear(8 * 36, 128))


def test_factors_are_rounded_within_the_block_only(rounded):
    network, x = network_of_products(), paddle.randn([16, 4, 8, 8])
    network(x)
    with pytest.raises(KeyError), layers.bfloat16_products():
        network(x)
        raise KeyError
    network(x)
    assert rounded == [False, False, True, True, False, False]


def test_no_factor_is_rounded_without_amx(rounded, monkeypatch):
    monkeypatch.setattr(onednn, "has_amx", lambda: False)
    with layers.bfloat16_products():
        network_of_products()(paddle.randn([16, 4, 8, 8]))
    assert rounded == [False, False]


def test_the_precision_is_that_of_the_thread(rounded):
    network, x = network_of_products(), paddle.randn([16, 4, 8, 8])
    with layers.bfloat16_products():
        thread = threading.Thread(target=network, args=[x])
        thread.start()
        thread.join()
    assert rounded == [False, False]


def test_a_marked_network_rounds_where_no_gradient_is_recorded(rounded):
    network, x = network_of_products(), paddle.randn([16, 4, 8, 8])
    assert accelerate.bfloat16(network) is network
    network(x)
    with paddle.no_grad():
        network(x)
        copy.deepcopy(network)(x)
        network_of_products()(x)
    assert rounded == [False, False, True, True, True, True, False, False]


def test_without_acceleration_a_mark_changes_nothing():
    network, x = network_of_products(), paddle.randn([16, 4, 8, 8])
    accelerate.disable()
    with paddle.no_grad():
        before, names = network(x).numpy(), list(network.state_dict())
        accelerate.bfloat16(network)
        assert (network(x).numpy() == before).all()
    assert list(network.state_dict()) == names
    assert network[0].bfloat16 == paddle.nn.Layer.bfloat16.__get__(network[0])  # Paddle's own cast


def test_a_linear_layer_in_the_block_gives_the_same_bits_each_time():
    arrays = linear_arrays(128, 266, 512, bf16=False)
    with layers.bfloat16_products():
        first = results_of(*arrays)
        assert all((a == b).all() for a, b in zip(first, results_of(*arrays), strict=True))


@pytest.mark.parametrize("frozen", ["x", "weight", "bias"])
def test_a_frozen_tensor_changes_no_other_gradient_of_a_linear_layer(frozen):
    x, weight, bias, dy = linear_arrays(128, 64, 64, bf16=True)
    layer, x = nn.Linear(64, 64), paddle.to_tensor(x, stop_gradient=frozen == "x")
    for parameter, value in (("weight", weight), ("bias", bias)):
        getattr(layer, parameter).set_value(value)
        getattr(layer, parameter).stop_gradient = frozen == parameter
    with layers.bfloat16_products():
        layer(x).backward(paddle.to_tensor(dy))
    tensors = {"x": x, "weight": layer.weight, "bias": layer.bias}
    expected = dict(zip(tensors, products(x.numpy(), weight, bias, dy)[1:], strict=True))
    assert tensors[frozen].grad is None
    for name in set(tensors) - {frozen}:
        np.testing.assert_allclose(tensors[name].grad.numpy(), expected[name], rtol=1e-5)
