from itertools import product

import numpy as np
import paddle
import paddle.nn as nn
import paddle.nn.functional as F
import pytest
from genbook.autoencoder import AutoEncoder
from genbook.training.recipes.autoencoder import mean_squared_error
from scipy import optimize


def centred(n=40, dimension=6, seed=0):
    """Vectors whose mean is zero, and their covariance matrix."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, dimension)) @ rng.standard_normal((dimension, dimension))
    x -= x.mean(axis=0)
    return x, x.T @ x / n


def orthonormal(dimension, columns, seed=0):
    square = np.random.default_rng(seed).standard_normal((dimension, columns))
    return np.linalg.qr(square)[0]


@pytest.mark.checks("def-mse", "mean squared error")
def test_mse(agree):
    """One term after the other, in plain Python."""
    rng = np.random.default_rng(0)
    x, x_hat = rng.random((2, 3, 2, 4, 4))
    terms = [(a - b) ** 2 for a, b in zip(x.ravel().tolist(), x_hat.ravel().tolist(), strict=True)]
    loss = mean_squared_error(lambda x: paddle.to_tensor(x_hat), paddle.to_tensor(x))
    agree(loss, sum(terms) / (3 * 32), 1e-12)


@pytest.mark.checks("eq-best-code", "best code for a decoder with orthonormal columns")
def test_best_code(agree):
    """Both sides for random codes, and NumPy's least squares for the minimum."""
    x, _ = centred()
    for columns in (1, 3):
        decoder = orthonormal(6, columns)
        best = np.linalg.lstsq(decoder, x.T, rcond=None)[0]  # [J, N]
        agree(decoder.T @ x.T, best, 1e-12)
        rest = np.linalg.lstsq(decoder, x.T, rcond=None)[1]  # |x - U z|^2 at the minimum
        z = np.random.default_rng(1).standard_normal(best.shape)
        error = ((x.T - decoder @ z) ** 2).sum(axis=0)
        off = ((x.T - decoder @ decoder.T @ x.T) ** 2).sum(axis=0)
        agree(off, rest, 1e-11)
        agree(error, off + ((decoder @ decoder.T @ x.T - decoder @ z) ** 2).sum(axis=0), 1e-11)
        agree(error, off + ((decoder.T @ x.T - z) ** 2).sum(axis=0), 1e-11)


@pytest.mark.checks("eq-linear-error", "error of a linear autoencoder")
def test_linear_error(agree):
    """The squared errors of the reconstructions themselves, one image after the other."""
    x, covariance = centred()
    for columns in (1, 2, 5):
        decoder = orthonormal(6, columns, seed=columns)
        errors = [np.sum((v - decoder @ (decoder.T @ v)) ** 2) for v in x]
        formula = np.trace(covariance) - np.trace(decoder.T @ covariance @ decoder)
        agree(formula, np.mean(errors), 1e-11)


@pytest.mark.checks("eq-linear-optimum", "least error of a linear autoencoder")
def test_linear_optimum(agree):
    """BFGS over the entries of both matrices, free of any constraint, from random starts. The first
    eigenvectors reach the same error, one image after the other."""
    x, covariance = centred()
    x, covariance = x / 3, covariance / 9
    eigenvalues, eigenvectors = np.linalg.eigh(covariance)  # rising
    for size in (1, 2, 4):

        def error(entries, size=size):
            encoder, decoder = entries.reshape(2, 6, size)
            rest = x - x @ encoder @ decoder.T
            gradient = -2 * np.stack([x.T @ rest @ decoder, rest.T @ x @ encoder]) / len(x)
            return (rest**2).sum() / len(x), gradient.ravel()

        start = np.random.default_rng(size).standard_normal(2 * 6 * size)
        found = optimize.minimize(error, start, jac=True, method="BFGS", options={"gtol": 1e-9})
        agree(eigenvalues[: 6 - size].sum(), found.fun, 1e-8)
        V = eigenvectors[:, 6 - size :]
        W = V.T
        agree(np.mean([np.sum((v - V @ W @ v) ** 2) for v in x]), found.fun, 1e-8)


