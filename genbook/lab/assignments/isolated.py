"""The step of nbgrader's autograder that runs a notebook, in a process with limits."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import nbformat
import psutil
from nbgrader.preprocessors import NbGraderPreprocessor
from nbgrader.utils import is_grade, is_solution
from traitlets import Float, Int

EXECUTE = Path(__file__).with_name("execute.py")
KEPT = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH")  # of the environment


class Isolated(NbGraderPreprocessor):
    """Runs the notebook; where that fails, or is not to be tried, no test in it has passed.

    The reason stands in the notebook's metadata, genbook.reason. It is there beforehand where the
    notebook is not to be run.
    """

    seconds = Float(300.0, help="limit of the time of a notebook").tag(config=True)
    memory = Int(4 * 10**9, help="limit of its memory in bytes").tag(config=True)
    output = Int(10 * 10**6, help="limit of its output in characters").tag(config=True)

    def preprocess(self, nb, resources):
        reason = nb.metadata.setdefault("genbook", {}).get("reason")
        if not reason:
            ran, reason = run(nb, self.seconds, self.memory, self.output)
            nb = ran if not reason else nb
            nb.metadata["genbook"] = {"reason": reason}
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
    """The notebook with its outputs, and None; or None, and why it was given up.

    It runs in an empty folder, in an environment without the variables of this process.
    """
    with tempfile.TemporaryDirectory(prefix="genbook-", ignore_cleanup_errors=True) as folder:
        home = Path(folder)
        notebook, status = home / "notebook.ipynb", home / "status.json"
        nbformat.write(nb, notebook)
        env = {name: os.environ[name] for name in KEPT if name in os.environ}
        env |= {"HOME": folder, "TMPDIR": folder, "OMP_NUM_THREADS": "1", "GLOG_minloglevel": "2",
                "PYTHONIOENCODING": "utf-8"}  # fmt: skip
        command = [
            sys.executable,
            "-I",
            str(EXECUTE),
            str(notebook),
            str(status),
            str(output),
            str(memory),
        ]
        with open(home / "log", "wb") as log:
            process = subprocess.Popen(
                command,
                cwd=folder,
                env=env,
                start_new_session=True,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
            try:
                process.wait(seconds)
            except subprocess.TimeoutExpired:
                return None, f"it did not end within {seconds:g} s{_where(nb, _read(status))}"
            finally:
                _end(process)
        told = _read(status)
        if process.returncode or "reason" not in told:
            last = (home / "log").read_text(errors="replace").strip().splitlines()[-1:]
            return None, f"the process that ran it died{_where(nb, told)}: {' '.join(last)[:200]}"
        if told["reason"]:
            return None, str(told["reason"])[:300]
        ran = nbformat.read(notebook, as_version=4)
    if [c.source for c in ran.cells] != [c.source for c in nb.cells]:
        return None, "its cells changed while it ran"
    return ran, None


def _read(status):
    """What the runner has told; student's code could have written there, too."""
    try:
        told = json.loads(status.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}


def _where(nb, told):
    cell = told.get("cell")
    if not isinstance(cell, int) or not 0 <= cell < len(nb.cells):
        return ""
    name = nb.cells[cell].metadata.get("nbgrader", {}).get("grade_id", "added by the student")
    return f" (in the cell: {name})"


def _end(process):
    """End a process and all that it started."""
    try:
        family = psutil.Process(process.pid)
        while children := family.children(recursive=True):
            for child in children:
                try:
                    child.kill()
                except psutil.NoSuchProcess:
                    pass
            psutil.wait_procs(children, timeout=5)
            if not family.is_running() or family.status() == psutil.STATUS_ZOMBIE:
                break
        family.kill()
    except psutil.NoSuchProcess:
        pass
    process.wait()


def _is_test(cell):
    return cell.cell_type == "code" and is_grade(cell) and not is_solution(cell)


def _error(name, words):
    return nbformat.v4.new_output("error", ename=name, evalue=words, traceback=[f"{name}: {words}"])
