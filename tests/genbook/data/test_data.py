"""What `load` promises of every data set."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from genbook import data
from genbook.data import digits


@pytest.mark.parametrize("name, size", [("digits", 16), ("strokes", 28)])
@pytest.mark.parametrize("split", data.SPLITS)
def test_load_gives_images_labels_and_classes(name, size, split):
    dataset = data.load(name, split)
    n = len(dataset)
    assert (dataset.name, dataset.split) == (name, split)
    assert dataset.images.shape == (n, 1, size, size) and dataset.images.dtype == np.float32
    assert dataset.labels.shape == (n,) and dataset.labels.dtype == np.int64
    assert dataset.images.min() == 0 and 0.99 < dataset.images.max() <= 1
    assert dataset.images.mean() < 0.5  # white ink on black
    counts = np.bincount(dataset.labels, minlength=len(dataset.classes))
    assert len(counts) == len(dataset.classes) and counts.min() > 0.85 * counts.mean()


def test_most_takes_images_from_all_over_the_set():
    every, some = data.load("digits"), data.load("digits", most=100)
    assert len(some) == 100 and some.images.shape[1:] == every.images.shape[1:]
    places = [
        np.flatnonzero((every.images == image).all(axis=(1, 2, 3)))[0] for image in some.images
    ]
    assert places[0] == 0 and places[-1] == len(every) - 1
    assert max(np.diff(places)) <= len(every) / 100 + 1
    assert (every.labels[places] == some.labels).all()
    assert len(data.load("digits", most=10_000)) == len(every)
    for wrong in (0, -1, 2.5, "all"):
        with pytest.raises(ValueError, match="most must be"):
            data.load("digits", most=wrong)


@pytest.mark.parametrize("name", ["digits", "strokes"])
def test_load_twice_is_the_same_and_splits_share_nothing(name):
    train, again, test = data.load(name), data.load(name), data.load(name, "test")
    np.testing.assert_array_equal(train.images, again.images)
    np.testing.assert_array_equal(train.labels, again.labels)
    seen = {image.tobytes() for image in train.images}
    assert not any(image.tobytes() in seen for image in test.images)


@pytest.mark.parametrize("name", ["digits", "strokes"])
@pytest.mark.parametrize("size", [8, 21, 32])
def test_load_takes_any_size(name, size):
    dataset = data.load(name, "test", size=size)
    assert dataset.images.shape[1:] == (1, size, size)
    assert dataset.images.max() <= 1


def test_three_channels_are_equal():
    one, three = data.load("digits", "test"), data.load("digits", "test", channels=3)
    assert three.images.shape == (360, 3, 16, 16)
    for channel in range(3):
        np.testing.assert_array_equal(three.images[:, channel], one.images[:, 0])


@pytest.mark.parametrize(
    "arguments, says",
    [
        (
            {"name": "letters"},
            "unknown data set 'letters'; known are digits, mnist, hanzi, strokes",
        ),
        ({"name": "digits", "split": "dev"}, "unknown split 'dev'; known are train, test"),
        ({"name": "digits", "size": 7}, "size must be .* from 8 to 256 pixels, not 7"),
        ({"name": "digits", "size": 16.0}, "size must be a whole number"),
        ({"name": "digits", "channels": 2}, "channels must be 1 or 3, not 2"),
    ],
)
def test_load_refuses_bad_arguments(arguments, says):
    with pytest.raises(ValueError, match=says):
        data.load(**arguments)


def test_dataset_cannot_be_changed_by_accident():
    with pytest.raises(AttributeError):
        data.load("digits", "test").images = None


def test_import_leaves_paddle_alone():
    code = "import sys, genbook.data; sys.exit('paddle' in sys.modules)"
    home = Path(data.__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=home).returncode == 0


# digits


def test_digits_are_scikit_learns_in_order():
    train, test = data.load("digits"), data.load("digits", "test")
    assert (len(train), len(test)) == (1437, 360)
    raw = load_digits()
    np.testing.assert_array_equal(np.concatenate([train.labels, test.labels]), raw.target)
    images = np.concatenate([train.images, test.images])
    pooled = images.reshape(-1, 8, 2, 8, 2).mean((2, 4))
    assert np.corrcoef(pooled.ravel(), raw.images.ravel())[0, 1] > 0.95


def test_sharpen_keeps_the_ends_and_the_order():
    x = np.linspace(0, 1, 50)
    y = digits._sharpen(x)
    assert (y[0], y[-1]) == (0, 1) and np.all(np.diff(y) > 0)
    assert np.gradient(y, x).max() > 1.5
    np.testing.assert_array_equal(digits._sharpen(np.array([-0.1, 1.1])), [0, 1])


# sets without files


@pytest.mark.parametrize("name", ["digits", "strokes"])
def test_nothing_to_fetch(name):
    assert data.fetch(name) == []
