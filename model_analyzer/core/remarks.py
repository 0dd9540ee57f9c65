"""What a person should know of how a phase went: named tests on its slices, each said in a clause with what to do.

Rows are many, so a remark is short; what it may come from stands once, in docs/measurement.md, "Remarks". How often each speaks where there is nothing to say is measured, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil, erfc, sqrt

import numpy as np

from model_analyzer.core.histogram import Histogram
from model_analyzer.core.motion import Floats, both_tails
from model_analyzer.core.stats import SliceStats, rate_of, throughput_motion
from model_analyzer.core.warmup import GENERATIONS
from model_analyzer.core.wording import figure

# Fewer slices carry none of these tests.
LEAST_SLICES = 6
# A slice this far from the median, in robust standard deviations and as a share, stands out.
OUTLIER_SCORE = 5.0
OUTLIER_SHARE = 0.8
# Two levels: each with a quarter of the slices, the lower below this share of the upper, and this many times further
# apart than the slices of either scatter.
LEVELS_SHARE = 0.85
LEVELS_APART = 2.0
# Mann and Kendall's trend: how surprising, and how large, a change over the phase has to be.
TREND_P = 0.01
TREND_SHARE = 0.10
# How a slice begins against how it ends.
RAMP_P = 0.001
RAMP_SHARE = 0.05
# Moves are told of when a level that stands still is less likely than this, and they are as large as this.
STEADY_BELOW = 0.05
MOVES_SHARE = 0.03
# A pause: a window with less than a fifth of the usual completions, where 25 or more are usual.
PAUSE_SHARE = 0.2
PAUSE_REPLIES = 25
PAUSES = 2
# Two modes: latencies apart by this ratio, each with this share of the replies, half as many at the lowest point between.
MODE_RATIO = 1.3
MODE_SHARE = 0.05
VALLEY = 0.5
MODE_REPLIES = 300
# A closed loop has throughput x mean latency requests in flight. Where that is below this share of its places, it was
# not full while the requests were sent whose replies were measured.
FULL_SHARE = 0.8
# Buckets of the histogram, 128 an octave, are taken 16 at a time to look for modes.
MODE_BUCKETS = 16


def remarks(slices: Sequence[SliceStats]) -> tuple[str, ...]:
    """What stands out in these slices, oldest first; empty where they behaved or are too few to say."""
    pieces = [piece for piece in slices if piece.duration_ns]
    rates = np.array([piece.rate for piece in pieces])
    if len(pieces) < LEAST_SLICES or not float(np.median(rates)) > 0:
        return ()
    return tuple(_found(pieces, rates))


def still_filling(places: int, slices: Sequence[SliceStats]) -> tuple[str, ...]:
    """Of a closed loop without failures: whether its latencies are those of a queue that was still growing, by Little's law.

    places: requests in flight. A warm-up is cut off, so with many requests at a slow server a slice may see nothing but
    replies to those that the loop began with. With two replies and more for each place in each slice it was full.
    """
    rate = rate_of(slices)
    latency = Histogram.merge(piece.latency for piece in slices)
    if latency.mean_ns is None or not rate or latency.count >= GENERATIONS * places * len(slices):
        return ()
    # Few replies: with one more in each slice it would be full.
    most = rate * (1 + len(slices) / latency.count)
    if most * latency.mean_ns / 1e9 >= FULL_SHARE * places:
        return ()
    return (
        f"latencies are too short: {places} requests in flight at {figure(rate)} replies/s take about {places / rate:.2g} s"
        " each, longer than the warm-up; raise slice_seconds and max_seconds to several times that",
    )


def _found(pieces: Sequence[SliceStats], rates: Floats) -> Iterator[str]:
    apart = _outliers(pieces, rates)
    yield from _say_outliers(rates, apart)
    if not apart:
        yield from _two_levels(pieces, rates)
    yield from _drift(rates)
    yield from _ramp(pieces, float(rates.mean()))
    yield from _pauses(pieces)
    if not apart:
        yield from _moves(pieces)
    yield from _two_modes(pieces)


def _outliers(pieces: Sequence[SliceStats], rates: Floats) -> list[int]:
    """Slices far below the others: Iglewicz and Hoaglin's modified z-score; empty where a quarter or more are."""
    median = float(np.median(rates))
    usual = 1.4826 * float(np.median(np.abs(rates - median)))
    # Never less than what counts vary by chance: slices may agree by luck.
    seconds = float(np.median([piece.duration_ns for piece in pieces])) / 1e9
    spread = max(usual, sqrt(median / seconds) if seconds else 0.0)
    low = [
        n for n, rate in enumerate(rates) if median - rate > OUTLIER_SCORE * spread and rate < OUTLIER_SHARE * median
    ]
    return low if len(low) < len(rates) / 4 else []


