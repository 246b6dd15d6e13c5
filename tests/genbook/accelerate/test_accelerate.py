import ctypes
import subprocess
import sys
import threading
from pathlib import Path

import paddle
import paddle.nn as nn
import pytest

from genbook import accelerate
from genbook.accelerate import memory, onednn

needs_onednn = pytest.mark.skipif(onednn.library() is None, reason="this Paddle has no oneDNN 3")


def is_accelerated():
    return "accelerated" in nn.Linear.forward.__code__.co_name


UNTOUCHED = """
import paddle, sys
import paddle.nn as nn
import paddle.nn.functional as F
from paddle.nn.layer import layers

def objects():
    owners = {"nn": nn, "F": F, "F.conv": F.conv, "paddle": paddle, "Tensor": paddle.Tensor}
    owners |= {name: kind for name, kind in vars(nn).items() if isinstance(kind, type)}
    return {(o, n): v for o, owner in owners.items() for n, v in vars(owner).items()}

before = objects()

def changed():
    after = objects()
    return [key for key in before.keys() | after.keys() if before.get(key) is not after.get(key)]

import importlib, pkgutil
import numpy as np
import genbook
for module in pkgutil.walk_packages(genbook.__path__, "genbook."):
    if "standins" not in module.name and "task" not in module.name:
        try:
            importlib.import_module(module.name)
        except ImportError:
            pass
assert not changed(), changed()
from genbook.training.loop import fit
fit(nn.Linear(4, 4), lambda model, x: model(x).square().mean(), np.ones((8, 4), "float32"),
    steps=2, batch_size=4)
assert not changed(), changed()
from genbook import accelerate
accelerate.enable()
assert changed()
with accelerate.enabled():
    pass
accelerate.disable()
assert not changed(), changed()
"""


def test_nothing_changes_but_between_enable_and_disable():
    run = [sys.executable, "-W", "ignore", "-c", UNTOUCHED]
    done = subprocess.run(run, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


def test_importing_it_does_not_import_paddle():
    code = "import sys, genbook.accelerate; assert 'paddle' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@needs_onednn
def test_blocks_nest_and_restore_what_was():
    with accelerate.enabled():
        with accelerate.enabled():
            pass
        assert is_accelerated() and accelerate.is_enabled()
    assert not is_accelerated() and not accelerate.is_enabled()
    accelerate.enable()
    accelerate.enable()
    with pytest.raises(KeyError), accelerate.enabled():
        raise KeyError
    assert is_accelerated()
    accelerate.disable()
    accelerate.disable()
    assert not is_accelerated()


@needs_onednn
def test_blocks_of_two_threads_may_overlap():
    entered, left = threading.Event(), threading.Event()

    def other():
        with accelerate.enabled():
            entered.set()
            left.wait()

    thread = threading.Thread(target=other)
    with accelerate.enabled():
        thread.start()
        entered.wait()
    assert is_accelerated()
    left.set()
    thread.join()
    assert not is_accelerated()


def test_malloc_is_set_by_enable_and_reset_by_disable(monkeypatch):
    asked = []

    class Libc:
        mallopt = staticmethod(lambda parameter, value: asked.append((parameter, value)))
        malloc_trim = staticmethod(lambda pad: asked.append("trim"))

    monkeypatch.setattr(memory, "_is_glibc", lambda: True)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: Libc)
    memory.keep_freed()
    assert asked == [*memory.KEEP.items()]
    memory.return_freed()
    assert asked == [*memory.KEEP.items(), *memory.DEFAULT.items(), "trim"]


def test_training_is_left_alone_without_acceleration():
    tiny = paddle.full([8], 1e-38)
    with accelerate.training():
        assert (tiny * 0.5 > 0).all()


THREADS = """
import threading
import numpy as np, paddle, paddle.nn as nn
from genbook import accelerate

paddle.seed(0)
cases = [
    (nn.Conv2D(4, 8, 3, padding=1), [2, 4, 12, 12]),
    (nn.Linear(64, 64), [64, 64]),
    (nn.Sequential(nn.GroupNorm(2, 8), nn.Silu(), nn.MaxPool2D(2)), [4, 8, 64, 64]),
]
threads, wrong = 4, []
for layer, shape in cases:
    inputs = [paddle.randn(shape) for _ in range(threads)]
    stock = [layer(x).numpy() for x in inputs]
    repeats = 150 if np.prod(shape) < 10_000 else 25
    start = threading.Barrier(threads)

    @paddle.no_grad()
    def work(x, expected):
        start.wait()
        for _ in range(repeats):
            if not np.allclose(layer(x).numpy(), expected, rtol=1e-3, atol=1e-4):
                wrong.append(type(layer).__name__)

    with accelerate.enabled():
        workers = [threading.Thread(target=work, args=pair) for pair in zip(inputs, stock)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
assert not wrong, wrong
"""


@needs_onednn
def test_threads_that_share_layers_get_stock_results():
    """Each has inputs of its own. In a new process, where they also are the first to use oneDNN."""
    run = [sys.executable, "-W", "ignore", "-X", "faulthandler", "-c", THREADS]
    done = subprocess.run(run, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


@needs_onednn
def test_objects_of_onednn_are_destroyed(monkeypatch):
    """As many as were made, once the cache of compiled operations is emptied."""
    alive, create = [0], onednn.create

    class Counted(onednn.Handle):
        def __init__(self, *args):
            alive[0] += 1
            super().__init__(*args)

        def __del__(self):
            alive[0] -= 1
            super().__del__()

    monkeypatch.setattr(onednn, "Handle", Counted)
    assert create is onednn.create
    onednn.engine(), onednn.stream()
    before = alive[0]
    layer = nn.Conv2D(4, 8, 3)
    with accelerate.enabled():
        for images in range(1, 6):
            x = paddle.randn([images, 4, 9, 9])
            layer(x).sum().backward()
        assert alive[0] > before
    assert alive[0] == before


@needs_onednn
@pytest.mark.slow
def test_memory_is_bounded_when_shapes_are_ever_new():
    script = Path(__file__).parents[3] / "benchmarks" / "memory.py"
    stock, accelerated = (
        float(subprocess.check_output([sys.executable, script, "--alone", each], text=True))
        for each in "01"
    )
    assert accelerated < stock + 0.5  # GiB
