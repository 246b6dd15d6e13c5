"""Files of weights: written atomically, and validated before anything is made of them.

A checkpoint is a safetensors file (https://huggingface.co/docs/safetensors): named arrays, and in
its header's metadata a format, a checksum, and metadata of ours as JSON. Nothing in it is ever
executed, and nothing larger than expected is ever read.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
from pathlib import Path

import numpy as np
import paddle
import safetensors.numpy
from safetensors import SafetensorError

from genbook import system
from genbook.publishing import fingerprint

FORMAT = "genbook 1"  # of the metadata and of the arrays' names; to be raised when they change
MAX_HEADER = 2**20  # bytes: room for some thousand arrays
MAX_HISTORY = 2**26  # bytes: room for millions of steps
DTYPES = {"F32": np.float32, "F64": np.float64, "I32": np.int32, "I64": np.int64}


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be written, or is not what it should be."""


def serialize(arrays, metadata):
    """The bytes of a checkpoint; see `write`."""
    text = json.dumps(metadata, sort_keys=True)
    header = {"format": FORMAT, "about": text, "checksum": _checksum(arrays, text)}
    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    return safetensors.numpy.save(arrays, header)


def deserialize(content):
    """The arrays and the metadata in the bytes of a checkpoint; ValueError if they are damaged."""
    arrays = safetensors.numpy.load(content)
    header = json.loads(content[8 : 8 + _length(content)])["__metadata__"]
    if header["checksum"] != _checksum(arrays, header["about"]):
        raise ValueError("its checksum is wrong")
    return arrays, _parse(header["about"])


def write(file, arrays, metadata):
    """Write numpy `arrays` (name -> array) and `metadata` (a dict for JSON) to `file`, atomically.

    Raises CheckpointError where there is no room or no permission; then `file` is what it was.
    """
    file = Path(file)
    try:
        system.write_atomically(file, serialize(arrays, metadata))
    except OSError as error:
        kept = "; the one from before is intact" if file.exists() else ""
        raise CheckpointError(f"cannot write {file}: {error.strerror}{kept}") from error


def read(file, like):
    """The arrays and the metadata in `file`.

    like: the `specs` of the arrays that must be there. Beyond these there may be vectors whose
    names begin with "history.". Raises CheckpointError where there is no such file, it is
    damaged, or it holds other arrays; then no more than its header has been read.
    """
    with _reading(file) as stream:
        entries, _ = _header(stream)
        history = {name for name in entries if name.startswith("history.")}
        found = {name: spec for name, (spec, _) in entries.items() if name not in history}
        problem = difference(found, like)
        if problem:
            raise CheckpointError(f"{file} is of another model: {problem}")
        if sum(entries[name][1] for name in history) > MAX_HISTORY:
            raise ValueError("its history is too long")
        stream.seek(0)
        return deserialize(stream.read())


def metadata(file):
    """The metadata in `file`, without reading its arrays; raises what `read` raises."""
    with _reading(file) as stream:
        _, header = _header(stream)
        return _parse(header["about"])


def build(network, **arguments):
    """The network `network(**arguments)`; its `arguments` are stored with it by `models.save`."""
    model = network(**arguments)
    model.arguments = arguments
    return model


def load_weights(model, weights):
    """Put numpy `weights` (name -> array) into `model`; all names and shapes must match.

    Raises CheckpointError that names the first difference: Paddle itself would only warn.
    """
    problem = difference(specs(weights), specs(model.state_dict()))
    if problem:
        raise CheckpointError(f"these weights are of another model: {problem}")
    model.set_state_dict({k: paddle.to_tensor(v) for k, v in weights.items()})


def specs(arrays):
    """Type and shape of each array or tensor of a dict, such as "float32 [16, 3]"."""
    return {name: _spec(array.dtype, array.shape) for name, array in arrays.items()}


def _spec(dtype, shape):
    return f"{str(dtype).removeprefix('paddle.')} {list(shape)}"


def difference(found, expected):
    """The first difference between two dicts of specs, in words; None where they agree."""
    for name in sorted(expected.keys() | found.keys()):
        one, other = (specs.get(name, "absent") for specs in (expected, found))
        if one != other:
            return f"{name} should be {one} and is {other}"
    return None


def _checksum(arrays, text):
    return fingerprint.digest(text, fingerprint.of_value(arrays))


@contextlib.contextmanager
def _reading(file):
    """The opened file; whatever is wrong with it becomes a CheckpointError."""
    try:
        with open(file, "rb") as stream:
            yield stream
    except OSError as error:
        raise CheckpointError(f"cannot read {file}: {error.strerror}") from error
    except (SafetensorError, ValueError) as error:
        message = f"{file} is damaged or no checkpoint of genbook: {error}"
        raise CheckpointError(message) from error


def _length(start):
    """How long the header is, by the first eight bytes of a file."""
    return int.from_bytes(start[:8], "little")


def _header(stream):
    """The entries of the arrays, name -> (spec, bytes), and the strings of its metadata.

    They fit the size of the file; whether they fit each other is for safetensors to say. Raises
    ValueError where the header is none of ours.
    """
    size = os.fstat(stream.fileno()).st_size
    length = _length(stream.read(8))
    if not 2 <= length <= min(MAX_HEADER, size - 8):
        raise ValueError("it has no header")
    try:
        header = json.loads(stream.read(length))
        metadata = header.pop("__metadata__")
        written_by = metadata["format"]
        if not all(isinstance(metadata[key], str) for key in ("format", "about", "checksum")):
            raise TypeError
        entries = {name: _entry(**entry) for name, entry in header.items()}
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError("its header makes no sense") from error
    if written_by != FORMAT:
        raise CheckpointError(
            f"{stream.name} was written by another version of genbook: its "
            f"format is {written_by!r}, and this version reads {FORMAT!r}"
        )
    if size != 8 + length + sum(count for _, count in entries.values()):
        raise ValueError("it is too short or too long")
    return entries, metadata


def _parse(text):
    """The dict that `text`, JSON, was made from; else ValueError."""
    try:
        found = json.loads(text)
    except RecursionError:  # lists in lists in lists
        found = None
    if not isinstance(found, dict):
        raise ValueError("its header makes no sense")
    return found


def _entry(dtype, shape, data_offsets):
    """The spec of an array and how many bytes it takes, from its entry in a header."""
    if not all(type(side) is int and side >= 0 for side in shape):
        raise TypeError
    dtype = np.dtype(DTYPES[dtype])
    return _spec(dtype, shape), dtype.itemsize * math.prod(shape)
