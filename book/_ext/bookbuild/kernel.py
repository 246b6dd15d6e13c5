"""One page in one kernel."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from time import monotonic, sleep

from jupyter_client.kernelspec import KernelSpecManager
from nbclient import NotebookClient

# The page's own failure is reported by `execute`; nbclient would report it a second time.
SILENT = logging.getLogger("bookbuild.nbclient")
SILENT.disabled = True


def list_fonts(build: Path) -> None:
    """Have matplotlib list the machine's fonts, once, before any page draws.

    It does so on first use, takes its time, and says so on the page.
    """
    folder = build / "matplotlib"
    if not any(folder.glob("fontlist-*.json")):
        subprocess.run(
            [sys.executable, "-c", "import matplotlib.font_manager"],
            check=True,
            env={**os.environ, "MPLCONFIGDIR": str(folder)},
            stderr=subprocess.DEVNULL,
        )


def first_lines() -> list[str]:
    """What a kernel runs before the page: the engine, and for GENBOOK_SEED other random numbers."""
    lines = ["__import__('genbook.accelerate').accelerate.enable()"]
    if seed := int(os.environ.get("GENBOOK_SEED", 0)):
        lines.append(
            f"__import__('genbook.publishing.claims').publishing.claims.shift_seeds({seed})"
        )
    return lines


class Stopped(Exception):
    """The build stops, and with it this page."""


class Page:
    """A page to execute: its notebook, its kernel, and how far it has come."""

    def __init__(self, docname: str, path: Path, nb, build: Path):
        self.docname = docname
        self.nb = nb
        self.seconds = 0.0
        self.peak_memory = None  # in bytes; None if the system does not report it
        self.cell = 0
        self.queues = False  # for a core, before its next cell; the executor ends it
        self.progress = build / "progress" / f"{docname.replace('/', '-')}.log"
        self.output = self.progress.with_suffix(".out")
        self._path, self._build = path, build
        self._started = monotonic()
        self._stopped = False
        self._cell_start = 0  # where in the progress log the current cell's lines begin
        self.progress.parent.mkdir(parents=True, exist_ok=True)
        self.progress.write_text("")
        self._client = NotebookClient(
            nb,
            log=SILENT,
            record_timing=False,
            shutdown_kernel="immediate",
            # On a busy machine a figure may come late; better an error than a missing figure.
            iopub_timeout=60,
            raise_on_iopub_timeout=True,
            on_cell_start=self._on_cell_start,
            on_cell_executed=self._on_cell_executed,
            extra_arguments=[
                "--IPKernelApp.log_level=ERROR",
                # The pages say nothing of it: what they show holds with Paddle as it comes, too.
                *(f"--IPKernelApp.exec_lines={line}" for line in first_lines()),
            ],
        )

    def run(self) -> None:
        """Execute every cell, in place. Raises what the first failing cell raises."""
        self._started = monotonic()
        # With no folder to search there is one kernel to find: the Python that runs the build,
        # whatever kernels of that name the reader has installed elsewhere.
        manager = self._client.create_kernel_manager()
        manager.kernel_spec_manager = KernelSpecManager(kernel_dirs=[])
        with self.output.open("wb") as output:
            self._client.execute(
                cwd=str(self._path.parent), env=self._environment(), stdout=output, stderr=output
            )
        self.seconds = self.elapsed()

    def stop(self) -> None:
        """End the page at once: its kernel dies, with all processes the kernel started."""
        self._stopped = True
        kernel = getattr(self._client.km, "provisioner", None)
        if kernel is not None and kernel.pid:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(kernel.pid, signal.SIGKILL)

    def elapsed(self) -> float:
        """The seconds since the page started."""
        return monotonic() - self._started

    def line(self) -> int:
        """The line of the page on which the current cell begins."""
        return self.nb.metadata["source_map"][self.cell] + 1

    def training(self) -> str:
        """How far the training of the current cell is, in its own words; empty if none runs."""
        return "waiting for a core" if self.queues else next(reversed(self._said()), "")

    def waits(self) -> bool:
        """Whether the page waits, for a training that another page is busy with or for a core."""
        return self.training().startswith("waiting")

    def _said(self) -> list[str]:
        """What the current cell has said so far of how its trainings go."""
        with self.progress.open("rb") as log:
            log.seek(self._cell_start)
            lines = re.split(r"[\r\n]", log.read().decode(errors="replace"))
        return [line.strip() for line in lines if line.strip()]

    def _on_cell_start(self, cell, cell_index):
        while self.queues and not self._stopped:
            sleep(0.1)
        if self._stopped:
            raise Stopped
        self.cell = cell_index
        self._cell_start = self.progress.stat().st_size

    def _on_cell_executed(self, cell, cell_index, execute_reply):
        # While the cell waited for a training, another page took the core.
        self.queues = any(line.startswith("waiting") for line in self._said())
        status = Path(f"/proc/{self._client.km.provisioner.pid}/status")
        if status.is_file():  # on Linux
            kilobytes = re.search(r"^VmHWM:\s*(\d+) kB", status.read_text(), re.M)
            self.peak_memory = int(kilobytes[1]) * 1024 if kilobytes else None

    def _environment(self) -> dict[str, str]:
        """The kernel's environment: folders for runs, progress and settings, and one core."""
        one_core = dict.fromkeys(
            ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"
        )
        # Not the user's own profile, which may run code at the start; nor has every user a home.
        folders = ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR")
        return {
            **os.environ,
            **one_core,
            **dict.fromkeys(folders, str(self._build / "jupyter")),
            "GENBOOK_RUNS": str(self._build / "runs"),
            "GENBOOK_PROGRESS": str(self.progress),
            "MPLCONFIGDIR": str(self._build / "matplotlib"),
            "PYTHONFAULTHANDLER": "1",  # a crash says where
            "PYTHONHASHSEED": "0",
            "PYTHONUTF8": "1",  # whatever the locale: the pages speak of 零
            # Paddle says the first at every import, matplotlib the second on a busy machine.
            "PYTHONWARNINGS": "ignore:No ccache found,ignore:Creating legend with loc",
        }
