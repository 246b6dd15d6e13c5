"""A binding to oneDNN, the library that Paddle's wheel contains and does not call in training.

oneDNN compiles a kernel for each shape and runs it on all cores; it is what PyTorch calls. This
module reaches it through its C interface (https://uxlfoundation.github.io/oneDNN/). An operation is
compiled once for its shapes and called with the addresses of row-major float32 arrays, by any
number of threads at once.
"""

import ctypes
import functools
import math
from pathlib import Path

import paddle

# The constants and argument numbers of dnnl_types.h
BF16, F32, ANY_LAYOUT, CPU, IN_ORDER, AMX = 2, 3, 1, 1, 1, 0xFEF
FORWARD_TRAINING, BACKWARD_DATA, DIRECT, USER_SCRATCHPAD, FPMATH_BF16 = 64, 160, 1, 1, 1
ADD, MULTIPLY, MAXIMUM = 0x1FFF0, 0x1FFF1, 0x1FF
SRC, SRC_1, DST, WEIGHTS, BIAS, MEAN, VARIANCE, WORKSPACE = 1, 2, 17, 33, 41, 49, 50, 64
SCRATCHPAD, DIFF_SRC, DIFF_DST, DIFF_WEIGHTS, DIFF_BIAS = 80, 129, 145, 161, 169
POST_OP_SRC_1 = 32768 | SRC_1  # the second operand of the first post-op
# What to ask a primitive descriptor for the layout of each of these arguments: 129, 130, ...
ASKED = (SRC, DIFF_SRC, WEIGHTS, DIFF_WEIGHTS, DST, DIFF_DST, WORKSPACE, SCRATCHPAD)
QUERIES = {argument: query for query, argument in enumerate(ASKED, 129)}

# Kinds of objects, each before those that are parts of its name
KINDS = "primitive_desc primitive_attr memory_desc post_ops primitive memory engine stream".split()

Dims = ctypes.c_int64 * 12


class Unsupported(RuntimeError):
    """oneDNN has no implementation of an operation on such arrays."""


class Handle(ctypes.c_void_p):
    """A pointer to an object of oneDNN, which is destroyed with the last reference to it."""

    destroy = None

    def __del__(self):
        if self.destroy:
            self.destroy(self)


class Argument(ctypes.Structure):
    """dnnl_exec_arg_t: the number of an argument and its memory."""

    _fields_ = [("number", ctypes.c_int), ("memory", ctypes.c_void_p)]


@functools.cache
def library():
    """The oneDNN of the installed Paddle, or None where it has none of version 3."""
    names = ("libdnnl.so*", "libdnnl*.dylib", "mkldnn.dll", "dnnl.dll")
    folder = Path(paddle.__file__).with_name("libs")
    for path in (p for name in names for p in folder.glob(name)):
        try:
            found = ctypes.CDLL(str(path))
            found.dnnl_version.restype = ctypes.POINTER(ctypes.c_int)
            if found.dnnl_version()[0] == 3:
                found.dnnl_primitive_desc_query_md.restype = ctypes.c_void_p
                found.dnnl_memory_desc_get_size.restype = ctypes.c_size_t
                found.dnnl_memory_set_data_handle.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
                return found
        except (OSError, AttributeError):
            continue
    return None


def create(function, *args):
    """Call the function of oneDNN that makes an object, and return the object's handle."""
    handle = Handle()
    if getattr(library(), f"dnnl_{function}")(ctypes.byref(handle), *args):
        raise Unsupported(f"oneDNN: {function} failed")
    kind = next(kind for kind in KINDS if kind in function)
    handle.destroy = getattr(library(), f"dnnl_{kind}_destroy")
    return handle


@functools.cache
def engine():
    """The CPU as oneDNN's device."""
    return create("engine_create", CPU, ctypes.c_size_t(0))


