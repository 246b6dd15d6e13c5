"""Diffusion over the codes of an autoencoder instead of over pixels.

Source: Rombach et al. (2022), arXiv:2112.10752.
"""

import math

import paddle
import paddle.nn as nn
import paddle.nn.functional as F


class CodeScale:
    """Brings codes to mean 0 and variance 1 in each dimension, and back.

    mu, logvar: [N, J], the posteriors of the training images. The codes of all images
    together have the mean of mu and the variance of mu plus the mean of exp(logvar).
    Raises ValueError for codes of another shape, which would broadcast.
    """

    def __init__(self, mu, logvar):
        if mu.ndim != 2 or list(mu.shape) != list(logvar.shape):
            shapes = f"{list(mu.shape)} and {list(logvar.shape)}"
            raise ValueError(f"mu and logvar must both be [N, J], got {shapes}")
        self.mean = mu.mean(axis=0)
        variance = (mu - self.mean).square().mean(axis=0) + logvar.exp().mean(axis=0)
        self.std = variance.sqrt()

    def to_unit(self, z):
        """Codes [N, J] of the autoencoder, scaled for the diffusion."""
        return (_codes(z, len(self.mean)) - self.mean) / self.std

    def to_code(self, u):
        """Scaled codes [N, J] back as the decoder takes them."""
        return _codes(u, len(self.mean)) * self.std + self.mean


class CodeBlock(nn.Layer):
    """Two linear layers around a shortcut, told the step and the class in between."""

    def __init__(self, width):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.linear1 = nn.Linear(width, 2 * width)
        self.condition = nn.Linear(width, 2 * width)
        # Starting at zero makes the block start as its shortcut, which trains faster.
        zero = nn.initializer.Constant(0.0)
        self.linear2 = nn.Linear(2 * width, width, weight_attr=zero)

    def forward(self, h, condition):
        """[N, width], condition [N, width] -> [N, width]."""
        inner = self.linear1(self.norm(h)) + self.condition(condition)
        return h + self.linear2(F.silu(inner))


class CodeDenoiser(nn.Layer):
    """What the U-Net is for images, for codes: maps (u_t [N, J], t [N]) to [N, J].

    latent_dim: J. width: of the hidden layers, even. classes: how many labels there
    are; the label number `classes` stands for an unknown one.
    """

    def __init__(self, latent_dim, width=192, blocks=2, classes=0):
        super().__init__()
        if width < 2 or width % 2 or latent_dim < 1 or blocks < 0 or classes < 0:
            found = f"{latent_dim=}, {width=}, {blocks=}, {classes=}"
            raise ValueError(f"no such network: {found}")
        self.latent_dim, self.width, self.classes = latent_dim, width, classes
        self.time = nn.Sequential(
            nn.Linear(width, width), nn.Silu(), nn.Linear(width, width)
        )
        self.label = nn.Embedding(classes + 1, width)
        self.first = nn.Linear(latent_dim, width)
        self.blocks = nn.LayerList([CodeBlock(width) for _ in range(blocks)])
        self.norm = nn.LayerNorm(width)
        self.last = nn.Linear(width, latent_dim)

    def forward(self, u_t, t, labels=None):
        """u_t: [N, J]. t: int64 [N]. labels: int64 [N]; all unknown if None.

        Raises ValueError for codes, steps or labels of another shape, type or range.
        """
        u_t = _codes(u_t, self.latent_dim)
        if labels is None:
            labels = paddle.full([u_t.shape[0]], self.classes, dtype="int64")
        t = _whole(t, len(u_t), "t")
        labels = _whole(labels, len(u_t), "labels", self.classes)
        # Sines and cosines of t at width / 2 frequencies, as in the U-Net
        half = self.width // 2
        exponents = paddle.arange(half, dtype="float32") / half  # from 0 to below 1
        freqs = paddle.exp(-math.log(10000.0) * exponents)
        angles = t.astype("float32").unsqueeze(1) * freqs  # [N, width / 2]
        time = self.time(paddle.concat([angles.sin(), angles.cos()], axis=1))
        condition = F.silu(time + self.label(labels))  # [N, width]
        h = self.first(u_t)  # [N, width]
        for block in self.blocks:
            h = block(h, condition)
        return self.last(self.norm(h))


def _codes(x, width):
    """x as float32; ValueError unless it is a tensor [N, width] of floats."""
    if not paddle.is_tensor(x):
        raise ValueError(f"a tensor is expected, got {type(x)}; use paddle.to_tensor")
    if not x.is_floating_point():
        raise ValueError(f"a tensor of floats is expected, got {x.dtype}")
    if x.ndim != 2 or x.shape[1] != width:
        raise ValueError(f"expected [N, {width}], got {list(x.shape)}")
    return x.astype("float32") if x.dtype == paddle.float64 else x


def _whole(numbers, n, name, most=None):
    """int64 [n]; ValueError unless all are whole and from 0 to `most`."""
    numbers = numbers if paddle.is_tensor(numbers) else paddle.to_tensor(numbers)
    if numbers.shape != [n] or numbers.dtype not in (paddle.int32, paddle.int64):
        found = f"{numbers.dtype} {list(numbers.shape)}"
        raise ValueError(f"{name} must be whole numbers [{n}], got {found}")
    low, high = int(numbers.min()), int(numbers.max())
    if low < 0 or (most is not None and high > most):
        raise ValueError(f"{name} must be from 0 to {most}, got {low} to {high}")
    return numbers.astype("int64")
