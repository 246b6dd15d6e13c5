"""Paddle's layers on oneDNN: convolutions, products, normalisation, pooling, activations; and Adam.

What a layer's settings or its input ask for and is not implemented here is left to Paddle: other
dtypes and devices, static graphs, dilation, groups, channels last.
Gradients that are themselves differentiated (`create_graph=True`) are composed of Paddle's
differentiable functions.

One thing fails that works in Paddle: a second `backward` through one graph (`retain_graph=True`).
Paddle 3.3 crashes at it wherever a graph holds a PyLayer; `paddle.grad` may be called repeatedly.
"""

import contextlib
import contextvars
import functools
import inspect
import math
from collections.abc import Callable

import paddle
import paddle.nn as nn
import paddle.nn.functional as F
from paddle.autograd import PyLayer

from genbook.accelerate import adam, onednn
from genbook.accelerate.onednn import empty, is_float32

LARGE = 2**17  # numbers in a tensor; with fewer, a call costs about what it saves
LARGE_PRODUCT = 2**19  # multiplications in a product of matrices, likewise
OPERATIONS = 256  # compiled and kept, the last used ones; a network takes some dozens

_originals: dict[tuple, Callable] = {}  # (class or module, name) -> Paddle's function


def install():
    """Put the functions of this module in the place of Paddle's, where there is oneDNN."""
    if onednn.library() is None:
        return
    onednn.stream()  # with its engine, before threads race to make them: the losers' are destroyed
    for (owner, name), function in REPLACEMENTS.items():
        _originals[owner, name] = original = vars(owner)[name]
        setattr(owner, name, _instead(original, function))


def uninstall():
    """Put Paddle's own functions back."""
    for (owner, name), original in _originals.items():
        setattr(owner, name, original)
    _originals.clear()
    compiled.cache_clear()


def _instead(original, function):
    """`function`, and where it answers NotImplemented, `original`."""

    @functools.wraps(original)
    def accelerated(*args, **kwargs):
        try:
            result = function(*args, **kwargs)
        except onednn.Unsupported:
            result = NotImplemented
        return original(*args, **kwargs) if result is NotImplemented else result

    vars(accelerated)["__signature__"] = inspect.signature(original)  # paddle.jit reads it
    return accelerated


@functools.lru_cache(maxsize=OPERATIONS)
def compiled(kind, *settings):
    """An instance of one of `onednn`'s classes of operations."""
    return kind(*settings)


_rounds = contextvars.ContextVar("_rounds", default=False)  # whether factors; one per thread


@contextlib.contextmanager
def bfloat16_products():
    """Within this block and thread, round the factors of products to bfloat16 if there is AMX.

    Such products are two to four times faster. The relative error of a factor is at most 2^-8;
    sums stay float32.
    """
    token = _rounds.set(True)
    try:
        yield
    finally:
        _rounds.reset(token)


def uses_bfloat16(layer, *tensors):
    """Whether to round the factors of this layer's products; see `accelerate.bfloat16`."""
    marked = vars(layer).get("bfloat16_products") and not recorded(tensors)
    return bool(_rounds.get() or marked) and onednn.has_amx()


def recorded(tensors):
    """Those of the tensors, which may be None, whose gradients may be asked for."""
    if not paddle.is_grad_enabled():
        return []
    return [tensor for tensor in tensors if tensor is not None and not tensor.stop_gradient]


class Recorded(PyLayer):
    """A node of autograd's graph, for a value that was computed elsewhere."""

    @staticmethod
    def forward(ctx, variables, value, backward):
        """value(), which backward(dy) -> [dx, ...] connects with the tensors in `variables`.

        In one list, because `paddle.grad` with respect to some of several tensor arguments
        fails: a backward cannot know which of them to return None for.
        """
        ctx.call = backward
        return value()

    @staticmethod
    def backward(ctx, dy):
        """The gradients of the variables."""
        return ctx.call(dy)


