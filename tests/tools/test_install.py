"""The installation: complete or begun anew, one at a time. What needs a network is left out."""

import contextlib
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

FILE = Path(__file__).resolve().parents[2] / "tools" / "install.py"
BOOK, ALL = "requirements.txt", "requirements-dev.txt"


@pytest.fixture
def install(tmp_path, monkeypatch):
    """The module, for a project of three files; commands are noted and make a folder at most."""
    spec = importlib.util.spec_from_file_location("install", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.commands = []

    def run(command):
        module.commands.append(command)
        (tmp_path / ".venv").mkdir(exist_ok=True)

    for file in ("pyproject.toml", BOOK, ALL):
        (tmp_path / file).write_text(file)
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(module, "run", run)
    return module


@pytest.mark.parametrize("lock", [BOOK, ALL])
def test_what_is_installed_is_not_installed_again(lock, install, tmp_path):
    venv = tmp_path / ".venv"
    assert install.main(venv, lock) == 0
    assert [command[2] for command in install.commands] == ["venv", "pip", "pip"]
    assert install.commands[1][-3:] == ["--require-hashes", "-r", str(tmp_path / lock)]
    assert install.main(venv, lock) == 0
    assert len(install.commands) == 3


def test_the_lock_of_the_tests_contains_that_of_the_book_but_not_the_reverse(install, tmp_path):
    venv = tmp_path / ".venv"
    assert install.main(venv, BOOK) == 0
    assert install.main(venv, ALL) == 0
    assert len(install.commands) == 6
    assert install.main(venv, BOOK) == 0
    assert len(install.commands) == 6


@pytest.mark.parametrize("step", range(3))
def test_an_installation_that_ends_midway_is_begun_anew(step, install, tmp_path, monkeypatch):
    venv, done = tmp_path / ".venv", []
    assert install.main(venv, BOOK) == 0  # also where the book's packages were complete

    def run(command):
        (venv / "half-installed").touch()
        if len(done) == step:
            raise KeyboardInterrupt
        done.append(command)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(install, "run", run)
        install.main(venv, ALL)
    assert not (venv / ".installed").exists()
    assert install.main(venv, BOOK) == 0
    assert [path.name for path in venv.iterdir()] == [".installed"]


@pytest.mark.parametrize("edited", ["pyproject.toml", BOOK])
def test_another_lock_is_installed_over_what_is_there(edited, install, tmp_path):
    venv = tmp_path / ".venv"
    assert install.main(venv, BOOK) == 0
    (venv / "added by hand").touch()
    (tmp_path / edited).write_text("other")
    assert install.main(venv, BOOK) == 0
    assert len(install.commands) == 6 and (venv / "added by hand").exists()


def test_a_lock_made_anew_that_came_out_the_same_installs_nothing(install, tmp_path):
    assert install.main(tmp_path / ".venv", BOOK) == 0
    os.utime(tmp_path / BOOK, (2**32, 2**32))
    assert install.main(tmp_path / ".venv", BOOK) == 0
    assert len(install.commands) == 3


@pytest.mark.parametrize("version, code", [((3, 9, 1), 1), ((3, 14, 0), 1), ((3, 13, 9), 0)])
def test_an_unfit_python_is_named(version, code, install, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "version_info", version)
    assert install.main(tmp_path / ".venv", BOOK) == code
    assert ("3.10 to 3.13" in capsys.readouterr().err) == bool(code)


@pytest.mark.skipif(os.name == "nt", reason="waits without a word on Windows")
def test_two_installations_take_turns(install, tmp_path, monkeypatch):
    monkeypatch.setattr(install, "ROOT", FILE.parents[1])  # as the other process has it
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv/.installed").write_text(install.digest(BOOK))
    command = [sys.executable, FILE, tmp_path / ".venv"]
    with contextlib.ExitStack() as lock:
        lock.enter_context(install.locked(tmp_path / ".venv.lock"))
        with subprocess.Popen(command, text=True, stdout=subprocess.PIPE) as other:
            assert "waiting" in other.stdout.readline()
            assert other.poll() is None
            lock.close()
            assert other.wait(timeout=60) == 0
