"""Runs the cells of some notebooks, each in a process of its own, and tells what they print.

    run_cells.py alone|package STEPS_SCALE FILE

FILE holds {"name": [cell, ...]} and is replaced by {"name": [what the cell printed, ...]}. `alone`: in the present folder, without genbook. `package`: with genbook, whose trainings are
scaled as STEPS_SCALE scales those of a notebook. Where a cell fails, its traceback stands last.
"""

import codeop
import contextlib
import inspect
import io
import json
import multiprocessing
import re
import sys
import traceback
import warnings
from pathlib import Path

warnings.filterwarnings("ignore")
import matplotlib  # noqa: E402
import paddle  # noqa: E402, F401
import scipy.spatial  # noqa: E402, F401
import sklearn.datasets  # noqa: E402, F401

matplotlib.use("agg")


def shrink(network):
    """Have a U-Net be narrow, whatever width is asked for: sampling is what takes long."""
    init = network.__init__

    def narrow(self, *args, **kwargs):
        given = inspect.signature(init).bind(self, *args, **kwargs)
        init(**{**given.arguments, "width": 8})

    network.__init__ = narrow


def scale_trainings(scale):
    """Have genbook train for a part of the steps, with Paddle's own convolutions."""
    from genbook import cpu, train, unet

    fit = train.fit
    train.fit = lambda *args, steps, **kwargs: fit(*args, steps=max(1, round(steps * scale)), **kwargs)
    cpu.use_onednn = lambda: None  # as in a notebook: the same numbers to the last bit
    shrink(unet.UNet)


def run(mode, scale, cells):
    """What each of the cells prints."""
    if mode == "alone":
        sys.modules["genbook"] = None
    else:
        scale_trainings(float(scale))
    namespace, compiler, printed = {"__name__": "__main__"}, codeop.Compile(), []
    for cell in cells:
        out = io.StringIO()
        known = namespace.get("UNet")
        try:
            with contextlib.redirect_stdout(out):
                exec(compiler(cell, "<cell>", "exec"), namespace)
        except Exception:
            return [*printed, f"{traceback.format_exc()}\n{cell}"]
        if mode == "alone" and namespace.get("UNet") is not known:
            shrink(namespace["UNet"])
        # A progress bar draws over itself with \r; only what is left at the end counts.
        printed.append(re.sub(r"[^\n]*\r", "", out.getvalue()))
    return printed


def main(mode, scale, file):
    """Run all; each process is forked here, in the main thread, where Paddle has been set up."""
    fork, printed = multiprocessing.get_context("fork"), {}
    for name, cells in json.loads(Path(file).read_text()).items():
        here, there = fork.Pipe()
        process = fork.Process(target=lambda: there.send(run(mode, scale, cells)))
        process.start()
        there.close()
        printed[name] = here.recv()
        process.join()
    Path(file).write_text(json.dumps(printed))


if __name__ == "__main__":
    main(*sys.argv[1:])
