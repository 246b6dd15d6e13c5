"""Training the autoencoder."""

import paddle

from ..autoencoder import AutoEncoder
from ..checkpoint import build
from ..train import fit


def mean_squared_error(model, x):
    """The squared error of the reconstruction, a mean over all pixels of the batch."""
    return (model(x) - x).square().mean()


def train_autoencoder(images, steps=800, seed=0, **settings):
    """An AutoEncoder trained on images [N, C, H, W] in [0, 1], and its history.

    settings: more for `fit`.
    """
    paddle.seed(seed)
    model = build(AutoEncoder, in_channels=images.shape[1])
    history = fit(
        model,
        mean_squared_error,
        images,
        steps=steps,
        seed=seed,
        name="autoencoder",
        **settings,
    )
    return model, history
