"""Runs one notebook of somebody else, in a process of its own; started by `grade`.

    python -m genbook.lab.assignments.execute NOTEBOOK STATUS BYTES_OF_OUTPUT BYTES_OF_MEMORY

Overwrites NOTEBOOK with its outputs. STATUS tells, as JSON, which cell is being run, and at the
end why the notebook was given up, or nothing. Who started it sees to the time.
"""

import ctypes
import json
import os
import resource
import sys
from pathlib import Path

import nbformat
import psutil
from nbclient import NotebookClient
from nbclient.exceptions import CellTimeoutError, DeadKernelError

FORBIDDEN = "import sys; sys.modules['genbook'] = None"  # it holds the solutions


class Client(NotebookClient):
    """Runs a notebook, keeps track of the cell, and gives up where it prints too much."""

    def __init__(self, notebook, status, most_output):
        super().__init__(
            notebook,
            timeout=None,
            allow_errors=True,
            kernel_name="python3",
            extra_arguments=[f"--InteractiveShellApp.exec_lines={FORBIDDEN}"],
        )
        self.status, self.most_output, self.printed = status, most_output, 0
        self.on_cell_start = lambda cell, cell_index: self._tell(cell=cell_index)

    def process_message(self, msg, cell, cell_index):
        if msg["header"]["msg_type"] in ("stream", "display_data", "execute_result", "error"):
            self.printed += len(str(msg["content"]))
            if self.printed > self.most_output:
                self.give_up(f"it put out more than {self.most_output / 1e6:g} MB")
        return super().process_message(msg, cell, cell_index)

    def _tell(self, **status):
        self.status.write_text(json.dumps(status), encoding="utf-8")

    def give_up(self, reason):
        """End this process, with the reason."""
        self._tell(reason=reason)
        _end_children()
        os._exit(0)


def main(notebook, status, most_output, most_memory):
    _adopt_orphans()
    resource.setrlimit(resource.RLIMIT_AS, (most_memory, most_memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    content = nbformat.read(notebook, as_version=4)
    client = Client(content, Path(status), most_output)
    try:
        client.execute()
    except (DeadKernelError, CellTimeoutError) as error:
        client.give_up(
            f"its Python process died ({error or type(error).__name__}); did it use "
            f"more than {most_memory / 1e9:g} GB?"
        )
    except MemoryError:
        client.give_up(f"it used more than {most_memory / 1e9:g} GB")
    finally:
        _end_children()
    nbformat.write(content, notebook)
    client._tell(reason=None)


def _adopt_orphans():
    """Become the parent of every process that is left behind, so that it can be ended."""
    if sys.platform == "linux":
        pr_set_child_subreaper = 36  # the name in sys/prctl.h
        ctypes.CDLL(None).prctl(pr_set_child_subreaper, 1, 0, 0, 0)


def _end_children():
    for process in psutil.Process().children(recursive=True):
        try:
            process.kill()
        except psutil.NoSuchProcess:
            pass


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
