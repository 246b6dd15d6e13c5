"""The data sets: what `load` promises, and one clear error for every broken file.

Broken files are made up here. The real ones are read when $GENBOOK_DATA names their folder.
"""

import contextlib
import errno
import gzip
import hashlib
import http.server
import io
import os
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from genbook import data
from genbook.data import strokes

REAL = os.environ.get("GENBOOK_DATA")
needs_real_files = pytest.mark.skipif(not REAL, reason="GENBOOK_DATA names no folder of real files")

MNIST_FILES = tuple(data._MNIST_MD5)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache, no folder of data, and no network."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("GENBOOK_DATA", raising=False)
    monkeypatch.setattr(data, "_mnist_mirror", lambda: "http://127.0.0.1:9/")  # nobody listens
    return tmp_path / "cache" / "genbook"


def files_in(folder):
    return sorted(path.name for path in Path(folder).rglob("*") if path.is_file())


# --- what every data set promises -------------------------------------------------------------


@pytest.mark.parametrize("name, size", [("digits", 16), ("strokes", 28)])
@pytest.mark.parametrize("split", data.SPLITS)
def test_load_gives_images_labels_and_classes(name, size, split):
    dataset = data.load(name, split)
    n = len(dataset)
    assert (dataset.name, dataset.split) == (name, split)
    assert dataset.images.shape == (n, 1, size, size) and dataset.images.dtype == np.float32
    assert dataset.labels.shape == (n,) and dataset.labels.dtype == np.int64
    assert dataset.images.min() == 0 and 0.99 < dataset.images.max() <= 1
    assert dataset.images.mean() < 0.5  # white ink on black
    counts = np.bincount(dataset.labels, minlength=len(dataset.classes))
    assert len(counts) == len(dataset.classes) and counts.min() > 0.85 * counts.mean()


def test_most_takes_images_from_all_over_the_set():
    every, some = data.load("digits"), data.load("digits", most=100)
    assert len(some) == 100 and some.images.shape[1:] == every.images.shape[1:]
    places = [
        np.flatnonzero((every.images == image).all(axis=(1, 2, 3)))[0] for image in some.images
    ]
    assert places[0] == 0 and places[-1] == len(every) - 1
    assert max(np.diff(places)) <= len(every) / 100 + 1
    assert (every.labels[places] == some.labels).all()
    assert len(data.load("digits", most=10_000)) == len(every)
    for wrong in (0, -1, 2.5, "all"):
        with pytest.raises(ValueError, match="most must be"):
            data.load("digits", most=wrong)


@pytest.mark.parametrize("name", ["digits", "strokes"])
def test_load_twice_is_the_same_and_splits_share_nothing(name):
    train, again, test = data.load(name), data.load(name), data.load(name, "test")
    np.testing.assert_array_equal(train.images, again.images)
    np.testing.assert_array_equal(train.labels, again.labels)
    seen = {image.tobytes() for image in train.images}
    assert not any(image.tobytes() in seen for image in test.images)


@pytest.mark.parametrize("name", ["digits", "strokes"])
@pytest.mark.parametrize("size", [8, 21, 32])
def test_load_takes_any_size(name, size):
    dataset = data.load(name, "test", size=size)
    assert dataset.images.shape[1:] == (1, size, size)
    assert dataset.images.max() <= 1


def test_three_channels_are_equal():
    one, three = data.load("digits", "test"), data.load("digits", "test", channels=3)
    assert three.images.shape == (360, 3, 16, 16)
    for channel in range(3):
        np.testing.assert_array_equal(three.images[:, channel], one.images[:, 0])


@pytest.mark.parametrize(
    "arguments, says",
    [
        (
            {"name": "letters"},
            "unknown data set 'letters'; known are digits, mnist, hanzi, strokes",
        ),
        ({"name": "digits", "split": "dev"}, "unknown split 'dev'; known are train, test"),
        ({"name": "digits", "size": 7}, "size must be .* at least 8 pixels, not 7"),
        ({"name": "digits", "size": 16.0}, "size must be a whole number"),
        ({"name": "digits", "channels": 2}, "channels must be 1 or 3, not 2"),
    ],
)
def test_load_refuses_bad_arguments(arguments, says):
    with pytest.raises(ValueError, match=says):
        data.load(**arguments)


