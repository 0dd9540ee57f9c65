"""Triton's own metrics page.

Metric names and units: Triton's docs/user_guide/metrics.md.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from model_analyzer.adapters.telemetry.prometheus import Head, PageSampler, Row
from model_analyzer.core.telemetry import Gpu, Page, Series

PREFIX = "nv_"
# Gauges that the server refreshes together, every --metrics-interval-ms; counters move with each request.
_REFRESHED = ("nv_gpu_", "nv_cpu_", "nv_energy_")
# The server shows 0 for what it could not read (core, metrics.cc, PollDcgmMetrics and PollCpuMetrics). Where the first
# of these is 0, which is never true, all of its row are unknown. Utilization does the same, but there 0 may be true.
_UNKNOWN_AT_ZERO = (
    ("nv_gpu_memory_total_bytes", "nv_gpu_memory_used_bytes"),
    ("nv_gpu_power_usage",),
    ("nv_cpu_memory_total_bytes", "nv_cpu_memory_used_bytes"),
)
# Rows of summaries and histograms: a quantile is no count, and a bucket counts what the others count.
_PART_LABELS = ("quantile", "le")


class TritonSampler(PageSampler):
    """A ports.Sampler of one server."""

    def __init__(self, url: str) -> None:
        super().__init__("triton", url, PREFIX, page_of)


def page_of(rows: Iterable[Row], time_ns: int, origin: str) -> Page:
    """Sum a model's rows over versions, failure reasons and GPUs; key GPU rows by uuid, host rows by "".

    A model that is loaded on a GPU after the server started has the GPU's uuid on its counters, one loaded at the
    start has not (triton-inference-server/server issue 7479): its subject is the model in both cases.
    """
    values: dict[Series, float] = {}
    gpus: dict[str, Gpu] = {}
    for head, value in rows:
        series, is_gpu = _about(head)
        if series is None:
            continue
        if is_gpu:
            gpus[series.subject] = Gpu()
        values[series] = values.get(series, 0.0) + value
    for subject in ("", *gpus):
        for names in _UNKNOWN_AT_ZERO:
            if values.get(Series(names[0], subject)) == 0:
                for name in names:
                    values.pop(Series(name, subject), None)
    total, used = (
        values.get(Series("nv_cpu_memory_total_bytes", "")),
        values.get(Series("nv_cpu_memory_used_bytes", "")),
    )
    if total is not None and used is not None:
        values[Series("nv_cpu_memory_total_bytes - nv_cpu_memory_used_bytes", "")] = total - used
    refreshed = hash(frozenset((s, v) for s, v in values.items() if s.name.startswith(_REFRESHED)))
    problem = None if values else f"{origin}: the page has no nv_* rows"
    return Page("triton", origin, time_ns, values, gpus, refreshed, problem)


@lru_cache(maxsize=20_000)
def _about(head: Head) -> tuple[Series | None, bool]:
    """What a row's name and labels say: its series (None: it is a part of one), and whether that is a GPU's."""
    if any(label in head.labels for label in _PART_LABELS):
        return None, False
    model, gpu = head.labels.get("model"), head.labels.get("gpu_uuid")
    return Series(head.name, model or gpu or ""), model is None and gpu is not None
