"""What each recipe trains, caught on its way into `fit`."""

import numpy as np
import paddle
import pytest

from genbook.data import Dataset
from genbook.data import augmentation as augment
from genbook.diffusion import GaussianDiffusion, linear_beta_schedule
from genbook.training.recipes import autoencoder, diffusion, latent, vae
from genbook.vae import gaussian_kl

IMAGES = np.random.default_rng(0).random((6, 1, 8, 8), dtype="float32")
LABELS = np.arange(6) % 3
DATA = Dataset("digits", "train", IMAGES, LABELS, ("a", "b", "c"))


@pytest.fixture
def caught(monkeypatch):
    """The last call of `fit`: its model, loss, data and settings."""
    call = {}

    def fit(model, loss, *data, **settings):
        call.update(model=model, loss=loss, data=data, **settings)
        return {"loss": np.zeros(1)}

    for recipe in (autoencoder, diffusion, vae):
        monkeypatch.setattr(recipe, "fit", fit)
    return call


def term(call, name="loss", seed=1):
    """One loss of the caught call on its data, with the noise of `seed`."""
    paddle.seed(seed)
    losses = call["loss"](call["model"], *map(paddle.to_tensor, call["data"]))
    return (losses if isinstance(losses, dict) else {"loss": losses})[name].item()


def test_the_autoencoder_minimises_the_mean_squared_error(caught):
    model, _ = autoencoder.train_autoencoder(DATA)
    model.eval()
    error = ((model(paddle.to_tensor(IMAGES)).numpy() - IMAGES) ** 2).mean()
    np.testing.assert_allclose(term(caught), error, rtol=1e-5)


def encode_and_decode(model, images, labels=None, seed=1):
    paddle.seed(seed)
    labels = None if labels is None else paddle.to_tensor(labels)
    x_hat, mu, logvar = model(paddle.to_tensor(images), labels=labels)
    return x_hat.numpy().astype("float64"), gaussian_kl(mu, logvar).mean().item()


def test_the_baseline_takes_the_squared_error_and_the_whole_kl(caught):
    model, _ = vae.train_baseline_vae(DATA)
    x_hat, kl = encode_and_decode(model, IMAGES)
    error = 0.5 * ((x_hat - IMAGES) ** 2).sum() / len(IMAGES)
    np.testing.assert_allclose(term(caught), error + kl, rtol=1e-4)


def cross_entropy(x_hat, images):
    return -(images * np.log(x_hat) + (1 - images) * np.log(1 - x_hat)).sum() / len(images)


def test_the_plane_vae_takes_cross_entropy_and_the_whole_kl(caught):
    model, _ = vae.train_plane_vae(DATA)
    x_hat, kl = encode_and_decode(model, IMAGES)
    np.testing.assert_allclose(term(caught), cross_entropy(x_hat, IMAGES) + kl, rtol=1e-4)


def test_the_improved_vae_takes_the_same_on_more_images_with_their_labels(caught, monkeypatch):
    monkeypatch.setattr(augment, "ENOUGH", 12)
    model, _ = vae.train_improved_vae(DATA)
    images, labels = caught["data"]
    assert images.shape == (12, 1, 8, 8)
    np.testing.assert_array_equal(labels, np.tile(LABELS, 2))
    x_hat, kl = encode_and_decode(model, images, labels)
    np.testing.assert_allclose(term(caught), cross_entropy(x_hat, images) + kl, rtol=1e-4)


def test_the_improved_vae_averages_its_weights(caught):
    vae.train_improved_vae(DATA)
    assert caught["ema"] == 0.995


def test_the_plane_autoencoder_decodes_the_mean_without_noise(caught):
    model, _ = vae.train_plane_autoencoder(DATA)
    mu, _ = model.encode(paddle.to_tensor(IMAGES))
    x_hat = model.decode(mu).numpy().astype("float64")
    losses = [term(caught, seed=1), term(caught, seed=2)]
    np.testing.assert_allclose(losses, cross_entropy(x_hat, IMAGES), rtol=1e-4)
    assert mu.shape == [6, 2]


def test_the_pair_in_the_plane_starts_from_the_same_weights(caught):
    states = []
    for train in (vae.train_plane_vae, vae.train_plane_autoencoder):
        train(DATA)
        states.append({k: v.numpy().copy() for k, v in caught["model"].state_dict().items()})
    for name in states[0]:
        np.testing.assert_array_equal(states[0][name], states[1][name])


def test_diffusion_trains_on_images_between_minus_1_and_1_and_hides_labels(caught):
    process = GaussianDiffusion(linear_beta_schedule(10), "v")
    model, _ = diffusion.train_diffusion(DATA, process)
    images, labels = caught["data"]
    np.testing.assert_allclose(images, 2 * IMAGES - 1)
    np.testing.assert_array_equal(labels, LABELS)
    assert caught["ema"]

    seen = []
    model.forward = lambda x_t, t, labels: seen.append(labels.numpy()) or 0 * x_t
    for seed in range(200):
        term(caught, seed=seed)
    seen = np.array(seen)  # [200, 6]
    hidden = seen == 3
    assert (seen == np.where(hidden, 3, LABELS)).all()
    assert abs(hidden.mean() - 0.1) < 5 * np.sqrt(0.1 * 0.9 / seen.size)


def test_other_data_is_trained_longer(caught):
    vae.train_improved_vae(DATA)
    steps = caught["steps"]
    vae.train_improved_vae(Dataset("mnist", "train", IMAGES, LABELS, DATA.classes))
    assert caught["steps"] == 4 * steps
    vae.train_improved_vae(DATA, steps=7)
    assert caught["steps"] == 7


RECIPES = [
    autoencoder.train_autoencoder,
    lambda data: diffusion.train_diffusion(data, None),
    vae.train_baseline_vae,
    vae.train_improved_vae,
    vae.train_plane_vae,
    latent.train_first_stage,
    lambda data: latent.train_latent_diffusion(data, None, None),
]


@pytest.mark.parametrize("recipe", range(len(RECIPES)))
@pytest.mark.parametrize("data", [IMAGES, (IMAGES, LABELS), paddle.to_tensor(IMAGES)], ids=type)
def test_what_is_no_dataset_is_one_clear_error(recipe, data):
    with pytest.raises(TypeError, match="a genbook.data.Dataset, got (ndarray|tuple|Tensor)"):
        RECIPES[recipe](data)
