import re

import numpy as np
import paddle
import pytest

from genbook.vqvae import VQVAE, Codebook, perplexity, straight_through, vqvae_loss

RNG = np.random.default_rng(0)
IMAGES = paddle.to_tensor(RNG.random((3, 1, 8, 12), dtype="float32"))


def floats(numbers):
    return paddle.to_tensor(np.asarray(numbers, dtype="float32"))


def a_book(vectors, **settings):
    book = Codebook(*np.shape(vectors), **settings)
    book.vectors.set_value(floats(vectors))
    book.sums.set_value(floats(vectors))
    return book


def a_model(**settings):
    paddle.seed(0)
    return VQVAE(size=5, dim=3, width=4, **settings)


def test_the_nearest_vector_is_that_of_the_least_distance():
    h, vectors = RNG.normal(size=(50, 3)), RNG.normal(size=(7, 3))
    distances = np.linalg.norm(h[:, np.newaxis] - vectors, axis=2)
    found = a_book(vectors).nearest(floats(h))
    np.testing.assert_array_equal(found, distances.argmin(axis=1))
    assert found.dtype == paddle.int64


def test_straight_through_has_the_value_of_one_and_the_gradient_of_the_other():
    h, e = floats([[1.0, 2.0]]), floats([[5.0, -3.0]])
    h.stop_gradient = e.stop_gradient = False
    passed = straight_through(h, e)
    np.testing.assert_allclose(passed, [[5.0, -3.0]])
    (passed * floats([[2.0, 7.0]])).sum().backward()
    np.testing.assert_allclose(h.grad, [[2.0, 7.0]])
    assert e.grad is None


def test_an_update_is_the_moving_average_of_counts_and_sums():
    book = a_book([[0.0, 0.0], [10.0, 10.0]], decay=0.75, restart=0.0)
    book.update(floats([[1.0, 2.0], [3.0, 4.0], [8.0, 9.0]]), paddle.to_tensor([0, 0, 1]))
    counts = [0.75 + 0.25 * 2, 0.75 + 0.25]
    np.testing.assert_allclose(book.counts, counts)
    expected = [[0.25 * 4 / 1.25, 0.25 * 6 / 1.25], [0.75 * 10 + 0.25 * 8, 0.75 * 10 + 0.25 * 9]]
    np.testing.assert_allclose(book.vectors, expected, rtol=1e-6)


def test_an_unused_vector_moves_to_one_that_chooses_and_counts_once():
    book = a_book([[0.0, 0.0], [50.0, 50.0]], decay=0.9, restart=0.95)
    h = floats(RNG.normal(size=(20, 2)))
    book.update(h, paddle.zeros([20], dtype="int64"))
    moved = book.vectors.numpy()[1]
    assert (np.abs(h.numpy() - moved).max(axis=1) < 1e-4).any()
    np.testing.assert_allclose(book.counts, [0.9 + 2.0, 1.0], rtol=1e-6)
    assert np.abs(book.vectors.numpy()[0]).max() < 2  # and the used one does not


def test_with_a_restart_of_0_an_unused_vector_stays():
    book = a_book([[0.0], [50.0]], decay=0.5, restart=0.0)
    for _ in range(20):
        book.update(floats([[1.0]]), paddle.to_tensor([0]))
    np.testing.assert_allclose(book.vectors[1], [50.0], rtol=1e-4)


def test_a_model_decodes_the_vectors_nearest_to_what_its_encoder_says():
    model = a_model()
    model.eval()
    x_hat, h, e, tokens = model(IMAGES)
    assert x_hat.shape == IMAGES.shape and h.shape == e.shape == [3 * 2 * 3, 3]
    grid = model.encoder(IMAGES).numpy()  # [3, dim, 2, 3]
    rows = np.array([grid[n, :, i, j] for n in range(3) for i in range(2) for j in range(3)])
    np.testing.assert_allclose(h, rows, rtol=1e-5)
    np.testing.assert_array_equal(tokens, model.codebook.nearest(floats(rows)))
    np.testing.assert_allclose(e, model.codebook.vectors.numpy()[tokens.numpy()])
    code = model.tokens(IMAGES)
    np.testing.assert_array_equal(code, tokens.numpy().reshape(3, 6))
    np.testing.assert_allclose(model.decode(code, (2, 3)), x_hat, rtol=1e-4, atol=1e-6)


def test_only_training_moves_the_codebook():
    model = a_model()
    before = model.codebook.vectors.numpy()
    model.eval()
    model(IMAGES)
    model.train()
    model.tokens(IMAGES)
    np.testing.assert_array_equal(model.codebook.vectors, before)
    model(IMAGES)
    assert np.abs(model.codebook.vectors.numpy() - before).max() > 0


