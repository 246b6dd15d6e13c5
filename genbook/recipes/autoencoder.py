"""Training the autoencoder."""

import paddle

from ..autoencoder import AutoEncoder
from ..train import fit
from . import steps_for


def mean_squared_error(model, x):
    """The squared error of the reconstruction, a mean over all pixels of the batch."""
    return (model(x) - x).square().mean()


def train_autoencoder(data, steps=None, seed=0):
    """The lab's AutoEncoder."""
    paddle.seed(seed)
    model = AutoEncoder(in_channels=data.images.shape[1])
    steps = steps or steps_for(data, 800)
    loss = mean_squared_error
    history = fit(model, loss, data.images, steps=steps, seed=seed, name="autoencoder")
    return model, history
