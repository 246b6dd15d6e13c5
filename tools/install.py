"""Install a lock and this package into a virtual environment: what `make` does first.

    python3 tools/install.py [folder [lock]]

The folder is .venv and the lock requirements.txt unless others are named. Needs Python alone.
An installation that was cut off is never completed, because pip takes a package for installed
once its folder is there: the next call starts from an empty folder. Two calls at once take turns.
"""

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Each lock with those that it contains: requirements-dev.txt has the packages of the other, too.
LOCKS = {
    "requirements.txt": ["requirements.txt"],
    "requirements-dev.txt": ["requirements.txt", "requirements-dev.txt"],
}


def main(venv, lock):
    """Make sure that `venv` holds what `lock` lists; return an exit code."""
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
            if not (stamp.exists() and digest(lock) in stamp.read_text("utf-8").split()):
                install(venv, stamp, lock)
    except OSError as error:
        print(f"cannot install into {venv}: {error}", file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as error:
        print(f"The installation failed: {' '.join(error.cmd[1:4])}", file=sys.stderr)
        return 1
    return 0


def digest(lock):
    """The hash of all that an installation of `lock` depends on.

    By content, not by time: a lock that was made anew and came out the same installs nothing.
    """
    package = (ROOT / "pyproject.toml").read_bytes()
    return hashlib.sha256(package + (ROOT / lock).read_bytes()).hexdigest()


def install(venv, stamp, lock):
    """Install everything; the stamp, with the hashes of what is there, comes last."""
    print(f"Installing {lock} into {venv.name}: minutes, up to 2 GB.", flush=True)
    if not stamp.exists():
        shutil.rmtree(venv, ignore_errors=True)
    stamp.unlink(missing_ok=True)
    run([sys.executable, "-m", "venv", str(venv)])
    python = venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    run([*pip, "--require-hashes", "-r", str(ROOT / lock)])
    run([*pip, "--no-deps", "--no-build-isolation", "-e", str(ROOT)])
    stamp.write_text("\n".join(map(digest, LOCKS[lock])), "utf-8")


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
    folder, lock = [*sys.argv[1:], *(".venv", "requirements.txt")[len(sys.argv) - 1 :]]
    sys.exit(main(Path(folder).absolute(), lock))
