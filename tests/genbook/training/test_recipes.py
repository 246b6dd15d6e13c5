"""What each recipe trains, caught on its way into `fit`."""

import numpy as np
import paddle
import pytest

from genbook.data import Dataset
from genbook.data import augmentation as augment
from genbook.diffusion import GaussianDiffusion, linear_beta_schedule
from genbook.tokens import masked_bound, token_nll
from genbook.training.recipes import autoencoder, diffusion, discrete, flow, latent, vae
from genbook.vae import gaussian_kl
from genbook.vqvae import VQVAE, vqvae_loss

IMAGES = np.random.default_rng(0).random((6, 1, 8, 8), dtype="float32")
LABELS = np.arange(6) % 3
DATA = Dataset("digits", "train", IMAGES, LABELS, ("a", "b", "c"))


@pytest.fixture
def caught(monkeypatch):
    """The last call of `fit`: its model, loss, data and settings."""
    call = {}

    def fit(model, loss, *data, **settings):
        call.clear()
        call.update(model=model, loss=loss, data=data, **settings)
        return {"loss": np.zeros(1)}

    for recipe in (autoencoder, diffusion, discrete, flow, latent, vae):
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


def test_without_labels_the_improved_vae_still_sees_more_images(caught, monkeypatch):
    monkeypatch.setattr(augment, "ENOUGH", 12)
    model, _ = vae.train_improved_vae(DATA, labels=False)
    (images,) = caught["data"]
    assert images.shape == (12, 1, 8, 8) and model.classes == 0
    x_hat, kl = encode_and_decode(model, images)
    np.testing.assert_allclose(term(caught), cross_entropy(x_hat, images) + kl, rtol=1e-4)


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


def asked(caught):
    """What 200 losses ask of the caught network: states [200, N, ...], steps, labels [200, N]."""
    calls = []

    def forward(x_t, t, labels):
        calls.append((x_t.numpy(), t.numpy(), labels.numpy()))
        return 0 * x_t

    caught["model"].forward = forward
    for seed in range(200):
        term(caught, seed=seed)
    return [np.array(part) for part in zip(*calls, strict=True)]


def assert_a_tenth_is_hidden(shown, labels):
    hidden = shown == 3
    assert (shown == np.where(hidden, 3, labels)).all()
    assert abs(hidden.mean() - 0.1) < 5 * np.sqrt(0.1 * 0.9 / shown.size)


def test_diffusion_trains_on_images_between_minus_1_and_1_and_hides_labels(caught):
    process = GaussianDiffusion(linear_beta_schedule(10), "v")
    diffusion.train_diffusion(DATA, process)
    images, labels = caught["data"]
    np.testing.assert_allclose(images, 2 * IMAGES - 1)
    np.testing.assert_array_equal(labels, LABELS)
    assert_a_tenth_is_hidden(asked(caught)[2], LABELS)


def test_flow_trains_on_images_between_minus_1_and_1_and_hides_labels(caught):
    flow.train_flow(DATA)
    images, labels = caught["data"]
    np.testing.assert_allclose(images, 2 * IMAGES - 1)
    np.testing.assert_array_equal(labels, LABELS)
    states, t, shown = asked(caught)
    assert_a_tenth_is_hidden(shown, LABELS)
    assert t.min() < 50 and t.max() > 950  # in thousandths
    early = t < 10
    np.testing.assert_allclose(
        states[early], np.broadcast_to(images, states.shape)[early], atol=0.1
    )


def test_the_first_stage_takes_a_quarter_of_the_kl_on_more_images(caught, monkeypatch):
    monkeypatch.setattr(augment, "ENOUGH", 12)
    model, _ = latent.train_first_stage(DATA)
    (images,) = caught["data"]
    assert images.shape == (12, 1, 8, 8) and model.classes == 0
    x_hat, kl = encode_and_decode(model, images)
    np.testing.assert_allclose(term(caught), cross_entropy(x_hat, images) + kl / 4, rtol=1e-4)


class Posteriors:
    """Stands for a VAE: the posteriors of an image are wide, and far from 0."""

    latent_dim = 2

    def encode(self, x):
        ink = x.mean(axis=[1, 2, 3]).unsqueeze(1)
        return paddle.concat([7 + 0 * ink, 40 * ink], axis=1), paddle.full([len(x), 2], np.log(9.0))


