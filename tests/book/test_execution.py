"""How pages run: side by side, in the build's own Python, and never failing unseen."""

import json
import os
import signal
import sys
import time

import pytest


def cell(code):
    return f"```{{code-cell}} python3\n{code}\n```\n"


HANGS = 600  # seconds; no busy machine takes as long


def wait_for(condition):
    end = time.monotonic() + HANGS
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{pid}/stat") as stat:
        return stat.read().rsplit(")")[-1].split()[0] != "Z"


def test_a_failing_cell_fails_the_build_every_time(book):
    book.page("bad", "Text.\n\n" + cell("print('before')\n1 / 0"))
    for options in ((), ("-q",)):
        build = book.build(*options)
        assert build.code == 1
        assert "book/bad.md:10: a cell failed" in build.err
        assert "ZeroDivisionError: division by zero" in build.err
        assert "\x1b[" not in build.err.split("a cell failed")[1]
    book.page("bad", "Text.\n\n" + cell("print('before')"))
    assert book.build().ran() == {"bad"}


def test_a_broken_module_is_reported_as_python_reports_it(book):
    book.write("genbook/broken.py", "x = (\n")
    book.page("a", cell("from genbook import broken"))
    build = book.build()
    assert build.code == 1
    assert "SyntaxError: '(' was never closed" in build.err


def test_a_page_whose_kernel_dies_fails_the_build(book):
    book.page("a", cell("import os\nos.abort()"))
    build = book.build()
    assert build.code == 1
    assert "book/a.md:8: a cell failed" in build.err
    assert "DeadKernelError" in build.err


def test_a_result_of_code_that_changed_meanwhile_is_not_kept(book):
    book.write("genbook/moving.py", "x = 1\n")
    book.page(
        "a",
        cell(
            "from genbook.moving import x\n"
            "if x == 1: open('../genbook/moving.py', 'w').write('x = 2')"
        ),
    )
    build = book.build()
    assert build.code == 1
    assert "edited while this page ran" in build.err
    assert book.build().ran() == {"a"}


def test_a_page_that_warns_is_not_kept(book):
    once = (
        "import os, sys\nif not os.path.exists('seen'):\n"
        "    open('seen', 'w').close()\n    print('a passing trouble', file=sys.stderr)"
    )
    book.page("a", cell(once))
    build = book.build()
    assert build.code == 1
    assert "a passing trouble" in build.err
    assert book.build().ran() == {"a"}


def test_trainings_that_nobody_uses_are_forgotten(book):
    runs = book.root / "_build/runs"
    runs.mkdir(parents=True)
    for name, days in {"old": 40, "new": 3}.items():
        (runs / f"{name}.safetensors").write_bytes(b"weights")
        then = time.time() - days * 86_400
        os.utime(runs / f"{name}.safetensors", (then, then))
    book.page("a", cell("print(1)"))
    assert book.build().ran() == {"a"}
    assert [path.name for path in runs.iterdir()] == ["new.safetensors"]


def wait_until_build_says(book, words):
    """Code for a page: it waits until the build that runs it has said this on stderr."""
    said = f"open({str(book.said('err'))!r}).read()"
    return f"import time\nwhile {words!r} not in {said}: time.sleep(.1)\n"


def test_pages_that_finished_before_a_failure_are_kept(book):
    book.page("good", cell("print(1)"))
    book.page("bad", cell(wait_until_build_says(book, "book/good: done") + "1 / 0"))
    assert book.build().code == 1
    book.page("bad", cell("print('mended')"))
    assert book.build().ran() == {"bad"}


def test_a_warning_fails_the_second_build_too(book):
    book.page("a", "See {ref}`nowhere`.\n")
    assert book.build().code == 1
    build = book.build()
    assert build.code == 1
    assert "nowhere" in build.err


