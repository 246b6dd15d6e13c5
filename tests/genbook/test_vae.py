import numpy as np
import paddle
import pytest
from scipy import integrate, stats

from genbook.vae import (
    VAE,
    bernoulli_nll,
    gaussian_kl,
    reconstruction_loss,
    region_weighted_loss,
    reparameterize,
    smooth_l1,
    squared_error,
    vae_loss,
)


def tensor(values):
    return paddle.to_tensor(np.asarray(values, dtype="float32"))


@pytest.mark.parametrize("mu, sigma", [(0.0, 1.0), (1.5, 0.3), (-2.0, 2.5), (0.1, 0.9)])
def test_kl_of_one_dimension_against_quadrature(mu, sigma):
    q, p = stats.norm(mu, sigma), stats.norm()
    expected, error = integrate.quad(
        lambda z: q.pdf(z) * (q.logpdf(z) - p.logpdf(z)), mu - 12 * sigma, mu + 12 * sigma
    )
    kl = gaussian_kl(tensor([[mu]]), tensor([[2 * np.log(sigma)]]))
    assert error < 1e-6
    np.testing.assert_allclose(kl.numpy(), [expected], rtol=1e-5, atol=1e-6)


def test_kl_sums_over_dimensions_and_keeps_the_batch():
    mu, logvar = paddle.randn([3, 5]), paddle.randn([3, 5])
    columns = [gaussian_kl(mu[:, j : j + 1], logvar[:, j : j + 1]).numpy() for j in range(5)]
    kl = gaussian_kl(mu, logvar)
    assert kl.shape == [3]
    np.testing.assert_allclose(kl.numpy(), np.sum(columns, axis=0), rtol=1e-5)


def test_kl_reads_its_second_argument_as_log_variance():
    # Of N(0, e^2): taken for a variance or a log standard deviation, 2 gives other numbers.
    expected = 0.5 * (np.exp(2) - 1 - 2)
    found = gaussian_kl(tensor([[0]]), tensor([[2]])).item()
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_kl_is_never_negative():
    paddle.seed(0)
    for scale in (1e-4, 1e-2, 1.0, 3.0):
        kl = gaussian_kl(scale * paddle.randn([1000, 4]), scale * paddle.randn([1000, 4]))
        assert (kl >= -1e-6).all()


def test_gradients_of_the_kl_reach_mean_and_variance():
    # KL = (sigma^2 + mu^2 - 1 - log sigma^2) / 2, differentiated by hand
    mu, logvar = tensor([[0.3, -1.2]]), tensor([[0.8, -0.5]])
    mu.stop_gradient = logvar.stop_gradient = False
    gaussian_kl(mu, logvar).sum().backward()
    np.testing.assert_allclose(mu.grad.numpy(), [[0.3, -1.2]], rtol=1e-6)
    expected = [[0.5 * (np.exp(0.8) - 1), 0.5 * (np.exp(-0.5) - 1)]]
    np.testing.assert_allclose(logvar.grad.numpy(), expected, rtol=1e-5)


def test_reparameterize_with_given_noise():
    z = reparameterize(tensor([[1.0, -2.0]]), tensor([[0.0, np.log(9)]]), tensor([[0.5, -1.0]]))
    np.testing.assert_allclose(z.numpy(), [[1.5, -5.0]], rtol=1e-6)


def test_reparameterized_draws_have_the_right_moments():
    paddle.seed(0)
    n, mu, sigma = 200_000, 0.7, 1.8
    z = reparameterize(paddle.full([n, 1], mu), paddle.full([n, 1], 2 * np.log(sigma))).numpy()
    assert abs(z.mean() - mu) < 4 * sigma / np.sqrt(n)
    assert abs(z.var() - sigma**2) < 4 * sigma**2 * np.sqrt(2 / n)


def test_reparameterize_draws_fresh_noise_for_every_element():
    z = reparameterize(paddle.zeros([50, 4]), paddle.zeros([50, 4])).numpy()
    assert len(np.unique(z)) == z.size


