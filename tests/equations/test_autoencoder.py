import numpy as np
import paddle
import paddle.nn as nn
import pytest
from genbook.recipes.autoencoder import mean_squared_error


@pytest.mark.checks("eq-conv-size", "size after a convolution")
def test_conv_size(agree):
    """The shapes that Paddle's `Conv2D` returns, in 36 cases."""
    for n in (8, 11, 16):
        for k in (2, 3, 5):
            for s, p in ((1, 0), (2, 0), (2, 1), (3, 2)):
                layer = nn.Conv2D(1, 1, k, stride=s, padding=p)
                agree((n + 2 * p - k) // s + 1, layer(paddle.zeros([1, 1, n, n])).shape[2], 0)


@pytest.mark.checks("eq-conv-transpose-size", "size after a transposed convolution")
def test_conv_transpose_size(agree):
    """Painting: the number of the last pixel that any input covers, in 27 cases."""
    for n in (1, 4, 8):
        for k in (2, 3, 5):
            for s in (1, 2, 3):
                layer = nn.Conv2DTranspose(1, 1, k, stride=s)
                covered = {i * s + j for i in range(n) for j in range(k)}
                agree(layer(paddle.zeros([1, 1, n, n])).shape[2], max(covered) + 1, 0)
                agree((n - 1) * s + k, max(covered) + 1, 0)


@pytest.mark.checks("def-mse", "mean squared error")
def test_mse(agree):
    """One term after the other, in plain Python."""
    rng = np.random.default_rng(0)
    x, x_hat = rng.random((2, 3, 2, 4, 4))
    terms = [(a - b) ** 2 for a, b in zip(x.ravel().tolist(), x_hat.ravel().tolist(), strict=True)]
    loss = mean_squared_error(lambda x: paddle.to_tensor(x_hat), paddle.to_tensor(x))
    agree(loss, sum(terms) / (3 * 32), 1e-12)
