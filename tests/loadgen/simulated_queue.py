"""The driver's own loop on a clock that is simulated, before one server that takes requests in the order of their arrival."""

from __future__ import annotations

import socket
from collections import deque

import numpy as np
from numpy.typing import NDArray

from model_analyzer.loadgen.driver import BUSY, OPEN, Connection, Driver, Slot
from model_analyzer.loadgen.order import Order
from model_analyzer.loadgen.tally import Tally

SECOND_NS = 1_000_000_000
START_NS = 1_000 * SECOND_NS


class Time:
    """CLOCK_MONOTONIC, standing still until the driver waits."""

    now_ns = START_NS

    def monotonic_ns(self) -> int:
        return self.now_ns


class QueueDriver(Driver[Connection[Slot], Slot]):
    """The driver over a simulated wire. services: ns of service of each request in turn; with the last of them it ends."""

    def __init__(
        self, work: Order, control: socket.socket, counts: Tally, time: Time, services: NDArray[np.int64]
    ) -> None:
        super().__init__(work, control, counts)
        self.time, self.services = time, services.tolist()
        self.free_at_ns = 0
        self.coming: deque[tuple[int, Slot]] = deque()
        self.sent = self.told = 0

    def _new_slot(self) -> Slot:
        return Slot()

    def _new_connection(self) -> Connection[Slot]:
        return Connection()

    def _connect(self, conn: Connection[Slot]) -> None:
        conn.state = OPEN
        self._use(conn)

    def _opened(self, conn: Connection[Slot]) -> None: ...

    def _send(self, slot: Slot, started_ns: int) -> None:
        slot.started_ns, slot.state = started_ns, BUSY
        self._inflight += 1
        # First come, first served: the server begins it when it is there and the one before has left.
        if self.sent < len(self.services):
            self.free_at_ns = max(self.free_at_ns, self.time.now_ns) + self.services[self.sent]
            self.coming.append((self.free_at_ns, slot))
        self.sent += 1

    def _all_sent(self, conn: Connection[Slot]) -> None: ...

    def _received(self, conn: Connection[Slot], size: int, now: int) -> None: ...

    def _give_up(self, slot: Slot, message: str, before_ns: int) -> None:
        raise AssertionError("a timeout")

    def _poll(self, wait_s: float) -> list[tuple[int, int]]:
        """Time goes on to the next reply, or as far as the driver would wait."""
        wake_ns = self.time.now_ns + round(wait_s * SECOND_NS)
        if self.coming and self.coming[0][0] <= wake_ns:
            at_ns, slot = self.coming.popleft()
            self.time.now_ns = max(self.time.now_ns, at_ns)
            self.told += 1
            self._succeeded(slot, self.time.now_ns)
            self._send_next(slot, self.time.now_ns)
        else:
            self.time.now_ns = wake_ns
        return []

    def _finished(self, now: int) -> bool:
        if self.told < len(self.services):
            return False
        self._tally.report(self.time.now_ns, 0)
        return True
