"""What makes Paddle fast on a processor."""

import contextlib


def enable():
    """Accelerate Paddle in this process."""
    from genbook.accelerate import cpu

    cpu.tune()


def is_enabled():
    """Whether `enable` was called."""
    from genbook.accelerate import cpu

    return cpu.tune.cache_info().currsize > 0


@contextlib.contextmanager
def enabled():
    """Accelerate Paddle in this block."""
    enable()
    yield


@contextlib.contextmanager
def training():
    """Within this block, train faster; nothing changes unless `enable` was called."""
    from genbook.accelerate import cpu, onednn

    with contextlib.ExitStack() as stack:
        if is_enabled():
            stack.enter_context(cpu.flush_denormals())
            stack.enter_context(onednn.bfloat16_products())
        yield


def bfloat16(network):
    """Mark a network whose products may be rounded to bfloat16, once it is accelerated."""
    for layer in network.sublayers(include_self=True):
        layer.bfloat16 = True
    return network