@functools.cache
def stream():
    """The stream of all calls; on a CPU it has no state, so that threads can share it."""
    return create("stream_create", engine(), IN_ORDER)


def has_amx():
    """Whether the processor multiplies bfloat16 matrices in hardware."""
    return library().dnnl_get_effective_cpu_isa() & AMX == AMX


def strided(shape, strides):
    """The layout of a float32 array with these strides, in numbers."""
    return create("memory_desc_create_with_strides", len(shape), Dims(*shape), F32, Dims(*strides))


def row_major(shape):
    """The layout of a float32 array whose last dimension is contiguous, as Paddle keeps it."""
    return strided(shape, [math.prod(shape[i + 1 :]) for i in range(len(shape))])


def transpose(shape):
    """The layout of the transpose [n, m] of a row-major float32 matrix [m, n]."""
    return strided(shape[::-1], (1, shape[1]))


def channels_last(shape):
    """The layout of float32 images [N, C, H, W] that lie in memory as [N, H, W, C]."""
    _, c, h, w = shape
    return strided(shape, (h * w * c, 1, w * c, c))


def any_layout(shape, dtype=F32):
    """An array of F32 or BF16 numbers in whatever layout the implementation prefers."""
    return create("memory_desc_create_with_tag", len(shape), Dims(*shape), dtype, ANY_LAYOUT)


def attributes(bf16=False, added=None):
    """Attributes of a primitive, to which the caller lends its scratchpad.

    bf16: round factors. added: the shape of an array that is added to the result.
    """
    lib, result = library(), create("primitive_attr_create")
    lib.dnnl_primitive_attr_set_scratchpad_mode(result, USER_SCRATCHPAD)
    if bf16:
        lib.dnnl_primitive_attr_set_fpmath_mode(result, FPMATH_BF16)
    if added:
        post_ops = create("post_ops_create")
        lib.dnnl_post_ops_append_binary(post_ops, ADD, row_major(added))
        lib.dnnl_primitive_attr_set_post_ops(result, post_ops)
    return result


def descriptor(kind, *args, **settings):
    """The descriptor of a primitive: `kind` and `args` of dnnl_<kind>_primitive_desc_create."""
    return create(f"{kind}_primitive_desc_create", engine(), *args, attributes(**settings))


def preferred(descriptor, number):
    """The layout in which a primitive wants an argument; of no size if it does not take it."""
    lent = library().dnnl_primitive_desc_query_md(descriptor, QUERIES[number], 0)
    return create("memory_desc_clone", ctypes.c_void_p(lent))


def size_of(layout):
    """The bytes that an array of this layout takes."""
    return library().dnnl_memory_desc_get_size(layout)


def equal(layout, other):
    """Whether two layouts are the same."""
    return bool(library().dnnl_memory_desc_equal(layout, other))


