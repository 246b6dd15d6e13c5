"""Files of weights: written whole or not at all, and checked before anything is made of them.

A checkpoint is a safetensors file (https://huggingface.co/docs/safetensors): named arrays, and in
its header's metadata a format, a checksum and whatever else is to be known about them, as JSON.
Nothing in it is ever executed, and nothing larger than what is expected is ever read.
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

from genbook.publishing import fingerprint

FORMAT = "genbook 1"  # of the metadata and of the arrays' names; to be raised when they change
MAX_HEADER = 2**20  # bytes: room for some thousand arrays
MAX_HISTORY = 2**26  # bytes: room for millions of steps
DTYPES = {"F32": np.float32, "F64": np.float64, "I32": np.int32, "I64": np.int64}


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be written, or is not what it should be."""


def pack(arrays, about):
    """The bytes of a checkpoint; see `write`."""
    text = json.dumps(about, sort_keys=True)
    metadata = {"format": FORMAT, "about": text, "checksum": _checksum(arrays, text)}
    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    return safetensors.numpy.save(arrays, metadata)


def unpack(content):
    """The arrays and what was told about them; ValueError where these are not what was packed."""
    arrays = safetensors.numpy.load(content)
    metadata = json.loads(content[8 : 8 + _length(content)])["__metadata__"]
    if metadata["checksum"] != _checksum(arrays, metadata["about"]):
        raise ValueError("its checksum is wrong")
    return arrays, _told(metadata["about"])


def write(file, arrays, about):
    """Write numpy `arrays` (name -> array) and `about` (a dict for JSON) to `file`.

    The file appears at once or not at all: until the new one is safe on the disk, `file` stays
    what it was. Raises CheckpointError where there is no room or no permission.
    """
    file = Path(file)
    content = pack(arrays, about)
    temporary = file.with_name(file.name + ".tmp")
    try:
        with temporary.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, file)
        _sync_folder(file.parent)
    except OSError as error:
        kept = "; the one from before is intact" if file.exists() else ""
        raise CheckpointError(f"cannot write {file}: {error.strerror}{kept}") from error
    finally:
        _remove(temporary)


def read(file, like):
    """The arrays in `file` and what it tells about them.

    like: the `forms` of the arrays that must be there. Beyond these there may be vectors whose
    names begin with "history.". Raises CheckpointError where there is no such file, it is
    damaged, or it holds other arrays; then no more than its header has been read.
    """
    with _reading(file) as stream:
        entries, _ = _header(stream)
        history = {name for name in entries if name.startswith("history.")}
        found = {name: form for name, (form, _) in entries.items() if name not in history}
        problem = difference(found, like)
        if problem:
            raise CheckpointError(f"{file} is of another model: {problem}")
        if sum(entries[name][1] for name in history) > MAX_HISTORY:
            raise ValueError("its history is too long")
        stream.seek(0)
        return unpack(stream.read())


def about(file):
    """What `file` tells about its arrays, without reading these; errors as those of `read`."""
    with _reading(file) as stream:
        _, metadata = _header(stream)
        return _told(metadata["about"])


def build(network, **arguments):
    """The network `network(**arguments)`, which remembers its arguments for whoever saves it."""
    model = network(**arguments)
    model.arguments = arguments
    return model


def load_weights(model, weights):
    """Put numpy `weights` (name -> array) into `model`; all names and shapes must match.

    Raises CheckpointError that names the first difference: Paddle itself would only warn.
    """
    problem = difference(forms(weights), forms(model.state_dict()))
    if problem:
        raise CheckpointError(f"these weights are of another model: {problem}")
    model.set_state_dict({k: paddle.to_tensor(v) for k, v in weights.items()})


def forms(arrays):
    """Type and shape of each array or tensor of a dict, such as "float32 [16, 3]"."""
    return {name: _form(array.dtype, array.shape) for name, array in arrays.items()}


def _form(dtype, shape):
    return f"{str(dtype).removeprefix('paddle.')} {list(shape)}"


def difference(found, expected):
    """The first difference between two dicts of forms, in words; None where they agree."""
    for name in sorted(expected.keys() | found.keys()):
        one, other = (forms.get(name, "absent") for forms in (expected, found))
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
    """The entries of the arrays, name -> (form, bytes), and the metadata.

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


def _told(text):
    """The dict that `text` was made from."""
    try:
        told = json.loads(text)
    except RecursionError:  # lists in lists in lists
        told = None
    if not isinstance(told, dict):
        raise ValueError("its header makes no sense")
    return told


def _entry(dtype, shape, data_offsets):
    """The form of an array and how many bytes it takes, from its entry in a header."""
    if not all(type(side) is int and side >= 0 for side in shape):
        raise TypeError
    dtype = np.dtype(DTYPES[dtype])
    return _form(dtype, shape), dtype.itemsize * math.prod(shape)


def _remove(file):
    try:
        file.unlink(missing_ok=True)
    except OSError:  # on a disk that is gone there is nothing left to remove
        pass


def _sync_folder(folder):
    """Have the disk know the new name as well (where folders can be opened: not on Windows)."""
    if hasattr(os, "O_DIRECTORY"):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
