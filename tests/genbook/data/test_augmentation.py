import numpy as np
import pytest

from genbook.data import Dataset
from genbook.data import augmentation as module
from genbook.data.augmentation import augment, distorted


def dataset(images):
    labels = np.arange(len(images)) % 3
    return Dataset("digits", "train", images.astype("float32"), labels, ("a", "b", "c"))


def disc(size=16):
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    return (np.hypot(y, x) < 5).astype("float32")[np.newaxis, np.newaxis]


def test_originals_come_first_and_labels_go_along(monkeypatch):
    monkeypatch.setattr(module, "ENOUGH", 15)
    data = dataset(np.random.default_rng(0).random((4, 1, 8, 8)))
    more = augment(data)
    assert len(more) == len(more.images) == 12  # three times four, and no fourth copy
    np.testing.assert_array_equal(more.images[:4], data.images)
    np.testing.assert_array_equal(more.labels, np.tile(data.labels, 3))
    assert more.images.dtype == np.float32 and 0 <= more.images.min() <= more.images.max() <= 1


def test_there_are_some_15_000_images():
    data = dataset(np.zeros((1797, 1, 8, 8)))
    assert len(augment(data)) == 8 * 1797


def test_a_large_set_is_left_alone(monkeypatch):
    monkeypatch.setattr(module, "ENOUGH", 7)
    data = dataset(np.random.default_rng(0).random((4, 1, 8, 8)))
    np.testing.assert_array_equal(augment(data).images, data.images)


def test_copies_differ_and_repeat_with_the_seed(monkeypatch):
    monkeypatch.setattr(module, "ENOUGH", 3)
    data = dataset(disc())
    first, second = augment(data).images, augment(data).images
    np.testing.assert_array_equal(first, second)
    assert np.abs(first[1] - first[2]).max() > 0.1
    assert np.abs(augment(data, seed=1).images[1] - first[1]).max() > 0.1


def test_shift_and_stretch_are_of_the_stated_size(monkeypatch):
    """A disc's centre of mass moves by half a pixel, and its area spreads by 4% twice."""
    monkeypatch.setattr(module, "ENOUGH", 2000)
    images = augment(dataset(disc())).images[1:, 0].astype(np.float64)
    mass = images.sum((1, 2))
    centre = (images * np.arange(16)[:, np.newaxis]).sum((1, 2)) / mass
    assert abs(centre.mean() - 7.5) < 0.05
    assert abs(centre.std() - 0.5) < 0.05
    assert abs(np.log(mass).std() - 0.04 * np.sqrt(2)) < 0.01


def test_strokes_stay_thin_and_dark_ground_stays_dark(monkeypatch):
    monkeypatch.setattr(module, "ENOUGH", 200)
    images = augment(dataset(disc())).images
    assert images[:, :, 0].max() < 0.05  # the disc never reaches the border
    assert images[:, :, 7:9, 7:9].min() > 0.95


PLACES = np.array([[8.0, 9.0], [9.0, 15.0], [15.0, 10.0]])  # of a blob in each channel


def blobs(places, size=24):
    """Soft spots at these (row, column) places, one in each channel: [3, size, size]."""
    rows, columns = np.mgrid[:size, :size]
    square = [(rows - i) ** 2 + (columns - j) ** 2 for i, j in places]
    return np.exp(-np.array(square) / (2 * 1.5**2))


@pytest.fixture(scope="module")
def maps():
    """The affine map of each copy, from where the three blobs went: [N, 2, 2], [N, 2]."""
    n = 1500
    images = np.tile(blobs(PLACES), (n, 1, 1, 1)).astype("float32")
    copies = distorted(images, np.random.default_rng(0)).astype("float64")
    axis, mass = np.arange(24), copies.sum((2, 3))
    went = [(copies.sum(3) * axis).sum(2) / mass, (copies.sum(2) * axis).sum(2) / mass]
    corners = np.concatenate([np.stack(went, axis=2) - 11.5, np.ones((n, 3, 1))], axis=2)
    found = np.linalg.solve(corners, np.tile(PLACES - 11.5, (n, 1, 1)))  # [N, 3, 2]
    return found[:, :2].transpose(0, 2, 1), found[:, 2], copies


def assert_deviates(numbers, expected):
    n = len(numbers)
    assert abs(numbers.mean()) < 5 * expected / np.sqrt(n)
    assert abs(numbers.std() / expected - 1) < 5 / np.sqrt(2 * n)


def test_each_copy_has_its_own_turn_shear_stretch_and_shift(maps):
    """Around the middle, by 4 degrees, 5 and 4 per cent and half a pixel, on their own."""
    matrix, shift, _ = maps
    turn = np.arcsin(matrix[:, 1, 0])
    shear = matrix[:, 0, 1] + matrix[:, 1, 0]
    down, right = matrix[:, 0, 0] / np.cos(turn), matrix[:, 1, 1] / np.cos(turn)
    parts = [turn, shear, down - 1, right - 1, shift[:, 0], shift[:, 1]]
    for part, deviation in zip(parts, (0.07, 0.05, 0.04, 0.04, 0.5, 0.5), strict=True):
        assert_deviates(part, deviation)
    others = np.corrcoef(parts)[~np.eye(6, dtype=bool)]
    assert abs(others).max() < 5 / np.sqrt(len(turn))


def test_a_copy_is_drawn_as_smoothly_as_its_original(maps):
    matrix, shift, copies = maps
    for image, m, b in zip(copies[:50], matrix, shift, strict=False):
        rows, columns = np.mgrid[:24, :24] - 11.5
        came = np.einsum("ij,jrc->irc", m, [rows, columns]) + b[:, None, None] + 11.5
        away = came - PLACES[:, :, None, None]  # [3, 2, 24, 24]
        expected = np.exp(-(away**2).sum(axis=1) / (2 * 1.5**2))
        assert abs(image - expected).max() < 0.02


def test_outside_the_image_is_black():
    white = np.ones((100, 1, 8, 8), dtype="float32")
    copies = distorted(white, np.random.default_rng(0))
    assert copies[:, 0, 0].min() == copies[:, 0, :, 0].min() == 0