class Operation:
    """A primitive on row-major arrays, with the reorders from and to the layouts it prefers.

    It keeps no memory between calls: reordered copies and scratchpads lie in a buffer that each
    call allocates. Nor do calls share state: each borrows a set of memory objects from a pool that
    holds as many sets as threads have called it at the same time.
    """

    def __init__(self, descriptor, inputs, outputs, after=None):
        """inputs, outputs: dict of argument number -> shape; call with addresses in this order.

        A layout can take the place of a shape; where it is None, there is no such argument.
        after: an operation to run first, on the same arrays where the numbers are the same, each
        reordered only once; its addresses come first.
        """
        self._operands = [*after._operands] if after else []  # layout, offset in the buffer or None
        self._arrays = {**after._arrays} if after else {}  # number -> operand
        self._copies = {**after._copies} if after else {}  # number -> the operand it is copied to
        self._steps = [*after._steps] if after else []  # primitive, {number: operand}
        self._bytes = after._bytes if after else 0  # of the buffer
        self._pool = []
        operands, last = {}, []
        for number, shape in {**inputs, **outputs}.items():
            if shape is None:
                continue
            wanted = preferred(descriptor, number) if number in QUERIES else None
            if number not in self._arrays:
                layout = row_major(shape) if isinstance(shape, tuple) else shape
                self._arrays[number] = self._operand(layout, None)
            operand = self._arrays[number]
            layout = self._operands[operand][0]
            if wanted and not equal(wanted, layout):
                if number in inputs:
                    operand = self._copy(number, wanted)
                else:
                    operand = self._temporary(wanted)
                    last.append((operand, self._arrays[number]))
            operands[number] = operand
        self._add(descriptor, operands)
        for pair in last:
            self._reorder(*pair)

    def _operand(self, layout, offset):
        self._operands.append((layout, offset))
        return len(self._operands) - 1

    def _temporary(self, layout):
        """An operand in the buffer."""
        offset = self._bytes
        self._bytes += -(-size_of(layout) // 64) * 64  # aligned to cache lines
        return self._operand(layout, offset)

    def _copy(self, number, layout):
        """The operand that an input is copied to, in this layout."""
        copy = self._copies.get(number)
        if copy is None or not equal(self._operands[copy][0], layout):
            copy = self._copies[number] = self._temporary(layout)
            self._reorder(self._arrays[number], copy)
        return copy

    def _reorder(self, source, target):
        """Append the primitive that copies an operand to another."""
        ends = (self._operands[source][0], engine(), self._operands[target][0], engine())
        descriptor = create("reorder_primitive_desc_create", *ends, attributes())
        self._add(descriptor, {SRC: source, DST: target})

    def _add(self, descriptor, operands):
        """Append a primitive, and lend it a scratchpad if it needs one."""
        scratchpad = preferred(descriptor, SCRATCHPAD)
        if size_of(scratchpad):
            operands = {**operands, SCRATCHPAD: self._temporary(scratchpad)}
        self._steps.append((create("primitive_create", descriptor), operands))

    def _bind(self):
        """A set of memory objects, and the primitives with their arguments among these."""
        memories = [
            create("memory_create", layout, engine(), ctypes.c_void_p(0))
            for layout, _ in self._operands
        ]
        steps = []
        for primitive, operands in self._steps:
            arguments = (Argument * len(operands))()
            for argument, (number, operand) in zip(arguments, operands.items(), strict=True):
                argument.number, argument.memory = number, memories[operand].value
            steps.append((primitive, stream(), len(operands), arguments))
        return memories, steps

    def __call__(self, *addresses):
        lib, given = library(), iter(addresses)
        buffer = empty([self._bytes], paddle.uint8) if self._bytes else None
        start = buffer.data_ptr() if buffer is not None else 0
        try:
            memories, steps = self._pool.pop()
        except IndexError:
            memories, steps = self._bind()
        for memory, (_, offset) in zip(memories, self._operands, strict=True):
            address = next(given) if offset is None else start + offset
            lib.dnnl_memory_set_data_handle(memory, address)
        for step in steps:
            if lib.dnnl_primitive_execute(*step):
                raise RuntimeError("oneDNN: an operation failed")
        self._pool.append((memories, steps))


def empty(shape, dtype=paddle.float32):
    """What paddle.empty makes, which takes 20 microseconds longer: half of some operations."""
    return paddle._C_ops.empty(shape, dtype, paddle.CPUPlace())


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


class Convolution:
    """A convolution of one shape: x [N, C, H, W], weight [O, C, k, l] -> y of `y_shape`.

    forward(x, weight, [bias] -> y), gradient_x(weight, dy -> dx),
    gradient_weight(x, dy -> dweight, [dbias]), and both of these in one:
    gradients(weight, dy -> dx; x -> dweight, [dbias]).

    stride, padding: pairs. bf16: whether the factors of products are rounded to bfloat16.
    """

    def __init__(self, x_shape, weight_shape, bias, stride, padding, bf16):
        sides = windows(x_shape, weight_shape[2:], stride, padding)
        self.y_shape = (x_shape[0], weight_shape[0], *sides)
        self._x, self._weight = x_shape, weight_shape
        self._bias = weight_shape[:1] if bias else None
        pads = Dims(*padding)
        self._geometry = (Dims(*stride), Dims(0, 0), pads, pads)  # no dilation
        self._factor = BF16 if bf16 else F32
        self._forward = self._descriptor("forward", DST, FORWARD_TRAINING)

    def _descriptor(self, way, computed, *args):
        """The descriptor that computes one of x, weight and y; the other two are factors."""
        shapes = {SRC: self._x, WEIGHTS: self._weight, DST: self.y_shape}
        x, weight, y = (
            any_layout(shape, F32 if number == computed else self._factor)
            for number, shape in shapes.items()
        )
        bias = [] if computed == SRC else [self._bias and row_major(self._bias)]
        hint = [] if computed == DST else [self._forward]
        operands = (x, weight, *bias, y, *self._geometry, *hint)
        return descriptor(f"convolution_{way}", *args, DIRECT, *operands)

    @functools.cached_property
    def forward(self):
        inputs = {SRC: self._x, WEIGHTS: self._weight, BIAS: self._bias}
        return Operation(self._forward, inputs, {DST: self.y_shape})

    @functools.cached_property
    def gradient_x(self):
        inputs = {WEIGHTS: self._weight, DIFF_DST: self.y_shape}
        return Operation(self._descriptor("backward_data", SRC), inputs, {DIFF_SRC: self._x})

    @functools.cached_property
    def gradient_weight(self):
        return self._gradient_weight()

    @functools.cached_property
    def gradients(self):
        return self._gradient_weight(after=self.gradient_x)

    def _gradient_weight(self, after=None):
        gradient = self._descriptor("backward_weights", WEIGHTS)
        inputs = {SRC: self._x, DIFF_DST: self.y_shape}
        outputs = {DIFF_WEIGHTS: self._weight, DIFF_BIAS: self._bias}
        return Operation(gradient, inputs, outputs, after)


def windows(x_shape, size, stride, padding):
    """How many windows [k, l] of images [N, C, H, W] there are from top to bottom, and across."""
    return [
        (side + 2 * pad - k) // step + 1
        for side, k, step, pad in zip(x_shape[2:], size, stride, padding, strict=True)
    ]


class Product:
    """y = x weight + bias and its gradients; x [N, I], weight [I, O], bias [O].

    forward(x, weight, [bias] -> y), gradient_x(dy, weight -> dx),
    gradient_weight(x, dy -> dweight). bf16: whether factors are rounded to bfloat16.
    """

    def __init__(self, n, i, o, bias, bf16):
        self._x, self._weight, self._y = (n, i), (i, o), (n, o)
        self._bias, self._bf16 = (1, o) if bias else None, bf16

    @functools.cached_property
    def forward(self):
        return self._product(self._x, self._weight, self._y, self._bias)

    @functools.cached_property
    def gradient_x(self):
        return self._product(self._y, transpose(self._weight), self._x)

    @functools.cached_property
    def gradient_weight(self):
        return self._product(transpose(self._x), self._y, self._weight)

    def _product(self, a, b, result, bias=None):
        layouts = [row_major(v) if isinstance(v, tuple) else v for v in (a, b, bias, result)]
        matmul = descriptor("matmul", *layouts, bf16=self._bf16)
        return Operation(matmul, {SRC: a, WEIGHTS: b, BIAS: bias}, {DST: result})


class Elementwise:
    """A function of each of `size` numbers: forward(x -> y), gradient(x, dy -> dx).

    algorithm, alpha: oneDNN's number of the function, and its parameter.
    """

    def __init__(self, size, algorithm, alpha):
        line = (size,)
        x, settings = row_major(line), (ctypes.c_float(alpha), ctypes.c_float(0))
        forward = descriptor("eltwise_forward", FORWARD_TRAINING, algorithm, x, x, *settings)
        self.forward = Operation(forward, {SRC: line}, {DST: line})
        gradient = descriptor("eltwise_backward", algorithm, x, x, x, *settings, forward)
        self.gradient = Operation(gradient, {SRC: line, DIFF_DST: line}, {DIFF_SRC: line})


class MaxPooling:
    """Max-pooling: forward(x -> y, workspace), gradient(dy, workspace -> dx).

    size, stride: pairs. The workspace, `workspace_bytes` long, holds where each maximum was.
    Images are copied to channels last and back: without AVX-512, oneDNN compiles no kernel for
    others.
    """

    def __init__(self, x_shape, size, stride):
        sides = windows(x_shape, size, stride, (0, 0))
        self.y_shape = (*x_shape[:2], *sides)
        x, y, none = channels_last(x_shape), channels_last(self.y_shape), Dims(0, 0)
        geometry = (Dims(*stride), Dims(*size), none, none, none)  # no dilation, no padding
        forward = descriptor("pooling_forward", FORWARD_TRAINING, MAXIMUM, x, y, *geometry)
        workspace = preferred(forward, WORKSPACE)
        self.workspace_bytes = size_of(workspace)
        outputs = {DST: self.y_shape, WORKSPACE: workspace}
        self.forward = Operation(forward, {SRC: x_shape}, outputs)
        gradient = descriptor("pooling_backward", MAXIMUM, x, y, *geometry, forward)
        inputs = {DIFF_DST: self.y_shape, WORKSPACE: workspace}
        self.gradient = Operation(gradient, inputs, {DIFF_SRC: x_shape})


class GroupNormalization:
    """Group normalisation of x [N, C, H, W] by primitives that are faster than oneDNN's own.

    That one works on one core and its gradient is slow. Here the groups are rows of a matrix, which
    layer normalisation normalises, and the weights are applied to x_hat channel by channel:
    normalize(x -> x_hat, mean, variance) and affine(x_hat, weight, bias -> y);
    scale(dy, weight -> dx_hat) and gradient(x, dx_hat, mean, variance -> dx);
    product(dy, x_hat -> their product).
    """

    def __init__(self, shape, groups, epsilon):
        n, c, *sides = shape
        pixels = math.prod(sides)
        rows, images, channels = (n * groups, c // groups * pixels), (n, c, pixels), (1, c, 1)
        self.rows = (rows[0],)
        x, statistics = row_major(rows), row_major(self.rows)
        kind, settings = "layer_normalization", (ctypes.c_float(epsilon), 0)
        moments = {MEAN: self.rows, VARIANCE: self.rows}
        forward = descriptor(f"{kind}_forward", FORWARD_TRAINING, x, x, statistics, *settings)
        self.normalize = Operation(forward, {SRC: rows}, {DST: rows, **moments})
        layouts = (x, x, x, statistics)
        gradient = descriptor(f"{kind}_backward", BACKWARD_DATA, *layouts, *settings, forward)
        inputs = {SRC: rows, DIFF_DST: rows, **moments}
        self.gradient = Operation(gradient, inputs, {DIFF_SRC: rows})
        self.scale = binary(MULTIPLY, images, channels)
        self.affine = binary(MULTIPLY, images, channels, added=channels)
        self.product = binary(MULTIPLY, images, images)


def binary(algorithm, shape, other, added=None):
    """The operation that adds or multiplies two arrays, and adds a third if its shape is given.

    The second and the third are broadcast to the shape of the first.
    """

    layouts = [row_major(each) for each in (shape, other, shape)]
    sum_or_product = descriptor("binary", algorithm, *layouts, added=added)
    inputs = {SRC: shape, SRC_1: other, POST_OP_SRC_1: added}
    return Operation(sum_or_product, inputs, {DST: shape})
