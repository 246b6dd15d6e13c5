"""Trained models in files: saved with all it takes to rebuild them, loaded, sampled from."""

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

# The largest of the book's models has 3 MB, and arguments of 100 letters.
MOST_BYTES = 2**28
MOST_LETTERS = 1000
NETWORKS = {network.__name__: network for network in (AutoEncoder, VAE, UNet)}


def save(file, model, metadata, diffusion=None):
    """Write a model that `checkpoint.build` made, and `metadata` that says what it learned from.

    metadata: a dict for JSON; `sample` needs "data" (the data set's name), "size" (pixels per
    side) and "channels". diffusion: the GaussianDiffusion that a UNet was trained for.
    Raises ValueError for a model that was made in another way.
    """
    if not hasattr(model, "arguments"):
        name = type(model).__name__
        raise ValueError(f"make the {name} by genbook.training.checkpoint.build({name}, ...)")
    arrays = {f"model.{k}": v.numpy() for k, v in model.state_dict().items()}
    network = {"network": type(model).__name__, "arguments": model.arguments}
    if diffusion is not None:
        arrays["diffusion.betas"] = diffusion.betas
        network |= {"timesteps": diffusion.timesteps, "prediction": diffusion.prediction}
    checkpoint.write(file, arrays, {**metadata, **network})


def load(file):
    """The model, the GaussianDiffusion it was trained for (or None), and the metadata of `save`.

    Raises CheckpointError for a file that is none, or is damaged.
    """
    metadata = checkpoint.metadata(file)
    if os.path.getsize(file) > MOST_BYTES:
        raise CheckpointError(f"{file} has more than {MOST_BYTES} bytes: no model of the book")
    try:
        if len(json.dumps(metadata["arguments"])) > MOST_LETTERS:  # it would take minutes to build
            raise ValueError("too many arguments")
        if not all(map(_is_whole, metadata["arguments"].values())):
            raise TypeError("arguments of another kind")
        network = NETWORKS[metadata["network"]]
        arguments = metadata["arguments"]
        with paddle.LazyGuard():  # the shapes alone: the file may ask for any size
            expected = network(**arguments).state_dict()
        like = {f"model.{k}": spec for k, spec in checkpoint.specs(expected).items()}
        if network is UNet:
            like["diffusion.betas"] = f"float64 [{metadata['timesteps']}]"
    except Exception as error:  # whatever a network says to arguments that make no sense
        raise CheckpointError(
            f"{file} holds no model that can be built; is there a model.safetensors?"
        ) from error
    arrays, metadata = checkpoint.read(file, like)
    diffusion = None
    if network is UNet:
        try:
            diffusion = GaussianDiffusion(arrays.pop("diffusion.betas"), metadata.get("prediction"))
        except ValueError as error:
            raise CheckpointError(f"{file} holds no diffusion model: {error}") from error
    model = network(**arguments)
    model.set_state_dict({k.removeprefix("model."): v for k, v in arrays.items()})
    model.eval()
    return model, diffusion, metadata


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
    model, diffusion, metadata = load(file)
    if missing := {"data", "size", "channels"} - metadata.keys():
        raise CheckpointError(f"{file} does not say its {', '.join(sorted(missing))}")
    paddle.seed(seed)
    if isinstance(model, VAE):
        labels = paddle.arange(count) % model.classes if model.classes else None
        images = model.decode(paddle.randn([count, model.latent_dim]), labels)
    elif isinstance(model, UNet):
        shape = [count, metadata["channels"], metadata["size"], metadata["size"]]
        denoiser = model
        if model.classes:
            denoiser = guided(model, paddle.arange(count) % model.classes, guidance)
        images = (diffusion.ddim_sample_loop(denoiser, shape, steps) + 1) / 2
    else:
        real = data.load(
            metadata["data"], size=metadata["size"], channels=metadata["channels"], root=root
        )
        codes = model.encode(paddle.to_tensor(real.images[:1000]))
        images = model.decode(draw_codes(codes, count))
    return np.clip(images.numpy(), 0, 1)
