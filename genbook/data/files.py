"""The files of data sets: where to look for them, and how to read, download and write them."""

import contextlib
import http.client
import os
import re
import urllib.request
from pathlib import Path

from tqdm import tqdm

from genbook import system

# What browsers and file managers put behind the name of a second copy
COPY = r"( ?\(\d+\)|[- ]\d+| - copy.*)?"


class DataError(RuntimeError):
    """A data set's files are missing, broken or not what they should be."""


def cache():
    """The folder `genbook` of the user's cache, `$XDG_CACHE_HOME` or `~/.cache`.

    Raises DataError where the user has neither.
    """
    folder = os.path.expanduser(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    if folder.startswith("~"):
        raise DataError("there is no home folder to cache files in: set XDG_CACHE_HOME")
    return Path(folder) / "genbook"


def expanded(path):
    """A path in which `~` and variables of the environment are filled in.

    Raises ValueError for what is no path, DataError for a home or a variable that isn't there.
    """
    if not isinstance(path, (str, os.PathLike)) or not os.fspath(path):
        raise ValueError(f"a path is expected, not {path!r}")
    text = os.path.expandvars(os.path.expanduser(path))
    if re.match(r"~|.*\$\w|.*\$\{", text) and not os.path.exists(text):
        raise DataError(f"{path} names a home or a variable that does not exist")
    return Path(text)


def require_root(root):
    """Raise DataError for a folder to read from that is not there: a download would make it."""
    if root is not None and not expanded(root).exists():
        raise DataError(f"there is no folder {root}")


def places(folders, root=None):
    """Yield the folders that may hold a set's files, in the order of search.

    folders: relative to `root`, `$GENBOOK_DATA` and the cache, in each of which they are tried.
    Raises DataError where GENBOOK_DATA names no folder, and where there is no cache.
    """
    for base in _bases(root):
        yield from (base / folder for folder in folders)


def _bases(root):
    if root is not None:
        folder = expanded(root)
        if folder.exists() and not folder.is_dir():
            raise DataError(f"{folder} is a file; name the folder that holds it")
        yield folder
    if os.environ.get("GENBOOK_DATA"):
        folder = expanded(os.environ["GENBOOK_DATA"])
        if not folder.is_dir():
            raise DataError(f"GENBOOK_DATA names no folder: {folder}")
        yield folder
    yield cache()


def matching(place, pattern):
    """The files in a folder whose whole names match a pattern, the shortest name first."""
    try:
        found = [p for p in place.iterdir() if re.fullmatch(pattern, p.name, re.IGNORECASE)]
    except OSError:  # no such folder, or one that others may not read
        return []
    return sorted((p for p in found if p.is_file()), key=lambda p: (len(p.name), p.name))


def seen(places):
    """What lies in these folders, in words: for the message that something was not found."""
    words = []
    for place in places:
        with contextlib.suppress(OSError):
            names = sorted(path.name for path in place.iterdir())
            more = f" and {len(names) - 5} more" if len(names) > 5 else ""
            words.append(f"{place} holds {', '.join(names[:5]) or 'nothing'}{more}")
    return "; ".join(words) or "none of the folders searched exists"


def content(path, most):
    """What is in a file; DataError where that is more than `most` bytes, before it is read."""
    try:
        size = path.stat().st_size
        if size > most:
            raise DataError(f"{path}: {size} bytes, expected at most {most}")
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error


def download(url, most):
    """The whole content behind an address; DataError where it cannot be had whole."""
    received = bytearray()
    try:
        with urllib.request.urlopen(url, timeout=60) as reply:
            expected = reply.length
            with tqdm(total=expected, unit="B", unit_scale=True, desc=url) as bar:
                while chunk := reply.read(1 << 16):
                    received += chunk
                    bar.update(len(chunk))
                    if len(received) > most:
                        raise DataError(f"{url}: more than {most} bytes; nothing was kept")
    except (OSError, http.client.HTTPException) as error:
        raise DataError(f"cannot download {url}: {error}") from error
    if expected is not None and len(received) != expected:
        raise DataError(f"{url}: broke off after {len(received)} of {expected} bytes; try again")
    return bytes(received)


def write(path, whole):
    """Write a file, in full or not at all, and its folder; DataError where that cannot be done."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        system.write_atomically(path, whole)
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror or error}") from error
