import numpy as np
import paddle
import pytest
from genbook.unet import ResBlock, UNet, timestep_embedding
from paddle import nn


@pytest.mark.checks("eq-conv-cost", "parameters and multiplications of a convolution")
def test_conv_cost(agree):
    """Paddle's count of the weights; the sum of the outputs where all factors are 1."""
    one = nn.initializer.Constant(1.0)
    for k, c, d, side in ((3, 4, 8, 6), (1, 5, 2, 7), (5, 3, 3, 9)):
        layer = nn.Conv2D(c, d, k, padding=k // 2, padding_mode="circular", weight_attr=one)
        agree(sum(p.size for p in layer.parameters()), k**2 * c * d + d, 0)
        products = layer(paddle.ones([1, c, side, side])) - layer.bias.reshape([-1, 1, 1])
        agree(products.sum().item(), k**2 * c * d * side**2, 0)


@pytest.mark.checks("def-group-norm", "group normalisation")
def test_group_norm(agree):
    """The layer of the code's block, against NumPy's moments of each image and group."""
    rng = np.random.default_rng(0)
    norm = ResBlock(16, 16, time_dim=8).norm1
    a, b = rng.standard_normal((2, 16)).astype("float32")
    norm.weight.set_value(a)
    norm.bias.set_value(b)
    h = rng.normal(2, 3, (2, 16, 4, 5)).astype("float32")
    got = norm(paddle.to_tensor(h)).numpy()
    for n in range(2):
        for c in range(16):
            group = h[n, c // 2 * 2 : c // 2 * 2 + 2].astype(float)  # 8 groups of 2 channels
            expected = a[c] * (h[n, c] - group.mean()) / np.sqrt(group.var() + 1e-5) + b[c]
            agree(got[n, c], expected, 1e-5)


@pytest.mark.checks("def-time-embedding", "a step as sines and cosines")
def test_time_embedding(agree):
    """Powers of complex numbers: each hand of the clock turned by one step, $t$ times."""
    t = np.arange(0, 1000, 7)
    for m in (4, 24):
        hands = np.array([np.exp(1j * 10000 ** (-(i - 1) / m)) for i in range(1, m + 1)])
        turned = hands ** t[:, np.newaxis]
        expected = np.concatenate([turned.imag, turned.real], axis=1)
        agree(timestep_embedding(paddle.to_tensor(t), 2 * m), expected, 1e-3)


@pytest.mark.checks("eq-time-product", "inner product of two embedded steps")
def test_time_product(agree):
    """The code's embeddings in float64 from the definition, and their product, for 200 pairs."""
    rng = np.random.default_rng(0)
    t, s = rng.integers(0, 1000, (2, 200))
    ours = [timestep_embedding(paddle.to_tensor(u), 48).numpy() for u in (t, s)]
    omega = 10000.0 ** (-np.arange(24) / 24)
    agree((ours[0] * ours[1]).sum(axis=1), np.cos(np.outer(t - s, omega)).sum(axis=1), 2e-3)


@pytest.mark.checks("eq-time-shift", "a later step as a rotation")
def test_time_shift(agree):
    """The code's embeddings of both steps, at 50 steps and three distances."""
    t, omega = np.arange(0, 1000, 20), 10000.0 ** (-np.arange(24) / 24)
    now = timestep_embedding(paddle.to_tensor(t), 48).numpy().astype(float)
    for d in (1, 17, 300):
        sin, cos = now[:, :24], now[:, 24:]
        turned = np.concatenate(
            [
                np.cos(omega * d) * sin + np.sin(omega * d) * cos,
                np.cos(omega * d) * cos - np.sin(omega * d) * sin,
            ],
            axis=1,
        )
        agree(timestep_embedding(paddle.to_tensor(t + d), 48), turned, 1e-3)


@pytest.mark.checks("eq-unet-parameters", "parameters of the U-Net")
def test_unet_parameters(agree):
    """Counted in the network, for six widths, numbers of channels and of classes."""
    for w, c, k in ((8, 1, 0), (16, 3, 0), (48, 1, 10), (64, 1, 10), (24, 3, 100), (32, 2, 5)):
        counted = sum(p.size for p in UNet(c, w, k).parameters())
        agree(counted, 385 * w**2 + (77 + 4 * (k + 1) + 72 * c) * w + 4 * c, 0)
