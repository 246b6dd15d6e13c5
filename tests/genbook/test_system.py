"""What genbook asks of the machine."""

import errno
import os
import subprocess
import sys
import threading

import pytest

from genbook import system

CPUINFO = """processor\t: 0
vendor_id\t: {vendor}
model name\t: Some Processor
flags\t\t: fpu sse sse2 {flags}

processor\t: 1
"""


def instruction_set(tmp_path, flags, vendor="GenuineIntel"):
    (tmp_path / "cpuinfo").write_text(CPUINFO.format(vendor=vendor, flags=flags))
    return system.instruction_set(tmp_path / "cpuinfo")


@pytest.mark.parametrize(
    "one, other",
    [
        ("sse4_1 avx", "sse4_1 avx avx2"),
        ("avx2", "avx2 avx512f avx512dq"),
        ("avx2", "avx2 avx_vnni"),
        ("avx2 avx512dq", "avx2 avx512dq avx512_vnni"),
        ("avx2 avx512dq avx512_vnni avx512_bf16", "avx2 avx512dq avx512_vnni avx512_bf16 amx_bf16"),
    ],
)
def test_instruction_sets_that_kernels_tell_apart_differ(one, other, tmp_path):
    assert instruction_set(tmp_path, one) != instruction_set(tmp_path, other)
    assert instruction_set(tmp_path, one) == instruction_set(tmp_path, one + " pni rdrand")
    assert instruction_set(tmp_path, one) != instruction_set(tmp_path, one, "AuthenticAMD")


@pytest.mark.parametrize("name", ["ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"])
def test_a_limit_of_onednn_is_part_of_the_instruction_set(name, tmp_path, monkeypatch):
    monkeypatch.delenv(name, raising=False)
    before = instruction_set(tmp_path, "avx2")
    monkeypatch.setenv(name, "SSE41")
    assert instruction_set(tmp_path, "avx2") != before


@pytest.mark.parametrize("text", [None, "", "Features : fp asimd", "vendor_id : x", "\xff"])
def test_other_systems_have_one_too(text, tmp_path, monkeypatch):
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    monkeypatch.delenv("DNNL_MAX_CPU_ISA", raising=False)
    if text is not None:
        (tmp_path / "cpuinfo").write_text(text, encoding="latin-1")
    assert system.instruction_set(tmp_path / "cpuinfo") == system.platform.machine()


def test_the_number_of_threads_is_that_of_paddle():
    code = "import paddle; from genbook import system; print(system.threads())"
    said = [
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code],
            env={**os.environ, "OMP_NUM_THREADS": number},
            stdout=subprocess.PIPE,
            text=True,
        ).stdout.strip()
        for number in ("1", "2")
    ]
    assert said == ["1", "2"]


def test_there_is_a_core():
    assert 1 <= system.cores() <= os.cpu_count()


def test_a_file_is_written_in_full(tmp_path):
    path = tmp_path / "file"
    for content in (b"", b"old", bytes(2**20)):
        system.write_atomically(path, content)
        assert path.read_bytes() == content
        assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(name, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "file"
    path.write_bytes(b"old")
    monkeypatch.setattr(system.os, name, fail)
    with pytest.raises(OSError, match="No space"):
        system.write_atomically(path, b"new")
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_writers_side_by_side_do_not_mix_their_files(tmp_path):
    contents = [bytes([i]) * 100_000 for i in range(4)]
    writers = [
        threading.Thread(target=lambda c=c: system.write_atomically(tmp_path / "file", c))
        for c in contents * 5
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert (tmp_path / "file").read_bytes() in contents
    assert len(list(tmp_path.iterdir())) == 1