def test_latent_diffusion_trains_on_fresh_codes_of_unit_size_and_hides_labels(caught, monkeypatch):
    monkeypatch.setattr(augment, "ENOUGH", 12)
    clean = GaussianDiffusion([1e-6, 1e-6])  # x_t is the code itself
    _, scale, _ = latent.train_latent_diffusion(DATA, Posteriors(), clean)
    assert len(caught["data"][0]) == 12
    codes, _, labels = asked(caught)
    mu = Posteriors().encode(paddle.to_tensor(augment.augment(DATA).images))[0].numpy()
    deviation = np.sqrt(mu.var(axis=0) + 9)
    np.testing.assert_allclose(scale.std.numpy(), deviation, rtol=1e-5)
    # each image's codes scatter around its own mean, by the deviation 3 of its posterior
    error = 3 / deviation / np.sqrt(200)
    assert (abs(codes.mean(axis=0) - (mu - mu.mean(axis=0)) / deviation) < 5 * error).all()
    np.testing.assert_allclose(codes.std(axis=(0, 1))[0], 3 / deviation[0], rtol=0.1)
    assert_a_tenth_is_hidden(labels, np.tile(LABELS, 2))


# How each of them is trained where it differs from what `fit` does by itself, and how long
PROCESS = GaussianDiffusion(linear_beta_schedule(10), "v")
HOW = {
    "autoencoder": (autoencoder.train_autoencoder, {"steps": 800}),
    "baseline": (vae.train_baseline_vae, {"steps": 1500}),
    "plane": (vae.train_plane_vae, {"steps": 2000}),
    "plane autoencoder": (vae.train_plane_autoencoder, {"steps": 2000}),
    "improved": (vae.train_improved_vae, {"steps": 2000, "lr": 2e-3, "ema": 0.995}),
    "first stage": (latent.train_first_stage, {"steps": 1000, "lr": 2e-3, "ema": 0.995}),
    "latent": (
        lambda data, **how: latent.train_latent_diffusion(data, Posteriors(), PROCESS, **how),
        {"steps": 1500, "lr": 1e-3, "ema": 0.995},
    ),
    "VQ-VAE": (discrete.train_vqvae, {"steps": 500, "lr": 2e-3}),
    "token prior": (
        lambda data, **how: discrete.train_token_prior(data, VQVAE(size=4), True, **how),
        {"steps": 700, "lr": 3e-3, "ema": 0.995, "batch_size": 64},
    ),
    "diffusion": (
        lambda data, **how: diffusion.train_diffusion(data, PROCESS, **how),
        {"steps": 2500, "lr": 2e-3, "ema": 0.995, "batch_size": 32},
    ),
    "flow": (flow.train_flow, {"steps": 2500, "lr": 2e-3, "ema": 0.995, "batch_size": 32}),
}


@pytest.mark.parametrize("name", HOW)
def test_a_recipe_is_followed(caught, monkeypatch, name):
    monkeypatch.setattr(augment, "ENOUGH", 1)
    train, expected = HOW[name]
    train(DATA)
    found = {key: caught[key] for key in ("steps", "lr", "ema", "batch_size") if key in caught}
    assert found == expected
    assert caught["seed"] == 0


@pytest.mark.parametrize(
    ("name", "widths"),
    [
        ("baseline", [400, 20]),
        ("improved", [512, 512, 256, 16]),
        ("plane", [512, 256, 2]),
        ("plane autoencoder", [512, 256, 2]),
        ("first stage", [512, 512, 256, 16]),
    ],
)
def test_a_vae_has_the_widths_that_the_chapters_name(caught, monkeypatch, name, widths):
    monkeypatch.setattr(augment, "ENOUGH", 1)
    model, _ = HOW[name][0](DATA)
    layers = [p.shape[1] for p in model.encoder.parameters() if p.ndim == 2]
    assert [*layers, model.latent_dim] == widths


def test_the_networks_of_diffusion_have_the_widths_that_the_chapters_name(caught, monkeypatch):
    monkeypatch.setattr(augment, "ENOUGH", 1)
    assert HOW["diffusion"][0](DATA)[0].width == 32
    model, *_ = HOW["latent"][0](DATA)
    assert (model.width, len(model.blocks), model.latent_dim) == (192, 2, 2)


