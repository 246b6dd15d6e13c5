"""The convolutional autoencoder: two halvings to a code, two doublings to an image."""

import paddle
import paddle.nn as nn


class AutoEncoder(nn.Layer):
    """Encodes an image to 32 feature maps of a quarter of its side, and decodes them.

    Images are float32 [N, in_channels, H, W] in [0, 1], where H and W are multiples
    of 4; a code is [N, 32, H/4, W/4]. The sigmoid at the end keeps the reconstruction
    in (0, 1). Source of the idea: Hinton & Salakhutdinov (2006), "Reducing the
    Dimensionality of Data with Neural Networks", Science 313.
    """

    def __init__(self, in_channels=3):
        super().__init__()
        self.in_channels = in_channels
        self.encoder = nn.Sequential(
            nn.Conv2D(in_channels, 16, 3, stride=1, padding=1),  # [N, 16, H, W]
            nn.ReLU(),
            nn.BatchNorm2D(16),
            nn.MaxPool2D(2, 2),  # [N, 16, H/2, W/2]
            nn.Conv2D(16, 32, 3, stride=1, padding=1),  # [N, 32, H/2, W/2]
            nn.ReLU(),
            nn.BatchNorm2D(32),
            nn.MaxPool2D(2, 2),  # [N, 32, H/4, W/4]
        )
        self.decoder = nn.Sequential(
            nn.Conv2DTranspose(32, 16, 2, stride=2),  # [N, 16, H/2, W/2]
            nn.ReLU(),
            nn.BatchNorm2D(16),
            nn.Conv2DTranspose(16, in_channels, 2, stride=2),  # [N, in_channels, H, W]
            nn.Sigmoid(),
        )

    def encode(self, x):
        """The code of each image: [N, in_channels, H, W] -> [N, 32, H/4, W/4].

        Raises ValueError where H or W is not a multiple of 4: pooling would drop rows.
        """
        x = _maps(x, self.in_channels)
        if x.shape[2] % 4 or x.shape[3] % 4:
            raise ValueError(f"sides must be multiples of 4, got {list(x.shape[2:])}")
        return self.encoder(x)

    def decode(self, z):
        """The image of each code: [N, 32, H/4, W/4] -> [N, in_channels, H, W]."""
        return self.decoder(_maps(z, 32))

    def forward(self, x):
        """The reconstruction x_hat of x, of the same shape."""
        return self.decode(self.encode(x))


def draw_codes(codes, n):
    """n random codes with independent normal components, as wide as those of `codes`.

    codes: [N, ...], of which each component gives its mean and standard deviation.
    Returns [n, ...]. Raises ValueError for no codes, and for n below 0.
    """
    if len(codes) == 0 or n < 0:
        raise ValueError(f"cannot draw {n} codes like {len(codes)}")
    mean = codes.mean(axis=0)
    spread = (codes - mean).square().mean(axis=0).sqrt()
    return mean + spread * paddle.randn([n, *mean.shape])


def _maps(x, channels):
    """x as float32; ValueError unless it is a tensor [N, channels, H, W] of floats."""
    if not paddle.is_tensor(x):
        raise ValueError(f"a tensor is expected, got {type(x)}; use paddle.to_tensor")
    if not x.is_floating_point():
        raise ValueError(f"a tensor of floats is expected, got {x.dtype}")
    if x.ndim != 4 or x.shape[1] != channels:
        raise ValueError(f"expected [N, {channels}, H, W], got {list(x.shape)}")
    return x.astype("float32") if x.dtype == paddle.float64 else x
