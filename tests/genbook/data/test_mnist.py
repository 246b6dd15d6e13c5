"""MNIST: wherever its files are, and one clear error for every broken one."""

import contextlib
import gzip
import hashlib
import http.server
import os
import threading
from pathlib import Path

import numpy as np
import pytest

from genbook import data
from genbook.data import mnist

REAL = os.environ.get("GENBOOK_DATA")
needs_real_files = pytest.mark.skipif(not REAL, reason="GENBOOK_DATA names no folder of real files")

MNIST_FILES = tuple(mnist.MD5)


def files_in(folder):
    return sorted(path.name for path in Path(folder).rglob("*") if path.is_file())


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
    monkeypatch.setattr(mnist, "MD5", md5)
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
    (tmp_path / "env").mkdir()
    monkeypatch.setenv("GENBOOK_DATA", str(tmp_path / "env"))
    save(cache / "mnist", tiny_mnist)
    assert {path.parent for path in data.fetch("mnist")} == {cache / "mnist"}
    save(tmp_path / "env" / "mnist", tiny_mnist)
    assert {path.parent for path in data.fetch("mnist")} == {tmp_path / "env" / "mnist"}
    save(tmp_path / "root", tiny_mnist)
    assert {path.parent for path in data.fetch("mnist", tmp_path / "root")} == {tmp_path / "root"}


@pytest.mark.parametrize("size", [8, 14, 20, 56])
def test_mnist_resampling_is_antialiased(size):
    weights = mnist._antialiased(28, size)
    np.testing.assert_allclose(weights.sum(1), 1, atol=1e-5)  # grey stays grey
    checkers = np.indices((28, 28)).sum(0)[None] % 2
    resampled = weights @ checkers @ weights.T
    assert np.ptp(resampled[:, 2:-2, 2:-2]) < (0.3 if size <= 20 else 1.5)
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


@pytest.mark.parametrize(
    "break_it, says",
    [
        (lambda content: gzip.compress(content)[:-20], "broken gzip file"),
        (lambda content: gzip.compress(content)[:5], "broken gzip file of 5 bytes"),
        (lambda content: b"\x1f\x8b" + bytes(50), "broken gzip file of 52 bytes"),
        (lambda content: gzip.compress(content) + b"more", "broken gzip file"),
        (lambda content: gzip.compress(bytes(2**27)), "it unpacks to more than 67108864 bytes"),
        (lambda content: bytes(2**26 + 1), "67108865 bytes, expected at most 67108864"),
        (lambda content: gzip.compress(content[:-1]), "3935 bytes that begin"),
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
    assert str(path) in message and says in message
    assert "delete" not in message and "whole copy is at http" in message
    assert "\n" not in message
    with pytest.raises(data.DataError):
        data.fetch("mnist", tmp_path)


def test_mnist_refuses_another_set_under_its_names(tmp_path):
    save(tmp_path, {name: idx(np.zeros((1, 28, 28))) for name in MNIST_FILES if "images" in name})
    with pytest.raises(
        data.DataError, match="have the md5 .* MNIST's train-images-idx3-ubyte has 6bbc9"
    ):
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
        monkeypatch.setattr(mnist, "MIRROR", address)
        paths = data.fetch("mnist")
        assert len(data.load("mnist")) == 5
    assert sorted(asked) == files_in(cache) == sorted(path.name for path in paths)
    assert asked == [name + ".gz" for name in MNIST_FILES]
    assert len(data.load("mnist", "test")) == 3  # with no server left


def test_mnist_is_downloaded_to_root(tmp_path, tiny_mnist, cache, monkeypatch):
    def reply(handler, name):
        send(handler, packed(tiny_mnist, name), None)

    with mirror(reply) as address:
        monkeypatch.setattr(mnist, "MIRROR", address)
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
        (a_page, "26 bytes that begin with b'<html>Please'"),
        (other_content, "md5"),
        (not_found, "404"),
    ],
)
def test_a_bad_download_leaves_nothing_behind(tiny_mnist, cache, monkeypatch, answer, says):
    with mirror(lambda handler, name: answer(handler, packed(tiny_mnist, name))) as address:
        monkeypatch.setattr(mnist, "MIRROR", address)
        with pytest.raises(data.DataError, match=says) as caught:
            data.load("mnist")
    assert address in str(caught.value)
    assert files_in(cache) == []


def test_paddle_still_knows_the_mirror(monkeypatch):
    monkeypatch.undo()
    from paddle.vision.datasets import MNIST

    assert mnist.MIRROR == MNIST.URL_PREFIX


# As torchvision keeps them, as LeCun's page named them, as browsers name a second copy
SPELLINGS = {
    "torchvision": ("MNIST/raw/", lambda name: name),
    "packed": ("MNIST/raw/", lambda name: name + ".gz"),
    "dots": ("", lambda name: name.replace("-idx", ".idx")),
    "dots in a folder": ("mnist/", lambda name: name.replace("-idx", ".idx")),
    "a copy": ("", lambda name: name + " (1).gz"),
    "a copy with dots": ("raw/", lambda name: name.replace("-idx", " (2).idx")),
    "Safari": ("", lambda name: name + "-2.gz"),
    "capitals": ("", lambda name: name.upper() + ".GZ"),
}


@pytest.mark.parametrize("way", ["root", "environment"])
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_mnist_under_other_names(tmp_path, tiny_mnist, monkeypatch, spelling, way):
    folder, spell = SPELLINGS[spelling]
    save(tmp_path / folder, {spell(name): c for name, c in tiny_mnist.items()}, bytes, "")
    if way == "environment":
        monkeypatch.setenv("GENBOOK_DATA", str(tmp_path))
    root = tmp_path if way == "root" else None
    assert len(data.load("mnist", root=root)) == 5
    assert data.files_of("mnist", root) == data.fetch("mnist", root)
    assert len(data.files_of("mnist", root)) == 4


def test_mnist_from_paddles_own_cache(tmp_path, tiny_mnist, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    save(tmp_path / ".cache" / "paddle" / "dataset" / "mnist", tiny_mnist)
    assert len(data.load("mnist", "test")) == 3


def test_a_whole_copy_beside_a_broken_file_is_taken(tmp_path, tiny_mnist):
    save(tmp_path, tiny_mnist)
    save(tmp_path, tiny_mnist, ending=" (1).gz")
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(b"<html>Please log in</html>")
    assert len(data.load("mnist", root=tmp_path)) == 5


def test_files_that_were_not_recognised_are_listed(tmp_path):
    (tmp_path / "mnist.npz").write_bytes(b"")
    with pytest.raises(data.DataError, match=f"{tmp_path} holds mnist.npz"):
        data.load("mnist", root=tmp_path)
    assert data.files_of("mnist", tmp_path) == []


def centre_of_mass(images):
    """Of images [N, H, W], in parts of the side: [N, 2]."""
    n, height, width = images.shape
    mass = images.sum((1, 2))
    y = images.sum(2) @ (np.arange(height) + 0.5) / height
    x = images.sum(1) @ (np.arange(width) + 0.5) / width
    return np.stack([y, x], axis=1) / mass[:, None]


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
