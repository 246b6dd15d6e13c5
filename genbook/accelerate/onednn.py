"""Layers by oneDNN, the library that Paddle's wheel contains and does not call in training.

Paddle's own convolution on a CPU copies the image into a matrix for each image of a batch; it and
most other layers run on one core. oneDNN compiles a kernel for each shape and runs on all cores it
may use; it is what PyTorch calls. This module reaches it through its C interface
(https://uxlfoundation.github.io/oneDNN/), with Paddle's tensors in place.
"""

import contextlib
import ctypes
import functools
import glob
import math
import os

import paddle
from paddle.autograd import PyLayer

# The constants and argument numbers of dnnl_types.h
BF16, F32, ANY_LAYOUT, CPU, IN_ORDER, BFLOAT16_PRODUCTS, AMX = 2, 3, 1, 1, 1, 1, 0xFEF
FORWARD_TRAINING, BACKWARD_DATA, DIRECT = 64, 160, 1
ADD, MULTIPLY, MAXIMUM = 0x1FFF0, 0x1FFF1, 0x1FF
SRC, SRC_1, DST, WEIGHTS, BIAS, MEAN, VARIANCE, WORKSPACE = 1, 2, 17, 33, 41, 49, 50, 64
DIFF_SRC, DIFF_DST, DIFF_WEIGHTS, DIFF_BIAS = 129, 145, 161, 169
ADDED = 32768 | SRC_1  # what the first operation that is appended to a primitive adds
# Which description of a primitive belongs to each argument
QUERIES = {
    SRC: 129,
    DIFF_SRC: 130,
    WEIGHTS: 131,
    DIFF_WEIGHTS: 132,
    DST: 133,
    DIFF_DST: 134,
    WORKSPACE: 135,
}

Handle = ctypes.c_void_p
Dims = ctypes.c_int64 * 12
OWNED = Handle(ctypes.c_size_t(-1).value)  # in place of an address: memory that oneDNN allocates


class Argument(ctypes.Structure):
    """dnnl_exec_arg_t: the number of an argument and its memory."""

    _fields_ = [("number", ctypes.c_int), ("memory", Handle)]


@functools.cache
def library():
    """The oneDNN library of the installed Paddle, or None where it has none.

    Version 3 is asked for: its interface is the one that is used here.
    """
    names = ("libdnnl.so*", "libdnnl*.dylib", "mkldnn.dll", "dnnl.dll")
    folder = os.path.join(os.path.dirname(paddle.__file__), "libs")
    for path in (p for name in names for p in glob.glob(os.path.join(folder, name))):
        try:
            found = ctypes.CDLL(path)
            found.dnnl_version.restype = ctypes.POINTER(ctypes.c_int)
            if found.dnnl_version()[0] == 3:
                found.dnnl_primitive_desc_query_md.restype = Handle
                found.dnnl_memory_desc_get_size.restype = ctypes.c_size_t
                return found
        except (OSError, AttributeError):
            continue
    return None


def call(function, *args):
    """Call a function of oneDNN whose first parameter receives a new handle; return the handle."""
    handle = Handle()
    status = getattr(library(), function)(ctypes.byref(handle), *args)
    if status:
        raise RuntimeError(f"oneDNN: {function} failed with status {status}")
    return handle


@functools.cache
def engine():
    """The processor, as oneDNN sees it."""
    return call("dnnl_engine_create", CPU, ctypes.c_size_t(0))


@functools.cache
def stream():
    """The queue that all calls go through, one after the other."""
    return call("dnnl_stream_create", engine(), IN_ORDER)


def plain(shape):
    """A float32 array whose last dimension is contiguous, as Paddle keeps it."""
    strides, step = [], 1
    for size in reversed(shape):
        strides.insert(0, step)
        step *= size
    return call(
        "dnnl_memory_desc_create_with_strides", len(shape), Dims(*shape), F32, Dims(*strides)
    )


def transposed(shape):
    """A float32 matrix [m, n] that lies in memory as its transpose [n, m]."""
    m, _ = shape
    return call("dnnl_memory_desc_create_with_strides", 2, Dims(*shape), F32, Dims(1, m))


