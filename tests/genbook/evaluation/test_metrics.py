import statistics

import numpy as np
import paddle
import pytest
from scipy import stats
from scipy.linalg import sqrtm

from genbook.evaluation.metrics import (
    bits_per_dimension,
    class_entropy,
    elbo,
    empty_share,
    frechet_distance,
    importance_weighted_bound,
    legibility,
    nearest_distance,
    neighbour_agreement,
    standard_error,
)
from genbook.vae import VAE


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


@pytest.mark.parametrize("width", [1.0, 100.0])
def test_holes_against_brute_force(width):
    rng = np.random.default_rng(0)
    codes = rng.standard_normal((50, 2)) * [1, width]
    drawn = rng.standard_normal((40, 2)) * [2, width]
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
    hesitant = [[0.6, 0.4], [0.9, 0.1], [0.7, 0.3], [0.2, 0.8]]  # each counts for one class
    assert class_entropy(hesitant) == pytest.approx(expected)
    one_missing = np.eye(3)[[0, 2]]
    assert class_entropy(one_missing) == pytest.approx(np.log(2) / np.log(3))


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
    assert 0 <= frechet_distance(a, a) < 1e-9


def test_nearest_distance_against_brute_force():
    rng = np.random.default_rng(0)
    images, training = rng.random((7, 1, 3, 3)), rng.random((20, 1, 3, 3))
    pairs = np.linalg.norm((images[:, None] - training[None]).reshape(7, 20, 9), axis=2)
    np.testing.assert_allclose(nearest_distance(images, training), pairs.min(axis=1))
    assert (nearest_distance(training, training) == 0).all()
    many = rng.random((450, 9))
    expected = np.linalg.norm(many[:, None] - training.reshape(20, 9), axis=2).min(axis=1)
    np.testing.assert_allclose(nearest_distance(many, training.reshape(20, 9)), expected)
    rows = [a.reshape(len(a), 9) for a in (images, training)]  # images may be flat
    np.testing.assert_array_equal(nearest_distance(*rows), nearest_distance(images, training))


def test_bootstrap_error_of_a_mean_and_of_a_share():
    rng = np.random.default_rng(0)
    samples = 3 * rng.standard_normal(1000)
    expected = samples.std() / np.sqrt(1000)
    assert standard_error(np.mean, samples, repeats=2000) == pytest.approx(expected, rel=0.08)
    flips = rng.random(400) < 0.2
    expected = np.sqrt(flips.mean() * (1 - flips.mean()) / 400)
    assert standard_error(np.mean, flips, repeats=2000) == pytest.approx(expected, rel=0.08)


def test_chosen_classes_add_nothing_to_the_standard_error():
    rng = np.random.default_rng(0)
    classes = np.arange(400) % 4
    samples = 100 * classes + rng.standard_normal(400)  # far apart, and as often as each other
    assert standard_error(np.mean, samples, classes) == pytest.approx(1 / 20, rel=0.2)
    assert standard_error(np.mean, samples) > 2
    columns = np.stack([samples, samples], axis=1)
    assert standard_error(np.mean, columns, classes) == pytest.approx(1 / 20, rel=0.2)
    with pytest.raises(ValueError, match=r"400 samples, classes of shape \[399\]"):
        standard_error(np.mean, samples, classes[:-1])


def test_the_standard_error_is_that_of_a_sample_of_two():
    scores = iter([1.0, 4.0])
    assert standard_error(lambda drawn: next(scores), [0.0], repeats=2) == pytest.approx(4.5**0.5)


def test_the_standard_error_follows_the_seed():
    samples = np.random.default_rng(1).standard_normal(50)
    one, again, other = (standard_error(np.mean, samples, seed=seed) for seed in (0, 0, 1))
    assert one == again != other and one == standard_error(np.mean, samples)


def test_each_class_keeps_its_number_of_samples():
    classes, drawn = np.array([0, 1, 1, 2, 2, 2, 2, 1]), []
    standard_error(lambda rows: drawn.append(rows) or 0.0, classes, classes, repeats=20)
    assert [np.bincount(rows).tolist() for rows in drawn] == [[1, 3, 4]] * 20


def test_each_class_is_drawn_by_itself():
    """Four classes of the same numbers: their means scatter independently."""
    numbers = np.random.default_rng(0).standard_normal(100)
    samples, classes = np.tile(numbers, 4), np.repeat(np.arange(4), 100)
    expected = numbers.std() / np.sqrt(400)
    found = standard_error(np.mean, samples, classes, repeats=2000)
    assert found == pytest.approx(expected, rel=0.08)


