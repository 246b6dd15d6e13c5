"""Training by flow matching."""

import paddle

from genbook.accelerate import bfloat16
from genbook.diffusion import hide_labels
from genbook.flow import flow_loss
from genbook.training import fit
from genbook.training.checkpoint import build
from genbook.unet import UNet

from . import steps_for


def train_flow(data, steps=None, seed=0):
    """A UNet that predicts a velocity, trained as `train_diffusion` trains one.

    Of the images' labels a tenth is hidden. Inside the flow images are in [-1, 1].
    """
    steps = steps_for(data, 2500, steps)
    paddle.seed(seed)
    channels, classes = data.images.shape[1], len(data.classes)
    model = build(UNet, channels=channels, width=32, classes=classes)

    def loss(model, x, labels):
        labels = hide_labels(labels, unknown=model.classes)
        return flow_loss(lambda x_tau, t: model(x_tau, t, labels), x).mean()

    history = fit(
        model, loss, 2 * data.images - 1, data.labels, steps=steps,
        batch_size=32, lr=2e-3, ema=0.995, seed=seed, name="flow",
    )
    return bfloat16(model), history
