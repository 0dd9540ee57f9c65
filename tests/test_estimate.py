"""The estimate of a job's time, before anything is measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from model_analyzer.job import Job, load_job

QUICK_START = Path(__file__).parent.parent / "examples" / "quickstart" / "job.yaml"


def job(**values: Any) -> Job:
    return load_job(QUICK_START, {"triton_launch_mode": "embedded", **values}, {})


def test_the_quick_start_takes_between_one_and_two_minutes() -> None:
    # Seen on two cores: 77 to 79 s where they were ours, 113 s among seven others.
    assert 60 < job().estimate_s() < 120


def test_lies_between_the_least_and_the_most_measured_time() -> None:
    # 12 phases of 4 to 20 s, a slice's own overhead beside them below its length.
    assert 12 * 4 < job(min_seconds=4.0, max_seconds=20.0).estimate_s() < 12 * 20 * 2


def test_repeats_take_so_many_times_as_long_but_for_the_baseline() -> None:
    once, thrice = job().estimate_s(), job(repeats=3).estimate_s()
    assert thrice == pytest.approx(3 * (once - job().spec.duration_seconds) + job().spec.duration_seconds)


def test_of_shards_the_longest_counts() -> None:
    assert job().estimate_s() / 2 < job(shards=2).estimate_s() < job().estimate_s()


def test_a_fixed_rule_takes_the_least_seconds() -> None:
    assert (
        job(stop_rule="fixed", max_seconds=100.0).estimate_s() == job(stop_rule="fixed", max_seconds=10.0).estimate_s()
    )


def test_longer_slices_cost_less_beside_them() -> None:
    assert job(slice_seconds=2.0, max_seconds=10.0).estimate_s() < job(slice_seconds=0.5, max_seconds=10.0).estimate_s()


def test_the_bounds_are_those_of_the_stop_rule() -> None:
    least, most = job().bounds_s()
    assert least < job().estimate_s() < most
    assert most == pytest.approx(job(min_seconds=3.75).estimate_s())
    fixed = job(stop_rule="fixed")
    assert fixed.bounds_s() == (fixed.estimate_s(), fixed.estimate_s())


def test_what_no_plan_knows_is_said_in_words() -> None:
    assert job().unknown() == []
    assert job(request_count=1000).unknown() == ["how fast add_sub, magika will answer (request_count)"]
    (said,) = job(min_gpu_samples=2).unknown()
    assert said.startswith("how often GPU telemetry refreshes (min_gpu_samples 2: up to 2 x 30 s a phase")
    assert job(min_gpu_samples=2, gpus=[]).unknown() == []


def test_a_count_of_requests_of_an_open_loop_is_no_secret() -> None:
    values = {"concurrency": None, "request_rate": [50], "request_count": 1000}
    assert job(**values).unknown() == []
    assert job(**values).estimate_s() > len(job(**values).phase_ids) * 1000 / 50