def convolve(x, w, b, s, p):
    """The convolution of the chapter, term by term: x [C, n, n], w [O, C, k, k], b [O]."""
    (channels, n, _), (outputs, _, k, _) = x.shape, w.shape
    side = len(range(-p, n + p - k + 1, s))  # the places of the filter, counted
    y = np.zeros((outputs, side, side))
    for o, i, j in product(range(outputs), range(side), range(side)):
        y[o, i, j] = b[o]
        for c, u, v in product(range(channels), range(k), range(k)):
            row, column = s * i + u - p, s * j + v - p
            if 0 <= row < n and 0 <= column < n:
                y[o, i, j] += w[o, c, u, v] * x[c, row, column]
    return y


def arrays(*shapes):
    rng = np.random.default_rng(0)
    return [rng.standard_normal(shape) for shape in shapes]


@pytest.mark.checks("def-conv", "convolution")
def test_conv(agree):
    """Paddle's `conv2d` against the sums of the definition, with strides and padding."""
    x, w, b = arrays((2, 6, 6), (3, 2, 3, 3), 3)
    for s, p in ((1, 0), (1, 1), (2, 1), (3, 2)):
        got = F.conv2d(*map(paddle.to_tensor, (x[None], w, b)), stride=s, padding=p)
        agree(got[0], convolve(x, w, b, s, p), 1e-12)


