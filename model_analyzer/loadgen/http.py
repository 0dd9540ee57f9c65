"""The hot path over HTTP/1.1: encoded requests on keep-alive connections, replies known by their bytes."""

from __future__ import annotations

import socket
from itertools import cycle

from model_analyzer.loadgen.driver import BUSY, OPEN, Connection, Driver, Slot
from model_analyzer.loadgen.known import Known
from model_analyzer.loadgen.order import Order
from model_analyzer.loadgen.reply import Head, Malformed, Reply, problem_of
from model_analyzer.loadgen.tally import Tally

# How the problem of a reply begins that is no error's.
MALFORMED = "malformed reply"
# Of an open connection. WAITING: the request is sent whole, there is not a byte of the reply yet.
SENDING, WAITING, READING = range(OPEN + 1, OPEN + 4)


class HttpConnection(Connection[Slot]):
    """A keep-alive connection of one slot, and the reply that is coming in on it."""

    __slots__ = ("reply",)

    def __init__(self) -> None:
        super().__init__()
        self.reply: Reply | None = None


class HttpDriver(Driver[HttpConnection, Slot]):
    """One order over HTTP/1.1."""

    def __init__(self, order: Order, control: socket.socket, tally: Tally) -> None:
        super().__init__(order, control, tally)
        self._wires = cycle(order.wires)
        # Length of a whole reply -> the bytes it must begin with to be one that was found good before.
        self._known = Known[int, bytes]()

    def _new_slot(self) -> Slot:
        return Slot()

    def _new_connection(self) -> HttpConnection:
        return HttpConnection()

    def _opened(self, conn: HttpConnection) -> None:
        self._use(conn)

    def _send(self, slot: Slot, started_ns: int) -> None:
        slot.started_ns, slot.state = started_ns, BUSY
        self._inflight += 1
        conn = slot.conn
        conn.state = WAITING if self._put(conn, next(self._wires)) else SENDING

    def _give_up(self, slot: Slot, message: str, before_ns: int) -> None:  # noqa: ARG002 -- what HTTP/1.1 has no use for
        self._lose(slot.conn, message)

    def _all_sent(self, conn: HttpConnection) -> None:
        # A server may answer before it has the whole request.
        conn.state = WAITING if conn.reply is None else READING
        self._watch(conn, room=False)

    def _received(self, conn: HttpConnection, size: int, now: int) -> None:
        slot = conn.slots[0]
        known = self._known.get(size)
        if slot.state != BUSY:
            self._lose(conn, "")
        elif known is not None and conn.state == WAITING and self._buffer.startswith(known):
            self._succeeded(slot, now)
            self._send_next(slot, now)
        else:
            self._feed(conn, self._view[:size], now)

    def _feed(self, conn: HttpConnection, data: memoryview, now: int) -> None:
        """A reply that is not known by its first bytes: in pieces, of a new shape, or none at all."""
        reply = conn.reply = conn.reply or self._new_reply(conn.slots[0])
        if conn.state == WAITING:
            conn.state = READING
        try:
            whole = reply.feed(data) if data else reply.end()
        except Malformed as error:
            self._lose(conn, f"malformed reply: {error}")
            return
        if whole and reply.head is not None:
            self._replied(conn, reply.head, reply, now)
        elif not data:
            self._lose(conn, "connection closed in mid-reply" if reply.head else "connection closed without a reply")

    def _replied(self, conn: HttpConnection, head: Head, reply: Reply, now: int) -> None:
        """A whole reply: judge it, count it, send the next request."""
        problem = "malformed reply: bytes after its end" if reply.extra else self._problem(head, reply)
        close = head.close or reply.extra or conn.state == SENDING
        conn.reply = None
        slot = conn.slots[0]
        if problem is not None:
            # Where a malformed reply ended is not known: the rest of it would be taken for the next one.
            self._refused(slot, problem, close or problem.startswith(MALFORMED))
            return
        self._succeeded(slot, now)
        if close:
            self._move(slot)
            return
        self._remember(head, reply)
        self._send_next(slot, now)

    def _new_reply(self, slot: Slot) -> Reply:  # noqa: ARG002 -- for those that count what comes in
        """What the server's answer to the slot's request is gathered in."""
        return Reply()

    def _problem(self, head: Head, reply: Reply) -> str | None:
        """Why a whole reply is no success; None where it is one."""
        return problem_of(head, reply.body, reply.size)

    def _remember(self, head: Head, reply: Reply) -> None:
        """Replies of a shape begin alike, the JSON part included: another that does is as good as this one.

        Where tensors lie in shared memory, that part is all there is.
        """
        json_length = head.length if head.json_length is None else head.json_length
        if head.length is None or json_length is None or json_length > len(reply.body):
            return
        self._known.remember(head.size + head.length, reply.raw_head + reply.body[:json_length])


def drive(order: Order, control: socket.socket, tally: Tally) -> None:
    """Drive one order until a message on `control` says stop. Raises OSError where the host has no address."""
    HttpDriver(order, control, tally).run()
