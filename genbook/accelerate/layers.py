"""Paddle's layers on oneDNN: convolutions, products, normalisation, pooling, activations; and Adam.

What a layer's settings or its input ask for and is not implemented here is left to Paddle: other
dtypes and devices, static graphs, dilation, groups, channels last.
Gradients that are themselves differentiated (`create_graph=True`) are composed of Paddle's
differentiable functions.

One thing fails that works in Paddle: a second `backward` through one graph (`retain_graph=True`).
Paddle 3.3 crashes at it wherever a graph holds a PyLayer; `paddle.grad` may be called repeatedly.
"""

import contextlib
import functools
import inspect
import math
import threading
from collections.abc import Callable

import paddle
import paddle.nn as nn
import paddle.nn.functional as F
from paddle.autograd import PyLayer

from genbook.accelerate import adam, onednn
from genbook.accelerate.onednn import empty

LARGE = 2**17  # numbers in a tensor; with fewer, a call costs about what it saves
LARGE_PRODUCT = 2**19  # multiplications in a product of matrices, likewise
OPERATIONS = 256  # compiled and kept, the last used ones; a network takes some dozens

_originals: dict[tuple, Callable] = {}  # (class or module, name) -> Paddle's function


def install():
    """Put the functions of this module in the place of Paddle's, where there is oneDNN."""
    if onednn.library() is None:
        return
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


class _Precision(threading.local):
    bfloat16 = False


_precision = _Precision()


@contextlib.contextmanager
def bfloat16_products():
    """Within this block and thread, round the factors of products to bfloat16 if there is AMX.

    Such products are two to four times faster. The relative error of a factor is at most 2^-8;
    sums stay float32.
    """
    before, _precision.bfloat16 = _precision.bfloat16, True
    try:
        yield
    finally:
        _precision.bfloat16 = before


def uses_bfloat16(layer, *tensors):
    """Whether to round the factors of this layer's products; see `accelerate.bfloat16`."""
    marked = vars(layer).get("bfloat16_products") and not recorded(tensors)
    return bool(_precision.bfloat16 or marked) and onednn.has_amx()


def recorded(tensors):
    """Those of the tensors, which may be None, whose gradients may be asked for."""
    if not paddle.is_grad_enabled():
        return []
    return [tensor for tensor in tensors if tensor is not None and not tensor.stop_gradient]


def is_float32(*tensors):
    """Whether these are dense float32 tensors on the CPU, outside a static graph."""
    return (
        all(
            isinstance(t, paddle.Tensor)
            and t.dtype is paddle.float32
            and t.is_dense()
            and not t.is_dist()
            and t.place.is_cpu_place()
            for t in tensors
            if t is not None
        )
        and paddle.in_dynamic_mode()
    )


class Function(PyLayer):
    """A function of tensors with two ways back: a fast one, and one that can be differentiated.

    A subclass has `compute`, and two functions of the context, dy and the saved tensors that return
    the gradients of all tensor arguments, in their order.
    """

    @staticmethod
    def compute(ctx, *args):
        """The value; calls `save`."""
        raise NotImplementedError

    @staticmethod
    def gradients(ctx, dy, *saved):
        """The gradients by oneDNN; anything for those that `ctx.wanted` does not ask for."""
        raise NotImplementedError

    @staticmethod
    def differentiable_gradients(ctx, dy, *saved):
        """The same by Paddle's functions, which autograd records."""
        raise NotImplementedError

    @staticmethod
    def forward(ctx, recorded, compute):
        """compute(ctx); autograd connects the result with the list of recorded tensors.

        In one list, because `paddle.grad` with respect to some of several tensor arguments
        fails: a backward cannot know which of them to return None for.
        """
        return compute(ctx)

    @classmethod
    def backward(cls, ctx, dy):
        """The list of the recorded tensors' gradients."""
        saved = ctx.saved_tensor()
        if [tensor.inplace_version for tensor in saved] != ctx.versions:
            raise RuntimeError("a tensor that a gradient depends on was modified in place")
        way = cls.differentiable_gradients if paddle.is_grad_enabled() else cls.gradients
        gradients = way(ctx, dy.contiguous(), *saved)
        return [g for wanted, g in zip(ctx.wanted, gradients) if wanted]


class NoBackward:
    """The context of a `compute` that no backward follows."""

    def save_for_backward(self, *tensors):
        """Keep nothing."""


def apply(function, tensors, *settings):
    """Compute a Function of tensors, which may be None, and record it if need be."""

    def compute(ctx):
        return function.compute(ctx, *tensors, *settings)

    variables = recorded(tensors)
    return function.apply(variables, compute) if variables else compute(NoBackward())


