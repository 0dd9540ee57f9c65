"""What the drivers of streams share, over either protocol: a request is counted by its responses."""

from __future__ import annotations

import socket

from model_analyzer.loadgen.driver import C, Driver, S
from model_analyzer.loadgen.order import Order
from model_analyzer.loadgen.responses import Arrivals
from model_analyzer.loadgen.tally import Tally


class StreamedDriver(Driver[C, S]):
    """Comes before the protocol's driver among the bases. Each of its slots has `responses`."""

    def __init__(self, order: Order, control: socket.socket, tally: Tally) -> None:
        super().__init__(order, control, tally)
        self._arrivals = Arrivals(tally)

    def _received(self, conn: C, size: int, now: int) -> None:
        self._arrivals.now_ns = now
        super()._received(conn, size, now)  # type: ignore[safe-super]  # the protocol's, which comes next

    def _succeeded(self, slot: S, now: int) -> None:
        slot.responses.done(now)
        self._inflight -= 1
        slot.failures = 0

    def _waits_since(self, slot: S) -> int:
        return slot.responses.last_ns

    def _overdue(self, slot: S, patience: str) -> str:
        return (
            f"timeout: no further response within {patience}"
            if slot.responses.count
            else super()._overdue(slot, patience)
        )