def free(shape, number=F32):
    """An array in whatever layout suits the kernel, of float32 numbers or of bfloat16 ones."""
    return call("dnnl_memory_desc_create_with_tag", len(shape), Dims(*shape), number, ANY_LAYOUT)


class Primitive:
    """One compiled operation on plain arrays, with the changes of layout that it wants."""

    def __init__(self, description, inputs, outputs, after=None):
        """inputs, outputs: dict of argument number -> shape; called with addresses in this order.

        An array that is not plain has its layout in place of the shape; the workspace, whose
        layout is oneDNN's affair, has None. after: a primitive
        that is called before this one, on the same arrays where the numbers are the same, each of
        which is brought into a layout once; its addresses come first.
        """
        self._memories = dict(after._memories) if after else {}  # of the arrays, by number
        self._copies = list(after._copies) if after else []  # number, layout, memory
        self._steps = list(after._steps) if after else []  # primitives and their arguments
        arguments, last = [], []
        for number, shape in {**inputs, **outputs}.items():
            wanted = described(description, number) if number in QUERIES else None
            layout = plain(shape) if isinstance(shape, tuple) else shape or wanted
            memory = self._memories.get(number)
            if memory is None:
                memory = call("dnnl_memory_create", layout, engine(), Handle(0))
                self._memories[number] = memory
            if wanted is not None and not same(wanted, layout):
                if number in inputs:
                    memory = self._copy(number, layout, memory, wanted)
                else:
                    result = call("dnnl_memory_create", wanted, engine(), OWNED)
                    last.append(reorder(wanted, result, layout, memory))
                    memory = result
            arguments.append(Argument(number, memory))
        primitive = call("dnnl_primitive_create", description)
        self._steps += [(primitive, (Argument * len(arguments))(*arguments)), *last]

    def _copy(self, number, layout, memory, wanted):
        """The memory of an input in the wanted layout; a step fills it, if none did so before."""
        for other, has, copy in self._copies:
            if other == number and same(has, wanted):
                return copy
        copy = call("dnnl_memory_create", wanted, engine(), OWNED)
        self._steps.append(reorder(layout, memory, wanted, copy))
        self._copies.append((number, wanted, copy))
        return copy

    def __call__(self, *addresses):
        lib, queue = library(), stream()
        for memory, address in zip(self._memories.values(), addresses, strict=True):
            lib.dnnl_memory_set_data_handle(memory, Handle(address))
        for primitive, arguments in self._steps:
            if lib.dnnl_primitive_execute(primitive, queue, len(arguments), arguments):
                raise RuntimeError("oneDNN: an operation failed")


def same(layout, other):
    """Whether two layouts are equal."""
    return bool(library().dnnl_memory_desc_equal(layout, other))


def described(description, number):
    """The layout that a primitive wants an argument in."""
    return Handle(library().dnnl_primitive_desc_query_md(description, QUERIES[number], 0))


def reorder(source, source_memory, target, target_memory):
    """The primitive that copies from one layout to another, and its arguments."""
    description = call(
        "dnnl_reorder_primitive_desc_create", source, engine(), target, engine(), None
    )
    arguments = (Argument * 2)(Argument(SRC, source_memory), Argument(DST, target_memory))
    return call("dnnl_primitive_create", description), arguments