def record(y, tensors, gradients, differentiable):
    """y, connected with the x, weight and bias that it was computed of; any may be None but x.

    gradients(dy, wanted): the gradients of all of them by oneDNN; anything for those that are not
    wanted. differentiable(dy): the same by Paddle's functions, which autograd records.
    """
    variables = recorded(tensors)
    if not variables:
        return y
    wanted = [tensor is not None and not tensor.stop_gradient for tensor in tensors]
    needed = tensors[:2]  # no gradient depends on a bias
    versions = [tensor.inplace_version for tensor in needed]

    def backward(dy):
        if [tensor.inplace_version for tensor in needed] != versions:
            raise RuntimeError("a tensor that a gradient depends on was modified in place")
        if paddle.is_grad_enabled():
            found = differentiable(dy)
        else:
            found = gradients(dy.contiguous(), wanted)
        return [gradient for gradient, want in zip(found, wanted) if want]

    return Recorded.apply(variables, lambda: y, backward)


def run(operation, *tensors):
    """Call an operation on tensors; None for an argument that there is not."""
    given = [tensor.contiguous() for tensor in tensors if tensor is not None]
    operation(*[tensor.data_ptr() for tensor in given])


def conv2d(layer, x):
    """What the forward of an nn.Conv2D returns; NotImplemented where that is left to Paddle."""
    weight, bias = layer.weight, layer.bias
    if not supports_convolution(layer, x, weight.shape[1]):
        return NotImplemented
    stride, padding = pair(layer._stride), pair(layer._padding)
    if any(s + 2 * p < k for s, p, k in zip(x.shape[2:], padding, weight.shape[2:])):
        return NotImplemented
    settings = (bias is not None, stride, padding, uses_bfloat16(layer, x, weight, bias))
    convolution = compiled(onednn.Convolution, tuple(x.shape), tuple(weight.shape), *settings)
    y = empty(convolution.y_shape)
    run(convolution.forward, x, weight, bias, y)

    def gradients(dy, wanted):
        dx, dweight = empty(x.shape), empty(weight.shape)
        dbias = None if bias is None else empty(bias.shape)
        if wanted[0] and any(wanted[1:]):
            run(convolution.gradients, weight, dy, dx, x, dweight, dbias)
        elif wanted[0]:
            run(convolution.gradient_x, weight, dy, dx)
        else:
            run(convolution.gradient_weight, x, dy, dweight, dbias)
        return dx, dweight, dbias

    def differentiable(dy):
        sides = x.shape[2:]
        dx = F.conv2d_transpose(dy, weight, stride=stride, padding=padding, output_size=sides)
        return dx, weight_gradient(x, dy, weight, stride, padding), dy.sum([0, 2, 3])

    return record(y, (x, weight, bias), gradients, differentiable)


def weight_gradient(x, dy, weight, stride, padding):
    """The gradient of a convolution's weight [O, C, k, l]: a convolution, images as channels."""
    x, dy = x.transpose([1, 0, 2, 3]), dy.transpose([1, 0, 2, 3])
    gradient = F.conv2d(x, dy, padding=padding, dilation=stride)  # [C, O, >= k, >= l]
    return gradient[:, :, : weight.shape[2], : weight.shape[3]].transpose([1, 0, 2, 3])


def conv2d_transpose(layer, x, output_size=None):
    """What the forward of an nn.Conv2DTranspose returns; NotImplemented as for `conv2d`.

    That is the gradient of x in a convolution, and a bias.
    """
    weight, bias = layer.weight, layer.bias
    if (
        output_size is not None
        or layer.output_padding != 0
        or not supports_convolution(layer, x, weight.shape[0])
    ):
        return NotImplemented
    stride, padding = pair(layer._stride), pair(layer._padding)
    sides = [
        (side - 1) * step + size - 2 * pad
        for side, step, size, pad in zip(x.shape[2:], stride, weight.shape[2:], padding)
    ]
    if min(sides) < 1:
        return NotImplemented
    n, c = x.shape[0], weight.shape[1]
    settings = (False, stride, padding, uses_bfloat16(layer, x, weight, bias))
    convolution = compiled(onednn.Convolution, (n, c, *sides), tuple(weight.shape), *settings)
    y = empty([n, c, *sides])
    run(convolution.gradient_x, weight, x, y)
    if bias is not None:
        run(compiled(onednn.binary, onednn.ADD, (n, c, math.prod(sides)), (1, c, 1)), y, bias, y)

    def gradients(dy, wanted):
        dx, dweight = empty(x.shape), empty(weight.shape)
        if wanted[0]:
            run(convolution.forward, dy, weight, dx)
        if wanted[1]:
            run(convolution.gradient_weight, dy, x, dweight)
        return dx, dweight, sum_of_channels(dy) if wanted[2] else None

    def differentiable(dy):
        dx = F.conv2d(dy, weight, stride=stride, padding=padding)
        return dx, weight_gradient(dy, x, weight, stride, padding), dy.sum([0, 2, 3])

    return record(y, (x, weight, bias), gradients, differentiable)


