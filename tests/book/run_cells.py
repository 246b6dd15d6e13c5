"""Runs the cells of some notebooks, each in a process of its own, and tells what they print.

    run_cells.py alone|package STEPS_SCALE FILE

FILE holds {"name": [cell, ...]} and is replaced by {"name": [what the cell printed, ...]}.
`alone`: as they are, where there is no genbook. `package`: with genbook, whose trainings are
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


# Shorter in both: the numbers of samples that are judged, and of images that are distorted.
SHORTER = {r"^n = 1000$": "n = 100", r"^ENOUGH = 15_000": "ENOUGH = 3_000"}


def shrink(network):
    """Have a U-Net be narrow, whatever width is asked for: sampling is what takes long."""
    init = network.__init__

    def narrow(self, *args, **kwargs):
        given = inspect.signature(init).bind(self, *args, **kwargs)
        init(**{**given.arguments, "width": 8})

    network.__init__ = narrow


def be_less_strict(legibility):
    """Have legibility ask for less: a judge that was hardly trained is never sure."""
    legibility.__defaults__ = (0.2,)


CHANGES = {"UNet": shrink, "legibility": be_less_strict}


def change_package(scale):
    """The same in genbook, which trains for a part of the steps. Nothing is accelerated."""
    from genbook import unet
    from genbook.data import augmentation as augment
    from genbook.evaluation import metrics
    from genbook.training import loop as train

    fit = train.fit
    train.fit = lambda *args, steps, **kw: fit(*args, steps=max(1, round(steps * scale)), **kw)
    augment.ENOUGH = 3_000
    shrink(unet.UNet)
    be_less_strict(metrics.legibility)


def run(mode, scale, cells):
    """What each of the cells prints."""
    if mode == "package":
        change_package(float(scale))
    namespace, compiler, printed = {"__name__": "__main__"}, codeop.Compile(), []
    for cell in cells:
        for pattern, shorter in SHORTER.items():
            cell = re.sub(pattern, shorter, cell, flags=re.M)
        out, before = io.StringIO(), dict(namespace)
        try:
            with contextlib.redirect_stdout(out):
                exec(compiler(cell, "<cell>", "exec"), namespace)
        except Exception:
            return [*printed, f"{traceback.format_exc()}\n{cell}"]
        for name, change in CHANGES.items():
            if mode == "alone" and namespace.get(name) is not before.get(name):
                change(namespace[name])
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
