"""What is told of an open loop: late sends, full places, a server that does not keep up."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from model_analyzer.core import open_loop
from model_analyzer.core.histogram import Histogram
from model_analyzer.core.load import Load, of_intervals
from model_analyzer.core.measurement import Slice
from model_analyzer.core.stats import SliceStats

MS = 1_000_000


def piece(replies: int = 100, lag_ms: float = 0.05, latency_ms: float = 10.0, sent: int = 100, **changes: Any) -> Slice:
    """A slice of a second."""
    latency = Histogram.of(np.full(replies, int(latency_ms * MS)))
    stats = SliceStats(1000 * MS, 50 * MS, (replies // 20,) * 20, latency)
    lag = Histogram.of(np.full(sent, int(lag_ms * MS)))
    values: dict[str, Any] = {
        "phase_id": "id", "round": 0, "started_at": "2026-01-01T10:00:00.000+00:00", "warmup_s": 0.2, "stats": stats,
        "failures": {}, "server": None, "server_problem": None, "client_cpu_ratio": 0.1, "client_lag_s": 0.0, "gpus": (),
        "telemetry": {}, "cadences": {}, "problems": {}, "send_lag": lag,
    }  # fmt: skip
    return Slice(**{**values, **changes})


RATE = Load("request_rate", 100.0, "poisson")


def test_send_lag_and_delayed_requests_are_figures_of_the_row() -> None:
    values, reasons = open_loop.values(RATE, [piece(lag_ms=1.0, delayed=3), piece(lag_ms=2.0, delayed=4)])
    assert values["send_lag_p99"] == pytest.approx(2 * MS, rel=0.01)
    assert (values["send_lag_max"], values["requests_delayed"]) == (2 * MS, 7)
    assert not reasons


def test_a_closed_loop_has_none_and_says_why() -> None:
    values, reasons = open_loop.values(Load("concurrency", 4), [piece(send_lag=None)])
    assert set(values.values()) == {None}
    assert set(reasons.values()) == {"a closed loop has no schedule"}
    assert not [*open_loop.notes(Load("concurrency", 4), [piece(replies=1, send_lag=None, delayed=1)])]


def test_a_full_house_is_told_with_how_often() -> None:
    capped = Load("request_rate", 100.0, max_concurrency=4)
    (note,) = open_loop.notes(capped, [piece(delayed=30), piece(delayed=10)])
    assert note == "40 of 200 requests waited because max_concurrency (4) were in flight; their latency holds the wait"
    (note,) = open_loop.notes(RATE, [piece(delayed=1)])
    assert "1024, the most, were in flight" in note


@pytest.mark.parametrize(
    ("load", "replies", "told"),
    [
        (RATE, 100, False),
        (RATE, 70, False),  # 3 deviations of 100 are 30
        (RATE, 69, True),
        (Load("request_rate", 10_000.0), 9_600, False),
        (Load("request_rate", 10_000.0), 9_400, True),
        (of_intervals([10 * MS]), 80, False),
        (of_intervals([10 * MS]), 50, True),
    ],
)
def test_a_server_that_does_not_keep_up_is_told(load: Load, replies: int, told: bool) -> None:
    assert any("does not keep up" in note for note in open_loop.overload(load, [piece(replies)])) == told


def test_what_was_offered_and_answered_is_said_in_whole_numbers_and_no_wait_is_blamed() -> None:
    load, slices = Load("request_rate", 20_000.0), [piece(replies=8_000, delayed=900)]
    (note,) = open_loop.overload(load, slices)
    assert not [*open_loop.notes(load, slices)]
    assert note == "the server does not keep up: 20000 requests a second offered, 8000 answered"


def test_a_server_that_keeps_up_has_the_limit_that_was_asked_for() -> None:
    assert open_loop.most_inflight(RATE, [piece(100)]) is None
    assert open_loop.most_inflight(Load("request_rate", 100.0, max_concurrency=4), [piece(100)]) == 4
    assert open_loop.most_inflight(RATE, []) is None


@pytest.mark.parametrize(
    ("rate", "replies", "most"), [(100.0, 8, 80), (100.0, 1, 16), (1000.0, 400, 1024), (100.0, 0, 16)]
)
def test_one_that_does_not_is_given_ten_seconds_of_work(rate: float, replies: int, most: int) -> None:
    assert open_loop.most_inflight(Load("request_rate", rate), [piece(replies)]) == most
    assert open_loop.most_inflight(Load("request_rate", rate, max_concurrency=20), [piece(replies)]) == min(most, 20)


def test_failed_requests_are_answered_ones() -> None:
    assert not open_loop.is_behind(RATE, [piece(10, failures={"busy": 90})])


@pytest.mark.parametrize(
    ("lag_ms", "latency_ms", "late"), [(0.9, 1.0, False), (1.1, 1.2, True), (1.9, 10.0, False), (2.1, 10.0, True)]
)
def test_a_client_that_is_late_is_the_limit(lag_ms: float, latency_ms: float, late: bool) -> None:
    assert (open_loop.late([piece(lag_ms=lag_ms, latency_ms=latency_ms)]) is not None) == late


def test_intervals_are_named_by_their_mean_rate_and_known_by_their_content() -> None:
    load = of_intervals([100 * MS, 200 * MS, 500 * MS], 8, 2.0)
    assert (load.kind, load.value, load.distribution) == ("request_rate", 3.75, "intervals")
    assert (load.max_concurrency, load.ramp_s) == (8, 2.0)
    assert load == of_intervals([100 * MS, 200 * MS, 500 * MS], 8, 2.0)
    # The same mean, another pattern: another load.
    assert load != of_intervals([200 * MS, 100 * MS, 500 * MS], 8, 2.0)
    assert of_intervals([333_333]).value == 3000.0