class Convolution:
    """The primitives of a convolution of one shape: x [N, C, H, W], weight [O, C, k, l].

    stride, padding: pairs. `y_shape` is that of the result. The primitives take and give plain
    arrays: forward(x, weight, bias -> y), gradient_x(weight, dy -> dx),
    gradient_weight(x, dy -> dweight, dbias), and both of these in one:
    gradients(weight, dy -> dx; x -> dweight, dbias).

    brief: whether the factors of the products are rounded to bfloat16; sums are float32 always.
    """

    def __init__(self, x_shape, weight_shape, stride, padding, brief=False):
        sides = [
            (side + 2 * pad - size) // step + 1
            for side, size, step, pad in zip(
                x_shape[2:], weight_shape[2:], stride, padding, strict=True
            )
        ]
        self.y_shape = (x_shape[0], weight_shape[0], *sides)
        x, w, y = x_shape, weight_shape, self.y_shape
        b = (w[0],)
        pads = Dims(*padding)
        geometry = (Dims(*stride), Dims(0, 0), pads, pads)  # no dilation
        factor = BF16 if brief else F32
        forward = call(
            "dnnl_convolution_forward_primitive_desc_create",
            engine(),
            FORWARD_TRAINING,
            DIRECT,
            free(x, factor),
            free(w, factor),
            plain(b),
            free(y),
            *geometry,
            None,
        )
        self.forward = Primitive(forward, {SRC: x, WEIGHTS: w, BIAS: b}, {DST: y})
        description = call(
            "dnnl_convolution_backward_data_primitive_desc_create",
            engine(),
            DIRECT,
            free(x),
            free(w, factor),
            free(y, factor),
            *geometry,
            forward,
            None,
        )
        self.gradient_x = Primitive(description, {WEIGHTS: w, DIFF_DST: y}, {DIFF_SRC: x})
        description = call(
            "dnnl_convolution_backward_weights_primitive_desc_create",
            engine(),
            DIRECT,
            free(x, factor),
            free(w),
            plain(b),
            free(y, factor),
            *geometry,
            forward,
            None,
        )
        last = description, {SRC: x, DIFF_DST: y}, {DIFF_WEIGHTS: w, DIFF_BIAS: b}
        self.gradient_weight = Primitive(*last)
        self.gradients = Primitive(*last, after=self.gradient_x)


@functools.lru_cache(maxsize=512)
def compiled(kind, *settings):
    """An instance of one of these classes, compiled once and kept."""
    return kind(*settings)


def reads(x):
    """Whether x is a tensor that the primitives can work on."""
    return (
        library() is not None
        and paddle.in_dynamic_mode()
        and x.place.is_cpu_place()
        and x.dtype == paddle.float32
        and 0 not in x.shape
    )


def takes(layer, x):
    """Whether `conv2d` or `conv2d_transpose` can stand in for this layer on this input."""
    return (
        reads(x)
        and x.ndim == 4
        and layer.weight.dtype == paddle.float32
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


def conv2d(layer, x):
    """What the forward of an nn.Conv2D returns; NotImplemented where that is left to Paddle."""
    if not takes(layer, x):
        return NotImplemented
    bias = layer.bias if layer.bias is not None else paddle.zeros(layer.weight.shape[:1])
    return Conv2D.apply(x, layer.weight, bias, pair(layer._stride), pair(layer._padding))


def conv2d_transpose(layer, x, output_size=None):
    """What the forward of an nn.Conv2DTranspose returns; NotImplemented as for `conv2d`."""
    if output_size is not None or layer.output_padding != 0 or not takes(layer, x):
        return NotImplemented
    stride, padding = pair(layer._stride), pair(layer._padding)
    _, out_channels, *kernel = layer.weight.shape
    sides = [
        (side - 1) * step + size - 2 * pad
        for side, step, size, pad in zip(x.shape[2:], stride, kernel, padding, strict=True)
    ]
    y_shape = (x.shape[0], out_channels, *sides)
    bias = layer.bias if layer.bias is not None else paddle.zeros([out_channels])
    return Conv2DTranspose.apply(x, layer.weight, bias, y_shape, stride, padding)


_brief = False  # whether products may be of brief numbers


@contextlib.contextmanager
def bfloat16_products():
    """Within this block layers may round the factors of their products to bfloat16.

    Their sums stay float32. They do so where the processor is faster at it, as those with AMX
    are by a factor of two to four; the relative error of a factor is at most 2^-8.
    """
    global _brief
    before, _brief = _brief, True
    try:
        yield
    finally:
        _brief = before


def is_brief():
    """Whether convolutions round their factors: within the block, and on a processor with AMX.

    Products of matrices leave this choice to oneDNN; convolutions have no such setting that works.
    """
    return _brief and library().dnnl_get_effective_cpu_isa() & AMX == AMX


def linear(layer, x):
    """What the forward of an nn.Linear returns, within `bfloat16_products`; or NotImplemented."""
    known = (
        _brief
        and reads(x)
        and x.ndim == 2
        and layer.bias is not None
        and layer.weight.dtype == paddle.float32
        and math.prod(layer.weight.shape) >= 2**12  # with fewer, a call costs what it saves
    )
    return Linear.apply(x, layer.weight, layer.bias) if known else NotImplemented


LARGE = 2**17  # numbers in a tensor; with fewer, a call costs about what it saves


def activation(name, x, *options, **named):
    """What Paddle's F.relu, F.silu or F.sigmoid returns; NotImplemented where an option is set."""
    known = is_large(x) and not any(options) and not any(named.values())
    return Activation.apply(x, name) if known else NotImplemented


def is_large(x):
    """Whether x is a tensor that the primitives can work on, and worth a call."""
    return reads(x) and math.prod(x.shape) >= LARGE


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
        and all(side >= k for side, k in zip(x.shape[2:], size, strict=True))
    )
    return MaxPool2D.apply(x, size, stride) if known else NotImplemented


