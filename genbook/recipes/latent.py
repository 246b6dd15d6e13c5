"""Training a diffusion model of a VAE's codes."""

import paddle

from ..augment import augment
from ..diffusion import hide_labels
from ..latent import CodeDenoiser, CodeScale
from ..train import fit
from ..vae import reparameterize
from . import steps_for


def train_latent_diffusion(data, vae, diffusion, steps=None, seed=0):
    """A CodeDenoiser for the codes of `vae`, a VAE without labels; and their CodeScale.

    Each step draws fresh codes from the posteriors of its images. Of the labels a tenth is hidden.
    """
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
        model,
        loss,
        mu.numpy(),
        logvar.numpy(),
        more.labels,
        steps=steps or steps_for(data, 6000),
        lr=1e-3,
        ema=0.995,
        seed=seed,
        name="latent diffusion",
    )
    return model, scale, history
