"""What slices say about a phase's throughput and percentiles, with honest intervals.

Neighbouring windows of a server's throughput are autocorrelated and its level
drifts over seconds, so windows are never treated as independent. See
docs/measurement.md for the formulas and the sources.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, floor, log, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_analyzer.core.histogram import RESOLUTION, Histogram, least_count

# The 97.5 % quantile of Student's t for 1, 2, ... 30 degrees of freedom.
T975 = (
    12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281,
    2.2010, 2.1788, 2.1604, 2.1448, 2.1314, 2.1199, 2.1098, 2.1009, 2.0930, 2.0860,
    2.0796, 2.0739, 2.0687, 2.0639, 2.0595, 2.0555, 2.0518, 2.0484, 2.0452, 2.0423,
)  # fmt: skip
Z975 = 1.959964
MIN_SLICES = 3
# A correlation between slices above this one is not believed: it would make the interval endless.
MAX_CORRELATION = 0.9
# The least mean number of replies in a window of the variance within slices.
WINDOW_REPLIES = 10


@dataclass(frozen=True, slots=True)
class SliceStats:
    """The successes of one slice: its length, completions in each whole window of it, their latencies."""

    duration_ns: int
    window_ns: int
    windows: tuple[int, ...]
    latency: Histogram

    @classmethod
    def of(
        cls, done_ns: NDArray[np.int64], latency_ns: NDArray[np.int64], start_ns: int, end_ns: int, window_ns: int
    ) -> SliceStats:
        """From completion times and latencies, int64 [n], all with start_ns <= done_ns < end_ns."""
        whole = (end_ns - start_ns) // window_ns
        number = (done_ns - start_ns) // window_ns
        windows = np.bincount(number[number < whole], minlength=whole)
        return cls(end_ns - start_ns, window_ns, tuple(int(count) for count in windows), Histogram.of(latency_ns))

    @property
    def count(self) -> int:
        """Requests completed in the slice."""
        return self.latency.count

    @property
    def rate(self) -> float:
        """Requests a second; 0 in no time."""
        return self.count / self.duration_ns * 1e9 if self.duration_ns else 0.0

    def to_json(self) -> dict[str, Any]:
        """A JSON-able dict."""
        return {
            "duration_ns": self.duration_ns,
            "window_ns": self.window_ns,
            "windows": list(self.windows),
            "latency": self.latency.to_json(),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> SliceStats:
        """The inverse of `to_json`."""
        latency = Histogram.from_json(data["latency"])
        return cls(data["duration_ns"], data["window_ns"], tuple(data["windows"]), latency)


@dataclass(frozen=True, slots=True)
class Interval:
    """A 95 % confidence interval: mean +- half_width, in the unit of the mean."""

    mean: float
    half_width: float

    @property
    def relative(self) -> float:
        """The half-width as a share of the mean; infinite around 0."""
        return self.half_width / self.mean if self.mean else float("inf")


def t_quantile(dof: int) -> float:
    """The 97.5 % quantile of Student's t; within 1e-4 for every dof >= 1.

    Above 30: Fisher and Cornish's expansion (Abramowitz and Stegun 26.7.5).
    """
    if dof <= len(T975):
        return T975[dof - 1]
    z = Z975
    return z + (z**3 + z) / (4 * dof) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * dof**2)


def throughput_interval(slices: Sequence[SliceStats]) -> Interval | None:
    """Requests a second over all slices, with its interval; None below three slices or without a reply.

    The variance of a slice's mean rate is the larger of two estimates: the spread between slices, which sees the
    drift, and the long-run variance of the windows within them (Newey and West 1987, Bartlett weights), which guards
    against slices that agree by luck. Slices that follow each other closely resemble each other and tell less than
    independent ones: see `_correlation`. t quantile with k - 1 degrees of freedom. Never narrower than one reply.
    """
    measured = [piece for piece in slices if piece.duration_ns]
    k = len(measured)
    replies = sum(piece.count for piece in measured)
    if k < MIN_SLICES or replies == 0:
        return None
    total_s = sum(piece.duration_ns for piece in measured) / 1e9
    mean = replies / total_s
    weights = np.array([piece.duration_ns / 1e9 / total_s * k for piece in measured])
    apart = np.sqrt(weights) * (np.array([piece.rate for piece in measured]) - mean)
    between = float((apart * apart).sum() / (k - 1)) * _correlation(apart)
    variance = max(between, _within(measured, mean) or 0.0) / k
    return Interval(mean, max(t_quantile(k - 1) * sqrt(variance), 1 / total_s))


def _correlation(apart: NDArray[np.float64]) -> float:
    """By how much the variance of a mean grows because its k values, given as deviations, follow a drift.

    (1 + r) / (1 - r), as for a first-order autoregression, r the lag-1 autocorrelation. Its estimate is too low by
    about 1 / k (Marriott and Pope 1954), and neither a negative r, which would narrow the interval, nor one near 1 is
    credible from a handful of slices.
    """
    square = float((apart * apart).sum())
    if square == 0:
        return 1.0
    r = float((apart[1:] * apart[:-1]).sum()) / square + 1 / len(apart)
    r = min(max(r, 0.0), MAX_CORRELATION)
    return (1 + r) / (1 - r)


def _within(slices: Sequence[SliceStats], mean: float) -> float | None:
    """Variance of a slice's mean rate as its windows tell it, (requests/s)^2; None below two windows a slice.

    Windows are put together until they hold ten replies on average: below, the spread of their counts is mostly that of
    whole numbers, and Bartlett weights cannot take out what a regular series of ones and zeros has of it.
    """
    rows = [row - mean for piece in slices if len(row := _window_rates(piece, mean)) >= 2]
    if not rows:
        return None
    n = sum(len(row) for row in rows)
    # Lags grow with the cube root of a slice's windows: the rate that balances bias and variance for Bartlett weights.
    lags = max(1, round(1.5 * (n / len(rows)) ** (1 / 3)))
    long_run = sum(float((row * row).sum()) for row in rows) / n
    for lag in range(1, lags + 1):
        covariance = sum(float((row[lag:] * row[:-lag]).sum()) for row in rows) / n
        long_run += 2 * (1 - lag / (lags + 1)) * covariance
    return max(long_run, 0.0) / (n / len(rows))


def _window_rates(piece: SliceStats, mean: float) -> NDArray[np.float64]:
    """Requests a second in each window, windows put together where they are too short for this rate."""
    together = max(1, ceil(WINDOW_REPLIES / (mean * piece.window_ns / 1e9)))
    whole = len(piece.windows) // together
    counts = np.array(piece.windows[: whole * together], np.float64).reshape(whole, together).sum(axis=1)
    return np.asarray(counts / (together * piece.window_ns / 1e9))


def replies_for_interval(q: float) -> int:
    """How many replies an interval of the q-th percentile needs.

    So many that all of them lie below the true percentile, and then no upper limit exists, with a probability of 5 % at
    most (Wilks 1941): 299 for p99.
    """
    return ceil(log(0.05) / log(q))


def percentile_interval(slices: Sequence[SliceStats], q: float) -> Interval | None:
    """The q-th percentile of latency, ns, over all slices, with its interval; None where samples do not suffice.

    The larger of two half-widths. Delete-one-slice jackknife: valid for quantiles because whole slices, not single
    requests, are left out (Shao and Wu 1989); it takes the dependence within a slice as it is. And the distance to the
    order statistics that bound the percentile were the latencies independent (binomial ranks), which guards against
    slices that agree by luck. Never narrower than a bucket of the histogram.
    """
    k = len(slices)
    merged = Histogram.merge(piece.latency for piece in slices)
    whole = merged.percentile_ns(q)
    if whole is None or k < MIN_SLICES or merged.count < replies_for_interval(q):
        return None
    latencies = [piece.latency for piece in slices]
    left_out = [Histogram.merge(latencies[:n] + latencies[n + 1 :]) for n in range(k)]
    if min(part.count for part in left_out) < least_count(q):
        return None  # nearly all replies fell into one slice: without it the percentile is a mere maximum
    values = np.array([part.percentile_ns(q) for part in left_out])
    apart = values - values.mean()
    variance = (k - 1) / k * float((apart * apart).sum()) * _correlation(apart)
    independent = max(abs(rank_ns - whole) for rank_ns in _binomial_limits(merged, q))
    return Interval(whole, max(t_quantile(k - 1) * sqrt(variance), independent, whole * RESOLUTION))


def _binomial_limits(merged: Histogram, q: float) -> tuple[float, float]:
    """Order statistics around the percentile, 95 % for independent samples (normal approximation of their ranks)."""
    middle, apart = q * merged.count, Z975 * sqrt(merged.count * q * (1 - q))
    low, high = merged.ranked_ns(floor(middle - apart)), merged.ranked_ns(ceil(middle + apart) + 1)
    return low or 0.0, high or 0.0


def remarks(slices: Sequence[SliceStats]) -> tuple[str, ...]:
    """What a person should know of how the throughput moved between slices; empty where it behaved."""
    if len(slices) < 6:
        return ()
    rates = np.array([piece.rate for piece in slices])
    median = float(np.median(rates))
    if median == 0:
        return ()
    found = []
    low = int(rates.argmin())
    if rates[low] < 0.7 * median and np.sort(rates)[1] > 0.85 * median:
        found.append(
            f"slice {low + 1} of {len(rates)} ran at {rates[low] / median:.0%} of the median: something else used the machine?"
        )
    third = len(rates) // 3
    change = float(rates[-third:].mean() / rates[:third].mean() - 1) if rates[:third].mean() else 0.0
    trend = float(np.corrcoef(np.arange(len(rates)), rates)[0, 1]) if rates.std() else 0.0
    if abs(change) > 0.1 and abs(trend) > 0.8:
        found.append(
            f"throughput drifted by {change:+.0%} over the phase: thermal limits, caches warming up, or a neighbour?"
        )
    return tuple(found)