def group_norm(layer, x):
    """What the forward of an nn.GroupNorm returns for images, or NotImplemented."""
    known = (
        is_large(x)
        and x.ndim == 4
        and layer._data_format == "NCHW"
        and layer.weight is not None
        and layer.bias is not None
        and x.shape[1] == layer.weight.shape[0]
        and layer.weight.dtype == layer.bias.dtype == paddle.float32
    )
    if not known:
        return NotImplemented
    return GroupNorm.apply(x, layer.weight, layer.bias, layer._num_groups, layer._epsilon)


def begin(ctx, *tensors):
    """Note which of the tensors want a gradient; return them contiguous, as oneDNN reads them."""
    ctx.wanted = [not tensor.stop_gradient for tensor in tensors]
    return [tensor.contiguous() for tensor in tensors]


def only(wanted, gradients):
    """The gradients, with None for each that nobody asked for, as Paddle demands."""
    return tuple(g if want else None for want, g in zip(wanted, gradients, strict=True))


def empty(shape):
    """What paddle.empty makes, which takes 20 microseconds longer: half of some primitives."""
    return paddle._C_ops.empty(shape, paddle.float32, paddle.CPUPlace())


def run(primitive, *tensors):
    """Call a primitive on contiguous tensors."""
    primitive(*[tensor.data_ptr() for tensor in tensors])


def only_once():
    """Raise RuntimeError where a gradient is computed in order to be differentiated again."""
    if paddle.is_grad_enabled():
        raise RuntimeError(
            "layers that run on oneDNN have no second derivative: "
            "call paddle.grad with create_graph=False, "
            "or do without genbook.accelerate.cpu.tune()"
        )


class Conv2D(PyLayer):
    """y = conv(x, weight) + bias, and its gradients."""

    @staticmethod
    def forward(ctx, x, weight, bias, stride, padding):
        """x: [N, C, H, W]. weight: [O, C, k, l]. bias: [O]. Returns y [N, O, H', W']."""
        x, weight, bias = begin(ctx, x, weight, bias)
        ctx.convolution = compiled(
            Convolution, tuple(x.shape), tuple(weight.shape), stride, padding, is_brief()
        )
        ctx.save_for_backward(x, weight)
        y = empty(ctx.convolution.y_shape)
        run(ctx.convolution.forward, x, weight, bias, y)
        return y

    @staticmethod
    def backward(ctx, dy):
        """The gradients of x, weight and bias."""
        only_once()
        x, weight = ctx.saved_tensor()
        dy = dy.contiguous()
        dx, dweight = empty(x.shape), empty(weight.shape)
        dbias = empty(weight.shape[:1])
        if ctx.wanted[0] and any(ctx.wanted[1:]):
            run(ctx.convolution.gradients, weight, dy, dx, x, dweight, dbias)
        elif ctx.wanted[0]:
            run(ctx.convolution.gradient_x, weight, dy, dx)
        elif any(ctx.wanted[1:]):
            run(ctx.convolution.gradient_weight, x, dy, dweight, dbias)
        return only(ctx.wanted, (dx, dweight, dbias))