def _say_outliers(rates: Floats, low: Sequence[int]) -> Iterator[str]:
    if not low:
        return
    shares = ", ".join(f"{rates[n] / np.median(rates):.0%}" for n in low)
    if list(low) == [0]:
        yield f"the first slice ran at {shares} of the median: the model warmed up; model_warmup, or a larger min_seconds"
        return
    which = ", ".join(str(n + 1) for n in low)
    yield f"slice {which} of {len(rates)} ran at {shares} of the median: something else used the machine? measure again"


def _two_levels(pieces: Sequence[SliceStats], rates: Floats) -> Iterator[str]:
    """The machine was slower for a part of the phase: the slices fall into two groups with a gap between them."""
    k, least = len(rates), ceil(len(rates) / 4)
    ordered = np.sort(rates)
    gaps = np.diff(ordered)[least - 1 : k - least]
    below = least + int(gaps.argmax())
    low, high = ordered[:below], ordered[below:]
    seconds = float(np.median([piece.duration_ns for piece in pieces])) / 1e9
    within = max(sqrt((low.var() * len(low) + high.var() * len(high)) / k), sqrt(float(high.mean()) / seconds))
    if low.mean() > LEVELS_SHARE * high.mean() or gaps.max() < LEVELS_APART * within:
        return
    which = _ranges([n + 1 for n, rate in enumerate(rates) if rate <= low[-1]])
    yield (
        f"throughput had two levels: slices {which} of {k} ran at {low.mean() / high.mean():.0%} of the others: a neighbour, or"
        " clocks? measure again, or pin CPUs and clocks"
    )


def _ranges(numbers: Sequence[int]) -> str:
    """`3, 5-8` of ascending numbers."""
    found: list[list[int]] = []
    for number in numbers:
        if found and number == found[-1][1] + 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return ", ".join(f"{first}-{last}" if last > first else str(first) for first, last in found)


def _drift(rates: Floats) -> Iterator[str]:
    """A trend over the phase: Mann and Kendall's test, Theil and Sen's slope."""
    k = len(rates)
    later, earlier = np.tril_indices(k, -1)
    differences = rates[later] - rates[earlier]
    score = float(np.sign(differences).sum())
    z = max(abs(score) - 1, 0.0) / sqrt(k * (k - 1) * (2 * k + 5) / 18)
    slope = float(np.median(differences / (later - earlier)))
    change = slope * (k - 1) / float(np.median(rates))
    if erfc(z / sqrt(2)) < TREND_P and abs(change) > TREND_SHARE:
        yield f"throughput drifted by {change:+.0%} over the phase: measure longer (max_seconds), or once it has settled"


def _ramp(pieces: Sequence[SliceStats], mean: float) -> Iterator[str]:
    """Each slice begins slower than it ends: t-test of the halves' differences."""
    halves = [_half_rates(piece) for piece in pieces if len(piece.windows) >= 2]
    differences = np.array([second - first for first, second in halves])
    k = len(differences)
    if k < LEAST_SLICES or differences.mean() < RAMP_SHARE * mean or differences.std() == 0:
        return
    t = float(differences.mean() / differences.std(ddof=1) * sqrt(k))
    if float(both_tails(np.array([t]), k - 1)[0]) / 2 < RAMP_P:
        share = differences.mean() / mean
        yield f"each slice begins {share:.0%} slower than it ends: the warm-up is too short; a larger slice_seconds"


def _half_rates(piece: SliceStats) -> tuple[float, float]:
    half = len(piece.windows) // 2
    seconds = half * piece.window_ns / 1e9
    return sum(piece.windows[:half]) / seconds, sum(piece.windows[-half:]) / seconds


