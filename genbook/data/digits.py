"""The data set `digits`: handwritten digits that scikit-learn carries, drawn finer."""

import numpy as np
from scipy import ndimage

DIGITS = tuple("0123456789")


def read_digits(split, size, root):
    """Digits by 43 writers, 8x8 (Alpaydin and Kaynak, Cascading Classifiers, Kybernetika 1998).

    scikit-learn carries the 1,797 of the original test set, which 13 of the writers wrote.
    """
    from sklearn.datasets import load_digits  # takes a second, and only this set needs it

    digits = load_digits()
    weights = _spline(8, size)
    images = _sharpen(weights @ (digits.images / 16) @ weights.T)
    # The last 360 are the test set, in one block: neighbours in the file are mostly by one
    # writer, so a random split would test on hands seen in training (the cut itself goes
    # through one writer's sheet). The classes stay balanced: 33 to 37 test images of each.
    rows = slice(-360) if split == "train" else slice(-360, None)
    return images[rows].astype(np.float32), digits.target[rows].astype(np.int64)


def _spline(old, new):
    """Cubic spline interpolation of `old` pixels at `new` places -> [new, old]."""
    columns = [
        ndimage.zoom(unit, new / old, order=3, mode="grid-constant", grid_mode=True)
        for unit in np.eye(old)
    ]
    return np.stack(columns, axis=1)


def _sharpen(images, slope=8, centre=0.45):
    """Turn the soft edges of an enlarged image into pen strokes: a logistic curve, 0->0, 1->1."""

    def logistic(x):
        return 1 / (1 + np.exp(-slope * (x - centre)))

    low, high = logistic(0), logistic(1)
    return np.clip((logistic(images) - low) / (high - low), 0, 1)
