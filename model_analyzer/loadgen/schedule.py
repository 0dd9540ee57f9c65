"""When an open loop sends: a pure function of the rate, so that it never drifts."""

from __future__ import annotations

import random
from collections.abc import Iterator


def send_times_ns(rate: float, distribution: str, seed: int) -> Iterator[int]:
    """Yield the times of the first, second, ... request, ns after the start; without end.

    rate: requests a second, above 0. distribution: "constant" (evenly spaced) or "poisson" (seeded).
    """
    if distribution == "constant":
        number = 0
        while True:
            # From the number, not from the time before: rounding does not add up.
            yield round(number * 1e9 / rate)
            number += 1
    draw = random.Random(seed).expovariate
    at = 0.0
    while True:
        at += draw(rate) * 1e9
        yield round(at)
