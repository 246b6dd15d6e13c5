"""The step of nbgrader's autograder that runs a notebook, in a process with limits."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import nbformat
from nbgrader.preprocessors import NbGraderPreprocessor
from nbgrader.utils import is_grade, is_solution
from traitlets import Float, Int

from . import execute

KEPT = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH")  # of the environment
GRACE = 30  # seconds in which a notebook whose time is up is ended and written


class Isolated(NbGraderPreprocessor):
    """Runs the notebook; where that fails, or is not to be tried, no test in it has passed.

    The reason is in the notebook's metadata, genbook.reason. It is there beforehand where the
    notebook is not to be run.
    """

    seconds = Float(300.0, help="limit of the time of a notebook").tag(config=True)
    memory = Int(4 * 10**9, help="limit of its memory in bytes").tag(config=True)
    output = Int(10 * 10**6, help="limit of its output in characters").tag(config=True)

    def preprocess(self, nb, resources):
        if "genbook" not in nb.metadata:
            nb = run(nb, self.seconds, self.memory, self.output)
        reason = nb.metadata["genbook"]["reason"]
        for cell in filter(_is_test, nb.cells):
            if reason:
                cell.outputs = [_error("NotGraded", reason)]
                continue
            # Paddle's warnings are no mistakes of the student.
            cell.outputs = [o for o in cell.outputs if o.get("name") != "stderr"]
            kinds = {output.output_type for output in cell.outputs}
            if not kinds & {"error", "execute_result"}:
                cell.outputs.append(_error("NotGraded", "this test did not come to its end"))
        return nb, resources


def run(nb, seconds, memory, output):
    """The notebook with its outputs, and with the reason why it was given up, or None.

    It runs in an empty folder, in an environment without the variables of this process.
    """
    with (
        tempfile.TemporaryDirectory(prefix="genbook-", ignore_cleanup_errors=True) as folder,
        tempfile.TemporaryFile() as log,
    ):
        path = Path(folder, "notebook.ipynb")
        nbformat.write(nb, path)
        env = {name: os.environ[name] for name in KEPT if name in os.environ}
        env |= {"HOME": folder, "TMPDIR": folder, "OMP_NUM_THREADS": "1", "GLOG_minloglevel": "2",
                "PYTHONIOENCODING": "utf-8"}  # fmt: skip
        limits = [str(limit) for limit in (seconds, output, memory)]
        process = subprocess.Popen(
            [sys.executable, "-I", execute.__file__, path, *limits],
            cwd=folder,
            env=env,
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        reason = f"it did not end within {seconds:g} s"
        try:
            if process.wait(seconds + GRACE) == 0:
                return nbformat.read(path, as_version=4)
            log.seek(0)
            last = log.read().decode(errors="replace").strip().splitlines()[-1:]
            reason = f"the process that ran it died: {' '.join(last)[:200]}"
        except subprocess.TimeoutExpired:
            pass
        finally:
            if process.poll() is None:
                execute.end_descendants(process.pid)
                process.kill()
                process.wait()
    nb.metadata["genbook"] = {"reason": reason}
    return nb


def _is_test(cell):
    return cell.cell_type == "code" and is_grade(cell) and not is_solution(cell)


def _error(name, words):
    return nbformat.v4.new_output("error", ename=name, evalue=words, traceback=[f"{name}: {words}"])