def test_a_picture_needs_words(book):
    draw = "import matplotlib.pyplot as plt\nplt.plot([1, 2]);"
    book.page("a", cell(draw))
    build = book.build()
    assert build.code == 1
    assert "without an alternative text" in build.err
    assert "without a caption" in build.err
    words = (
        "---\nmystnb: {image: {alt: A line.}, figure: {name: fig-line, caption: A line.}}\n---\n"
    )
    book.page("a", cell(words + draw) + "\nSee {numref}`fig-line`.\n")
    assert book.build().ran() == set()
    assert "Fig. 1.1" in book.html("a")


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs two cores")
def test_two_pages_run_side_by_side(book):
    meet = (
        "import os, time\nopen('{me}', 'w').close()\nend = time.time() + 300\n"
        "while not os.path.exists('{other}'):\n"
        "    assert time.time() < end\n    time.sleep(.1)"
    )
    book.page("a", cell(meet.format(me="a.txt", other="b.txt")))
    book.page("b", cell(meet.format(me="b.txt", other="a.txt")))
    assert book.build().ran() == {"a", "b"}


@pytest.mark.skipif((os.cpu_count() or 1) != 2, reason="counts on two cores")
def test_a_page_that_waits_for_a_training_leaves_its_core_and_queues_for_one(book):
    """Page c waits for b, which takes its core while d has the other; c goes on when b is done."""
    until = "end = time.time() + {s}\nwhile not os.path.exists({file!r}) and time.time() < end:\n"
    until = f"import os, time\n{until}    time.sleep(.1)\n"
    waiting = (
        "import os\nwith open(os.environ['GENBOOK_PROGRESS'], 'a') as log:\n"
        "    print('waiting: another process is training it', file=log)\n"
    )
    told = "open({!r}, 'w').close()\n"
    b = told.format("trained") + until.format(file="went-on", s=5) + told.format("done")
    c = waiting + until.format(file="trained", s=300) + "assert os.path.exists('trained')"
    book.page("b", cell(b))
    book.page("c", cell(c) + cell(told.format("went-on") + "assert os.path.exists('done')"))
    book.page("d", cell(until.format(file="done", s=300) + "assert os.path.exists('done')"))
    assert book.build().ran() == {"b", "c", "d"}


def test_the_kernel_is_the_builds_own_python(book, tmp_path):
    spec = {"argv": ["/bin/false", "{connection_file}"], "display_name": "x", "language": "python"}
    for folder in (book.root / ".local/share/jupyter", tmp_path / "elsewhere"):
        (folder / "kernels/python3").mkdir(parents=True)
        (folder / "kernels/python3/kernel.json").write_text(json.dumps(spec))
    book.env["JUPYTER_PATH"] = str(tmp_path / "elsewhere")
    book.page("a", cell("import os, sys\nprint(sys.prefix, os.environ['OMP_NUM_THREADS'])"))
    assert book.build().ran() == {"a"}
    assert f"{sys.prefix} 1" in book.html("a")


def test_the_build_shows_how_far_a_training_is(book):
    progress = (book.root / "book/_ext/bookbuild/progress.py").read_text("utf-8")
    book.write("book/_ext/bookbuild/progress.py", f"{progress}\n\nEVERY = 0\n")
    code = (
        "import os\nwith open(os.environ['GENBOOK_PROGRESS'], 'a') as log:\n"
        "    log.write('\\rvae:  10%|#   | 1/10\\rvae:  70%|### | 7/10')\n"
    )
    said = ", vae:  70%|### | 7/10"
    book.page("a", cell(code + wait_until_build_says(book, said)))
    build = book.build()
    assert build.ran() == {"a"}
    assert "book/a: start" in build.err
    assert said in build.err
    assert "book/a: done in " in build.err


@pytest.mark.skipif(not os.path.isdir("/proc"), reason="needs /proc")
def test_an_interrupt_ends_every_kernel_quietly(book):
    book.page(
        "a",
        cell(
            "import os, time\nwith open('pid', 'w') as f: f.write(str(os.getpid()))\n"
            "time.sleep(10_000)"
        ),
    )
    build = book.start()
    pid = book.root / "book" / "pid"
    wait_for(lambda: pid.exists() and pid.read_text())
    build.send_signal(signal.SIGINT)
    out, err = build.communicate(timeout=HANGS)
    assert build.returncode == 130
    assert "Interrupted" in err
    assert "Traceback" not in out + err
    wait_for(lambda: not alive(int(pid.read_text())))
