"""Attention, and a transformer as the network of diffusion: DiT, told step and class.

Tokens are float32 [N, n, width]: of N images n vectors each, one for each patch, row by
row. Sources: Vaswani et al. (2017), arXiv:1706.03762, for attention; Dosovitskiy et al.
(2020), arXiv:2010.11929, for patches; Peebles & Xie (2022), arXiv:2212.09748, "DiT".
"""

import math

import paddle
import paddle.nn as nn
import paddle.nn.functional as F

PERIOD = 100.0  # of the slowest sine of a place; a row has far fewer patches


def attention(q, k, v):
    """For each query the mean of the values, weighted by a softmax; and the weights.

    q: queries [..., n, d]. k: keys [..., m, d]. v: values [..., m, e]. Returns the
    means [..., n, e] and the weights [..., n, m], whose rows add up to 1. Vaswani et
    al. (2017), equation 1. Raises ValueError where queries and keys differ in d, or
    keys and values in m.
    """
    if q.shape[-1] != k.shape[-1] or k.shape[-2] != v.shape[-2]:
        shapes = [list(x.shape) for x in (q, k, v)]
        raise ValueError(f"expected [n, d], [m, d] and [m, e] at the end, got {shapes}")
    scores = q @ k.swapaxes(-2, -1) / math.sqrt(q.shape[-1])
    weights = F.softmax(scores, axis=-1)
    return weights @ v, weights


class SelfAttention(nn.Layer):
    """Attention from all tokens to all, in several heads side by side.

    Each of the `heads` has width / heads numbers of every query, key and value. Raises
    ValueError unless heads divides width.
    """

    def __init__(self, width, heads):
        super().__init__()
        if width < 1 or heads < 1 or width % heads:
            raise ValueError(f"no such attention: {width=}, {heads=}")
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def split(self, x):
        """For x [N, n, width] each head's queries, keys and values, [N, n, d] each."""
        parts = self.qkv(x).chunk(3, axis=2)
        return zip(*[part.chunk(self.heads, axis=2) for part in parts], strict=True)

    def forward(self, x):
        """[N, n, width] -> [N, n, width]."""
        means = [attention(q, k, v)[0] for q, k, v in self.split(x)]
        return self.out(paddle.concat(means, axis=2))


