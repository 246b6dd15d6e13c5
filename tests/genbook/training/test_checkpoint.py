"""Checkpoints: what they hold, what becomes of bad ones, and trainings that go on from one."""

import errno
import json
import os
import random
import signal
import struct
import subprocess
import sys
import tracemalloc
from types import SimpleNamespace

import numpy as np
import paddle
import paddle.nn as nn
import pytest
from filelock import FileLock

from genbook import system
from genbook.training import checkpoint, checkpointer, fit, trainer
from genbook.training.checkpoint import CheckpointError, read, specs, write
from genbook.training.checkpointer import Checkpointer
from genbook.training.loop import TrainingError

ARRAYS = {
    "model.weight": np.arange(12, dtype="float32").reshape(3, 4),
    "model.count": np.array([7]),
    "history.loss": np.linspace(1, 0, 5),
}
LIKE = specs({key: value for key, value in ARRAYS.items() if key.startswith("model.")})
METADATA = {"step": 5, "name": "零"}
IMAGES = np.random.default_rng(0).random((60, 1, 4, 4), dtype="float32")


@pytest.fixture
def file(tmp_path):
    """A good checkpoint."""
    write(tmp_path / "some.safetensors", ARRAYS, METADATA)
    return tmp_path / "some.safetensors"


def raw(header, data=b""):
    """The bytes of a safetensors file with this header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def parts(content):
    """The header and the data of a file."""
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length]), content[8 + length :]


# The file


def test_what_is_written_is_read(file):
    arrays, metadata = read(file, LIKE)
    assert metadata == METADATA == checkpoint.metadata(file)
    assert arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(arrays[name], array)


def test_other_programs_can_read_it(file):
    from safetensors.numpy import load_file

    np.testing.assert_array_equal(load_file(file)["model.weight"], ARRAYS["model.weight"])


def test_a_file_cut_off_anywhere_is_refused(file):
    content = file.read_bytes()
    rng = random.Random(0)
    for length in [0, 1, 7, 8, 9, len(content) - 1, *rng.sample(range(len(content)), 50)]:
        file.write_bytes(content[:length])
        with pytest.raises(CheckpointError, match="damaged"):
            read(file, LIKE)


def test_a_file_with_more_at_its_end_is_refused(file):
    file.write_bytes(file.read_bytes() + b"\0")
    with pytest.raises(CheckpointError, match="damaged"):
        read(file, LIKE)


def test_a_flipped_bit_never_goes_unseen(file):
    content = file.read_bytes()
    for place in random.Random(0).sample(range(8 * len(content)), 1000):
        flipped = bytearray(content)
        flipped[place // 8] ^= 1 << place % 8
        file.write_bytes(flipped)
        try:
            arrays, metadata = read(file, LIKE)
        except CheckpointError:
            continue
        # The one harmless place is a letter of the header that JSON may write in another way.
        assert metadata == METADATA and all(np.array_equal(arrays[k], ARRAYS[k]) for k in ARRAYS)


def entry(shape, end=48, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [0, end]}


META = {"__metadata__": {"format": checkpoint.FORMAT, "about": "{}", "checksum": ""}}


@pytest.mark.parametrize(
    "content",
    [
        b"not a checkpoint at all",
        struct.pack("<Q", 2**63) + b"{}",
        struct.pack("<Q", 2**64 - 1) + b"{}",
        raw(b"{}"),
        raw(b"[]"),
        raw(b"7"),
        raw(b"\xff\xfe"),
        raw(b"[" * 200_000),
        raw({"a": 1}),
        raw({"__metadata__": 7}),
        raw({"__metadata__": {"format": checkpoint.FORMAT}}),
        raw({"__metadata__": {**META["__metadata__"], "about": 3}}),
        raw({"__metadata__": {**META["__metadata__"], "about": "[]"}}),
        raw({**META, "a": entry([3, 4])}),
        raw({**META, "a": entry([3, 4], end=2**62)}, bytes(48)),
        raw({**META, "a": entry([2**40, 2**40])}, bytes(48)),
        raw({**META, "a": entry([-3, -4])}, bytes(48)),
        raw({**META, "a": entry([True, 12])}, bytes(48)),
        raw({**META, "a": entry("12")}, bytes(48)),
        raw({**META, "a": entry([12], dtype="F8")}, bytes(48)),
        raw({**META, "a": entry([12]) | {"more": 1}}, bytes(48)),
        raw(
            {**META, "model.weight": entry([3, 4]), "model.count": entry([1], 8, "I64")}, bytes(56)
        ),
        raw({**META, **{f"history.{i}": entry([0], 0) for i in range(1_000_000)}}),
        raw({**META, **{f"history.{i}": entry([0], 0) for i in range(10_000)}}),
    ],
    ids=range(24),
)
def test_nonsense_is_refused_and_costs_little(file, content):
    file.write_bytes(content)
    tracemalloc.start()
    with pytest.raises(CheckpointError):
        read(file, LIKE)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**25


def test_a_huge_file_is_refused_before_it_is_read(file):
    header = raw(
        {
            **META,
            "model.weight": entry([3, 4]),
            "model.count": {"dtype": "I64", "shape": [1], "data_offsets": [48, 56]},
            "history.loss": {"dtype": "F64", "shape": [2**37], "data_offsets": [56, 56 + 2**40]},
        }
    )
    file.write_bytes(header)
    os.truncate(file, len(header) + 2**40 + 56)  # holes, which take no room on the disk
    with pytest.raises(CheckpointError, match="its history is too long"):
        read(file, LIKE)


@pytest.mark.parametrize("history", [np.ones((5, 2)), np.ones(5, "float32")])
def test_a_history_of_another_form_is_refused(file, history):
    write(file, {**ARRAYS, "history.loss": history}, METADATA)
    with pytest.raises(CheckpointError, match="not of float64 vectors"):
        read(file, LIKE)


@pytest.mark.parametrize(
    "like, word",
    [
        (
            {**LIKE, "model.weight": "float32 [3, 5]"},
            "model.weight should be float32 .3, 5. and is",
        ),
        ({**LIKE, "model.weight": "float64 [3, 4]"}, "should be float64 .3, 4. and is float32"),
        ({**LIKE, "model.more": "float32 [1]"}, "model.more should be .* and is absent"),
        ({"model.weight": "float32 [3, 4]"}, "model.count should be absent"),
    ],
)
def test_a_checkpoint_of_another_model_is_refused(file, like, word):
    with pytest.raises(CheckpointError, match=f"some.safetensors is of another model: .*{word}"):
        read(file, like)


def test_a_checkpoint_of_another_version_is_refused(file):
    header, data = parts(file.read_bytes())
    header["__metadata__"]["format"] = "genbook 999"
    file.write_bytes(raw(header, data))
    with pytest.raises(CheckpointError, match="another version.*'genbook 999'"):
        read(file, LIKE)


def test_what_cannot_be_opened_is_one_clear_error(tmp_path):
    for path in (tmp_path / "missing", tmp_path):
        with pytest.raises(CheckpointError, match="cannot read"):
            read(path, LIKE)
        with pytest.raises(CheckpointError, match="cannot read"):
            checkpoint.metadata(path)


def fill_the_disk(monkeypatch):
    """Have writes fail as on a disk without room."""

    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(system.os, "fsync", full)


def test_a_full_disk_leaves_the_last_checkpoint(file, monkeypatch):
    before = file.read_bytes()
    fill_the_disk(monkeypatch)
    with pytest.raises(CheckpointError, match="No space left.*intact"):
        write(file, ARRAYS, {"step": 6})
    assert file.read_bytes() == before
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_counters_that_cannot_be_are_not_restored(tmp_path):
    """Where no user asked for the file, the training starts anew."""
    file, settings = tmp_path / "a.safetensors", {"steps": 10}

    def fresh():
        return Checkpointer(file, "key", settings, strict=False)

    model = nn.Linear(2, 2)
    training = SimpleNamespace(
        model=model,
        optimizer=paddle.optimizer.Adam(1e-3, parameters=model.parameters()),
        average=None,
        steps=10,
        step=99,
        rows=[{"loss": 0.0}] * 99,
        history=lambda: {"loss": np.zeros(99)},
    )
    fresh()._save(training)
    assert checkpoint.metadata(file)["step"] == 99
    training.step, training.rows = 0, []
    fresh().on_start(training)
    assert training.step == 0 and not training.rows


# Trainings that stop and go on

STEPS = 24


class Small(nn.Layer):
    """A tiny network with a buffer, with dropout, and with a layer that gets no gradient."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Flatten(), nn.Linear(16, 6), nn.BatchNorm1D(6), nn.Dropout(0.2), nn.Linear(6, 16)
        )
        self.unused = nn.Linear(2, 2)

    def forward(self, x):
        return self.body(x).reshape(x.shape)


