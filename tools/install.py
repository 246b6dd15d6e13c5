"""Install the locked packages and this one into .venv: what `make` does before anything else.

    python3 tools/install.py [folder]

Needs Python alone. Whatever ends it midway, the next call begins anew: pip takes a package for
installed once its folder is there, so a half-made .venv is never completed. Two calls at once
take turns.
"""

import contextlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ASKED_FOR = (ROOT / "requirements.txt", ROOT / "pyproject.toml")


def main(venv):
    """Make `venv` what the lock says; return an exit code."""
    if not (3, 10) <= sys.version_info[:2] < (3, 14):
        print(
            "genbook needs Python 3.10 to 3.13; this is {}.{}. Name another: "
            "make PYTHON=/path/to/python3.11".format(*sys.version_info),
            file=sys.stderr,
        )
        return 1
    stamp = venv / ".installed"
    try:
        with locked(venv.with_name(f"{venv.name}.lock")):
            if not is_fresh(stamp):
                install(venv, stamp)
    except OSError as error:
        print(f"cannot install into {venv}: {error}", file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as error:
        print(f"The installation failed: {' '.join(error.cmd[1:4])}", file=sys.stderr)
        return 1
    return 0


def is_fresh(stamp):
    """Whether the last installation came to its end, and asked for what is asked for now."""
    return stamp.exists() and all(
        file.stat().st_mtime <= stamp.stat().st_mtime for file in ASKED_FOR
    )


def install(venv, stamp):
    """Install everything; the stamp is there after that, and only then."""
    print(f"Installing the locked packages into {venv.name}: about a minute, 1.5 GB.", flush=True)
    if not stamp.exists():
        shutil.rmtree(venv, ignore_errors=True)
    stamp.unlink(missing_ok=True)
    run([sys.executable, "-m", "venv", str(venv)])
    python = venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    # The lock is complete. To look for dependencies again would only ask for extras by other
    # names ("markdown-it-py[linkify]"), which pip doesn't find among the hashes.
    run([*pip, "--no-deps", "--require-hashes", "-r", str(ASKED_FOR[0])])
    run([*pip, "--no-deps", "--no-build-isolation", "-e", str(ROOT)])
    stamp.touch()


def run(command):
    """Run a command, which shares the lock: should it outlive this process, it still holds it."""
    subprocess.run(command, check=True, close_fds=False)


@contextlib.contextmanager
def locked(path):
    """Hold the lock at `path`, for which another process may have to end first."""
    with path.open("a") as file:
        if os.name == "nt":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_LOCK, 1)
        else:
            import fcntl

            os.set_inheritable(file.fileno(), True)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print("waiting: another process installs into the same folder", flush=True)
                fcntl.flock(file, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else ".venv").absolute()))
