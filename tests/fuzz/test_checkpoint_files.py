"""Broken files of weights: each is refused with a CheckpointError, or what it holds is right."""

import json
import struct

import numpy as np
import paddle
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edits import edited
from genbook import models
from genbook.autoencoder import AutoEncoder
from genbook.diffusion import GaussianDiffusion, linear_beta_schedule
from genbook.training import checkpoint, checkpointer
from genbook.training.checkpoint import CheckpointError, build
from genbook.unet import UNet
from genbook.vae import VAE

ARRAYS = {
    "model.weight": np.arange(12, dtype="float32").reshape(3, 4),
    "model.count": np.array([7]),
    "history.loss": np.linspace(1, 0, 5),
}
MODEL = {k: v for k, v in ARRAYS.items() if k.startswith("model.")}
LIKE = checkpoint.specs(MODEL)
METADATA = {"step": 5, "name": "零"}
CONTENT = checkpoint.serialize(ARRAYS, METADATA)
LENGTH = 8 + int.from_bytes(CONTENT[:8], "little")

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from([10**9, 2**63, -1, 0, 1, 1e400, "F32", "I64", "UNet", "VAE"]),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=6,
)


def raw(header, rest=b""):
    """A file with this header, whose length is right."""
    return struct.pack("<Q", len(header)) + header + rest


@pytest.fixture
def read(tmp_path):
    """Reads a file of this content: the arrays and what is told; None where it is refused."""

    def read(content):
        (tmp_path / "file").write_bytes(content)
        try:
            checkpoint.metadata(tmp_path / "file")
        except CheckpointError:
            pass
        try:
            return checkpoint.read(tmp_path / "file", LIKE)
        except CheckpointError:
            return None

    return read


def check(found):
    """Whether a file was refused, or is what was written."""
    if found:
        arrays, metadata = found
        assert metadata == METADATA and arrays.keys() == ARRAYS.keys()
        for name, array in ARRAYS.items():
            assert arrays[name].dtype == array.dtype
            np.testing.assert_array_equal(arrays[name], array)


@given(edited(CONTENT))
def test_bytes(watched, read, content):
    with watched():
        check(read(content))


@given(edited(CONTENT[8:LENGTH], [b'"F64"', b"[", b"{", b'"', b"9" * 20, b"-", b"NaN", b"\\u"]))
def test_header(watched, read, header):
    with watched():
        check(read(raw(header, CONTENT[LENGTH:])))


@given(st.data())
def test_a_value_of_the_header(watched, read, draw):
    header = json.loads(CONTENT[8:LENGTH])
    entry = header[draw.draw(st.sampled_from(sorted(header)))]
    entry[draw.draw(st.sampled_from(sorted(entry)))] = draw.draw(JSON)
    if draw.draw(st.booleans()):
        header[draw.draw(st.text(max_size=8))] = draw.draw(JSON | st.just(entry))
    with watched():
        check(read(raw(json.dumps(header).encode(), CONTENT[LENGTH:])))


# Files whose checksum is right, and whose words are not

PROCESS = GaussianDiffusion(linear_beta_schedule(20))


def model_files():
    """What `models.save` writes: name -> arrays and what is told about them."""
    paddle.seed(0)
    models = [
        build(AutoEncoder, in_channels=1),
        build(VAE, image_shape=(1, 8, 8), hidden=(16,), latent_dim=3),
        build(UNet, channels=1, width=8),
    ]
    for model in models:
        arrays = {f"model.{k}": v.numpy() for k, v in model.state_dict().items()}
        about = {
            "data": "digits",
            "size": 8,
            "channels": 1,
            "classes": None,
            "network": type(model).__name__,
            "arguments": model.arguments,
        }
        if isinstance(model, UNet):
            arrays["diffusion.betas"] = PROCESS.betas
            about |= {"timesteps": 20, "prediction": "v"}
        yield arrays, about


MODELS = list(model_files())
NESTED = "[" * 100_000 + "]" * 100_000


@given(st.data())
def test_a_model(watched, tmp_path, draw):
    arrays, about = draw.draw(st.sampled_from(MODELS))
    about = json.loads(json.dumps(about))
    place = about["arguments"] if draw.draw(st.booleans()) else about
    keys = ["hidden", "latent_dim", "classes", "image_shape", "width", "channels"]
    place[draw.draw(st.sampled_from(sorted(place) + keys))] = draw.draw(
        JSON | st.sampled_from([[8] * 300_000, [1] * 20, "8" * 9, 10**12, 2**14])
    )
    content = checkpoint.serialize(arrays, about)
    (tmp_path / "file").write_bytes(content)
    with watched():
        try:
            model, _, told = models.load(tmp_path / "file")
        except CheckpointError:
            return
    weights = {k: v for k, v in arrays.items() if k.startswith("model.")}
    for key, value in model.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), weights[f"model.{key}"])
    assert type(model).__name__ == about["network"]


class Training:
    """As much of a training as a Checkpointer restores."""

    step, steps = 0, 5


@given(st.data())
def test_a_running_training(watched, tmp_path, draw):
    """A checkpoint whose words are odd is refused, or taken up at a step that it has reached."""
    words = {"recipe": "r", "settings": {}, "step": 5, "updates": 0}
    words[draw.draw(st.sampled_from(sorted(words)))] = draw.draw(JSON)
    text = NESTED if draw.draw(st.integers(0, 20)) == 7 else json.dumps(words)
    header = {
        "format": checkpoint.FORMAT,
        "about": text,
        "checksum": checkpoint._checksum(ARRAYS, text),
    }
    content = checkpoint.safetensors.numpy.save(ARRAYS, header)
    (tmp_path / "file").write_bytes(content)
    keeper = checkpointer.Checkpointer(tmp_path / "file", "r", {"steps": 5}, strict=True)

    def restore(training, arrays, step, updates):
        assert 0 <= step <= training.steps and 0 <= updates <= step
        assert all(len(v) == step for k, v in arrays.items() if k.startswith("history."))

    with watched(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpointer, "restore", restore)
        patch.setattr(checkpointer, "tensors", lambda training: MODEL)
        try:
            keeper.on_start(Training())
        except CheckpointError:
            return
    assert words["recipe"] == "r"
