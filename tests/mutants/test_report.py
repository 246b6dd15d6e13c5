"""The report on mutants counts what mutmut wrote and asks for the reasons."""

import importlib.util
import json
import subprocess
from pathlib import Path

import pytest

pytest.importorskip("mutmut", reason="mutmut has no edition for this system")
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def report(tmp_path, monkeypatch):
    """The script, as a module, in an empty folder and with no reasons."""
    spec = importlib.util.spec_from_file_location("report", Path(__file__).with_name("report.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module, "EXPLAINED", tmp_path / "survivors.txt")
    module.EXPLAINED.write_text("# nothing yet\n")
    return module


def write(file, codes):
    """What mutmut keeps about the mutants of one file: an exit code for each, and their source.

    The mutants of a function return its number, those of a method take it as a default.
    """
    path = Path("mutants") / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_name(f"{path.name}.meta").write_text(json.dumps({"exit_code_by_key": codes}))
    functions, methods = "", ""
    for name in dict.fromkeys(n for m in codes for n in (f"{m.rpartition('_')[0]}_orig", m)):
        _, _, number = name.rpartition("_")
        name = name.rpartition(".")[2]
        if "ǁ" in name:
            methods += f"    def {name}(self, n='{number}'):\n        return n\n"
        else:
            functions += f"def {name}():\n    # how it is made\n    return '{number}'\n"
    path.write_text(functions + (f"class VAE:\n{methods}" if methods else ""))


def test_survivors_of_all_files_are_named_and_fail(report, capsys):
    kl, q = "genbook.vae.x_kl__mutmut_", "genbook.diffusion.x__q__mutmut_"
    write("genbook/vae.py", {f"{kl}1": 1, f"{kl}2": 0, f"{kl}3": None})
    write("genbook/diffusion.py", {f"{q}1": 36, f"{q}2": 33, f"{q}3": 1, f"{q}4": 1})
    assert report.main() == 1
    out = capsys.readouterr().out
    assert f"survived, not explained: {kl}2\ngenbook.vae.kl\n- return 'orig'\n+ return '2'\n" in out
    assert f"no tests, not explained: {q}2\ngenbook.diffusion._q\n" in out
    assert "kl__mutmut_1" not in out and "kl__mutmut_3" not in out
    assert "genbook/vae.py: 1 of 2\n" in out and "genbook/diffusion.py: 3 of 4\n" in out
    assert "3 killed" in out and "1 not checked" in out and "66.7% of 6" in out


@pytest.mark.parametrize("survivors, code", [(0, 0), (5, 0), (6, 1)])
def test_a_few_survivors_are_borne_if_explained(survivors, code, report, capsys):
    codes = {f"genbook.vae.x_kl__mutmut_{i}": int(i >= survivors) for i in range(100)}
    write("genbook/vae.py", codes)
    reasons = [f"genbook.vae.kl\n- return 'orig'\n+ return '{i}'" for i in range(survivors)]
    report.EXPLAINED.write_text("\n\n".join(["# no number matters", *reasons]) + "\n")
    assert report.main() == code
    assert "not explained" not in capsys.readouterr().out


def test_a_reason_is_for_one_change_of_one_function(report, capsys):
    encode, kl = "genbook.vae.xǁVAEǁencode__mutmut_1", "genbook.vae.x_kl__mutmut_1"
    write(
        "genbook/vae.py",
        {encode: 0, kl: 0, **{f"genbook.vae.x_z__mutmut_{i}": 1 for i in range(99)}},
    )
    changed = "- def encode(self, n='orig'):\n+ def encode(self, n='1'):"
    report.EXPLAINED.write_text(f"# no default is used\n\ngenbook.vae.VAE.encode\n{changed}\n")
    assert report.main() == 1
    out = capsys.readouterr().out
    assert f"not explained: {kl}\n" in out and encode not in out


@pytest.mark.parametrize("codes", [{}, {"v.x_a__mutmut_1": None, "v.x_a__mutmut_2": 34}])
def test_nothing_tried_is_a_failure(codes, report, capsys):
    if codes:
        write("genbook/vae.py", codes)
    assert report.main() == 1
    assert "mutmut run" in capsys.readouterr().err


def test_reasons_are_for_code_that_is_there():
    blocks = (Path(__file__).with_name("survivors.txt")).read_text("utf-8").strip().split("\n\n")
    assert blocks[0].startswith("# ")
    for block in blocks:
        function, *changed = block.split("\n")
        if function.startswith("# "):
            continue
        paths = [ROOT.joinpath(*function.split(".")[:i]).with_suffix(".py") for i in (2, 3)]
        source = next(path for path in paths if path.is_file()).read_text("utf-8")
        lines = {line.strip() for line in source.splitlines()}
        removed = {line[2:] for line in changed if line.startswith("- ")}
        assert removed <= lines and len(removed) < len(changed), block


def test_git_keeps_the_report_and_no_mutants():
    def ignored(path):
        return subprocess.run(["git", "check-ignore", "-q", path], cwd=ROOT).returncode == 0

    if not (ROOT / ".git").exists():
        pytest.skip("no checkout of Git")
    assert not ignored("tests/mutants/report.py")
    assert ignored("mutants/genbook/vae.py")
