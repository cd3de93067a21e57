"""Resident memory of another process: the one place of extraction that differs by operating system.

Only the Linux way is tested here. Elsewhere psutil answers, where it is installed; where it is not, the limit is kept
by the worker's own address space limit alone, which Windows lacks and macOS ignores.
"""

from __future__ import annotations

import os
import sys


def resident_bytes(pid: int) -> int | None:
    """Bytes of physical memory that a process holds; None if it is gone or nobody can tell."""
    if sys.platform == "linux":
        return _from_proc(pid)
    return _from_psutil(pid)


def _from_proc(pid: int) -> int | None:
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        return None


def _from_psutil(pid: int) -> int | None:
    try:
        import psutil  # type: ignore[import-untyped]
    except ImportError:
        return None
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return None
