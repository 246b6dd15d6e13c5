"""Chinese MNIST: however its archive is kept, and one clear error for every broken one."""

import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from genbook import data
from genbook.data import hanzi, redrawing, strokes
from genbook.data.redrawing import redraw
from genbook.publishing import fingerprint

REAL = os.environ.get("GENBOOK_DATA")
needs_real_files = pytest.mark.skipif(not REAL, reason="GENBOOK_DATA names no folder of real files")


def files_in(folder):
    return sorted(path.name for path in Path(folder).rglob("*") if path.is_file())


def jpeg(pixels, mode="L"):
    buffer = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).convert(mode).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def scan(height=20, width=14, top=30, left=8):
    """A made-up scan: a thin cross in a black 64x64 image."""
    pixels = np.zeros((64, 64))
    pixels[top + height // 2, left : left + width] = 220
    pixels[top : top + height, left + width // 2] = 220
    return pixels


def table(rows):
    """The content of chinese_mnist.csv for rows of suite, sample and code."""
    lines = ["suite_id,sample_id,code,value,character"]
    lines += [f"{suite},{sample},{code},0,x" for suite, sample, code in rows]
    return "".join(line + "\n" for line in lines).encode()


def hanzi_files():
    """The members of a tiny archive {name: content}: ten writers, one image of three codes."""
    rows = [(suite, 1, code) for suite in range(1, 11) for code in (1, 8, 15)]
    files = {"chinese_mnist.csv": table(rows)}
    for row in rows:
        files["data/data/" + hanzi._name(row)] = jpeg(scan(height=18 + row[0]))
    return files


def zipped(folder, files):
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / "archive.zip", "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return folder


@pytest.mark.parametrize("subfolder", ["", "chinese_mnist"])
def test_hanzi_from_an_archive(tmp_path, subfolder):
    zipped(tmp_path / "mine" / subfolder, hanzi_files())
    train = data.load("hanzi", root=tmp_path / "mine")
    test = data.load("hanzi", "test", size=16, channels=3, root=tmp_path / "mine")
    assert train.images.shape == (24, 1, 28, 28) and train.images.dtype == np.float32
    assert test.images.shape == (6, 3, 16, 16)
    assert 0 == train.images.min() < 0.9 < train.images.max() <= 1
    assert train.labels.dtype == np.int64
    assert sorted(train.labels) == [0] * 8 + [7] * 8 + [14] * 8
    assert "".join(train.classes) == "零一二三四五六七八九十百千万亿"


def test_hanzi_splits_share_no_writer(tmp_path, monkeypatch):
    files = hanzi_files()
    for name in files:
        if name.endswith(".jpg"):  # the brightness tells the writer
            files[name] = jpeg(np.full((64, 64), 20 * int(name.split("_")[1]) + 40))
    root = zipped(tmp_path, files)
    monkeypatch.setattr(
        redrawing, "redraw", lambda pixels, size: np.full((size, size), pixels.max() / 255)
    )
    writers = {}
    for split in data.SPLITS:
        brightness = 255 * data.load("hanzi", split, root=root).images[:, 0, 0, 0]
        writers[split] = set(np.rint((brightness - 40) / 20).astype(int).tolist())
    assert writers["train"] | writers["test"] == set(range(1, 11))
    assert not writers["train"] & writers["test"]
    assert len(writers["test"]) == 2


def test_hanzi_are_mixed_and_each_image_keeps_its_label(tmp_path, monkeypatch):
    rows = [(suite, 1, code) for code in range(1, 16) for suite in range(1, 11)]
    files = {"chinese_mnist.csv": table(rows)}
    for row in rows:  # the brightness tells the class
        files["data/data/" + hanzi._name(row)] = jpeg(np.full((64, 64), 15 * row[2] + 20))
    monkeypatch.setattr(
        redrawing, "redraw", lambda pixels, size: np.full((size, size), pixels.max() / 255)
    )
    train = data.load("hanzi", root=zipped(tmp_path, files))
    told = np.rint((255 * train.images[:, 0, 0, 0] - 20) / 15) - 1
    np.testing.assert_array_equal(told, train.labels)
    assert len(set(train.labels[:60].tolist())) > 10  # of 8 images each


def test_hanzi_missing_says_what_to_get_and_where_to_put_it(tmp_path, cache, monkeypatch):
    (tmp_path / "env").mkdir()
    monkeypatch.setenv("GENBOOK_DATA", str(tmp_path / "env"))
    for action in (data.load, data.fetch):
        with pytest.raises(data.DataError) as caught:
            action("hanzi", root=tmp_path)
        message = str(caught.value)
        assert "kaggle.com/datasets/gpreda/chinese-mnist" in message and "archive.zip" in message
        for place in (tmp_path, tmp_path / "env" / "chinese_mnist", cache / "chinese_mnist"):
            assert str(place) in message


def rename_column(files):
    files["chinese_mnist.csv"] = files["chinese_mnist.csv"].replace(b"suite_id", b"writer")


def wrong_code(files):
    files["chinese_mnist.csv"] += b"1,1,16,0,x\n"


def row_twice(files):
    files["chinese_mnist.csv"] += b"1,1,8,0,x\n"


def huge_number(files):
    files["chinese_mnist.csv"] += b"99999999999999999999,1,3,0,x\n"


def number_with_an_underscore(files):
    files["chinese_mnist.csv"] += b"1,1_0,3,0,x\n"


def table_huge(files):
    files["chinese_mnist.csv"] += b"\n" * 2**21


def not_a_number(files):
    files["chinese_mnist.csv"] += b"1,one,3,0,x\n"


def short_row(files):
    files["chinese_mnist.csv"] += b"1\n"


def not_utf8(files):
    files["chinese_mnist.csv"] += b"\xff\xfe\n"


def only_a_header(files):
    files["chinese_mnist.csv"] = b"suite_id,sample_id,code\n"


def nothing_in_the_table(files):
    files["chinese_mnist.csv"] = b""


def no_table(files):
    del files["chinese_mnist.csv"]


def image_missing(files):
    del files["data/data/input_2_1_8.jpg"]


def image_small(files):
    files["data/data/input_2_1_8.jpg"] = jpeg(np.full((32, 32), 99))


def image_in_colour(files):
    files["data/data/input_2_1_8.jpg"] = jpeg(scan(), "RGB")


def image_blank(files):
    files["data/data/input_2_1_8.jpg"] = jpeg(np.zeros((64, 64)))


def image_cut(files):
    files["data/data/input_2_1_8.jpg"] = files["data/data/input_2_1_8.jpg"][:-200]


def image_is_text(files):
    files["data/data/input_2_1_8.jpg"] = b"hello"


def image_is_a_program(files):
    files["data/data/input_2_1_8.jpg"] = (
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\nshowpage\n"
    )


@pytest.mark.parametrize(
    "break_it, says",
    [
        (rename_column, "no column suite_id"),
        (wrong_code, "code 16, expected 1 to 15"),
        (row_twice, "1 rows are there twice"),
        (huge_number, "cannot be read: '99999999999999999999' is not a whole number"),
        (number_with_an_underscore, "cannot be read: '1_0' is not a whole number"),
        (table_huge, "chinese_mnist.csv has more than 1048576 bytes"),
        (not_a_number, "cannot be read"),
        (short_row, "cannot be read"),
        (not_utf8, "cannot be read"),
        (only_a_header, "no rows"),
        (nothing_in_the_table, "no column suite_id"),
        (no_table, "chinese_mnist.csv is missing"),
        (image_missing, "1 of 30 images are missing, the first is input_2_1_8.jpg"),
        (image_small, r"input_2_1_8.jpg is L \(32, 32\), expected L \(64, 64\)"),
        (image_in_colour, "input_2_1_8.jpg is RGB"),
        (image_blank, "input_2_1_8.jpg is blank"),
        (image_cut, "input_2_1_8.jpg is not a whole image"),
        (image_is_text, "input_2_1_8.jpg is not a whole image"),
        (image_is_a_program, "input_2_1_8.jpg is not a whole image: cannot identify"),
    ],
)
def test_hanzi_errors(tmp_path, cache, break_it, says):
    files = hanzi_files()
    break_it(files)
    zipped(tmp_path, files)
    with pytest.raises(data.DataError, match=says) as caught:
        data.load("hanzi", root=tmp_path)
    assert str(tmp_path / "archive.zip") in str(caught.value)
    assert files_in(cache) == []


@pytest.mark.parametrize("keep", [0, 100, -10])
def test_hanzi_archive_cut_short(tmp_path, keep):
    path = zipped(tmp_path, hanzi_files()) / "archive.zip"
    path.write_bytes(path.read_bytes()[:keep])
    for action in (data.load, data.fetch):
        with pytest.raises(data.DataError, match="not a whole zip file"):
            action("hanzi", root=tmp_path)


def test_hanzi_archive_with_a_flipped_byte(tmp_path):
    files = hanzi_files()
    path = zipped(tmp_path, files) / "archive.zip"
    content = bytearray(path.read_bytes())
    content[content.index(files["data/data/input_3_1_1.jpg"]) + 300] ^= 1
    path.write_bytes(content)
    with pytest.raises(data.DataError, match="cannot read input_3_1_1.jpg.*CRC"):
        data.load("hanzi", root=tmp_path)


def test_hanzi_is_processed_once_per_archive_and_size(tmp_path, cache, monkeypatch):
    root = zipped(tmp_path / "mine", hanzi_files())
    first = [data.load("hanzi", size=size, root=root).images for size in (28, 16)]
    assert len(files_in(cache)) == 2

    def fail(*args):
        raise AssertionError("processed again")

    monkeypatch.setattr(redrawing, "redraw", fail)
    again = [data.load("hanzi", size=size, root=root).images for size in (28, 16)]
    for before, after in zip(first, again):
        np.testing.assert_array_equal(before, after)
    with pytest.raises(AssertionError):
        data.load("hanzi", size=20, root=root)
    files = hanzi_files()
    files["data/data/input_1_1_1.jpg"] = jpeg(scan(40))
    with pytest.raises(AssertionError):
        data.load("hanzi", root=zipped(tmp_path / "other", files))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(path.read_bytes()[:-1] + b"?"),
        lambda path: path.write_bytes(path.read_bytes() + bytes(1000)),
    ],
)
def test_hanzi_survives_a_broken_cache(tmp_path, cache, spoil):
    root = zipped(tmp_path / "mine", hanzi_files())
    first = data.load("hanzi", root=root)
    (path,) = cache.rglob("*.pixels")
    spoil(path)
    np.testing.assert_array_equal(data.load("hanzi", root=root).images, first.images)