def test_dataset_cannot_be_changed_by_accident():
    with pytest.raises(AttributeError):
        data.load("digits", "test").images = None


def test_import_leaves_paddle_alone():
    code = "import sys, genbook.data; sys.exit('paddle' in sys.modules)"
    home = Path(data.__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=home).returncode == 0


# --- digits -----------------------------------------------------------------------------------


def test_digits_are_scikit_learns_in_order():
    train, test = data.load("digits"), data.load("digits", "test")
    assert (len(train), len(test)) == (1437, 360)
    raw = load_digits()
    np.testing.assert_array_equal(np.concatenate([train.labels, test.labels]), raw.target)
    images = np.concatenate([train.images, test.images])
    pooled = images.reshape(-1, 8, 2, 8, 2).mean((2, 4))
    assert np.corrcoef(pooled.ravel(), raw.images.ravel())[0, 1] > 0.95


def test_sharpen_keeps_the_ends_and_the_order():
    x = np.linspace(0, 1, 50)
    y = data._sharpen(x)
    assert (y[0], y[-1]) == (0, 1) and np.all(np.diff(y) > 0)
    assert np.gradient(y, x).max() > 1.5
    np.testing.assert_array_equal(data._sharpen(np.array([-0.1, 1.1])), [0, 1])


# --- mnist ------------------------------------------------------------------------------------


def idx(array):
    """An array as the content of an IDX file."""
    dimensions = np.array(array.shape, ">u4").tobytes()
    return bytes([0, 0, 8, array.ndim]) + dimensions + array.astype(np.uint8).tobytes()


@pytest.fixture
def tiny_mnist(monkeypatch):
    """Four made-up files {name: content} that pass for MNIST."""
    rng = np.random.default_rng(0)
    contents = {}
    for name in MNIST_FILES:
        n = 5 if name.startswith("train") else 3
        shape = (n, 28, 28) if "images" in name else (n,)
        contents[name] = idx(rng.integers(0, 256 if "images" in name else 10, shape))
    md5 = {name: hashlib.md5(content).hexdigest() for name, content in contents.items()}
    monkeypatch.setattr(data, "_MNIST_MD5", md5)
    return contents


def save(folder, contents, pack=gzip.compress, ending=".gz"):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (folder / (name + ending)).write_bytes(pack(content))
    return folder


@pytest.mark.parametrize("pack, ending", [(gzip.compress, ".gz"), (bytes, ""), (bytes, ".gz")])
@pytest.mark.parametrize("subfolder", ["", "mnist"])
def test_mnist_from_a_folder(tmp_path, tiny_mnist, pack, ending, subfolder):
    save(tmp_path / "mine" / subfolder, tiny_mnist, pack, ending)
    dataset = data.load("mnist", root=tmp_path / "mine")
    raw = np.frombuffer(tiny_mnist["train-images-idx3-ubyte"], np.uint8, offset=16)
    assert dataset.images.shape == (5, 1, 28, 28)
    np.testing.assert_allclose(dataset.images.ravel() * 255, raw, atol=1e-4)
    assert dataset.labels.tolist() == list(tiny_mnist["train-labels-idx1-ubyte"][8:])
    assert len(data.load("mnist", "test", root=str(tmp_path / "mine"))) == 3


def test_mnist_is_looked_for_in_root_then_the_environment_then_the_cache(
    tmp_path, tiny_mnist, cache, monkeypatch
):
    monkeypatch.setenv("GENBOOK_DATA", str(tmp_path / "env"))
    save(cache / "mnist", tiny_mnist)
    assert {path.parent for path in data.fetch("mnist")} == {cache / "mnist"}
    save(tmp_path / "env" / "mnist", tiny_mnist)
    assert {path.parent for path in data.fetch("mnist")} == {tmp_path / "env" / "mnist"}
    save(tmp_path / "root", tiny_mnist)
    assert {path.parent for path in data.fetch("mnist", tmp_path / "root")} == {tmp_path / "root"}


