"""Every figure of the book. Each function takes arrays or tensors and returns a figure.

The figures have no background of their own and grey lettering, so that they are readable on a
white page and on a dark one; curves differ in their dashes and classes in their marks, so that
they are readable without colour.
"""

import functools
from itertools import cycle
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np

INK = "#7a7a7a"  # a grey with a contrast above 4 against white and against near-black
# Okabe & Ito's palette without yellow and black, which vanish on white and on black.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
DASHES = ("-", "--", "-.", ":", (0, (6, 1.5, 1, 1.5, 1, 1.5)), (0, (1, 1)))
WIDTH = 4.4  # inches; narrow, so that the letters stay large on a phone

STYLE: dict[Any, Any] = {
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "figure.dpi": 200,
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.grid": True,
    "grid.color": INK,
    "grid.alpha": 0.25,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "lines.linewidth": 1.8,
    "legend.frameon": False,
    "svg.hashsalt": "genbook",
}


def _styled(draw):
    """Run `draw` under the book's style, and close the figure so that a page shows it once."""

    @functools.wraps(draw)
    def styled(*args, **kwargs):
        with mpl.rc_context(STYLE):
            figure = draw(*args, **kwargs)
        plt.close(figure)
        return figure

    return styled


def _tiles(images):
    """[N, C, H, W] in [0, 1], tensor or array -> array [N, H, W, 3]; one channel becomes grey."""
    images = np.asarray(images)
    if images.ndim != 4 or images.shape[1] not in (1, 3) or images.size == 0:
        raise ValueError(f"images must be [N, 1 or 3, H, W], got {list(images.shape)}")
    least, most = _numbers(images).min(), images.max()
    # Noise goes beyond [0, 1] here and there, but not on average as other ranges do.
    low, high = (images.mean(),) * 2 if images.dtype.kind == "f" else (least, most)
    if low < -0.1 or high > 1.1:
        raise ValueError(f"images must be in [0, 1], got {images.dtype} from {least} to {most}")
    images = np.clip(images.astype(np.float32), 0.0, 1.0)
    tiles = images.transpose(0, 2, 3, 1)
    return np.broadcast_to(tiles, (*tiles.shape[:3], 3))


def _numbers(values, shape=None):
    """As an array; ValueError unless finite numbers of this shape, where None fits any length."""
    array = np.asarray(values)
    if array.dtype.kind not in "fiub" or not np.isfinite(array).all():
        raise ValueError("finite numbers are expected, got NaN, infinity or no numbers")
    if shape is not None and (
        array.ndim != len(shape) or any(n not in (None, m) for n, m in zip(shape, array.shape))
    ):
        expected = ["N" if n is None else n for n in shape]
        raise ValueError(f"expected the shape {expected}, got {list(array.shape)}")
    return array