def test_the_loss_is_cross_entropy_and_the_weighted_commitment():
    model = a_model()
    model.eval()
    x_hat, h, e, tokens = (a.numpy().astype("float64") for a in model(IMAGES))
    x = IMAGES.numpy().astype("float64")
    nll = -(x * np.log(x_hat) + (1 - x) * np.log(1 - x_hat)).sum() / 3
    far = ((h - e) ** 2).sum() / 3
    losses = vqvae_loss(model, IMAGES, beta=0.7)
    np.testing.assert_allclose(losses["reconstruction"], nll, rtol=1e-5)
    np.testing.assert_allclose(losses["commitment"], far, rtol=1e-5)
    np.testing.assert_allclose(losses["loss"], nll + 0.7 * far, rtol=1e-5)
    usual = vqvae_loss(model, IMAGES)["loss"]
    np.testing.assert_allclose(usual, nll + 0.25 * far, rtol=1e-5)
    used = perplexity(paddle.to_tensor(tokens.astype("int64")), 5)
    np.testing.assert_allclose(losses["perplexity"], used)


def test_the_gradient_reaches_the_encoder_by_both_terms_and_the_codebook_by_none():
    model = a_model()
    x = IMAGES
    for name in ("reconstruction", "commitment"):
        vqvae_loss(model, x)[name].backward()
        assert all(p.grad is not None for p in model.encoder.parameters()), name
        model.clear_gradients()
    assert model.codebook.vectors.stop_gradient and not model.codebook.parameters()


def test_perplexity_counts_what_is_in_use():
    assert perplexity(paddle.to_tensor([3, 3, 3]), 8).item() == pytest.approx(1)
    assert perplexity(paddle.arange(8).reshape([2, 4]), 8).item() == pytest.approx(8, rel=1e-5)
    share = np.array([0.5, 0.25, 0.25])
    expected = np.exp(-(share * np.log(share)).sum())
    assert perplexity(paddle.to_tensor([0, 0, 1, 5]), 8).item() == pytest.approx(expected)


def test_the_layers_of_the_text():
    model = VQVAE()
    assert model.codebook.vectors.shape == [64, 8]
    assert (model.codebook.decay, model.codebook.restart) == (0.99, 0.3)
    assert model.encoder(paddle.zeros([2, 1, 16, 16])).shape == [2, 8, 4, 4]
    shapes = [p.shape for p in model.parameters() if p.ndim > 1]
    assert shapes[:4] == [[16, 1, 4, 4], [32, 16, 4, 4], [32, 32, 3, 3], [8, 32, 1, 1]]
    assert shapes[4:] == [[32, 8, 3, 3], [32, 32, 3, 3], [32, 16, 4, 4], [16, 1, 4, 4]]
    assert VQVAE(restart=0.0).codebook.restart == 0


REFUSED = {
    "no vectors": (lambda: Codebook(0, 2), "no such codebook: size=0"),
    "no dimensions": (lambda: Codebook(2, 0), "dim=0"),
    "a decay of 1": (lambda: Codebook(2, 2, decay=1.0), "decay=1.0"),
    "a negative restart": (lambda: Codebook(2, 2, restart=-1), "restart=-1"),
    "a negative beta": (lambda: vqvae_loss(a_model(), IMAGES, beta=-1), "beta must be at least 0"),
    "three channels": (lambda: a_model().encode(paddle.zeros([1, 3, 8, 8])), "[1, 3, 8, 8]"),
    "odd sides": (lambda: a_model().encode(paddle.zeros([1, 1, 8, 6])), "multiples of 4"),
    "an array": (lambda: a_model().encode(IMAGES.numpy()), "a tensor of floats"),
    "tokens of another length": (
        lambda: a_model().decode(paddle.zeros([1, 5], dtype="int64"), (2, 3)),
        "[N, 6]",
    ),
    "a token beyond": (lambda: a_model().decode(paddle.to_tensor([[0, 5]]), (1, 2)), "0 to 4"),
    "a negative token": (lambda: a_model().decode(paddle.to_tensor([[0, -1]]), (1, 2)), "-1 to 0"),
    "tokens that are floats": (lambda: a_model().decode(paddle.zeros([1, 2]), (1, 2)), "whole"),
}


@pytest.mark.parametrize("call, says", REFUSED.values(), ids=REFUSED)
def test_wrong_inputs_are_refused(call, says):
    with pytest.raises(ValueError, match=re.escape(says)):
        call()


def test_other_kinds_of_numbers_mean_the_same():
    model = a_model()
    model.eval()
    code = model.tokens(IMAGES.astype("float64"))
    np.testing.assert_array_equal(code, model.tokens(IMAGES))
    images = model.decode(code, (2, 3))
    np.testing.assert_array_equal(model.decode(code.astype("int32"), (2, 3)), images)
    np.testing.assert_array_equal(model.decode(code.tolist(), (2, 3)), images)
