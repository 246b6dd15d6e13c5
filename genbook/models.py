"""Trained models in files: saved with all it takes to build them again, and sampled from."""

from __future__ import annotations

import json
import os

import numpy as np
import paddle

from genbook import data
from genbook.autoencoder import AutoEncoder, draw_codes
from genbook.diffusion import GaussianDiffusion, guided
from genbook.training import checkpoint
from genbook.training.checkpoint import CheckpointError
from genbook.unet import UNet
from genbook.vae import VAE

# The largest of the book's models has 3 MB and is told in 100 letters
MOST_BYTES = 2**28
MOST_LETTERS = 1000
NETWORKS = {network.__name__: network for network in (AutoEncoder, VAE, UNet)}


def save(file, model, about, diffusion=None):
    """Write a model that `checkpoint.build` made; about: a dict that says what it learned from.

    about: "data" (the data set's name), "size" (pixels per side), "channels" and "classes" are
    what `sample` needs to know. diffusion: the GaussianDiffusion that a UNet was trained for.
    """
    arrays = {f"model.{k}": v.numpy() for k, v in model.state_dict().items()}
    network = {"network": type(model).__name__, "arguments": model.arguments}
    if diffusion is not None:
        arrays["diffusion.betas"] = diffusion.betas
        network |= {"timesteps": diffusion.timesteps, "prediction": diffusion.prediction}
    checkpoint.write(file, arrays, {**about, **network})


def load(file):
    """The model, the GaussianDiffusion it was trained for (or None), and what `save` was told.

    Raises CheckpointError for a file that is none, or is damaged.
    """
    told = checkpoint.about(file)
    if os.path.getsize(file) > MOST_BYTES:
        raise CheckpointError(f"{file} has more than {MOST_BYTES} bytes: no model of the book")
    try:
        if len(json.dumps(told["arguments"])) > MOST_LETTERS:  # it would take minutes to build
            raise ValueError("too many arguments")
        if not all(map(_is_whole, told["arguments"].values())):
            raise TypeError("arguments of another kind")
        network = NETWORKS[told["network"]]
        arguments = told["arguments"]
        with paddle.LazyGuard():  # the shapes alone: the file may ask for any size
            expected = network(**arguments).state_dict()
        like = {f"model.{k}": form for k, form in checkpoint.forms(expected).items()}
        if network is UNet:
            like["diffusion.betas"] = f"float64 [{told['timesteps']}]"
    except Exception as error:  # whatever a network says to arguments that make no sense
        raise CheckpointError(f"{file} holds no model that can be built") from error
    arrays, told = checkpoint.read(file, like)
    diffusion = None
    if network is UNet:
        try:
            diffusion = GaussianDiffusion(arrays.pop("diffusion.betas"), told.get("prediction"))
        except ValueError as error:
            raise CheckpointError(f"{file} holds no diffusion model: {error}") from error
    model = network(**arguments)
    checkpoint.load_weights(model, {k.removeprefix("model."): v for k, v in arrays.items()})
    model.eval()
    return model, diffusion, told


def _is_whole(argument):
    """A whole number or a list of them, as all networks take; others can grow without end."""
    numbers = argument if isinstance(argument, list) else [argument]
    return all(type(number) is int for number in numbers)


@paddle.no_grad()
def sample(file, count, seed=0, steps=50, guidance=0.5, root=None):
    """`count` images sampled by the model in `file`: float32 numpy [count, C, H, W] in [0, 1].

    A model with labels draws its classes in turn. steps, guidance: of a diffusion model's DDIM
    sampler and of `diffusion.guided`. root: the folder of the data set's files, for an
    autoencoder: it has no distribution of codes but that of its data. Raises CheckpointError for
    a bad file, DataError where data are missing, ValueError for a bad count or number of steps.
    """
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    model, diffusion, about = load(file)
    paddle.seed(seed)
    if isinstance(model, VAE):
        labels = paddle.arange(count) % model.classes if model.classes else None
        images = model.decode(paddle.randn([count, model.latent_dim]), labels)
    elif isinstance(model, UNet):
        shape = [count, about["channels"], about["size"], about["size"]]
        told = model
        if model.classes:
            told = guided(model, paddle.arange(count) % model.classes, guidance)
        images = (diffusion.ddim_sample_loop(told, shape, steps) + 1) / 2
    else:
        real = data.load(about["data"], size=about["size"], channels=about["channels"], root=root)
        codes = model.encode(paddle.to_tensor(real.images[:1000]))
        images = model.decode(draw_codes(codes, count))
    return np.clip(images.numpy(), 0, 1)
