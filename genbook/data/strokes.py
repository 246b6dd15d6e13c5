"""Chinese numerals drawn from stroke skeletons: a data set that needs no download.

Each numeral is a few pen strokes on a 100 x 100 square (x to the right, y down). `draw` lets
an imaginary hand write them: every stroke is moved, turned and bent a little, then the whole
character is slanted, stretched and warped, and a pen of random width follows the result.
"""

import numpy as np

CLASSES = tuple("零一二三四五六七八九十百千万亿")

# A straight stroke is cut into pieces of about this length, so that it can bend.
_PIECE = 16


def _line(*xy):
    """The corners (x0, y0, x1, y1, ...) of a stroke joined by straight lines -> [K, 2]."""
    corners = np.array(xy, dtype=float).reshape(-1, 2)
    points = [corners[:1]]
    for start, end in zip(corners[:-1], corners[1:]):
        pieces = max(1, round(np.hypot(*(end - start)) / _PIECE))
        points.append(start + (end - start) * np.linspace(0, 1, pieces + 1)[1:, None])
    return np.concatenate(points)


def _curve(x0, y0, x1, y1, x2, y2):
    """A quadratic Bezier curve from (x0, y0) to (x2, y2), drawn towards (x1, y1) -> [K, 2]."""
    start, pull, end = np.array([(x0, y0), (x1, y1), (x2, y2)], dtype=float)
    length = np.hypot(*(pull - start)) + np.hypot(*(end - pull))
    t = np.linspace(0, 1, max(4, round(length / _PIECE) + 1))[:, None]
    return (1 - t) ** 2 * start + 2 * t * (1 - t) * pull + t**2 * end


def _join(*parts):
    """One stroke of several parts, each beginning where the one before it ends -> [K, 2]."""
    return np.concatenate([parts[0]] + [part[1:] for part in parts[1:]])


# In writing order. 零, the densest, is simplified as quick hands do: one drop of rain on each
# side instead of two, and no dot under the roof of 令.
SKELETONS = {
    "零": [
        _line(24, 3, 76, 2),
        _line(7, 16, 4, 33),
        _line(7, 16, 94, 15, 89, 31),
        _line(50, 3, 50, 42),
        _line(22, 32, 36, 34),
        _line(64, 34, 78, 32),
        _curve(50, 45, 36, 62, 4, 72),
        _curve(50, 45, 66, 62, 97, 71),
        _line(29, 77, 72, 76, 51, 90),
        _line(41, 86, 58, 100),
    ],
    "一": [_line(7, 52, 93, 48)],
    "二": [_line(24, 28, 76, 26), _line(7, 77, 93, 75)],
    "三": [_line(18, 17, 82, 15), _line(26, 48, 74, 46), _line(7, 82, 93, 80)],
    "四": [
        _line(10, 20, 17, 84),
        _line(10, 20, 90, 18, 83, 84),
        _curve(40, 21, 41, 46, 28, 60),
        _join(_line(60, 20, 60, 46), _curve(60, 46, 60, 56, 72, 56)),
        _line(17, 80, 83, 79),
    ],
    "五": [
        _line(17, 14, 83, 12),
        _line(48, 14, 36, 86),
        _line(20, 49, 73, 46, 68, 86),
        _line(5, 87, 95, 86),
    ],
    "六": [
        _line(45, 4, 54, 17),
        _line(7, 36, 93, 33),
        _curve(38, 50, 32, 74, 12, 92),
        _curve(61, 50, 78, 70, 89, 92),
    ],
    "七": [
        _line(7, 50, 92, 36),
        _join(_line(42, 8, 42, 70), _curve(42, 70, 42, 86, 58, 86), _line(58, 86, 89, 86, 91, 68)),
    ],
    "八": [_curve(37, 18, 34, 62, 6, 88), _curve(59, 14, 68, 66, 95, 88)],
    "九": [
        _curve(40, 6, 42, 66, 6, 92),
        _join(
            _line(10, 33, 67, 30, 63, 72),
            _curve(63, 72, 62, 88, 76, 88),
            _line(76, 88, 92, 87, 94, 68),
        ),
    ],
    "十": [_line(7, 45, 93, 42), _line(50, 6, 50, 95)],
    "百": [
        _line(9, 8, 91, 6),
        _line(52, 8, 43, 29),
        _line(23, 31, 24, 97),
        _line(23, 31, 77, 30, 76, 97),
        _line(24, 62, 76, 61),
        _line(24, 92, 76, 92),
    ],
    "千": [_curve(76, 5, 56, 18, 20, 21), _line(5, 47, 95, 44), _line(50, 16, 50, 96)],
    "万": [
        _line(6, 12, 94, 10),
        _line(39, 43, 80, 41, 74, 90, 58, 83),
        _curve(41, 12, 42, 68, 8, 94),
    ],
    "亿": [
        _curve(33, 5, 25, 32, 3, 52),
        _line(20, 34, 20, 96),
        _join(
            _line(46, 17, 89, 15, 53, 62),
            _curve(53, 62, 38, 88, 60, 88),
            _line(60, 88, 91, 87, 93, 68),
        ),
    ],
}


