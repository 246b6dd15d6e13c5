"""What makes Paddle fast on a CPU, with results that differ by rounding at most."""

import contextlib
import ctypes
import functools
import platform
import types

import paddle.nn as nn
import paddle.nn.functional as F

from genbook.accelerate import onednn


@functools.cache
def tune():
    """Apply all remedies, once in a process; call it before the first large tensor is made."""
    keep_freed_memory()
    add_bias_fast()
    use_onednn()


def keep_freed_memory():
    """Have the C library keep freed memory instead of returning it to the kernel (glibc only).

    By default each block above 128 KiB is mapped anew and page-faulted in on first use, which
    costs more than the arithmetic on it.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    m_trim_threshold, m_top_pad, m_mmap_max = -1, -2, -4  # the names in malloc.h
    libc = ctypes.CDLL(None)
    libc.mallopt(m_mmap_max, 0)
    libc.mallopt(m_trim_threshold, 2**31 - 1)
    libc.mallopt(m_top_pad, 2**28)


def add_bias_fast():
    """Have 2-D convolutions add their bias as [C, 1, 1] instead of [1, C, 1, 1].

    The sum is the same; the leading 1 sends Paddle's CPU kernel down a general broadcast that is
    some ten times slower.
    """
    F.conv._conv_nd = _with_fast_bias(F.conv._conv_nd)
    F.conv2d_transpose = _with_fast_bias(F.conv2d_transpose)


def _with_fast_bias(convolve):
    @functools.wraps(convolve)
    def wrapped(x, weight, bias=None, *args, **kwargs):
        layouts = [a for a in (*args, *kwargs.values()) if isinstance(a, str)]
        if bias is None or x.ndim != 4 or "NHWC" in layouts:
            return convolve(x, weight, bias, *args, **kwargs)
        return convolve(x, weight, None, *args, **kwargs) + bias.reshape([-1, 1, 1])

    return wrapped


def use_onednn():
    """Have layers call oneDNN directly, where Paddle has it and it fits what they are given."""
    nn.Conv2D.forward = _instead(nn.Conv2D.forward, onednn.conv2d)
    nn.Conv2DTranspose.forward = _instead(nn.Conv2DTranspose.forward, onednn.conv2d_transpose)
    nn.Linear.forward = _instead(nn.Linear.forward, onednn.linear)
    nn.GroupNorm.forward = _instead(nn.GroupNorm.forward, onednn.group_norm)
    nn.MaxPool2D.forward = _instead(nn.MaxPool2D.forward, onednn.max_pool2d)
    for name in onednn.ACTIVATIONS:
        other = functools.partial(onednn.activation, name)
        setattr(F, name, _instead(getattr(F, name), other))


def bfloat16(network):
    """Have a network round the factors of its products to bfloat16 where that is faster.

    With AMX, samples come about twice as fast; the relative error of a factor is at most 2^-8,
    see `onednn.bfloat16_products`. Returns the network.
    """
    network.forward = types.MethodType(_forward_in_bfloat16, network)
    return network


def _forward_in_bfloat16(network, *args, **kwargs):
    """The forward of the network's class. (A method, so that a copy has its own.)"""
    with onednn.bfloat16_products():
        return type(network).forward(network, *args, **kwargs)


def _instead(function, other):
    """`other`, and where it answers NotImplemented, `function`."""

    @functools.wraps(function)
    def wrapped(*args, **kwargs):
        result = other(*args, **kwargs)
        return function(*args, **kwargs) if result is NotImplemented else result

    return wrapped


def can_flush_denormals():
    """Whether `flush_denormals` has an effect on this machine."""
    return platform.machine() == "x86_64" and platform.libc_ver()[0] == "glibc"


@contextlib.contextmanager
def flush_denormals():
    """Within this block, treat numbers below float32's normal range (1.2e-38) as zero.

    The processor handles such numbers in slow microcode. Training makes many of them: where a
    unit has died, its gradient is exactly zero and Adam's averages of it decay geometrically.
    x86-64 with glibc only; elsewhere the block changes nothing.
    """
    if not can_flush_denormals():
        yield
        return
    libm = ctypes.CDLL("libm.so.6")
    before, flushed = (ctypes.c_uint32 * 8)(), (ctypes.c_uint32 * 8)()  # fenv_t; MXCSR is last
    libm.fegetenv(before)
    flushed[:] = before[:]
    flushed[7] |= 0x8040  # flush-to-zero and denormals-are-zero
    libm.fesetenv(flushed)
    try:
        yield
    finally:
        libm.fesetenv(before)