def test_gradients_pass_through_reparameterize():
    # z = mu + exp(logvar / 2) eps, so dz/dmu = 1 and dz/dlogvar = sigma eps / 2.
    mu, logvar, eps = tensor([[0.3]]), tensor([[0.8]]), tensor([[-1.1]])
    mu.stop_gradient = logvar.stop_gradient = False
    reparameterize(mu, logvar, eps).sum().backward()
    np.testing.assert_allclose(mu.grad.numpy(), [[1.0]])
    np.testing.assert_allclose(logvar.grad.numpy(), [[0.5 * np.exp(0.4) * -1.1]], rtol=1e-5)


def test_squared_error_is_a_normal_likelihood_less_its_constant():
    x_hat, x = np.array([[[[0.2, 0.9]]]]), np.array([[[[0.5, 0.4]]]])
    expected = -stats.norm(x_hat, 1).logpdf(x) - 0.5 * np.log(2 * np.pi)
    np.testing.assert_allclose(squared_error(tensor(x_hat), tensor(x)).numpy(), expected, rtol=1e-5)


def test_bernoulli_is_the_likelihood_of_black_and_white_pixels():
    x_hat, x = np.array([[[[0.2, 0.9, 0.7]]]]), np.array([[[[0.0, 1.0, 0.0]]]])
    expected = -stats.bernoulli(x_hat).logpmf(x.astype(int))
    np.testing.assert_allclose(bernoulli_nll(tensor(x_hat), tensor(x)).numpy(), expected, rtol=1e-5)


@pytest.mark.parametrize("grey", [0.1, 0.35, 0.8])
def test_bernoulli_loss_of_a_grey_pixel_is_least_at_its_value(grey):
    x_hat = np.linspace(0.01, 0.99, 99).reshape(1, 1, 1, 99)
    loss = bernoulli_nll(tensor(x_hat), paddle.full([1, 1, 1, 99], grey)).numpy().ravel()
    np.testing.assert_allclose(x_hat.ravel()[loss.argmin()], grey, atol=1e-6)


def test_smooth_l1_is_quadratic_then_linear():
    loss = smooth_l1(tensor([[[[0.5, 3.0, -2.0]]]]), paddle.zeros([1, 1, 1, 3]))
    np.testing.assert_allclose(loss.numpy().ravel(), [0.125, 2.5, 1.5], rtol=1e-6)


@pytest.mark.parametrize("pixel_loss", [squared_error, smooth_l1, bernoulli_nll])
def test_reconstruction_loss_sums_pixels_for_each_image(pixel_loss):
    x_hat, x = paddle.rand([3, 2, 4, 5]), paddle.rand([3, 2, 4, 5])
    loss = reconstruction_loss(x_hat, x, pixel_loss)
    expected = pixel_loss(x_hat, x).numpy().reshape(3, -1).sum(axis=1)
    np.testing.assert_allclose(loss.numpy(), expected, rtol=1e-5)


def test_region_weights_reach_their_regions():
    x = tensor([[[[0.0, 0.5, 1.0, 0.49]]]])  # black, white (at the threshold), white, black
    x_hat = x - 0.4
    one = 0.5 * 0.4**2
    white = region_weighted_loss(x_hat, x, 0.5, 1.0, 0.0).item()
    black = region_weighted_loss(x_hat, x, 0.5, 0.0, 1.0).item()
    both = region_weighted_loss(x_hat, x, 0.5, 3.0, 7.0).item()
    np.testing.assert_allclose([white, black, both], [2 * one, 2 * one, 20 * one], rtol=1e-5)


def test_equal_region_weights_give_the_plain_loss():
    x_hat, x = paddle.rand([3, 1, 4, 4]), paddle.rand([3, 1, 4, 4])
    assert region_weighted_loss(x_hat, x).dtype == paddle.float32
    np.testing.assert_allclose(
        region_weighted_loss(x_hat, x).numpy(),
        reconstruction_loss(x_hat, x, smooth_l1).numpy(),
        rtol=1e-5,
    )