def read_strokes(split, size, root):
    """3,000 numerals to train on, and 750 to test with."""
    n, seed = (3000, 1) if split == "train" else (750, 2)
    images, labels = draw(n, size=size, seed=seed)
    return images[:, 0], labels


def draw(n, *, size=28, seed=0):
    """Write n numerals by an imaginary hand; the classes come in equal parts, shuffled.

    The same seed gives the same writing at every size.

    Returns:
        images: float32 [n, 1, size, size] in [0, 1], white ink on black.
        labels: int64 [n], an index into `CLASSES`.
    """
    if not isinstance(n, (int, np.integer)) or n < 0:
        raise ValueError(f"n must be a whole number of at least 0, not {n}")
    if not isinstance(size, (int, np.integer)) or size < 8:
        raise ValueError(f"size must be a whole number of at least 8, not {size}")
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n, dtype=np.int64) % len(CLASSES))
    images = np.zeros((n, 1, size, size), dtype=np.float32)
    for label, character in enumerate(CLASSES):
        rows = np.flatnonzero(labels == label)
        if len(rows):
            starts, ends, radii = _write(SKELETONS[character], len(rows), rng)
            images[rows, 0] = render(starts, ends, radii, size)
    return images, labels


def _write(skeleton, n, rng):
    """One numeral in n handwritings.

    Returns:
        starts, ends: [n, S, 2], the straight pieces of the pen's path; the image is the
            square from 0 to 1.
        radii: [n, S], half the width of the pen along each piece.
    """
    strokes = [_vary(points / 100 - 0.5, n, rng) for points in skeleton]
    starts = np.concatenate([path[:, :-1] for path, _ in strokes], axis=1)
    ends = np.concatenate([path[:, 1:] for path, _ in strokes], axis=1)
    pressure = np.concatenate([pressure for _, pressure in strokes], axis=1)
    radii = rng.uniform(0.032, 0.048, (n, 1)) * _fineness(skeleton) * pressure
    starts, ends = _place(_lean(np.stack([starts, ends]), rng), rng)
    return starts, ends, radii


def _vary(points, n, rng):
    """One stroke [K, 2] in n variants: stretched, turned, bent and moved a little.

    Returns:
        path: [n, K, 2].
        pressure: [n, K - 1] around 1, falling along the stroke.
    """
    stretch, turn, bend, press = rng.standard_normal((4, n, 1))
    stretch, turn, bend, press = 1 + 0.06 * stretch, 0.06 * turn, 0.14 * bend, 1 + 0.06 * press
    along = np.linspace(0, 1, len(points))
    centre = points.mean(0)
    x, y = (stretch * offset for offset in (points - centre).T)
    chord = points[-1] - points[0]
    arc = bend * along * (1 - along)  # sideways, nothing at the ends
    path = np.stack([x - turn * y - arc * chord[1], y + turn * x + arc * chord[0]], axis=-1)
    path += centre + 0.018 * rng.standard_normal((n, 1, 2))
    return path, press * (1.12 - 0.3 * along[1:])


