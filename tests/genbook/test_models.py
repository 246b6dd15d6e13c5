"""Saved models: built again from the file alone, and sampled from."""

import json
import tracemalloc

import numpy as np
import paddle
import pytest

from genbook import models
from genbook.autoencoder import AutoEncoder
from genbook.diffusion import GaussianDiffusion, linear_beta_schedule
from genbook.training import checkpoint
from genbook.training.checkpoint import CheckpointError, build
from genbook.unet import UNet
from genbook.vae import VAE

METADATA = {"data": "digits", "size": 8, "channels": 1, "classes": ("0", "1")}
PROCESS = GaussianDiffusion(linear_beta_schedule(20), "eps")


def networks():
    paddle.seed(0)
    return {
        "autoencoder": (build(AutoEncoder, in_channels=1), None),
        "vae": (build(VAE, image_shape=(1, 8, 8), hidden=(16,), latent_dim=3), None),
        "diffusion": (build(UNet, channels=1, width=8), PROCESS),
    }


@pytest.fixture
def files(tmp_path):
    """A file of each model."""
    for name, (model, diffusion) in networks().items():
        models.save(tmp_path / name, model, METADATA, diffusion)
    return tmp_path


@pytest.mark.parametrize("name", ["autoencoder", "vae", "diffusion"])
def test_a_saved_model_is_built_again(name, files):
    before, _ = networks()[name]
    model, diffusion, metadata = models.load(files / name)
    assert type(model) is type(before) and not model.training
    for key, value in before.state_dict().items():
        np.testing.assert_array_equal(model.state_dict()[key].numpy(), value.numpy())
    assert (metadata["data"], metadata["size"], metadata["classes"]) == ("digits", 8, ["0", "1"])
    if name == "diffusion":
        assert diffusion.prediction == "eps"
        np.testing.assert_array_equal(diffusion.betas, PROCESS.betas)


@pytest.mark.parametrize("name", ["autoencoder", "vae", "diffusion"])
def test_samples_are_images_and_follow_the_seed(name, files):
    one, again, other = (models.sample(files / name, 5, seed=s, steps=4) for s in (1, 1, 2))
    assert one.shape == (5, 1, 8, 8) and one.min() >= 0 and one.max() <= 1
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, other)


def test_a_vae_decodes_codes_from_the_prior(files):
    images = models.sample(files / "vae", 500)
    model, _ = networks()["vae"]
    model.eval()
    mean = np.mean([model.decode(paddle.randn([500, 3])).numpy() for _ in range(4)], axis=(0, 1))
    error = images.std(axis=0) / np.sqrt(500) * np.sqrt(1 + 1 / 4)
    assert (np.abs(images.mean(axis=0) - mean) < 5 * error).all()


def change(file, **changes):
    """Write a file anew with other words about its arrays, checksum and all."""
    arrays = checkpoint.safetensors.numpy.load(file.read_bytes())
    checkpoint.write(file, arrays, checkpoint.metadata(file) | changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"network": "os.system"},
        {"network": ["UNet"]},
        {"network": None},
        {"arguments": None},
        {"arguments": {"channels": 1, "depth": 3}},
        {"arguments": {"channels": "one"}},
        {"network": "VAE", "arguments": {"image_shape": [[1], 10**7, None]}},  # a long list
        {"arguments": {"channels": 1, "width": 2**14}},
        {"arguments": {"channels": 1, "width": 1e9}},
        {"arguments": {"channels": 2, "width": 8}},
        {"timesteps": 21},
        {"timesteps": "many"},
        {"prediction": "x0"},
    ],
    ids=json.dumps,
)
def test_words_that_make_no_sense_are_refused_at_no_cost(changes, files):
    change(files / "diffusion", **changes)
    tracemalloc.start()
    with pytest.raises(CheckpointError):
        models.load(files / "diffusion")
    assert tracemalloc.get_traced_memory()[1] < 2**25
    tracemalloc.stop()


def test_a_checkpoint_of_a_running_training_is_no_model(tmp_path):
    checkpoint.write(tmp_path / "some", {}, {"step": 1})
    with pytest.raises(CheckpointError, match="no model"):
        models.load(tmp_path / "some")


def test_a_file_that_does_not_say_what_it_draws_is_refused(files):
    model, diffusion = networks()["diffusion"]
    models.save(files / "bare", model, {"data": "digits"}, diffusion)
    with pytest.raises(CheckpointError, match="does not say its channels, size"):
        models.sample(files / "bare", 1)


def test_a_damaged_file_is_refused(files):
    content = bytearray((files / "vae").read_bytes())
    content[-5] ^= 1
    (files / "vae").write_bytes(content)
    with pytest.raises(CheckpointError, match="checksum"):
        models.sample(files / "vae", 1)


@pytest.mark.parametrize("count, steps, word", [(0, 4, "count"), (1, 0, "steps"), (1, 21, "steps")])
def test_bad_numbers_are_refused(count, steps, word, files):
    with pytest.raises(ValueError, match=word):
        models.sample(files / "diffusion", count, steps=steps)
