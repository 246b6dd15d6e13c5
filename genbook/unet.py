"""The network that tells noise from image: a small U-Net, told step and class."""

import math

import paddle
import paddle.nn as nn
import paddle.nn.functional as F

GROUPS = 8  # of channels that are normalised together; every width is a multiple


def timestep_embedding(t, dim, max_period=10000.0):
    """Sines and cosines of t at dim / 2 geometrically spaced frequencies.

    t: [N]. dim: even. Returns float32 [N, dim]. Source: Vaswani et al. (2017),
    arXiv:1706.03762, section 3.5. Raises ValueError for an odd dim, and for another t.
    """
    if dim % 2 or t.ndim != 1:
        raise ValueError(f"expected t [N] and an even dim, got {list(t.shape)}, {dim}")
    half = dim // 2
    exponents = paddle.arange(half, dtype="float32") / half  # from 0 to just below 1
    freqs = paddle.exp(-math.log(max_period) * exponents)
    angles = t.astype("float32").unsqueeze(1) * freqs  # [N, dim / 2]
    return paddle.concat([angles.sin(), angles.cos()], axis=1)


class ResBlock(nn.Layer):
    """Two convolutions around a shortcut, shifted by the time embedding between them.

    in_channels, out_channels: of the feature maps, multiples of 8. time_dim: width of
    the time embedding. Each image is normalised by itself (Wu & He 2018,
    arXiv:1803.08494): a batch mixes all noise levels, and its statistics would tell one
    image about the noise of the others.
    """

    def __init__(self, in_channels, out_channels, time_dim):
        super().__init__()
        self.norm1 = nn.GroupNorm(GROUPS, in_channels)
        self.conv1 = nn.Conv2D(in_channels, out_channels, 3, padding=1)
        self.time = nn.Linear(time_dim, out_channels)
        self.norm2 = nn.GroupNorm(GROUPS, out_channels)
        # Starting at zero makes the block start as its shortcut, which trains faster.
        zero = nn.initializer.Constant(0.0)
        self.conv2 = nn.Conv2D(
            out_channels, out_channels, 3, padding=1, weight_attr=zero
        )
        self.shortcut: nn.Layer = nn.Identity()
        if in_channels != out_channels:
            self.shortcut = nn.Conv2D(in_channels, out_channels, 1)

    def forward(self, x, temb):
        """[N, in_channels, H, W], temb [N, time_dim] -> [N, out_channels, H, W]."""
        h = self.conv1(F.silu(self.norm1(x)))
        h = h + self.time(temb).unsqueeze([2, 3])  # [N, out_channels, 1, 1]
        h = self.conv2(F.silu(self.norm2(h)))
        return h + self.shortcut(x)


class UNet(nn.Layer):
    """A U-Net of two levels: half the side with `width` channels, a quarter with twice.

    Each 2 x 2 square of pixels becomes four channels at the start, and four channels
    become a square again at the end: over a quarter of the positions, convolutions cost
    a quarter. Images are [N, channels, H, W] with H and W multiples of 4; width is a
    multiple of 8. classes: how many labels there are, 0 for a network that is told
    none. The label number `classes` stands for an unknown one. Source: Ronneberger et
    al. (2015), arXiv:1505.04597; time embeddings and residual blocks as in Ho et al.
    (2020); the label beside the time as in Nichol & Dhariwal (2021).
    """

    def __init__(self, channels=1, width=64, classes=0):
        super().__init__()
        if width < GROUPS or width % GROUPS or channels < 1 or classes < 0:
            raise ValueError(f"no such U-Net: {channels=}, {width=}, {classes=}")
        time_dim = 4 * width
        self.channels = channels
        self.width = width
        self.classes = classes
        self.time = nn.Sequential(
            nn.Linear(width, time_dim), nn.Silu(), nn.Linear(time_dim, time_dim)
        )
        self.label = nn.Embedding(classes + 1, time_dim)
        self.stem = nn.Conv2D(4 * channels, width, 3, padding=1)
        self.down1 = ResBlock(width, width, time_dim)
        self.shrink = nn.Conv2D(width, 2 * width, 3, stride=2, padding=1)
        self.down2 = ResBlock(2 * width, 2 * width, time_dim)
        self.middle = ResBlock(2 * width, 2 * width, time_dim)
        self.up2 = ResBlock(4 * width, 2 * width, time_dim)
        self.grow = nn.Conv2DTranspose(2 * width, width, 2, stride=2)
        self.up1 = ResBlock(2 * width, width, time_dim)
        self.head = nn.Conv2D(width, 4 * channels, 3, padding=1)

    def forward(self, x_t, t, labels=None):
        """x_t: [N, channels, H, W]. t: int64 [N]. Returns a tensor of x_t's shape.

        labels: int64 [N], from 0 to `classes`; all unknown if None.
        Raises ValueError where H or W is not a multiple of 4, and for images, steps or
        labels of another shape, type or range.
        """
        x_t = _pictures(x_t, self.channels)
        if x_t.shape[2] % 4 or x_t.shape[3] % 4:
            raise ValueError(f"sides must be multiples of 4, got {list(x_t.shape[2:])}")
        if labels is None:
            labels = paddle.full([x_t.shape[0]], self.classes, dtype="int64")
        t = _indices(t, len(x_t), "t")
        labels = _indices(labels, len(x_t), "labels", self.classes)
        temb = self.time(timestep_embedding(t, self.width)) + self.label(labels)
        temb = F.silu(temb)  # [N, 4 width]
        h = self.stem(F.pixel_unshuffle(x_t, 2))  # [N, width, H/2, W/2]
        h1 = self.down1(h, temb)
        h2 = self.down2(self.shrink(h1), temb)  # [N, 2 width, H/4, W/4]
        h = self.middle(h2, temb)
        h = self.up2(paddle.concat([h, h2], axis=1), temb)  # [N, 2 width, H/4, W/4]
        h = paddle.concat([self.grow(h), h1], axis=1)  # [N, 2 width, H/2, W/2]
        h = self.up1(h, temb)  # [N, width, H/2, W/2]
        return F.pixel_shuffle(self.head(F.silu(h)), 2)  # [N, channels, H, W]


def _pictures(x, channels):
    """x as float32; ValueError unless it is a tensor [N, channels, H, W] of floats."""
    if not paddle.is_tensor(x):
        raise ValueError(f"a tensor is expected, got {type(x)}; use paddle.to_tensor")
    if not x.is_floating_point():
        raise ValueError(f"a tensor of floats is expected, got {x.dtype}")
    if x.ndim != 4 or x.shape[1] != channels:
        raise ValueError(f"expected [N, {channels}, H, W], got {list(x.shape)}")
    return x.astype("float32") if x.dtype == paddle.float64 else x


def _indices(numbers, n, name, most=None):
    """int64 [n]; ValueError unless all are whole and from 0 to `most`."""
    numbers = numbers if paddle.is_tensor(numbers) else paddle.to_tensor(numbers)
    if numbers.shape != [n] or numbers.dtype not in (paddle.int32, paddle.int64):
        found = f"{numbers.dtype} {list(numbers.shape)}"
        raise ValueError(f"{name} must be whole numbers [{n}], got {found}")
    low, high = int(numbers.min()), int(numbers.max())
    if low < 0 or (most is not None and high > most):
        raise ValueError(f"{name} must be from 0 to {most}, got {low} to {high}")
    return numbers.astype("int64")
