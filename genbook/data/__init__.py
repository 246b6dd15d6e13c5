"""Loaders for four small character data sets; call `load`.

| name      | what                                             | from where                        |
|-----------|--------------------------------------------------|-----------------------------------|
| `digits`  | 1,797 handwritten digits, finer than they came   | scikit-learn, no download         |
| `mnist`   | 70,000 handwritten digits                        | a folder, or Paddle's mirror      |
| `hanzi`   | 15,000 handwritten Chinese numerals              | a folder (Kaggle needs a login)   |
| `strokes` | Chinese numerals written by `strokes`            | computed, no download             |

Files are looked for in `root`, then in `$GENBOOK_DATA`, then in the user's cache.
"""

import numbers
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from .digits import DIGITS, read_digits
from .files import DataError
from .hanzi import fetch_hanzi, hanzi_files, read_hanzi
from .mnist import fetch_mnist, mnist_files, read_mnist
from .strokes import CLASSES, read_strokes

__all__ = ["NAMES", "SPLITS", "DataError", "Dataset", "effort", "fetch", "files_of", "load"]

SPLITS = ("train", "test")
MOST_SIZE = 256  # pixels per side; 60,000 images have 16 GB then


@dataclass(frozen=True, eq=False)
class Dataset:
    """One split of a data set, in memory; images of your own, too.

    Images of another floating type become float32, whole labels become int64.

    Attributes:
        name: which data set.
        split: "train" or "test".
        images: float32 [N, channels, size, size] in [0, 1], white ink on black; 1 or 3 channels.
        labels: int64 [N], an index into `classes`.
        classes: what each label stands for.

    Raises:
        ValueError: images, labels or classes are in another form.
    """

    name: str
    split: str
    images: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]

    def __post_init__(self):
        if not isinstance(self.classes, Iterable):
            raise ValueError(f"classes must be names, one for each label, not {self.classes!r}")
        object.__setattr__(self, "images", _checked_images(self.images))
        object.__setattr__(self, "classes", tuple(self.classes))
        labels = _checked_labels(self.labels, len(self.images), len(self.classes))
        object.__setattr__(self, "labels", labels)

    def __len__(self):
        return len(self.labels)


def _checked_images(images):
    """float32 [N, 1 or 3, size, size]; ValueError for what is not, or not in [0, 1]."""
    images = np.asarray(images)
    n, channels, height, width = images.shape if images.ndim == 4 else (0, 0, 0, 0)
    if n == 0 or channels not in (1, 3) or height != width or height == 0:
        raise ValueError(f"images must be [N, 1 or 3, size, size], not {list(images.shape)}")
    if images.dtype.kind != "f":
        raise ValueError(f"images must be float32 in [0, 1], not {images.dtype}; divide by 255?")
    low, high = images.min(), images.max()
    if not (low >= 0 and high <= 1):  # NaN is neither
        raise ValueError(f"images must be in [0, 1], not from {low} to {high}")
    return images.astype(np.float32, copy=False)


def _checked_labels(labels, n, classes):
    """int64 [n]; ValueError for what is not, or not from 0 to classes - 1."""
    labels = np.asarray(labels)
    if labels.shape != (n,) or labels.dtype.kind not in "iu":
        raise ValueError(
            f"labels must be whole numbers [{n}], one for each image, not"
            f" {labels.dtype} {list(labels.shape)}"
        )
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(
            f"labels must be from 0 to {classes - 1}, for {classes} classes,"
            f" not from {labels.min()} to {labels.max()}"
        )
    return labels.astype(np.int64, copy=False)


def load(name, split="train", *, size=None, channels=1, most=None, root=None):
    """Load one split of a data set.

    Args:
        name: one of `NAMES`.
        split: "train" or "test".
        size: pixels per side, from 8 to 256; None takes the set's own.
        channels: 1, or 3 equal ones.
        most: how many images to take at most, spread evenly over the split; None takes all.
        root: an existing folder with the set's files, directly or in a subfolder of the set's name.
            `~` and variables of the environment are expanded.

    Returns:
        A `Dataset`.

    Raises:
        ValueError: an argument is none of the above.
        DataError: `root` or a file is missing, broken, or cannot be downloaded.
    """
    source = _source(name)
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; known are {', '.join(SPLITS)}")
    if size is None:
        size = source.size
    if not isinstance(size, numbers.Integral) or not 8 <= int(size) <= MOST_SIZE:
        raise ValueError(f"size must be a whole number from 8 to {MOST_SIZE} pixels, not {size!r}")
    if channels not in (1, 3):
        raise ValueError(f"channels must be 1 or 3, not {channels!r}")
    if most is not None and (not isinstance(most, numbers.Integral) or most < 1):
        raise ValueError(f"most must be a whole number of at least 1 image, not {most!r}")
    images, labels = source.read(split, int(size), root)
    if most is not None and most < len(images):
        taken = np.linspace(0, len(images) - 1, most).astype(int)
        images, labels = images[taken], labels[taken]
    images = np.repeat(images[:, None], channels, axis=1)
    return Dataset(name, split, images, labels, source.classes)


def fetch(name, root=None):
    """Make sure that a data set's files are here and whole; download what is missing.

    Downloads go to `root` where given, which is made where there is none, else to the user's cache.

    Returns:
        The paths of the files; empty for a set that has none.

    Raises:
        ValueError, DataError: as for `load`.
    """
    return _source(name).fetch(root)


def files_of(name, root=None):
    """The paths of the files that `load` would read as things are; empty for a set without files.

    Raises:
        ValueError, DataError: as for `load`.
    """
    return _source(name).files(root)


def effort(name):
    """How many times as long as on the digits a training takes on this set; 1 for one's own."""
    return _SOURCES[name].effort if name in _SOURCES else 1


def _no_files(root):
    return []


class _Source(NamedTuple):
    """All that there is to know about a data set."""

    read: Callable  # (split, size, root) -> images float32 [N, size, size], labels int64 [N]
    size: int  # pixels per side when nobody asks for another
    classes: tuple[str, ...]
    files: Callable = _no_files  # (root) -> the paths of those of its files that are there
    fetch: Callable = _no_files  # (root) -> the paths of all its files, downloaded and checked
    effort: int = 1  # larger images of more people take more steps than the digits


_SOURCES = {
    "digits": _Source(read_digits, 16, DIGITS),
    "mnist": _Source(read_mnist, 28, DIGITS, mnist_files, fetch_mnist, effort=4),
    "hanzi": _Source(read_hanzi, 28, CLASSES, hanzi_files, fetch_hanzi, effort=4),
    "strokes": _Source(read_strokes, 28, CLASSES),
}
NAMES = tuple(_SOURCES)


def _source(name):
    if name not in NAMES:
        raise ValueError(f"unknown data set {name!r}; known are {', '.join(NAMES)}")
    return _SOURCES[name]