def places(rows, columns, width):
    """A vector for each place of a grid, row by row: float32 [rows * columns, width].

    The first half are the sines of the row, the second those of the column. Raises
    ValueError unless width is a multiple of 4.
    """
    if width % 4:
        raise ValueError(f"width must be a multiple of 4, got {width}")
    row = paddle.arange(rows).repeat_interleave(columns)  # 0, 0, ..., 1, 1, ...
    column = paddle.arange(columns).tile([rows])  # 0, 1, ..., 0, 1, ...
    parts = [_sines(numbers, width // 2, PERIOD) for numbers in (row, column)]
    return paddle.concat(parts, axis=1)


def _sines(numbers, dim, max_period):
    """Sines and cosines of numbers [N] at dim / 2 frequencies: float32 [N, dim].

    The frequencies fall geometrically from 1 towards 1 / max_period.
    """
    half = dim // 2
    exponents = paddle.arange(half, dtype="float32") / half  # from 0 to just below 1
    freqs = paddle.exp(-math.log(max_period) * exponents)
    angles = numbers.astype("float32").unsqueeze(1) * freqs  # [N, dim / 2]
    return paddle.concat([angles.sin(), angles.cos()], axis=1)


class DiTBlock(nn.Layer):
    """Attention and then two linear layers, each around a shortcut and behind a gate.

    The condition says how both are normalised and gated. All of it starts at zero, so
    that the block starts as the identity: Peebles & Xie (2022), "adaLN-Zero".
    """

    def __init__(self, width, heads):
        super().__init__()
        self.norm = nn.LayerNorm(width, weight_attr=False, bias_attr=False)
        self.attention = SelfAttention(width, heads)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.Silu(), nn.Linear(4 * width, width)
        )
        self.modulation = _zero_linear(width, 6 * width)

    def forward(self, h, condition):
        """[N, n, width], condition [N, width] -> [N, n, width]."""
        parts = self.modulation(condition).unsqueeze(1).chunk(6, axis=2)
        shift1, scale1, gate1, shift2, scale2, gate2 = parts  # [N, 1, width]
        h = h + gate1 * self.attention(self.norm(h) * (1 + scale1) + shift1)
        return h + gate2 * self.mlp(self.norm(h) * (1 + scale2) + shift2)


class DiT(nn.Layer):
    """A transformer over patches, in the place of the U-Net.

    Images are [N, channels, H, W], with H and W multiples of `patch`. width: of the
    tokens, a multiple of 4 and of heads. classes: how many labels there are, 0 for a
    network that is told none. The label number `classes` stands for an unknown one.
    positions: whether tokens are told their places. Raises ValueError for others.
    """

    def __init__(
        self,
        channels=1,
        patch=2,
        width=64,
        blocks=2,
        heads=4,
        classes=0,
        positions=True,
    ):
        super().__init__()
        if channels < 1 or patch < 1 or width % 4 or blocks < 0 or classes < 0:
            found = f"{channels=}, {patch=}, {width=}, {blocks=}, {classes=}"
            raise ValueError(f"no such transformer: {found}")
        self.channels, self.patch, self.width = channels, patch, width
        self.classes, self.positions = classes, positions
        self.time = nn.Sequential(
            nn.Linear(width, width), nn.Silu(), nn.Linear(width, width)
        )
        self.label = nn.Embedding(classes + 1, width)
        self.embed = nn.Linear(channels * patch**2, width)
        self.blocks = nn.LayerList([DiTBlock(width, heads) for _ in range(blocks)])
        self.norm = nn.LayerNorm(width, weight_attr=False, bias_attr=False)
        self.modulation = _zero_linear(width, 2 * width)
        self.head = _zero_linear(width, channels * patch**2)

    def forward(self, x_t, t, labels=None):
        """x_t: [N, channels, H, W]. t: int64 [N]. Returns a tensor of x_t's shape.

        labels: int64 [N], from 0 to `classes`; all unknown if None.
        Raises ValueError where H or W is not a multiple of patch, and for images, steps
        or labels of another shape, type or range.
        """
        x_t = _patchable(x_t, self.channels, self.patch)
        if labels is None:
            labels = paddle.full([len(x_t)], self.classes, dtype="int64")
        t = _integers(t, len(x_t), "t")
        labels = _integers(labels, len(x_t), "labels", self.classes)
        time = self.time(_sines(t, self.width, 10000.0))
        condition = F.silu(time + self.label(labels))  # [N, width]
        folded = F.pixel_unshuffle(x_t, self.patch)  # [N, C patch^2, rows, columns]
        rows, columns = folded.shape[2:]
        h = self.embed(folded.flatten(2).transpose([0, 2, 1]))  # [N, n, width]
        if self.positions:
            h = h + places(rows, columns, self.width)
        for block in self.blocks:
            h = block(h, condition)
        shift, scale = self.modulation(condition).unsqueeze(1).chunk(2, axis=2)
        out = self.head(self.norm(h) * (1 + scale) + shift)  # [N, n, channels patch^2]
        out = out.transpose([0, 2, 1]).reshape([len(x_t), -1, rows, columns])
        return F.pixel_shuffle(out, self.patch)  # [N, channels, H, W]


def _zero_linear(inputs, outputs):
    """A linear layer whose weights start at zero, as its bias does."""
    return nn.Linear(inputs, outputs, weight_attr=nn.initializer.Constant(0.0))


def _patchable(x, channels, patch):
    """x as float32; ValueError unless it is a tensor [N, channels, H, W] of floats."""
    if not paddle.is_tensor(x):
        raise ValueError(f"a tensor is expected, got {type(x)}; use paddle.to_tensor")
    if not x.is_floating_point():
        raise ValueError(f"a tensor of floats is expected, got {x.dtype}")
    if x.ndim != 4 or x.shape[1] != channels:
        raise ValueError(f"expected [N, {channels}, H, W], got {list(x.shape)}")
    if x.shape[2] % patch or x.shape[3] % patch:
        found = list(x.shape[2:])
        raise ValueError(f"sides must be multiples of {patch}, got {found}")
    return x.astype("float32") if x.dtype == paddle.float64 else x


def _integers(numbers, n, name, most=None):
    """int64 [n]; ValueError unless all are whole and from 0 to `most`."""
    numbers = numbers if paddle.is_tensor(numbers) else paddle.to_tensor(numbers)
    if numbers.shape != [n] or numbers.dtype not in (paddle.int32, paddle.int64):
        found = f"{numbers.dtype} {list(numbers.shape)}"
        raise ValueError(f"{name} must be whole numbers [{n}], got {found}")
    low, high = int(numbers.min()), int(numbers.max())
    if low < 0 or (most is not None and high > most):
        raise ValueError(f"{name} must be from 0 to {most}, got {low} to {high}")
    return numbers.astype("int64")
