"""Four data sets of small written characters through one door: `load`.

| name      | what                                             | from where                        |
|-----------|--------------------------------------------------|-----------------------------------|
| `digits`  | 1,797 handwritten digits, finer than they came   | scikit-learn, no download         |
| `mnist`   | 70,000 handwritten digits                        | a folder, or Paddle's mirror      |
| `hanzi`   | 15,000 handwritten Chinese numerals              | a folder (Kaggle needs a login)   |
| `strokes` | Chinese numerals written by `strokes`            | computed, no download             |

Files are looked for in `root`, then under `$GENBOOK_DATA`, then in the user's cache (`cache`).
"""

import contextlib
import csv
import hashlib
import http.client
import io
import math
import numbers
import os
import re
import secrets
import urllib.request
import warnings
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy import ndimage
from tqdm import tqdm

from genbook.data.strokes import CLASSES, read_strokes
from genbook.publishing import fingerprint

SPLITS = ("train", "test")
KEPT, PART = ".pixels", ".part"  # how files end that a loader writes for itself, and half-written


class DataError(RuntimeError):
    """A data set's files are missing, broken or not what they should be."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """One split of a data set, in memory.

    Attributes:
        name: which data set.
        split: "train" or "test".
        images: float32 [N, channels, size, size] in [0, 1], white ink on black.
        labels: int64 [N], an index into `classes`.
        classes: what each label stands for.
    """

    name: str
    split: str
    images: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]

    def __len__(self):
        return len(self.labels)


def load(name, split="train", *, size=None, channels=1, most=None, root=None):
    """Load one split of a data set.

    Args:
        name: "digits", "mnist", "hanzi" or "strokes".
        split: "train" or "test".
        size: pixels per side, at least 8; None takes the set's own (16 for digits, else 28).
        channels: 1, or 3 equal ones.
        most: how many images to take at most, spread evenly over the split; None takes all.
        root: a folder that holds the files of mnist or hanzi, directly or in a subfolder
            `mnist` or `chinese_mnist`. The other sets need no files.

    Returns:
        A `Dataset`.

    Raises:
        ValueError: an argument is none of the above.
        DataError: a file is missing, broken, or cannot be downloaded.
    """
    source = _source(name)
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; known are {', '.join(SPLITS)}")
    if size is None:
        size = source.size
    if not isinstance(size, numbers.Integral) or size < 8:
        raise ValueError(f"size must be a whole number of at least 8 pixels, not {size!r}")
    if channels not in (1, 3):
        raise ValueError(f"channels must be 1 or 3, not {channels!r}")
    if most is not None and (not isinstance(most, numbers.Integral) or most < 1):
        raise ValueError(f"most must be a whole number of at least 1 image, not {most!r}")
    images, labels = source.read(split, int(size), root)
    if most is not None and most < len(images):
        taken = np.linspace(0, len(images) - 1, most).astype(int)
        images, labels = images[taken], labels[taken]
    images = np.repeat(images[:, None], channels, axis=1)
    return Dataset(name, split, images, labels, source.classes)


def fetch(name, root=None):
    """Make sure that a data set's files are here and whole; download what is missing.

    Downloads go to `root` where given, else to the cache.

    Returns:
        The paths of the files; empty for a set that has none.

    Raises:
        ValueError: the name is unknown.
        DataError: as for `load`.
    """
    return _source(name).fetch(root)


def cache():
    """The user's cache, `$XDG_CACHE_HOME/genbook` or `~/.cache/genbook`, on every system."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "genbook"


# --- digits -----------------------------------------------------------------------------------


def _digits(split, size, root):
    """Digits by 43 writers, 8x8 (Alpaydin and Kaynak, Cascading Classifiers, Kybernetika 1998).

    scikit-learn carries the 1,797 of the original test set, which 13 of the writers wrote.
    """
    from sklearn.datasets import load_digits  # takes a second, and only this set needs it

    digits = load_digits()
    images = _sharpen(_resample(digits.images / 16, _spline(8, size)))
    # The last 360 are the test set, in one block: neighbours in the file are mostly by one
    # writer, so a random split would test on hands seen in training (the cut itself goes
    # through one writer's sheet). The classes stay balanced: 33 to 37 test images of each.
    rows = slice(-360) if split == "train" else slice(-360, None)
    return images[rows].astype(np.float32), digits.target[rows].astype(np.int64)


