"""The networks of the lessons in PyTorch, layer for layer: the yardstick of `speed.py`."""

import math

import torch
import torch.nn.functional as F
from torch import nn


class AutoEncoder(nn.Module):
    """`genbook.autoencoder.AutoEncoder`."""

    def __init__(self, in_channels=3):
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(in_channels, 16, 3, padding=1),
            nn.ReLU(),
            nn.BatchNorm2d(16),
            nn.MaxPool2d(2, 2),
            nn.Conv2d(16, 32, 3, padding=1),
            nn.ReLU(),
            nn.BatchNorm2d(32),
            nn.MaxPool2d(2, 2),
        )
        self.decoder = nn.Sequential(
            nn.ConvTranspose2d(32, 16, 2, stride=2),
            nn.ReLU(),
            nn.BatchNorm2d(16),
            nn.ConvTranspose2d(16, in_channels, 2, stride=2),
            nn.Sigmoid(),
        )

    def forward(self, x):
        return self.decoder(self.encoder(x))


class VAE(nn.Module):
    """`genbook.vae.VAE`."""

    def __init__(self, image_shape, hidden, latent_dim):
        super().__init__()
        self.image_shape = image_shape
        pixels = math.prod(image_shape)

        def layers(widths):
            steps = zip(widths[:-1], widths[1:], strict=True)
            return [layer for a, b in steps for layer in (nn.Linear(a, b), nn.ReLU())]

        self.encoder = nn.Sequential(nn.Flatten(), *layers([pixels, *hidden]))
        self.to_mu = nn.Linear(hidden[-1], latent_dim)
        self.to_logvar = nn.Linear(hidden[-1], latent_dim)
        up = [latent_dim, *reversed(hidden)]
        self.decoder = nn.Sequential(*layers(up), nn.Linear(up[-1], pixels), nn.Sigmoid())

    def forward(self, x):
        h = self.encoder(x)
        mu, logvar = self.to_mu(h), self.to_logvar(h)
        z = mu + torch.exp(0.5 * logvar) * torch.randn_like(mu)
        return self.decoder(z).reshape(-1, *self.image_shape), mu, logvar


class ResBlock(nn.Module):
    """`genbook.unet.ResBlock`."""

    def __init__(self, in_channels, out_channels, time_dim):
        super().__init__()
        self.norm1 = nn.GroupNorm(8, in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.time = nn.Linear(time_dim, out_channels)
        self.norm2 = nn.GroupNorm(8, out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)
        self.shortcut = nn.Identity()
        if in_channels != out_channels:
            self.shortcut = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x, temb):
        h = self.conv1(F.silu(self.norm1(x)))
        h = h + self.time(temb)[:, :, None, None]
        return self.conv2(F.silu(self.norm2(h))) + self.shortcut(x)


class UNet(nn.Module):
    """`genbook.unet.UNet`."""

    def __init__(self, channels=1, width=64):
        super().__init__()
        time_dim = 4 * width
        self.width = width
        self.time = nn.Sequential(
            nn.Linear(width, time_dim), nn.SiLU(), nn.Linear(time_dim, time_dim)
        )
        self.stem = nn.Conv2d(4 * channels, width, 3, padding=1)
        self.down1 = ResBlock(width, width, time_dim)
        self.shrink = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
        self.down2 = ResBlock(2 * width, 2 * width, time_dim)
        self.middle = ResBlock(2 * width, 2 * width, time_dim)
        self.up2 = ResBlock(4 * width, 2 * width, time_dim)
        self.grow = nn.ConvTranspose2d(2 * width, width, 2, stride=2)
        self.up1 = ResBlock(2 * width, width, time_dim)
        self.head = nn.Conv2d(width, 4 * channels, 3, padding=1)

    def forward(self, x_t, t):
        half = self.width // 2
        freqs = torch.exp(-math.log(10000.0) * torch.arange(half) / half)
        angles = t.float()[:, None] * freqs
        temb = F.silu(self.time(torch.cat([angles.sin(), angles.cos()], 1)))
        h1 = self.down1(self.stem(F.pixel_unshuffle(x_t, 2)), temb)
        h2 = self.down2(self.shrink(h1), temb)
        h = self.middle(h2, temb)
        h = self.up2(torch.cat([h, h2], 1), temb)
        h = self.up1(torch.cat([self.grow(h), h1], 1), temb)
        return F.pixel_shuffle(self.head(F.silu(h)), 2)
