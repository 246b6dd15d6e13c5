"""What the C library does with freed memory (glibc only; elsewhere nothing here has an effect).

By default glibc maps each large block anew, and its pages are faulted in on first use, which costs
more than the arithmetic on them.
"""

import ctypes
import platform

# Parameters in malloc.h; their defaults, from mallopt(3); values that keep what is freed.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
DEFAULT = {M_TRIM_THRESHOLD: 2**17, M_TOP_PAD: 2**17, M_MMAP_MAX: 2**16}
KEEP = {M_TRIM_THRESHOLD: 2**31 - 1, M_TOP_PAD: 2**28, M_MMAP_MAX: 0}


def keep_freed():
    """Reuse freed blocks instead of returning them to the kernel."""
    _set(KEEP)


def return_freed():
    """Restore glibc's defaults, and return the free pages of the heap to the kernel."""
    _set(DEFAULT)
    if _is_glibc():
        ctypes.CDLL(None).malloc_trim(ctypes.c_size_t(0))


def _set(parameters):
    if _is_glibc():
        libc = ctypes.CDLL(None)
        for parameter, value in parameters.items():
            libc.mallopt(parameter, value)


def _is_glibc():
    return platform.libc_ver()[0] == "glibc"
