from fractions import Fraction

import numpy as np
import paddle
import pytest
import sympy


@pytest.mark.checks("eq-mean-gradient", "The gradient of a batch is the mean of its parts'")
def test_mean_gradient(agree):
    """A cubic loss of 12 images in 3 parts; the gradient of the batch is worked out by hand."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((12, 4))
    theta = rng.standard_normal(4)
    by_hand = (3 * (x @ theta) ** 2 @ x) / 12  # of the mean of (x . theta)^3

    def gradient(part):
        weights = paddle.to_tensor(theta, stop_gradient=False)
        (paddle.to_tensor(part) @ weights).pow(3).mean().backward()
        return weights.grad.numpy()

    parts = [gradient(x[r::3]) for r in range(3)]
    agree(np.mean(parts, axis=0), by_hand, tolerance=1e-12)


@pytest.mark.checks("eq-ring", "How many numbers each rank of a ring sends")
def test_ring(agree):
    """The ring is played with 2 to 6 ranks and 60 numbers; every rank must end with the sum."""
    for count in range(2, 7):
        held = [[{(rank, k)} for k in range(count)] for rank in range(count)]  # whose terms
        sent = Fraction(0)
        for turn in range(2 * (count - 1)):
            adding = turn < count - 1
            moves = []
            for rank in range(count):
                k = (rank - turn + (0 if adding else count)) % count
                moves.append((rank, k, set(held[rank][k])))
            for rank, k, terms in moves:
                right = (rank + 1) % count
                held[right][k] = held[right][k] | terms if adding else terms
            sent += Fraction(60, count)
        for pieces in held:
            for k, terms in enumerate(pieces):
                assert terms == {(rank, k) for rank in range(count)}
        agree.exactly(sent, Fraction(2 * (count - 1), count) * 60)


@pytest.mark.checks("eq-efficiency", "Efficiency with undivided work and an exchange")
def test_efficiency(agree):
    """SymPy, from the definition: the time of one process over R times that of R."""
    a, c, count, one = sympy.symbols("a c R T_1", positive=True)
    time = one * a / count + one * (1 - a) + c * one
    agree.exactly(one / time / count, 1 / (a + count * (1 - a + c)))
