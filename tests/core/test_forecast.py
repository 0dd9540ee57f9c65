"""What the slices of a phase foretell of its time: seconds known, or None, never a guess in disguise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import sqrt

import numpy as np
import pytest
from adapters.measured import phase, piece

from model_analyzer.core.forecast import Forecast, forecast, worth_a_look
from model_analyzer.core.histogram import Histogram
from model_analyzer.core.measurement import Slice
from model_analyzer.core.stats import Interval, SliceStats, t_quantile
from model_analyzer.core.stopping import StopRule, Verdict
from model_analyzer.core.telemetry import Series, Summary

RULE = StopRule(min_s=2.0, max_s=10.0, precision=0.05, latency_precision=0.10)
UNKNOWN = Verdict(False, False, (), None, None)


def slices(count: int, replies: int = 500, seconds: float = 0.5, failures: Mapping[str, int] = {}) -> list[Slice]:
    length = int(seconds * 1e9)
    stats = SliceStats(length, length, (replies,), Histogram.of(np.full(replies, 1_000_000, np.int64)))
    return [replace(piece(phase(), n), stats=stats, failures=failures) for n in range(count)]


def known_to(throughput: float, p99: float | None = 0.01) -> Verdict:
    """Half-widths as shares."""
    tail = None if p99 is None else Interval(1.0, p99)
    return Verdict(False, False, (), Interval(1000.0, 1000.0 * throughput), tail)


def test_a_half_width_falls_as_student_has_it() -> None:
    """Twice as wide as asked after 4 slices: t(3) / 2 is 1.59, and half of it t(n - 1) / sqrt(n) between 9 and 10 slices."""
    (seconds,) = {forecast(slices(4), RULE, known_to(*each)).seconds for each in [(0.10, 0.01), (0.01, 0.20)]}  # type: ignore[union-attr]
    n = seconds / 0.5
    assert t_quantile(round(n) - 1) / sqrt(n) == pytest.approx(t_quantile(3) / sqrt(4) / 2, rel=0.05)
    assert 8 <= n <= 10


def test_the_wider_of_the_two_decides() -> None:
    both = forecast(slices(8), RULE, known_to(0.06, 0.13))
    assert both == forecast(slices(8), RULE, known_to(0.01, 0.13))
    assert both is not None
    assert both.seconds > forecast(slices(8), RULE, known_to(0.06)).seconds  # type: ignore[union-attr]


def test_it_lies_between_the_least_and_the_most_and_not_in_the_past() -> None:
    assert forecast(slices(4), RULE, known_to(0.001)) == Forecast(2.0)
    assert forecast(slices(4), replace(RULE, min_s=5.0), known_to(0.001)) == Forecast(5.0)
    assert forecast(slices(4), RULE, known_to(0.9)) == Forecast(10.0)
    assert forecast(slices(4), RULE, Verdict(False, False, (), Interval(0.0, 1.0), None)) == Forecast(10.0)
    assert forecast(slices(12), RULE, known_to(0.001)) == Forecast(6.0)
    assert forecast(slices(24), RULE, known_to(0.9)) == Forecast(12.0)


def test_before_there_is_an_interval_nothing_is_foretold() -> None:
    assert forecast([], RULE, UNKNOWN) is None
    assert forecast(slices(3), RULE, UNKNOWN) is None


def test_a_model_so_slow_that_four_slices_fill_the_time_takes_all_of_it() -> None:
    assert forecast(slices(1, 5, seconds=2.5), RULE, UNKNOWN) == Forecast(10.0)


def test_too_few_replies_for_p99_take_until_there_are_enough_at_least() -> None:
    # 40 a second: 299 replies after 7.5 s.
    found = forecast(slices(4, replies=20), RULE, known_to(0.01, None))
    assert found is not None
    assert 7.5 <= found.seconds <= 10
    assert forecast(slices(4, replies=5), RULE, known_to(0.01, None)) == Forecast(10.0)


def test_a_p99_that_differs_too_much_takes_all_of_the_time() -> None:
    assert forecast(slices(4), RULE, known_to(0.01, None)) == Forecast(10.0)


def test_a_count_of_requests_takes_what_the_rate_says_failed_ones_included() -> None:
    rule = replace(RULE, requests=6000)
    assert forecast(slices(2), rule, UNKNOWN) == Forecast(6.0)
    assert forecast(slices(2, failures={"no": 500}), rule, UNKNOWN) == Forecast(3.0)
    assert forecast(slices(2, replies=0), rule, UNKNOWN) is None
    assert forecast(slices(16), rule, UNKNOWN) == Forecast(8.0)


def test_a_fixed_time_is_whole_slices() -> None:
    rule = StopRule("fixed", min_s=2.0, max_s=10.0)
    assert forecast(slices(1), rule, UNKNOWN) == Forecast(2.0)
    assert forecast(slices(1, seconds=0.7), rule, UNKNOWN) == Forecast(pytest.approx(2.1))


def test_windows_that_are_to_agree_foretell_nothing() -> None:
    assert forecast(slices(5), StopRule("perf_analyzer"), known_to(0.01)) is None


# -- GPU telemetry -------------------------------------------------------------------------------------

GPU = "GPU-0"


def watched(fresh: tuple[int, ...], cadence_s: float | None) -> list[Slice]:
    """Slices with so many refreshes inside."""
    cadences = {} if cadence_s is None else {"triton": cadence_s}
    return [
        replace(
            each,
            gpus=(GPU,),
            cadences=cadences,
            telemetry={Series("nv_gpu_utilization", GPU): Summary(count, count, 0.5, 0.5, 1.0)},
        )
        for each, count in zip(slices(len(fresh)), fresh, strict=True)
    ]


@pytest.mark.parametrize(
    ("fresh", "cadence_s", "wanted", "waits_s"),
    [
        ((0, 0), 30.0, 1, 15.0),
        ((0, 0), 30.0, 3, 75.0),
        # One is there, and the last slice holds two all the same: an energy counter tells nothing between slices.
        ((0, 1), 30.0, 2, 45.0),
        ((0, 2), 30.0, 3, 15.0),
        # 3 s are measured yet, in which 6 come.
        ((1, 1), 0.5, 5, 0.0),
        ((0, 0), None, 3, None),
        ((2, 1), None, 3, 0.0),
    ],
)
def test_the_cadence_once_seen_says_how_long_the_last_slice_waits(
    fresh: tuple[int, ...], cadence_s: float | None, wanted: int, waits_s: float | None
) -> None:
    rule = StopRule("fixed", min_s=4.0)
    assert forecast(watched(fresh, cadence_s), rule, UNKNOWN, wanted) == Forecast(4.0, pytest.approx(waits_s))


def test_where_none_are_asked_for_or_there_is_no_gpu_nothing_waits() -> None:
    rule = StopRule("fixed", min_s=4.0)
    assert forecast(watched((0, 0), 30.0), rule, UNKNOWN) == Forecast(4.0)
    assert forecast(slices(2), rule, UNKNOWN, 3) == Forecast(4.0)


def test_intervals_are_looked_at_now_and_then_where_no_other_reason_is() -> None:
    assert [n for n in range(40) if worth_a_look(n, RULE)] == [4, 8, 16, 32]
    assert not worth_a_look(4, replace(RULE, requests=5))
    assert not worth_a_look(4, StopRule("fixed"))
