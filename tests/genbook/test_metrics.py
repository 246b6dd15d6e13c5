import numpy as np
import pytest

from scipy.linalg import sqrtm

from genbook.metrics import (
    class_entropy,
    empty_share,
    frechet_distance,
    legibility,
    nearest_distance,
    neighbour_agreement,
    standard_error,
)


def brute_force(codes, labels, k):
    distances = np.linalg.norm(codes[:, None] - codes[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    nearest = np.argsort(distances, axis=1)[:, :k]
    return np.mean(labels[nearest] == labels[:, None])


@pytest.mark.parametrize("k", [1, 5, 79])
def test_agreement_against_brute_force(k):
    rng = np.random.default_rng(0)
    codes, labels = rng.standard_normal((80, 3)), rng.integers(0, 4, 80)
    np.testing.assert_allclose(neighbour_agreement(codes, labels, k), brute_force(codes, labels, k))


def test_agreement_of_separate_and_of_mixed_classes():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 500)
    apart = rng.standard_normal((1000, 2)) + 100 * labels[:, None]
    assert neighbour_agreement(apart, labels) == 1
    mixed = neighbour_agreement(rng.standard_normal((1000, 2)), labels)
    assert abs(mixed - 0.5) < 0.05


def test_identical_codes_do_not_count_themselves():
    assert neighbour_agreement(np.zeros((20, 2)), np.arange(20), k=3) == 0


@pytest.mark.parametrize("k", [0, 10])
def test_impossible_numbers_of_neighbours_are_refused(k):
    with pytest.raises(ValueError, match="from 1 to 9"):
        neighbour_agreement(np.zeros((10, 2)), np.zeros(10), k)


def test_holes_against_brute_force():
    rng = np.random.default_rng(0)
    codes, drawn = rng.standard_normal((50, 2)), rng.standard_normal((40, 2))
    scaled = (codes[:, None] - drawn[None]) / codes.std(axis=0)
    nearest = np.linalg.norm(scaled, axis=2).min(axis=0)
    for radius in (0.1, 0.3, 1.0):
        assert empty_share(codes, drawn, radius) == np.mean(nearest > radius)


def test_codes_are_not_in_holes_and_distant_points_are():
    codes = np.random.default_rng(0).standard_normal((30, 3))
    assert empty_share(codes, codes) == 0
    assert empty_share(codes, codes + 100) == 1


def test_holes_do_not_depend_on_scale_or_place():
    rng = np.random.default_rng(0)
    codes, drawn = rng.standard_normal((300, 2)), rng.standard_normal((200, 2))
    moved = empty_share(1000 * codes + [3, -8], 1000 * drawn + [3, -8])
    assert moved == empty_share(codes, drawn) > 0


def test_a_dimension_that_never_changes_does_no_harm():
    codes = np.stack([np.arange(10.0), np.zeros(10)], axis=1)
    assert empty_share(codes, codes) == 0


def test_legibility_counts_sure_judgements():
    probabilities = [[0.95, 0.05], [0.1, 0.9], [0.6, 0.4], [0.5, 0.5]]
    assert legibility(probabilities) == 0.5
    assert legibility(probabilities, threshold=0.6) == 0.75


def test_entropy_of_even_single_and_uneven_classes():
    even = np.eye(4)[np.arange(40) % 4]
    assert class_entropy(even) == pytest.approx(1)
    assert class_entropy(np.eye(4)[np.zeros(10, int)]) == 0
    uneven = np.eye(2)[[0, 0, 0, 1]]
    expected = -(0.75 * np.log2(0.75) + 0.25 * np.log2(0.25))
    assert class_entropy(uneven) == pytest.approx(expected)


def test_frechet_distance_against_the_matrix_square_root():
    rng = np.random.default_rng(0)
    a = rng.standard_normal((500, 5)) @ rng.standard_normal((5, 5))
    b = rng.standard_normal((400, 5)) @ rng.standard_normal((5, 5)) + 1
    cov_a, cov_b = np.cov(a.T), np.cov(b.T)
    root = sqrtm(sqrtm(cov_a) @ cov_b @ sqrtm(cov_a))
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(cov_a + cov_b - 2 * root).real
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(b, a) == pytest.approx(expected, rel=1e-6)


def test_frechet_distance_in_one_direction_by_hand():
    # Two normal distributions on a line: (difference of means)^2 + (difference of deviations)^2.
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((200_000, 1)), 3 * rng.standard_normal((200_000, 1)) + 2
    a, b = (np.hstack([x, np.zeros_like(x)]) for x in (a, b))
    assert frechet_distance(a, b) == pytest.approx(2**2 + 2**2, rel=0.02)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)


def test_nearest_distance_against_brute_force():
    rng = np.random.default_rng(0)
    images, training = rng.random((7, 1, 3, 3)), rng.random((20, 1, 3, 3))
    pairs = np.linalg.norm((images[:, None] - training[None]).reshape(7, 20, 9), axis=2)
    np.testing.assert_allclose(nearest_distance(images, training), pairs.min(axis=1))
    assert (nearest_distance(training, training) == 0).all()


def test_bootstrap_error_of_a_mean_and_of_a_share():
    rng = np.random.default_rng(0)
    samples = 3 * rng.standard_normal(1000)
    expected = samples.std() / np.sqrt(1000)
    assert standard_error(np.mean, samples, repeats=2000) == pytest.approx(expected, rel=0.08)
    flips = rng.random(400) < 0.2
    expected = np.sqrt(flips.mean() * (1 - flips.mean()) / 400)
    assert standard_error(np.mean, flips, repeats=2000) == pytest.approx(expected, rel=0.08)
