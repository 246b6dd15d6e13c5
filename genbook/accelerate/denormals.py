"""Numbers below float32's normal range (1.2e-38), which the processor handles in slow microcode."""

import contextlib
import ctypes
import platform


def can_flush():
    """Whether `flush` has an effect on this machine: x86-64 with glibc."""
    return platform.machine() == "x86_64" and platform.libc_ver()[0] == "glibc"


@contextlib.contextmanager
def flush():
    """Within this block and thread, treat denormal numbers as zero.

    Training makes many of them: where a unit has died, its gradient is exactly zero and Adam's
    averages of it decay geometrically. Does nothing where it cannot.
    """
    if not can_flush():
        yield
        return
    libm = ctypes.CDLL("libm.so.6")
    before, flushed = (ctypes.c_uint32 * 8)(), (ctypes.c_uint32 * 8)()  # fenv_t; MXCSR is last
    libm.fegetenv(before)
    ctypes.memmove(flushed, before, ctypes.sizeof(before))
    flushed[7] |= 0x8040  # flush-to-zero and denormals-are-zero
    libm.fesetenv(flushed)
    try:
        yield
    finally:
        libm.fesetenv(before)
