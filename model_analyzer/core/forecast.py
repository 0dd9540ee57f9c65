"""How long a phase will most likely be measured, told by the slices that it has. Pure.

What a stop rule leaves open is when intervals will be narrow enough, how fast a model answers and how often an exporter
refreshes. A few slices show all three.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from model_analyzer.core.measurement import Slice
from model_analyzer.core.reduce import gpu_refreshes
from model_analyzer.core.stats import Interval, SliceStats, replies_for_interval, t_quantile, why_no_percentile
from model_analyzer.core.stopping import INTERVAL_SLICES, PERF_ANALYZER_WINDOWS, StopRule, Verdict, requests_left
from model_analyzer.core.telemetry import preferred


@dataclass(frozen=True, slots=True)
class Forecast:
    """Measured seconds of a phase in its repeat, in all: in slices as they come, and then in one that waits for GPU telemetry.

    waits_s: None: it will wait, and how often the telemetry refreshes has not shown yet.
    """

    seconds: float
    waits_s: float | None = 0.0


def worth_a_look(slices: int, rule: StopRule) -> bool:
    """Whether intervals are to be had for the forecast alone: after 4, 8, 16, ... slices, as they take milliseconds."""
    return (
        rule.kind == "interval" and rule.requests is None and slices >= INTERVAL_SLICES and slices & (slices - 1) == 0
    )


def forecast(slices: Sequence[Slice], rule: StopRule, verdict: Verdict, refreshes: int = 0) -> Forecast | None:
    """How long the phase takes; None where its slices do not tell.

    slices: of this repeat. verdict: what was said of them, with intervals where it was looked at them. refreshes: how many
    of the GPU telemetry are asked for; 0: none, or they are not waited for any longer.
    """
    stats = [piece.stats for piece in slices]
    failed = sum(sum(piece.failures.values()) for piece in slices)
    seconds = _seconds(stats, rule, verdict, failed)
    if seconds is None:
        return None
    more_s = max(seconds - sum(piece.seconds for piece in slices), 0.0)
    return Forecast(seconds, _waits_s(slices, refreshes, more_s) if refreshes else 0.0)


def _seconds(slices: Sequence[SliceStats], rule: StopRule, verdict: Verdict, failed: int) -> float | None:
    measured_s = sum(piece.duration_ns for piece in slices) / 1e9
    if not measured_s:
        return None
    if rule.requests is not None:
        done = failed + sum(piece.count for piece in slices)
        return measured_s * (1 + requests_left(slices, rule.requests, failed) / done) if done else None
    each_s = measured_s / len(slices)
    least_s, most_s = _whole(rule.min_s, each_s), _whole(rule.max_s, each_s)
    if rule.kind == "fixed":
        return max(least_s, measured_s)
    least_s = max(least_s, each_s * (INTERVAL_SLICES if rule.kind == "interval" else PERF_ANALYZER_WINDOWS))
    if least_s >= most_s:
        return max(most_s, measured_s)
    if rule.kind != "interval" or verdict.throughput is None:
        return None
    precise_s = max(
        each_s * _slices_until(len(slices), verdict.throughput, rule.precision),
        _until_p99_s(slices, verdict.p99, rule.latency_precision, most_s),
    )
    return max(min(max(precise_s, least_s), most_s), measured_s)


def _whole(seconds: float, each_s: float) -> float:
    """As whole slices, with the tolerance that the stop rule has."""
    return ceil(seconds * 0.999 / each_s) * each_s


def _slices_until(slices: int, interval: Interval, asked: float) -> float:
    """After how many slices an interval is as narrow as asked: its half-width falls as t / sqrt(slices)."""
    wide, needed = interval.relative / asked, float(slices)
    if wide <= 1 or wide == float("inf"):
        return wide * needed
    # t falls, too, while there are few slices: where it will be is found by looking there.
    for _ in range(4):
        narrower = t_quantile(max(int(needed) - 1, 1)) / t_quantile(max(slices - 1, 1))
        needed = slices * (wide * narrower) ** 2
    return needed


def _until_p99_s(slices: Sequence[SliceStats], p99: Interval | None, asked: float, most_s: float) -> float:
    measured_s = sum(piece.duration_ns for piece in slices) / 1e9
    if p99 is not None:
        return _slices_until(len(slices), p99, asked) * measured_s / len(slices)
    replies = sum(piece.count for piece in slices)
    if why_no_percentile(slices, 0.99) is None or not replies:
        return most_s
    # There will be an interval once there are replies enough; how wide a one nobody knows.
    return (min(measured_s * replies_for_interval(0.99) / replies, most_s) + most_s) / 2


def _waits_s(slices: Sequence[Slice], wanted: int, more_s: float) -> float | None:
    """How long the last slice waits for refreshes of the GPU telemetry; None where they have not shown how often they come.

    more_s: measured seconds until everything else is known. They bring refreshes, too.
    """
    fresh, cadence_s = gpu_refreshes(slices), preferred(slices[-1].cadences)
    if fresh is None or fresh >= wanted:
        return 0.0
    if not cadence_s:
        return None
    missing = ceil(wanted - fresh - more_s / cadence_s)
    if missing <= 0:
        return 0.0
    if not any((gpu_refreshes([piece]) or 0) >= 2 for piece in slices):
        missing = max(missing, min(wanted, 2))
    # The first of them comes half a cadence after the slice has begun, on average.
    return (missing - 0.5) * cadence_s
