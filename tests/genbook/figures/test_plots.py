import io

import matplotlib.pyplot as plt
import numpy as np
import paddle
import pytest
from PIL import Image

from genbook.figures import plots

IMAGES = np.random.default_rng(0).random((12, 1, 8, 8), dtype="float32")


def pixels(figure):
    """What the page shows: [H, W, 4] from 0 to 255."""
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return np.asarray(Image.open(file).convert("RGBA"))


FIGURES = {
    "image_grid": lambda: plots.image_grid(IMAGES, columns=4),
    "image_rows": lambda: plots.image_rows({"a": IMAGES[:4], "b": IMAGES[4:8]}, list("1234")),
    "loss_curves": lambda: plots.loss_curves(
        {"loss": np.arange(50.0), "kl": np.ones(50)}, keys=("loss", "kl")
    ),
    "curves": lambda: plots.curves(np.arange(3), {"one": [1, 2, 3], "two": [3, 2, 1]}),
    "histograms": lambda: plots.histograms({"x": IMAGES}, curve=([0, 1], [1, 1], "flat")),
    "latent_scatter": lambda: plots.latent_scatter(
        {"a": IMAGES[:, 0, 0, :2], "b": IMAGES[:, 0, 1, :2]}, np.arange(12) % 3, ("0", "1", "零")
    ),
    "latent_plane": lambda: plots.latent_plane(lambda z: np.zeros((len(z), 1, 8, 8)), cells=3),
    "planes": lambda: plots.planes(
        {
            "a": {"points": IMAGES[:, 0, 0, :2]},
            "b": {"arrows": (IMAGES[:, 0, 0, :2],) * 2},
            "c": {"paths": IMAGES[:, 0, :3, :2]},
        },
        limit=2,
    ),
    "strip": lambda: plots.strip([IMAGES[:2], IMAGES[2:4], IMAGES[4:6]], ["0", "1", "2"]),
}


@pytest.mark.parametrize("name", FIGURES)
def test_each_figure_has_a_clear_ground_and_something_on_it(name):
    plt.close("all")  # what other tests have left
    figure = FIGURES[name]()
    assert not plt.get_fignums(), "an open figure would be shown a second time"
    alpha = pixels(figure)[..., 3]
    assert (alpha == 0).any() and (alpha == 255).any()


@pytest.mark.parametrize("name", FIGURES)
def test_each_figure_is_the_same_each_time(name):
    np.testing.assert_array_equal(pixels(FIGURES[name]()), pixels(FIGURES[name]()))


def test_a_mosaic_puts_images_row_by_row():
    large = np.random.default_rng(0).random((5, 1, 60, 60), dtype="float32")
    mosaic = plots._mosaic(large, columns=3, gap=1)
    assert mosaic.shape == (121, 182, 4)
    np.testing.assert_array_equal(mosaic[61:, 61:121, 0], large[4, 0])
    assert (mosaic[61:, 122:, 3] == 0).all()  # the place of the sixth image stays clear
    assert (mosaic[60, :, 3] == 0).all() and (mosaic[:, 60, 3] == 0).all()


def test_small_images_are_enlarged_pixel_by_pixel():
    mosaic = plots._mosaic(IMAGES[:1], columns=1)
    np.testing.assert_array_equal(mosaic[::7, ::7, 0], IMAGES[0, 0])
    np.testing.assert_array_equal(mosaic[:, :, 0], np.kron(IMAGES[0, 0], np.ones((7, 7))))


def test_colour_images_keep_their_channels():
    colour = np.random.default_rng(0).random((1, 3, 56, 56), dtype="float32")
    np.testing.assert_array_equal(plots._mosaic(colour, 1)[..., :3], colour[0].transpose(1, 2, 0))


def test_curves_have_the_scales_that_are_asked_for():
    [axis] = plots.curves([1, 10, 100], {"a": [1, 2, 3]}, yscale="log", xscale="log").axes
    assert (axis.get_xscale(), axis.get_yscale()) == ("log", "log")
    assert [label.get_text() for label in axis.get_xticklabels()] == ["1", "10", "100"]
    [axis] = plots.curves(np.arange(1, 12), {"a": np.ones(11)}, xscale="log").axes
    assert len(axis.get_xticks()) < 11
    [axis] = plots.curves([1, 10, 100], {"a": [1, 2, 3]}).axes
    assert (axis.get_xscale(), axis.get_yscale()) == ("linear", "linear")


def test_a_loss_curve_keeps_its_level_however_short_it_is():
    for steps in (1, 10, 100):
        figure = plots.loss_curves({"loss": np.full(steps, 5.0)})
        (line,) = figure.axes[0].lines
        np.testing.assert_allclose(line.get_ydata(), 5.0)
        assert line.get_xdata()[-1] == steps


def test_every_curve_is_drawn():
    figure = plots.curves(np.arange(3), {str(i): np.arange(3) + i for i in range(9)})
    assert len(figure.axes[0].lines) == 9


def test_planes_draw_points_arrows_and_paths_to_their_ends():
    ways = IMAGES[:, 0, :3, :2]  # 12 states of 3 points
    at = IMAGES[0, 0, :, :2]
    figure = plots.planes({"a": {"points": at, "paths": ways}, "b": {"arrows": (at, -at)}}, limit=3)
    first, second = figure.axes
    dots, ends = (collection.get_offsets() for collection in first.collections)
    np.testing.assert_allclose(dots, at)
    np.testing.assert_allclose(ends, ways[-1])
    np.testing.assert_allclose([line.get_xydata() for line in first.lines], ways.swapaxes(0, 1))
    [arrows] = second.collections
    np.testing.assert_allclose(np.stack([arrows.U, arrows.V], axis=1), -at)
    assert first.get_xlim() == second.get_ylim() == (-3, 3)


def test_tensors_are_drawn_as_arrays():
    np.testing.assert_array_equal(
        plots._mosaic(paddle.to_tensor(IMAGES), 4), plots._mosaic(IMAGES, 4)
    )


def test_values_beyond_the_range_are_black_or_white():
    mosaic = plots._mosaic(np.array([[[[-3.0, 4.0]]]]), 1)
    assert (mosaic[..., :28, 0] == 0).all() and (mosaic[..., 28:, 0] == 1).all()


@pytest.mark.parametrize("shape", [(4, 8, 8), (2, 4, 8, 8)])
def test_what_is_no_batch_of_images_is_refused(shape):
    with pytest.raises(ValueError, match=r"\[N, 1 or 3, H, W\]"):
        plots.image_grid(np.zeros(shape))


def test_the_plane_shows_each_code_at_its_place():
    codes = []
    plots.latent_plane(lambda z: codes.append(z) or np.zeros((len(z), 1, 2, 2)), -1, 1, cells=3)
    np.testing.assert_array_equal(codes[0][0], [-1, 1])  # drawn first, at the upper left
    np.testing.assert_array_equal(codes[0][-1], [1, -1])


def luminance(colour):
    channels = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]


def contrast(a, b):
    low, high = sorted([luminance(a), luminance(b)])
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("page", ["#ffffff", "#121212"])
def test_lettering_is_readable_on_light_and_dark_pages(page):
    assert contrast(plots.INK, page) > 4
