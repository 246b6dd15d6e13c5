import numpy as np
import pytest
from genbook.evaluation.metrics import empty_share, neighbour_agreement
from scipy import integrate, ndimage, optimize, stats


@pytest.mark.checks("def-neighbour-agreement", "share of neighbours of the same class")
def test_neighbour_agreement(agree):
    """All distances, sorted, and one comparison of labels after the other."""
    rng = np.random.default_rng(0)
    codes, labels = rng.standard_normal((60, 3)), rng.integers(0, 4, 60)
    for k in (1, 7):
        equal = []
        for n, code in enumerate(codes):
            distance = ((codes - code) ** 2).sum(axis=1)
            nearest = [m for m in np.argsort(distance) if m != n][:k]
            equal += [labels[m] == labels[n] for m in nearest]
        agree(neighbour_agreement(codes, labels, k), np.mean(equal), 1e-12)


@pytest.mark.checks("eq-chance-agreement", "neighbour agreement by chance")
def test_chance_agreement(agree):
    """The mean over 2,000 random orders of the labels, for two values of k."""
    rng = np.random.default_rng(0)
    counts = np.array([20, 7, 3])
    codes, labels = rng.standard_normal((30, 2)), np.repeat([0, 1, 2], counts)
    expected = (counts / 30 * (counts - 1) / 29).sum()
    for k in (1, 5):
        draws = [neighbour_agreement(codes, rng.permutation(labels), k) for _ in range(2000)]
        agree.in_mean(draws, expected)


@pytest.mark.checks("def-empty-share", "share of draws that lie in holes")
def test_empty_share(agree):
    """All distances in units of the standard deviations, one draw after the other."""
    rng = np.random.default_rng(0)
    codes, drawn = rng.standard_normal((80, 2)) * [3, 0.2], rng.standard_normal((300, 2)) * [4, 0.3]
    for r in (0.1, 0.25, 0.6):
        far = [min(np.hypot(*((u - z) / codes.std(axis=0))) for z in codes) > r for u in drawn]
        agree(empty_share(codes, drawn, r), np.mean(far), 1e-12)


@pytest.mark.checks("eq-disc-share", "probability of a disc around the origin")
def test_disc_share(agree):
    """The density of the plane by adaptive quadrature, in rectangular and in polar coordinates."""
    for r in (0.25, 1.0, 2.5):
        found = integrate.dblquad(
            lambda y, x: np.exp(-(x**2 + y**2) / 2) / (2 * np.pi),
            -r,
            r,
            lambda x, r=r: -np.sqrt(r**2 - x**2),
            lambda x, r=r: np.sqrt(r**2 - x**2),
        )[0]
        polar = integrate.dblquad(
            lambda rho, phi: np.exp(-(rho**2) / 2) * rho / (2 * np.pi), 0, 2 * np.pi, 0, r
        )[0]
        bracket = -np.exp(-(r**2) / 2) - -np.exp(0.0)
        for formula in (polar, bracket, 1 - np.exp(-(r**2) / 2)):
            agree(formula, found, 1e-7)


@pytest.mark.checks("eq-norm-moments", "mean and variance of the squared norm")
def test_norm_moments(agree):
    """Monte Carlo with 100,000 draws in each of three dimensions."""
    for J in (1, 5, 40):
        squared = (np.random.default_rng(J).standard_normal((100_000, J)) ** 2).sum(axis=1)
        agree.in_mean(squared, np.array(J))
        agree.in_mean((squared - J) ** 2, np.array(2 * J))


@pytest.mark.checks("eq-norm-spread", "mean and spread of the norm in many dimensions")
def test_norm_spread(agree):
    """SciPy's exact chi distribution: relative deviations, which shrink as 1 / J."""
    for J in (100, 1000, 10_000):
        agree(stats.chi(J).mean() / np.sqrt(J), 1.0, 0.3 / J)
        agree(stats.chi(J).std() / (np.sqrt(2 * J) / (2 * np.sqrt(J))), 1.0, 0.3 / J)
        agree(stats.chi(J).std() * np.sqrt(2), 1.0, 0.3 / J)


