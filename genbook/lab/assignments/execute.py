"""Runs one notebook of somebody else, in a process of its own; started by `isolated`.

    python -I execute.py NOTEBOOK SECONDS BYTES_OF_OUTPUT BYTES_OF_MEMORY

Overwrites NOTEBOOK with its outputs. Its metadata, genbook.reason, says why it was given up, or
is None.
"""

import contextlib
import ctypes
import os
import resource
import signal
import sys

import nbformat
import psutil
from nbclient import NotebookClient
from nbclient.exceptions import DeadKernelError

FORBIDDEN = "import sys; sys.modules['genbook'] = None"  # it holds the solutions


class Client(NotebookClient):
    """Runs a notebook without limit of time, and gives up where it prints too much."""

    def __init__(self, path, most_output):
        super().__init__(
            nbformat.read(path, as_version=4),
            timeout=None,
            allow_errors=True,
            kernel_name="python3",
            extra_arguments=[f"--InteractiveShellApp.exec_lines={FORBIDDEN}"],
        )
        self.path, self.most_output, self.printed, self.cell = path, most_output, 0, None
        self.on_cell_start = self._note

    def _note(self, cell, cell_index):
        self.cell = cell

    def process_message(self, msg, cell, cell_index):
        if msg["header"]["msg_type"] in ("stream", "display_data", "execute_result", "error"):
            self.printed += len(str(msg["content"]))
            if self.printed > self.most_output:
                self.finish(f"it put out more than {self.most_output / 1e6:g} MB")
        return super().process_message(msg, cell, cell_index)

    def finish(self, reason=None):
        """Write the notebook, with the reason why it was given up, and end this process."""
        end_descendants(os.getpid())
        if reason and self.cell:
            mark = self.cell.metadata.get("nbgrader", {})
            reason += f" (in the cell: {mark.get('grade_id', 'added by the student')})"
        self.nb.metadata["genbook"] = {"reason": reason}
        nbformat.write(self.nb, self.path)
        os._exit(0)


def main(path, seconds, most_output, most_memory):
    _adopt_orphans()
    resource.setrlimit(resource.RLIMIT_AS, (most_memory, most_memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    client = Client(path, most_output)
    os.remove(path)  # it shows the hidden tests
    late = f"it did not end within {seconds:g} s"
    signal.signal(signal.SIGALRM, lambda *_: client.finish(late))
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        client.execute()
    except (DeadKernelError, MemoryError):
        most = f"{most_memory / 1e9:g} GB"
        client.finish(f"its Python process died; did it use more than {most}?")
    client.finish()


def _adopt_orphans():
    """Become the parent of every process that is left behind, so that it can be ended."""
    if sys.platform == "linux":
        pr_set_child_subreaper = 36  # the name in sys/prctl.h
        ctypes.CDLL(None).prctl(pr_set_child_subreaper, 1, 0, 0, 0)


def end_descendants(pid):
    """End all that a process has started."""
    for _ in range(100):  # while they are ended, they can start others
        children = psutil.Process(pid).children(recursive=True)
        if not children:
            return
        for child in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
        psutil.wait_procs(children, timeout=0.1)


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
