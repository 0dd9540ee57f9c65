"""The estimate of a run's time, before anything is measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from model_analyzer.wire import Job, load_job

QUICK_START = Path(__file__).parent.parent / "examples" / "quickstart" / "job.yaml"


def job(**values: Any) -> Job:
    return load_job(QUICK_START, {"triton_launch_mode": "embedded", **values}, {})


def test_the_quick_start_takes_about_as_long_as_it_does() -> None:
    # Seen on two cores, more or less busy: 77 to 79 s with max_seconds 3.
    assert job(max_seconds=3.0).estimate_s() == pytest.approx(78, rel=0.25)


def test_lies_between_the_least_and_the_most_measured_time() -> None:
    # 12 phases of 4 to 20 s, a slice's own overhead beside them below its length.
    assert 12 * 4 < job(min_seconds=4.0, max_seconds=20.0).estimate_s() < 12 * 20 * 2


def test_what_is_measured_already_takes_no_time() -> None:
    whole = job()
    assert whole.estimate_s(0) < whole.estimate_s(6) < whole.estimate_s(12) == whole.estimate_s()


def test_a_fixed_rule_takes_the_least_seconds() -> None:
    assert (
        job(stop_rule="fixed", max_seconds=100.0).estimate_s() == job(stop_rule="fixed", max_seconds=10.0).estimate_s()
    )


def test_longer_slices_cost_less_beside_them() -> None:
    assert job(slice_seconds=2.0).estimate_s() < job(slice_seconds=0.5).estimate_s()
