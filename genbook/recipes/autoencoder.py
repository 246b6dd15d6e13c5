"""Training the autoencoder."""

import paddle

from ..autoencoder import AutoEncoder
from ..train import fit


def mean_squared_error(model, x):
    """The squared error of the reconstruction, a mean over all pixels of the batch."""
    return (model(x) - x).square().mean()


def train_autoencoder(images, steps=800, seed=0):
    """An AutoEncoder trained on images [N, C, H, W] in [0, 1], and its history."""
    paddle.seed(seed)
    model = AutoEncoder(in_channels=images.shape[1])
    history = fit(
        model, mean_squared_error, images, steps=steps, seed=seed, name="autoencoder"
    )
    return model, history