def _spline(old, new):
    """Cubic spline interpolation of `old` pixels at `new` places -> [new, old]."""
    columns = [
        ndimage.zoom(unit, new / old, order=3, mode="grid-constant", grid_mode=True)
        for unit in np.eye(old)
    ]
    return np.stack(columns, axis=1)


def _sharpen(images, slope=8, centre=0.45):
    """Turn the soft edges of an enlarged image into pen strokes: a logistic curve, 0->0, 1->1."""

    def logistic(x):
        return 1 / (1 + np.exp(-slope * (x - centre)))

    low, high = logistic(0), logistic(1)
    return np.clip((logistic(images) - low) / (high - low), 0, 1)


def _resample(images, weights):
    """Apply a resampling [new, old] to rows and columns: [N, old, old] -> [N, new, new]."""
    return weights @ images @ weights.T


# --- mnist ------------------------------------------------------------------------------------

# The md5 sums of the unpacked files: the same data is packed differently by every mirror.
_MNIST_MD5 = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}
_MNIST_MOST = 2**26  # bytes, more than any of the files has, packed or not


def _mnist(split, size, root):
    """70,000 digits, 28x28 (LeCun, Bottou, Bengio and Haffner, Proc. IEEE 86(11), 1998)."""
    prefix = "train" if split == "train" else "t10k"
    images, labels = (
        _read_mnist(_mnist_file(f"{prefix}-{kind}", root), f"{prefix}-{kind}")
        for kind in ("images-idx3-ubyte", "labels-idx1-ubyte")
    )
    images = images.astype(np.float32) / 255
    if size != 28:
        images = np.clip(_resample(images, _antialiased(28, size)), 0, 1)
    return images, labels.astype(np.int64)


def _antialiased(old, new):
    """Cubic resampling that averages over all it skips when it makes smaller -> [new, old]."""
    unit = Image.fromarray(np.eye(old, dtype=np.float32))
    return np.asarray(unit.resize((old, new), Image.Resampling.BICUBIC))


def _fetch_mnist(root):
    paths = [_mnist_file(name, root) for name in _MNIST_MD5]
    for path, name in zip(paths, _MNIST_MD5):
        _read_mnist(path, name)
    return paths


def _mnist_file(name, root):
    """The path of one of the four files, downloaded when it is nowhere."""
    path = _find([name, name + ".gz"], "mnist", root)
    if path is None:
        path = (cache() if root is None else Path(root)) / "mnist" / (name + ".gz")
        url = _mnist_mirror() + path.name
        content = _download(url, path.parent)
        try:
            _parse_mnist(content, name, url)
        except DataError as error:
            raise DataError(f"{error}; nothing was kept, try again later") from error
        _write(path, content)
    return path


def _mnist_mirror():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Paddle's import speaks of compilers
        from paddle.vision.datasets import MNIST
    return MNIST.URL_PREFIX


def _read_mnist(path, name):
    try:
        return _parse_mnist(_content(path, _MNIST_MOST), name, path)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    except DataError as error:
        raise DataError(f"{error}; delete the file and load again for a fresh copy") from error


def _parse_mnist(content, name, source):
    """The array in one of MNIST's files, gzipped or plain, checked against its md5."""
    content = _unpack(content, source)
    array = parse_idx(content, (28, 28) if "images" in name else (), source)
    md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if md5 != _MNIST_MD5[name]:
        raise DataError(f"{source}: unpacked md5 is {md5}, MNIST's {name} has {_MNIST_MD5[name]}")
    return array


def _unpack(content, source):
    """What a gzip file holds; anything else as it is (browsers unpack without renaming)."""
    if not content.startswith(b"\x1f\x8b"):
        return content
    broken = f"{source}: broken gzip file of {len(content)} bytes"
    stream = zlib.decompressobj(wbits=31)  # 31: a gzip header, and its checksum at the end
    try:
        unpacked = stream.decompress(content, _MNIST_MOST)
    except zlib.error as error:
        raise DataError(f"{broken}: {error}") from error
    if stream.unconsumed_tail:
        raise DataError(f"{broken}: it unpacks to more than {_MNIST_MOST} bytes")
    if not stream.eof:
        raise DataError(f"{broken}: its end is missing")
    if stream.unused_data:
        raise DataError(f"{broken}: {len(stream.unused_data)} bytes follow its end")
    return unpacked


