"""The processes of one data-parallel training, called ranks.

Each rank takes its shard of every batch, and all take the step of the mean gradient. A process on
its own is rank 0 of 1, at no cost.

`paddle.DataParallel` hooks into `model(x)` instead: no faster on a CPU, and blind to a loss that
calls `model.encode` or `model.decode`, whose gradients would silently stay apart.
"""

from __future__ import annotations

import numpy as np
import paddle
import paddle.distributed as dist

from genbook.training.loop import Hook, TrainingError, noise_seed


class LostRankError(RuntimeError):
    """Another rank has died, or cannot be reached."""


def count():
    """How many ranks there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank():
    """The number of this one, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def average(tensors, numbers):
    """Replace each of `tensors` (float32) by its mean over the ranks; return that of `numbers`.

    numbers: a list of floats. Everything travels as one vector, because a message costs more than
    the few numbers in it. Raises LostRankError.
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
    size = paddle.to_tensor([len(content or b"")], dtype="int64")
    _together(dist.broadcast, size, 0)
    length = int(size.numpy()[0])
    if not length:
        return b""
    buffer = paddle.to_tensor(np.frombuffer(content or bytes(length), dtype=np.uint8))
    _together(dist.broadcast, buffer, 0)
    return buffer.numpy().tobytes()


class DataParallel(Hook):
    """Has each rank compute its shard of a batch with its own noise, and all take one step."""

    def __init__(self, key, interrupts):
        """key: a function that returns the fingerprint of the training. interrupts: an
        `Interrupts`, whose `stop` this sets on all ranks at the same step.
        """
        self._key, self._interrupts = key, interrupts

    def on_start(self, training):
        """Raise TrainingError where this rank would train something else than rank 0."""
        if count() > 1:
            mine = self._key().encode()
            if broadcast(mine if rank() == 0 else None) != mine:
                raise TrainingError(
                    f"process {rank()} has other code, data or settings than process 0"
                )

    def on_batch(self, training, index):
        """This rank's shard of the batch: every `count()`-th index. Its noise is seeded."""
        if count() > 1:
            paddle.seed(noise_seed(training.seed, training.step, rank()))
        return index[rank() :: count()]

    def on_backward(self, training, losses):
        """Average the gradients, the running statistics and the losses over the ranks."""
        tensors = _shared(training.model) if count() > 1 else []
        noted = float(bool(self._interrupts.noted))
        *values, stop = average(tensors, [*losses.values(), noted])
        self._interrupts.stop = stop > 0
        return dict(zip(losses, values, strict=True))


def _shared(model):
    """What must be the same on all ranks after a step: gradients, running statistics."""
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    state = model.state_dict().values()
    return gradients + [v for v in state if v.stop_gradient and v.dtype == paddle.float32]


def _together(operation, *args):
    try:
        operation(*args)
    except Exception as error:  # Paddle has no class of its own for this
        raise LostRankError("the connection to another process was lost") from error
