"""The report on mutants counts what mutmut wrote."""

import importlib.util
import json
import subprocess
from pathlib import Path

import pytest

pytest.importorskip("mutmut", reason="mutmut has no edition for this system")
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def report():
    """The script, as a module."""
    spec = importlib.util.spec_from_file_location("report", Path(__file__).with_name("report.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write(folder, file, codes):
    """What mutmut keeps about the mutants of one file: an exit code for each."""
    path = folder / f"{file}.meta"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"exit_code_by_key": codes, "durations_by_key": {}}))


def test_survivors_of_all_files_are_named_and_fail(report, tmp_path, capsys):
    write(tmp_path, "genbook/vae.py", {"vae.kl_1": 1, "vae.kl_2": 0, "vae.kl_3": None})
    write(tmp_path, "genbook/diffusion.py", {"q_1": 36, "q_2": 33, "q_3": 1, "q_4": 1})
    assert report.main(tmp_path) == 1
    out = capsys.readouterr().out
    assert "survived: vae.kl_2\n" in out and "no tests: q_2\n" in out
    assert "kl_1" not in out and "kl_3" not in out
    assert "3 killed" in out and "1 not checked" in out and "66.7% of 6" in out


@pytest.mark.parametrize("survivors, code", [(0, 0), (5, 0), (6, 1)])
def test_a_few_survivors_are_borne(survivors, code, report, tmp_path):
    codes = {f"m_{i}": 0 if i < survivors else 1 for i in range(100)}
    write(tmp_path, "genbook/vae.py", codes)
    assert report.main(tmp_path) == code


@pytest.mark.parametrize("codes", [{}, {"a": None, "b": 34}])
def test_nothing_tried_is_a_failure(codes, report, tmp_path, capsys):
    if codes:
        write(tmp_path, "genbook/vae.py", codes)
    assert report.main(tmp_path) == 1
    assert "mutmut run" in capsys.readouterr().err


def test_git_keeps_the_report_and_no_mutants():
    def ignored(path):
        return subprocess.run(["git", "check-ignore", "-q", path], cwd=ROOT).returncode == 0

    if not (ROOT / ".git").exists():
        pytest.skip("no checkout of Git")
    assert not ignored("tests/mutants/report.py")
    assert ignored("mutants/genbook/vae.py")
