"""How long the requests in flight are waited for once no more are sent, as a pure function of the reports so far.

A server works on what it was sent, whether its client waits or not: Triton 2.51 answers all that is in its queue, over HTTP
and over gRPC, after the connections are closed. What is left in it would be the next slice's first load.
"""

from __future__ import annotations

from collections.abc import Sequence

# A server that has never answered, and replies that nobody needs, are not waited for any longer.
LEAST_NS = 1_000_000_000
# As long as a server takes for the most requests that an open loop has in flight, 1024, if it answers 8.5 a second.
MOST_NS = 120_000_000_000


class Drain:
    """Waits as long as replies come: since the last one no longer than the slowest took, and no longer than MOST_NS in all."""

    def __init__(self) -> None:
        self._slowest_ns = 0
        self._begun_ns: int | None = None
        self._since_ns = 0
        self._patient = True

    def told(self, now_ns: int, latency_ns: Sequence[int]) -> None:
        """Replies have come since the last report."""
        if latency_ns:
            self._slowest_ns = max(self._slowest_ns, max(latency_ns))
            self._since_ns = now_ns

    def begin(self, now_ns: int, patient: bool = True) -> None:
        """No more is sent. patient: the replies are worth a wait."""
        self._begun_ns, self._since_ns, self._patient = now_ns, now_ns, patient

    def over(self, now_ns: int) -> bool:
        """Whether what is still in flight is given up."""
        if self._begun_ns is None:
            return False
        if not self._patient:
            return now_ns - self._begun_ns > LEAST_NS
        return now_ns - self._since_ns > max(LEAST_NS, self._slowest_ns) or now_ns - self._begun_ns > MOST_NS
