"""Convolutions by oneDNN, the library that Paddle's wheel contains and does not call in training.

Paddle's own convolution on a CPU copies the image into a matrix for each image of a batch and runs
on one core. oneDNN compiles a kernel for each shape and runs on all cores it may use; it is what
PyTorch calls. This module reaches it through its C interface
(https://uxlfoundation.github.io/oneDNN/), with Paddle's tensors in place.
"""

import ctypes
import functools
import glob
import os

import paddle
from paddle.autograd import PyLayer

# The constants and argument numbers of dnnl_types.h
F32, ANY_LAYOUT, CPU, IN_ORDER = 3, 1, 1, 1
FORWARD_TRAINING, DIRECT = 64, 1
SRC, DST, WEIGHTS, BIAS = 1, 17, 33, 41
DIFF_SRC, DIFF_DST, DIFF_WEIGHTS, DIFF_BIAS = 129, 145, 161, 169
# Which description of a primitive belongs to each argument
QUERIES = {SRC: 129, DIFF_SRC: 130, WEIGHTS: 131, DIFF_WEIGHTS: 132, DST: 133, DIFF_DST: 134}

Handle = ctypes.c_void_p
Dims = ctypes.c_int64 * 12


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
    return call("dnnl_memory_desc_create_with_strides", len(shape), Dims(*shape), F32,
                Dims(*strides))


def free(shape):
    """A float32 array in whatever layout suits the kernel."""
    return call("dnnl_memory_desc_create_with_tag", len(shape), Dims(*shape), F32, ANY_LAYOUT)


class Primitive:
    """One compiled operation on plain arrays, with the changes of layout that it wants."""

    def __init__(self, description, inputs, outputs):
        """inputs, outputs: dict of argument number -> shape; called with addresses in this order."""
        self._before, self._after, self._memories = [], [], []
        arguments = []
        for number, shape in {**inputs, **outputs}.items():
            layout = plain(shape)
            memory = call("dnnl_memory_create", layout, engine(), Handle(0))
            self._memories.append(memory)
            wanted = layout
            if number in QUERIES:
                query = library().dnnl_primitive_desc_query_md(description, QUERIES[number], 0)
                wanted = Handle(query)
            if not library().dnnl_memory_desc_equal(wanted, layout):
                owned = Handle(ctypes.c_size_t(-1).value)  # memory that oneDNN allocates
                other = call("dnnl_memory_create", wanted, engine(), owned)
                if number in inputs:
                    self._before.append(reorder(layout, memory, wanted, other))
                else:
                    self._after.append(reorder(wanted, other, layout, memory))
                memory = other
            arguments.append(Argument(number, memory))
        self._primitive = call("dnnl_primitive_create", description)
        self._arguments = (Argument * len(arguments))(*arguments)

    def __call__(self, *addresses):
        lib = library()
        for memory, address in zip(self._memories, addresses, strict=True):
            lib.dnnl_memory_set_data_handle(memory, Handle(address))
        steps = [*self._before, (self._primitive, self._arguments), *self._after]
        for primitive, arguments in steps:
            if lib.dnnl_primitive_execute(primitive, stream(), len(arguments), arguments):
                raise RuntimeError("oneDNN: a convolution failed")


def reorder(source, source_memory, target, target_memory):
    """The primitive that copies from one layout to another, and its arguments."""
    description = call("dnnl_reorder_primitive_desc_create", source, engine(), target, engine(),
                       None)
    arguments = (Argument * 2)(Argument(SRC, source_memory), Argument(DST, target_memory))
    return call("dnnl_primitive_create", description), arguments


class Convolution:
    """The three primitives of a convolution of one shape: x [N, C, H, W], weight [O, C, k, l].

    stride, padding: pairs. `y_shape` is that of the result. The primitives take and give plain
    arrays: forward(x, weight, bias -> y), gradient_x(weight, dy -> dx) and
    gradient_weight(x, dy -> dweight, dbias).
    """

    def __init__(self, x_shape, weight_shape, stride, padding):
        sides = [
            (side + 2 * pad - size) // step + 1
            for side, size, step, pad in zip(x_shape[2:], weight_shape[2:], stride, padding,
                                             strict=True)
        ]
        self.y_shape = (x_shape[0], weight_shape[0], *sides)
        x, w, y = x_shape, weight_shape, self.y_shape
        b = (w[0],)
        pads = Dims(*padding)
        geometry = (Dims(*stride), Dims(0, 0), pads, pads)  # no dilation
        forward = call(
            "dnnl_convolution_forward_primitive_desc_create", engine(), FORWARD_TRAINING, DIRECT,
            free(x), free(w), plain(b), free(y), *geometry, None,
        )
        self.forward = Primitive(forward, {SRC: x, WEIGHTS: w, BIAS: b}, {DST: y})
        description = call(
            "dnnl_convolution_backward_data_primitive_desc_create", engine(), DIRECT,
            free(x), free(w), free(y), *geometry, forward, None,
        )
        self.gradient_x = Primitive(description, {WEIGHTS: w, DIFF_DST: y}, {DIFF_SRC: x})
        description = call(
            "dnnl_convolution_backward_weights_primitive_desc_create", engine(), DIRECT,
            free(x), free(w), plain(b), free(y), *geometry, forward, None,
        )
        self.gradient_weight = Primitive(
            description, {SRC: x, DIFF_DST: y}, {DIFF_WEIGHTS: w, DIFF_BIAS: b}
        )


