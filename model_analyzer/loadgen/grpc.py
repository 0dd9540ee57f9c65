"""The hot path over gRPC: ModelInfer as HTTP/2 frames, replies known by their bytes.

Where many requests are in flight, four share a connection as streams: Triton answers more of them a second over fewer
connections, and replies that come together take one read, the next requests one write.
Few requests have a connection each. So have large ones and those with large replies, which would wait for each other's bytes,
and those of an open loop, which fall due one by one.
"""

from __future__ import annotations

import socket
from itertools import cycle
from time import monotonic_ns
from typing import TYPE_CHECKING, cast

from model_analyzer.loadgen.driver import BUSY, FREE, GREETING, Connection, Driver, Slot
from model_analyzer.loadgen.header_blocks import METHOD, HeaderBlocks, request_block
from model_analyzer.loadgen.known_replies import KnownReplies
from model_analyzer.loadgen.order import Order
from model_analyzer.loadgen.reply import Malformed
from model_analyzer.loadgen.session import WINDOW, Outcome, Request, Session, Stream
from model_analyzer.loadgen.tally import Tally

if TYPE_CHECKING:
    import ssl

# Streams on a connection, how many requests in flight it takes for that, and how long the longest of them may be: four
# together fill half of the window that a connection begins with. Tried in pairs on Triton: two, or a connection each with 8 in
# flight, take more CPU a request; eight show no gain.
STREAMS = 4
SHARED_FROM = 8
SHARED_SIZE = 8192
# The longest reply that may have neighbours.
SHARED_REPLY = 1 << 16


class GrpcSlot(Slot):
    """A slot, its stream, and its request."""

    __slots__ = ("again_ns", "repeated", "request", "stream")

    def __init__(self) -> None:
        super().__init__()
        self.stream = SlotStream(self)
        self.request: Request | None = None
        # When the request began that is to be sent anew on the next connection; and whether it has been.
        self.again_ns: int | None = None
        self.repeated = False


class SlotStream(Stream):
    """A stream that knows its slot."""

    __slots__ = ("slot",)

    def __init__(self, slot: GrpcSlot) -> None:
        super().__init__()
        self.slot = slot


class GrpcConnection(Connection[GrpcSlot]):
    """An HTTP/2 connection. wires: whole requests that go out together. heard_ns: when the server was last heard."""

    __slots__ = ("heard_ns", "session", "wires")

    def __init__(self, session: Session[SlotStream]) -> None:
        super().__init__()
        self.session = session
        self.wires: list[bytes] = []
        self.heard_ns = 0