@pytest.mark.checks("eq-conv-size", "size after a convolution")
def test_conv_size(agree):
    """The shapes that Paddle's `Conv2D` returns, in 36 cases."""
    for n in (8, 11, 16):
        for k in (2, 3, 5):
            for s, p in ((1, 0), (2, 0), (2, 1), (3, 2)):
                layer = nn.Conv2D(1, 1, k, stride=s, padding=p)
                agree((n + 2 * p - k) // s + 1, layer(paddle.zeros([1, 1, n, n])).shape[2], 0)


@pytest.mark.checks("eq-conv-params", "parameters of a convolution")
def test_conv_params(agree):
    """The sizes of the parameters of Paddle's layers, convolutions and transposed ones."""
    for inputs, outputs, k in ((3, 16, 3), (16, 32, 3), (1, 5, 2)):
        for layer in (nn.Conv2D(inputs, outputs, k), nn.Conv2DTranspose(inputs, outputs, k)):
            agree(outputs * (inputs * k**2 + 1), sum(p.size for p in layer.parameters()), 0)


@pytest.mark.checks("eq-pool-size", "size after max pooling")
def test_pool_size(agree):
    """The shapes that Paddle's `MaxPool2D` returns, in 27 cases."""
    for n, k, s in product((7, 8, 15), (2, 3, 4), (1, 2, 3)):
        agree((n - k) // s + 1, nn.MaxPool2D(k, s)(paddle.zeros([1, 1, n, n])).shape[2], 0)


def paint(z, w, b, s, p):
    """A transposed convolution by painting: z [C, n, n], w [C, O, k, k], b [O]."""
    (_, n, _), (_, outputs, k, _) = z.shape, w.shape
    canvas = np.zeros((outputs, n * s + k, n * s + k))
    last = 0
    for i, j in product(range(n), range(n)):
        canvas[:, s * i : s * i + k, s * j : s * j + k] += np.einsum("c,couv->ouv", z[:, i, j], w)
        last = s * i + k
    return canvas[:, p : last - p, p : last - p] + b[:, None, None]


@pytest.mark.checks("def-conv-transpose", "transposed convolution")
def test_conv_transpose(agree):
    """Painting every value at its place, against Paddle and against the sum of the definition."""
    z, w, b = arrays((2, 4, 4), (2, 3, 3, 3), 3)
    for s, p in ((1, 0), (2, 0), (2, 1), (3, 1)):
        painted = paint(z, w, b, s, p)
        got = F.conv2d_transpose(*map(paddle.to_tensor, (z[None], w, b)), stride=s, padding=p)
        agree(got[0], painted, 1e-12)
        for o, row, column in ((0, 0, 0), (2, 2, 3), (1, 4, 1)):
            total = b[o]
            for c, i, j in product(range(2), range(4), range(4)):
                u, v = row + p - s * i, column + p - s * j
                if 0 <= u < 3 and 0 <= v < 3:
                    total += z[c, i, j] * w[c, o, u, v]
            agree(total, painted[o, row, column], 1e-12)


@pytest.mark.checks("eq-conv-adjoint", "a transposed convolution is the transpose")
def test_conv_adjoint(agree):
    """Paddle's layers with one filter, in products with random images."""
    for n, k, s, p in ((7, 3, 1, 1), (8, 2, 2, 0), (9, 3, 2, 1), (7, 4, 3, 0)):
        x, w = map(paddle.to_tensor, arrays((1, 2, n, n), (3, 2, k, k)))
        convolved = F.conv2d(x, w, stride=s, padding=p)
        z = paddle.to_tensor(np.random.default_rng(1).standard_normal(convolved.shape))
        back = F.conv2d_transpose(z, w, stride=s, padding=p)
        side = back.shape[2]  # rows that no filter reaches are missing
        agree((convolved * z).sum(), (x[:, :, :side, :side] * back).sum(), 1e-11)


@pytest.mark.checks("eq-conv-transpose-size", "size after a transposed convolution")
def test_conv_transpose_size(agree):
    """Painting: the number of the last pixel that any input covers, in 54 cases."""
    for n, k, s in product((1, 4, 8), (2, 3, 5), (1, 2, 3)):
        covered = {i * s + j for i in range(n) for j in range(k)}
        for p in range((k + 1) // 2):
            left = sorted(covered)[-1] + 1 - 2 * p
            if left < 1:
                continue
            layer = nn.Conv2DTranspose(1, 1, k, stride=s, padding=p)
            agree(layer(paddle.zeros([1, 1, n, n])).shape[2], left, 0)
            agree((n - 1) * s + k - 2 * p, left, 0)


@pytest.mark.checks("eq-conv-kron", "transposed convolution without overlap")
def test_conv_kron(agree):
    """NumPy's Kronecker product and its matrix of blocks, against Paddle."""
    z, w = arrays((2, 2), (2, 2))
    got = F.conv2d_transpose(*(paddle.to_tensor(a[None, None]) for a in (z, w)), stride=2)
    agree(got[0, 0], np.kron(z, w), 1e-12)
    blocks = np.block([[z[0, 0] * w, z[0, 1] * w], [z[1, 0] * w, z[1, 1] * w]])
    agree(got[0, 0], blocks, 1e-12)


@pytest.mark.checks("def-batch-norm", "batch normalisation")
def test_batch_norm(agree):
    """Paddle's `BatchNorm2D` in training, against the moments of each channel by NumPy."""
    (x,) = arrays((4, 3, 5, 5))
    layer = nn.BatchNorm2D(3)
    layer.weight.set_value(np.array([0.5, 1.0, 2.0], "float32"))
    layer.bias.set_value(np.array([0.1, -1.0, 0.0], "float32"))
    got = layer(paddle.to_tensor(x.astype("float32"))).numpy()
    for c, (gamma, beta) in enumerate(((0.5, 0.1), (1.0, -1.0), (2.0, 0.0))):
        values = x[:, c]
        expected = gamma * (values - values.mean()) / np.sqrt(values.var() + 1e-5) + beta
        agree(got[:, c], expected, 1e-5)


@pytest.mark.checks("eq-receptive-field", "receptive field")
def test_receptive_field(agree):
    """Where the gradient of one place of the code is not zero: the encoder, and its parts."""
    paddle.seed(0)
    encoder = AutoEncoder(in_channels=1).encoder
    encoder.eval()
    # (layers of the encoder, kernels and strides of those that look at neighbours)
    for depth, windows in (
        (1, [(3, 1)]),
        (4, [(3, 1), (2, 2)]),
        (5, [(3, 1), (2, 2), (3, 1)]),
        (8, [(3, 1), (2, 2), (3, 1), (2, 2)]),
    ):
        side, distance = 1, 1
        for k, s in windows:
            side, distance = side + (k - 1) * distance, distance * s
        images = paddle.rand([200, 1, 24, 24])
        images.stop_gradient = False
        h = images
        for layer in list(encoder)[:depth]:
            h = layer(h)
        middle = h.shape[2] // 2
        h[:, :, middle, middle].sum().backward()
        felt = (images.grad.numpy() != 0).any(axis=(0, 1, 3))
        agree(side, felt.sum(), 0)