def _mosaic(images, columns, gap=3):
    """The images beside and below each other, `gap` transparent pixels apart: [H', W', 4].

    Small images are enlarged by a whole factor first, so that the gaps look alike everywhere.
    """
    tiles = _tiles(images)
    factor = max(1, 56 // tiles.shape[2])
    tiles = tiles.repeat(factor, axis=1).repeat(factor, axis=2)
    n, height, width, _ = tiles.shape
    rows = -(-n // columns)
    canvas = np.zeros((rows * (height + gap) - gap, columns * (width + gap) - gap, 4))
    for i, tile in enumerate(tiles):
        top, left = (i // columns) * (height + gap), (i % columns) * (width + gap)
        canvas[top : top + height, left : left + width, :3] = tile
        canvas[top : top + height, left : left + width, 3] = 1.0
    return canvas


@_styled
def image_grid(images, columns=10):
    """Images [N, C, H, W] in [0, 1], row by row."""
    if columns < 1:
        raise ValueError(f"columns must be at least 1, got {columns}")
    mosaic = _mosaic(images, columns)
    figure = plt.figure(figsize=(WIDTH, WIDTH * mosaic.shape[0] / mosaic.shape[1]))
    _picture(figure.add_axes((0, 0, 1, 1)), mosaic)
    return figure


@_styled
def image_rows(rows, column_labels=()):
    """Rows of images under each other: a dict of label -> images [N, C, H, W] in [0, 1].

    column_labels: written above the columns, as many as there are columns.
    """
    mosaics = {label: _mosaic(images, len(images)) for label, images in _named(rows)}
    height = WIDTH * 0.8 * sum(m.shape[0] / m.shape[1] for m in mosaics.values()) * 1.06
    figure, axes = plt.subplots(
        len(rows),
        1,
        figsize=(WIDTH, height + 0.3 * bool(len(column_labels))),
        squeeze=False,
        layout="constrained",
    )
    engine: Any = figure.get_layout_engine()
    engine.set(h_pad=0.02, w_pad=0.02)
    for axis, (label, mosaic) in zip(axes[:, 0], mosaics.items(), strict=True):
        _picture(axis, mosaic)
        axis.set_anchor("E")  # rows of smaller images end where the others end
        axis.axis("on")
        axis.spines[:].set_visible(False)
        axis.set(xticks=[], yticks=[])
        axis.set_ylabel(label, rotation=0, ha="right", va="center")
    if len(column_labels):
        step = mosaics[next(iter(mosaics))].shape[1] / len(column_labels)
        axes[0, 0].xaxis.tick_top()
        axes[0, 0].tick_params(length=0)
        axes[0, 0].set_xticks((np.arange(len(column_labels)) + 0.5) * step - 0.5, column_labels)
    return figure


def _picture(axis, mosaic):
    axis.imshow(mosaic, interpolation="nearest")
    axis.axis("off")
    axis.grid(False)


def loss_curves(history, keys=("loss",), ylabel="nats per image"):
    """The history of `fit` against the step, averaged over 25 steps to show its course.

    history: dict of arrays [steps]. keys: which to draw.
    """
    keys = [keys] if isinstance(keys, str) else keys
    missing = [key for key in keys if key not in history]
    if missing:
        raise ValueError(f"there are no {missing} among the losses {list(history)}")
    steps = len(history[keys[0]])
    window = min(25, steps)
    means = {key: np.convolve(history[key], np.ones(window) / window, "valid") for key in keys}
    return curves(np.arange(window, steps + 1), means, "step", ylabel)


@_styled
def curves(x, ys, xlabel="", ylabel="", yscale="linear", xscale="linear"):
    """Curves over one x: a dict of label -> array of the length of x."""
    figure, axis = plt.subplots(figsize=(WIDTH, 2.5), layout="constrained")
    for label, y, colour, dash in _dashed(ys):
        y = np.asarray(y)
        if y.shape != np.shape(x):
            raise ValueError(f"{label!r} has the shape {list(y.shape)}, x {list(np.shape(x))}")
        axis.plot(x, y, color=colour, linestyle=dash, label=label)
    axis.set(xlabel=xlabel, ylabel=ylabel, yscale=yscale, xscale=xscale)
    if xscale == "log" and len(x) <= 10:  # a label for each, where powers of ten are too few
        axis.set_xticks(x, [f"{number:g}" for number in x])
        axis.xaxis.minorticks_off()
    if len(ys) > 1:
        axis.legend()
    return figure


@_styled
def histograms(samples, bins=60, xlabel="", curve=None):
    """Histograms as densities: a dict of label -> array. curve: (x, y, label) drawn over them."""
    figure, axis = plt.subplots(figsize=(WIDTH, 2.5), layout="constrained")
    for label, values, colour, dash in _dashed(samples):
        draw = functools.partial(
            axis.hist, _numbers(values).ravel(), bins=bins, density=True, color=colour
        )
        draw(alpha=0.2)
        draw(histtype="step", linestyle=dash, linewidth=1.6, label=label)
    if curve is not None:
        x, y, label = curve
        axis.plot(x, y, color=INK, label=label)
    axis.set(xlabel=xlabel, ylabel="density")
    axis.legend()
    return figure


def _dashed(ys):
    """For each of a dict: its label and values, with a colour and dashes."""
    ys = dict(_named(ys))
    return zip(ys.keys(), ys.values(), cycle(COLOURS), cycle(DASHES), strict=False)


def _named(parts):
    """The items of a dict of label -> what to draw; ValueError for anything else, or none."""
    if not isinstance(parts, dict) or not parts:
        found = type(parts).__name__
        raise ValueError(f"expected a dict with labels of what to draw, got {found} {parts!r:.60}")
    return parts.items()


@_styled
def latent_scatter(panels, labels, classes):
    """Codes in the plane, a panel below the other: a dict of title -> codes [N, 2].

    labels: [N], of the same images in every panel. classes: names; one of a single digit or
    letter is also the mark of its codes.
    """
    labels = _numbers(labels, [None])
    panels = {title: _numbers(codes, [len(labels), 2]) for title, codes in _named(panels)}
    figure, axes = plt.subplots(
        len(panels),
        1,
        figsize=(WIDTH, 0.9 * WIDTH * len(panels)),
        squeeze=False,
        layout="constrained",
    )
    for axis, (title, codes) in zip(axes[:, 0], panels.items(), strict=True):
        for k, name in enumerate(classes):
            mark = f"${name}$" if len(name) == 1 and name.isascii() else "o"
            colour = COLOURS[k % len(COLOURS)]
            of_class = codes[labels == k]
            axis.scatter(*of_class.T, marker=mark, color=colour, s=22, linewidths=0.2)
        axis.set_title(title)
        axis.set(xlabel="$z_1$", ylabel="$z_2$")
        axis.set_aspect("equal", "datalim")
    return figure


@_styled
def latent_plane(decode, low=-2.5, high=2.5, cells=15):
    """What `decode` makes of a square grid of codes from low to high in z_1 and z_2.

    decode: maps float32 [cells^2, 2] to images [cells^2, C, H, W] in [0, 1].
    """
    if cells < 2 or not low < high:
        raise ValueError(f"cannot draw {cells=} from {low=} to {high=}")
    at = np.linspace(low, high, cells, dtype=np.float32)
    z1, z2 = np.meshgrid(at, at[::-1])  # z_2 grows upwards
    mosaic = _mosaic(decode(np.stack([z1.ravel(), z2.ravel()], axis=1)), cells, gap=0)
    figure, axis = plt.subplots(figsize=(WIDTH, WIDTH), layout="constrained")
    half = (high - low) / (cells - 1) / 2  # each image lies centred on its code
    edge = (low - half, high + half)
    axis.imshow(mosaic, extent=(*edge, *edge), interpolation="nearest")
    axis.grid(False)
    axis.set(xlabel="$z_1$", ylabel="$z_2$")
    return figure


@_styled
def planes(panels, limit):
    """What happens in the plane, two panels a row: a dict of title -> dict of what to draw there.

    Of each panel any of "points" [N, 2]; "arrows", a pair (at [M, 2], by [M, 2]), whose lengths
    are comparable within a panel only; "paths" [T, N, 2], each ending in a dot. limit: the axes
    go from -limit to limit.
    """
    panels = dict(_named(panels))
    if not limit > 0:
        raise ValueError(f"limit must be above 0, got {limit}")
    rows = -(-len(panels) // 2)
    figure, axes = plt.subplots(
        rows, 2, figsize=(WIDTH, rows * (WIDTH / 2 + 0.1)), squeeze=False, layout="constrained"
    )
    for axis in axes.flat[len(panels) :]:
        axis.axis("off")
    for axis, (title, panel) in zip(axes.flat, panels.items(), strict=False):
        if "points" in panel:
            points = _numbers(panel["points"], [None, 2])
            axis.scatter(*points.T, color=COLOURS[0], s=2, alpha=0.5, linewidths=0)
        if "paths" in panel:
            paths = _numbers(panel["paths"], [None, None, 2])
            axis.plot(paths[..., 0], paths[..., 1], color=INK, linewidth=0.7)
            axis.scatter(*paths[-1].T, color=COLOURS[1], s=8, zorder=3, linewidths=0)
        if "arrows" in panel:
            at, by = (_numbers(numbers, [None, 2]) for numbers in panel["arrows"])
            axis.quiver(*at.T, *by.T, color=COLOURS[1], angles="xy", width=0.008)
        axis.set_title(title)
        axis.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal")
    return figure


def strip(frames, column_labels):
    """A process in time: frames [T, N, C, H, W] in [0, 1], a row for each of N images."""
    frames = np.stack([np.asarray(frame) for frame in frames])
    rows = {" " * (i + 1): frames[:, i] for i in range(frames.shape[1])}
    return image_rows(rows, column_labels)
