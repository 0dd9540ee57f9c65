"""One order over several processes: which part each of them sends. Together the parts are the whole, none lost or doubled."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from math import gcd


def share(whole: int, worker: int, workers: int) -> int:
    """How many of `whole` this worker has, from 0: shares differ by one at most, and add up."""
    return whole // workers + (worker < whole % workers)


def of_schedule(times: Iterator[int], worker: int, workers: int) -> Iterator[int]:
    """The send times of this worker: every `workers`-th of the one schedule."""
    return islice(times, worker, None, workers)


def turns(count: int, worker: int, workers: int, *, scheduled: bool) -> list[int]:
    """Which of `count` distinct requests this worker sends, in order, round and round.

    scheduled: request k of the whole schedule is number k % count, whoever sends it. Else every worker sends all of
    them equally often, each beginning at another one.
    """
    if scheduled:
        return [(worker + turn * workers) % count for turn in range(count // gcd(count, workers))]
    first = worker * count // workers
    return [*range(first, count), *range(first)]
