"""The responses of a streamed reply: when each came, counted as it comes."""

from __future__ import annotations

from model_analyzer.loadgen.tally import Tally

NONE_CAME = "no response in the stream"


class Arrivals:
    """Where responses are counted. now_ns: when the bytes that are being taken in were read."""

    __slots__ = ("now_ns", "tally")

    def __init__(self, tally: Tally) -> None:
        self.tally = tally
        self.now_ns = 0
        tally.stream()


class Responses:
    """Those of the request in flight: how many there were, and when the last one came (before the first: when the request began)."""

    __slots__ = ("_arrivals", "count", "last_ns", "started_ns")

    def __init__(self, arrivals: Arrivals) -> None:
        self._arrivals = arrivals
        self.count = 0
        self.started_ns = self.last_ns = 0

    def begin(self, started_ns: int) -> None:
        """A request is sent; its first response counts from `started_ns`."""
        self.count, self.started_ns, self.last_ns = 0, started_ns, started_ns

    def came(self) -> None:
        """One is whole. Several in one read came at the same time, as far as anybody can tell."""
        now_ns, tally = self._arrivals.now_ns, self._arrivals.tally
        wait_ns = now_ns - self.last_ns
        if self.count:
            tally.gap_at.append(now_ns)
            tally.gap.append(wait_ns)
        else:
            tally.first_at.append(now_ns)
            tally.first.append(wait_ns)
        self.count += 1
        self.last_ns = now_ns

    def done(self, now_ns: int) -> None:
        """The request has succeeded: it took until its last response."""
        tally = self._arrivals.tally
        tally.done.append(now_ns)
        tally.latency.append(self.last_ns - self.started_ns)
        tally.responses.append(self.count)