class ThreePixels:
    """A VAE with one code component whose evidence is an integral over a line."""

    slope, offset = np.array([2.0, -1.0, 0.5]), np.array([0.3, 0.1, -0.4])
    mean, deviation = 0.5, 0.7  # of the encoder, for every image
    node, weight = np.polynomial.hermite_e.hermegauss(60)
    weight = weight / weight.sum()  # of N(0, 1) at the nodes

    def encode(self, x, labels=None):
        column = paddle.ones([len(x), 1])
        return self.mean * column, 2 * np.log(self.deviation) * column

    def decode(self, z, labels=None):
        logits = z * paddle.to_tensor(self.slope, dtype="float32")
        logits += paddle.to_tensor(self.offset, dtype="float32")
        return paddle.nn.functional.sigmoid(logits).reshape([-1, 1, 1, len(self.slope)])

    def log_likelihood(self, pixels, z):
        ink = 1 / (1 + np.exp(-(np.multiply.outer(z, self.slope) + self.offset)))
        return stats.bernoulli.logpmf(pixels, ink).sum(axis=-1)

    def evidence(self, pixels):
        return self.weight @ np.exp(self.log_likelihood(pixels, self.node))

    def log_weight(self, pixels, e):
        z = self.mean + self.deviation * e
        log_ratio = stats.norm.logpdf(z) - stats.norm.logpdf(z, self.mean, self.deviation)
        return self.log_likelihood(pixels, z) + log_ratio


PIXELS = np.array([1, 0, 1])


def copies(n):
    return paddle.to_tensor(np.tile(PIXELS, (n, 1)), dtype="float32").reshape([n, 1, 1, 3])


def assert_mean(draws, expected):
    assert abs(draws.mean() - expected) < 5 * draws.std() / np.sqrt(len(draws))


@pytest.mark.parametrize("samples", [1, 4])
def test_the_bound_against_quadrature(samples):
    paddle.seed(0)
    model = ThreePixels()
    bounds = elbo(model, copies(20_000), samples)
    assert bounds.shape == (20_000,) and bounds.dtype == np.float64
    assert_mean(bounds, model.weight @ model.log_weight(PIXELS, model.node))


def test_the_importance_weighted_bound_against_quadrature_over_two_codes():
    paddle.seed(0)
    model = ThreePixels()
    bounds = importance_weighted_bound(model, copies(20_000), 2)
    assert bounds.shape == (20_000,) and bounds.dtype == np.float64
    w = np.exp(model.log_weight(PIXELS, model.node))
    pairs = np.log((w[:, None] + w) / 2)
    assert_mean(bounds, model.weight @ pairs @ model.weight)
    assert_mean(np.exp(bounds), model.evidence(PIXELS))  # the mean weight is unbiased


def test_many_codes_come_near_the_evidence():
    paddle.seed(0)
    model = ThreePixels()
    bounds = importance_weighted_bound(model, copies(500), 1000)
    assert abs(bounds.mean() - np.log(model.evidence(PIXELS))) < 5e-3


def test_the_mean_of_weights_is_over_the_codes_of_each_image():
    model, x = ThreePixels(), copies(3)
    x[1] = 1 - x[1]  # images that differ
    eps = paddle.randn([5, 3, 1])
    got = importance_weighted_bound(model, x, 5, eps=eps)
    e = eps.numpy()[:, :, 0]
    for i, pixels in enumerate(x.numpy()[:, 0, 0]):
        expected = np.log(np.exp(model.log_weight(pixels, e[:, i])).mean())
        np.testing.assert_allclose(got[i], expected, rtol=1e-5)


def test_the_bound_is_a_mean_over_the_codes_that_are_given():
    model, x = ThreePixels(), copies(3)
    x[1] = 1 - x[1]  # images that differ
    eps = paddle.randn([5, 3, 1])
    e, s, m = eps.numpy()[:, :, 0].astype("float64"), model.deviation, model.mean
    divergence = 0.5 * (s**2 + m**2 - 1) - np.log(s)
    for i, pixels in enumerate(x.numpy()[:, 0, 0]):
        expected = model.log_likelihood(pixels, m + s * e[:, i]).mean() - divergence
        np.testing.assert_allclose(elbo(model, x, 5, eps=eps)[i], expected, rtol=1e-5)


class Labelled(ThreePixels):
    """Encoder and decoder depend on the label: it moves the posterior, and turns the ink."""

    def encode(self, x, labels):
        mu, logvar = super().encode(x)
        return mu + labels.astype("float32").unsqueeze(1), logvar

    def decode(self, z, labels):
        ink = super().decode(z)
        turned = labels.reshape([-1, 1, 1, 1]).astype("float32")
        return turned * (1 - ink) + (1 - turned) * ink


def test_bounds_are_of_the_image_given_its_label():
    x, labels, eps = copies(2), paddle.to_tensor([0, 1]), paddle.randn([3, 2, 1])
    e = eps.numpy()[:, :, 0].astype("float64")
    moved = ThreePixels()
    moved.mean += 1
    # with label 1 the ink is turned, which is as if the pixels were
    w = [ThreePixels().log_weight(PIXELS, e[:, 0]), moved.log_weight(1 - PIXELS, e[:, 1])]
    found = importance_weighted_bound(Labelled(), x, 3, labels, eps)
    np.testing.assert_allclose(found, [np.log(np.exp(v).mean()) for v in w], rtol=1e-5)
    for i, (model, pixels) in enumerate(((ThreePixels(), PIXELS), (moved, 1 - PIXELS))):
        s, m = model.deviation, model.mean
        expected = model.log_likelihood(pixels, m + s * e[:, i]).mean()
        expected -= 0.5 * (s**2 + m**2 - 1) - np.log(s)
        np.testing.assert_allclose(elbo(Labelled(), x, 3, labels, eps)[i], expected, rtol=1e-5)