@pytest.mark.checks("eq-norm-density", "density of the norm, and its mode")
def test_norm_density(agree):
    """Differences of SciPy's distribution function, and a search for their maximum."""

    def density(r, J, step=1e-4):
        low, high = (stats.chi2.cdf((r + s) ** 2, J) for s in (-step, step))
        return (high - low) / (2 * step)

    for J in (2, 5, 16):
        r = np.sqrt(J) + np.array([-0.7, 0.0, 1.1])
        product = r ** (J - 1) * np.exp(-(r**2) / 2)
        agree(product / product[0], density(r, J) / density(r[0], J), 1e-6)
        found = optimize.minimize_scalar(
            lambda r, J=J: -density(r, J, 1e-3),
            bounds=(0.1, 10),
            method="bounded",
            options={"xatol": 1e-8},
        )
        agree(np.sqrt(J - 1), found.x, 1e-4)


@pytest.mark.checks("eq-lerp-norm", "squared norm on the straight path")
def test_lerp_norm(agree):
    """Monte Carlo with 100,000 pairs of draws."""
    rng = np.random.default_rng(0)
    for J, t in ((3, 0.5), (8, 0.2)):
        a, b = rng.standard_normal((2, 100_000, J))
        squared = (((1 - t) * a + t * b) ** 2).sum(axis=1)
        agree.in_mean(squared, np.array(((1 - t) ** 2 + t**2) * J))


@pytest.mark.checks("eq-slerp", "spherical interpolation")
def test_slerp(agree):
    """The first code turned, by the matrix exponential, in the plane of both."""
    from scipy.linalg import expm

    rng = np.random.default_rng(0)
    for J in (2, 3, 7):
        a, b = rng.standard_normal((2, J))
        b *= np.linalg.norm(a) / np.linalg.norm(b)
        theta = np.arccos(a @ b / (a @ a))
        across = b - a * (a @ b) / (a @ a)
        u, v = a / np.linalg.norm(a), across / np.linalg.norm(across)
        for t in (0.0, 0.3, 0.5, 1.0):
            turned = expm(t * theta * (np.outer(v, u) - np.outer(u, v))) @ a
            got = (np.sin((1 - t) * theta) * a + np.sin(t * theta) * b) / np.sin(theta)
            agree(got, turned, 1e-12)


def slant(image):
    """The slope of the column on the row by NumPy's weighted fit, upwards."""
    i, j = np.indices(image.shape)
    return -np.polyfit(i.ravel(), j.ravel(), 1, w=np.sqrt(image.ravel()))[0]


@pytest.mark.checks("def-slant", "slant of an image")
def test_slant(agree):
    """NumPy's least squares with the grey values as weights."""
    for seed in range(3):
        image = np.random.default_rng(seed).random((9, 7))
        i, j = np.indices(image.shape)
        i, j = (axis - (image * axis).sum() / image.sum() for axis in (i, j))
        agree(-(image * i * j).sum() / (image * i**2).sum(), slant(image), 1e-12)


@pytest.mark.checks("eq-slant-shear", "slant of a sheared image")
def test_slant_shear(agree):
    """A blurred stroke, sheared by SciPy's spline interpolation, and a weighted fit."""
    i, j = np.indices((40, 40)).astype(float)
    image = np.exp(-((i - 21) ** 2) / 40 - (j - 18 + 0.3 * (i - 21)) ** 2 / 8)
    centre = np.array([(image * axis).sum() / image.sum() for axis in (i, j)])
    for h in (-0.3, 0.1, 0.4):
        back = np.array([[1.0, 0.0], [h, 1.0]])  # column j - h (i - centre) takes from column j
        sheared = ndimage.affine_transform(image, back, centre - back @ centre, order=3)
        agree(slant(sheared.clip(0)), slant(image) + h, 2e-3)
