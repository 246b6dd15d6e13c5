"""The processes of one data-parallel training, called ranks, and what they do together.

Each rank takes its part of every batch, and all take the step of the mean gradient. A process on
its own is rank 0 of 1, and nothing here costs it anything.

`paddle.DataParallel` does the same behind the back of `model(x)`: no faster on a CPU, and blind to
a loss that calls `model.encode` or `model.decode`, whose gradients would silently stay apart.
"""

from __future__ import annotations

import numpy as np
import paddle
import paddle.distributed as dist


class LostRankError(RuntimeError):
    """Another rank has died, or cannot be reached."""


def join():
    """Become a rank of the job that `paddle.distributed.launch` started this process for."""
    dist.init_parallel_env()


def count():
    """How many ranks there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank():
    """The number of this one, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def part(index):
    """This rank's part of a batch: every `count()`-th of its indices [B], [B / count()]."""
    return index[rank() :: count()]


def average(tensors, numbers):
    """Replace each of `tensors` (float32) by its mean over the ranks; return that of `numbers`.

    numbers: a list of floats. All of it goes over the network as one vector: a message costs more
    than the few numbers in it. Raises LostRankError.
    """
    if count() == 1:
        return numbers
    last = paddle.to_tensor(numbers, dtype="float32")
    flat = paddle.concat([*(t.flatten() for t in tensors), last])
    _together(dist.all_reduce, flat)
    means = flat.scale_(1 / count()).split([t.size for t in (*tensors, last)])
    for tensor, mean in zip(tensors, means[:-1], strict=True):
        tensor.copy_(mean.reshape(tensor.shape), False)
    return means[-1].tolist()


def broadcast(content):
    """The bytes `content` of rank 0, on all ranks; the others pass None. Raises LostRankError."""
    if count() == 1:
        return content
    length = paddle.to_tensor([len(content or b"")], dtype="int64")
    _together(dist.broadcast, length, 0)
    if not length.item():
        return b""
    buffer = paddle.to_tensor(np.frombuffer(content or bytes(length.item()), dtype=np.uint8))
    _together(dist.broadcast, buffer, 0)
    return buffer.numpy().tobytes()


def _together(operation, *args):
    try:
        operation(*args)
    except Exception as error:  # Paddle has no class of its own for this
        raise LostRankError("the connection to another process was lost") from error