def test_vae_shapes():
    model = VAE((3, 8, 12), hidden=(32, 16), latent_dim=5)
    x_hat, mu, logvar = model(paddle.rand([7, 3, 8, 12]))
    assert x_hat.shape == [7, 3, 8, 12]
    assert mu.shape == logvar.shape == [7, 5]
    assert 0 < x_hat.min().item() and x_hat.max().item() < 1


def test_forward_uses_the_given_noise():
    paddle.seed(0)
    model = VAE((1, 8, 8), hidden=(16,), latent_dim=3)
    x, eps = paddle.rand([4, 1, 8, 8]), paddle.randn([4, 3])
    mu, logvar = model.encode(x)
    by_hand = model.decode(mu + (logvar / 2).exp() * eps)
    np.testing.assert_allclose(model(x, eps)[0].numpy(), by_hand.numpy(), rtol=1e-5)
    assert not np.array_equal(model(x)[0].numpy(), model(x)[0].numpy())


@pytest.mark.parametrize("beta", [0.0, 1.0, 4.0])
def test_loss_is_reconstruction_plus_beta_kl_averaged_over_images(beta):
    paddle.seed(0)
    model, x = VAE((1, 8, 8), hidden=(16,), latent_dim=3), paddle.rand([6, 1, 8, 8])
    paddle.seed(1)
    losses = vae_loss(model, x, pixel_loss=squared_error, beta=beta)
    paddle.seed(1)  # the same noise again
    x_hat, mu, logvar = (v.numpy().astype("float64") for v in model(x))
    reconstruction = 0.5 * ((x_hat - x.numpy()) ** 2).sum() / 6
    kl = 0.5 * (np.exp(logvar) + mu**2 - 1 - logvar).sum() / 6
    np.testing.assert_allclose(losses["reconstruction"].item(), reconstruction, rtol=1e-4)
    np.testing.assert_allclose(losses["kl"].item(), kl, rtol=1e-4)
    np.testing.assert_allclose(losses["loss"].item(), reconstruction + beta * kl, rtol=1e-4)


@pytest.mark.parametrize("pixel_loss", [squared_error, smooth_l1, bernoulli_nll])
def test_the_gradient_of_the_loss_is_that_by_differences(pixel_loss):
    paddle.seed(0)
    model, x = VAE((1, 4, 4), hidden=(8,), latent_dim=2), paddle.rand([5, 1, 4, 4])
    directions = [(p, paddle.randn(p.shape)) for p in model.parameters()]

    def loss():
        paddle.seed(1)
        return vae_loss(model, x, pixel_loss=pixel_loss, beta=3.0)["loss"]

    loss().backward()
    for parameter, direction in directions:
        slope = (parameter.grad * direction).sum().item()
        start, h = parameter.clone(), 1e-2 / direction.norm().item()
        ends = []
        for sign in (1, -1):
            parameter.set_value(start + sign * h * direction)
            ends.append(loss().item())
        parameter.set_value(start)
        assert (ends[0] - ends[1]) / (2 * h) == pytest.approx(slope, rel=0.05, abs=0.02)


def test_the_kl_term_trains_the_encoder():
    paddle.seed(0)
    model = VAE((1, 8, 8), hidden=(16,), latent_dim=3)
    gradients = []
    for beta in (0.0, 1.0):
        model.clear_gradients()
        paddle.seed(1)
        vae_loss(model, paddle.ones([2, 1, 8, 8]), beta=beta)["loss"].backward()
        gradients.append(model.to_mu.bias.grad.numpy())
    # d KL / d mu = mu, a mean over two equal images.
    mu = model.encode(paddle.ones([2, 1, 8, 8]))[0].numpy()[0]
    np.testing.assert_allclose(gradients[1] - gradients[0], mu, rtol=1e-3, atol=1e-5)


