"""The hot path over HTTP/1.1: encoded requests on keep-alive connections, replies known by their bytes."""

from __future__ import annotations

import socket
from itertools import cycle
from time import monotonic_ns

from model_analyzer.loadgen.driver import KNOWN, READING, SENDING, WAITING, Connection, Driver
from model_analyzer.loadgen.order import Order
from model_analyzer.loadgen.reply import Head, Malformed, Reply, problem_of
from model_analyzer.loadgen.tally import Tally


class HttpConnection(Connection):
    """A keep-alive connection, and the reply that is coming in on it."""

    __slots__ = ("reply",)

    def __init__(self) -> None:
        super().__init__()
        self.reply: Reply | None = None


class HttpDriver(Driver[HttpConnection]):
    """One order over HTTP/1.1."""

    def __init__(self, order: Order, control: socket.socket, tally: Tally) -> None:
        super().__init__(order, control, tally)
        self._wires = cycle(order.wires)
        # Length of a whole reply -> the bytes it must begin with to be one that was found good before.
        self._known: dict[int, bytes] = {}

    def _new_connection(self) -> HttpConnection:
        return HttpConnection()

    def _opened(self, conn: HttpConnection) -> None:
        self._send_next(conn, monotonic_ns())

    def _forget(self, conn: HttpConnection) -> None:
        conn.reply = None

    def _send(self, conn: HttpConnection, started_ns: int) -> None:
        conn.started_ns = started_ns
        self._inflight += 1
        self._put(conn, next(self._wires))

    def _all_sent(self, conn: HttpConnection) -> None:
        # A server may answer before it has the whole request.
        conn.state = WAITING if conn.reply is None else READING
        self._watch(conn, room=False)

    def _received(self, conn: HttpConnection, size: int, now: int) -> None:
        known = self._known.get(size)
        if known is not None and conn.state == WAITING and self._buffer.startswith(known):
            self._succeeded(conn, now)
            self._send_next(conn, now)
        elif conn.state < SENDING:
            self._broken(conn, "")
        else:
            self._feed(conn, self._view[:size], now)

    def _feed(self, conn: HttpConnection, data: memoryview, now: int) -> None:
        """A reply that is not known by its first bytes: in pieces, of a new shape, or none at all."""
        reply = conn.reply = conn.reply or Reply()
        if conn.state == WAITING:
            conn.state = READING
        try:
            whole = reply.feed(data) if data else reply.end()
        except Malformed as error:
            self._fail(conn, f"malformed reply: {error}")
            return
        if whole and reply.head is not None:
            self._replied(conn, reply.head, reply, now)
        elif not data:
            self._fail(conn, "connection closed in mid-reply" if reply.head else "connection closed without a reply")

    def _replied(self, conn: HttpConnection, head: Head, reply: Reply, now: int) -> None:
        """A whole reply: judge it, count it, send the next request."""
        problem = "malformed reply: bytes after its end" if reply.extra else problem_of(head, reply.body)
        close = head.close or reply.extra or conn.state == SENDING
        conn.reply = None
        if problem is not None:
            self._refused(conn, problem, close)
            return
        self._succeeded(conn, now)
        if close:
            self._renew(conn)
            return
        self._remember(head, reply)
        self._send_next(conn, now)

    def _remember(self, head: Head, reply: Reply) -> None:
        """Replies of a shape begin alike, the JSON part included: another that does is as good as this one."""
        if head.length is None or head.json_length is None or head.json_length > len(reply.body):
            return
        if len(self._known) >= KNOWN:
            self._known.clear()
        self._known[head.size + head.length] = reply.raw_head + reply.body[: head.json_length]


def drive(order: Order, control: socket.socket, tally: Tally) -> None:
    """Drive one order until a message on `control` says stop. Raises OSError where the host has no address."""
    HttpDriver(order, control, tally).run()
