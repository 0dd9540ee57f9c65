from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from model_analyzer.core.load import InputSource, Load
from model_analyzer.core.measurement import Measurement, Status
from model_analyzer.core.plan import Phase
from model_analyzer.core.select import satisfies
from model_analyzer.core.telemetry import Reading
from model_analyzer.core.variant import Variant

PHASE = Phase("id", Variant("m", "m_config_default"), 1, Load("concurrency", 1), InputSource(), "http")


def row(status: Status = "ok", host: Mapping[str, Reading] | None = None, **values: float | None) -> Measurement:
    return Measurement(PHASE, status, values={"perf_throughput": 100.0, **values}, host=host or {})


def bound(tag: str, **limits: float) -> dict[str, dict[str, float]]:
    return {tag: limits}


def test_no_constraint_is_satisfied() -> None:
    assert satisfies(row(), {}) is True


@pytest.mark.parametrize(("limit", "holds"), [(49.9, False), (50.0, True), (50.1, True)])
def test_bounds_are_in_the_unit_of_the_tables_and_inclusive(limit: float, holds: bool) -> None:
    # 50 ms as ns.
    assert satisfies(row(perf_latency_p99=50e6), bound("perf_latency_p99", max=limit)) is holds


@pytest.mark.parametrize(("limit", "holds"), [(99.9, True), (100.0, True), (100.1, False)])
def test_a_lower_bound(limit: float, holds: bool) -> None:
    assert satisfies(row(), bound("perf_throughput", min=limit)) is holds


def test_both_ends_and_every_metric_must_hold() -> None:
    both = bound("perf_throughput", min=90, max=110)
    assert satisfies(row(), both) is True
    assert satisfies(row(perf_latency_p99=9e6), {**both, **bound("perf_latency_p99", max=8)}) is False


def test_memory_is_held_against_megabytes_and_utilization_against_percent() -> None:
    measured = row(gpu_used_memory=2e9, gpu_utilization=0.75)
    assert satisfies(measured, bound("gpu_used_memory", max=2000)) is True
    assert satisfies(measured, bound("gpu_used_memory", max=1999)) is False
    assert satisfies(measured, bound("gpu_utilization", min=75)) is True


@pytest.mark.parametrize("limits", [{"max": 1e9}, {"min": 0.0}])
def test_what_could_not_be_measured_does_not_satisfy_a_bound(limits: dict[str, Any]) -> None:
    assert satisfies(row(gpu_used_memory=None), bound("gpu_used_memory", **limits)) is False
    assert satisfies(row(), bound("gpu_used_memory", **limits)) is False


def test_figures_of_the_host_count() -> None:
    measured = row(host={"cpu_used_ram": Reading(5e8)})
    assert satisfies(measured, bound("cpu_used_ram", max=500)) is True
    assert satisfies(measured, bound("cpu_used_ram", max=499)) is False


@pytest.mark.parametrize("status", ["failed", "skipped"])
def test_a_row_without_figures_says_neither_yes_nor_no(status: Status) -> None:
    assert satisfies(row(status), bound("perf_throughput", min=1)) is None
    assert satisfies(Measurement(PHASE, "ok"), {}) is None


def test_an_unstable_row_is_held_against_its_bounds() -> None:
    assert satisfies(row("unstable"), bound("perf_throughput", min=1)) is True