def _lean(path, rng):
    """What the hand does to whole characters: a smooth warp, a slant, a shape [2, n, S, 2]."""
    n = path.shape[1]
    x, y = path[..., 0], path[..., 1]
    phase = rng.uniform(0, 2 * np.pi, (2, n, 1))
    warp, (slant, rise) = rng.standard_normal((2, 2, n, 1))
    x, y = (
        x + 0.03 * warp[0] * np.sin(4 * y + phase[0]),
        y + 0.03 * warp[1] * np.sin(4 * x + phase[1]),
    )
    # Chinese writing leans to either side, and its horizontals mostly rise to the right.
    width, height = rng.uniform(0.66, 0.86, (2, n, 1))
    x, y = width * (x - 0.1 * slant * y), height * (y - (0.04 + 0.05 * rise) * x)
    return np.stack([x, y], axis=-1)


def _place(path, rng, room=0.44):
    """Put each character [2, n, S, 2] near the middle of its image and wholly into it."""
    low, high = path.min((0, 2), keepdims=True), path.max((0, 2), keepdims=True)
    half = (high - low) / 2
    scale = np.minimum(1, room / half.max(-1, keepdims=True))
    slack = room - scale * half
    shift = np.clip(0.02 * rng.standard_normal(slack.shape), -slack, slack)
    return 0.5 + scale * (path - low - half) + shift


def _fineness(skeleton):
    """How much finer than usual the pen must be for a dense numeral to stay open: 0 to 1."""
    ink = sum(np.hypot(*np.diff(stroke, axis=0).T).sum() for stroke in skeleton) / 100
    return min(1, (3.4 / ink) ** 0.5)


def render(starts, ends, radii, size):
    """Draw pen paths without jagged edges: a pixel's ink follows from its distance to the pen.

    Args:
        starts, ends: [N, S, 2], the x and y of S straight pieces, the image spanning [0, 1].
        radii: [N, S], half the pen's width along each piece, in the same unit.
        size: pixels per side.

    Returns:
        float32 [N, size, size] in [0, 1].
    """
    images = np.empty((len(starts), size, size), dtype=np.float32)
    batch = max(1, 2**16 // size**2)  # a few hundred kB at a time stay in the CPU's cache
    for i in range(0, len(images), batch):
        rows = slice(i, i + batch)
        a, b, r = (x[rows].astype(np.float32) for x in (starts, ends, radii))
        images[rows] = _render(a, b, r, size)
    return images


def _render(starts, ends, radii, size):
    pixels = (np.arange(size, dtype=np.float32) + 0.5) / size
    nearest = np.full((len(starts), size, size), np.inf, dtype=np.float32)
    # A piece from a to a + d is nearest to the pixel p at a + t d, where t = clip(u, 0, 1) and
    # u = (p - a).d / |d|^2; the squared distance is |p - a|^2 + |d|^2 t (t - 2u). Both u and
    # |p - a|^2 are a function of x plus a function of y, and so cheap.
    for s in range(starts.shape[1]):
        a, d = starts[:, s], ends[:, s] - starts[:, s]
        length2 = np.maximum((d**2).sum(1), 1e-12)[:, None, None]
        x, y = pixels - a[:, :1], pixels - a[:, 1:]
        u = (x * d[:, :1])[:, None, :] + (y * d[:, 1:])[:, :, None]
        u /= length2
        t = np.clip(u, 0, 1)
        u *= -2
        u += t
        u *= t
        u *= length2
        u += (x**2)[:, None, :]
        u += (y**2)[:, :, None]
        u /= radii[:, s, None, None] ** 2
        np.minimum(nearest, u, out=nearest)
    # `nearest` is (distance / pen radius)^2; the edge of the pen is one pixel of grey.
    pen = size * radii.mean(1)[:, None, None]
    return np.clip(0.5 + pen * (1 - np.sqrt(np.maximum(nearest, 0))), 0, 1)