class Conv2DTranspose(PyLayer):
    """The transposed convolution: what `gradient_x` of a convolution computes, and a bias."""

    @staticmethod
    def forward(ctx, x, weight, bias, y_shape, stride, padding):
        """x: [N, C, H, W]. weight: [C, O, k, l]. bias: [O]. Returns y [N, O, H', W'] of y_shape."""
        x, weight, bias = begin(ctx, x, weight, bias)
        ctx.convolution = compiled(
            Convolution, y_shape, tuple(weight.shape), stride, padding, is_brief()
        )
        ctx.save_for_backward(x, weight)
        y = empty(y_shape)
        run(ctx.convolution.gradient_x, weight, x, y)
        n, c, *sides = y_shape
        add = compiled(binary, ADD, (n, c, math.prod(sides)), (1, c, 1))
        run(add, y, bias, y)
        return y

    @staticmethod
    def backward(ctx, dy):
        """The gradients of x, weight and bias."""
        only_once()
        x, weight = ctx.saved_tensor()
        dy = dy.contiguous()
        dx, dweight = empty(x.shape), empty(weight.shape)
        none = paddle.zeros(weight.shape[:1])  # the convolution's bias is that of another side
        if ctx.wanted[0]:
            run(ctx.convolution.forward, dy, weight, none, dx)
        if ctx.wanted[1]:
            run(ctx.convolution.gradient_weight, dy, x, dweight, none)
        return only(ctx.wanted, (dx, dweight, sum_of_channels(dy)))


class Products:
    """The primitives of y = x weight + bias with brief factors; x [N, I], weight [I, O].

    forward(x, weight, bias -> y), gradient_x(dy, weight -> dx), gradient_weight(x, dy -> dweight).
    """

    def __init__(self, n, i, o):
        x, y, w, b = (n, i), (n, o), (i, o), (1, o)
        self.forward = product({SRC: x, WEIGHTS: w, BIAS: b}, y)
        self.gradient_x = product({SRC: y, WEIGHTS: transposed((o, i))}, x)
        self.gradient_weight = product({SRC: transposed((i, n)), WEIGHTS: y}, w)


def product(inputs, result):
    """The primitive that multiplies two matrices, and adds a bias where `inputs` has one."""
    attributes = call("dnnl_primitive_attr_create")
    library().dnnl_primitive_attr_set_fpmath_mode(attributes, BFLOAT16_PRODUCTS)
    layouts = {k: plain(v) if isinstance(v, tuple) else v for k, v in inputs.items()}
    description = call(
        "dnnl_matmul_primitive_desc_create",
        engine(),
        layouts[SRC],
        layouts[WEIGHTS],
        layouts.get(BIAS),
        plain(result),
        attributes,
    )
    return Primitive(description, inputs, {DST: result})


class Linear(PyLayer):
    """y = x weight + bias, and its gradients."""

    @staticmethod
    def forward(ctx, x, weight, bias):
        """x: [N, I]. weight: [I, O]. bias: [O]. Returns y [N, O]."""
        x, weight, bias = begin(ctx, x, weight, bias)
        ctx.products = compiled(Products, len(x), *weight.shape)
        ctx.save_for_backward(x, weight)
        y = empty([len(x), weight.shape[1]])
        run(ctx.products.forward, x, weight, bias, y)
        return y

    @staticmethod
    def backward(ctx, dy):
        """The gradients of x, weight and bias."""
        only_once()
        x, weight = ctx.saved_tensor()
        dy = dy.contiguous()
        dx, dweight = empty(x.shape), empty(weight.shape)
        if ctx.wanted[0]:
            run(ctx.products.gradient_x, dy, weight, dx)
        if ctx.wanted[1]:
            run(ctx.products.gradient_weight, x, dy, dweight)
        return only(ctx.wanted, (dx, dweight, paddle.ones([len(x)]) @ dy))


