"""What each recipe trains, caught on its way into `fit`."""

import numpy as np
import paddle
import pytest

from genbook.diffusion import GaussianDiffusion, linear_beta_schedule
from genbook.recipes import autoencoder, diffusion, vae
from genbook.vae import gaussian_kl

IMAGES = np.random.default_rng(0).random((6, 1, 8, 8), dtype="float32")


@pytest.fixture
def caught(monkeypatch):
    """The last call of `fit`: its model, loss, images and settings."""
    call = {}

    def fit(model, loss, images, **settings):
        call.update(model=model, loss=loss, images=images, **settings)
        return {"loss": np.zeros(1)}

    for recipe in (autoencoder, diffusion, vae):
        monkeypatch.setattr(recipe, "fit", fit)
    return call


def term(call, name="loss", seed=1):
    """One loss of the caught call on its images, with the noise of `seed`."""
    paddle.seed(seed)
    losses = call["loss"](call["model"], paddle.to_tensor(call["images"]))
    return (losses if isinstance(losses, dict) else {"loss": losses})[name].item()


def test_the_autoencoder_minimises_the_mean_squared_error(caught):
    model, _ = autoencoder.train_autoencoder(IMAGES)
    model.eval()
    error = ((model(paddle.to_tensor(IMAGES)).numpy() - IMAGES) ** 2).mean()
    np.testing.assert_allclose(term(caught), error, rtol=1e-5)


def encode_and_decode(model, images, seed=1):
    paddle.seed(seed)
    x_hat, mu, logvar = model(paddle.to_tensor(images))
    return x_hat.numpy().astype("float64"), gaussian_kl(mu, logvar).mean().item()


def test_the_baseline_takes_the_squared_error_and_the_whole_kl(caught):
    model, _ = vae.train_baseline_vae(IMAGES)
    x_hat, kl = encode_and_decode(model, IMAGES)
    error = 0.5 * ((x_hat - IMAGES) ** 2).sum() / len(IMAGES)
    np.testing.assert_allclose(term(caught), error + kl, rtol=1e-4)


@pytest.mark.parametrize("train", [vae.train_improved_vae, vae.train_plane_vae])
def test_the_others_take_cross_entropy_and_the_whole_kl(caught, train):
    model, _ = train(IMAGES)
    x_hat, kl = encode_and_decode(model, IMAGES)
    entropy = -(IMAGES * np.log(x_hat) + (1 - IMAGES) * np.log(1 - x_hat)).sum() / len(IMAGES)
    np.testing.assert_allclose(term(caught), entropy + kl, rtol=1e-4)


def test_the_improved_vae_averages_its_weights(caught):
    vae.train_improved_vae(IMAGES)
    assert caught["ema"] == 0.995


def test_the_plane_autoencoder_decodes_the_mean_without_noise(caught):
    model, _ = vae.train_plane_autoencoder(IMAGES)
    mu, _ = model.encode(paddle.to_tensor(IMAGES))
    x_hat = model.decode(mu).numpy().astype("float64")
    entropy = -(IMAGES * np.log(x_hat) + (1 - IMAGES) * np.log(1 - x_hat)).sum() / len(IMAGES)
    np.testing.assert_allclose([term(caught, seed=1), term(caught, seed=2)], entropy, rtol=1e-4)
    assert mu.shape == [6, 2]


def test_the_pair_in_the_plane_starts_from_the_same_weights(caught):
    states = []
    for train in (vae.train_plane_vae, vae.train_plane_autoencoder):
        train(IMAGES)
        states.append({k: v.numpy().copy() for k, v in caught["model"].state_dict().items()})
    for name in states[0]:
        np.testing.assert_array_equal(states[0][name], states[1][name])


def test_diffusion_trains_on_images_between_minus_1_and_1(caught):
    process = GaussianDiffusion(linear_beta_schedule(10), "v")
    diffusion.train_diffusion(IMAGES, process)
    np.testing.assert_allclose(caught["images"], 2 * IMAGES - 1)
    assert caught["loss"] == process.training_loss
    assert caught["ema"]
