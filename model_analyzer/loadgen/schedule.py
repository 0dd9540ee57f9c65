"""When a load sends: pure functions of the order, so that a schedule never drifts. All times are ns after the start."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate, chain, count
from math import sqrt

GOLDEN_RATIO = 0.618033988749895


def send_times_ns(
    rate: float, distribution: str, seed: int, intervals_ns: Sequence[int] = (), ramp_ns: int = 0
) -> Iterator[int]:
    """Yield the times at which an open loop sends its first, second, ... request; without end.

    rate: requests a second, above 0. distribution: "constant" (evenly spaced), "poisson" (seeded) or "intervals": these,
    round and round, from the beginning with seed 0, else from another place of the round. ramp_ns: so long the rate grows
    from 0, linearly.
    """
    if distribution == "intervals":
        times = _repeated(intervals_ns, seed)
    else:
        times = _poisson(rate, seed) if distribution == "poisson" else _constant(rate)
    return (_ramped(time, ramp_ns) for time in times) if ramp_ns else times


def slot_times_ns(
    concurrency: int, ramp_ns: int = 0, together: int = 1, worker: int = 0, workers: int = 1
) -> Iterator[int]:
    """Yield the times at which a closed loop begins each of its places, over the ramp; so many `together`.

    concurrency: of the whole load. Of its places this worker has every `workers`-th.
    """
    places = range(worker, concurrency, workers)
    return (places[n // together * together] * ramp_ns // concurrency for n in range(len(places)))


def _constant(rate: float) -> Iterator[int]:
    # From the number, not from the time before: rounding does not add up.
    return (round(number * 1e9 / rate) for number in count())


def _poisson(rate: float, seed: int) -> Iterator[int]:
    from random import Random

    draw = Random(seed).expovariate
    at = 0.0
    while True:
        at += draw(rate) * 1e9
        yield round(at)


def _repeated(intervals_ns: Sequence[int], seed: int) -> Iterator[int]:
    """An interval goes before its request, as perf_analyzer has it.

    Each slice of a phase begins anew and has another seed. Multiples of the golden ratio spread the places at which they
    begin evenly over the round, however many there are; else all would see the beginning of a long file, and no more.
    """
    ends = list(accumulate(intervals_ns))
    round_ns = ends[-1]
    begin = int(seed * GOLDEN_RATIO % 1.0 * round_ns)
    first = (end - begin for end in ends[bisect_left(ends, begin) :])
    return chain(first, (number * round_ns + end - begin for number in count(1) for end in ends))


def _ramped(time_ns: int, ramp_ns: int) -> int:
    """The time in a schedule whose rate grows linearly over `ramp_ns` of one that begins at once.

    By its end half of what the full rate would have sent has been: n(t) = rate t^2 / (2 ramp). Poisson stays Poisson.
    """
    half = ramp_ns // 2
    return time_ns + half if time_ns >= half else round(sqrt(2.0 * ramp_ns * time_ns))
