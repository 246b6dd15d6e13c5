"""The data set `hanzi`: handwritten Chinese numerals, from the archive that Kaggle gives out."""

import contextlib
import csv
import hashlib
import io
import math
import re
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from tqdm import tqdm

from genbook.publishing import fingerprint

from . import files, redrawing
from .files import DataError
from .strokes import CLASSES

PAGE = "https://www.kaggle.com/datasets/gpreda/chinese-mnist"
FOLDERS = ("", "chinese_mnist", "chinese-mnist", "archive", "chinese_mnist/archive")
ARCHIVE = rf"(archive|chinese[-_]mnist){files.COPY}\.zip"
TABLE = "chinese_mnist.csv"
COLUMNS = ("suite_id", "sample_id", "code")
SIDE = 64  # pixels, of the images in the archive
MOST = {"archive": 2**25, "table": 2**20, "image": 2**14}  # bytes, several times the real
SHA256_BYTES = 32


class Archive(NamedTuple):
    """The zip file, or the folder that it was unpacked into."""

    path: Path
    members: dict[str, Callable]  # by the name of the file, in whatever folder it lies: opens it


def read_hanzi(split, size, root):
    """Chinese numerals by 100 writers (K. Nazarpour and M. Chen, Newcastle University, 2017)."""
    files.require_root(root)
    archive, index = _open(root)
    images = _images(archive, index, size)
    # Every fifth writer is for the test, so that no hand is in both splits.
    writers, codes = index[:, 0], index[:, 2]
    rows = np.flatnonzero((writers % 5 == 0) == (split == "test"))
    if len(rows) == 0:
        raise DataError(f"{archive.path}: no images to {split} with")
    # The table has one class after the other. In a fixed mixture any slice is a fair draw.
    rows = np.random.default_rng(0).permutation(rows)
    return images[rows].astype(np.float32) / 255, codes[rows] - 1


def fetch_hanzi(root):
    """The path of the archive, or of the folder that it was unpacked into, whose table is right."""
    return [_open(root)[0].path]


def hanzi_files(root):
    """The paths of the archive and its copies, or of the files that were unpacked from it."""
    return [file for path in _copies(root) for file in _files(path)]


def _files(path):
    """The archive itself, or all files in the folder that it was unpacked into."""
    return [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())


def _copies(root):
    """The archives, and the folder with the table, in the first place that has any."""
    for place in files.places(FOLDERS, root):
        archives = files.matching(place, ARCHIVE)
        folder = [place] if files.matching(place, re.escape(TABLE)) else []
        if archives or folder:
            return archives + folder
    return []


def _open(root):
    """The first archive that is whole, with the rows of its table."""
    errors = []
    for path in _copies(root):
        try:
            archive = _unpacked(path) if path.is_dir() else _zipped(path)
            return archive, _index(archive)
        except DataError as error:
            errors.append(error)
    if errors:
        raise errors[0]
    places = list(files.places(FOLDERS, root))
    wanted = " or ".join(str(place) for place in places if place.name == "chinese_mnist")
    raise DataError(
        f"the hanzi archive is missing: download it from {PAGE} (needs a Kaggle account) and put"
        f" it, as archive.zip, into {wanted}. It was not found: {files.seen(places)}"
    )


def _zipped(path):
    content = files.content(path, MOST["archive"])
    try:
        archive = zipfile.ZipFile(io.BytesIO(content))
    except Exception as error:  # zipfile trusts what it reads, and stumbles in many ways
        raise DataError(
            f"{path}: not a whole zip file ({error}); download it again from {PAGE}"
        ) from error
    members: dict[str, Callable] = {
        re.split(r"[/\\]", name)[-1]: partial(archive.open, name)
        for name in archive.namelist()
        if not name.endswith("/")
    }
    return Archive(path, members)


def _unpacked(folder):
    return Archive(folder, {path.name: partial(path.open, "rb") for path in _files(folder)})


