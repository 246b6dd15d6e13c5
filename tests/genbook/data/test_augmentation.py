import numpy as np

from genbook.data import Dataset
from genbook.data import augmentation as module
from genbook.data.augmentation import augment


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
