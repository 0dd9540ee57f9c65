"""Finished phases for the tests of store, tables and progress: made by the engine's own reduction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from model_analyzer.core.estimate import Outlook
from model_analyzer.core.load import InputSource, Load
from model_analyzer.core.measurement import Baseline, Environment, Measurement, Slice
from model_analyzer.core.plan import Phase
from model_analyzer.core.reduce import reduce_phase
from model_analyzer.core.stats import SliceStats
from model_analyzer.core.steal import CpuTime
from model_analyzer.core.stopping import StopRule, judge
from model_analyzer.core.telemetry import Gpu, Reading, Series, Summary
from model_analyzer.core.variant import Variant

SECOND_NS = 1_000_000_000
NO_GPU = "no GPU: Triton reports none, and no DCGM exporter does"


def phase(model: str = "m", batch: int = 1, load: float = 1, kind: str = "concurrency") -> Phase:
    assert kind in ("concurrency", "request_rate")
    loaded = Load(kind, load)  # type: ignore[arg-type]
    return Phase(f"{model}-{batch}-{load}-{kind}", Variant(model, f"{model}_config_default"), batch, loaded, InputSource(), "http")  # fmt: skip


def piece(of: Phase, number: int = 0, rate: int = 100, gpu: str | None = None) -> Slice:
    """One second in which `rate` replies took 10 ms each; the server counted them, and idled for the GPU's part."""
    done = np.arange(rate, dtype=np.int64) * (SECOND_NS // max(rate, 1))
    stats = SliceStats.of(done, np.full(rate, 10_000_000, np.int64), 0, SECOND_NS, 50_000_000)
    server = {
        "nv_inference_request_success": float(rate),
        "nv_inference_request_failure": 0.0,
        "nv_inference_count": float(rate),
        "nv_inference_exec_count": float(rate),
        "nv_inference_queue_duration_us": 1000.0 * rate,
        "nv_inference_compute_input_duration_us": 500.0 * rate,
        "nv_inference_compute_infer_duration_us": 8000.0 * rate,
        "nv_inference_compute_output_duration_us": 250.0 * rate,
    }
    telemetry = {Series("server processes (USS)", ""): Summary(2, 2, 1e8, 2e8, 3e8)}
    if gpu is not None:
        telemetry |= {
            Series("nv_gpu_utilization", gpu): Summary(2, 2, 0.4, 0.6, 1.0),
            Series("nv_gpu_memory_used_bytes", gpu): Summary(2, 2, 1e9, 2e9, 3e9),
            Series("nv_gpu_power_usage", gpu): Summary(2, 2, 100.0, 300.0, 400.0),
        }
    return Slice(
        phase_id=of.id,
        round=number,
        started_at="2026-01-01T00:00:00.000+00:00",
        warmup_s=0.2,
        stats=stats,
        failures={},
        server=server,
        server_problem=None,
        client_cpu_ratio=0.25,
        client_lag_s=0.0,
        gpus=(gpu,) if gpu else (),
        telemetry=telemetry,
        cadences={},
        problems={},
        scrapes_s=0.004,
        cpu_time=CpuTime(1_500_000_000, 10_000_000),
        unanswered=2,
    )


def measured(of: Phase, rate: int = 100, gpu: str | None = None, slices: int = 4) -> Measurement:
    """What the engine would finish the phase with."""
    pieces = [piece(of, number, rate, gpu) for number in range(slices)]
    verdict = judge([each.stats for each in pieces], StopRule("fixed", 1.0, 4.0))
    environment = Environment("2.51.0", {gpu: Gpu("NVIDIA H100", "0")} if gpu else {}, "host", 2)
    described = reduce_phase(of, pieces, verdict, of.batch_size)
    return replace(described, instance_group="1:CPU", max_batch_size=8, environment=environment)


def baseline(gpus: Mapping[str, float] = {}) -> Baseline:
    """The empty server: RAM and CPU, and bytes in use on each of these GPUs."""
    host = {"cpu_used_ram": Reading(5e8, "host", 2, 2), "cpu_available_ram": Reading(7e9, "host", 2, 2),
            "cpu_utilization": Reading(0.125, "triton", 2, 2)}  # fmt: skip
    readings = {
        key: {
            "gpu_used_memory": Reading(used, "dcgm", 2, 2),
            "gpu_used_memory_max": Reading(used, "dcgm", 2, 2),
            "gpu_utilization": Reading(None, reason="stale: dcgm did not refresh within the measured 3.0 s"),
        }
        for key, used in gpus.items()
    }
    environment = Environment("2.51.0", {key: Gpu("NVIDIA H100", "0") for key in gpus})
    return Baseline("b", 3.0, host, readings, (), "" if gpus else NO_GPU, environment=environment)


def outlook(seconds: float) -> Outlook:
    """A run of which nothing is known but how long it takes."""
    return Outlook(start_s=seconds)
