"""Triton's own metrics page.

Metric names and units: Triton's docs/user_guide/metrics.md.
"""

from __future__ import annotations

from time import monotonic_ns

from model_analyzer.adapters.telemetry.prometheus import Endpoint, PageProblem, Row
from model_analyzer.core.telemetry import Gpu, Page, Series

# Gauges that the server refreshes together, every --metrics-interval-ms; counters move with each request.
_REFRESHED = ("nv_gpu_", "nv_cpu_", "nv_energy_")


class TritonSampler:
    """A ports.Sampler of one server."""

    name = "triton"

    def __init__(self, url: str) -> None:
        self.origin = url
        self._endpoint = Endpoint(url)

    def sample(self) -> Page:
        """Scrape once; bounded in time, never raises."""
        before = monotonic_ns()
        try:
            rows = self._endpoint.rows()
        except PageProblem as problem:
            return Page(self.name, self.origin, monotonic_ns(), problem=str(problem))
        return page_of(rows, (before + monotonic_ns()) // 2, self.origin)


def page_of(rows: list[Row], time_ns: int, origin: str) -> Page:
    """Sum a model's rows over versions and failure reasons; key GPU rows by uuid, host rows by ""."""
    values: dict[Series, float] = {}
    gpus: dict[str, Gpu] = {}
    for row in rows:
        if not row.name.startswith("nv_"):
            continue
        gpu = row.labels.get("gpu_uuid")
        if gpu is not None:
            gpus[gpu] = Gpu()
        series = Series(row.name, gpu if gpu is not None else row.labels.get("model", ""))
        values[series] = values.get(series, 0.0) + row.value
    total, used = (
        values.get(Series("nv_cpu_memory_total_bytes", "")),
        values.get(Series("nv_cpu_memory_used_bytes", "")),
    )
    if total is not None and used is not None:
        values[Series("nv_cpu_memory_total_bytes - nv_cpu_memory_used_bytes", "")] = total - used
    refreshed = hash(tuple((s, v) for s, v in values.items() if s.name.startswith(_REFRESHED)))
    problem = None if values else f"{origin}: the page has no nv_* rows"
    return Page("triton", origin, time_ns, values, gpus, refreshed, problem)
