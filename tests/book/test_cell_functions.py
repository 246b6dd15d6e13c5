"""Functions that chapters define in their cells compute what they say."""

import numpy as np
from cells import functions


def test_slerp_turns_at_an_even_rate_and_keeps_the_ends():
    slerp = functions("latent-space").slerp
    a, b = np.array([[3.0, 0.0]]), np.array([[0.0, 3.0]])
    for t in (0.0, 0.25, 0.5, 1.0):
        angle = t * np.pi / 2
        expected = [[3 * np.cos(angle), 3 * np.sin(angle)]]
        assert np.allclose(slerp(a, b, t), expected, atol=1e-6)