@pytest.mark.parametrize("size", [8, 14, 20, 56])
def test_mnist_resampling_is_antialiased(size):
    weights = data._antialiased(28, size)
    np.testing.assert_allclose(weights.sum(1), 1, atol=1e-5)  # grey stays grey
    checkers = np.indices((28, 28)).sum(0)[None] % 2
    assert np.ptp(data._resample(checkers, weights)[:, 2:-2, 2:-2]) < (0.3 if size <= 20 else 1.5)
    if size < 28:  # all pixels count
        assert np.all(weights[:, 1:-1].sum(0) > 0.5 * size / 28)


def test_mnist_of_another_size(tmp_path, tiny_mnist):
    save(tmp_path, tiny_mnist)
    small = data.load("mnist", size=14, root=tmp_path).images
    full = data.load("mnist", root=tmp_path).images
    assert small.shape == (5, 1, 14, 14) and small.dtype == np.float32
    assert small.min() >= 0 and small.max() <= 1
    blocks = full.reshape(5, 1, 14, 2, 14, 2).mean((3, 5))
    assert np.corrcoef(small.ravel(), blocks.ravel())[0, 1] > 0.9


good = idx(np.zeros((2, 28, 28)))


@pytest.mark.parametrize(
    "content, says",
    [
        (b"", "begins with nothing"),
        (b"<html>not found</html>", "begins with 3c68746d, expected 00000803"),
        (idx(np.zeros(2)), "begins with 00000801, expected 00000803"),
        (good[:10], "10 bytes, an IDX header alone has 16"),
        (idx(np.zeros((2, 20, 20))), r"items of shape \(20, 20\), expected \(28, 28\)"),
        (good[:-1], r"1583 bytes, expected 1584 for dimensions \(2, 28, 28\)"),
        (good + b"x", "1585 bytes, expected 1584"),
        (good[:4] + b"\xff" * 4 + good[8:], "1584 bytes, expected 3367254359296"),
    ],
)
def test_idx_errors(content, says):
    with pytest.raises(data.DataError, match=f"^a file: .*{says}"):
        data.parse_idx(content, (28, 28), "a file")


def test_idx_reads_what_was_written():
    array = np.random.default_rng(0).integers(0, 256, (3, 4, 5))
    np.testing.assert_array_equal(data.parse_idx(idx(array), (4, 5), "a file"), array)


@pytest.mark.parametrize(
    "break_it, says",
    [
        (lambda content: gzip.compress(content)[:-20], "broken gzip file"),
        (lambda content: gzip.compress(content)[:5], "broken gzip file of 5 bytes"),
        (lambda content: b"\x1f\x8b" + bytes(50), "broken gzip file"),
        (lambda content: gzip.compress(content) + b"more", "4 bytes follow its end"),
        (lambda content: gzip.compress(bytes(2**27)), "it unpacks to more than 67108864 bytes"),
        (lambda content: bytes(2**26 + 1), "67108865 bytes, expected at most 67108864"),
        (lambda content: gzip.compress(content[:-1]), "expected 3936"),
        (lambda content: gzip.compress(content[:-1] + b"\x01\x02"[content[-1] == 1 :][:1]), "md5"),
    ],
)
def test_mnist_errors_name_the_file_and_the_way_out(tmp_path, tiny_mnist, break_it, says):
    save(tmp_path, tiny_mnist)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(break_it(tiny_mnist["train-images-idx3-ubyte"]))
    with pytest.raises(data.DataError) as caught:
        data.load("mnist", root=tmp_path)
    message = str(caught.value)
    assert str(path) in message and says in message and "delete the file" in message
    assert "\n" not in message
    with pytest.raises(data.DataError):
        data.fetch("mnist", tmp_path)


def test_mnist_refuses_another_set_under_its_names(tmp_path):
    save(tmp_path, {name: idx(np.zeros((1, 28, 28))) for name in MNIST_FILES if "images" in name})
    with pytest.raises(data.DataError, match="md5 is .* MNIST's train-images-idx3-ubyte has 6bbc9"):
        data.load("mnist", root=tmp_path)


def test_mnist_without_network_says_where_to_put_the_files(cache):
    with pytest.raises(
        data.DataError, match="cannot download http://127.0.0.1:9/train-images"
    ) as e:
        data.load("mnist")
    assert str(cache / "mnist") in str(e.value)
    assert files_in(cache) == []


