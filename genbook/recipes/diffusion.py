"""Training the diffusion model."""

import paddle

from ..checkpoint import build
from ..train import fit
from ..unet import UNet


def train_diffusion(
    images, diffusion, steps=3500, seed=0, batch_size=32, lr=2e-3, **settings
):
    """A UNet trained for `diffusion` on images [N, C, H, W] in [0, 1], and its history.

    diffusion: a GaussianDiffusion. Inside it images are in [-1, 1]. settings: more for
    `fit`.
    """
    paddle.seed(seed)
    model = build(UNet, channels=images.shape[1], width=48)
    history = fit(
        model,
        diffusion.training_loss,
        2 * images - 1,
        steps=steps,
        batch_size=batch_size,
        lr=lr,
        ema=0.995,
        seed=seed,
        name="diffusion",
        **settings,
    )
    return model, history