def _pauses(pieces: Sequence[SliceStats]) -> Iterator[str]:
    """Windows in which nearly nothing was completed; not told where windows hold too few replies to say."""
    counts = np.array([count for piece in pieces for count in piece.windows])
    if not len(counts) or (usual := float(np.median(counts))) < PAUSE_REPLIES:
        return
    pauses = int((counts < PAUSE_SHARE * usual).sum())
    if pauses >= PAUSES:
        yield (
            f"the load stood still in {pauses} of {len(counts)} windows of {pieces[0].window_ns / 1e6:.0f} ms: see the"
            " percentiles above p95"
        )


def _moves(pieces: Sequence[SliceStats]) -> Iterator[str]:
    """The throughput is autocorrelated, by the model of its interval."""
    moved = throughput_motion(pieces)
    if moved is None or moved.steady >= STEADY_BELOW or moved.moving_sd < MOVES_SHARE * moved.mean:
        return
    yield (
        f"throughput moves by ±{moved.moving_sd / moved.mean:.0%}, each move for about {moved.hold_s:.1g} s: worth"
        f" {moved.pieces:.0f} independent values; a larger max_seconds, or more loads in the job"
    )


@dataclass(frozen=True, slots=True)
class _Modes:
    """Where two modes are, ns, and up to which bucket the faster one reaches."""

    fast_ns: float
    slow_ns: float
    valley: int


def _two_modes(pieces: Sequence[SliceStats]) -> Iterator[str]:
    merged = Histogram.merge(piece.latency for piece in pieces)
    modes = find_modes(merged)
    if modes is None:
        return
    shares = np.array([_share_above(piece.latency, modes.valley) for piece in pieces if piece.count])
    slow = _share_above(merged, modes.valley)
    what = f"latency has two modes, {modes.fast_ns / 1e6:.3g} ms and {modes.slow_ns / 1e6:.3g} ms ({slow:.0%} of the replies)"
    # Each slice is of one kind: the machine changes; slices hold both: the requests differ.
    if float(np.median(np.minimum(shares, 1 - shares))) < MODE_SHARE / 2:
        yield f"{what}, at different times: the machine has two speeds; pin CPUs and clocks"
    else:
        yield f"{what}, at all times: read p50 and p99, not the mean"


def _share_above(latency: Histogram, valley: int) -> float:
    return float(latency.counts[latency.buckets > valley].sum()) / max(latency.count, 1)


def find_modes(latency: Histogram) -> _Modes | None:
    """The two modes on either side of the deepest valley of a latency histogram on a logarithmic scale, if it is one.

    A valley: at most half as dense as the lower of the peaks beside it, by more than four standard deviations of counts.
    """
    if latency.count < MODE_REPLIES:
        return None
    first = int(latency.buckets[0]) // MODE_BUCKETS
    places = latency.buckets // MODE_BUCKETS - first
    raw = np.bincount(places, weights=latency.counts, minlength=3)
    density = np.convolve(raw, [0.25, 0.5, 0.25], "same")
    below = np.concatenate([[0.0], np.cumsum(raw)[:-1]]) / latency.count
    best: _Modes | None = None
    deepest = VALLEY
    for n in range(1, len(density) - 1):
        if below[n] < MODE_SHARE or 1 - below[n] - raw[n] / latency.count < MODE_SHARE:
            continue
        left, right = int(density[:n].argmax()), n + 1 + int(density[n + 1 :].argmax())
        peak = min(density[left], density[right])
        fast_ns, slow_ns = (_bucket_ns((place + first) * MODE_BUCKETS + MODE_BUCKETS // 2) for place in (left, right))
        deep = density[n] / peak if peak else 1.0
        clear = peak - density[n] > 4 * sqrt(peak + density[n])
        if deep < deepest and clear and slow_ns > MODE_RATIO * fast_ns:
            deepest = deep
            best = _Modes(fast_ns, slow_ns, (n + first) * MODE_BUCKETS + MODE_BUCKETS // 2)
    return best


def _bucket_ns(bucket: int) -> float:
    """The latency at which a bucket of the histogram begins (128 buckets an octave)."""
    shift = max((bucket >> 7) - 1, 0)
    return float((bucket - (shift << 7)) << shift)
