"""What an open loop's row has beside the others: whether what was due was sent when it was due, and answered."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import ceil, sqrt

from model_analyzer.core.histogram import Histogram
from model_analyzer.core.load import OPEN_LOOP_CONNECTIONS, Load
from model_analyzer.core.measurement import Slice
from model_analyzer.core.metric import OPEN_LOOP_FIELDS
from model_analyzer.core.wording import figure

# A server does not keep up when it answers less than is due, by this share and by more than chance lets counts differ. Of
# custom intervals a slice may see the quiet part of a round.
BEHIND, BEHIND_INTERVALS, BEHIND_DEVIATIONS = 0.05, 0.25, 3.0
# How much work, in seconds, a server that does not keep up is given at once, and in how many requests at least.
BACKLOG_S, LEAST_INFLIGHT = 10.0, 16
# The client is late when its send lag makes up so much of the latency, at the 99th percentile of both, and is no trifle.
LATE_SHARE, LATE_NS = 0.2, 1e6


def values(load: Load, slices: Sequence[Slice]) -> tuple[dict[str, float | None], dict[str, str]]:
    """The metrics of OPEN_LOOP_FIELDS, and why there are none."""
    lag = _lag(slices)
    if load.kind == "concurrency" or not lag.count:
        reason = (
            "a closed loop has no schedule" if load.kind == "concurrency" else "nothing was due in the measured time"
        )
        return dict.fromkeys(OPEN_LOOP_FIELDS), dict.fromkeys(OPEN_LOOP_FIELDS, reason)
    found = {
        "send_lag_p99": lag.percentile_ns(0.99),
        "send_lag_max": float(lag.max_ns or 0),
        "requests_delayed": float(sum(piece.delayed for piece in slices)),
    }
    return found, {}


def notes(load: Load, slices: Sequence[Slice]) -> Iterator[str]:
    """How far the loop was no open one; where the server does not keep up that is no news."""
    if load.kind == "concurrency" or is_behind(load, slices):
        return
    delayed, sent = sum(piece.delayed for piece in slices), _lag(slices).count
    if delayed:
        given = load.max_concurrency is not None
        most = f"max_concurrency ({load.max_concurrency})" if given else f"{OPEN_LOOP_CONNECTIONS}, the most,"
        yield f"{delayed} of {sent} requests waited because {most} were in flight; their latency holds the wait"


def overload(load: Load, slices: Sequence[Slice]) -> Iterator[str]:
    """What was offered to a server that does not keep up, and what it answered; nothing of one that does."""
    if is_behind(load, slices):
        yield (
            f"the server does not keep up: {figure(load.value)} requests a second offered, {figure(_answered(slices))} answered"
        )


def is_behind(load: Load, slices: Sequence[Slice]) -> bool:
    """Whether the server does not keep up with an open loop: it answers less than is due."""
    if load.kind == "concurrency":
        return False
    due = load.value * sum(piece.seconds for piece in slices)
    missing = due - sum(map(_answers, slices))
    share = BEHIND_INTERVALS if load.intervals else BEHIND
    return missing > share * due and missing > BEHIND_DEVIATIONS * sqrt(due)


def most_inflight(load: Load, slices: Sequence[Slice]) -> int | None:
    """How many requests of the next slice may be in flight; None: as many as the load's own limit says.

    A server that does not keep up is kept as busy by a queue of BACKLOG_S as by a longer one, and has to be waited for
    until it has answered all of it. What is due beyond it waits for a place, and its latency counts all the same.
    """
    if not is_behind(load, slices):
        return load.max_concurrency
    most = load.max_concurrency or OPEN_LOOP_CONNECTIONS
    return min(most, max(LEAST_INFLIGHT, ceil(_answered(slices) * BACKLOG_S)))


def _answered(slices: Sequence[Slice]) -> float:
    """Requests a second, failed ones among them."""
    return sum(map(_answers, slices)) / sum(piece.seconds for piece in slices)


def _answers(piece: Slice) -> int:
    return piece.stats.count + sum(piece.failures.values())


def late(slices: Sequence[Slice]) -> str | None:
    """Why the client's own lateness shapes these latencies; None where it does not."""
    lag_ns = _lag(slices).percentile_ns(0.99)
    latency_ns = Histogram.merge(piece.stats.latency for piece in slices).percentile_ns(0.99)
    if lag_ns is None or latency_ns is None or lag_ns <= max(LATE_NS, LATE_SHARE * latency_ns):
        return None
    return f"the load generator was up to {lag_ns / 1e6:.3g} ms late with 99 % of the sends, which latency holds"


def _lag(slices: Sequence[Slice]) -> Histogram:
    return Histogram.merge(piece.send_lag for piece in slices if piece.send_lag is not None)
