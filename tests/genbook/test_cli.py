"""The command `genbook`: what it prints, what it writes, how it fails."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tqdm import tqdm

import genbook
from genbook import cli, data
from genbook.data import mnist


@pytest.fixture(autouse=True)
def no_files(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("GENBOOK_DATA", raising=False)
    monkeypatch.setattr(mnist, "MIRROR", "http://127.0.0.1:9/")


def test_show_counts_and_draws_one_of_each_class(capsys):
    assert cli.main(["data", "show", "digits", "--split", "test"]) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert lines[0] == "digits, test: 360 images of 1 x 16 x 16"
    assert lines[1].split() == ["0", "35"] and len(lines[1:11]) == 10
    assert "@" in "".join(lines[11:]) and err == ""


def test_show_writes_a_contact_sheet(tmp_path, capsys):
    out = tmp_path / "sheet.png"
    assert cli.main(["data", "show", "strokes", "--size", "12", "--out", str(out)]) == 0
    with Image.open(out) as image:
        assert image.format == "PNG" and image.size == (20 * 48, 15 * 48)
        assert image.getextrema()[1] > 250
    assert str(out) in capsys.readouterr().out


def test_contact_sheet_has_a_row_for_each_class():
    dataset = data.load("digits", "test")
    sheet = np.asarray(cli.contact_sheet(dataset, columns=4, cell=16))
    assert sheet.shape == (10 * 16, 4 * 16)
    for label in (0, 7):
        first = dataset.images[dataset.labels == label][0, 0]
        np.testing.assert_array_equal(sheet[label * 16 :][:16, :16], np.rint(255 * first))


def test_contact_sheet_of_few_images():
    some = data.load("digits", "test")
    few = data.Dataset("few", "test", some.images[:2], some.labels[:2], some.classes)
    sheet = np.asarray(cli.contact_sheet(few, columns=4, cell=16))
    rows = sheet.reshape(10, 16, 64).max((1, 2)) > 0
    assert set(np.flatnonzero(rows)) == set(few.labels)


@pytest.mark.parametrize("columns", [10, 18, 80, 200])
def test_text_sheet_fits_the_terminal(columns):
    dataset = data.load("digits", "test", size=9)
    lines = cli.text_sheet(dataset, columns).splitlines()
    assert max(map(len, lines)) <= columns
    across = min(10, columns // 10)
    assert len(lines) == 4 * -(-10 // across)


@pytest.mark.parametrize("name", ["digits", "strokes"])
def test_fetch_of_a_set_without_files(name, capsys):
    assert cli.main(["data", "fetch", name]) == 0
    assert "nothing to download" in capsys.readouterr().out


def test_fetch_prints_the_paths(monkeypatch, tmp_path, capsys):
    asked = []

    def fetch(name, root):
        asked.append((name, root))
        return [tmp_path / "a", tmp_path / "b"]

    monkeypatch.setattr(data, "fetch", fetch)
    assert cli.main(["data", "fetch", "mnist", "--root", "somewhere"]) == 0
    assert asked == [("mnist", "somewhere")]
    assert capsys.readouterr().out.splitlines() == [str(tmp_path / "a"), str(tmp_path / "b")]


@pytest.mark.parametrize(
    "command, code, says",
    [
        ("", 2, "required: command"),
        ("data", 2, "required: action"),
        ("data show", 2, "required: name"),
        ("data show letters", 2, "invalid choice: 'letters'"),
        ("data show digits --split dev", 2, "invalid choice: 'dev'"),
        ("data show digits --size 7", 2, "'7' is not a whole number from 8 to 256"),
        ("data show digits --size 9999999", 2, "'9999999' is not a whole number from 8 to 256"),
        ("data show digits --size big", 2, "'big' is not a whole number"),
        ("data show digits --colour", 2, "unrecognized arguments: --colour"),
        ("data fetch hanzi", 1, "kaggle.com"),
        ("data show hanzi", 1, "kaggle.com"),
        ("data fetch mnist", 1, "cannot download"),
        ("data show digits --out no/such/folder/sheet.png", 2, "there is no folder no/such/folder"),
        ("data show mnist --root no-such-folder", 1, "there is no folder no-such-folder"),
        ("data show hanzi --root no-such-folder", 1, "there is no folder no-such-folder"),
        ("train vae --data mnist --root no-such-folder", 1, "there is no folder no-such-folder"),
        ("train", 2, "required: model"),
        ("train gan", 2, "invalid choice: 'gan'"),
        ("train vae --data letters", 2, "invalid choice: 'letters'"),
        ("train vae --epochs 5", 2, "arguments: --epochs 5 (see genbook train --help)"),
        ("train vae --steps 0", 2, "'0' is not a whole number of at least 1"),
        ("train vae --nproc 0", 2, "'0' is not a whole number of at least 1"),
        ("train vae --nproc 9999", 1, "9999 processes are too many for"),
        ("train vae --nnodes 2", 1, "need a master"),
        ("train vae --master host:1", 1, "more than one machine"),
        ("train vae --prediction v", 1, "only diffusion"),
        ("train diffusion --prediction x0", 2, "invalid choice: 'x0'"),
        ("train vae --size 10", 1, "multiple of 4"),
        ("train vae --batch-size 99999 --out no-such-folder", 1, "from 1 to the"),
        ("train vae --resume --out no-such-folder", 1, "nothing to resume"),
        ("train vae --data hanzi", 1, "kaggle.com"),
        ("sample", 2, "required: MODEL.safetensors, --out"),
        ("sample no-such-file --out sheet.png", 1, "cannot read no-such-file"),
        ("sample pyproject.toml --out sheet.png", 1, "damaged or no checkpoint"),
        ("sample tests --out sheet.png", 1, "cannot read tests/model.safetensors"),
        ("sample x --out sheet.jpg", 2, "'sheet.jpg' does not end in .png"),
        ("sample x --out no-such-folder/s.png", 2, "there is no folder no-such-folder"),
        ("sample x --out sheet.png --count 0", 2, "'0' is not a whole number of at least 1"),
    ],
)
def test_errors_are_one_line(command, code, says, capsys):
    assert cli.main(command.split()) == code
    err = capsys.readouterr().err
    assert err.startswith("genbook: ") and says in err.replace("\\", "/")
    assert err.count("\n") == 1 and err.endswith("\n")


def short_training(model, folder, *options):
    """The command line of three steps on small images; `folder` may have spaces in it."""
    small = "--size 8 --steps 3 --batch-size 8".split()
    return ["train", model, *small, *options, "--out", str(folder)]


@pytest.mark.parametrize("model", ["autoencoder", "vae", "diffusion"])
def test_train_and_sample(model, tmp_path, capsys):
    folder, sheet = tmp_path / "a model", tmp_path / "sheet.png"
    train = short_training(model, folder, "--lr", "1e-4")
    assert cli.main(train) == 0
    assert capsys.readouterr().out == f"model: {folder / 'model.safetensors'}\n"
    sample = ["sample", str(folder / "model.safetensors"), "--out", str(sheet)]
    assert cli.main([*sample, *"--count 5 --steps 2".split()]) == 0
    with Image.open(sheet) as image:
        assert image.format == "PNG" and image.size == (3 * 48, 2 * 48)
        assert not np.asarray(image)[48:, 96:].any()  # the sixth place stays empty
    capsys.readouterr()
    assert cli.main(train) == 1
    assert "holds a training" in capsys.readouterr().err
    assert cli.main([*train, "--resume"]) == 0


def test_a_training_that_is_interrupted_says_how_to_go_on(tmp_path, capsys, monkeypatch):
    presses = iter([signal.SIGINT])
    monkeypatch.setattr(tqdm, "update", lambda bar: [os.kill(os.getpid(), s) for s in presses])
    train = short_training("vae", tmp_path)
    assert cli.main(train) == 130
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("genbook: stopped after 2 of 3 steps; step 2 is kept in ")
    assert "--resume" in last
    monkeypatch.undo()
    assert cli.main([*train, "--resume"]) == 0


def test_the_package_is_a_command(capsys):
    command = [sys.executable, "-m", "genbook", "--version"]
    home = Path(cli.__file__).parents[1]
    done = subprocess.run(command, cwd=home, capture_output=True, text=True, check=True)
    assert done.stdout == f"genbook {genbook.__version__}\n"


def test_help_lists_the_data_sets(capsys):
    assert cli.main(["data", "show", "--help"]) == 0
    assert "digits, mnist, hanzi, strokes" in " ".join(capsys.readouterr().out.split())


def test_ctrl_c(monkeypatch, capsys):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(data, "load", interrupt)
    assert cli.main(["data", "show", "digits"]) == 130
    assert "Traceback" not in capsys.readouterr().err


def test_a_reader_that_stops_early_is_no_error():
    home = Path(cli.__file__).parents[1]
    command = [sys.executable, "-m", "genbook.cli", "data", "show", "digits"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=home, stdout=pipe, stderr=pipe) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0
