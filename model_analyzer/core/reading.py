"""From summaries of scraped series to one reading a metric, with a reason where there is none."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from model_analyzer.core.metric import METRICS, Metric
from model_analyzer.core.telemetry import COUNTERS, Reading, Series, Summaries, Summary

_STAND_INS = {
    "DCGM_FI_PROF_GR_ENGINE_ACTIVE": "GPU utilization is the graphics engine's activity (no GPU_UTIL here, as under MIG)",
    "DCGM_FI_PROF_DRAM_ACTIVE": "memory utilization is the DRAM activity (no MEM_COPY_UTIL here, as under MIG)",
}
# An exporter repeats the whole GPU's power and energy on the rows of its MIG instances (dcgm-exporter issues 257, 317).
MIG_ENERGY = "the energy counter is of the whole GPU, which its MIG instances share"
_MIG_POWER = "GPU power of a MIG instance is that of its whole GPU"
# Triton and DCGM look at the same device; more than this apart they do not.
_UTILIZATION_APART = 0.25
_MEMORY_APART = 0.10


def read_metric(
    metric: Metric, subject: str, summaries: Summaries, seconds: float, why_absent: str, cadences: Mapping[str, float]
) -> Reading:
    """The metric of one subject from its first source that has a fresh value.

    seconds: measured time, to scale a counter to. why_absent: the reason where no source ever showed the metric.
    cadences: source -> seconds between its refreshes, where known.
    """
    instance = "/" in subject
    if instance and metric.tag == "gpu_energy":
        return Reading(None, reason=MIG_ENERGY)
    stale: Reading | None = None
    for name in metric.sources:
        summary = summaries.get(Series(name, subject))
        if summary is None:
            continue
        source = source_of(name)
        value = _value(metric, name, summary, seconds)
        if value is not None:
            note = _STAND_INS.get(name) if name != metric.sources[0] else None
            note = _MIG_POWER if instance and metric.tag == "gpu_power_usage" else note
            return Reading(value, source, summary.samples, summary.fresh, note=note)
        stale = stale or Reading(
            None, source, summary.samples, summary.fresh, _why_stale(name, summary, source, seconds, cadences)
        )
    return stale or Reading(None, reason=why_absent)


def source_of(name: str) -> str:
    """Which telemetry source a Prometheus name comes from."""
    return "dcgm" if name.startswith("DCGM_") else "triton" if name.startswith("nv_") else "host"


def _value(metric: Metric, name: str, summary: Summary, seconds: float) -> float | None:
    if name in COUNTERS:
        # No GPU uses nothing: a counter that stands still does not count.
        return summary.delta / summary.delta_s * seconds if summary.delta > 0 else None
    if not summary.fresh:
        return None
    average = summary.total / summary.fresh
    return {"max": summary.high, "min": summary.low, "avg": average, "sum": summary.total}[metric.reduce]


def _why_stale(name: str, summary: Summary, source: str, seconds: float, cadences: Mapping[str, float]) -> str:
    if summary.falls:
        return f"{source}'s energy counter fell: it was reset"
    if summary.delta_s > 0:
        return f"{source}'s energy counter stood still"
    every = f" (it does every {cadences[source]:.1f} s)" if source in cadences else ""
    if name in COUNTERS:
        return f"{source} did not refresh twice within one slice of the measured {seconds:.1f} s{every}"
    return f"stale: {source} did not refresh within the measured {seconds:.1f} s{every}"


def across(metric: Metric, readings: Iterable[Reading]) -> float | None:
    """One figure for several GPUs: the metric's own way of reducing; None where no GPU has a value.

    A sum needs all of them: some GPUs' joules are not the joules of all.
    """
    readings = tuple(readings)
    values = [reading.value for reading in readings if reading.value is not None]
    if not values or (metric.reduce == "sum" and len(values) < len(readings)):
        return None
    average = sum(values) / len(values)
    return {"max": max(values), "min": min(values), "avg": average, "sum": sum(values)}[metric.reduce]


def disagreement(subject: str, summaries: Summaries, seconds: float) -> str | None:
    """A note where Triton's gauge and DCGM's tell different stories of one GPU; None where they agree or one is absent."""
    for tag, apart in (("gpu_utilization", _UTILIZATION_APART), ("gpu_used_memory", _MEMORY_APART)):
        metric = METRICS[tag]
        values = {}
        for name in metric.sources[:2]:
            summary = summaries.get(Series(name, subject))
            if summary is not None and summary.fresh:
                values[source_of(name)] = _value(metric, name, summary, seconds) or 0.0
        if len(values) == 2:
            limit = apart if tag == "gpu_utilization" else apart * max(values.values())
            if abs(values["dcgm"] - values["triton"]) > limit:
                scaled = {source: f"{value * metric.scale:,.0f}" for source, value in values.items()}
                return f"{metric.header} of {subject}: dcgm says {scaled['dcgm']}, triton {scaled['triton']}"
    return None