class Elementwise:
    """The primitives of a function of `size` numbers: forward(x -> y), gradient(x, dy -> dx).

    algorithm, alpha: oneDNN's number of the function, and its parameter.
    """

    def __init__(self, size, algorithm, alpha):
        line = (size,)
        x, settings = plain(line), (ctypes.c_float(alpha), ctypes.c_float(0))
        forward = call(
            "dnnl_eltwise_forward_primitive_desc_create",
            engine(),
            FORWARD_TRAINING,
            algorithm,
            x,
            x,
            *settings,
            None,
        )
        self.forward = Primitive(forward, {SRC: line}, {DST: line})
        description = call(
            "dnnl_eltwise_backward_primitive_desc_create",
            engine(),
            algorithm,
            x,
            x,
            x,
            *settings,
            forward,
            None,
        )
        self.gradient = Primitive(description, {SRC: line, DIFF_DST: line}, {DIFF_SRC: line})


# oneDNN's algorithm and its alpha
ACTIVATIONS = {"relu": (0x20, 0.0), "sigmoid": (0x29, 0.0), "silu": (0x2C, 1.0)}


class Activation(PyLayer):
    """A function of each number by itself, and its gradient."""

    @staticmethod
    def forward(ctx, x, name):
        """x: of any shape. name: one of `ACTIVATIONS`. Returns y of x's shape."""
        x = x.contiguous()
        ctx.function = compiled(Elementwise, math.prod(x.shape), *ACTIVATIONS[name])
        ctx.save_for_backward(x)
        y = empty(x.shape)
        run(ctx.function.forward, x, y)
        return y

    @staticmethod
    def backward(ctx, dy):
        """The gradient of x."""
        only_once()
        (x,) = ctx.saved_tensor()
        dx = empty(x.shape)
        run(ctx.function.gradient, x, dy.contiguous(), dx)
        return dx


class Pooling:
    """The primitives of max-pooling: forward(x -> y, workspace), gradient(dy, workspace -> dx).

    size, stride: pairs. The workspace, `workspace_bytes` long, holds where each maximum was.
    """

    def __init__(self, x_shape, size, stride):
        sides = [
            (side - k) // step + 1 for side, k, step in zip(x_shape[2:], size, stride, strict=True)
        ]
        self.y_shape = (*x_shape[:2], *sides)
        x, y, none = plain(x_shape), plain(self.y_shape), Dims(0, 0)
        geometry = (Dims(*stride), Dims(*size), none, none, none)  # no dilation, no padding
        forward = call(
            "dnnl_pooling_forward_primitive_desc_create",
            engine(),
            FORWARD_TRAINING,
            MAXIMUM,
            x,
            y,
            *geometry,
            None,
        )
        self.workspace_bytes = library().dnnl_memory_desc_get_size(described(forward, WORKSPACE))
        self.forward = Primitive(forward, {SRC: x_shape}, {DST: self.y_shape, WORKSPACE: None})
        description = call(
            "dnnl_pooling_backward_primitive_desc_create",
            engine(),
            MAXIMUM,
            x,
            y,
            *geometry,
            forward,
            None,
        )
        self.gradient = Primitive(
            description, {DIFF_DST: self.y_shape, WORKSPACE: None}, {DIFF_SRC: x_shape}
        )


class MaxPool2D(PyLayer):
    """The maximum of each window, and its gradient, which goes to the first of equal maxima."""

    @staticmethod
    def forward(ctx, x, size, stride):
        """x: [N, C, H, W]. Returns y [N, C, H', W']."""
        x = x.contiguous()
        ctx.x_shape = x.shape
        ctx.pooling = compiled(Pooling, tuple(x.shape), size, stride)
        y = empty(ctx.pooling.y_shape)
        workspace = paddle.empty([ctx.pooling.workspace_bytes], dtype="uint8")
        run(ctx.pooling.forward, x, y, workspace)
        ctx.save_for_backward(workspace)
        return y

    @staticmethod
    def backward(ctx, dy):
        """The gradient of x."""
        only_once()
        (workspace,) = ctx.saved_tensor()
        dx = empty(ctx.x_shape)
        run(ctx.pooling.gradient, dy.contiguous(), workspace, dx)
        return dx