def noisy_loss(model, x):
    return (model(x + 0.1 * paddle.randn(x.shape)) - x).square().mean()


def run(loss=noisy_loss, **settings):
    """A small training: the model and the history."""
    paddle.seed(0)
    model = Small()
    history = fit(model, loss, IMAGES, **{"steps": STEPS, "batch_size": 16, "ema": 0.9, **settings})
    return model, history


def same(one, other):
    """Whether two trainings ended with the same bits (their seconds apart)."""
    states = (
        [*m.state_dict().values(), *(h[k] for k in sorted(h) if k != "seconds")]
        for m, h in (one, other)
    )
    return all(np.array_equal(np.asarray(a), np.asarray(b)) for a, b in zip(*states, strict=True))


def kicked(step, number=signal.SIGINT):
    """The loss, during which at one step a signal arrives."""
    calls = []

    def loss(model, x):
        calls.append(1)
        if len(calls) == step + 1:
            os.kill(os.getpid(), number)
        return noisy_loss(model, x)

    return loss


def at_every_step(monkeypatch):
    monkeypatch.setattr(checkpointer, "SECONDS_BETWEEN_CHECKPOINTS", 0)
    monkeypatch.setattr(checkpointer, "SHARE_OF_CHECKPOINTS", float("inf"))


@pytest.fixture
def same_recipe(monkeypatch):
    """Has a loss that is interrupted count as the same recipe as one that is not."""
    monkeypatch.setattr(trainer.Run, "key", lambda run: str(run.describe()))


