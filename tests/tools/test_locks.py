"""The locks: complete for pip as it is, with nothing but `pip install -r`."""

import re
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]


def locked(lock):
    """What a lock holds for this system and Python, each under its name with its extras."""
    lines = re.findall(r"^(\w\S*)==(\S+)(?: ; (.+?))? \\$", (ROOT / lock).read_text("utf-8"), re.M)
    return {name: version for name, version, mark in lines if not mark or Marker(mark).evaluate()}


def asked_for(name):
    """What a locked package asks for here, under the name by which pip looks for its hash."""
    bare, _, extras = name.rstrip("]").partition("[")
    for line in requires(bare) or ():
        asked = Requirement(line)
        marker = asked.marker
        if marker and not any(marker.evaluate({"extra": extra}) for extra in extras.split(",")):
            continue
        asked_extras = f"[{','.join(sorted(asked.extras))}]" if asked.extras else ""
        yield canonicalize_name(asked.name) + asked_extras


@pytest.mark.parametrize("lock", ["requirements.txt", "requirements-dev.txt"])
def test_each_package_that_another_asks_for_has_its_hashes(lock):
    packages = locked(lock)
    missing = {}
    for name in packages:
        try:
            asked = set(asked_for(name))
        except PackageNotFoundError:  # an installation that is older than the lock
            continue
        if lost := asked - packages.keys():
            missing[name] = lost
    assert not missing, f"{lock}: pip install -r would refuse these: {missing}"


def test_the_reader_installs_the_versions_that_are_tested():
    book, everything = locked("requirements.txt"), locked("requirements-dev.txt")
    assert book.items() <= everything.items()


def test_the_reader_installs_no_tools_of_the_maintainers():
    names = {name.partition("[")[0] for name in locked("requirements.txt")}
    assert not names & {"mutmut", "mypy", "nbgrader", "pip-audit", "playwright", "ruff", "uv"}


@pytest.mark.parametrize("lock", ["requirements.txt", "requirements-dev.txt"])
def test_a_lock_names_no_place_to_download_from(lock):
    text = (ROOT / lock).read_text("utf-8")
    assert "://" not in text and not re.search(r"^--?(index|extra-index|find-links|i )", text, re.M)
