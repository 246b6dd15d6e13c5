"""What every case of a fuzz test is held to: time, memory, and the folder it may write into."""

import contextlib
import faulthandler
import os
import sys

import pytest
from hypothesis import HealthCheck, settings

try:
    import resource
except ImportError:  # Windows
    resource = None

SECONDS = 60  # of one case; a busy machine may need thousands of times what a case takes
MEMORY = 2**28  # bytes that one case may add to the process

_common = {"deadline": None, "suppress_health_check": list(HealthCheck)}
settings.register_profile("short", **_common, max_examples=40, derandomize=True, database=None)
settings.register_profile(
    "fuzz", **_common, max_examples=int(os.environ.get("CASES") or 10_000), print_blob=True
)
settings.load_profile("short")  # make fuzz asks for the other

_watched = None  # the folder that the present case may write into
_offences = []  # what it did beside that


def _watch(event, arguments):
    """The interpreter's report of what it is about to do (PEP 578)."""
    if _watched is None:
        return
    if event == "open":
        path, mode, flags = arguments
        writes = set(mode or "") & set("wax+") or flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if writes and not _inside(path):
            _offences.append(f"wrote {path}")
    elif event in ("os.rename", "os.mkdir", "os.link", "os.symlink"):
        target = arguments[0 if event == "os.mkdir" else 1]
        if not _inside(target):
            _offences.append(f"{event} {target}")
    elif event in (
        "subprocess.Popen",
        "os.system",
        "os.exec",
        "os.posix_spawn",
        "os.fork",
        "pickle.find_class",
        "socket.connect",
    ):
        _offences.append(f"{event} {arguments}")


def _inside(path):
    if isinstance(path, int) or path == os.devnull:
        return True
    path = os.path.realpath(os.path.abspath(os.fsdecode(path)))
    return path.startswith(_watched + os.sep)


sys.addaudithook(_watch)


def _memory():
    """The most that this process ever held, in bytes."""
    if resource is None:
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


@pytest.fixture
def watched(tmp_path):
    """A context for one case: it must end, stay small, and leave alone all but `tmp_path`."""

    @contextlib.contextmanager
    def watch():
        global _watched
        before = _memory()
        faulthandler.dump_traceback_later(SECONDS, exit=True)
        _offences.clear()
        _watched = os.path.realpath(tmp_path)
        try:
            yield
        finally:
            _watched = None
            faulthandler.cancel_dump_traceback_later()
        assert not _offences
        assert _memory() - before < MEMORY

    return watch
