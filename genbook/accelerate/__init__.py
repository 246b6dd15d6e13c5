"""Faster PaddlePaddle on a CPU, on request; results differ from Paddle's own by rounding.

`enable` has Paddle's layers call oneDNN, which the wheel contains, and has the C library keep
freed memory. Both hold for the whole process until `disable`; nothing else in this package changes
what others use.
"""

import contextlib
import threading

__all__ = ["bfloat16", "disable", "enable", "enabled", "is_enabled", "training"]

_lock = threading.RLock()
_is_enabled = False
_blocks = 0  # `enabled` blocks that are open, in all threads
_before = False  # what the outermost of them found


def enable():
    """Accelerate the layers of this process; see `layers` for which. A second call does nothing."""
    global _is_enabled
    with _lock:
        if not _is_enabled:
            from genbook.accelerate import layers, memory  # import Paddle, which takes seconds

            layers.install()
            memory.keep_freed()
            _is_enabled = True


def disable():
    """Undo `enable`: Paddle's own functions return, and the C library's defaults.

    glibc's threshold for mapped blocks, which by default adapts to the program, stays fixed at
    its present value: glibc offers no way back.
    """
    global _is_enabled
    with _lock:
        if _is_enabled:
            from genbook.accelerate import layers, memory

            layers.uninstall()
            memory.return_freed()
            _is_enabled = False


def is_enabled():
    """Whether Paddle is accelerated."""
    return _is_enabled


@contextlib.contextmanager
def enabled():
    """Accelerate within this block; afterwards things are as they were before.

    Blocks may nest, and overlap in several threads: the last to end restores what the first found.
    """
    global _blocks, _before
    with _lock:
        before = _is_enabled
        enable()
        if not _blocks:
            _before = before
        _blocks += 1
    try:
        yield
    finally:
        with _lock:
            _blocks -= 1
            if not _blocks and not _before:
                disable()


@contextlib.contextmanager
def training():
    """Accelerate the training in this block further, in this thread; a no-op unless `enabled`.

    Numbers below float32's normal range become zero, and with AMX the factors of products are
    rounded to bfloat16 (relative error at most 2^-8); sums stay float32.
    """
    if not _is_enabled:
        yield
        return
    from genbook.accelerate import denormals, layers

    with denormals.flush(), layers.bfloat16_products():
        yield


def bfloat16(network):
    """Mark a network: where no gradient is recorded, products may round their factors to bfloat16.

    Accelerated layers on a CPU with AMX do so, at about twice the speed; others ignore the mark.
    Returns the network.
    """
    for layer in network.sublayers(include_self=True):
        layer.bfloat16_products = True
    return network
