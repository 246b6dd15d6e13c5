"""Adam's update for processors without AVX-512, for which Paddle's own is a scalar loop.

The arithmetic is that of algorithm 1 of Kingma & Ba (2015), arXiv:1412.6980, in the order of the
note at the end of its section 2, as in Paddle.
"""

import math

import numpy as np
import paddle

from genbook import system
from genbook.accelerate.onednn import is_float32

CHUNK = 2**16  # numbers at a time: the arrays of a chunk stay in the processor's cache


def is_compiled():
    """Whether Paddle has a fast Adam of its own for this processor."""
    return any(level in system.instruction_set() for level in ("avx512", "amx"))


def append_optimize_op(optimizer, block, param_and_grad):
    """Update one parameter in place of `paddle.optimizer.Adam._append_optimize_op`.

    Returns NotImplemented, with nothing done, for all but dense float32 on a CPU.
    """
    known = (
        type(optimizer) is paddle.optimizer.Adam
        and not optimizer._amsgrad
        and not optimizer._lazy_mode
        and isinstance(optimizer._beta1, float)
        and isinstance(optimizer._beta2, float)
        and isinstance(param_and_grad, (list, tuple))
        and is_float32(*param_and_grad)
        and all(tensor.is_contiguous() for tensor in param_and_grad)
    )
    if not known:
        return NotImplemented
    parameter, gradient = param_and_grad
    beta1, beta2 = optimizer._beta1, optimizer._beta2
    mean, square, power1, power2 = (
        optimizer._get_accumulator_master(name, parameter)
        for name in (
            optimizer._moment1_acc_str,
            optimizer._moment2_acc_str,
            optimizer._beta1_pow_acc_str,
            optimizer._beta2_pow_acc_str,
        )
    )
    lr = optimizer._create_param_lr(param_and_grad).item()
    correction = math.sqrt(1 - power2.item())
    tensors = (parameter, gradient, mean, square)
    update(
        *(np.from_dlpack(t.detach()).reshape(-1) for t in tensors),  # arrays on their memory
        step=lr * correction / (1 - power1.item()),
        beta1=beta1,
        beta2=beta2,
        epsilon=optimizer._epsilon * correction,
    )
    power1.scale_(beta1)
    power2.scale_(beta2)
    return None


def update(parameter, gradient, mean, square, *, step, beta1, beta2, epsilon):
    """One step of Adam on float32 arrays [P], all but the gradient in place."""
    scratch = np.empty(min(CHUNK, len(parameter)), dtype=np.float32)
    for start in range(0, len(parameter), CHUNK):
        p, g, m, v = (a[start : start + CHUNK] for a in (parameter, gradient, mean, square))
        s = scratch[: len(p)]
        m *= beta1
        m += np.multiply(g, 1 - beta1, out=s)
        v *= beta2
        np.multiply(g, g, out=s)
        s *= 1 - beta2
        v += s
        np.sqrt(v, out=s)
        s += epsilon
        np.divide(m, s, out=s)
        s *= step
        p -= s