def test_hanzi_without_a_place_to_cache(tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert len(data.load("hanzi", root=zipped(tmp_path / "mine", hanzi_files()))) == 24


def repacked(rename):
    """The tiny archive with its files elsewhere or under other names."""
    return {rename(name): content for name, content in hanzi_files().items()}


@pytest.mark.parametrize(
    "rename",
    [
        lambda name: "archive/" + name,
        lambda name: "chinese mnist/archive (1)/" + name,
        lambda name: name.replace("data/data/", ""),
        lambda name: "./" + name.replace("data/data/", "images/"),
        lambda name: name.replace("/", "\\"),
    ],
)
def test_hanzi_from_an_archive_that_was_packed_anew(tmp_path, rename):
    expected = data.load("hanzi", root=zipped(tmp_path / "kaggle", hanzi_files()))
    found = data.load("hanzi", root=zipped(tmp_path / "mine", repacked(rename)))
    np.testing.assert_array_equal(found.images, expected.images)
    np.testing.assert_array_equal(found.labels, expected.labels)


@pytest.mark.parametrize("folder", ["", "archive", "chinese_mnist/archive", "chinese-mnist"])
@pytest.mark.parametrize("flat", [False, True])
def test_hanzi_from_an_unpacked_folder(tmp_path, monkeypatch, folder, flat):
    expected = data.load("hanzi", root=zipped(tmp_path / "kaggle", hanzi_files()))
    for name, content in hanzi_files().items():
        path = tmp_path / "mine" / folder / (name.rpartition("/")[2] if flat else name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    monkeypatch.setenv("GENBOOK_DATA", str(tmp_path / "mine"))
    found = data.load("hanzi")
    np.testing.assert_array_equal(found.images, expected.images)
    np.testing.assert_array_equal(found.labels, expected.labels)
    assert len(data.files_of("hanzi")) == 31
    assert data.fetch("hanzi") == [tmp_path / "mine" / folder]
    before = data.load("hanzi", "test").images
    path.write_bytes(jpeg(scan(40, 40)))  # the last of a test writer: what is kept is out of date
    assert not np.array_equal(data.load("hanzi", "test").images, before)


@pytest.mark.parametrize(
    "name", ["archive (1).zip", "archive(2).zip", "archive-1.zip", "Chinese-MNIST.zip"]
)
def test_hanzi_from_a_renamed_archive(tmp_path, name):
    zipped(tmp_path, hanzi_files())
    (tmp_path / "archive.zip").rename(tmp_path / name)
    assert len(data.load("hanzi", root=tmp_path)) == 24
    assert data.files_of("hanzi", tmp_path) == [tmp_path / name]


def test_the_archive_with_the_table_is_taken(tmp_path):
    zipped(tmp_path, hanzi_files())
    (tmp_path / "archive.zip").rename(tmp_path / "archive (1).zip")
    zipped(tmp_path, {"train.csv": b"of another data set"})
    assert len(data.load("hanzi", root=tmp_path)) == 24


def test_files_that_were_not_recognised_are_listed(tmp_path):
    (tmp_path / "numerals.rar").write_bytes(b"")
    with pytest.raises(data.DataError, match=f"{tmp_path} holds numerals.rar"):
        data.load("hanzi", root=tmp_path)
    assert data.files_of("hanzi", tmp_path) == []


def test_other_code_redraws_the_images_and_removes_the_old(tmp_path, cache, monkeypatch):
    root = zipped(tmp_path / "mine", hanzi_files())
    data.load("hanzi", size=16, root=root)
    data.load("hanzi", size=28, root=root)
    before = files_in(cache)
    module = fingerprint.SOURCES["genbook.data.redrawing"]
    edited = module._replace(text=module.text + "EDITED = True\n")
    monkeypatch.setitem(fingerprint.SOURCES, "genbook.data.redrawing", edited)
    data.load("hanzi", size=28, root=root)
    after = files_in(cache)
    assert len(before) == len(after) == 2
    assert len(set(before) & set(after)) == 1  # of the other size


def centre_of_mass(images):
    """Of images [N, H, W], in parts of the side: [N, 2]."""
    n, height, width = images.shape
    mass = images.sum((1, 2))
    y = images.sum(2) @ (np.arange(height) + 0.5) / height
    x = images.sum(1) @ (np.arange(width) + 0.5) / width
    return np.stack([y, x], axis=1) / mass[:, None]


@pytest.mark.parametrize("place", [{}, {"top": 0, "left": 50}, {"top": 40, "left": 2}])
def test_redraw_does_not_depend_on_the_place(place):
    reference = redraw(scan(top=22, left=22).astype(np.uint8), 28)
    moved = redraw(scan(**place).astype(np.uint8), 28)
    np.testing.assert_allclose(moved, reference, atol=0.02)
    np.testing.assert_allclose(centre_of_mass(moved[None]), 0.5, atol=0.03)


@pytest.mark.parametrize("height", [15, 30, 60])
def test_redraw_gives_one_size_and_one_pen(height):
    image = redraw(scan(height, height, 2, 2).astype(np.uint8), 28)
    rows, columns = np.flatnonzero(image.max(1) > 0.5), np.flatnonzero(image.max(0) > 0.5)
    assert 19 <= np.ptp(rows) <= 24 and 19 <= np.ptp(columns) <= 24
    arm = image[5:9].sum(1)  # across the upright stroke, above the crossing
    np.testing.assert_allclose(arm, 0.075 * 28, atol=0.6)


def test_redraw_ignores_dust_and_ruled_lines():
    clean = scan(top=22, left=22)
    dusty = clean.copy()
    dusty[5, 50] = dusty[55, 6] = 150
    dusty[63, 3:12] = 220
    np.testing.assert_allclose(
        redraw(dusty.astype(np.uint8), 28), redraw(clean.astype(np.uint8), 28), atol=1e-6
    )


def test_redraw_of_a_faint_character_is_the_same():
    bright, faint = (np.round(scan() * k).astype(np.uint8) for k in (1, 0.3))
    np.testing.assert_allclose(redraw(faint, 28), redraw(bright, 28), atol=1e-6)


@needs_real_files
def test_real_hanzi(tmp_path):
    (path,) = data.fetch("hanzi", REAL)
    _, index = hanzi._open(REAL)
    with zipfile.ZipFile(path) as archive:
        few = index[(index[:, 0] % 5 == 0) & (index[:, 1] % 2 == 0)]  # all would take 10 s
        names = ["data/data/" + hanzi._name(row) for row in few]
        files = {"chinese_mnist.csv": table(few)} | {name: archive.read(name) for name in names}
    assert np.bincount(index[:, 2]).tolist() == [0] + [1000] * 15
    assert set(index[:, 0]) == set(range(1, 101))

    test = data.load("hanzi", "test", root=zipped(tmp_path, files))
    assert np.bincount(test.labels).tolist() == [100] * 15
    off = np.abs(centre_of_mass(test.images[:, 0]) - 0.5).max(1)
    assert off.mean() < 0.02 and (off > 0.05).mean() < 0.005
    ink = test.images.mean((1, 2, 3))
    assert ink.min() > 0.02 and ink.max() < 0.5
    mean = [ink[test.labels == c].mean() for c in range(15)]
    assert strokes.CLASSES[int(np.argmin(mean))] == "一"
    assert mean[0] > mean[2] and mean[4] > mean[10]  # 零 and 四 are denser than 二 and 十
