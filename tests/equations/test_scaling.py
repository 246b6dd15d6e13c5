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
    sums = [sum(gradient(x[i : i + 1]) for i in range(r, 12, 3)) for r in range(3)]
    agree(sum(sums) / 12, by_hand, tolerance=1e-12)
    agree(sum(3 / 12 * part for part in sums) / 3, by_hand, tolerance=1e-12)


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


@pytest.mark.checks("eq-bfloat16", "The error of rounding to 8 significant bits")
def test_bfloat16(agree):
    """All float32 numbers from 1 to 2 by Paddle's cast: the largest error is 2^-8, the largest
    relative one near 2^-8; and the same from 2^-20 and 2^30 on."""
    x = np.arange(2**23, 2**24, dtype=np.uint32).astype(np.float32) / np.float32(2**23)
    rounded = paddle.to_tensor(x).cast("bfloat16").cast("float32").numpy()
    worst = np.abs(rounded.astype(np.float64) - x) / x
    assert worst.max() <= 2**-8
    agree(worst.max(), 2**-8, tolerance=2**-15)  # reached but for the halfway point itself
    for e in (-20, 0, 30):  # the same in every range
        scaled = x * np.float32(2.0**e)
        moved = paddle.to_tensor(scaled).cast("bfloat16").cast("float32").numpy()
        agree(moved / 2.0**e, rounded, tolerance=0)
        agree(np.abs(moved - scaled).max(), 2.0 ** (e - 8), tolerance=0)


@pytest.mark.checks("eq-rounded-sum", "The error of a sum of products of rounded factors")
def test_rounded_sum(agree):
    """20,000 sums of 60 products whose factors are moved by random relative errors of 0.003."""
    rng = np.random.default_rng(0)
    w, x = rng.standard_normal((2, 60))
    delta, gamma = 0.003 * rng.choice([-1.0, 1.0], (2, 20_000, 60))
    error = (w * (1 + delta) * x * (1 + gamma)).sum(axis=1) - w @ x
    agree.in_mean(error**2, 2 * 0.003**2 * ((w * x) ** 2).sum())