def parse_idx(content, item_shape, source):
    """Read an IDX file of bytes, the format MNIST came in.

    The header is two zero bytes, the code of the element type (8: unsigned byte), the number
    of dimensions, and each dimension as a big-endian 32-bit integer.

    Args:
        content: the unpacked file.
        item_shape: the expected dimensions after the first.
        source: the file's name, for the errors.

    Returns:
        uint8 [N, *item_shape], read-only.

    Raises:
        DataError: another magic number, other dimensions, or another length.
    """
    ndim = 1 + len(item_shape)
    magic = bytes([0, 0, 8, ndim])
    if content[:4] != magic:
        raise DataError(
            f"{source}: not the IDX file expected: it begins with {content[:4].hex() or 'nothing'},"
            f" expected {magic.hex()}"
        )
    header = 4 + 4 * ndim
    if len(content) < header:
        raise DataError(f"{source}: {len(content)} bytes, an IDX header alone has {header}")
    shape = tuple(int(n) for n in np.frombuffer(content, ">u4", count=ndim, offset=4))
    if shape[1:] != tuple(item_shape):
        raise DataError(f"{source}: items of shape {shape[1:]}, expected {tuple(item_shape)}")
    expected = header + shape[0] * int(np.prod(item_shape, dtype=np.int64))
    if len(content) != expected:
        raise DataError(
            f"{source}: {len(content)} bytes, expected {expected} for dimensions {shape}"
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


# --- hanzi ------------------------------------------------------------------------------------

_HANZI_PAGE = "https://www.kaggle.com/datasets/gpreda/chinese-mnist"
_HANZI_COLUMNS = ("suite_id", "sample_id", "code")
_HANZI_SIDE = 64  # of the images in the archive
_HANZI_MOST = {"archive": 2**25, "table": 2**20, "image": 2**14}  # bytes, several times the real
_SHA256_BYTES = 32


def _hanzi(split, size, root):
    """Chinese numerals by 100 writers (K. Nazarpour and M. Chen, Newcastle University, 2017)."""
    path = _hanzi_file(root)
    with _open_zip(path) as archive:
        index = _hanzi_index(archive)
        images = _hanzi_images(archive, index, size)
    # Every fifth writer is for the test, so that no hand is in both splits.
    writers, codes = index[:, 0], index[:, 2]
    rows = np.flatnonzero((writers % 5 == 0) == (split == "test"))
    # The table has one class after the other. In a fixed mixture any slice is a fair draw.
    rows = np.random.default_rng(0).permutation(rows)
    return images[rows].astype(np.float32) / 255, codes[rows] - 1


def _fetch_hanzi(root):
    path = _hanzi_file(root)
    with _open_zip(path) as archive:
        _hanzi_index(archive)
    return [path]


def _hanzi_file(root):
    path = _find(["archive.zip"], "chinese_mnist", root)
    if path is None:
        places = " or ".join(str(place) for place in _places("chinese_mnist", root))
        raise DataError(
            f"the hanzi archive is missing: download it from {_HANZI_PAGE} (needs a Kaggle"
            f" account) and put it, as archive.zip, into {places}"
        )
    return path


def _open_zip(path):
    try:
        _check_size(path, _HANZI_MOST["archive"])
        return zipfile.ZipFile(path)
    except DataError:
        raise
    except Exception as error:  # zipfile trusts what it reads, and stumbles in many ways
        raise DataError(
            f"{path}: not a whole zip file ({error}); download it again from {_HANZI_PAGE}"
        ) from error


def _hanzi_index(archive):
    """The rows of the archive's table: int64 [N, 3], the columns suite_id, sample_id, code.

    A suite is one writer, a code of 1 to 15 one character.
    """
    table = f"{archive.filename}: chinese_mnist.csv"
    content = _member(archive, "chinese_mnist.csv", _HANZI_MOST["table"])
    try:
        rows = csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline=""))
        missing = [name for name in _HANZI_COLUMNS if name not in (rows.fieldnames or [])]
        if missing:
            raise DataError(f"{table}: no column {missing[0]}, only {rows.fieldnames!s:.200}")
        index = np.array(
            [[_number(row[name]) for name in _HANZI_COLUMNS] for row in rows], np.int64
        )
    except (ValueError, csv.Error) as error:
        raise DataError(f"{table}: cannot be read: {error}") from error
    if len(index) == 0:
        raise DataError(f"{table}: no rows")
    wrong = index[(index[:, 2] < 1) | (index[:, 2] > len(CLASSES)), 2]
    if len(wrong):
        raise DataError(f"{table}: code {wrong[0]}, expected 1 to {len(CLASSES)}")
    names = set(map(_hanzi_name, index))
    if len(names) < len(index):
        raise DataError(f"{table}: {len(index) - len(names)} rows are there twice")
    absent = names - set(archive.namelist())
    if absent:
        raise DataError(
            f"{archive.filename}: {len(absent)} of {len(index)} images are missing,"
            f" the first is {min(absent)}; download it again from {_HANZI_PAGE}"
        )
    return index


