"""When a phase has been measured enough, as a pure function of its slices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Literal

from model_analyzer.core.stats import (
    Interval,
    SliceStats,
    percentile_interval,
    span_s,
    throughput_interval,
    throughput_motion,
    why_no_percentile,
)
from model_analyzer.core.wording import counted

# Below this many slices a spread between slices says little (t with 3 degrees of freedom is 3.18 already).
INTERVAL_SLICES = 4
# A phase that has the machine for itself is not done before so many seconds have gone by since its first slice (nor after
# max_s): a calm of three seconds is often no more than that. Where loads take turns the time goes by on its own.
LEAST_SPAN_S = 8.0
# perf_analyzer: largest / smallest of the last three windows (its docs, --stability-percentage; its inference_profiler.cc).
PERF_ANALYZER_WINDOWS = 3
PERF_ANALYZER_RATIO = 1.10
# The slowest exporter cadence that a phase is extended for: the default 30 s, with room.
EXPORTER_CADENCE_S = 45.0


@dataclass(frozen=True, slots=True)
class StopRule:
    """How long a phase is measured. Seconds are measured time; precisions are half-widths as a share of the value.

    requests: until so many are measured, good or failed, and then whatever else is known; None: as `kind` says.
    """

    kind: Literal["interval", "perf_analyzer", "fixed"] = "interval"
    min_s: float = 2.0
    max_s: float = 10.0
    precision: float = 0.05
    latency_precision: float = 0.10
    requests: int | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """done: no further slice. stable: the rule is met. reasons: why it is not, in words. Intervals where estimable.

    missing: how many refreshes of the GPU telemetry are all that keeps it from being done.
    """

    done: bool
    stable: bool
    reasons: tuple[str, ...]
    throughput: Interval | None
    p99: Interval | None
    missing: int = 0


def judge(
    slices: Sequence[SliceStats], rule: StopRule, fresh: int | None = None, wanted: int = 0, failed: int = 0
) -> Verdict:
    """Say whether these slices suffice.

    fresh: distinct refreshes of the GPU telemetry inside them, None where there is no GPU or none comes any more.
    wanted: how many are asked for; only for these is a phase extended beyond max_s, and not for ever. failed: requests that
    failed inside the slices.
    """
    measured_s = _measured_s(slices)
    moved = throughput_motion(slices)
    throughput, p99 = throughput_interval(slices, moved), percentile_interval(slices, 0.99, moved)
    reasons = _reasons(slices, rule, throughput, p99)
    if rule.requests is None:
        stable = not reasons and measured_s >= rule.min_s * 0.999
        out_of_time = measured_s >= rule.max_s * 0.999
    else:
        stable, out_of_time = requests_left(slices, rule.requests, failed) == 0, False
    done = (stable and _long_enough(slices, rule)) or out_of_time
    if done and fresh is not None and fresh < wanted and measured_s < max(rule.max_s, wanted * EXPORTER_CADENCE_S):
        return Verdict(False, stable, (), throughput, p99, wanted - fresh)
    return Verdict(done, stable, () if stable else reasons, throughput, p99)


def may_be_done(slices: Sequence[SliceStats], rule: StopRule, failed: int = 0) -> bool:
    """Whether these slices can suffice at all, whatever their figures say; False: `judge` would say that they do not.

    It costs next to nothing, where the intervals of `judge` take milliseconds a slice.
    """
    if rule.requests is not None:
        return requests_left(slices, rule.requests, failed) == 0
    measured_s = _measured_s(slices)
    return (measured_s >= rule.min_s * 0.999 and _long_enough(slices, rule)) or measured_s >= rule.max_s * 0.999


def _measured_s(slices: Sequence[SliceStats]) -> float:
    return sum(piece.duration_ns for piece in slices) / 1e9


def requests_left(slices: Sequence[SliceStats], requests: int, failed: int = 0) -> int:
    """How many of the requests asked for are not measured yet. failed: those that failed inside the slices."""
    return max(0, requests - failed - sum(piece.count for piece in slices))


def _long_enough(slices: Sequence[SliceStats], rule: StopRule) -> bool:
    seconds = span_s(slices)
    kind = "fixed" if rule.requests is not None else rule.kind
    return kind != "interval" or seconds is None or seconds >= LEAST_SPAN_S


def _reasons(
    slices: Sequence[SliceStats], rule: StopRule, throughput: Interval | None, p99: Interval | None
) -> tuple[str, ...]:
    if rule.kind == "fixed" or rule.requests is not None:
        return ()
    if rule.kind == "perf_analyzer":
        return _windows_disagree(slices)
    if len(slices) < INTERVAL_SLICES:
        return (f"{counted(len(slices), 'slice')}, {INTERVAL_SLICES} are needed to judge the intervals by",)
    return imprecise(slices, rule, throughput, p99)


def imprecise(
    slices: Sequence[SliceStats], rule: StopRule, throughput: Interval | None, p99: Interval | None
) -> tuple[str, ...]:
    """Which of these intervals of the slices is wider than the rule asks, in words; none where both are as asked."""
    found = []
    if throughput is None:
        found.append("throughput has no interval: no reply")
    elif throughput.relative > rule.precision:
        reached, asked = _apart(throughput.relative, rule.precision)
        found.append(f"throughput is known to ±{reached} only (asked: {asked})")
    if p99 is None:
        found.append(f"p99 latency has no interval: {why_no_p99(slices)}")
    elif p99.relative > rule.latency_precision:
        reached, asked = _apart(p99.relative, rule.latency_precision)
        found.append(f"p99 latency is known to ±{reached} only (asked: {asked})")
    return tuple(found)


def why_no_p99(slices: Sequence[SliceStats]) -> str:
    """Why there is no interval of p99, where there is none."""
    return why_no_percentile(slices, 0.99) or "it differs too much between the slices"


def _apart(reached: float, asked: float) -> tuple[str, str]:
    """Both as percentages, the one reached with as many digits as it takes to be seen above the one asked for."""
    digits = next((n for n in range(4) if round(reached * 100, n) > asked * 100), 4)
    return f"{reached * 100:.{digits}f}%", f"{asked * 100:g}%"


def _windows_disagree(slices: Sequence[SliceStats]) -> tuple[str, ...]:
    last = slices[-PERF_ANALYZER_WINDOWS:]
    latencies = [mean_ns for piece in last if (mean_ns := piece.latency.mean_ns) is not None]
    if len(latencies) < PERF_ANALYZER_WINDOWS:
        return (f"fewer than {PERF_ANALYZER_WINDOWS} windows with replies",)
    found = []
    for name, values in (("throughput", [piece.rate for piece in last]), ("latency", latencies)):
        # A latency of 0 ns or a window of no length is no measurement, and so not stable.
        ratio = max(values) / min(values) if min(values) > 0 else float("inf")
        if ratio > PERF_ANALYZER_RATIO:
            spread, limit = _apart(ratio - 1, PERF_ANALYZER_RATIO - 1)
            found.append(f"{name} of the last three windows differs by {spread} (limit {limit})")
    return tuple(found)


def refresh_patience_s(cadence_s: float | None) -> float:
    """How long to wait for a refresh of the GPU telemetry. cadence_s: how often it has refreshed; None: not known."""
    return EXPORTER_CADENCE_S if cadence_s is None else min(EXPORTER_CADENCE_S, max(5.0, 3 * cadence_s))


def slice_seconds(period_s: float, base_s: float, max_s: float) -> float:
    """How long a slice should be: `base_s`, or longer for a slow load, so that it holds a handful of replies.

    period_s: a request's latency; of an open loop the time between two requests, or two replies. max_s: that of the stop rule. As many slices as an
    interval needs should fit into it, unless a slice then held less than two periods.
    """
    longest = min(max(max_s / INTERVAL_SLICES, 2 * period_s), max_s)
    return max(min(5 * period_s, longest), base_s)


def fitted(seconds: float, left_s: float) -> float:
    """The length of a slice, so that slices about as long fill exactly what is left of the phase's time.

    seconds: how long it should be. left_s: until the stop rule's most seconds; 0 or less: they are over, and it is not they
    that end the phase.
    """
    return left_s / max(1, round(left_s / seconds)) if left_s > 0 else seconds


def whole_rounds(seconds: float, round_s: float, max_s: float) -> float:
    """The length of a slice in whole rounds of custom intervals, so that each slice is sent the same.

    round_s: how long a round takes; 0: there is none. max_s: that of the stop rule. A round of which not as many as an
    interval needs slices fit into it is not waited for: slices then begin at places spread over the round.
    """
    if not 0 < round_s <= max_s / INTERVAL_SLICES:
        return seconds
    return ceil(round(seconds / round_s, 6)) * round_s
