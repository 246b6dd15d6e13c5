"""The data set `mnist`: 70,000 handwritten digits, from a folder or from Paddle's mirror."""

import gzip
import hashlib
import io
import os
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from . import files
from .files import DataError

MIRROR = "https://dataset.bj.bcebos.com/mnist/"  # where Paddle gets it from
# The md5 sums of the unpacked files: the same data is packed differently by every mirror.
MD5 = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}
MOST_BYTES = 2**26  # more than any of the files has, packed or not
FOLDERS = ("", "mnist", "raw", "MNIST/raw", "mnist/raw")  # torchvision's is MNIST/raw


def read_mnist(split, size, root):
    """70,000 digits, 28x28 (LeCun, Bottou, Bengio and Haffner, Proc. IEEE 86(11), 1998)."""
    files.require_root(root)
    prefix = "train" if split == "train" else "t10k"
    (_, images), (_, labels) = (
        _file(f"{prefix}-{kind}", root) for kind in ("images-idx3-ubyte", "labels-idx1-ubyte")
    )
    images = images.astype(np.float32) / 255
    if size != 28:
        weights = _antialiased(28, size)
        images = np.clip(weights @ images @ weights.T, 0, 1)
    return images, labels.astype(np.int64)


def _antialiased(old, new):
    """Cubic resampling that averages over all it skips when it makes smaller -> [new, old]."""
    unit = Image.fromarray(np.eye(old, dtype=np.float32))
    return np.asarray(unit.resize((old, new), Image.Resampling.BICUBIC))


def fetch_mnist(root):
    """The paths of the four files, each downloaded where it is missing, and checked."""
    return [_file(name, root)[0] for name in MD5]


def mnist_files(root):
    """The paths of those of the four files, copies included, that are there."""
    return [path for name in MD5 for path in _copies(name, root)]


def _places(root):
    yield from files.places(FOLDERS, root)
    yield Path(os.path.expanduser("~/.cache/paddle/dataset/mnist"))  # Paddle's own downloads


def _copies(name, root):
    """The files of this name, however it is spelled, in the first folder that has any."""
    stem, kind = name.rsplit("-", 2)[0], name.split("-", 2)[2]
    pattern = rf"{stem}{files.COPY}[-.]{kind}{files.COPY}(\.gz)?{files.COPY}"
    for place in _places(root):
        if found := files.matching(place, pattern):
            return found
    return []


def _file(name, root):
    """One of the four files, its path and its array; downloaded when it is nowhere."""
    errors = []
    for path in _copies(name, root):
        try:
            return path, _parse(files.content(path, MOST_BYTES), name, path)
        except DataError as error:
            errors.append(error)
    if errors:
        raise DataError(f"{errors[0]}; a whole copy is at {MIRROR}{name}.gz") from errors[0]
    path = (files.cache() if root is None else files.expanded(root)) / "mnist" / f"{name}.gz"
    try:
        content = files.download(MIRROR + path.name, MOST_BYTES)
        array = _parse(content, name, MIRROR + path.name)
    except DataError as error:
        raise DataError(
            f"{error}; nothing was kept. Try again later, or get it in another way and put it"
            f" into {path.parent}. It was not found: {files.seen(_places(root))}"
        ) from error
    files.write(path, content)
    return path, array


def _parse(content, name, source):
    """The uint8 array [N, 28, 28] or [N] in one of the files, gzipped or plain: an IDX file.

    Its header is a magic number and the dimensions, 4 bytes each. The md5 vouches for all of it.
    """
    content = _unpack(content, source)
    md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if md5 != MD5[name]:
        raise DataError(
            f"{source}: {len(content)} bytes that begin with {content[:12]!r} and have the md5"
            f" {md5}; unpacked, MNIST's {name} has {MD5[name]}"
        )
    shape = (-1, 28, 28) if "images" in name else (-1,)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * len(shape)).reshape(shape)


def _unpack(content, source):
    """What a gzip file holds; anything else as it is (browsers unpack without renaming)."""
    if not content.startswith(b"\x1f\x8b"):
        return content
    broken = f"{source}: broken gzip file of {len(content)} bytes"
    try:
        with gzip.open(io.BytesIO(content)) as stream:
            unpacked = stream.read(MOST_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{broken}: {error}") from error
    if len(unpacked) > MOST_BYTES:
        raise DataError(f"{broken}: it unpacks to more than {MOST_BYTES} bytes")
    return unpacked
