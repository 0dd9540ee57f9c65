"""A store of 10,000 phases: memory, resume, tables: `python bench/store_scale.py [--phases N] [--gpus N]`.

Each phase has five slices and a row, as a run with telemetry of so many GPUs leaves them: the core's own objects, reduced by the core,
through the store. Each figure comes from a process of its own. The store is written without waiting for the disk, with equal figures in
every phase.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from model_analyzer.adapters import store
from model_analyzer.core.load import InputSource, Load
from model_analyzer.core.measurement import Environment, Slice
from model_analyzer.core.metric import (
    DEFAULT_GPU_FIELDS,
    DEFAULT_INFERENCE_FIELDS,
    DEFAULT_SERVER_FIELDS,
    gpu_metrics,
    host_metrics,
)
from model_analyzer.core.plan import Phase, content_id
from model_analyzer.core.reduce import reduce_phase
from model_analyzer.core.repeats import enough
from model_analyzer.core.stats import SliceStats
from model_analyzer.core.stopping import StopRule, judge
from model_analyzer.core.telemetry import Gpu, Series, Summary
from model_analyzer.core.variant import Variant

PHASES, SLICES, GPUS = 10_000, 5, 8
LAYOUT = {
    "inference_fields": DEFAULT_INFERENCE_FIELDS,
    "gpu_fields": DEFAULT_GPU_FIELDS,
    "server_fields": DEFAULT_SERVER_FIELDS,
    "filename_inference": "metrics-model-inference.csv",
    "filename_gpu": "metrics-model-gpu.csv",
    "filename_server": "metrics-server-only.csv",
    "constraints": {},
    "prices": {},
}


def phase_id(number: int) -> str:
    return content_id({"phase": number})


def a_slice(phase: Phase, number: int, gpus: int) -> Slice:
    """Half a second of a model that answers in 2 ms, eight at a time."""
    random = np.random.default_rng(number)
    done = np.sort(random.integers(0, 500_000_000, 2000))
    latency = random.lognormal(np.log(2e6), 0.2, 2000).astype(np.int64)
    keys = [f"GPU-{each:08x}-69c4-b61d-e0bc-7b2460096005" for each in range(gpus)]
    names = {name for metric in gpu_metrics() for name in metric.sources if name.startswith("DCGM")}
    telemetry = {
        Series(name, key): _summary(random, metered="ENERGY" in name) for key in keys for name in sorted(names)
    }
    telemetry |= {Series(metric.sources[0], ""): _summary(random, metered=False) for metric in host_metrics()}
    return Slice(
        phase_id=phase.id,
        round=number,
        started_at=f"2026-11-28T00:00:{number * 5:02}.000+00:00",
        warmup_s=0.31,
        stats=SliceStats.of(done, latency, 0, 500_000_000, 50_000_000),
        failures={},
        server={f"nv_inference_{what}": 2000.0 for what in _COUNTERS},
        server_problem=None,
        client_cpu_ratio=0.31,
        client_lag_s=0.002,
        gpus=tuple(keys),
        telemetry=telemetry,
        cadences={"dcgm": 0.1, "triton": 0.1},
        problems={},
    )


_COUNTERS = (
    "count", "exec_count", "request_success", "request_failure", "request_duration_us", "queue_duration_us",
    "compute_input_duration_us", "compute_infer_duration_us", "compute_output_duration_us", "pending_request_count",
)  # fmt: skip


def _summary(random: np.random.Generator, metered: bool) -> Summary:
    low, high = sorted(round(float(value), 3) for value in random.uniform(0, 500, 2))
    total = round(2.5 * (low + high), 3)
    return Summary(5, 5, low, high, total, 120.0 if metered else 0.0, 0.401234567 if metered else 0.0)


def build(export_path: Path, phases: int, gpus: int) -> None:
    """Write the store: the lines of one phase, again under each id."""
    one = Phase("0" * 16, Variant("m", "m_config_default", "{}"), 1, Load("concurrency", 8), InputSource(), "grpc")
    slices = [a_slice(one, number, gpus) for number in range(SLICES)]
    environment = Environment(
        "2.51.0", {key: Gpu("NVIDIA H100 80GB HBM3", str(n)) for n, key in enumerate(slices[0].gpus)}
    )
    row = reduce_phase(one, slices, judge([piece.stats for piece in slices], StopRule()), 1)
    row = replace(
        row, instance_group="8:GPU", max_batch_size=8, finished_at="2026-11-28T00:00:30", environment=environment
    )
    with store.JsonlStore(export_path) as opened:
        for piece in slices:
            opened.add_slice(piece)
        opened.add_measurement(row)
    path = export_path / store.FILENAME
    lines = path.read_text()
    run = {"version": "0", "at": "2026-11-28T00:00:00", "phases": [phase_id(n) for n in range(phases)],
           "baseline": "", "layout": LAYOUT, "gpu_types": ["NVIDIA H100 80GB HBM3"]}  # fmt: skip
    with path.open("w") as file:
        for number in range(phases):
            file.write(lines.replace(one.id, phase_id(number)))
    with store.JsonlStore(export_path) as opened:
        opened.add_run(run)


def resume(export_path: Path) -> dict[str, float]:
    """From the start of opening the store until it is known what is left."""
    began, cpu_s = time.perf_counter(), time.process_time()
    with store.JsonlStore(export_path) as opened:
        contents = opened.contents
        outcomes = contents.outcomes
        left = [id_ for id_ in contents.runs[-1]["phases"] if not enough(outcomes.get(id_), 1)]
        seconds, cpu_s = time.perf_counter() - began, time.process_time() - cpu_s
    assert not left
    return {"resume_s": seconds, "resume_cpu_s": cpu_s, "resume_rss_mb": psutil.Process().memory_info().rss / 1e6}


def tables(export_path: Path) -> dict[str, float]:
    """From the start of reading the store until the tables are on the disk."""
    from model_analyzer.adapters.stored import rebuild_tables

    began, cpu_s = time.perf_counter(), time.process_time()
    rebuild_tables(export_path)
    seconds, cpu_s = time.perf_counter() - began, time.process_time() - cpu_s
    return {"tables_s": seconds, "tables_cpu_s": cpu_s, "tables_peak_mb": peak_mb()}


def peak_mb() -> float:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


STEPS = {"resume": resume, "tables": tables}


def measure(phases: int = PHASES, gpus: int = GPUS, runs: int = 3) -> dict[str, Any]:
    """Medians of a few runs; megabytes are 10^6 bytes."""
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        build(Path(folder), phases, gpus)
        size_mb = (Path(folder) / store.FILENAME).stat().st_size / 1e6
        for _ in range(runs):
            for step in STEPS:
                command = [sys.executable, __file__, "--step", step, folder]
                output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                for name, value in json.loads(output).items():
                    found.setdefault(name, []).append(value)
        size = {"phases": phases, "gpus": gpus, "store_mb": size_mb}
        return {**size, **{name: statistics.median(values) for name, values in found.items()}, "raw": found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--phases", type=int, default=PHASES)
    parser.add_argument("--gpus", type=int, default=GPUS)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--step", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step:
        # As the command has it: how often the garbage collector looks.
        import model_analyzer.__main__  # noqa: F401

        step, folder = arguments.step
        print(json.dumps(STEPS[step](Path(folder))))
        return
    print(f"load average {os.getloadavg()[0]:.2f}, {os.cpu_count()} CPUs", file=sys.stderr)
    print(json.dumps(measure(arguments.phases, arguments.gpus, arguments.runs), indent=1))


if __name__ == "__main__":
    main()
