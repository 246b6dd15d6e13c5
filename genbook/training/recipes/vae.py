"""Training the VAEs: a baseline, an improved one, and a pair with codes in a plane."""

from functools import partial

import paddle

from genbook.data.augmentation import augment
from genbook.training import fit
from genbook.training.checkpoint import build
from genbook.vae import VAE, reconstruction_loss, squared_error, vae_loss

from . import steps_for


def train_baseline_vae(data, steps=None, seed=0):
    """The usual first VAE: one hidden layer, squared error."""
    steps = steps_for(data, 1500, steps)
    paddle.seed(seed)
    model = VAE(data.images.shape[1:], hidden=(400,), latent_dim=20)
    loss = partial(vae_loss, pixel_loss=squared_error)
    history = fit(model, loss, data.images, steps=steps, seed=seed, name="baseline VAE")
    return model, history


def train_improved_vae(data, labels=True, steps=None, seed=0, lr=2e-3, **settings):
    """A deeper VAE with cross-entropy, on more images; told the labels, or not."""
    steps = steps_for(data, 2000, steps)
    paddle.seed(seed)
    model = build(
        VAE, image_shape=data.images.shape[1:], hidden=(512, 512, 256), latent_dim=16,
        classes=len(data.classes) if labels else 0,
    )
    more = augment(data)
    history = fit(
        model, vae_loss, *((more.images, more.labels) if labels else (more.images,)),
        steps=steps, lr=lr, ema=0.995, seed=seed, name="improved VAE", **settings,
    )
    return model, history


def train_plane_vae(data, steps=None, seed=0):
    """A VAE with a code of two dimensions, to be drawn."""
    return _train_in_the_plane(data, vae_loss, "plane VAE", steps, seed)


def train_plane_autoencoder(data, steps=None, seed=0):
    """The network of `train_plane_vae` as an autoencoder: z = mu, no KL divergence."""
    return _train_in_the_plane(data, _without_noise, "plane autoencoder", steps, seed)


def _train_in_the_plane(data, loss, name, steps, seed):
    steps = steps_for(data, 2000, steps)
    paddle.seed(seed)
    model = VAE(data.images.shape[1:], hidden=(512, 256), latent_dim=2)
    history = fit(model, loss, data.images, steps=steps, seed=seed, name=name)
    return model, history


def _without_noise(model, x):
    mu, _ = model.encode(x)
    return reconstruction_loss(model.decode(mu), x).mean()
