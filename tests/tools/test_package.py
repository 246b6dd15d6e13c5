"""The package as it is published: the sdist is the whole source, the wheel what a user can use."""

import shutil
import subprocess
import sys
import tarfile
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest

import genbook

ROOT = Path(__file__).resolve().parents[2]
BUILD = "import sys, setuptools.build_meta as b; getattr(b, 'build_' + sys.argv[1])('dist')"


@pytest.fixture(scope="module")
def tracked():
    """The files of the source, as Git knows them."""
    if not (ROOT / ".git").exists():
        pytest.skip("no checkout of Git")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True)
    names = listed.stdout.decode().strip("\0").split("\0")
    return {name for name in names if (ROOT / name).exists()}


@pytest.fixture(scope="module")
def dist(tracked, tmp_path_factory):
    """The folder with sdist and wheel, made of a copy of the source."""
    source = tmp_path_factory.mktemp("source")
    for name in tracked:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, source / name)
    for kind in ("sdist", "wheel"):
        command = [sys.executable, "-c", BUILD, kind]
        subprocess.run(command, cwd=source, check=True, capture_output=True)
    return source / "dist"


@pytest.mark.slow
def test_the_sdist_is_the_whole_source(dist, tracked):
    (file,) = dist.glob("*.tar.gz")
    with tarfile.open(file) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    assert not tracked - held - {".gitignore"}


@pytest.mark.slow
def test_the_wheel_has_what_a_user_can_use_and_says_what_it_is(dist, tracked):
    (file,) = dist.glob("*.whl")
    with zipfile.ZipFile(file) as archive:
        held = set(archive.namelist())
        about = message_from_bytes(archive.read(next(n for n in held if n.endswith("/METADATA"))))
        licences = [name for name in held if "/licenses/" in name]
    code = {name for name in tracked if name.startswith("genbook/") and name.endswith(".py")}
    exams = {name for name in tracked if name.startswith("genbook/lab/exam/")}
    assert code | exams | {"genbook/py.typed"} <= held
    assert {name.partition("/")[0].partition("-")[0] for name in held} == {"genbook"}
    assert about["Version"] == genbook.__version__
    assert about.get_all("Provides-Extra") == ["grading"]
    assert "Typing :: Typed" in about.get_all("Classifier") and licences
