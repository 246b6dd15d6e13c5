import itertools
import statistics

import numpy as np
import pytest
import sympy


@pytest.mark.checks("def-spread", "standard deviation of a few values")
def test_spread(agree):
    """The standard library's `statistics.stdev`, for 2 to 6 values."""
    rng = np.random.default_rng(0)
    for count in range(2, 7):
        y = rng.standard_normal(count)
        by_hand = np.sqrt(((y - y.sum() / count) ** 2).sum() / (count - 1))
        agree(by_hand, statistics.stdev(y.tolist()), 1e-12)


@pytest.mark.checks("eq-spread-unbiased", "Why the spread divides by one less")
def test_spread_unbiased(agree):
    """SymPy: the mean over all equally probable draws of two to four values of a die of three."""
    faces = [sympy.Integer(v) for v in (0, 1, 5)]
    mean = sum(faces) / len(faces)
    variance = sum((v - mean) ** 2 for v in faces) / len(faces)
    for count in (2, 3, 4):
        total = 0
        for draws in itertools.product(faces, repeat=count):
            centre = sum(draws) / count
            total += sum((y - centre) ** 2 for y in draws)
        agree.exactly(total / len(faces) ** count, (count - 1) * variance)
