import numpy as np
import paddle
import pytest

from genbook.accelerate import denormals


def test_denormals_are_flushed_inside_the_block_and_nowhere_else():
    tiny = paddle.full([8], 1e-38)
    denormal = tiny * 0.5
    with denormals.flush():
        results = (tiny * 0.5).numpy(), (denormal * 2.0).numpy()  # as a result, as an input
    assert (denormal > 0).all() and (tiny * 0.5 > 0).all()
    if denormals.can_flush():
        assert not np.any(results)


def test_flushing_ends_with_an_error_as_well():
    with pytest.raises(KeyError), denormals.flush():
        raise KeyError
    assert (paddle.full([8], 1e-38) * 0.5 > 0).all()
