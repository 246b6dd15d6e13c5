"""Training by several processes, on this machine or on many.

`launch` has `paddle.distributed.launch` start the processes; each runs this module and becomes a
rank (see `ranks`) of the training. Each computes the gradient of its shard of the batch on one core
or one GPU; gloo, or NCCL between GPUs, sums them up.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import paddle

from genbook import accelerate, system
from genbook.data import DataError
from genbook.training.checkpoint import CheckpointError
from genbook.training.loop import TrainingError
from genbook.training.ranks import LostRankError
from genbook.training.spec import TrainingSpec

ROOT = Path(__file__).resolve().parents[2]  # of the package


class LaunchError(RuntimeError):
    """A training by several processes that failed; the message is for the terminal."""


def launch(spec, nproc=1, nnodes=1, master=None):
    """Run the training `spec` (a TrainingSpec) by `nproc` processes on each of `nnodes` machines.

    master: "HOST:PORT" of the first machine, for more than one; run the same on each of them. Only
    the first process writes. One process alone is this one; several are started, their progress is
    shown on stderr, and Ctrl-C has them write a checkpoint and end.

    Returns the model's file, or None on a machine on which it was not written.
    Raises ValueError for numbers that cannot work, before anything is started; LaunchError with the
    message of the process that failed first.
    """
    require_possible(nproc, nnodes, master)
    if nproc * nnodes == 1:
        return spec.train()
    spec.load_data()  # downloads them once, and raises what is wrong with them once
    with tempfile.TemporaryDirectory(prefix="genbook-") as logs:
        _run_all(spec, Path(logs), nproc, nnodes, master)
    file = Path(spec.out) / "model.safetensors"
    return file if file.exists() else None


def require_possible(nproc, nnodes=1, master=None):
    """Raise ValueError where so many processes cannot run here."""
    if nproc < 1 or nnodes < 1:
        raise ValueError(f"there must be at least 1 process on 1 machine, got {nproc} on {nnodes}")
    if nnodes > 1 and master is None:
        raise ValueError(f"{nnodes} machines need a master, the HOST:PORT where they meet")
    if nnodes == 1 and master is not None:
        raise ValueError("a master is for more than one machine: say how many (nnodes)")
    if master is not None:
        host, _, port = master.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
            raise ValueError(f"master must be HOST:PORT, got {master!r}")
    if nproc > 1:
        count, kind = devices()
        if nproc > count:
            raise ValueError(f"{nproc} processes are too many for {count} {kind}")


def devices():
    """How many processes this machine can run side by side, and what of: "GPUs" or "cores"."""
    if paddle.is_compiled_with_cuda() and paddle.device.cuda.device_count():
        return paddle.device.cuda.device_count(), "GPUs"
    return system.cores(), "cores"


def _run_all(spec, logs, nproc, nnodes, master):
    """Start the processes and wait for them, showing their progress."""
    text = json.dumps(dataclasses.asdict(spec))
    work = [sys.executable, "-m", "genbook.training.launch", text]
    command = [*_launcher(logs, nproc, nnodes, master), *work]
    (logs / "progress").touch()
    with (logs / "launch").open("wb") as output:
        # Its own session, so that Ctrl-C reaches this process alone. When this one ends, in
        # whatever way, the pipe closes, and each of the others notices.
        process = subprocess.Popen(
            command,
            env=_environment(logs, nnodes),
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        try:
            _show_progress(logs / "progress", process)
        except BaseException:
            process.stdin.close()  # type: ignore[union-attr]
            process.wait()
            raise KeyboardInterrupt(*_last_words(logs, nproc)[:1]) from None
    if process.returncode:
        raise LaunchError(_failure(logs, nproc))


def _launcher(logs, nproc, nnodes=1, master=None):
    """What starts, on each machine, `nproc` processes of the command that is put after it."""
    if nnodes > 1:
        meet = ["--nnodes", str(nnodes), "--master", master]
    else:
        meet = ["--ips", "127.0.0.1", "--start_port", str(_free_port())]
    launch = [sys.executable, "-m", "paddle.distributed.launch", "--log_level", "CRITICAL"]
    return [*launch, "--log_dir", str(logs), "--nproc_per_node", str(nproc), *meet]


def _environment(logs, nnodes):
    """The variables of the processes: one core each, where to report, this machine alone."""
    environment = {
        **os.environ,
        **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
        "GENBOOK_PROGRESS": str(logs / "progress"),
        "GENBOOK_LOGS": str(logs),
        "GLOG_minloglevel": "2",
        "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
        "PYTHONWARNINGS": "ignore",
    }
    if nnodes == 1:
        # What a cluster has set up for other programs would lead elsewhere.
        for name in [*environment]:
            if name.startswith("PADDLE_") or name in ("MASTER_ADDR", "MASTER_PORT", "POD_IP"):
                del environment[name]
        if sys.platform == "linux":
            environment["GLOO_SOCKET_IFNAME"] = "lo"
    return environment


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _show_progress(path, process):
    """Copy what is written to `path` to stderr, until the process ends."""
    last = "\n"
    with path.open("rb") as progress:
        running = True
        while running:
            running = process.poll() is None
            text = progress.read().decode(errors="replace")
            sys.stderr.write(text)
            sys.stderr.flush()
            last = text[-1:] or last
            time.sleep(0.1)
    if last != "\n":
        sys.stderr.write("\n")


def _last_words(logs, nproc):
    """What the processes said when they ended, the same thing once."""
    files = (logs / f"error.{rank}" for rank in range(nproc))
    said = [file.read_text(encoding="utf-8") for file in files if file.exists()]
    return list(dict.fromkeys(filter(None, said)))


def _failure(logs, nproc):
    """Why the processes failed, in one line; a traceback goes to the terminal before that."""
    said = _last_words(logs, nproc)
    if said:
        return said[0]
    for number in range(nproc):
        log = logs / f"workerlog.{number}"
        text = log.read_text(encoding="utf-8", errors="replace").strip() if log.exists() else ""
        if text:
            print(text[-4000:], file=sys.stderr)
            return f"process {number} failed"
        if not (logs / f"error.{number}").exists() and log.exists():
            return f"process {number} was killed; is there too little memory?"
    return (logs / "launch").read_text(errors="replace").strip()[-1000:] or "no process started"


def main():
    """Be one rank of the training that the first argument specifies, as JSON."""
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    code, words = 0, None
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # Paddle tells about its flags
            paddle.distributed.init_parallel_env()
        accelerate.enable()
        TrainingSpec(**json.loads(sys.argv[1])).train()
    except KeyboardInterrupt as stop:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # another rank may have ended already
        code, words = 130, str(stop)
    except LostRankError:  # the other one has a reason to tell
        code, words = 1, ""
    except (ValueError, OSError, CheckpointError, DataError, TrainingError) as error:
        code, words = 1, str(error)
    if words is not None:
        number = os.environ.get("PADDLE_LOCAL_RANK", "0")
        Path(os.environ["GENBOOK_LOGS"], f"error.{number}").write_text(words, encoding="utf-8")
    sys.stdout.flush()
    os._exit(code)  # Paddle would wait for the other ranks, which may be gone


def _end_with_the_parent():
    """Ask this process to stop when the one that launched it has ended."""
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
