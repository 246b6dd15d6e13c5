"""The installation: complete or begun anew, one at a time. What needs a network is left out."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

FILE = Path(__file__).resolve().parents[2] / "tools" / "install.py"


@pytest.fixture
def install(tmp_path, monkeypatch):
    """The module, whose commands are noted instead of run, and make a folder at most."""
    spec = importlib.util.spec_from_file_location("install", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.commands = []

    def run(command):
        module.commands.append(command)
        (tmp_path / ".venv").mkdir(exist_ok=True)

    monkeypatch.setattr(module, "run", run)
    return module


def test_what_is_installed_is_not_installed_again(install, tmp_path):
    venv = tmp_path / ".venv"
    assert install.main(venv) == 0
    assert [command[2] for command in install.commands] == ["venv", "pip", "pip"]
    assert "--require-hashes" in install.commands[1]
    assert install.main(venv) == 0
    assert len(install.commands) == 3


@pytest.mark.parametrize("step", range(3))
def test_an_installation_that_ends_midway_is_begun_anew(step, install, tmp_path, monkeypatch):
    venv, done = tmp_path / ".venv", []

    def run(command):
        venv.mkdir(exist_ok=True)
        (venv / "half-installed").touch()
        if len(done) == step:
            raise KeyboardInterrupt
        done.append(command)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(install, "run", run)
        install.main(venv)
    assert not (venv / ".installed").exists()
    monkeypatch.setattr(install, "run", lambda command: venv.mkdir(exist_ok=True))
    assert install.main(venv) == 0
    assert [path.name for path in venv.iterdir()] == [".installed"]


def test_another_lock_is_installed_over_what_is_there(install, tmp_path):
    venv = tmp_path / ".venv"
    venv.mkdir()
    (venv / ".installed").touch()
    (venv / "added by hand").touch()
    os.utime(venv / ".installed", (0, 0))
    assert install.main(venv) == 0
    assert len(install.commands) == 3 and (venv / "added by hand").exists()


@pytest.mark.parametrize("version, code", [((3, 9, 1), 1), ((3, 14, 0), 1), ((3, 13, 9), 0)])
def test_an_unfit_python_is_named(version, code, install, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "version_info", version)
    assert install.main(tmp_path / ".venv") == code
    assert ("3.10 to 3.13" in capsys.readouterr().err) == bool(code)


@pytest.mark.skipif(os.name == "nt", reason="waits without a word on Windows")
def test_two_installations_take_turns(install, tmp_path):
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv/.installed").touch()
    with install.locked(tmp_path / ".venv.lock"):
        other = subprocess.Popen(
            [sys.executable, FILE, tmp_path / ".venv"], text=True, stdout=subprocess.PIPE
        )
        assert "waiting" in other.stdout.readline()
        assert other.poll() is None
    assert other.wait(timeout=60) == 0
