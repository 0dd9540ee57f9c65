"""Files of custom intervals, in perf_analyzer's format: the microseconds between two requests, one number a line."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

from model_analyzer.errors import Fault, SpecError

# An hour between two requests, or a million of them, is a slip of the pen: no phase lasts so long.
LONGEST_US = 3.6e9
MOST_LINES = 1_000_000
MOST_FAULTS = 20


def read_intervals(path: Path) -> tuple[int, ...]:
    """The intervals of a file, ns, oldest first; at least one is above 0. Raises SpecError with every line that is wrong."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        fix = "name a file with the microseconds between two requests, one number a line"
        raise SpecError("request_intervals", f"{path} cannot be read ({why})", fix) from None
    intervals_us: list[float] = []
    faults = list(_read(path, text, intervals_us))
    if not faults and not any(intervals_us):
        what = "no interval is above 0" if intervals_us else "it holds no interval"
        faults = [Fault(str(path), what, "write the microseconds between two requests, one number a line")]
    if faults:
        raise SpecError.of(faults)
    return tuple(round(interval_us * 1000) for interval_us in intervals_us)


def _read(path: Path, text: str, intervals_us: list[float]) -> Iterator[Fault]:
    """Take in the lines; a fault for each that is wrong, up to a screenful."""
    faults = 0
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        problem = _take(line.strip(), intervals_us)
        if problem is None:
            continue
        yield Fault(f"{path}:{number}", *problem)
        faults += 1
        if faults == MOST_FAULTS:
            yield Fault(str(path), f"more than {MOST_FAULTS - 1} lines are wrong", "is it a file of intervals?")
            return


def _take(line: str, intervals_us: list[float]) -> tuple[str, str] | None:
    """Add the interval of a line; what is wrong with it and how to mend it, if anything is."""
    shown = line if len(line) <= 40 else f"{line[:37]}..."
    try:
        interval_us = float(line)
    except ValueError:
        return f"{shown!r} is no number", "write microseconds, one number a line"
    if not math.isfinite(interval_us) or interval_us < 0:
        return f"the interval is {shown}", "use 0 or more microseconds"
    if interval_us > LONGEST_US:
        return f"the interval is {shown} us, more than an hour", "write microseconds"
    if len(intervals_us) == MOST_LINES:
        return f"there are more than {MOST_LINES} intervals", "use a shorter file: it is sent round and round"
    intervals_us.append(interval_us)
    return None