class GroupNormalization:
    """The primitives of group normalisation of x [N, C, H, W].

    oneDNN's own works on one core and its gradient is slow. Here the groups are rows of a matrix,
    which layer normalisation normalises, and the weights are applied to x_hat channel by channel:
    normalize(x -> x_hat, mean, variance) and affine(x_hat, weight, bias -> y);
    scale(dy, weight -> dx_hat) and gradient(x, dx_hat, mean, variance -> dx);
    product(dy, x_hat -> their product).
    """

    def __init__(self, shape, groups, epsilon):
        n, c, *sides = shape
        pixels = math.prod(sides)
        rows, images, weights = (n * groups, c // groups * pixels), (n, c, pixels), (1, c, 1)
        self.rows = (rows[0],)
        x, statistics = plain(rows), plain(self.rows)
        settings = (ctypes.c_float(epsilon), 0)
        forward = call(
            "dnnl_layer_normalization_forward_primitive_desc_create",
            engine(),
            FORWARD_TRAINING,
            x,
            x,
            statistics,
            *settings,
            None,
        )
        self.normalize = Primitive(
            forward, {SRC: rows}, {DST: rows, MEAN: self.rows, VARIANCE: self.rows}
        )
        description = call(
            "dnnl_layer_normalization_backward_primitive_desc_create",
            engine(),
            BACKWARD_DATA,
            x,
            x,
            x,
            statistics,
            *settings,
            forward,
            None,
        )
        self.gradient = Primitive(
            description,
            {SRC: rows, DIFF_DST: rows, MEAN: self.rows, VARIANCE: self.rows},
            {DIFF_SRC: rows},
        )
        self.scale = binary(MULTIPLY, images, weights)
        self.affine = binary(MULTIPLY, images, weights, added=weights)
        self.product = binary(MULTIPLY, images, images)


def binary(algorithm, shape, other, added=None):
    """The primitive that adds or multiplies two arrays, and adds a third if its shape is given.

    The second and the third are broadcast to the shape of the first.
    """
    attributes, inputs = None, {SRC: shape, SRC_1: other}
    if added is not None:
        attributes, sums = call("dnnl_primitive_attr_create"), call("dnnl_post_ops_create")
        library().dnnl_post_ops_append_binary(sums, ADD, plain(added))
        library().dnnl_primitive_attr_set_post_ops(attributes, sums)
        inputs[ADDED] = added
    description = call(
        "dnnl_binary_primitive_desc_create",
        engine(),
        algorithm,
        plain(shape),
        plain(other),
        plain(shape),
        attributes,
    )
    return Primitive(description, inputs, {DST: shape})


class GroupNorm(PyLayer):
    """y = weight * (x - mean) / sqrt(variance + epsilon) + bias over groups of channels."""

    @staticmethod
    def forward(ctx, x, weight, bias, groups, epsilon):
        """x: [N, C, H, W]. weight, bias: [C]. Returns y of x's shape."""
        x, weight, bias = begin(ctx, x, weight, bias)
        ctx.norm = compiled(GroupNormalization, tuple(x.shape), groups, epsilon)
        x_hat, y = empty(x.shape), empty(x.shape)
        mean, variance = empty(ctx.norm.rows), empty(ctx.norm.rows)
        run(ctx.norm.normalize, x, x_hat, mean, variance)
        run(ctx.norm.affine, x_hat, weight, bias, y)
        ctx.save_for_backward(x, weight, x_hat, mean, variance)
        return y

    @staticmethod
    def backward(ctx, dy):
        """The gradients of x, weight and bias."""
        only_once()
        x, weight, x_hat, mean, variance = ctx.saved_tensor()
        dy, dx = dy.contiguous(), empty(x.shape)
        run(ctx.norm.product, dy, x_hat, dx)  # dx is used for what is needed on the way
        dweight, dbias = sum_of_channels(dx), sum_of_channels(dy)
        run(ctx.norm.scale, dy, weight, dx)
        run(ctx.norm.gradient, x, dx, mean, variance, dx)
        return only(ctx.wanted, (dx, dweight, dbias))


def sum_of_channels(x):
    """[N, C, H, W] -> [C]. A product with ones is some three times faster than Paddle's sum."""
    n, c, *sides = x.shape
    return (x.reshape([n * c, -1]) @ paddle.ones([math.prod(sides)])).reshape([n, c]).sum(0)
