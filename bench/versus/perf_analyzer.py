"""perf_analyzer as a user calls it: its command line, and what its report says."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

WINDOWS = 3


def command(
    program: Path,
    model: str,
    protocol: str,
    address: str,
    concurrency: int,
    seconds: float,
    report: Path,
    asynchronous: bool,
) -> list[str]:
    """One load, measured in exactly three windows, `seconds` together: no stop rule, no window more.

    (A difference of 999 % between windows counts as stable.)
    """
    return [
        str(program), "-m", model, "-u", address, "-i", protocol, "--concurrency-range", str(concurrency),
        "--measurement-mode", "time_windows", "--measurement-interval", f"{seconds * 1000 / WINDOWS:.0f}",
        "--max-trials", str(WINDOWS), "--stability-percentage", "999", "-f", str(report),
        *(["--async"] if asynchronous else []),
    ]  # fmt: skip


def read_report(text: str) -> dict[str, Any]:
    """The CSV of `-f`: throughput in infer/s, latencies in us. Raises ValueError where it has not one row."""
    rows = list(csv.DictReader(io.StringIO(text)))
    if len(rows) != 1:
        raise ValueError(f"perf_analyzer's report has {len(rows)} rows instead of one")
    row = rows[0]
    return {
        "throughput": float(row["Inferences/Second"]),
        "p50_us": float(row["p50 latency"]),
        "p99_us": float(row["p99 latency"]),
    }
