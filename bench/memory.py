"""Memory of the analyzer and its load generator in a run like the quickstart's: `python bench/memory.py [--quick]`.

The peak resident set (VmHWM of /proc/PID/status) of each process of ours, added up; the server is not ours: it runs before, and is
driven in the remote mode. Pages that both share count twice, so the figure is too high rather than too low.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import yaml

from model_analyzer.core.variant import ServerInfo

NAME, GOAL_MB = "analyzer memory in a run", 150
SAMPLE_S = 0.05
_PEAK = re.compile(r"^VmHWM:\s+(\d+) kB", re.MULTILINE)


def peak_mb(pid: int) -> float | None:
    """Most memory that a process had so far, in 10^6 bytes; None where it is gone."""
    with suppress(OSError):
        if found := _PEAK.search(Path(f"/proc/{pid}/status").read_text()):
            return int(found[1]) * 1024 / 1e6
    return None


def job(info: ServerInfo, folder: Path, quick: bool) -> dict[str, Any]:
    """The loads of the quickstart for one model of this server."""
    seconds = 0.5 if quick else 2.0
    return {
        "model_repository": str(folder),
        "export_path": str(folder / "out"),
        "triton_launch_mode": "remote",
        "triton_http_endpoint": info.http_endpoint,
        "triton_grpc_endpoint": info.grpc_endpoint,
        "triton_metrics_url": info.metrics_url,
        "profile_models": ["add_sub"],
        "batch_sizes": [1] if quick else [1, 4, 8],
        "concurrency": [1] if quick else [1, 4],
        "stop_rule": "fixed",
        "min_seconds": seconds,
        "max_seconds": seconds,
        "duration_seconds": 0.5,
    }


def peaks(command: list[str], log: Path) -> dict[str, float]:
    """Run it; the peak of each of its processes (MB), by what it is. Raises CalledProcessError where it fails."""
    found: dict[int, tuple[str, float]] = {}
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output) as process:
        while process.poll() is None:
            with suppress(psutil.Error):
                for one in [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]:
                    what = "load generator" if "model_analyzer.loadgen" in one.cmdline() else "analyzer"
                    if (mb := peak_mb(one.pid)) is not None:
                        found[one.pid] = what, mb
            time.sleep(SAMPLE_S)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command, log.read_bytes())
    return {f"{what} {pid}": mb for pid, (what, mb) in found.items()}


def measure(quick: bool = False) -> dict[str, Any]:
    """The figure, and the peak of each process over both protocols."""
    # It stands beside this file, which is on the path where this file is run and not where its parts are imported.
    from loadgen_cost import serving

    raw: dict[str, dict[str, float]] = {}
    with serving() as (info, _model), tempfile.TemporaryDirectory() as scratch:
        for protocol in ("grpc",) if quick else ("grpc", "http"):
            folder = Path(scratch) / protocol
            folder.mkdir()
            file = folder / "job.yaml"
            file.write_text(yaml.safe_dump({**job(info, folder, quick), "client_protocol": protocol}))
            command = [sys.executable, "-m", "model_analyzer", "profile", "-f", str(file)]
            raw[protocol] = peaks(command, folder / "log")
    most = max(sum(of.values()) for of in raw.values())
    return {
        "figures": [{"name": NAME, "value": most, "unit": "MB", "goal": GOAL_MB, "met": most < GOAL_MB}],
        "raw": raw,
    }


def main() -> None:
    """Print it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a row of half a second")
    print(json.dumps(measure(parser.parse_args().quick), indent=1))


if __name__ == "__main__":
    main()