@pytest.mark.parametrize("name", HOW)
def test_start_and_batches_follow_from_the_seed(caught, monkeypatch, name):
    monkeypatch.setattr(augment, "ENOUGH", 1)
    weights = []
    for seed in (5, 5, 6):
        paddle.seed(len(weights))  # what was drawn before does not matter
        HOW[name][0](DATA, seed=seed)
        assert caught["seed"] == seed
        weights.append(np.concatenate([p.numpy().ravel() for p in caught["model"].parameters()]))
    assert (weights[0] == weights[1]).all() and (weights[0] != weights[2]).any()


@pytest.mark.parametrize("name", ["autoencoder", "improved", "diffusion"])
def test_settings_reach_fit(caught, monkeypatch, name):
    monkeypatch.setattr(augment, "ENOUGH", 1)
    HOW[name][0](DATA, folder="here")
    assert caught["folder"] == "here"


@pytest.mark.parametrize("name", ["improved", "diffusion"])
def test_another_learning_rate_reaches_fit(caught, monkeypatch, name):
    monkeypatch.setattr(augment, "ENOUGH", 1)
    HOW[name][0](DATA, lr=0.5)
    assert caught["lr"] == 0.5


@pytest.mark.parametrize(
    "name", ["autoencoder", "baseline", "improved", "first stage", "diffusion"]
)
def test_images_in_colour_are_trained_on(caught, monkeypatch, name):
    monkeypatch.setattr(augment, "ENOUGH", 1)
    colour = np.random.default_rng(1).random((6, 3, 8, 8), dtype="float32")
    HOW[name][0](Dataset("digits", "train", colour, LABELS, DATA.classes))
    assert np.isfinite(term(caught))


def test_other_data_is_trained_longer(caught):
    vae.train_improved_vae(DATA)
    steps = caught["steps"]
    vae.train_improved_vae(Dataset("mnist", "train", IMAGES, LABELS, DATA.classes))
    assert caught["steps"] == 4 * steps
    for name in ("digits", "mnist"):
        vae.train_improved_vae(Dataset(name, "train", IMAGES, LABELS, DATA.classes), steps=7)
        assert caught["steps"] == 7


RECIPES = [
    autoencoder.train_autoencoder,
    lambda data: diffusion.train_diffusion(data, None),
    flow.train_flow,
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


def test_the_vq_vae_learns_from_distorted_copies_by_its_own_loss(caught, monkeypatch):
    monkeypatch.setattr(augment, "ENOUGH", 12)
    model, _ = discrete.train_vqvae(DATA, size=7, restart=0.1)
    assert (len(model.codebook.vectors), model.codebook.restart) == (7, 0.1)
    assert len(caught["data"]) == 1 and len(caught["data"][0]) == 12
    model.eval()
    expected = vqvae_loss(model, paddle.to_tensor(caught["data"][0]))["loss"].item()
    np.testing.assert_allclose(term(caught), expected, rtol=1e-5)


@pytest.mark.parametrize("causal", [True, False])
def test_a_token_prior_learns_the_codes_of_distorted_copies_with_their_labels(
    caught, monkeypatch, causal
):
    monkeypatch.setattr(augment, "ENOUGH", 12)
    vqvae, _ = discrete.train_vqvae(DATA, size=7)
    vqvae.eval()
    model, _ = discrete.train_token_prior(DATA, vqvae, causal)
    assert (model.size, model.sides, model.classes, model.causal) == (7, (2, 2), 3, causal)
    tokens, labels = (paddle.to_tensor(a) for a in caught["data"])
    more = augment.augment(DATA)
    np.testing.assert_array_equal(tokens, vqvae.tokens(paddle.to_tensor(more.images)))
    np.testing.assert_array_equal(labels, more.labels)
    model.eval()
    paddle.seed(1)
    if causal:
        expected = token_nll(model, tokens, labels).sum().item() / len(tokens)
    else:
        expected = masked_bound(model, tokens, labels).mean().item()
    np.testing.assert_allclose(term(caught), expected, rtol=1e-5)
