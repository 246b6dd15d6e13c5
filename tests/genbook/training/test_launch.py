"""Training by two processes: the same step as by one, and what happens when one ends."""

import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import paddle
import pytest
from safetensors.numpy import load_file

from genbook.training import checkpoint, launch, loop
from genbook.training.spec import TrainingSpec

sys.path.append(os.path.dirname(__file__))
import ranks_at_work as work  # noqa: E402

ENOUGH = launch.devices()[0] >= 2
HANGS = 600  # seconds; no busy machine takes as long
two_cores = pytest.mark.skipif(not ENOUGH, reason="needs two cores")


# What two ranks compute


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where two ranks have put what they found."""
    folder = tmp_path_factory.mktemp("ranks")
    command = [
        sys.executable,
        "-m",
        "paddle.distributed.launch",
        "--nproc_per_node",
        "2",
        "--ips",
        "127.0.0.1",
        "--start_port",
        str(launch._free_port()),
        "--log_dir",
        str(folder / "log"),
        sys.executable,
        work.__file__,
        str(folder),
    ]
    done = subprocess.run(
        command, env=launch._environment(folder, 1), capture_output=True, text=True, timeout=HANGS
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def two(folder):
    """What each of the two ranks has found."""
    return [dict(np.load(folder / f"{rank}.npz")) for rank in (0, 1)]


@two_cores
@pytest.mark.parametrize("name", ["vae", "unet"])
def test_two_processes_with_half_the_batch_have_the_gradient_of_one(two, name):
    history, steps = work.both()[name]
    for i, gradients in enumerate(steps):
        scale = max(np.abs(g).max() for g in gradients.values())
        for key, gradient in gradients.items():
            for rank in two:
                np.testing.assert_allclose(
                    rank[f"{name}.{i}.{key}"],
                    gradient,
                    rtol=1e-3,
                    atol=1e-5 * scale,
                    err_msg=f"{key} at step {i}",
                )
    np.testing.assert_allclose(two[0][f"{name}.loss"], history["loss"], rtol=1e-5)


@two_cores
def test_the_ranks_share_each_batch_among_them(two):
    for step, index in zip(range(work.STEPS), loop.batches(work.N, work.BATCH, 0), strict=False):
        seen = np.concatenate([rank["images"][step] for rank in two])
        expected = work.IMAGES[index]
        assert len(seen) == work.BATCH
        np.testing.assert_array_equal(
            np.sort(seen.sum((1, 2, 3))), np.sort(expected.sum((1, 2, 3)))
        )


@two_cores
def test_the_ranks_draw_different_noise_at_every_step(two):
    draws = np.concatenate([rank["noise"] for rank in two]).ravel()
    assert len(np.unique(draws)) == draws.size


@two_cores
def test_weights_averages_statistics_and_history_are_equal_on_all_ranks(two):
    for key in two[0]:
        if key.startswith("averaged."):
            np.testing.assert_array_equal(two[0][key], two[1][key], err_msg=key)
    assert "averaged.body.1._mean" in two[0]


@two_cores
def test_bytes_are_sent_to_all_ranks(two):
    for rank in two:
        assert rank["bytes"].tobytes() == b"some bytes" and rank["nothing"].size == 0


@two_cores
def test_a_batch_that_cannot_be_shared_is_refused(two):
    assert all("multiple of the 2 processes, got 9" in str(rank["refused"]) for rank in two)


@two_cores
def test_ranks_with_different_data_do_not_train_together(two):
    assert "process 1 has other code, data or settings" in str(two[1]["said"])
    assert "connection to another process was lost" in str(two[0]["said"])


def test_one_process_needs_no_other():
    from genbook.training import ranks

    assert (ranks.rank(), ranks.count()) == (0, 1)
    assert ranks.average([], [1.0, 2.0]) == [1.0, 2.0]


# What the terminal shows


class Training:
    """The command `genbook train`, started."""

    STEPS = 1000  # so that it does not end between what a test sees and what it does

    def __init__(self, folder, *options):
        # A shell has its background jobs ignore Ctrl-C, and the tests may be run by one.
        code = (
            "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
            "from genbook.cli import main; sys.exit(main())"
        )
        environment = {**os.environ, "PYTHONPATH": str(launch.ROOT)}
        environment.pop("GENBOOK_RUNS", None)
        self.folder = folder
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-W",
                "ignore",
                "-c",
                code,
                "train",
                "vae",
                "--nproc",
                "2",
                "--steps",
                str(self.STEPS),
                "--batch-size",
                "32",
                "--out",
                str(folder),
                *options,
            ],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def ranks(self):
        """The process of each rank that is running."""
        found = {}
        for path in Path("/proc").glob("[0-9]*"):
            try:
                command = (path / "cmdline").read_bytes().split(b"\0")
                environment = (path / "environ").read_bytes()
                if command[-4:-2] == [b"-m", b"genbook.training.launch"]:
                    number = re.search(rb"\0PADDLE_TRAINER_ID=(\d+)", environment)
                    if number and json.loads(command[-2])["out"] == str(self.folder):
                        found[int(number[1])] = int(path.name)
            except (OSError, ValueError):  # it has just ended, or is no process of ours
                continue
        return found

    def started(self):
        """Wait until some steps were taken."""
        text = b""
        while not re.search(rb" [1-9]\d+/%d" % self.STEPS, text):
            more = os.read(self.process.stderr.fileno(), 4096)  # past any buffer
            assert more, f"ended too early: {text.decode()}"
            text += more
        return self

    def ended(self):
        """The exit code and the last line on the terminal, once it and all ranks have ended."""
        _, err = self.process.communicate(timeout=HANGS)
        deadline = time.monotonic() + HANGS
        while self.ranks() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not self.ranks()
        assert err.strip(), f"ended with {self.process.returncode} and without a word"
        return self.process.returncode, err.decode().strip().splitlines()[-1]


@pytest.mark.slow
@two_cores
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc")
def test_a_training_that_is_stopped_and_killed_goes_on_to_the_same_bits(tmp_path):
    assert Training(tmp_path / "undisturbed").ended()[0] == 0
    out = tmp_path / "a training"
    file = out / "checkpoint.safetensors"

    first = Training(out).started()
    first.process.send_signal(signal.SIGINT)
    code, said = first.ended()
    assert code == 130
    step = checkpoint.metadata(file)["step"]
    assert f"stopped after {step} of {Training.STEPS} steps" in said and "resume" in said

    second = Training(out, "--resume").started()
    os.kill(second.ranks()[1], signal.SIGKILL)
    code, said = second.ended()
    assert code == 1 and said == "genbook: process 1 was killed; is there too little memory?"
    assert checkpoint.metadata(file)["step"] == step

    assert Training(out, "--resume").ended()[0] == 0
    one, other = (load_file(path / file.name) for path in (out, tmp_path / "undisturbed"))
    assert one.keys() == other.keys()
    for key in one.keys() - {"history.seconds"}:
        np.testing.assert_array_equal(one[key], other[key], err_msg=key)


@two_cores
def test_an_error_of_all_processes_is_one_line(tmp_path, capsys):
    with pytest.raises(launch.LaunchError, match="^batch_size must be from 1 to the .* images"):
        launch.launch(TrainingSpec("vae", batch_size=100_000, out=str(tmp_path / "x")), nproc=2)
    assert capsys.readouterr() == ("", "") and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "numbers, words",
    [
        ((0,), "at least 1 process"),
        ((-1,), "at least 1"),
        ((1, 0), "at least 1"),
        ((100_000,), "100000 processes are too many for"),
        ((1, 2), "2 machines need a master"),
        ((1, 1, "host:1"), "more than one machine"),
        ((1, 2, "host"), "HOST:PORT, got 'host'"),
        ((1, 2, "host:port"), "HOST:PORT"),
        ((1, 2, ":1"), "HOST:PORT"),
        ((1, 2, "a:99999"), "HOST"),
    ],
)
def test_numbers_that_cannot_work_are_refused_before_anything_is_started(numbers, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        launch.launch(TrainingSpec("vae", out=str(tmp_path / "x")), *numbers)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"model": "gan"}, "unknown model 'gan'; known are autoencoder, vae, diffusion"),
        ({"data": "letters"}, "unknown data set 'letters'"),
        ({"model": "diffusion", "prediction": "x0"}, "unknown prediction 'x0'; known are eps, v"),
        ({"prediction": "v"}, "only diffusion"),
        ({"size": 18}, "multiple of 4"),
        ({"lr": 0}, "lr"),
        ({"lr": float("nan")}, "lr"),
        ({"seed": -1}, "seed"),
    ],
)
def test_a_spec_that_makes_no_sense_is_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        TrainingSpec(**{"model": "vae", **settings})


def test_each_rank_has_one_thread_and_stays_on_this_machine(tmp_path, monkeypatch):
    monkeypatch.setenv("PADDLE_MASTER", "elsewhere:1")
    monkeypatch.setenv("MASTER_ADDR", "elsewhere")
    monkeypatch.setenv("GENBOOK_RUNS", "kept")
    environment = launch._environment(tmp_path, 1)
    assert environment["OMP_NUM_THREADS"] == "1"
    assert "elsewhere" not in environment.values()


def test_trainings_side_by_side_meet_at_different_ports():
    assert len({launch._free_port() for _ in range(20)}) > 15


def test_each_seed_step_and_rank_has_noise_of_its_own():
    draws = []
    for seed, step, rank in itertools.product(range(3), range(20), range(3)):
        paddle.seed(loop.noise_seed(seed, step, rank))
        draws.append(paddle.randn([1]).item())
    assert len(set(draws)) == len(draws)