@contextlib.contextmanager
def mirror(reply):
    """A web server on this machine; `reply(handler, name)` answers each request."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            reply(self, self.path.strip("/"))

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def send(handler, content, length):
    handler.send_response(200)
    if length is not None:
        handler.send_header("Content-Length", str(length))
    handler.end_headers()
    handler.wfile.write(content)


def packed(contents, name):
    return gzip.compress(contents[name.removesuffix(".gz")])


@pytest.mark.parametrize("with_length", [True, False])
def test_mnist_is_downloaded_once(tiny_mnist, cache, monkeypatch, with_length):
    asked = []

    def reply(handler, name):
        asked.append(name)
        content = packed(tiny_mnist, name)
        send(handler, content, len(content) if with_length else None)

    with mirror(reply) as address:
        monkeypatch.setattr(data, "_mnist_mirror", lambda: address)
        paths = data.fetch("mnist")
        assert len(data.load("mnist")) == 5
    assert sorted(asked) == files_in(cache) == sorted(path.name for path in paths)
    assert asked == [name + ".gz" for name in MNIST_FILES]
    assert len(data.load("mnist", "test")) == 3  # with no server left


def test_mnist_is_downloaded_to_root(tmp_path, tiny_mnist, cache, monkeypatch):
    def reply(handler, name):
        send(handler, packed(tiny_mnist, name), None)

    with mirror(reply) as address:
        monkeypatch.setattr(data, "_mnist_mirror", lambda: address)
        data.fetch("mnist", tmp_path / "new")
    assert len(files_in(tmp_path / "new" / "mnist")) == 4
    assert files_in(cache) == []
    assert len(data.load("mnist", root=tmp_path / "new")) == 5


def half(handler, content):
    send(handler, content[: len(content) // 2], len(content))


def half_of_unknown_length(handler, content):
    send(handler, content[: len(content) // 2], None)


def a_page(handler, content):
    send(handler, b"<html>Please log in</html>", None)


def other_content(handler, content):
    send(handler, gzip.compress(idx(np.zeros((1, 28, 28)))), None)


def not_found(handler, content):
    handler.send_error(404)


@pytest.mark.parametrize(
    "answer, says",
    [
        (half, "broke off|IncompleteRead"),
        (half_of_unknown_length, "broken gzip file"),
        (a_page, "not the IDX file expected"),
        (other_content, "md5"),
        (not_found, "404"),
    ],
)
def test_a_bad_download_leaves_nothing_behind(tiny_mnist, cache, monkeypatch, answer, says):
    with mirror(lambda handler, name: answer(handler, packed(tiny_mnist, name))) as address:
        monkeypatch.setattr(data, "_mnist_mirror", lambda: address)
        with pytest.raises(data.DataError, match=says) as caught:
            data.load("mnist")
    assert address in str(caught.value)
    assert files_in(cache) == []


def test_a_full_disk_leaves_nothing_behind(tmp_path, monkeypatch):
    def write_some(path, content):
        with open(path, "wb") as file:
            file.write(content[:3])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", write_some)
    with pytest.raises(data.DataError, match="cannot write .*file: No space left"):
        data._write(tmp_path / "deep" / "file", b"content")
    assert files_in(tmp_path) == []


def test_an_interrupted_write_keeps_the_old_file(tmp_path, monkeypatch):
    data._write(tmp_path / "file", b"old")

    def interrupt(*paths):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", interrupt)
        with pytest.raises(KeyboardInterrupt):
            data._write(tmp_path / "file", b"new")
    assert files_in(tmp_path) == ["file"]
    assert (tmp_path / "file").read_bytes() == b"old"
    data._write(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"new"


def test_a_folder_that_cannot_be_made_is_one_clear_error(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(data.DataError, match="cannot write"):
        data._write(tmp_path / "file" / "below", b"content")


def test_paddle_still_knows_the_mirror(monkeypatch):
    monkeypatch.undo()
    assert data._mnist_mirror().startswith("https://") and data._mnist_mirror().endswith("/mnist/")


@needs_real_files
def test_real_mnist():
    train, test = data.load("mnist", root=REAL), data.load("mnist", "test", root=REAL)
    assert (len(train), len(test)) == (60000, 10000)
    assert train.labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert test.labels[:5].tolist() == [7, 2, 1, 0, 4]
    assert train.classes == tuple("0123456789")
    small = data.load("mnist", "test", size=16, root=REAL)
    assert small.images.shape == (10000, 1, 16, 16)
    for dataset in (test, small):  # MNIST is centred by mass, to a pixel of 28
        off = np.abs(centre_of_mass(dataset.images[:, 0]) - 0.5).max(1)
        assert (off > 1 / 28).mean() < 0.02


# --- hanzi ------------------------------------------------------------------------------------


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
        files[data._hanzi_name(row)] = jpeg(scan(height=18 + row[0]))
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
        data, "redraw", lambda pixels, size: np.full((size, size), pixels.max() / 255)
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
        files[data._hanzi_name(row)] = jpeg(np.full((64, 64), 15 * row[2] + 20))
    monkeypatch.setattr(
        data, "redraw", lambda pixels, size: np.full((size, size), pixels.max() / 255)
    )
    train = data.load("hanzi", root=zipped(tmp_path, files))
    told = np.rint((255 * train.images[:, 0, 0, 0] - 20) / 15) - 1
    np.testing.assert_array_equal(told, train.labels)
    assert len(set(train.labels[:60].tolist())) > 10  # of 8 images each


def test_hanzi_missing_says_what_to_get_and_where_to_put_it(tmp_path, cache, monkeypatch):
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
        (image_missing, "1 of 30 images are missing, the first is data/data/input_2_1_8.jpg"),
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
    with pytest.raises(data.DataError, match="cannot read data/data/input_3_1_1.jpg.*CRC"):
        data.load("hanzi", root=tmp_path)


def test_hanzi_is_processed_once_per_archive_and_size(tmp_path, cache, monkeypatch):
    root = zipped(tmp_path / "mine", hanzi_files())
    first = [data.load("hanzi", size=size, root=root).images for size in (28, 16)]
    assert len(files_in(cache)) == 2

    def fail(*args):
        raise AssertionError("processed again")

    monkeypatch.setattr(data, "redraw", fail)
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


def centre_of_mass(images):
    """Of images [N, H, W], in parts of the side: [N, 2]."""
    n, height, width = images.shape
    mass = images.sum((1, 2))
    y = images.sum(2) @ (np.arange(height) + 0.5) / height
    x = images.sum(1) @ (np.arange(width) + 0.5) / width
    return np.stack([y, x], axis=1) / mass[:, None]


@pytest.mark.parametrize("place", [{}, {"top": 0, "left": 50}, {"top": 40, "left": 2}])
def test_redraw_does_not_depend_on_the_place(place):
    reference = data.redraw(scan(top=22, left=22).astype(np.uint8), 28)
    moved = data.redraw(scan(**place).astype(np.uint8), 28)
    np.testing.assert_allclose(moved, reference, atol=0.02)
    np.testing.assert_allclose(centre_of_mass(moved[None]), 0.5, atol=0.03)


@pytest.mark.parametrize("height", [15, 30, 60])
def test_redraw_gives_one_size_and_one_pen(height):
    image = data.redraw(scan(height, height, 2, 2).astype(np.uint8), 28)
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
        data.redraw(dusty.astype(np.uint8), 28), data.redraw(clean.astype(np.uint8), 28), atol=1e-6
    )


def test_redraw_of_a_faint_character_is_the_same():
    bright, faint = (np.round(scan() * k).astype(np.uint8) for k in (1, 0.3))
    np.testing.assert_allclose(data.redraw(faint, 28), data.redraw(bright, 28), atol=1e-6)


@needs_real_files
def test_real_hanzi(tmp_path):
    (path,) = data.fetch("hanzi", REAL)
    with zipfile.ZipFile(path) as archive:
        index = data._hanzi_index(archive)
        few = index[(index[:, 0] % 5 == 0) & (index[:, 1] % 2 == 0)]  # all would take 10 s
        names = [data._hanzi_name(row) for row in few]
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


# --- sets without files -----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["digits", "strokes"])
def test_nothing_to_fetch(name):
    assert data.fetch(name) == []
