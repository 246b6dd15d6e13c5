"""The machine: its cores, threads and instruction set; files that are written atomically."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import secrets
from pathlib import Path

# Flags of /proc/cpuinfo at which oneDNN and Paddle take other kernels, the best first
LEVELS = (
    "amx_fp16 amx_bf16 avx512_fp16 avx512_bf16 avx512_vnni avx512dq avx_vnni avx2 avx sse4_1"
).split()


def cores() -> int:
    """The number of processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def threads() -> str:
    """The numbers of threads that OpenMP, and so the kernels of Paddle, compute with."""
    from threadpoolctl import threadpool_info  # comes with scikit-learn

    pools = (pool for pool in threadpool_info() if pool["user_api"] == "openmp")
    return " ".join(map(str, sorted({pool["num_threads"] for pool in pools})))


def instruction_set(cpuinfo: str | os.PathLike = "/proc/cpuinfo") -> str:
    """The instruction set that kernels compute with, such as "x86_64 GenuineIntel avx512_bf16".

    On processors that differ in it, sums are rounded differently. The maker counts because MKL
    chooses kernels by it, and so do the environment variables with which oneDNN is limited.
    """
    found = [platform.machine()]
    with contextlib.suppress(OSError):  # another system than Linux
        text = Path(cpuinfo).read_text(encoding="utf-8", errors="replace")
        vendor = re.search(r"^vendor_id\s*:\s*(.*)$", text, re.M)
        flags = re.search(r"^flags\s*:(.*)$", text, re.M)
        if vendor and flags:
            level = next((level for level in LEVELS if level in flags[1].split()), "")
            found += [vendor[1], level]
    limits = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")
    return " ".join([*found, *(f"{k}={os.environ[k]}" for k in limits if k in os.environ)])


def write_atomically(path: str | os.PathLike, content: bytes) -> None:
    """Write `content` to `path`, in full or not at all.

    Until the new file is safe on the disk, `path` stays what it was, even when the power fails.
    Raises OSError where there is no room or no permission.
    """
    path = Path(path)
    part = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
    try:
        with part.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(part, path)
        _sync_folder(path.parent)
    finally:
        with contextlib.suppress(OSError):  # on a disk that is gone there is nothing to remove
            part.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Flush the new name as well, where folders can be opened: not on Windows."""
    if hasattr(os, "O_DIRECTORY"):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