def supports_convolution(layer, x, channels):
    """Whether a convolution of x, with so many channels, is one of those that run here."""
    return (
        is_float32(x, layer.weight, layer.bias)
        and 0 not in x.shape
        and x.ndim == 4
        and x.shape[1] == channels
        and layer._groups == 1
        and layer._data_format == "NCHW"
        and layer._padding_mode == "zeros"
        and pair(layer._dilation) == (1, 1)
        and pair(layer._padding) is not None
    )


def pair(value):
    """A number for both sides as two numbers; None for what is neither one nor two numbers."""
    two = (value, value) if isinstance(value, int) else value
    if isinstance(two, (list, tuple)) and len(two) == 2 and all(isinstance(v, int) for v in two):
        return tuple(two)
    return None


def linear(layer, x):
    """What the forward of an nn.Linear returns, or NotImplemented."""
    weight, bias = layer.weight, layer.bias
    if not (
        is_float32(x, weight, bias)
        and x.ndim >= 2
        and x.shape[-1] == weight.shape[0]
        and math.prod(x.shape) * weight.shape[1] >= LARGE_PRODUCT
    ):
        return NotImplemented
    settings = (bias is not None, uses_bfloat16(layer, x, weight, bias))
    product = compiled(onednn.Product, math.prod(x.shape[:-1]), *weight.shape, *settings)
    y = empty([*x.shape[:-1], weight.shape[1]])
    run(product.forward, x, weight, bias, y)

    def gradients(dy, wanted):
        dx, dweight = empty(x.shape), empty(weight.shape)
        if wanted[0]:
            run(product.gradient_x, dy, weight, dx)
        if wanted[1]:
            run(product.gradient_weight, x, dy, dweight)
        return dx, dweight, sum_of_rows(dy) if wanted[2] else None

    def differentiable(dy):
        rows = dy.reshape([-1, weight.shape[1]])
        return dy @ weight.t(), x.reshape([-1, weight.shape[0]]).t() @ rows, rows.sum(0)

    return record(y, (x, weight, bias), gradients, differentiable)


def activation(name, x=None, *options, **named):
    """What F.relu, F.silu or F.sigmoid returns; NotImplemented where an option is set."""
    if not is_large(x) or any(options) or any(named.values()):
        return NotImplemented
    algorithm, alpha, slope = ACTIVATIONS[name]
    function = compiled(onednn.Elementwise, math.prod(x.shape), algorithm, alpha)
    y = empty(x.shape)
    run(function.forward, x, y)

    def gradients(dy, wanted):
        dx = empty(x.shape)
        run(function.gradient, x, dy, dx)
        return [dx]

    return record(y, [x], gradients, lambda dy: [dy * slope(x)])


# oneDNN's algorithm and its alpha, and the derivative; 1 - sigmoid(x) = sigmoid(-x)
ACTIVATIONS = {
    "relu": (0x20, 0.0, lambda x: (x > 0).astype(x.dtype)),
    "sigmoid": (0x29, 0.0, lambda x: F.sigmoid(x) * F.sigmoid(-x)),
    "silu": (0x2C, 1.0, lambda x: F.sigmoid(x) * (1 + x * F.sigmoid(-x))),
}


def is_large(*tensors):
    """Whether the operations can work on these tensors, and the first is worth a call."""
    return is_float32(*tensors) and math.prod(tensors[0].shape) >= LARGE