def test_elbo_bounds_the_evidence_of_a_linear_model():
    # x = w z + b + noise has the evidence N(x; b, w^2 + 1), and its posterior is known; the bound
    # is reached there and missed elsewhere by the KL divergence to it.
    w, b, x = 1.7, -0.4, 2.2
    log_evidence = stats.norm(b, np.sqrt(w**2 + 1)).logpdf(x)
    post_var = 1 / (w**2 + 1)
    post_mean = post_var * w * (x - b)
    rng = np.random.default_rng(0)
    for mean, var in [(post_mean, post_var), (0.2, 0.5)]:
        z = mean + np.sqrt(var) * rng.standard_normal(400_000)
        error = squared_error(tensor(w * z + b), tensor(np.full_like(z, x))).numpy()
        log_likelihood = -error - np.log(2 * np.pi) / 2
        elbo = log_likelihood.mean() - gaussian_kl(tensor([[mean]]), tensor([[np.log(var)]])).item()
        gap = 0.5 * (
            var / post_var + (mean - post_mean) ** 2 / post_var - 1 - np.log(var / post_var)
        )
        error = 5 * log_likelihood.std() / np.sqrt(len(z))
        assert abs(elbo + gap - log_evidence) < error
        assert elbo <= log_evidence + error


def test_labels_reach_encoder_and_decoder():
    paddle.seed(0)
    model = VAE((1, 8, 8), (16,), 3, classes=4)
    x, z = paddle.rand([1, 1, 8, 8]), paddle.randn([1, 3])
    labels = [paddle.to_tensor([label]) for label in range(4)]
    means = np.concatenate([model.encode(x, label)[0].numpy() for label in labels])
    images = np.concatenate([model.decode(z, label).numpy() for label in labels])
    assert len(np.unique(means.round(6), axis=0)) == len(np.unique(images.round(6), axis=0)) == 4
    assert model(paddle.rand([2, 1, 8, 8]), labels=paddle.to_tensor([3, 0]))[0].shape[0] == 2


def test_labels_are_given_where_they_are_expected_and_nowhere_else():
    x, labels = paddle.rand([1, 1, 8, 8]), paddle.to_tensor([2])
    with pytest.raises(ValueError, match="4 classes needs labels"):
        VAE((1, 8, 8), (16,), 3, classes=4)(x)
    with pytest.raises(ValueError, match="0 classes takes no labels"):
        VAE((1, 8, 8), (16,), 3)(x, labels=labels)


def test_a_vae_is_by_default_that_of_the_text():
    model = VAE()
    x = paddle.rand([2, 1, 16, 16])
    assert model.encode(x)[0].shape == [2, 20]
    assert [p.shape for p in model.encoder.parameters()] == [[256, 400], [400]]
    assert model.classes == 0
    wide = VAE((2, 4, 8), hidden=(30, 10), latent_dim=3)  # the decoder is the encoder in reverse
    down = [p.shape for p in wide.encoder.parameters() if len(p.shape) == 2]
    up = [p.shape for p in wide.decoder.parameters() if len(p.shape) == 2]
    assert down == [[64, 30], [30, 10]] and up == [[3, 10], [10, 30], [30, 64]]
    assert wide.to_mu.weight.shape == wide.to_logvar.weight.shape == [10, 3]


def test_the_layers_between_are_rectified():
    names = [type(layer).__name__ for layer in VAE(hidden=(5, 4)).encoder]
    assert names == ["Linear", "ReLU"] * 2
    names = [type(layer).__name__ for layer in VAE(hidden=(5, 4)).decoder]
    assert names == ["Linear", "ReLU"] * 2 + ["Linear", "Sigmoid"]


def test_a_label_is_a_one_at_its_place():
    model = VAE((1, 2, 2), (5,), 3, classes=4)
    rows = model._with_labels(paddle.zeros([2, 4]), paddle.to_tensor([3, 0]))
    np.testing.assert_array_equal(rows.numpy()[:, 4:], [[0, 0, 0, 1], [1, 0, 0, 0]])


