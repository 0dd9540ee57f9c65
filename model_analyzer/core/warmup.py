"""When a load has settled, as a pure function of completions a window."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

from model_analyzer.core.histogram import Histogram

# Two neighbouring groups of this many windows are compared (pyperf's way of growing the warm-up until values agree).
GROUP = 2
TOLERANCE = 0.15
# The first replies of a loop that starts from nothing find an emptier server than all later ones, and a cold one: each
# place in the loop is seen to come back twice.
GENERATIONS = 2


def warmed_up(counts: Sequence[int], inflight: int) -> bool:
    """Say whether the last two groups of windows agree and every place in the closed loop has come back twice.

    counts: completions a window, oldest first. inflight: requests in flight. Few completions may differ as much as
    chance lets a Poisson count do.
    """
    if len(counts) < 2 * GROUP or sum(counts) < GENERATIONS * inflight:
        return False
    last, before = sum(counts[-GROUP:]), sum(counts[-2 * GROUP : -GROUP])
    allowed = max(TOLERANCE * (last + before) / 2, 2 * sqrt(last + before))
    return abs(last - before) <= allowed


def least_warmup_s(latency: Histogram) -> float:
    """How long a further slice of this phase has to warm up at least; 0 where nothing is known.

    A reply inside a slice counts whenever its request was sent. Were the warm-up shorter than the slow requests take,
    those that must have been sent before it began would be missing, and the tail of the latencies with them. So: as
    long as the 99th percentile so far.
    """
    tail_ns = latency.percentile_ns(0.99) or 0.0
    return tail_ns / 1e9


def start_offset(number: int) -> float:
    """By which share (0 <= x < 1) of a latency slice `number` begins later than its warm-up has ended.

    A loop of equal requests runs like a clock, and slices that all began at one point of its period would all count the
    same one reply too many, or too few. Multiples of the golden ratio spread the points evenly, however many there are.
    """
    return number * 0.618033988749895 % 1.0
