"""How long the requests in flight are waited for once no more are sent, as a pure function of the reports so far.

A server works on what it was sent, whether its client waits or not: Triton 2.51 answers all that is in its queue, over HTTP
and over gRPC, after the connections are closed. What is left in it would be the next slice's first load.
"""

from __future__ import annotations

from collections.abc import Sequence

# A server that has never answered, and an analyzer that is gone, are not waited for any longer.
LEAST_NS = 1_000_000_000


class Drain:
    """Waits as long as replies come: since the last one no longer than the slowest took.

    The timeout of the requests bounds it: one that has had its time is in flight no more.
    """

    def __init__(self) -> None:
        self._slowest_ns = 0
        self._since_ns: int | None = None
        self._hung_up = False

    def told(self, now_ns: int, latency_ns: Sequence[int]) -> None:
        """Replies have come since the last report."""
        if latency_ns:
            self._slowest_ns = max(self._slowest_ns, max(latency_ns))
            if self._since_ns is not None and not self._hung_up:
                self._since_ns = now_ns

    def begin(self, now_ns: int, hung_up: bool = False) -> None:
        """No more is sent. hung_up: nobody is there any more who would begin another order."""
        self._since_ns, self._hung_up = now_ns, hung_up

    def over(self, now_ns: int) -> bool:
        """Whether what is still in flight is given up."""
        if self._since_ns is None:
            return False
        patience_ns = LEAST_NS if self._hung_up else max(LEAST_NS, self._slowest_ns)
        return now_ns - self._since_ns > patience_ns
