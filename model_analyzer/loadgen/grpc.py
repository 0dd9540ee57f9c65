"""The hot path over gRPC: ModelInfer as HTTP/2 frames, replies known by their bytes.

A connection has one stream in flight. A trial with four on each took less CPU a request where many were in flight, as several
replies come in one read; but then a reply waits for its neighbours, a connection that breaks takes them along, and a
balancer that spreads connections over servers spreads less.
"""

from __future__ import annotations

import socket
import ssl
from itertools import cycle
from time import monotonic_ns

from model_analyzer.loadgen.driver import FREE, GREETING, READING, SENDING, WAITING, Connection, Driver
from model_analyzer.loadgen.header_blocks import HeaderBlocks, request_block
from model_analyzer.loadgen.known_replies import KnownReplies
from model_analyzer.loadgen.order import Order
from model_analyzer.loadgen.reply import Malformed
from model_analyzer.loadgen.session import WINDOW, Outcome, Request, Session
from model_analyzer.loadgen.tally import Tally


class GrpcConnection(Connection):
    """An HTTP/2 connection, and the request in flight on it."""

    __slots__ = ("again_ns", "repeated", "request", "session")

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.session = session
        self.request: Request | None = None
        # When the request began that is to be sent anew on the next connection; and whether it has been.
        self.again_ns: int | None = None
        self.repeated = False


class GrpcDriver(Driver[GrpcConnection]):
    """One order over gRPC."""

    def __init__(self, order: Order, control: socket.socket, tally: Tally) -> None:
        super().__init__(order, control, tally)
        if self._tls is not None:
            self._tls.set_alpn_protocols(["h2"])
        host = f"[{order.host}]" if ":" in order.host else order.host
        block = request_block(f"{host}:{order.port}", secure=self._tls is not None)
        self._requests = cycle([Request(block, message) for message in order.wires])
        self._blocks = HeaderBlocks()
        self._known = KnownReplies()

    # -- connections ---------------------------------------------------------------------------

    def _new_connection(self) -> GrpcConnection:
        return GrpcConnection(Session(self._blocks, WINDOW))

    def _opened(self, conn: GrpcConnection) -> None:
        sock = conn.sock
        if isinstance(sock, ssl.SSLSocket) and sock.selected_alpn_protocol() != "h2":
            self._fail(conn, "TLS handshake failed: the server does not agree on HTTP/2 (ALPN h2)")
            return
        conn.state, conn.session = GREETING, Session(self._blocks, WINDOW)
        self._push(conn)

    def _greeted(self, conn: GrpcConnection) -> None:
        """The server has said what it takes."""
        again_ns, conn.again_ns = conn.again_ns, None
        if again_ns is None or conn.request is None or self._stopped_ns is not None:
            self._send_next(conn, monotonic_ns())
        else:
            conn.repeated = True
            self._send_request(conn, conn.request, again_ns)

    def _forget(self, conn: GrpcConnection) -> None:
        conn.again_ns = None

    # -- sending -------------------------------------------------------------------------------

    def _send(self, conn: GrpcConnection, started_ns: int) -> None:
        conn.request, conn.repeated = next(self._requests), False
        self._send_request(conn, conn.request, started_ns)

    def _send_request(self, conn: GrpcConnection, request: Request, started_ns: int) -> None:
        conn.started_ns = started_ns
        self._inflight += 1
        wire = conn.session.begin(request)
        if wire is not None and not conn.unsent:
            self._put(conn, wire)
            return
        conn.state = SENDING
        if wire is not None:
            conn.unsent.append(memoryview(wire))
        self._push(conn)

    def _push(self, conn: GrpcConnection) -> None:
        """Send what there is, as far as the socket takes it; the rest when it takes more."""
        sock = conn.sock
        assert sock is not None
        if not conn.unsent:
            conn.unsent.extend(conn.session.more())
        if conn.unsent:
            self._send_rest(conn, sock)
        if conn.unsent:
            self._watch(conn, room=True)

    def _all_sent(self, conn: GrpcConnection) -> None:
        conn.unsent.extend(conn.session.more())
        if conn.unsent:
            return
        self._watch(conn, room=False)
        if conn.state == SENDING and not conn.session.uploading:
            conn.state = READING if conn.session.midway else WAITING

    # -- receiving -----------------------------------------------------------------------------

    def _received(self, conn: GrpcConnection, size: int, now: int) -> None:
        if conn.state == WAITING and self._known.match(self._buffer, size, conn.session):
            self._succeeded(conn, now)
            self._send_next(conn, now)
        elif size:
            self._feed(conn, size, now)
        else:
            self._broken(conn, _ending(conn))

    def _feed(self, conn: GrpcConnection, size: int, now: int) -> None:
        """Bytes that are no known reply."""
        session, sock, waited = conn.session, conn.sock, conn.state == WAITING
        data = self._view[:size]
        try:
            outcome = session.feed(data)
        except Malformed as error:
            self._broken(conn, f"malformed reply: {error}")
            return
        if outcome is not None:
            if outcome.problem is None and waited:
                self._known.learn(bytes(data), session.stream_bytes)
            self._ended(conn, outcome, now)
        elif session.closing and conn.state < SENDING:
            self._broken(conn, session.goodbye)
        elif session.greeted and conn.state == GREETING:
            self._greeted(conn)
        if conn.sock is not sock:
            return
        if conn.state >= WAITING:
            # Known replies are whole reads: not in the middle of a frame.
            conn.state = READING if session.midway else WAITING
        # What the session has to answer, and what the server has made room for.
        self._push(conn)

    def _broken(self, conn: GrpcConnection, reason: str) -> None:
        goodbye = conn.session.goodbye
        super()._broken(conn, f"{reason} ({goodbye})" if goodbye not in ("", reason) else reason)

    def _ended(self, conn: GrpcConnection, outcome: Outcome, now: int) -> None:
        """The request in flight is over: count it, go on with the next one."""
        # A server may answer before it has the whole request. The rest of it would be in the way then.
        close = conn.session.closing or conn.session.uploading or bool(conn.unsent)
        if outcome.again and not conn.repeated:
            self._repeat(conn)
        elif outcome.problem is not None:
            self._refused(conn, outcome.problem, close or outcome.again)
        else:
            self._succeeded(conn, now)
            if close:
                self._renew(conn)
            else:
                self._send_next(conn, now)

    def _repeat(self, conn: GrpcConnection) -> None:
        """The server has not begun with the request: send it on a connection of its own. Its latency counts on."""
        self._inflight -= 1
        self._close(conn)
        conn.again_ns, conn.state = conn.started_ns, FREE
        if self._stopped_ns is None:
            self._connect(conn)


def _ending(conn: GrpcConnection) -> str:
    """What it means that the server closed the connection."""
    if conn.state == GREETING:
        return "connection closed before the server's SETTINGS"
    return f"connection closed {'in mid-reply' if conn.session.midway else 'without a reply'}"


def drive(order: Order, control: socket.socket, tally: Tally) -> None:
    """Drive one order until a message on `control` says stop. Raises OSError where the host has no address."""
    GrpcDriver(order, control, tally).run()
