"""Files of weights: written atomically, and validated before anything is made of them.

A checkpoint is a safetensors file (https://huggingface.co/docs/safetensors): named arrays, and in
its header's metadata a format, a checksum, and metadata of ours as JSON. Nothing in it is ever
executed, and nothing larger than expected is ever read.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError, safe_open

from genbook import system
from genbook.publishing import fingerprint

FORMAT = "genbook 1"  # of the metadata and of the arrays' names; to be raised when they change
MAX_HEADER = 2**20  # bytes: room for some thousand arrays
MAX_HISTORY = 2**26  # bytes: room for millions of steps
DTYPES = {"F32": "float32", "F64": "float64", "I32": "int32", "I64": "int64"}


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
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])["__metadata__"]
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

    like: the `specs` of the arrays that must be there. Beyond these there may be float64 vectors
    whose names begin with "history.". Raises CheckpointError where there is no such file, it is
    damaged, or it holds other arrays; then no more than its header has been read.
    """
    with _opened(file) as opened:
        entries = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118
        found = {
            name: (DTYPES.get(entry.get_dtype(), "another type"), entry.get_shape())
            for name, entry in entries.items()
        }
        history = [found.pop(name) for name in entries if name.startswith("history.")]
        if any(dtype != "float64" or len(shape) != 1 for dtype, shape in history):
            raise ValueError("its history is not of float64 vectors")
        if sum(8 * shape[0] for _, shape in history) > MAX_HISTORY:
            raise ValueError("its history is too long")
        problem = difference({name: _spec(*entry) for name, entry in found.items()}, like)
        if problem:
            raise CheckpointError(f"{file} is of another model: {problem}")
        return deserialize(Path(file).read_bytes())


def metadata(file):
    """The metadata in `file`, without reading its arrays; raises what `read` raises."""
    with _opened(file) as opened:
        return _parse(opened.metadata()["about"])


def build(network, **arguments):
    """The network `network(**arguments)`; its `arguments` are stored with it by `models.save`."""
    model = network(**arguments)
    model.arguments = arguments
    return model


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
def _opened(file):
    """The file with its header read; whatever is wrong with it becomes a CheckpointError.

    safetensors has then checked that the header and the size of the file fit each other.
    """
    try:
        with open(file, "rb") as stream:
            if int.from_bytes(stream.read(8), "little") > MAX_HEADER:
                raise ValueError("it has no header")
        with safe_open(file, framework="np") as opened:
            header = opened.metadata() or {}
            if not {"format", "about", "checksum"} <= header.keys():
                raise ValueError("its header makes no sense")
            if header["format"] != FORMAT:
                raise CheckpointError(
                    f"{file} was written by another version of genbook: its "
                    f"format is {header['format']!r}, and this version reads {FORMAT!r}"
                )
            yield opened
    except OSError as error:
        raise CheckpointError(f"cannot read {file}: {error.strerror or error}") from error
    except (SafetensorError, ValueError) as error:
        message = f"{file} is damaged or no checkpoint of genbook: {error}"
        raise CheckpointError(message) from error


def _parse(text):
    """The dict that `text`, JSON, was made from; else ValueError."""
    try:
        found = json.loads(text)
    except RecursionError:  # lists in lists in lists
        found = None
    if not isinstance(found, dict):
        raise ValueError("its header makes no sense")
    return found