def test_bounds_do_not_underflow():
    class Certain(ThreePixels):  # and wrong: exp of these log-weights is 0 in float64
        slope, offset = np.zeros(300), np.full(300, -30.0)

    bounds = importance_weighted_bound(Certain(), paddle.ones([2, 1, 1, 300]), 3)
    assert np.isfinite(bounds).all() and (bounds < -8000).all()


@pytest.mark.parametrize("bound", [elbo, importance_weighted_bound])
def test_bounds_refuse_grey_pixels_and_no_codes(bound):
    with pytest.raises(ValueError, match="grey pixels"):
        bound(ThreePixels(), paddle.full([2, 1, 1, 3], 0.5), 1)
    with pytest.raises(ValueError, match="at least 1, got 0"):
        bound(ThreePixels(), copies(2), 0)


def test_bits_per_dimension_of_a_fair_coin_for_each_pixel():
    nats = np.full(2, 4 * np.log(0.5))
    np.testing.assert_allclose(bits_per_dimension(nats, paddle.ones([2, 1, 2, 2])), 1.0)
    np.testing.assert_allclose(bits_per_dimension(3 * nats, paddle.ones([2, 3, 2, 2])), 1.0)


def test_bits_are_per_number_of_the_image():
    np.testing.assert_allclose(bits_per_dimension([-6 * np.log(2)], paddle.ones([1, 3, 1, 2])), 1)


@pytest.mark.parametrize("bound", [elbo, importance_weighted_bound])
def test_bounds_are_of_the_labelled_model_and_of_the_given_noise(bound):
    paddle.seed(0)
    model = VAE((1, 4, 4), hidden=(8,), latent_dim=3, classes=3)
    x, labels, eps = (
        paddle.rand([2, 1, 4, 4]).round(),
        paddle.to_tensor([2, 0]),
        paddle.randn([5, 2, 3]),
    )
    mu, logvar = (v.numpy().astype("float64") for v in model.encode(x, labels))
    sigma = np.exp(logvar / 2)
    log_weights = []
    for e in eps.numpy():
        z = mu + sigma * e
        ink = model.decode(paddle.to_tensor(z, dtype="float32"), labels).numpy().astype("float64")
        log_p = stats.bernoulli.logpmf(x.numpy().astype(int), ink).sum(axis=(1, 2, 3))
        log_ratio = stats.norm.logpdf(z) - stats.norm.logpdf(z, mu, sigma)
        log_weights.append((log_p, log_p + log_ratio.sum(axis=1)))
    log_p, log_w = np.swapaxes(log_weights, 0, 1)
    kl = 0.5 * (mu**2 + sigma**2 - 1 - logvar).sum(axis=1)
    expected = log_p.mean(axis=0) - kl if bound is elbo else np.log(np.exp(log_w).mean(axis=0))
    np.testing.assert_allclose(bound(model, x, 5, labels, eps), expected, rtol=1e-5)


def test_by_default_the_bound_takes_one_code_of_each_image():
    assert elbo(ThreePixels(), copies(2), eps=paddle.zeros([1, 2, 1])).shape == (2,)


def test_bounds_keep_no_gradients():
    seen = []

    class Watched(ThreePixels):
        def encode(self, x, labels=None):
            seen.append(paddle.is_grad_enabled())
            return super().encode(x)

        def decode(self, z, labels=None):
            seen.append(paddle.is_grad_enabled())
            return super().decode(z)

    elbo(Watched(), copies(1))
    assert seen == [False, False]


def test_ten_neighbours_are_asked_by_default():
    rng = np.random.default_rng(0)
    codes, labels = rng.standard_normal((80, 3)), rng.integers(0, 4, 80)
    assert neighbour_agreement(codes, labels) == neighbour_agreement(codes, labels, 10)


def test_where_a_hole_begins():
    codes = np.array([[-1.0, 7.0], [1.0, 7.0]])  # one standard deviation; one that never changes
    near = [[1.25, 7.0], [1.0, 7.25]]
    assert empty_share(codes, near) == 0
    assert empty_share(codes, near, radius=0.24) == 1
    assert empty_share(codes, codes, radius=0) == 0


def test_probabilities_may_be_rounded():
    assert legibility([[0.9, 0.0995]]) == 1  # 0.9 is legible by default


def test_the_bootstrap_is_the_standard_deviation_of_the_scores_it_took():
    scores = []

    def score(x):
        scores.append(x.mean())
        return scores[-1]

    error = standard_error(score, [1.0, 2.0, 4.0], repeats=2)
    assert len(scores) == 2 and error == pytest.approx(statistics.stdev(scores)) and error > 0
    samples = np.random.default_rng(0).random(20)
    by_default = standard_error(np.mean, samples)
    assert by_default == standard_error(np.mean, samples, repeats=200, seed=0)
