"""Repeats of a phase, each with its model loaded anew: what they amount to together, and which of them are there.

Servers differ between restarts by more than they differ within one (Treadmill, ISCA 2016), and no time in one of them
shows it. So a phase is measured again after a reload, and the spread between the repeats is part of its interval.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from math import erfc, expm1, hypot, log, sqrt
from typing import NamedTuple, Protocol

import numpy as np

from model_analyzer.core.histogram import Histogram
from model_analyzer.core.measurement import Measurement, Slice
from model_analyzer.core.motion import Motion
from model_analyzer.core.stats import (
    WIDEST,
    Z975,
    Interval,
    SliceStats,
    mean_interval,
    percentile_interval,
    rate_of,
    t_quantile,
    throughput_interval,
)
from model_analyzer.core.stopping import StopRule, Verdict, imprecise, judge

# Repeats differ by more than chance when a test of their means says so at this level, and by this share at least.
DIFFER_P = 0.01
DIFFER_SHARE = 0.02


@dataclass(frozen=True, slots=True)
class Spread:
    """How far repeats lie apart, as a share of the whole.

    cv: coefficient of variation of the repeats' values. largest: largest / smallest. half_width: of the 95 % interval
    of their mean, by the spread between them alone.
    """

    cv: float
    largest: float
    half_width: float


def by_repeat(slices: Sequence[Slice]) -> list[list[Slice]]:
    """The slices of each repeat, in the order of the repeats."""
    ordered = sorted(slices, key=lambda piece: piece.repeat)
    return [list(pieces) for _, pieces in groupby(ordered, key=lambda piece: piece.repeat)]


def judge_repeats(repeats: Sequence[Sequence[SliceStats]], rule: StopRule) -> Verdict:
    """What whole repeats say together: done, with intervals that hold the spread between them.

    Of one repeat that is `judge`. Of several: where the rule asks for a precision, the intervals of all together are to
    have it; where it does not, each repeat is to have met it.
    """
    if len(repeats) == 1:
        return replace(judge(repeats[0], rule), done=True)
    throughput, p99 = throughput_over(repeats), percentile_over(repeats, 0.99)
    if rule.kind == "interval" and rule.requests is None:
        reasons = imprecise(_all(repeats), rule, throughput, p99)
    else:
        verdicts = [judge(slices, rule) for slices in repeats]
        reasons = tuple(f"repeat {n + 1}: {why}" for n, each in enumerate(verdicts) for why in each.reasons)
    return Verdict(True, not reasons, reasons, throughput, p99)


def throughput_over(repeats: Sequence[Sequence[SliceStats]], moved: Motion | None = None) -> Interval | None:
    """Requests a second over all repeats; None where they are too short or one has no reply.

    The half-width is the larger of two: that of all slices as one series, and Student's t over the repeats about the
    whole. The second holds the first already, but for its luck: three repeats may agree. Of one repeat it is the first.
    moved: `throughput_motion` of all slices, where it is known already.
    """
    within = throughput_interval(_all(repeats), moved)
    if within is None or len(repeats) == 1:
        return within
    spread = throughput_spread(repeats)
    return None if spread is None else Interval(within.mean, max(within.half_width, spread.half_width * within.mean))


def percentile_over(repeats: Sequence[Sequence[SliceStats]], q: float, moved: Motion | None = None) -> Interval | None:
    """The q-th percentile of latency, ns, over all repeats, likewise; in the logarithm, as within a repeat."""
    within = percentile_interval(_all(repeats), q, moved)
    return within if len(repeats) == 1 else _widened(within, percentile_spread(repeats, q))


def mean_over(repeats: Sequence[Sequence[SliceStats]], moved: Motion | None = None) -> Interval | None:
    """The mean latency, ns, over all repeats, likewise."""
    within = mean_interval(_all(repeats), moved)
    return within if len(repeats) == 1 else _widened(within, mean_spread(repeats))


def _widened(within: Interval | None, spread: Spread | None) -> Interval | None:
    """The interval with the spread between the repeats, which is one of the logarithm."""
    if within is None or spread is None or spread.half_width > WIDEST:
        return None
    return Interval(within.mean, max(within.half_width, within.mean * expm1(spread.half_width)))


def throughput_spread(repeats: Sequence[Sequence[SliceStats]]) -> Spread | None:
    """How far the throughput of the repeats lies apart; None below two, or where one had no reply."""
    values = [rate_of(slices) for slices in repeats]
    whole = rate_of(_all(repeats))
    return spread_of(values, lambda value: value / whole - 1)


def percentile_spread(repeats: Sequence[Sequence[SliceStats]], q: float) -> Spread | None:
    """How far the q-th percentile of the repeats lies apart, likewise; its half-width is one of the logarithm."""
    values = [_percentile(slices, q) for slices in repeats]
    whole = _percentile(_all(repeats), q)
    return spread_of(values, lambda value: log(value / whole))


def mean_spread(repeats: Sequence[Sequence[SliceStats]]) -> Spread | None:
    """How far the mean latency of the repeats lies apart, likewise."""
    values = [_mean(slices) for slices in repeats]
    whole = _mean(_all(repeats))
    return spread_of(values, lambda value: log(value / whole))


def spread_of(values: Sequence[float], apart: Callable[[float], float]) -> Spread | None:
    """How far the repeats' values lie apart; None below two, or where one is 0. apart: a value from the whole, as a share."""
    n = len(values)
    if n < 2 or min(values) <= 0:
        return None
    half_width = t_quantile(n - 1) * sqrt(sum(apart(value) ** 2 for value in values) / n / (n - 1))
    return Spread(float(np.std(values, ddof=1) / np.mean(values)), max(values) / min(values), half_width)


