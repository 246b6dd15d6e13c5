import numpy as np
import pytest
from genbook.data import _sharpen


@pytest.mark.checks("def-data-contrast", "contrast curve of the digits")
def test_data_contrast(agree):
    """The logistic function written as a hyperbolic tangent."""
    u = np.linspace(0, 1, 101)
    bend = np.tanh(4 * (u - 0.45))
    agree(_sharpen(u), (bend - bend[0]) / (bend[-1] - bend[0]), 1e-12)
