"""Broken files of data: each is refused with a DataError, or what it holds is right."""

import csv
import gzip
import hashlib
import io
import shutil
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from edits import edited
from genbook import data
from genbook.data import DataError
from genbook.data import hanzi as hanzi_set
from genbook.data import mnist as mnist_set


def idx(array):
    """An array as the content of an IDX file."""
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


IMAGES = np.random.default_rng(0).integers(0, 256, (3, 28, 28), np.uint8)
LABELS = np.array([3, 1, 4], np.uint8)
MNIST = {
    f"{part}-{kind}": idx(array)
    for part in ("train", "t10k")
    for kind, array in {"images-idx3-ubyte": IMAGES, "labels-idx1-ubyte": LABELS}.items()
}


@pytest.fixture
def mnist(tmp_path, monkeypatch):
    """A folder of four tiny files that pass for MNIST."""
    md5 = {name: hashlib.md5(content).hexdigest() for name, content in MNIST.items()}
    monkeypatch.setattr(mnist_set, "MD5", md5)
    for name, content in MNIST.items():
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(content))
    return tmp_path


def load_mnist(folder, name, content):
    """What a folder loads as in which one file has this content; None where it is refused."""
    (folder / f"{name}.gz").write_bytes(content)
    try:
        return data.load("mnist", root=folder)
    except DataError:
        return None


@given(st.data())
def test_gzip(watched, mnist, draw):
    """A damaged gzip file, and a good one of damaged content."""
    name, whole = draw.draw(st.sampled_from([(n, c) for n, c in MNIST.items() if "train" in n]))
    if draw.draw(st.booleans()):
        content = draw.draw(edited(gzip.compress(whole, mtime=0)))
    else:
        content = gzip.compress(draw.draw(edited(whole)), mtime=0)
    with watched():
        dataset = load_mnist(mnist, name, content)
    (mnist / f"{name}.gz").write_bytes(gzip.compress(whole))
    if dataset:
        np.testing.assert_allclose(dataset.images[:, 0] * 255, IMAGES, atol=1e-4)
        assert dataset.labels.tolist() == LABELS.tolist()


# The archive of Chinese numerals

ROWS = [(suite, 1, code) for suite in (4, 5, 10) for code in (1, 8)]
TABLE = "suite_id,sample_id,code,value,character\n" + "".join(
    f"{suite},{sample},{code},0,x\n" for suite, sample, code in ROWS
)


def jpeg(row):
    """A scan that differs from row to row."""
    pixels = np.zeros((64, 64), np.uint8)
    pixels[20 : 30 + row[0], 10:40] = 220
    pixels[40, 5 : 50 + row[2]] = 200
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


FILES = {"chinese_mnist.csv": TABLE.encode()} | {
    "data/data/" + hanzi_set._name(row): jpeg(row) for row in ROWS
}


def zipped(files, method=zipfile.ZIP_DEFLATED):
    """An archive of the pairs of name and content."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in files:
            archive.writestr(zipfile.ZipInfo(name), content, compress_type=method)
    return buffer.getvalue()


@pytest.fixture
def hanzi(tmp_path, monkeypatch):
    """Loads an archive: the pairs of image and label of both splits; None where it is refused."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("GENBOOK_DATA", raising=False)

    def load(content):
        (tmp_path / "archive.zip").write_bytes(content)
        try:
            splits = [data.load("hanzi", split, size=8, root=tmp_path) for split in data.SPLITS]
        except DataError:
            return None
        finally:
            for file in (tmp_path / "cache").rglob("*.pixels"):
                file.unlink()
        return [
            {(image.tobytes(), label) for image, label in zip(s.images, s.labels)} for s in splits
        ]

    return load


ARCHIVES = [
    zipped(FILES.items(), method)
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
]


@given(content=st.sampled_from(ARCHIVES).flatmap(edited))
def test_zip(watched, hanzi, content):
    good = hanzi(ARCHIVES[0])
    with watched():
        found = hanzi(content)
    assert found in (None, good)


NAMES = st.sampled_from(
    [
        "../outside",
        "../../outside",
        "/outside",
        "C:\\outside",
        "data/../../outside",
        "..\\outside",
        "//host/outside",
        "data/data/",
        "chinese_mnist.csv/",
        "a" * 60_000,
        "零",
        "nul\0nul",
        ".",
        *FILES,
    ]
) | st.text(max_size=20)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@given(st.lists(st.tuples(NAMES, st.binary(max_size=50) | st.just(bytes(2**21))), max_size=4))
def test_names_in_a_zip(watched, hanzi, more):
    """Nothing is unpacked into files, whatever a member is called and however large it is."""
    good = hanzi(ARCHIVES[0])
    with watched():
        found = hanzi(zipped([*FILES.items(), *((n, c) for n, c in more if n not in FILES)]))
        assert found in (None, good)
        hanzi(zipped([*more, *FILES.items()][::-1]))


@given(edited(TABLE.encode(), [b",", b"\n", b"\r", b'"', b"0", b"-", b"9" * 30, b"\xef\xbb\xbf"]))
def test_csv(watched, hanzi, table):
    """Where a damaged table is read, each image still has its own label and split."""
    good = hanzi(ARCHIVES[0])
    with watched():
        found = hanzi(zipped([*FILES.items(), ("chinese_mnist.csv", table)][1:]))
    if found:
        assert found[0] <= good[0] and found[1] <= good[1]
        text = table.decode("utf-8-sig")
        rows = list(csv.reader(io.StringIO(text, newline="")))[1:]
        assert len(found[0]) + len(found[1]) == sum(bool(row) for row in rows)


@given(edited(FILES["data/data/input_4_1_1.jpg"]))
def test_jpeg(watched, hanzi, image):
    """A damaged JPEG may be another picture; it is refused, or it is an image."""
    with watched():
        found = hanzi(zipped((FILES | {"data/data/input_4_1_1.jpg": image}).items()))
    for pixels, label in set().union(*found or []):
        pixels = np.frombuffer(pixels, np.float32)
        assert pixels.shape == (64,) and 0 <= pixels.min() and pixels.max() <= 1
        assert label in (0, 7)


@given(st.data())
def test_kept_images(watched, tmp_path, monkeypatch, draw):
    """A damaged copy of the processed archive is made anew."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "archive.zip").write_bytes(ARCHIVES[0])
    shutil.rmtree(tmp_path / "cache", ignore_errors=True)
    first = data.load("hanzi", size=8, root=tmp_path).images
    (file,) = (tmp_path / "cache").rglob("*.pixels")
    file.write_bytes(draw.draw(edited(file.read_bytes())))
    with watched():
        np.testing.assert_array_equal(data.load("hanzi", size=8, root=tmp_path).images, first)