def test_the_loss_is_told_the_labels_and_weighs_both_terms_alike():
    paddle.seed(0)
    model, x = VAE((1, 4, 4), (8,), 2, classes=3), paddle.rand([4, 1, 4, 4]).round()
    labels = paddle.to_tensor([0, 1, 2, 1])
    paddle.seed(1)
    losses = vae_loss(model, x, labels)
    paddle.seed(1)  # the same noise again
    x_hat, mu, logvar = (v.numpy().astype("float64") for v in model(x, labels=labels))
    reconstruction = -stats.bernoulli(x_hat).logpmf(x.numpy().astype(int)).sum() / 4
    kl = 0.5 * (np.exp(logvar) + mu**2 - 1 - logvar).sum() / 4
    np.testing.assert_allclose(losses["loss"].item(), reconstruction + kl, rtol=1e-4)


def test_regions_are_split_at_one_half_and_weigh_alike_by_default():
    x = paddle.to_tensor([[[[0.0, 0.5, 1.0, 0.49]]]], dtype="float64")
    one = 0.5 * 0.4**2
    assert region_weighted_loss(x - 0.4, x).dtype == x.dtype
    for weights, total in (
        ({}, 4),
        ({"white_region_loss_coef": 3.0}, 8),
        ({"black_region_loss_coef": 5.0}, 12),
    ):
        np.testing.assert_allclose(region_weighted_loss(x - 0.4, x, **weights), [total * one])


def test_what_is_wrong_with_the_labels_is_told():
    x = paddle.rand([1, 1, 16, 16])
    with pytest.raises(ValueError, match=r"^a VAE with 4 classes needs labels$"):
        VAE(classes=4).encode(x)


def test_noise_is_drawn_in_the_precision_of_the_code():
    mu = paddle.zeros([3, 2], dtype="float64")
    z = reparameterize(mu, mu)  # the noise itself
    assert z.dtype == mu.dtype
    assert (z != z.astype("float32").astype("float64")).any()


def test_the_parts_of_the_network_are_joined_as_drawn():
    paddle.seed(0)
    model = VAE((2, 3, 4), hidden=(9, 7), latent_dim=5, classes=3)
    x, eps, labels = paddle.rand([4, 2, 3, 4]), paddle.randn([4, 5]), paddle.to_tensor([2, 0, 1, 2])
    places = tensor(np.eye(3)[labels.numpy()])
    h = model.encoder(paddle.concat([x.reshape([4, 24]), places], axis=1))
    mu, logvar = h @ model.to_mu.weight, h @ model.to_logvar.weight  # biases start at 0
    z = mu + (logvar / 2).exp() * eps
    x_hat = model.decoder(paddle.concat([z, places], axis=1)).reshape([4, 2, 3, 4])
    for got, expected in zip(model(x, eps, labels), (x_hat, mu, logvar), strict=True):
        np.testing.assert_allclose(got.numpy(), expected.numpy(), rtol=1e-4, atol=1e-6)


def test_a_sure_and_wrong_pixel_is_as_unlikely_as_it_says():
    x_hat = tensor([[[[1e-9, 1e-6, 1e-3, 0.999]]]])
    wrong, right = (bernoulli_nll(x_hat, paddle.full([1, 1, 1, 4], x)).numpy() for x in (1.0, 0.0))
    p = x_hat.numpy().astype("float64")
    np.testing.assert_allclose(wrong, -np.log(p), rtol=1e-4)
    np.testing.assert_allclose(right, -np.log1p(-p), rtol=1e-3, atol=1e-7)  # 1 - p is rounded


def test_one_dimension_of_codes_is_enough():
    assert VAE((1, 4, 4), (5,), latent_dim=1).encode(paddle.rand([2, 1, 4, 4]))[0].shape == [2, 1]
