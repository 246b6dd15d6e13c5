"""More images from few: small distortions that keep a digit the digit it is."""

from dataclasses import replace

import numpy as np
from scipy.ndimage import affine_transform

ENOUGH = 15_000  # images; a set that has as many is left as it is


def augment(data, seed=0):
    """The Dataset `data` with distorted copies of its images, some 15,000 in all.

    Each copy is turned by about 4 degrees, sheared and stretched by about 5 per cent
    and moved by about half a pixel; these are standard deviations. The originals come
    first. Labels go along.
    """
    times = max(1, ENOUGH // len(data))
    rng = np.random.default_rng(seed)
    copies = [distorted(data.images, rng) for _ in range(times - 1)]
    return replace(
        data,
        images=np.concatenate([data.images, *copies]),
        labels=np.tile(data.labels, times),
    )


def distorted(images, rng):
    """A copy of images [N, C, H, W] in [0, 1], each under its own small affine map."""
    if images.ndim != 4 or images.dtype.kind != "f":
        found = f"{images.dtype} {images.shape}"
        raise ValueError(f"floats [N, C, H, W] expected, got {found}")
    n, _, height, width = images.shape
    turn = rng.normal(0, 0.07, n)  # radians
    shear = rng.normal(0, 0.05, n)  # a share of the height
    stretch, shift = rng.normal(1, 0.04, (n, 2)), rng.normal(0, 0.5, (n, 2))
    centre = np.array([height - 1, width - 1]) / 2
    result = np.empty_like(images)
    for i in range(n):
        sin, cos = np.sin(turn[i]), np.cos(turn[i])
        down, right = cos * stretch[i]
        matrix = np.array([[down, shear[i] - sin], [sin, right]])
        offset = centre - matrix @ centre + shift[i]
        for channel, image in enumerate(images[i]):
            result[i, channel] = affine_transform(image, matrix, offset, order=3)
    return result.clip(0, 1)
