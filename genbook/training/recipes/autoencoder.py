"""Training the autoencoder."""

import paddle

from genbook.autoencoder import AutoEncoder
from genbook.training import fit
from genbook.training.checkpoint import build

from . import steps_for


def mean_squared_error(model, x):
    """The squared error of the reconstruction, a mean over all pixels of the batch."""
    return (model(x) - x).square().mean()


def train_autoencoder(data, steps=None, seed=0, **settings):
    """The lab's AutoEncoder."""
    steps = steps_for(data, 800, steps)
    paddle.seed(seed)
    model = build(AutoEncoder, in_channels=data.images.shape[1])
    history = fit(
        model, mean_squared_error, data.images, steps=steps, seed=seed,
        name="autoencoder", **settings,
    )
    return model, history