def _all(repeats: Sequence[Sequence[SliceStats]]) -> list[SliceStats]:
    return [piece for slices in repeats for piece in slices]


def _percentile(slices: Sequence[SliceStats], q: float) -> float:
    return Histogram.merge(piece.latency for piece in slices).percentile_ns(q) or 0.0


def _mean(slices: Sequence[SliceStats]) -> float:
    return Histogram.merge(piece.latency for piece in slices).mean_ns or 0.0


class Compared(NamedTuple):
    """A figure of the repeats: its name, how far they lie apart, and the interval of each by itself (None: not known)."""

    name: str
    spread: Spread | None
    within: Sequence[Interval | None]


def compared(repeats: Sequence[Sequence[SliceStats]]) -> Iterator[Compared]:
    """Of whole requests."""
    yield Compared("throughput", throughput_spread(repeats), [throughput_interval(slices) for slices in repeats])
    each = [percentile_interval(slices, 0.99) for slices in repeats]
    yield Compared("p99 latency", percentile_spread(repeats, 0.99), each)


def differences(figures: Iterable[Compared], repeats: int) -> tuple[str, ...]:
    """A remark where the repeats differ by more than their own intervals explain, with what to do."""
    if repeats < 2:
        return ()
    found = []
    for name, spread, within in figures:
        known = [each for each in within if each is not None]
        if spread is not None and len(known) == len(within) and _differ(known):
            found.append(f"{name} by {spread.largest - 1:.0%}")
    if not found:
        return ()
    return (
        f"results differ between reloads: {listed(found)} (largest / smallest of {repeats} repeats), more than the interval"
        " of each explains; compare variants by several repeats",
    )


def listed(words: Sequence[str]) -> str:
    """`a, b and c`."""
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def _differ(values: Sequence[Interval]) -> bool:
    """Whether the two furthest apart differ, by a test that allows for all pairs (Bonferroni)."""
    low, high = min(values, key=lambda each: each.mean), max(values, key=lambda each: each.mean)
    if high.mean < (1 + DIFFER_SHARE) * low.mean:
        return False
    pairs = len(values) * (len(values) - 1) / 2
    error = hypot(low.half_width, high.half_width) / Z975
    return erfc((high.mean - low.mean) / error / sqrt(2)) * pairs < DIFFER_P if error else True


class Outcome(Protocol):
    """What is asked here of a measurement, which a store knows without reading it."""

    @property
    def status(self) -> str: ...  # noqa: D102
    @property
    def repeats(self) -> int: ...  # noqa: D102


class Piece(Protocol):
    """What is asked here of a slice."""

    @property
    def repeat(self) -> int: ...  # noqa: D102


def whole_repeats(measurement: Outcome | None) -> int:
    """How many repeats a row stands for: those of a store of before there were repeats for one."""
    if measurement is None:
        return 0
    return measurement.repeats if measurement.status == "failed" else max(measurement.repeats, 1)


def enough(measurement: Outcome | None, asked: int) -> bool:
    """Whether a phase need not be measured any more: as many repeats as asked for, or it makes no sense."""
    if measurement is None or measurement.status == "failed":
        return False
    return measurement.status == "skipped" or whole_repeats(measurement) >= asked


def unfinished(measurement: Outcome, asked: int) -> bool:
    """Whether a row has figures, and of fewer repeats than asked for."""
    return measurement.status != "failed" and not enough(measurement, asked)


def begun(measurement: Outcome | None, slices: Iterable[Piece]) -> int:
    """How many repeats of an unfinished phase need not be measured again: those whose slices are all there."""
    whole = whole_repeats(measurement)
    return whole if {*range(whole)} <= {piece.repeat for piece in slices} else 0


def as_asked(measurement: Measurement, asked: int) -> Measurement:
    """The row as it is shown: one of fewer repeats than asked for is not finished, and says so."""
    whole = whole_repeats(measurement)
    if not unfinished(measurement, asked):
        return measurement
    note = f"unfinished: {whole} of {asked} repeats; the same command measures the others"
    return replace(measurement, status="unstable", notes=(note, *measurement.notes))
