import numpy as np
import pytest
from genbook.data.augmentation import distorted
from genbook.data.digits import _sharpen
from scipy import stats


@pytest.mark.checks("def-data-contrast", "contrast curve of the digits")
def test_data_contrast(agree):
    """The logistic function written as a hyperbolic tangent."""
    u = np.linspace(0, 1, 101)
    bend = np.tanh(4 * (u - 0.45))
    agree(_sharpen(u), (bend - bend[0]) / (bend[-1] - bend[0]), 1e-12)


@pytest.mark.checks("eq-contrast-slope", "greatest slope of the contrast curve")
def test_contrast_slope(agree):
    """Central differences of the curve on a fine grid: the greatest, and where it is."""
    u, step = np.linspace(0.001, 0.999, 9981), 1e-4
    slope = (_sharpen(u + step) - _sharpen(u - step)) / (2 * step)
    height = 1 / (1 + np.exp(-8 * 0.55)) - 1 / (1 + np.exp(8 * 0.45))
    agree(8 / (4 * height), slope.max(), 1e-5)
    agree(0.45, u[slope.argmax()], 1e-3)


@pytest.mark.checks("eq-share-error", "standard error of a share")
def test_share_error(agree):
    """The standard deviation of the binomial distribution over n, by its probabilities."""
    for n, p in ((1, 0.3), (20, 0.5), (360, 0.95)):
        k = np.arange(n + 1)
        weight = stats.binom.pmf(k, n, p)
        mean = weight @ (k / n)
        agree(np.sqrt(p * (1 - p) / n), np.sqrt(weight @ (k / n - mean) ** 2), 1e-12)


def blob(place):
    """A smooth image as a function of places [2, ...], without symmetry."""
    rows, columns = place
    wide = np.exp(-((rows - 13) ** 2 / 18 + (columns - 17) ** 2 / 30))
    return 0.7 * wide + 0.3 * np.exp(-((rows - 18) ** 2 + (columns - 12) ** 2) / 10)


def drawn_map(rng):
    """A and b of the first image of a batch of one, drawn in the order of `distorted`."""
    turn, shear = rng.normal(0, 0.07, 1)[0], rng.normal(0, 0.05, 1)[0]
    (a_1, a_2), b = rng.normal(1, 0.04, (1, 2))[0], rng.normal(0, 0.5, (1, 2))[0]
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    return rotation * [[a_1, 1], [1, a_2]] + [[0, shear], [0, 0]], b


@pytest.mark.checks("def-augment", "affine map of augmentation")
def test_augment(agree):
    """A smooth image whose value is known at every place, not at the pixels alone."""
    at = np.indices((30, 32)).astype(float)
    centre = np.array([14.5, 15.5])[:, None, None]
    for seed in range(5):
        matrix, shift = drawn_map(np.random.default_rng(seed))
        read = centre + np.tensordot(matrix, at - centre, 1) + shift[:, None, None]
        images = blob(at)[np.newaxis, np.newaxis]
        copy = distorted(images, np.random.default_rng(seed))[0, 0]
        agree(copy[2:-2, 2:-2], blob(read)[2:-2, 2:-2], 2e-3)


@pytest.mark.checks("eq-affine-ink", "ink of a distorted copy")
def test_affine_ink(agree):
    """Sums over the pixels of the image and of copies by `distorted`."""
    at = np.indices((48, 48)).astype(float) - 9  # room for all of the blob
    for seed in range(5):
        (turn,), (shear,), ((a_1, a_2),) = (
            (rng := np.random.default_rng(seed)).normal(0, 0.07, 1),
            rng.normal(0, 0.05, 1),
            rng.normal(1, 0.04, (1, 2)),
        )
        copy = distorted(blob(at)[np.newaxis, np.newaxis], np.random.default_rng(seed))
        determinant = a_1 * a_2 * np.cos(turn) ** 2 + np.sin(turn) ** 2 - shear * np.sin(turn)
        agree(copy.sum() * determinant / blob(at).sum(), 1.0, 1e-3)