@pytest.mark.parametrize("ema", [None, 0.9])
def test_a_training_stopped_anywhere_ends_with_the_same_bits(ema, tmp_path, same_recipe):
    undisturbed = run(ema=ema)
    rng = random.Random(1)
    for i, step in enumerate([0, STEPS - 2, *rng.sample(range(STEPS - 1), 8)]):
        folder = tmp_path / str(i)
        with pytest.raises(KeyboardInterrupt, match=f"stopped after {step + 1} of {STEPS} steps"):
            run(kicked(step, rng.choice([signal.SIGINT, signal.SIGTERM])), ema=ema, folder=folder)
        paddle.randn([7]), nn.Linear(2, 2)  # other work in between
        assert same(run(ema=ema, folder=folder, resume=True), undisturbed)


def test_a_second_interrupt_stops_at_once(tmp_path, same_recipe):
    def loss(model, x):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("not reached")

    with pytest.raises(KeyboardInterrupt):
        run(loss, folder=tmp_path)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_the_last_checkpoint_holds_the_finished_training(tmp_path):
    first = run(folder=tmp_path)
    assert same(run(folder=tmp_path, resume=True), first)


KILLED = """
import os, pathlib, random, signal, sys, time
tests, seed, runs = sys.argv[1:]
sys.path.insert(0, tests)
import test_checkpoint as t

rng = random.Random(int(seed))
t.checkpointer.SECONDS_BETWEEN_CHECKPOINTS, t.checkpointer.SHARE_OF_CHECKPOINTS = 0, float("inf")

def run():
    os.environ["GENBOOK_RUNS"] = runs
    return t.run(steps=300)

def step():
    return max((t.checkpoint.metadata(f)["step"] for f in pathlib.Path(runs).glob("*.checkpoint")),
               default=0)

kills = 0
while kills < 20:
    before, child = step(), os.fork()
    if not child:
        run()
        os._exit(0)
    while step() == before and os.waitpid(child, os.WNOHANG) == (0, 0):
        time.sleep(0.001)
    time.sleep(rng.uniform(0, 0.03))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    kills += 1
reached = step()
kept = run()
del os.environ["GENBOOK_RUNS"]
print(reached, t.same(kept, t.run(steps=300)))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_training_killed_at_any_moment_goes_on_to_the_same_bits(tmp_path):
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-c",
        KILLED,
        os.path.dirname(__file__),
        "1",
        str(tmp_path),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stderr
    reached, equal = done.stdout.split()
    assert 20 <= int(reached) < 300 and equal == "True"


def test_a_loss_that_is_not_finite_keeps_the_last_good_checkpoint(tmp_path, monkeypatch):
    at_every_step(monkeypatch)
    calls = []

    def loss(model, x):
        calls.append(1)
        return noisy_loss(model, x) * (float("nan") if len(calls) == 8 else 1.0)

    with pytest.raises(TrainingError, match="nan at step 7; .*step 7 is kept in .*checkpoint"):
        run(loss, folder=tmp_path)
    assert checkpoint.metadata(tmp_path / "checkpoint.safetensors")["step"] == 7


def test_weights_that_are_not_finite_are_never_kept(tmp_path, monkeypatch):
    at_every_step(monkeypatch)
    calls = []

    def loss(model, x):
        calls.append(1)
        zero = (model(x) * 0).sum()
        # The root has an infinite slope at zero: a finite loss with a gradient that is none.
        return noisy_loss(model, x) + (zero.sqrt() if len(calls) == 5 else 0)

    with pytest.raises(TrainingError, match="not finite after 5 steps.*step 4 is kept"):
        run(loss, folder=tmp_path)
    assert checkpoint.metadata(tmp_path / "checkpoint.safetensors")["step"] == 4


def test_weights_that_are_not_finite_after_the_last_step_are_an_error():
    with pytest.raises(TrainingError, match="not finite after 1 steps"):
        run(lambda model, x: (model(x) * 0).sum().sqrt(), steps=1)


def test_a_disk_that_fills_up_stops_the_training(tmp_path, monkeypatch, same_recipe):
    at_every_step(monkeypatch)
    file = tmp_path / "checkpoint.safetensors"

    def loss(model, x):
        if file.exists():
            fill_the_disk(monkeypatch)
        return noisy_loss(model, x)

    with pytest.raises(CheckpointError, match="No space left.*intact"):
        run(loss, folder=tmp_path)
    assert checkpoint.metadata(file)["step"] == 1


@pytest.fixture
def stopped(tmp_path, same_recipe):
    """A folder with a training that was stopped."""
    with pytest.raises(KeyboardInterrupt):
        run(kicked(5), folder=tmp_path)
    return tmp_path


def test_a_training_is_not_overwritten_unawares(stopped):
    with pytest.raises(CheckpointError, match="holds a training; resume it"):
        run(folder=stopped)


def test_there_must_be_something_to_resume(tmp_path):
    with pytest.raises(CheckpointError, match="nothing to resume"):
        run(folder=tmp_path, resume=True)
    with pytest.raises(ValueError, match="folder"):
        run(resume=True)


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"steps": 25}, "steps was 24, is 25"),
        ({"seed": 1}, "seed was 0, is 1"),
        ({"ema": 0.8}, "ema was 0.9, is 0.8"),
        ({"ema": None}, "ema was 0.9, is None"),
    ],
)
def test_only_the_same_training_is_resumed(stopped, settings, words):
    with pytest.raises(CheckpointError, match=words):
        run(folder=stopped, resume=True, **settings)


def test_other_data_are_another_training(tmp_path):
    paddle.seed(0)
    fit(Small(), noisy_loss, IMAGES, steps=2, folder=tmp_path, batch_size=16)
    paddle.seed(0)
    with pytest.raises(CheckpointError, match="the data"):
        fit(Small(), noisy_loss, IMAGES + 1, steps=2, folder=tmp_path, resume=True, batch_size=16)


def test_a_damaged_checkpoint_is_not_resumed(stopped):
    file = stopped / "checkpoint.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="damaged"):
        run(folder=stopped, resume=True)


@pytest.mark.parametrize(
    "damage",
    [lambda content: content[:-1], lambda content: b"", lambda content: content[:-1] + b"?"],
)
def test_where_nobody_asked_a_damaged_checkpoint_is_trained_anew(
    damage, tmp_path, monkeypatch, same_recipe
):
    undisturbed = run()
    monkeypatch.setenv("GENBOOK_RUNS", str(tmp_path))
    with pytest.raises(KeyboardInterrupt, match="same call goes on"):
        run(kicked(5))
    (file,) = tmp_path.glob("*.checkpoint")
    file.write_bytes(damage(file.read_bytes()))
    assert same(run(), undisturbed)
    assert not list(tmp_path.glob("*.checkpoint"))
    assert len(list(tmp_path.glob("*.safetensors"))) == 1


def test_two_trainings_do_not_share_a_folder(tmp_path):
    with FileLock(tmp_path / "lock"), pytest.raises(CheckpointError, match="another process"):
        run(folder=tmp_path)


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot make the folder"):
        run(folder=tmp_path / "file" / "folder")
