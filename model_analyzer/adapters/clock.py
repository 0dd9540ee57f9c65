"""The real clock."""

from __future__ import annotations

import time
from datetime import datetime, timezone


class SystemClock:
    """CLOCK_MONOTONIC for intervals, wall time for people."""

    def now_ns(self) -> int:
        """Monotonic nanoseconds, the same for all processes of the host."""
        return time.monotonic_ns()

    def sleep(self, seconds: float) -> None:
        """Block this thread."""
        time.sleep(seconds)

    def utc(self) -> datetime:
        """Wall time."""
        return datetime.now(timezone.utc)
