"""When a load has settled, as a pure function of completions a window."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

# Two neighbouring groups of this many windows are compared (pyperf's way of growing the warm-up until values agree).
GROUP = 2
TOLERANCE = 0.15


def warmed_up(counts: Sequence[int], inflight: int) -> bool:
    """Say whether the last two groups of windows agree and every request in flight has come back once.

    counts: completions a window, oldest first. Few completions may differ as much as chance lets a Poisson count do.
    """
    if len(counts) < 2 * GROUP or sum(counts) < inflight:
        return False
    last, before = sum(counts[-GROUP:]), sum(counts[-2 * GROUP : -GROUP])
    allowed = max(TOLERANCE * (last + before) / 2, 2 * sqrt(last + before))
    return abs(last - before) <= allowed