compiled = functools.lru_cache(maxsize=256)(Convolution)


def takes(layer, x):
    """Whether `conv2d` or `conv2d_transpose` can stand in for this layer on this input."""
    return (
        library() is not None
        and paddle.in_dynamic_mode()
        and x.place.is_cpu_place()
        and x.dtype == layer.weight.dtype == paddle.float32
        and x.ndim == 4
        and x.size > 0
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
    """What the forward of an nn.Conv2D returns."""
    bias = layer.bias if layer.bias is not None else paddle.zeros(layer.weight.shape[:1])
    return Conv2D.apply(x, layer.weight, bias, pair(layer._stride), pair(layer._padding))


def conv2d_transpose(layer, x):
    """What the forward of an nn.Conv2DTranspose without output padding returns."""
    stride, padding = pair(layer._stride), pair(layer._padding)
    _, out_channels, *kernel = layer.weight.shape
    sides = [
        (side - 1) * step + size - 2 * pad
        for side, step, size, pad in zip(x.shape[2:], stride, kernel, padding, strict=True)
    ]
    y_shape = (x.shape[0], out_channels, *sides)
    y = Conv2DTranspose.apply(x, layer.weight, y_shape, stride, padding)
    # Paddle adds [C, 1, 1] ten times faster than [1, C, 1, 1].
    return y if layer.bias is None else y + layer.bias.reshape([-1, 1, 1])


def only(wanted, gradients):
    """The gradients, with None for each that nobody asked for, as Paddle demands."""
    return tuple(g if want else None for want, g in zip(wanted, gradients, strict=True))


def address(tensor):
    """Where the numbers of a contiguous tensor begin."""
    return tensor.data_ptr()


class Conv2D(PyLayer):
    """y = conv(x, weight) + bias, and its gradients."""

    @staticmethod
    def forward(ctx, x, weight, bias, stride, padding):
        """x: [N, C, H, W]. weight: [O, C, k, l]. bias: [O]. Returns y [N, O, H', W']."""
        ctx.wanted = [not tensor.stop_gradient for tensor in (x, weight, bias)]
        x, weight, bias = x.contiguous(), weight.contiguous(), bias.contiguous()
        ctx.convolution = compiled(tuple(x.shape), tuple(weight.shape), stride, padding)
        ctx.save_for_backward(x, weight)
        y = paddle.empty(ctx.convolution.y_shape)
        ctx.convolution.forward(*map(address, (x, weight, bias, y)))
        return y

    @staticmethod
    def backward(ctx, dy):
        """The gradients of x, weight and bias."""
        x, weight = ctx.saved_tensor()
        dy = dy.contiguous()
        dx, dweight = paddle.empty(x.shape), paddle.empty(weight.shape)
        dbias = paddle.empty(weight.shape[:1])
        if ctx.wanted[0]:
            ctx.convolution.gradient_x(*map(address, (weight, dy, dx)))
        if any(ctx.wanted[1:]):
            ctx.convolution.gradient_weight(*map(address, (x, dy, dweight, dbias)))
        return only(ctx.wanted, (dx, dweight, dbias))


class Conv2DTranspose(PyLayer):
    """The transposed convolution without bias: what `gradient_x` of a convolution computes."""

    @staticmethod
    def forward(ctx, x, weight, y_shape, stride, padding):
        """x: [N, C, H, W]. weight: [C, O, k, l]. Returns y of y_shape, [N, O, H', W']."""
        ctx.wanted = [not tensor.stop_gradient for tensor in (x, weight)]
        x, weight = x.contiguous(), weight.contiguous()
        ctx.convolution = compiled(y_shape, tuple(weight.shape), stride, padding)
        ctx.save_for_backward(x, weight)
        y = paddle.empty(y_shape)
        ctx.convolution.gradient_x(*map(address, (weight, x, y)))
        return y

    @staticmethod
    def backward(ctx, dy):
        """The gradients of x and weight."""
        x, weight = ctx.saved_tensor()
        dy = dy.contiguous()
        dx, dweight = paddle.empty(x.shape), paddle.empty(weight.shape)
        none = paddle.zeros(weight.shape[:1])  # the convolution has a bias, this one has not
        if ctx.wanted[0]:
            ctx.convolution.forward(*map(address, (dy, weight, none, dx)))
        if ctx.wanted[1]:
            ctx.convolution.gradient_weight(*map(address, (dy, x, dweight, none)))
        return only(ctx.wanted, (dx, dweight))
