"""How well the figures of streams are known: 95 % intervals, by the methods that those of whole requests have."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from model_analyzer.core.histogram import Histogram
from model_analyzer.core.repeats import (
    Compared,
    mean_over,
    mean_spread,
    percentile_over,
    throughput_over,
    throughput_spread,
)
from model_analyzer.core.stats import (
    Interval,
    SliceStats,
    mean_interval,
    throughput_interval,
    throughput_motion,
    why_no_mean,
    why_no_percentile,
)
from model_analyzer.core.streams import INTERVALS, NO_WAITS, NOT_STREAMED, StreamStats
from model_analyzer.core.wording import counted

Waits = Callable[[StreamStats], Histogram]
WAITS: dict[str, Waits] = {
    "time_to_first_token": lambda stream: stream.first,
    "inter_token_latency": lambda stream: stream.gaps,
}
Q = 0.99
RESPONSES = "responses"


def stream_intervals(
    repeats: Sequence[Sequence[SliceStats]],
) -> tuple[dict[str, float | None], dict[str, str]]:
    """Half-widths, responses/s and ns, and why those are absent that are. repeats: the slices of each, oldest first."""
    if not any(piece.stream for slices in repeats for piece in slices):
        return dict.fromkeys(INTERVALS), dict.fromkeys(INTERVALS, NOT_STREAMED)
    came = _seen(repeats, lambda stream: Histogram.merge((stream.first, stream.gaps)))
    # What counts responses knows better than a few long requests whether the level moved.
    moved = throughput_motion(_all(came))
    none = _none(came, NO_WAITS["time_to_first_token"])
    found: dict[str, tuple[Interval | None, str | None]] = {}
    found["output_token_throughput_ci"] = throughput_over(came, moved), none or _too_few(_all(came))
    for name, waits in WAITS.items():
        each = _seen(repeats, waits)
        slices = _all(each)
        none = _none(each, NO_WAITS[name])
        found[f"{name}_avg_ci"] = mean_over(each, moved), none or why_no_mean(slices, RESPONSES)
        found[f"{name}_p99_ci"] = percentile_over(each, Q, moved), none or why_no_percentile(slices, Q, RESPONSES)
    values = {tag: _half_width(interval) for tag, (interval, _) in found.items()}
    apart = "it differs too much between the slices" + (" or the repeats" if len(repeats) > 1 else "")
    reasons = {tag: f"no interval: {why or apart}" for tag, (_, why) in found.items() if values[tag] is None}
    return values, reasons


def compared_streams(repeats: Sequence[Sequence[SliceStats]]) -> Iterator[Compared]:
    """What of the streams is held against other repeats; nothing where nothing is streamed."""
    if not any(piece.stream for slices in repeats for piece in slices):
        return
    came = _seen(repeats, lambda stream: Histogram.merge((stream.first, stream.gaps)))
    yield Compared("output token throughput", throughput_spread(came), [throughput_interval(each) for each in came])
    for name, waits in WAITS.items():
        seen = _seen(repeats, waits)
        yield Compared(f"mean {name.replace('_', ' ')}", mean_spread(seen), [mean_interval(each) for each in seen])


def _seen(repeats: Sequence[Sequence[SliceStats]], waits: Waits) -> list[list[SliceStats]]:
    """The slices as if each response were a request, and its wait the latency: those of which `waits` are."""
    nothing = StreamStats.merge(())
    return [[_responses(piece, piece.stream or nothing, waits) for piece in slices] for slices in repeats]


def _responses(piece: SliceStats, stream: StreamStats, waits: Waits) -> SliceStats:
    return replace(piece, windows=stream.windows, latency=waits(stream), stream=None, edges=0.0)


def _all(repeats: Sequence[Sequence[SliceStats]]) -> list[SliceStats]:
    return [piece for slices in repeats for piece in slices]


def _none(repeats: Sequence[Sequence[SliceStats]], why: str) -> str | None:
    """`why` where there is nothing at all; else whether a repeat lacks it; None where each has some."""
    some = [any(piece.count for piece in slices) for slices in repeats]
    return why if not any(some) else None if all(some) else "a repeat has none"


def _too_few(slices: Sequence[SliceStats]) -> str:
    responses = counted(sum(piece.count for piece in slices), "response")
    return f"only {counted(len(slices), 'slice')} with {responses}"


def _half_width(interval: Interval | None) -> float | None:
    return None if interval is None else interval.half_width