def save(ctx, arguments, *others):
    """Save the tensor arguments of a function, save a bias, and others for the way back."""
    ctx.wanted = [tensor is not None and not tensor.stop_gradient for tensor in arguments]
    saved = [*arguments[:2], *others]  # no gradient depends on a bias
    ctx.versions = [tensor.inplace_version for tensor in saved]
    ctx.save_for_backward(*saved)


def run(operation, *tensors):
    """Call an operation on tensors; None for an argument that there is not."""
    given = [tensor.contiguous() for tensor in tensors if tensor is not None]
    operation(*[tensor.data_ptr() for tensor in given])


class Conv2D(Function):
    """y = conv(x, weight) + bias."""

    @staticmethod
    def compute(ctx, x, weight, bias, stride, padding, bf16):
        """x: [N, C, H, W]. weight: [O, C, k, l]. bias: [O] or None. Returns y [N, O, H', W']."""
        save(ctx, (x, weight, bias))
        has_bias = bias is not None
        settings = (tuple(x.shape), tuple(weight.shape), has_bias, stride, padding, bf16)
        ctx.convolution, ctx.has_bias = compiled(onednn.Convolution, *settings), has_bias
        ctx.stride, ctx.padding = stride, padding
        y = empty(ctx.convolution.y_shape)
        run(ctx.convolution.forward, x, weight, bias, y)
        return y

    @staticmethod
    def gradients(ctx, dy, x, weight):
        dx, dweight = empty(x.shape), empty(weight.shape)
        dbias = empty(weight.shape[:1]) if ctx.has_bias else None
        if ctx.wanted[0] and any(ctx.wanted[1:]):
            run(ctx.convolution.gradients, weight, dy, dx, x, dweight, dbias)
        elif ctx.wanted[0]:
            run(ctx.convolution.gradient_x, weight, dy, dx)
        else:
            run(ctx.convolution.gradient_weight, x, dy, dweight, dbias)
        return dx, dweight, dbias

    @staticmethod
    def differentiable_gradients(ctx, dy, x, weight):
        dx = F.conv2d_transpose(
            dy, weight, stride=ctx.stride, padding=ctx.padding, output_size=x.shape[2:]
        )
        return dx, weight_gradient(x, dy, weight, ctx), dy.sum([0, 2, 3])


def weight_gradient(x, dy, weight, ctx):
    """The gradient of a convolution's weight [O, C, k, l], as a convolution of x with dy."""
    x, dy = x.transpose([1, 0, 2, 3]), dy.transpose([1, 0, 2, 3])
    gradient = F.conv2d(x, dy, padding=ctx.padding, dilation=ctx.stride)  # [C, O, >= k, >= l]
    return gradient[:, :, : weight.shape[2], : weight.shape[3]].transpose([1, 0, 2, 3])


class Conv2DTranspose(Function):
    """The transposed convolution: the gradient of x in a convolution, and a bias."""

    @staticmethod
    def compute(ctx, x, weight, bias, y_shape, stride, padding, bf16):
        """x: [N, C, H, W]. weight: [C, O, k, l]. bias: [O] or None. Returns y of y_shape."""
        save(ctx, (x, weight, bias))
        ctx.stride, ctx.padding = stride, padding
        ctx.convolution = compiled(
            onednn.Convolution, y_shape, tuple(weight.shape), False, stride, padding, bf16
        )
        y = empty(y_shape)
        run(ctx.convolution.gradient_x, weight, x, y)
        if bias is not None:
            n, c, *sides = y_shape
            add = compiled(onednn.binary, onednn.ADD, (n, c, math.prod(sides)), (1, c, 1))
            run(add, y, bias, y)
        return y

    @staticmethod
    def gradients(ctx, dy, x, weight):
        dx, dweight = empty(x.shape), empty(weight.shape)
        if ctx.wanted[0]:
            run(ctx.convolution.forward, dy, weight, dx)
        if ctx.wanted[1]:
            run(ctx.convolution.gradient_weight, dy, x, dweight)
        return dx, dweight, sum_of_channels(dy) if any(ctx.wanted[2:]) else None

    @staticmethod
    def differentiable_gradients(ctx, dy, x, weight):
        dx = F.conv2d(dy, weight, stride=ctx.stride, padding=ctx.padding)
        return dx, weight_gradient(dy, x, weight, ctx), dy.sum([0, 2, 3])