def _index(archive):
    """The rows of the archive's table: int64 [N, 3], the columns suite_id, sample_id, code.

    A suite is one writer, a code of 1 to 15 one character.
    """
    table = f"{archive.path}: {TABLE}"
    content = _member(archive, TABLE, MOST["table"])
    try:
        rows = csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline=""))
        missing = [name for name in COLUMNS if name not in (rows.fieldnames or [])]
        if missing:
            raise DataError(f"{table}: no column {missing[0]}, only {rows.fieldnames!s:.200}")
        index = np.array([[_number(row[name]) for name in COLUMNS] for row in rows], np.int64)
    except (ValueError, csv.Error) as error:
        raise DataError(f"{table}: cannot be read: {error}") from error
    if len(index) == 0:
        raise DataError(f"{table}: no rows")
    wrong = index[(index[:, 2] < 1) | (index[:, 2] > len(CLASSES)), 2]
    if len(wrong):
        raise DataError(f"{table}: code {wrong[0]}, expected 1 to {len(CLASSES)}")
    names = set(map(_name, index))
    if len(names) < len(index):
        raise DataError(f"{table}: {len(index) - len(names)} rows are there twice")
    absent = names - archive.members.keys()
    if absent:
        raise DataError(
            f"{archive.path}: {len(absent)} of {len(index)} images are missing,"
            f" the first is {min(absent)}; download it again from {PAGE}"
        )
    return index


def _number(text):
    """A whole number of one to six digits; int() would take more than a table should hold."""
    if text is None or not re.fullmatch("[0-9]{1,6}", text):
        raise ValueError(f"{text!r:.40} is not a whole number")
    return int(text)


def _name(row):
    return "input_{}_{}_{}.jpg".format(*row)


def _images(archive, index, size):
    """All images, redrawn: uint8 [N, size, size]. It takes long, so the result is kept."""
    shape = (len(index), size, size)
    path = None
    with contextlib.suppress(DataError):  # without a cache the next load is slow, not wrong
        path = files.cache() / "hanzi" / f"{size}-{_digest(archive.path)[:16]}.pixels"
        kept = files.content(path, SHA256_BYTES + math.prod(shape))
        checksum, pixels = kept[:SHA256_BYTES], kept[SHA256_BYTES:]
        if hashlib.sha256(pixels).digest() == checksum and len(pixels) == math.prod(shape):
            return np.frombuffer(pixels, np.uint8).reshape(shape)
    images = np.empty(shape, dtype=np.uint8)
    for i, row in enumerate(tqdm(index, desc=f"hanzi {size}x{size}", delay=1, mininterval=1)):
        images[i] = np.rint(255 * redrawing.redraw(_image(archive, _name(row)), size))
    if path:
        with contextlib.suppress(DataError):
            files.write(path, hashlib.sha256(images.tobytes()).digest() + images.tobytes())
            for other in path.parent.glob(f"{size}-*.pixels"):  # of other code, or another archive
                if other != path:
                    other.unlink(missing_ok=True)
    return images


def _digest(path):
    """The SHA-256 of an archive's names and contents, and of the code that redraws its images."""
    code = fingerprint.of_modules(frozenset([redrawing.__name__]))
    contents = ((file.name, files.content(file, MOST["archive"])) for file in _files(path))
    return fingerprint.digest(code, *(fingerprint.digest(*content) for content in contents))


def _image(archive, name):
    """One image of the archive: uint8 [64, 64]."""
    content = _member(archive, name, MOST["image"])
    expected = "L", (SIDE, SIDE)
    try:
        # Of the other formats that Pillow knows, one has it start another program.
        with Image.open(io.BytesIO(content), formats=["JPEG"]) as image:
            found = image.mode, image.size
            pixels = np.asarray(image) if found == expected else None  # it may be huge
    except Exception as error:  # a decoder stumbles in many ways
        raise DataError(f"{archive.path}: {name} is not a whole image: {error}") from error
    if pixels is None:
        raise DataError(f"{archive.path}: {name} is {found[0]} {found[1]}, expected L {SIDE, SIDE}")
    if pixels.max() < 32:
        raise DataError(f"{archive.path}: {name} is blank")
    return pixels


def _member(archive, name, most):
    """A file of the archive, read in place: nothing is ever unpacked to disk."""
    if name not in archive.members:
        raise DataError(f"{archive.path}: {name} is missing; download it again from {PAGE}")
    try:
        with archive.members[name]() as stream:
            content = stream.read(most + 1)
    except Exception as error:  # zipfile trusts what it reads, and stumbles in many ways
        raise DataError(f"{archive.path}: cannot read {name}: {error}") from error
    if len(content) > most:
        raise DataError(f"{archive.path}: {name} has more than {most} bytes")
    return content
