from __future__ import annotations

import pytest

from model_analyzer.core.metric import METRICS
from model_analyzer.core.reading import across, disagreement, read_metric, source_of
from model_analyzer.core.telemetry import Reading, Series, Summary

GPU = "GPU-a"


def fresh(*values: float, samples: int | None = None) -> Summary:
    return Summary(samples or len(values), len(values), min(values), max(values), sum(values))


def read(tag: str, cadences: dict[str, float] | None = None, seconds: float = 3.2, **summaries: Summary) -> Reading:
    found = {Series(name, GPU): summary for name, summary in summaries.items()}
    return read_metric(METRICS[tag], GPU, found, seconds, "no source reports it", cadences or {})


def test_the_exporter_comes_before_triton() -> None:
    reading = read("gpu_utilization", DCGM_FI_DEV_GPU_UTIL=fresh(0.5, 0.7), nv_gpu_utilization=fresh(0.1))
    assert reading == Reading(pytest.approx(0.6), "dcgm", 2, 2)


def test_triton_stands_in_for_an_exporter_that_did_not_refresh() -> None:
    reading = read("gpu_utilization", DCGM_FI_DEV_GPU_UTIL=Summary(4), nv_gpu_utilization=fresh(0.1))
    assert (reading.value, reading.source, reading.reason) == (pytest.approx(0.1), "triton", None)


@pytest.mark.parametrize(
    ("tag", "value"), [("gpu_utilization_max", 0.9), ("gpu_utilization", 0.5), ("gpu_used_memory", 9.0)]
)
def test_values_are_reduced_as_the_metric_says(tag: str, value: float) -> None:
    summaries = {"DCGM_FI_DEV_GPU_UTIL": fresh(0.1, 0.5, 0.9), "DCGM_FI_DEV_FB_USED": fresh(5, 9, 7)}
    assert read(tag, **summaries).value == pytest.approx(value)


def test_the_smallest_free_memory_counts() -> None:
    assert read("gpu_free_memory", DCGM_FI_DEV_FB_FREE=fresh(5, 3, 7)).value == 3


def test_a_stale_value_is_none_and_says_so() -> None:
    reading = read("gpu_utilization", {"dcgm": 30.0}, DCGM_FI_DEV_GPU_UTIL=Summary(4))
    assert reading.value is None
    assert (reading.samples, reading.fresh) == (4, 0)
    assert reading.reason == "stale: dcgm did not refresh within the measured 3.2 s (it does every 30.0 s)"


def test_an_unknown_cadence_is_not_invented() -> None:
    reason = read("gpu_utilization", DCGM_FI_DEV_GPU_UTIL=Summary(4)).reason
    assert reason == "stale: dcgm did not refresh within the measured 3.2 s"


def test_an_absent_metric_is_none_with_a_reason() -> None:
    assert read("gpu_utilization") == Reading(None, reason="no source reports it")


def test_a_zero_is_a_value() -> None:
    assert read("gpu_utilization", DCGM_FI_DEV_GPU_UTIL=fresh(0.0)).value == 0.0


@pytest.mark.parametrize(
    ("tag", "stand_in", "told"),
    [
        ("gpu_utilization_max", "DCGM_FI_PROF_GR_ENGINE_ACTIVE", "graphics engine"),
        ("gpu_memory_utilization_max", "DCGM_FI_PROF_DRAM_ACTIVE", "DRAM"),
    ],
)
def test_a_mig_instance_has_a_stand_in_and_a_note(tag: str, stand_in: str, told: str) -> None:
    reading = read(tag, **{stand_in: fresh(0.2, 0.8)})
    assert reading.value == 0.8
    assert told in str(reading.note)


def test_the_engines_activity_itself_needs_no_note() -> None:
    assert read("gpu_engine_active", DCGM_FI_PROF_GR_ENGINE_ACTIVE=fresh(0.2)).note is None


def test_energy_is_scaled_to_the_measured_time() -> None:
    # 900 J between refreshes 9 s apart, in 10 measured seconds.
    counter = Summary(11, 10, 100, 1000, 5500, 900.0, 9.0)
    assert read("gpu_energy", seconds=10, DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION=counter).value == pytest.approx(1000)


def test_energy_needs_two_refreshes() -> None:
    reading = read(
        "gpu_energy", {"dcgm": 30.0}, seconds=10, DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION=Summary(11, 1, 5, 5, 5)
    )
    assert reading.value is None
    assert "did not refresh twice" in str(reading.reason)


def test_a_name_tells_its_source() -> None:
    names = ("DCGM_FI_DEV_GPU_UTIL", "nv_gpu_utilization", "server processes")
    assert [source_of(name) for name in names] == ["dcgm", "triton", "host"]


@pytest.mark.parametrize(("tag", "value"), [("gpu_used_memory_max", 7), ("gpu_utilization", 5), ("gpu_free_memory", 3)])
def test_several_gpus_make_one_figure(tag: str, value: float) -> None:
    readings = [Reading(3.0), Reading(None, reason="stale"), Reading(7.0)]
    assert across(METRICS[tag], readings) == value


def test_a_sum_needs_every_gpu() -> None:
    assert across(METRICS["gpu_energy"], [Reading(3.0), Reading(7.0)]) == 10
    assert across(METRICS["gpu_energy"], [Reading(3.0), Reading(None, reason="stale")]) is None


def test_no_gpu_with_a_value_makes_none() -> None:
    assert across(METRICS["gpu_utilization"], [Reading(None, reason="stale")]) is None


def compare(**summaries: Summary) -> str | None:
    return disagreement(GPU, {Series(name, GPU): summary for name, summary in summaries.items()}, 10)


def test_sources_that_agree_need_no_note() -> None:
    assert compare(DCGM_FI_DEV_GPU_UTIL=fresh(0.8), nv_gpu_utilization=fresh(0.7)) is None
    assert compare(DCGM_FI_DEV_FB_USED=fresh(1000e6), nv_gpu_memory_used_bytes=fresh(1050e6)) is None


def test_sources_that_disagree_are_told_in_the_units_of_the_table() -> None:
    note = compare(DCGM_FI_DEV_GPU_UTIL=fresh(0.9), nv_gpu_utilization=fresh(0.1))
    assert note == "GPU Utilization (%) of GPU-a: dcgm says 90, triton 10"
    note = compare(DCGM_FI_DEV_FB_USED=fresh(9000e6), nv_gpu_memory_used_bytes=fresh(1000e6))
    assert note == "GPU Memory Usage (MB) of GPU-a: dcgm says 9,000, triton 1,000"


def test_one_source_alone_cannot_disagree() -> None:
    assert compare(DCGM_FI_DEV_GPU_UTIL=fresh(0.9)) is None


def test_a_stale_source_does_not_disagree() -> None:
    assert compare(DCGM_FI_DEV_GPU_UTIL=fresh(0.9), nv_gpu_utilization=Summary(9)) is None
