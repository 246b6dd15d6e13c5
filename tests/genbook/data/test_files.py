"""Where files of data sets are looked for, and how they are written."""

import errno
import os
from pathlib import Path

import pytest

from genbook import data
from genbook.data import files


def files_in(folder):
    return sorted(path.name for path in Path(folder).rglob("*") if path.is_file())


@pytest.mark.parametrize("written", ["~/data", "$HOME/data", "${HOME}/data", Path("~/data")])
def test_home_and_variables_are_filled_in(tmp_path, monkeypatch, written):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert files.expanded(written) == tmp_path / "data"
    assert next(files.places([""], written)) == tmp_path / "data"
    (tmp_path / "data").mkdir()
    monkeypatch.setenv("GENBOOK_DATA", str(written))
    assert next(files.places(["sub"])) == tmp_path / "data" / "sub"


@pytest.mark.parametrize("written", ["~nobody-of-this-name/data", "$NO_SUCH_VARIABLE/data"])
def test_what_cannot_be_filled_in_is_an_error(tmp_path, monkeypatch, written):
    monkeypatch.chdir(tmp_path)
    for name in ("mnist", "hanzi"):
        for action in (data.load, data.fetch, data.files_of):
            with pytest.raises(data.DataError, match="does not exist"):
                action(name, root=written)
    assert files_in(tmp_path) == []


@pytest.mark.parametrize("wrong", [5, "", ["data"], True])
def test_what_is_no_path_is_an_error(wrong):
    with pytest.raises(ValueError, match="a path is expected"):
        data.load("mnist", root=wrong)


@pytest.mark.parametrize("name", ["mnist", "hanzi"])
def test_an_environment_that_names_no_folder_is_an_error(tmp_path, monkeypatch, name):
    for wrong in (tmp_path / "nowhere", Path(__file__)):
        monkeypatch.setenv("GENBOOK_DATA", str(wrong))
        with pytest.raises(data.DataError, match="GENBOOK_DATA names no folder"):
            data.load(name)
    assert len(data.load("digits", "test")) == 360  # which has no files


def test_a_root_that_is_a_file_is_an_error():
    with pytest.raises(data.DataError, match="is a file"):
        data.load("hanzi", root=__file__)


@pytest.fixture
def no_home(monkeypatch):
    """No folder for a cache."""
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)


@pytest.mark.parametrize("name", ["mnist", "hanzi"])
def test_without_a_home_the_message_names_the_variable(no_home, name):
    with pytest.raises(data.DataError, match="set XDG_CACHE_HOME"):
        data.load(name)


def test_without_a_home_files_elsewhere_are_found(no_home, tmp_path, monkeypatch):
    monkeypatch.setenv("GENBOOK_DATA", str(tmp_path))
    (tmp_path / "archive.zip").write_bytes(b"")
    assert data.files_of("hanzi") == [tmp_path / "archive.zip"]


def test_a_full_disk_leaves_the_old_file_alone(tmp_path, monkeypatch):
    files.write(tmp_path / "deep" / "file", b"old")

    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(data.DataError, match="cannot write .*file: No space left"):
        files.write(tmp_path / "deep" / "file", b"new")
    assert files_in(tmp_path) == ["file"]
    assert (tmp_path / "deep" / "file").read_bytes() == b"old"


def test_a_folder_that_cannot_be_made_is_one_clear_error(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(data.DataError, match="cannot write"):
        files.write(tmp_path / "file" / "below", b"content")
