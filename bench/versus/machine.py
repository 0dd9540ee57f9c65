"""What a figure was measured on, and of what."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("nvidia-pytriton", "tritonclient", "numpy", "hpack", "onnxruntime", "magika")


def machine() -> dict[str, Any]:
    """CPU, cores, memory, kernel, distribution; None where it is not said."""
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    return {
        "cpu": cpu_model(text),
        "cores": len(os.sched_getaffinity(0)),
        "hypervisor": "hypervisor" in text.split("\n\n", 1)[0],
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "kernel": platform.release(),
        "distribution": _distribution(),
    }


def cpu_model(cpuinfo: str) -> str | None:
    for line in cpuinfo.splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return None


def versions() -> dict[str, str | None]:
    """Of ourselves and of what the figures hang on."""
    found: dict[str, str | None] = {"model-analyzer": _own_version(), "Python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found


def _own_version() -> str:
    from model_analyzer import __version__

    try:
        git = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--exclude", "*"],
            cwd=ROOT, capture_output=True, text=True, timeout=10, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return __version__
    return f"{__version__} ({git.stdout.strip()})" if git.returncode == 0 else __version__


def _distribution() -> str | None:
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        return None
    return release.get("PRETTY_NAME")
