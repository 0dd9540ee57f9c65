"""What slices say about a phase's throughput and percentiles, with honest intervals.

Neighbouring windows of a server's throughput are autocorrelated and its level
drifts over seconds, so windows are never treated as independent: see
`core/motion.py`, and docs/measurement.md for the formulas and the sources.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil, expm1, floor, log, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_analyzer.core.histogram import RESOLUTION, Histogram, least_count
from model_analyzer.core.motion import Motion, motion
from model_analyzer.core.streams import StreamStats
from model_analyzer.core.wording import counted

# The 97.5 % quantile of Student's t for 1, 2, ... 30 degrees of freedom.
T975 = (
    12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281,
    2.2010, 2.1788, 2.1604, 2.1448, 2.1314, 2.1199, 2.1098, 2.1009, 2.0930, 2.0860,
    2.0796, 2.0739, 2.0687, 2.0639, 2.0595, 2.0555, 2.0518, 2.0484, 2.0452, 2.0423,
)  # fmt: skip
Z975 = 1.959964
MIN_SLICES = 3
# A slice is looked at in so many stretches, fewer where they would hold less than ten replies on average (below, the
# spread of their counts is mostly that of whole numbers) or where a long phase has more than enough of them.
STRETCHES = 5
STRETCH_REPLIES = 10
MOST_STRETCHES = 200
# A percentile is formed anew for so many sections of the phase.
SECTIONS = 4
# The interval of a percentile's logarithm may be so wide: a factor of e either way. Beyond, nothing is known.
WIDEST = 1.0
# How far the throughput's verdict, moving or steady, is believed for the percentile too.
STEADY_ODDS = (0.05, 20.0)


@dataclass(frozen=True, slots=True)
class SliceStats:
    """The successes of one slice: its length, completions in each whole window of it, their latencies.

    stream: of streamed replies; None: each request has one. start_ns: when it began, on a clock that only ever steps back when the machine starts again; None: right after the
    slice before. edges: requests, what `shared_edges` says of those that lie across an end of the slice.
    """

    duration_ns: int
    window_ns: int
    windows: tuple[int, ...]
    latency: Histogram
    start_ns: int | None = None
    stream: StreamStats | None = None
    edges: float = 0.0

    @classmethod
    def of(
        cls,
        done_ns: NDArray[np.int64],
        latency_ns: NDArray[np.int64],
        start_ns: int,
        end_ns: int,
        window_ns: int,
        stream: StreamStats | None = None,
        edges: float = 0.0,
    ) -> SliceStats:
        """From completion times and latencies, int64 [n], all with start_ns <= done_ns < end_ns."""
        windows = window_counts(done_ns, start_ns, end_ns, window_ns)
        return cls(end_ns - start_ns, window_ns, windows, Histogram.of(latency_ns), start_ns, stream, edges)

    @property
    def count(self) -> int:
        """Requests completed in the slice."""
        return self.latency.count

    @property
    def served(self) -> float:
        """Requests served in the slice: those across an end of it by their share."""
        return self.count + self.edges

    @property
    def rate(self) -> float:
        """Requests a second; 0 in no time."""
        return self.served / self.duration_ns * 1e9 if self.duration_ns else 0.0

    def to_json(self) -> dict[str, Any]:
        """A JSON-able dict."""
        return {
            "duration_ns": self.duration_ns,
            "window_ns": self.window_ns,
            "windows": list(self.windows),
            "latency": self.latency.to_json(),
            "start_ns": self.start_ns,
            **({} if self.stream is None else {"stream": self.stream.to_json()}),
            **({"edges": self.edges} if self.edges else {}),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> SliceStats:
        """The inverse of `to_json`."""
        latency = Histogram.from_json(data["latency"])
        stream = StreamStats.from_json(data["stream"]) if "stream" in data else None
        return cls(
            data["duration_ns"],
            data["window_ns"],
            tuple(data["windows"]),
            latency,
            data.get("start_ns"),
            stream,
            data.get("edges", 0.0),
        )


def window_counts(at_ns: NDArray[np.int64], start_ns: int, end_ns: int, window_ns: int) -> tuple[int, ...]:
    """How many of these times, int64 [n], all with start_ns <= at_ns < end_ns, fall into each whole window."""
    whole = (end_ns - start_ns) // window_ns
    number = (at_ns - start_ns) // window_ns
    return tuple(int(count) for count in np.bincount(number[number < whole], minlength=whole))


def shared_edges(
    done_ns: NDArray[np.int64], latency_ns: NDArray[np.int64], span_ns: tuple[int, int], inflight: int
) -> float | None:
    """What a closed loop's requests across the ends of a span add to the count of those that ended in it.

    Each request counts in the span by the share of its own time that lies in it: one that was half done when the span
    began is half a request. Expected are as many as ended there, but a slow model's whole requests are few: 9 +- 1 in
    half a second. done_ns, latency_ns: int64 [n], of every request that ended in the span or was in flight at its end.
    None where not all of the `inflight` at its end are there.
    """
    start_ns, end_ns = span_ns
    began_ns = done_ns - latency_ns
    if int(((began_ns < end_ns) & (done_ns >= end_ns)).sum()) < inflight:
        return None
    inside_ns = np.minimum(done_ns, end_ns) - np.maximum(began_ns, start_ns)
    shares = np.maximum(inside_ns, 0) / np.maximum(latency_ns, 1)
    return float(shares.sum()) - int(((done_ns >= start_ns) & (done_ns < end_ns)).sum())


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


def throughput_motion(slices: Sequence[SliceStats]) -> Motion | None:
    """How the requests a second moved over the slices; None below three slices or without a reply."""
    measured = [piece for piece in slices if piece.duration_ns]
    replies = sum(piece.count for piece in measured)
    k = len(measured)
    if k < MIN_SLICES or replies == 0:
        return None
    mean = rate_of(measured)
    each = max(1, min(STRETCHES, MOST_STRETCHES // k))
    values: list[float] = []
    times: list[float] = []
    lengths: list[float] = []
    for piece, start_s in zip(measured, starts_s(measured), strict=True):
        rates, length_s = _stretches(piece, mean, each)
        values += rates
        times += [start_s + (n + 0.5) * length_s for n in range(len(rates))]
        lengths += [length_s] * len(rates)
    # As many degrees of freedom as slices, not stretches: the moves of a machine are no Gaussian autoregression, and the
    # study of the rules is what says that this is enough.
    return motion(np.array(values), np.array(times), np.array(lengths), k - 1, shortest_s=0.5 * min(lengths))


def starts_s(slices: Sequence[SliceStats]) -> list[float]:
    """When each slice began, s."""
    starts: list[float] = []
    end_s = 0.0
    for piece in slices:
        starts.append(end_s if piece.start_ns is None else piece.start_ns / 1e9)
        end_s = starts[-1] + piece.duration_ns / 1e9
    return starts


def span_s(slices: Sequence[SliceStats]) -> float | None:
    """Seconds from the first slice's start to the last one's end; None where it is not known, or the clock went back."""
    if not slices or any(piece.start_ns is None for piece in slices):
        return None
    starts = starts_s(slices)
    if any(after < before for before, after in pairwise(starts)):
        return None
    return starts[-1] + slices[-1].duration_ns / 1e9 - starts[0]


def _stretches(piece: SliceStats, mean: float, each: int) -> tuple[list[float], float]:
    """Requests a second in at most `each` equal stretches of whole windows, and their length, s."""
    needed = ceil(STRETCH_REPLIES / (mean * piece.window_ns / 1e9))
    together = max(needed, len(piece.windows) // each, 1)
    n = len(piece.windows) // together
    if n < 2:
        return [piece.rate], piece.duration_ns / 1e9
    counts = np.array(piece.windows[: n * together], np.float64).reshape(n, together).sum(axis=1)
    length_s = together * piece.window_ns / 1e9
    return list(counts / length_s), length_s


def throughput_interval(slices: Sequence[SliceStats], moved: Motion | None = None) -> Interval | None:
    """Requests a second over all slices, with its interval; None below three slices or without a reply.

    moved: `throughput_motion` of the slices, where it is known already. Never narrower than what quarters of the phase
    say by themselves, as far as the level was seen to move (a trend is no autoregression), nor than one reply.
    """
    moved = moved or throughput_motion(slices)
    if moved is None:
        return None
    total_s = sum(piece.duration_ns for piece in slices) / 1e9
    mean = rate_of(slices)
    sections = _sections(slices, lambda parts: rate_of(parts) - mean)
    return Interval(mean, max(moved.half_width, _moving(moved.steady) * sections, 1 / total_s))


def rate_of(slices: Sequence[SliceStats]) -> float:
    """Requests a second over all slices; 0 in no time."""
    seconds = sum(piece.duration_ns for piece in slices) / 1e9
    return sum(piece.served for piece in slices) / seconds if seconds else 0.0


def _moving(steady: float) -> float:
    """How far a level was seen to move: 0 where that it stands still is as likely as it was before, or likelier."""
    return max(0.0, 1 - 2 * steady)


def _sections(slices: Sequence[SliceStats], apart: Callable[[Sequence[SliceStats]], float]) -> float:
    """Half-width from quarters of the phase, about the whole. apart: how far some slices are from the whole."""
    b = min(SECTIONS, len(slices))
    ends = [round(n * len(slices) / b) for n in range(b + 1)]
    square = sum(apart(slices[start:end]) ** 2 for start, end in pairwise(ends))
    return t_quantile(b - 1) * sqrt(square / b / (b - 1))


def replies_for_interval(q: float) -> int:
    """How many replies an interval of the q-th percentile needs.

    So many that all of them lie below the true percentile, and then no upper limit exists, with a probability of 5 % at
    most (Wilks 1941): 299 for p99.
    """
    return ceil(log(0.05) / log(q))


def percentile_interval(slices: Sequence[SliceStats], q: float, moved: Motion | None = None) -> Interval | None:
    """The q-th percentile of latency, ns, over all slices, with its interval; None where samples do not suffice.

    Two sources of spread, added up in the logarithm. Delete-one-slice jackknife: valid for quantiles because whole
    slices, not single requests, are left out (Shao and Wu 1989); its pseudo-values are a series in time like the
    throughput, and are judged by the same model. Sections: the percentile of each quarter of the phase about that of
    the whole (sectioning; Asmussen and Glynn 2007, V.5), as far as the throughput was seen to move, because then few
    slow stretches decide on a tail. Never narrower than the order statistics that bound the percentile of independent
    latencies (binomial ranks), which guards against slices that agree by luck, nor than a bucket of the histogram.
    """
    if why_no_percentile(slices, q) is not None:
        return None
    filled = [piece for piece in slices if piece.count]
    merged = _merged(filled)
    whole = merged.percentile_ns(q) or 0.0
    left_out_ns = Histogram.left_out_ns([piece.latency for piece in filled], q)
    moved = moved or throughput_motion(slices)
    half_width = _spread(filled, whole, left_out_ns, lambda latency: latency.percentile_ns(q), moved)
    if half_width > WIDEST:
        return None
    independent = max(abs(rank_ns - whole) for rank_ns in _binomial_limits(merged, q))
    return Interval(whole, max(whole * expm1(half_width), independent, whole * RESOLUTION))


def mean_interval(slices: Sequence[SliceStats], moved: Motion | None = None) -> Interval | None:
    """The mean latency, ns, over all slices, with its interval, formed as that of a percentile; None where samples do not suffice.

    Never narrower than independent latencies of this spread would have it.
    """
    if why_no_mean(slices) is not None:
        return None
    filled = [piece for piece in slices if piece.count]
    merged = _merged(filled)
    whole = merged.mean_ns or 0.0
    sums = np.array([piece.latency.sum_ns for piece in filled], np.float64)
    counts = np.array([piece.count for piece in filled], np.float64)
    left_out_ns = (sums.sum() - sums) / (counts.sum() - counts)
    moved = moved or throughput_motion(slices)
    half_width = _spread(filled, whole, left_out_ns, lambda latency: latency.mean_ns, moved)
    if half_width > WIDEST:
        return None
    return Interval(whole, max(whole * expm1(half_width), Z975 * merged.deviation_ns / sqrt(merged.count)))


def why_no_percentile(slices: Sequence[SliceStats], q: float, what: str = "replies") -> str | None:
    """Why the samples do not suffice for an interval of the q-th percentile; None where they do. what: is counted."""
    filled = [piece for piece in slices if piece.count]
    replies = sum(piece.count for piece in filled)
    needed = replies_for_interval(q)
    if replies < needed:
        return f"{replies} {what}, {needed} are needed"
    # Else the percentile without the largest slice would be a mere maximum.
    if len(filled) < MIN_SLICES or replies - max(piece.count for piece in filled) < least_count(q):
        return (
            f"nearly all {what} fell into one slice"
            if len(slices) >= MIN_SLICES
            else f"only {counted(len(slices), 'slice')}"
        )
    return None


def why_no_mean(slices: Sequence[SliceStats], what: str = "replies") -> str | None:
    """Why the samples do not suffice for an interval of the mean; None where they do. what: is counted."""
    filled = sum(1 for piece in slices if piece.count)
    return None if filled >= MIN_SLICES else f"only {counted(filled, 'slice')} with {what}"


def _spread(
    slices: Sequence[SliceStats],
    whole_ns: float,
    left_out_ns: NDArray[np.float64],
    figure_ns: Callable[[Histogram], float | None],
    moved: Motion | None,
) -> float:
    """Half-width of the logarithm of a figure of all latencies.

    slices: with replies each. whole_ns: the figure; left_out_ns: without each of them; figure_ns: of some of them.
    """
    steady = moved.steady if moved else 0.5
    apart = _jackknife(slices, left_out_ns, steady)
    sections = _sections(slices, lambda parts: _log(figure_ns(_merged(parts))) - _log(whole_ns))
    return sqrt(apart**2 + _moving(steady) * sections**2)


def _jackknife(slices: Sequence[SliceStats], left_out_ns: NDArray[np.float64], steady: float) -> float:
    """Half-width of the logarithm of a figure, from the slices left out one by one."""
    k = len(slices)
    values = np.log(np.maximum(left_out_ns, 1.0))
    lengths = np.array([piece.duration_ns / 1e9 for piece in slices])
    odds = min(max(4 * steady / max(1 - steady, 1e-9), STEADY_ODDS[0]), STEADY_ODDS[1])
    pseudo = -(k - 1) * (values - values.mean())
    # Around 1, so that equal values are recognised as such; weighted alike, whatever the slices' lengths.
    return motion(
        1 + pseudo, np.array(starts_s(slices)), np.ones(k), k - 1, odds, 0.5 * float(lengths.min())
    ).half_width


def _merged(slices: Sequence[SliceStats]) -> Histogram:
    return Histogram.merge(piece.latency for piece in slices)


def _log(value_ns: float | None) -> float:
    return log(max(value_ns or 0.0, 1.0))


def _binomial_limits(merged: Histogram, q: float) -> tuple[float, float]:
    """Order statistics around the percentile, 95 % for independent samples (normal approximation of their ranks)."""
    middle, apart = q * merged.count, Z975 * sqrt(merged.count * q * (1 - q))
    low, high = merged.ranked_ns(floor(middle - apart)), merged.ranked_ns(ceil(middle + apart) + 1)
    return low or 0.0, high or 0.0
