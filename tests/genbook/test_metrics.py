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


def test_a_full_grid_has_no_empty_cell_and_a_line_has_many():
    u = np.linspace(0, 1, 60)
    grid = np.stack(np.meshgrid(u, u), axis=-1).reshape(-1, 2)
    assert empty_share(grid, cells=10) == 0
    assert empty_share(np.stack([u, u], axis=1), cells=10) == 0.9


def test_empty_share_does_not_depend_on_scale_or_place():
    codes = np.random.default_rng(0).standard_normal((300, 2))
    np.testing.assert_allclose(empty_share(codes), empty_share(1000 * codes + [3, -8]))
