"""The drawn numerals: what `draw` promises, and that the drawing is right and legible."""

import numpy as np
import pytest

from genbook.data import strokes


def nearest_mean_accuracy(train, test):
    """How well the nearest class mean of `train` names the images of `test`."""
    (x, y), (images, labels) = train, test
    means = np.stack([x[y == c].mean(0).ravel() for c in range(len(strokes.CLASSES))])
    distance = ((images.reshape(len(images), 1, -1) - means) ** 2).sum(-1)
    return (distance.argmin(1) == labels).mean()


@pytest.mark.parametrize("size", [8, 16, 28])
def test_draw_gives_images_and_labels(size):
    images, labels = strokes.draw(45, size=size)
    assert images.shape == (45, 1, size, size) and images.dtype == np.float32
    assert labels.shape == (45,) and labels.dtype == np.int64
    assert images.min() == 0 and 0.8 < images.max() <= 1
    assert all(image.max() > 0.5 for image in images)


def test_draw_of_few_and_none():
    assert strokes.draw(0)[0].shape == (0, 1, 28, 28)
    assert strokes.draw(1)[0].max() > 0.5


@pytest.mark.parametrize("arguments", [{"n": -1}, {"n": 3, "size": 7}])
def test_draw_refuses(arguments):
    with pytest.raises(ValueError, match="must be a whole number of at least"):
        strokes.draw(**arguments)


def test_classes_come_in_equal_parts_and_mixed():
    _, labels = strokes.draw(150)
    assert np.bincount(labels).tolist() == [10] * 15
    assert (np.diff(labels) != 0).mean() > 0.7


def test_seed_decides():
    first, second = strokes.draw(30, seed=3), strokes.draw(30, seed=3)
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])
    assert not np.array_equal(first[0], strokes.draw(30, seed=4)[0])


def test_no_two_drawings_are_alike():
    images, labels = strokes.draw(300, size=16)
    for label in range(15):
        mine = images[labels == label].reshape(-1, 256)
        assert len(np.unique(mine, axis=0)) == len(mine)


def test_same_seed_is_the_same_writing_at_every_size():
    fine, labels = strokes.draw(60, size=32, seed=5)
    coarse, again = strokes.draw(60, size=16, seed=5)
    np.testing.assert_array_equal(labels, again)
    averaged = fine.reshape(60, 16, 2, 16, 2).mean((2, 4))
    assert np.abs(averaged - coarse[:, 0]).mean() < 0.03


def test_every_numeral_has_a_skeleton_within_its_square():
    assert set(strokes.SKELETONS) == set(strokes.CLASSES)
    for skeleton in strokes.SKELETONS.values():
        points = np.concatenate(skeleton)
        assert points.min() >= 0 and points.max() <= 100
        assert np.ptp(points, axis=0).max() >= 80  # and uses most of it


def test_the_pen_never_leaves_the_image():
    rng = np.random.default_rng(0)
    for skeleton in strokes.SKELETONS.values():
        starts, ends, radii = strokes._write(skeleton, 200, rng)
        for points in (starts, ends):
            assert (points - radii[..., None]).min() > -0.03
            assert (points + radii[..., None]).max() < 1.03


def test_the_hand_varies_in_size_slant_and_pen():
    starts, ends, radii = strokes._write(strokes.SKELETONS["十"], 500, np.random.default_rng(0))
    points = np.concatenate([starts, ends], axis=1)
    across, down = np.ptp(points, axis=1).T
    for extent in (across, down, np.maximum(across, down)):
        assert 0.03 < extent.std() < 0.2 and extent.max() < 0.95
    assert 0.08 < radii.mean(1).std() / radii.mean() < 0.3
    slant = starts[:, -1, 0] - starts[:, -3, 0]  # the upright stroke, drawn last
    assert (slant > 0.02).mean() > 0.1 and (slant < -0.02).mean() > 0.1


def test_render_inks_the_area_of_the_pen_path():
    start, end, radius = np.array([[[0.3, 0.4]]]), np.array([[[0.7, 0.6]]]), np.array([[0.08]])
    length = np.hypot(0.4, 0.2)
    for size in (16, 28, 64):
        area = strokes.render(start, end, radius, size).mean()
        assert area == pytest.approx(2 * 0.08 * length + np.pi * 0.08**2, rel=0.03)


def test_render_puts_x_to_the_right_and_y_down():
    start, end = np.array([[[0.25, 0.125]]]), np.array([[[0.75, 0.125]]])
    image = strokes.render(start, end, np.array([[0.06]]), 8)[0]
    assert image[1].argmax() >= 2 and image[1, 2:6].min() > 0.4
    assert image[3:].max() == 0


def test_render_of_a_dot_is_round():
    dot = np.array([[[0.5, 0.5]]])
    image = strokes.render(dot, dot, np.array([[0.3]]), 15)[0]
    np.testing.assert_allclose(image, image.T, atol=1e-5)
    np.testing.assert_allclose(image, image[::-1], atol=1e-5)
    assert image[7, 7] == 1 and image[0, 0] == 0


def test_render_in_batches_is_render_one_by_one():
    rng = np.random.default_rng(1)
    starts, ends = rng.random((2, 300, 3, 2))
    radii = np.full((300, 3), 0.05)
    together = strokes.render(starts, ends, radii, 16)
    for i in (0, 255, 256, 299):
        alone = strokes.render(starts[i : i + 1], ends[i : i + 1], radii[i : i + 1], 16)
        np.testing.assert_array_equal(together[i], alone[0])


@pytest.mark.parametrize("size", [16, 28])
def test_numerals_can_be_told_apart(size):
    train, test = (strokes.draw(n, size=size, seed=n) for n in (1500, 450))
    assert nearest_mean_accuracy(train, test) > 0.9
