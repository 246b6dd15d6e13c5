import numpy as np
import pytest

from genbook.metrics import empty_share, neighbour_agreement


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