def _number(text):
    """A whole number of one to six digits; int() would take more than a table should hold."""
    if text is None or not re.fullmatch("[0-9]{1,6}", text):
        raise ValueError(f"{text!r:.40} is not a whole number")
    return int(text)


def _hanzi_name(row):
    return "data/data/input_{}_{}_{}.jpg".format(*row)


def _hanzi_images(archive, index, size):
    """All images, redrawn: uint8 [N, size, size]. They take 10 s, so the result is kept."""
    digest = hashlib.sha256(Path(archive.filename).read_bytes()).hexdigest()
    code = fingerprint.of_modules(frozenset([__name__]))
    path = cache() / "hanzi" / f"{code[:8]}-{size}-{digest[:16]}{KEPT}"
    shape = (len(index), size, size)
    with contextlib.suppress(OSError, DataError):  # nothing there, or something else
        content = _content(path, _SHA256_BYTES + math.prod(shape))
        checksum, pixels = content[:_SHA256_BYTES], content[_SHA256_BYTES:]
        if hashlib.sha256(pixels).digest() == checksum and len(pixels) == math.prod(shape):
            return np.frombuffer(pixels, np.uint8).reshape(shape)
    images = np.empty(shape, dtype=np.uint8)
    for i, row in enumerate(tqdm(index, desc=f"hanzi {size}x{size}", delay=1, mininterval=1)):
        images[i] = np.rint(255 * redraw(_hanzi_image(archive, _hanzi_name(row)), size))
    with contextlib.suppress(DataError):  # without a cache the next load is slow, not wrong
        _write(path, hashlib.sha256(images).digest() + images.tobytes())
    return images


def _hanzi_image(archive, name):
    """One image of the archive: uint8 [64, 64]."""
    content = _member(archive, name, _HANZI_MOST["image"])
    side = (_HANZI_SIDE, _HANZI_SIDE)
    try:
        # Of the other formats that Pillow knows, one has it start another program.
        with Image.open(io.BytesIO(content), formats=["JPEG"]) as image:
            if image.mode != "L" or image.size != side:
                raise DataError(
                    f"{archive.filename}: {name} is {image.mode} {image.size}, expected L {side}"
                )
            pixels = np.asarray(image)
    except DataError:
        raise
    except Exception as error:  # a decoder stumbles in many ways
        raise DataError(f"{archive.filename}: {name} is not a whole image: {error}") from error
    if pixels.max() < 32:
        raise DataError(f"{archive.filename}: {name} is blank")
    return pixels


def _member(archive, name, most):
    """A file of the archive, read in place: nothing is ever unpacked to disk."""
    try:
        with archive.open(name) as stream:
            content = stream.read(most + 1)
    except KeyError:
        raise DataError(
            f"{archive.filename}: {name} is missing; download it again from {_HANZI_PAGE}"
        ) from None
    except Exception as error:  # zipfile trusts what it reads, and stumbles in many ways
        raise DataError(f"{archive.filename}: cannot read {name}: {error}") from error
    if len(content) > most:
        raise DataError(f"{archive.filename}: {name} has more than {most} bytes")
    return content


def redraw(pixels, size, *, box=0.76, pen=0.075):
    """Write a thin scanned character anew: of a common size, in the middle, with an even pen.

    As in MNIST the character is scaled to a common box and its centre of mass goes to the
    centre of the image, except where the box would then leave the image. The strokes are cut
    out at three times the resolution, widened to the pen, and averaged down.

    Args:
        pixels: uint8 [H, W], white ink on black, not blank.
        size: pixels per side of the result.
        box: the longer side of the character, in parts of the result's.
        pen: the width of the strokes, in the same unit.

    Returns:
        float64 [size, size] in [0, 1].
    """
    # The black frame lets the interpolation see past the edge of the scan.
    ink = np.pad(_without_specks(pixels / pixels.max()), 2)
    rows, columns = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
    low = np.array([rows[0], columns[0]])
    high = np.array([rows[-1], columns[-1]]) + 1

    fine = 3
    side = fine * size
    # A scanned stroke is about 1.2 pixels wide, and must not grow wider than the pen.
    zoom = min(box * side / (high - low).max(), pen * side / 1.2)
    half, margin = side / zoom / 2, pen * side / zoom / 2
    centre = np.array(ndimage.center_of_mass(ink)) + 0.5
    centre = np.clip(centre, high + margin - half, low - margin + half)
    top, left = centre - half
    enlarged = Image.fromarray(ink.astype(np.float32)).transform(
        (side, side),
        Image.Transform.AFFINE,
        (1 / zoom, 0, left, 0, 1 / zoom, top),
        Image.Resampling.BICUBIC,
    )
    distance = ndimage.distance_transform_edt(np.asarray(enlarged) < 0.22)
    widened = np.clip((pen * side - 1.2 * zoom) / 2 + 1 - distance, 0, 1)
    return widened.reshape(size, fine, size, fine).mean((1, 3))