class GrpcDriver(Driver[GrpcConnection, GrpcSlot]):
    """One order over gRPC."""

    method = METHOD

    def __init__(self, order: Order, control: socket.socket, tally: Tally) -> None:
        super().__init__(order, control, tally)
        if self._tls is not None:
            self._tls.set_alpn_protocols(["h2"])
        host = f"[{order.host}]" if ":" in order.host else order.host
        block = request_block(f"{host}:{order.port}", secure=self._tls is not None, method=self.method)
        self._requests = cycle([Request(block, message) for message in order.wires])
        self._blocks = HeaderBlocks()
        self._known = KnownReplies()
        self._shared_by = _shared_by(order)
        # The connection whose requests are held back until all that can go out have come together.
        self._held: GrpcConnection | None = None

    # -- connections ---------------------------------------------------------------------------

    def _new_slot(self) -> GrpcSlot:
        return GrpcSlot()

    def _new_connection(self) -> GrpcConnection:
        return GrpcConnection(Session(self._blocks, WINDOW))

    def _opened(self, conn: GrpcConnection) -> None:
        if self._tls is not None and cast("ssl.SSLSocket", conn.sock).selected_alpn_protocol() != "h2":
            self._lose(conn, "TLS handshake failed: the server does not agree on HTTP/2 (ALPN h2)")
            return
        conn.state = GREETING
        self._push(conn)

    def _arrived(self, slot: GrpcSlot, now: int) -> None:
        again_ns = slot.again_ns
        if again_ns is None or slot.request is None or self._stopped:
            self._send_next(slot, now)
        elif len(slot.conn.session.streams) >= slot.conn.session.limit:
            self._move(slot)
        else:
            slot.again_ns, slot.repeated = None, True
            self._send_request(slot, slot.request, again_ns)

    def _part(self) -> None:
        """From now on no connection is shared."""
        self._shared_by = 1
        for conn in self._connections:
            conn.session.limit = 1

    def _retire(self, conn: GrpcConnection) -> None:
        """No more requests on this connection: it ends with those in flight."""
        for slot in tuple(conn.slots):
            if slot.state != BUSY:
                self._leave(slot)
                if slot.state == FREE:
                    self._drop(slot)

    def _lose(self, conn: GrpcConnection, message: str) -> None:
        goodbye = conn.session.goodbye
        super()._lose(conn, f"{message} ({goodbye})" if goodbye not in ("", message) else message)

    # -- sending -------------------------------------------------------------------------------

    def _send(self, slot: GrpcSlot, started_ns: int) -> None:
        session: Session[SlotStream] = slot.conn.session
        if session.closing or len(session.streams) >= session.limit:
            if self._open_loop:
                self._waiting.appendleft(started_ns)
            self._move(slot)
            return
        slot.request, slot.repeated = next(self._requests), False
        self._send_request(slot, slot.request, started_ns)

    def _send_request(self, slot: GrpcSlot, request: Request, started_ns: int) -> None:
        conn: GrpcConnection = slot.conn
        slot.started_ns, slot.state = started_ns, BUSY
        self._inflight += 1
        wire = conn.session.begin(request, slot.stream)
        held = conn is self._held
        if wire is not None and not held and not conn.unsent and not conn.session.out:
            self._put(conn, wire)
            return
        if wire is not None:
            conn.wires.append(wire)
        if not held:
            self._flush(conn)

    def _flush(self, conn: GrpcConnection) -> None:
        """Send what there is, the requests that were held back in one piece."""
        wires, session = conn.wires, conn.session
        if conn.unsent or session.out or session.uploads:
            blocked = bool(conn.unsent)
            conn.unsent.extend(session.said())
            conn.unsent.extend(map(memoryview, wires))
            wires.clear()
            if not blocked:
                conn.unsent.extend(session.more())
            self._push(conn)
        elif wires:
            wire = b"".join(wires)
            wires.clear()
            self._put(conn, wire)

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
        if not conn.unsent:
            self._watch(conn, room=False)

    # -- receiving -----------------------------------------------------------------------------

    def _received(self, conn: GrpcConnection, size: int, now: int) -> None:
        conn.heard_ns = now
        known, at = self._known.take(self._buffer, size, conn.session)
        if at < size:
            self._feed(conn, known, self._view[at:size], now)
        elif len(known) == 1:
            slot = known[0].slot
            self._succeeded(slot, now)
            self._send_next(slot, now)
        elif size:
            self._replied(conn, known, now)
        else:
            self._lose(conn, _ending(conn))

    def _replied(self, conn: GrpcConnection, known: list[SlotStream], now: int) -> None:
        """Known replies or credits, and nothing else."""
        for stream in known:
            self._succeeded(stream.slot, now)
        self._held, now = conn, monotonic_ns()
        for stream in known:
            self._send_next(stream.slot, now)
        self._held = None
        if conn.sock is not None:
            self._flush(conn)

    def _feed(self, conn: GrpcConnection, known: list[SlotStream], data: memoryview, now: int) -> None:
        """Bytes that are no known reply, behind replies that are."""
        session, inside = conn.session, conn.session.inside
        try:
            ended = session.feed(data)
        except Malformed as error:
            self._lose(conn, f"malformed reply: {error}")
            return
        if not inside:
            self._learn(ended, data)
        if conn.unsent and ended and len(conn.slots) == 1:
            # A server may answer before it has the whole request. The rest of it would be in the way then.
            session.closing = True
        if session.longest > SHARED_REPLY and self._shared_by > 1:
            self._part()
        if conn.state == GREETING:
            self._greet(conn)
        else:
            self._go_on(conn, known, ended, now)
        if conn.sock is not None and session.closing:
            self._retire(conn)
        if conn.sock is not None:
            # What the session has to answer, and what the server has made room for, too.
            self._flush(conn)

    def _learn(self, ended: list[tuple[SlotStream, Outcome]], data: memoryview) -> None:
        good = next((stream for stream, outcome in ended if outcome.problem is None), None)
        if good is not None:
            self._known.learn(bytes(data), good.ident)

    def _greet(self, conn: GrpcConnection) -> None:
        """The server may have said what it takes."""
        session = conn.session
        if session.closing:
            self._lose(conn, session.goodbye)
        elif session.greeted:
            self._shared_by = session.limit = min(self._shared_by, session.limit)
            self._held = conn
            self._use(conn)
            self._held = None

    def _go_on(
        self, conn: GrpcConnection, known: list[SlotStream], ended: list[tuple[SlotStream, Outcome]], now: int
    ) -> None:
        """Count what has ended, and send the next requests together."""
        self._held = conn
        for stream in known:
            self._succeeded(stream.slot, now)
        for stream, outcome in ended:
            self._ended(stream.slot, outcome, now)
        now = monotonic_ns()
        for stream in known:
            self._send_next(stream.slot, now)
        for stream, outcome in ended:
            if outcome.problem is None:
                self._send_next(stream.slot, now)
        self._held = None

    def _ended(self, slot: GrpcSlot, outcome: Outcome, now: int) -> None:
        """The request in flight is over: count it."""
        if outcome.problem is None:
            self._succeeded(slot, now)
        elif outcome.again and not slot.repeated:
            # The server has not begun with the request: send it over another connection. Its latency counts on.
            self._inflight -= 1
            slot.again_ns = slot.started_ns
            self._move(slot)
        else:
            self._refused(slot, outcome.problem, slot.conn.session.closing or outcome.again)

    # -- failures ------------------------------------------------------------------------------

    def _takes_a_request(self, slot: GrpcSlot) -> bool:
        # One that was to be sent once more is the slot's own.
        return slot.again_ns is not None or super()._takes_a_request(slot)

    def _rest(self, slot: GrpcSlot) -> None:
        slot.again_ns = None
        slot.stream.forget()
        super()._rest(slot)

    def _give_up(self, slot: GrpcSlot, message: str, before_ns: int) -> None:
        """Cancel the stream. Its neighbours go on; where it has none, nothing was heard all the time or a frame hangs, no more follow."""
        conn: GrpcConnection = slot.conn
        session = conn.session
        session.cancel(slot.stream)
        if session.inside or conn.heard_ns < before_ns or len(conn.slots) == 1:
            session.closing = True
        self._refused(slot, message, session.closing)
        if conn.sock is not None and session.closing:
            self._retire(conn)
        if conn.sock is not None:
            self._flush(conn)


def _shared_by(order: Order) -> int:
    """Requests that share a connection, evenly."""
    if order.scheduled or order.value < SHARED_FROM or max(map(len, order.wires)) > SHARED_SIZE:
        return 1
    connections = -(-order.concurrency // STREAMS)
    return -(-order.concurrency // connections)


def _ending(conn: GrpcConnection) -> str:
    """What it means that the server closed the connection."""
    if conn.state == GREETING:
        return "connection closed before the server's SETTINGS"
    return f"connection closed {'in mid-reply' if conn.session.midway else 'without a reply'}"


def drive(order: Order, control: socket.socket, tally: Tally) -> None:
    """Drive one order until a message on `control` says stop. Raises OSError where the host has no address."""
    GrpcDriver(order, control, tally).run()
