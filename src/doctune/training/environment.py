"""What a rerun needs to know: versions, commit, hardware, command."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distributions, version
from pathlib import Path
from typing import Any

import torch

from doctune import __version__

_PACKAGES = ("torch", "lightning", "transformers", "tokenizers", "hydra-core", "torchmetrics", "numpy", "pymupdf")


def describe_environment() -> dict[str, Any]:
    """Versions, all installed packages, git commit of the working folder, hardware and command line."""
    return {
        "versions": {"doctune": __version__, "python": platform.python_version(), **_versions()},
        "git": git_state(Path.cwd()),
        "packages": {found.name: found.version for found in sorted(distributions(), key=lambda d: d.name.lower())},
        "hardware": _hardware(),
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    }


def promise(seed: int, deterministic: bool) -> str:
    """What another run with this seed will repeat, and what it cannot be relied on for."""
    exact = deterministic or not (torch.cuda.is_available() or torch.backends.mps.is_available())
    return (
        f"Seed {seed}: another run with the same versions, threads and hardware "
        + ("gives the same weights to the bit." if exact else "comes close; deterministic=true makes it exact.")
        + " Other hardware, another number of threads or other versions change the last digits, and so in time the "
        "weights."
    )


def git_state(folder: Path) -> dict[str, Any]:
    """The commit that is checked out and whether files differ from it; nulls outside a repository or without git."""
    commit = _git(folder, "rev-parse", "HEAD")
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "dirty": None if changes is None else bool(changes)}


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _versions() -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found


def _hardware() -> dict[str, Any]:
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "platform": platform.platform(),
        "processor": processor_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpus": gpus,
    }


def processor_name() -> str:
    """The processor's name where the system tells it, else its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def has_bf16_instructions() -> bool:
    """Whether the CPU multiplies bf16 matrices in hardware (AVX-512 BF16, AMX, or Arm BF16)."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False  # not Linux: 32-bit is always right
    return any(flag in flags.split() for flag in ("avx512_bf16", "amx_bf16", "bf16"))