def max_pool2d(layer, x):
    """What the forward of an nn.MaxPool2D without padding returns, or NotImplemented."""
    size = pair(layer.ksize)
    stride = size if layer.stride is None else pair(layer.stride)
    known = (
        is_large(x)
        and x.ndim == 4
        and size is not None
        and stride is not None
        and layer.padding == 0
        and not layer.return_mask
        and not layer.ceil_mode
        and layer.data_format == "NCHW"
        and all(side >= k for side, k in zip(x.shape[2:], size))
    )
    if not known:
        return NotImplemented
    pooling = compiled(onednn.MaxPooling, tuple(x.shape), size, stride)
    y, workspace = empty(pooling.y_shape), empty([pooling.workspace_bytes], paddle.uint8)
    run(pooling.forward, x, y, workspace)

    def gradients(dy, wanted):  # the first of equal maxima takes all
        dx = empty(x.shape)
        run(pooling.gradient, dy, workspace, dx)
        return [dx]

    def differentiable(dy):
        _, places = F.max_pool2d(x.detach(), size, stride, return_mask=True)
        dx = paddle.zeros_like(x).flatten(2)
        dx = dx.put_along_axis(places.flatten(2).astype("int64"), dy.flatten(2), 2, "add")
        return [dx.reshape(x.shape)]

    return record(y, [x], gradients, differentiable)


def group_norm(layer, x):
    """What the forward of an nn.GroupNorm returns for images, or NotImplemented."""
    weight, bias = layer.weight, layer.bias
    known = (
        weight is not None
        and bias is not None
        and is_large(x, weight, bias)
        and x.ndim == 4
        and layer._data_format == "NCHW"
        and x.shape[1] == weight.shape[0]
    )
    if not known:
        return NotImplemented
    settings = (tuple(x.shape), layer._num_groups, layer._epsilon)
    norm = compiled(onednn.GroupNormalization, *settings)
    x_hat, y, mean, variance = map(empty, (x.shape, x.shape, norm.rows, norm.rows))
    run(norm.normalize, x, x_hat, mean, variance)
    run(norm.affine, x_hat, weight, bias, y)

    def gradients(dy, wanted):
        dx = empty(x.shape)
        run(norm.product, dy, x_hat, dx)  # dx is used for what is needed on the way
        dweight, dbias = sum_of_channels(dx), sum_of_channels(dy)
        run(norm.scale, dy, weight, dx)
        run(norm.gradient, x, dx, mean, variance, dx)
        return dx, dweight, dbias

    def differentiable(dy):
        rows = x.reshape([len(x), layer._num_groups, -1])
        centred = rows - rows.mean(2, keepdim=True)
        scale = (centred.square().mean(2, keepdim=True) + layer._epsilon).rsqrt()
        x_hat = centred * scale
        dx_hat = (dy * weight.reshape([-1, 1, 1])).reshape(rows.shape)
        along = x_hat * (dx_hat * x_hat).mean(2, keepdim=True)
        dx = scale * (dx_hat - dx_hat.mean(2, keepdim=True) - along)
        dweight = (dy * x_hat.reshape(x.shape)).sum([0, 2, 3])
        return dx.reshape(x.shape), dweight, dy.sum([0, 2, 3])

    return record(y, (x, weight, bias), gradients, differentiable)


def sum_of_channels(x):
    """[N, C, H, W] -> [C]. A product with ones is some three times faster than Paddle's sum."""
    n, c, *sides = x.shape
    return (x.reshape([n * c, -1]) @ ones(math.prod(sides))).reshape([n, c]).sum(0)


def sum_of_rows(x):
    """[..., O] -> [O], by the same trick."""
    rows = math.prod(x.shape[:-1])
    return ones(rows) @ x.reshape([rows, -1])


def ones(n):
    """What paddle.ones([n]) makes; see `onednn.empty`."""
    return paddle._C_ops.full([n], 1.0, paddle.float32, paddle.CPUPlace())


REPLACEMENTS: dict[tuple, Callable] = {
    (nn.Conv2D, "forward"): conv2d,
    (nn.Conv2DTranspose, "forward"): conv2d_transpose,
    (nn.Linear, "forward"): linear,
    (nn.GroupNorm, "forward"): group_norm,
    (nn.MaxPool2D, "forward"): max_pool2d,
    **{(F, name): functools.partial(activation, name) for name in ACTIVATIONS},
}
if not adam.is_compiled():
    REPLACEMENTS[paddle.optimizer.Adam, "_append_optimize_op"] = adam.append_optimize_op
