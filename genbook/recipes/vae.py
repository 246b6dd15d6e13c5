"""Training the VAEs: a baseline, an improved one, and a pair with codes in a plane."""

from functools import partial

import paddle

from ..checkpoint import build
from ..train import fit
from ..vae import VAE, reconstruction_loss, squared_error, vae_loss


def train_baseline_vae(images, steps=1500, seed=0):
    """The usual first VAE: one hidden layer, squared error; with its history."""
    paddle.seed(seed)
    model = VAE(images.shape[1:], hidden=(400,), latent_dim=20)
    loss = partial(vae_loss, pixel_loss=squared_error)
    history = fit(model, loss, images, steps=steps, seed=seed, name="baseline VAE")
    return model, history


def train_improved_vae(images, steps=4000, seed=0, **settings):
    """A deeper VAE with cross-entropy and averaged weights; with its history.

    settings: more for `fit`.
    """
    paddle.seed(seed)
    model = build(
        VAE, image_shape=images.shape[1:], hidden=(512, 256), latent_dim=16
    )
    history = fit(
        model,
        vae_loss,
        images,
        steps=steps,
        ema=0.995,
        seed=seed,
        name="improved VAE",
        **settings,
    )
    return model, history


def train_plane_vae(images, steps=3000, seed=0):
    """A VAE with a code of two dimensions, to be drawn; with its history."""
    model = _plane(images, seed)
    history = fit(model, vae_loss, images, steps=steps, seed=seed, name="plane VAE")
    return model, history


def train_plane_autoencoder(images, steps=3000, seed=0):
    """The network of `train_plane_vae` as an autoencoder: z = mu, no KL divergence."""
    model = _plane(images, seed)
    history = fit(
        model, _without_noise, images, steps=steps, seed=seed, name="plane autoencoder"
    )
    return model, history


def _plane(images, seed):
    paddle.seed(seed)
    return VAE(images.shape[1:], hidden=(512, 256), latent_dim=2)


def _without_noise(model, x):
    mu, _ = model.encode(x)
    return reconstruction_loss(model.decode(mu), x).mean()