class Linear(Function):
    """y = x weight + bias."""

    @staticmethod
    def compute(ctx, x, weight, bias, bf16):
        """x: [..., I]. weight: [I, O]. bias: [O] or None. Returns y [..., O]."""
        save(ctx, (x, weight, bias))
        n = math.prod(x.shape[:-1])
        ctx.product = compiled(onednn.Product, n, *weight.shape, bias is not None, bf16)
        y = empty([*x.shape[:-1], weight.shape[1]])
        run(ctx.product.forward, x, weight, bias, y)
        return y

    @staticmethod
    def gradients(ctx, dy, x, weight):
        dx, dweight = empty(x.shape), empty(weight.shape)
        if ctx.wanted[0]:
            run(ctx.product.gradient_x, dy, weight, dx)
        if ctx.wanted[1]:
            run(ctx.product.gradient_weight, x, dy, dweight)
        return dx, dweight, sum_of_rows(dy) if any(ctx.wanted[2:]) else None

    @staticmethod
    def differentiable_gradients(ctx, dy, x, weight):
        rows = dy.reshape([-1, weight.shape[1]])
        return dy @ weight.t(), x.reshape([-1, weight.shape[0]]).t() @ rows, rows.sum(0)


def _slope_of_relu(x):
    return (x > 0).astype(x.dtype)


def _slope_of_sigmoid(x):
    y = F.sigmoid(x)
    return y * (1 - y)


def _slope_of_silu(x):
    y = F.sigmoid(x)
    return y * (1 + x * (1 - y))


# oneDNN's algorithm and its alpha, and the derivative
ACTIVATIONS = {
    "relu": (0x20, 0.0, _slope_of_relu),
    "sigmoid": (0x29, 0.0, _slope_of_sigmoid),
    "silu": (0x2C, 1.0, _slope_of_silu),
}


class Activation(Function):
    """A function of each number by itself."""

    @staticmethod
    def compute(ctx, x, name):
        """x: of any shape. name: one of `ACTIVATIONS`. Returns y of x's shape."""
        save(ctx, (x,))
        algorithm, alpha, ctx.slope = ACTIVATIONS[name]
        ctx.function = compiled(onednn.Elementwise, math.prod(x.shape), algorithm, alpha)
        y = empty(x.shape)
        run(ctx.function.forward, x, y)
        return y

    @staticmethod
    def gradients(ctx, dy, x):
        dx = empty(x.shape)
        run(ctx.function.gradient, x, dy, dx)
        return (dx,)

    @staticmethod
    def differentiable_gradients(ctx, dy, x):
        return (dy * ctx.slope(x),)


class MaxPool2D(Function):
    """The maximum of each window; the gradient goes to the first of equal maxima."""

    @staticmethod
    def compute(ctx, x, size, stride):
        """x: [N, C, H, W]. Returns y [N, C, H', W']."""
        ctx.pooling, ctx.size, ctx.stride = (
            compiled(onednn.MaxPooling, tuple(x.shape), size, stride),
            size,
            stride,
        )
        y, workspace = (
            empty(ctx.pooling.y_shape),
            empty([ctx.pooling.workspace_bytes], paddle.uint8),
        )
        run(ctx.pooling.forward, x, y, workspace)
        save(ctx, (x,), workspace)
        return y

    @staticmethod
    def gradients(ctx, dy, x, workspace):
        dx = empty(x.shape)
        run(ctx.pooling.gradient, dy, workspace, dx)
        return (dx,)

    @staticmethod
    def differentiable_gradients(ctx, dy, x, workspace):
        _, places = F.max_pool2d(x.detach(), ctx.size, ctx.stride, return_mask=True)
        zeros = paddle.zeros_like(x).flatten(2)
        dx = zeros.put_along_axis(places.flatten(2).astype("int64"), dy.flatten(2), 2, "add")
        return (dx.reshape(x.shape),)


class GroupNorm(Function):
    """y = weight * (x - mean) / sqrt(variance + epsilon) + bias over groups of channels."""

    @staticmethod
    def compute(ctx, x, weight, bias, groups, epsilon):
        """x: [N, C, H, W]. weight, bias: [C]. Returns y of x's shape."""
        ctx.norm = compiled(onednn.GroupNormalization, tuple(x.shape), groups, epsilon)
        ctx.groups, ctx.epsilon = groups, epsilon
        x_hat, y = empty(x.shape), empty(x.shape)
        mean, variance = empty(ctx.norm.rows), empty(ctx.norm.rows)
        run(ctx.norm.normalize, x, x_hat, mean, variance)
        run(ctx.norm.affine, x_hat, weight, bias, y)
        save(ctx, (x, weight, bias), x_hat, mean, variance)
        return y

    @staticmethod
    def gradients(ctx, dy, x, weight, x_hat, mean, variance):
        dx = empty(x.shape)
        run(ctx.norm.product, dy, x_hat, dx)  # dx is used for what is needed on the way
        dweight, dbias = sum_of_channels(dx), sum_of_channels(dy)
        run(ctx.norm.scale, dy, weight, dx)
        run(ctx.norm.gradient, x, dx, mean, variance, dx)
        return dx, dweight, dbias

    @staticmethod
    def differentiable_gradients(ctx, dy, x, weight, *_):
        rows = [len(x), ctx.groups, -1]
        centred = x.reshape(rows) - x.reshape(rows).mean(2, keepdim=True)
        scale = (centred.square().mean(2, keepdim=True) + ctx.epsilon).rsqrt()
        x_hat = centred * scale
        dx_hat = (dy * weight.reshape([-1, 1, 1])).reshape(rows)
        dx = scale * (
            dx_hat - dx_hat.mean(2, keepdim=True) - x_hat * (dx_hat * x_hat).mean(2, keepdim=True)
        )
        dweight = (dy * x_hat.reshape(x.shape)).sum([0, 2, 3])
        return dx.reshape(x.shape), dweight, dy.sum([0, 2, 3])


