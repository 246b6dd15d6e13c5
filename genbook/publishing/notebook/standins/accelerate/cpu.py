"""`genbook.accelerate.cpu` without the calls to oneDNN, which take more code than a lesson."""

import functools

from genbook.accelerate.cpu import add_bias_fast, keep_freed_memory


@functools.cache
def tune():
    """Make Paddle about twice as fast on a CPU, once; the results stay the same.

    The book calls the library oneDNN as well, which saves another third of the time.
    """
    keep_freed_memory()
    add_bias_fast()


def bfloat16(network):
    """The network as it is: to round the factors of its products takes oneDNN, too."""
    return network
