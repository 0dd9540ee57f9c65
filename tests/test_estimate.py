"""The estimate of a job's time, before anything is measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

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
    assert thrice == 3 * (once - job().spec.duration_seconds) + job().spec.duration_seconds


def test_of_shards_the_longest_counts() -> None:
    assert job().estimate_s() / 2 < job(shards=2).estimate_s() < job().estimate_s()


def test_a_fixed_rule_takes_the_least_seconds() -> None:
    assert (
        job(stop_rule="fixed", max_seconds=100.0).estimate_s() == job(stop_rule="fixed", max_seconds=10.0).estimate_s()
    )


def test_longer_slices_cost_less_beside_them() -> None:
    assert job(slice_seconds=2.0, max_seconds=10.0).estimate_s() < job(slice_seconds=0.5, max_seconds=10.0).estimate_s()
