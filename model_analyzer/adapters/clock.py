"""The real clock."""

from __future__ import annotations

import os
import time
from datetime import datetime, timezone
from pathlib import Path

from model_analyzer.core.steal import CpuTime

# Of the line `cpu`: user nice system idle iowait irq softirq steal guest guest_nice. Guests are within user and nice.
WANTED, STOLEN = (0, 1, 2, 5, 6, 7), 7


class SystemClock:
    """CLOCK_MONOTONIC for intervals, wall time for people, and the kernel's count of CPU time. stat: for tests."""

    def __init__(self, stat: Path = Path("/proc/stat")) -> None:
        self._stat = stat

    def now_ns(self) -> int:
        """Monotonic nanoseconds, the same for all processes of the host."""
        return time.monotonic_ns()

    def sleep(self, seconds: float) -> None:
        """Block this thread."""
        time.sleep(seconds)

    def utc(self) -> datetime:
        """Wall time."""
        return datetime.now(timezone.utc)

    def cpu_time(self) -> CpuTime | None:
        """Of all CPUs since the kernel started, in its ticks (10 ms mostly); None where it counts no steal."""
        try:
            with self._stat.open() as file:
                name, *counts = file.readline().split()
            ticks = [int(count) for count in counts]
            if name != "cpu" or len(ticks) <= STOLEN:
                return None
        except (OSError, ValueError):
            return None
        tick_ns = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
        return CpuTime(sum(ticks[place] for place in WANTED) * tick_ns, ticks[STOLEN] * tick_ns)
