"""Training the two stages of latent diffusion: a VAE, and a model of its codes."""

from functools import partial

import paddle

from genbook.data.augmentation import augment
from genbook.diffusion import hide_labels
from genbook.latent import CodeDenoiser, CodeScale
from genbook.training import fit
from genbook.vae import VAE, reparameterize, vae_loss

from . import steps_for


def train_first_stage(data, steps=None, seed=0):
    """A VAE without labels whose KL divergence counts a quarter."""
    steps = steps_for(data, 1000, steps)
    paddle.seed(seed)
    model = VAE(data.images.shape[1:], hidden=(512, 512, 256), latent_dim=16)
    history = fit(
        model, partial(vae_loss, beta=0.25), augment(data).images, steps=steps,
        lr=2e-3, ema=0.995, seed=seed, name="first stage",
    )
    return model, history


def train_latent_diffusion(data, vae, diffusion, steps=None, seed=0):
    """A CodeDenoiser for the codes of `vae`, a VAE without labels; and their CodeScale.

    Each step draws fresh codes from the posteriors of its images. A tenth of the
    labels is hidden.
    """
    steps = steps_for(data, 1500, steps)
    more = augment(data)
    with paddle.no_grad():
        mu, logvar = vae.encode(paddle.to_tensor(more.images))
    scale = CodeScale(mu, logvar)
    paddle.seed(seed)
    model = CodeDenoiser(vae.latent_dim, classes=len(data.classes))

    def loss(model, mu, logvar, labels):
        u = scale.to_unit(reparameterize(mu, logvar))
        labels = hide_labels(labels, unknown=model.classes)
        return diffusion.training_loss(lambda u_t, t: model(u_t, t, labels), u)

    history = fit(
        model, loss, mu.numpy(), logvar.numpy(), more.labels, steps=steps,
        lr=1e-3, ema=0.995, seed=seed, name="latent diffusion",
    )
    return model, scale, history