def _without_specks(ink):
    """Blacken what is not the character: [H, W] in [0, 1] -> the same.

    Dust is a small part far from all others; remains of the table's ruled lines, in which the
    characters were written, lie along the edges.
    """
    parts, _ = ndimage.label(ndimage.binary_dilation(ink > 0.15, np.ones((5, 5))))
    inner = (slice(4, -4), slice(4, -4))
    mass = np.bincount(parts[inner].ravel(), ink[inner].ravel(), minlength=parts.max() + 1)
    mass[0] = 0
    keep = mass >= 0.05 * mass.sum()
    keep[0] = False
    return np.where(keep[parts], ink, 0)


# --- files ------------------------------------------------------------------------------------


def _places(folder, root):
    """The folders that may hold a data set's files, in the order of search."""
    places = [] if root is None else [Path(root), Path(root) / folder]
    if os.environ.get("GENBOOK_DATA"):
        places.append(Path(os.environ["GENBOOK_DATA"]) / folder)
    return [*places, cache() / folder]


def _find(names, folder, root):
    """The first file of one of these names in the places to look, or None."""
    paths = (place / name for place in _places(folder, root) for name in names)
    return next((path for path in paths if path.is_file()), None)


def _content(path, most):
    """What is in a file, unless that is more than it should be."""
    _check_size(path, most)
    return path.read_bytes()


def _check_size(path, most):
    """Raise DataError for a file too large to be the right one, before it is read."""
    size = path.stat().st_size
    if size > most:
        raise DataError(f"{path}: {size} bytes, expected at most {most}")


def _download(url, folder):
    """The whole content behind an address; the error says which folder may hold it instead."""
    content = bytearray()
    try:
        with urllib.request.urlopen(url, timeout=60) as reply:
            expected = reply.length
            with tqdm(total=expected, unit="B", unit_scale=True, desc=url) as bar:
                while chunk := reply.read(1 << 16):
                    content += chunk
                    bar.update(len(chunk))
                    if len(content) > _MNIST_MOST:
                        raise DataError(f"{url}: more than {_MNIST_MOST} bytes; nothing was kept")
    except (OSError, http.client.HTTPException) as error:
        raise DataError(
            f"cannot download {url}: {error}; get it in another way and put it into {folder}"
        ) from error
    if expected is not None and len(content) != expected:
        raise DataError(f"{url}: broke off after {len(content)} of {expected} bytes; try again")
    return bytes(content)


def _write(path, content):
    """Write a file so that it is there in full or not at all."""
    part = path.with_name(f"{path.name}.{secrets.token_hex(4)}{PART}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(content)
        os.replace(part, path)
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink()


# --- the door ---------------------------------------------------------------------------------


class _Source(NamedTuple):
    read: Callable  # (split, size, root) -> images float32 [N, size, size], labels int64 [N]
    fetch: Callable  # (root) -> paths
    size: int  # pixels per side when nobody asks for another
    classes: tuple[str, ...]


def _nothing_to_fetch(root):
    return []


_ARABIC = tuple("0123456789")
_SOURCES = {
    "digits": _Source(_digits, _nothing_to_fetch, 16, _ARABIC),
    "mnist": _Source(_mnist, _fetch_mnist, 28, _ARABIC),
    "hanzi": _Source(_hanzi, _fetch_hanzi, 28, CLASSES),
    "strokes": _Source(read_strokes, _nothing_to_fetch, 28, CLASSES),
}
NAMES = tuple(_SOURCES)


def _source(name):
    if name not in NAMES:
        raise ValueError(f"unknown data set {name!r}; known are {', '.join(NAMES)}")
    return _SOURCES[name]
