"""How a thin scanned character is written anew, as the characters of MNIST are."""

import numpy as np
from PIL import Image
from scipy import ndimage


def redraw(pixels, size, *, box=0.76, pen=0.075):
    """Write a thin scanned character anew: of a common size, in the middle, with an even pen.

    As in MNIST the character is scaled to a common box and its centre of mass goes to the
    centre of the image, except where the box would then leave the image. The strokes are cut
    out at three times the resolution, widened to the pen, and averaged down.

    Args:
        pixels: uint8 [H, W], white ink on black, not blank.
        size: pixels per side of the result.
        box: the longer side of the character, in parts of the result's.
        pen: the width of the strokes, in the same unit.

    Returns:
        float64 [size, size] in [0, 1].
    """
    if pixels.ndim != 2 or pixels.dtype != np.uint8 or not pixels.any():
        raise ValueError(f"expected ink, uint8 [H, W], got {pixels.dtype} {list(pixels.shape)}")
    # The black frame lets the interpolation see past the edge of the scan.
    ink = np.pad(_without_specks(pixels / pixels.max()), 2)
    rows, columns = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
    low = np.array([rows[0], columns[0]])
    high = np.array([rows[-1], columns[-1]]) + 1

    fine = 3
    side = fine * size
    # A scanned stroke is about 1.2 pixels wide, and must not grow wider than the pen.
    zoom = min(box * side / (high - low).max(), pen * side / 1.2)
    half, margin = side / zoom / 2, pen * side / zoom / 2
    centre = np.array(ndimage.center_of_mass(ink)) + 0.5
    centre = np.clip(centre, high + margin - half, low - margin + half)
    top, left = centre - half
    enlarged = Image.fromarray(ink.astype(np.float32)).transform(
        (side, side),
        Image.Transform.AFFINE,
        (1 / zoom, 0, left, 0, 1 / zoom, top),
        Image.Resampling.BICUBIC,
    )
    distance = ndimage.distance_transform_edt(np.asarray(enlarged) < 0.22)
    widened = np.clip((pen * side - 1.2 * zoom) / 2 + 1 - distance, 0, 1)
    return widened.reshape(size, fine, size, fine).mean((1, 3))


def _without_specks(ink):
    """Blacken what is not the character: [H, W] in [0, 1] -> the same.

    Dust is a small part far from all others; remains of the table's ruled lines, in which the
    characters were written, lie along the edges.
    """
    parts, _ = ndimage.label(ndimage.binary_dilation(ink > 0.15, np.ones((5, 5))))
    inner = (slice(4, -4), slice(4, -4))
    mass = np.bincount(parts[inner].ravel(), ink[inner].ravel(), minlength=parts.max() + 1)
    mass[0] = 0
    keep = mass >= 0.05 * mass.sum()
    keep[0] = False
    return np.where(keep[parts], ink, 0)
