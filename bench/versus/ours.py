"""Model Analyzer as a user calls it: its job, and what its store says."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from bench.versus.rival_analyzer import row_name

STORE = "measurements.jsonl"


def command(job: Path) -> list[str]:
    return [sys.executable, "-m", "model_analyzer", "profile", "-f", str(job)]


def read_store(text: str) -> dict[str, dict[str, Any]]:
    """`model, batch b, concurrency c` -> throughput in infer/s, latencies in us, measured seconds, status."""
    records = [json.loads(line) for line in text.splitlines() if line.strip()]
    found = {}
    for record in records:
        if record["kind"] != "measurement":
            continue
        data = record["data"]
        phase, values = data["phase"], data["values"]
        name = row_name(phase["variant"]["model"], phase["batch_size"], int(phase["load"]["value"]))
        found[name] = {
            "throughput": values.get("perf_throughput"),
            "p50_us": _us(values.get("perf_latency_p50")),
            "p99_us": _us(values.get("perf_latency_p99")),
            "measured_s": values.get("measured_seconds"),
            "status": data["status"],
        }
    return found


def _us(value_ns: float | None) -> float | None:
    return None if value_ns is None else value_ns / 1e3