def sum_of_channels(x):
    """[N, C, H, W] -> [C]. A product with ones is some three times faster than Paddle's sum."""
    n, c, *sides = x.shape
    return (x.reshape([n * c, -1]) @ paddle.ones([math.prod(sides)])).reshape([n, c]).sum(0)


def sum_of_rows(x):
    """[..., O] -> [O], by the same trick."""
    x = x.flatten(0, -2)
    return paddle.ones([len(x)]) @ x


def pair(value):
    """A number for both sides as two numbers; None for what is neither one nor two numbers."""
    two = (value, value) if isinstance(value, int) else value
    if isinstance(two, (list, tuple)) and len(two) == 2 and all(isinstance(v, int) for v in two):
        return tuple(two)
    return None


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


def conv2d(layer, x):
    """What the forward of an nn.Conv2D returns; NotImplemented where that is left to Paddle."""
    if not supports_convolution(layer, x, layer.weight.shape[1]):
        return NotImplemented
    weight, stride, padding = layer.weight, pair(layer._stride), pair(layer._padding)
    if any(s + 2 * p < k for s, p, k in zip(x.shape[2:], padding, weight.shape[2:])):
        return NotImplemented
    bf16 = uses_bfloat16(layer, x, weight, layer.bias)
    return apply(Conv2D, (x, weight, layer.bias), stride, padding, bf16)


def conv2d_transpose(layer, x, output_size=None):
    """What the forward of an nn.Conv2DTranspose returns; NotImplemented as for `conv2d`."""
    if (
        output_size is not None
        or layer.output_padding != 0
        or not supports_convolution(layer, x, layer.weight.shape[0])
    ):
        return NotImplemented
    weight, stride, padding = layer.weight, pair(layer._stride), pair(layer._padding)
    sides = [
        (side - 1) * step + size - 2 * pad
        for side, step, size, pad in zip(x.shape[2:], stride, weight.shape[2:], padding)
    ]
    if min(sides) < 1:
        return NotImplemented
    bf16 = uses_bfloat16(layer, x, weight, layer.bias)
    y_shape = (x.shape[0], weight.shape[1], *sides)
    return apply(Conv2DTranspose, (x, weight, layer.bias), y_shape, stride, padding, bf16)


def linear(layer, x):
    """What the forward of an nn.Linear returns, or NotImplemented."""
    weight, bias = layer.weight, layer.bias
    known = (
        is_float32(x, weight, bias)
        and x.ndim >= 2
        and x.shape[-1] == weight.shape[0]
        and math.prod(x.shape) * weight.shape[1] >= LARGE_PRODUCT
    )
    if not known:
        return NotImplemented
    return apply(Linear, (x, weight, bias), uses_bfloat16(layer, x, weight, bias))


def activation(name, x=None, *options, **named):
    """What F.relu, F.silu or F.sigmoid returns; NotImplemented where an option is set."""
    known = is_large(x) and not any(options) and not any(named.values())
    return apply(Activation, (x,), name) if known else NotImplemented


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
    return apply(MaxPool2D, (x,), size, stride) if known else NotImplemented


def group_norm(layer, x):
    """What the forward of an nn.GroupNorm returns for images, or NotImplemented."""
    known = (
        layer.weight is not None
        and layer.bias is not None
        and is_large(x, layer.weight, layer.bias)
        and x.ndim == 4
        and layer._data_format == "NCHW"
        and x.shape[1] == layer.weight.shape[0]
    )
    if not known:
        return NotImplemented
    return apply(GroupNorm, (x, layer.weight, layer.bias), layer._num_groups, layer._epsilon)


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
