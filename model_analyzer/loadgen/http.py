"""The hot path: encoded requests over HTTP/1.1 keep-alive connections, one epoll loop.

A connection has one request in flight. Latency runs from just before the first
byte is sent (open loop: from the scheduled time) to the last byte received.
"""

from __future__ import annotations

import errno
import heapq
import os
import select
import socket
import ssl
from collections import deque
from collections.abc import Iterator
from itertools import cycle
from time import monotonic_ns

from model_analyzer.loadgen.order import Order, tls_context
from model_analyzer.loadgen.reply import Head, Malformed, Reply, problem_of
from model_analyzer.loadgen.schedule import send_times_ns
from model_analyzer.loadgen.tally import Tally

READ_SIZE = 1 << 18
# Events taken at once: the rest waits in the kernel's queue, which goes round.
EVENTS = 64
# After `stop` requests in flight get this long to come back, so that they do not burden the next slice.
DRAIN_NS = 1_000_000_000
BACKOFF_FIRST_NS = 10_000_000
BACKOFF_LAST_NS = 1_000_000_000
OPEN_LOOP_CONNECTIONS = 1024
# A host with several addresses (localhost: ::1 and 127.0.0.1) is tried this long at each.
PROBE_S = 2.0
# Lengths of replies that are known by their first bytes.
KNOWN = 256
# A request is in flight from SENDING on. WAITING: sent, not a byte of the reply yet. RESTING: backs off.
CONNECTING, HANDSHAKE, FREE, RESTING, SENDING, WAITING, READING = range(7)
IN, OUT = select.EPOLLIN, select.EPOLLOUT
BLOCKED = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Connection:
    """A socket, its state, and the request in flight on it."""

    __slots__ = ("failures", "reply", "sock", "started_ns", "state", "unsent")

    def __init__(self) -> None:
        self.sock: socket.socket | None = None
        self.state = FREE
        self.started_ns = 0
        self.unsent = memoryview(b"")
        self.reply: Reply | None = None
        self.failures = 0


class Driver:
    """One order."""

    def __init__(self, order: Order, control: socket.socket, tally: Tally) -> None:
        self._order, self._control, self._tally = order, control, tally
        self._wires = cycle(order.wires)
        self._epoll = select.epoll()
        self._by_fd: dict[int, Connection] = {}
        self._buffer = bytearray(READ_SIZE)
        self._view = memoryview(self._buffer)
        # Length of a whole reply -> the bytes it must begin with to be one that was found good before.
        self._known: dict[int, bytes] = {}
        self._inflight = 0
        self._stopped_ns: int | None = None
        self._resume: list[tuple[int, int, Connection]] = []
        self._tls = tls_context(order.tls) if order.tls else None
        self._address = _address(order.host, order.port)
        self._open_loop = order.kind == "request_rate"
        self._free: deque[Connection] = deque()
        self._waiting: deque[int] = deque()
        self._connections: list[Connection] = []

    def run(self) -> None:
        """Send until told to stop, then drain."""
        self._epoll.register(self._control.fileno(), IN)
        now = monotonic_ns()
        try:
            schedule = self._begin(now)
            due = next(schedule, None)
            while not self._finished(now):
                events = self._poll(self._wait_s(due, now))
                woke_ns = monotonic_ns()
                for fd, event in events:
                    self._handle(fd, event)
                now = monotonic_ns()
                if events and now - woke_ns > self._tally.lag_ns:
                    self._tally.lag_ns = now - woke_ns
                if due is not None and due <= now:
                    due = self._send_due(schedule, due, now)
                self._tick(now)
        finally:
            self._close_all()

    def _begin(self, start_ns: int) -> Iterator[int]:
        if self._open_loop:
            times = send_times_ns(self._order.value, self._order.distribution, self._order.seed)
            return (start_ns + time for time in times)
        for _ in range(int(self._order.value)):
            self._add_connection()
        return iter(())

    def _finished(self, now: int) -> bool:
        return self._stopped_ns is not None and (not self._inflight or now - self._stopped_ns > DRAIN_NS)

    def _wait_s(self, due: int | None, now: int) -> float:
        until = self._tally.next_report_ns
        if due is not None and due < until and self._stopped_ns is None:
            until = due
        if self._resume and self._resume[0][0] < until:
            until = self._resume[0][0]
        return (until - now) / 1e9 if until > now else 0.0

    def _poll(self, wait_s: float) -> list[tuple[int, int]]:
        # select() on the epoll descriptor waits in microseconds, epoll itself in milliseconds only.
        if wait_s and self._open_loop:
            select.select([self._epoll.fileno()], (), (), wait_s)
            wait_s = 0
        return self._epoll.poll(wait_s, EVENTS)

    # -- connections ---------------------------------------------------------------------------

    def _add_connection(self) -> None:
        conn = Connection()
        self._connections.append(conn)
        self._connect(conn)

    def _connect(self, conn: Connection) -> None:
        family, kind, proto, _, address = self._address
        sock = socket.socket(family, kind, proto)
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        conn.sock, conn.state, conn.started_ns = sock, CONNECTING, monotonic_ns()
        self._by_fd[sock.fileno()] = conn
        self._epoll.register(sock.fileno(), OUT)
        code = sock.connect_ex(address)
        if code not in (0, errno.EINPROGRESS):
            self._fail(conn, _connect_failure(code))

    def _connected(self, conn: Connection, sock: socket.socket) -> None:
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self._fail(conn, _connect_failure(code))
        elif self._tls is None:
            self._ready(conn, sock)
        else:
            self._begin_tls(conn, sock, self._tls)

    def _begin_tls(self, conn: Connection, sock: socket.socket, tls: ssl.SSLContext) -> None:
        fd = sock.fileno()
        try:
            secure = tls.wrap_socket(sock, do_handshake_on_connect=False, server_hostname=self._order.host)
        except OSError as error:  # the peer is gone again; the descriptor with it
            self._by_fd.pop(fd, None)
            conn.sock = None
            self._fail(conn, f"TLS handshake failed: {_reason(error)}")
            return
        conn.sock, conn.state = secure, HANDSHAKE
        self._shake_hands(conn, secure)

    def _shake_hands(self, conn: Connection, sock: ssl.SSLSocket) -> None:
        try:
            sock.do_handshake()
        except ssl.SSLWantReadError:
            self._epoll.modify(sock.fileno(), IN)
        except ssl.SSLWantWriteError:
            self._epoll.modify(sock.fileno(), OUT)
        except OSError as error:  # ssl.SSLError is one
            self._fail(conn, f"TLS handshake failed: {_reason(error)}")
        else:
            self._ready(conn, sock)

    def _ready(self, conn: Connection, sock: socket.socket) -> None:
        self._epoll.modify(sock.fileno(), IN)
        self._send_next(conn, monotonic_ns())

    def _close(self, conn: Connection) -> None:
        """Free the socket. Whoever calls says what becomes of the connection."""
        if conn.sock is not None:
            fd = conn.sock.fileno()
            self._by_fd.pop(fd, None)
            self._epoll.unregister(fd)
            conn.sock.close()
            conn.sock = None
        conn.reply, conn.unsent = None, memoryview(b"")

    def _close_all(self) -> None:
        for conn in self._connections:
            self._close(conn)
        self._epoll.close()

    # -- sending -------------------------------------------------------------------------------

    def _send_next(self, conn: Connection, now: int) -> None:
        """The connection is free: send, or wait for the next due time."""
        if self._stopped_ns is not None:
            conn.state = FREE
        elif not self._open_loop:
            self._send(conn, now)
        elif self._waiting:
            self._send_late(conn, self._waiting.popleft(), now)
        else:
            conn.state = FREE
            self._free.append(conn)

    def _send_due(self, schedule: Iterator[int], due: int, now: int) -> int:
        """Open loop: send what is due; a request waits for a connection where none is free, and its wait counts."""
        while due <= now and self._stopped_ns is None:
            if self._free:
                self._send_late(self._free.popleft(), due, now)
            else:
                self._waiting.append(due)
                # While one backs off the server is in trouble: more connections would not help it.
                if not self._resume and len(self._connections) < OPEN_LOOP_CONNECTIONS:
                    self._add_connection()
            due = next(schedule)
        return due

    def _send_late(self, conn: Connection, due: int, now: int) -> None:
        if now - due > self._tally.send_lag_ns:
            self._tally.send_lag_ns = now - due
        self._send(conn, due)

    def _send(self, conn: Connection, started_ns: int) -> None:
        wire = next(self._wires)
        conn.started_ns = started_ns
        self._inflight += 1
        try:
            sent = conn.sock.send(wire)  # type: ignore[union-attr]
        except BLOCKED:
            sent = 0
        except OSError as error:
            conn.state = SENDING
            self._fail(conn, _reason(error))
            return
        if sent == len(wire):
            conn.state = WAITING
            return
        conn.state, conn.unsent = SENDING, wire[sent:]
        self._epoll.modify(conn.sock.fileno(), IN | OUT)  # type: ignore[union-attr]

    def _send_rest(self, conn: Connection, sock: socket.socket) -> None:
        try:
            sent = sock.send(conn.unsent)
        except BLOCKED:
            return
        except OSError as error:
            self._fail(conn, _reason(error))
            return
        conn.unsent = conn.unsent[sent:]
        if not conn.unsent:
            # A server may answer before it has the whole request.
            conn.state = WAITING if conn.reply is None else READING
            self._epoll.modify(sock.fileno(), IN)

    # -- receiving -----------------------------------------------------------------------------

    def _handle(self, fd: int, event: int) -> None:
        conn = self._by_fd.get(fd)
        if conn is None:
            if fd == self._control.fileno():
                self._stop()
            return
        sock = conn.sock
        assert sock is not None
        if conn.state >= WAITING:
            self._read(conn, sock)
        elif conn.state == SENDING and not event & IN:
            self._send_rest(conn, sock)
        elif conn.state == CONNECTING:
            self._connected(conn, sock)
        elif conn.state == HANDSHAKE:
            assert isinstance(sock, ssl.SSLSocket)
            self._shake_hands(conn, sock)
        else:
            self._read(conn, sock)

    def _stop(self) -> None:
        self._control.recv(64)  # b"" too: an analyzer that is gone is a stop
        self._epoll.unregister(self._control.fileno())
        self._stopped_ns = monotonic_ns()
        self._waiting.clear()

    def _read(self, conn: Connection, sock: socket.socket) -> None:
        try:
            size = sock.recv_into(self._buffer)
        except BLOCKED:
            return
        except OSError as error:
            self._broken(conn, _reason(error))
            return
        now = monotonic_ns()
        known = self._known.get(size)
        if known is not None and conn.state == WAITING and self._buffer.startswith(known):
            self._succeeded(conn, now)
            self._send_next(conn, now)
        elif conn.state < SENDING:
            self._broken(conn, "")
        else:
            self._feed(conn, self._view[:size], now)

    def _broken(self, conn: Connection, reason: str) -> None:
        """The connection broke, or said something nobody had asked for. That costs a request only where one is in flight."""
        if conn.state >= SENDING:
            self._fail(conn, reason)
            return
        self._close(conn)
        if conn in self._free:
            # Open loop: another one is made when a request needs it.
            self._free.remove(conn)
            self._connections.remove(conn)

    def _feed(self, conn: Connection, data: memoryview, now: int) -> None:
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

    def _replied(self, conn: Connection, head: Head, reply: Reply, now: int) -> None:
        """A whole reply: judge it, count it, send the next request."""
        problem = "malformed reply: bytes after its end" if reply.extra else problem_of(head, reply.body)
        close = head.close or reply.extra or conn.state == SENDING
        conn.reply = None
        if problem is not None:
            self._tally.failed(problem)
            self._inflight -= 1
            self._rest(conn, close)
            return
        self._succeeded(conn, now)
        if not close:
            self._remember(head, reply)
            self._send_next(conn, now)
            return
        self._close(conn)
        conn.state = FREE
        if self._stopped_ns is None:
            self._connect(conn)

    def _succeeded(self, conn: Connection, now: int) -> None:
        self._tally.done.append(now)
        self._tally.latency.append(now - conn.started_ns)
        self._inflight -= 1
        conn.failures = 0

    def _remember(self, head: Head, reply: Reply) -> None:
        """Replies of a shape begin alike, the JSON part included: another that does is as good as this one."""
        if head.length is None or head.json_length is None or head.json_length > len(reply.body):
            return
        if len(self._known) >= KNOWN:
            self._known.clear()
        self._known[head.size + head.length] = reply.raw_head + reply.body[: head.json_length]

    # -- failures ------------------------------------------------------------------------------

    def _fail(self, conn: Connection, message: str) -> None:
        self._tally.failed(message)
        if conn.state >= SENDING:
            self._inflight -= 1
        self._rest(conn, close=True)

    def _rest(self, conn: Connection, close: bool) -> None:
        """Back off, twice as long after each failure in a row: a dead server answers errors very fast."""
        if close:
            self._close(conn)
        conn.failures += 1
        conn.state = RESTING
        now = monotonic_ns()
        if self._open_loop and not close:
            # The schedule is the limit already.
            self._send_next(conn, now)
            return
        pause = min(BACKOFF_FIRST_NS << min(conn.failures - 1, 10), BACKOFF_LAST_NS)
        heapq.heappush(self._resume, (now + pause, id(conn), conn))

    def _tick(self, now: int) -> None:
        """Wake those that backed off; now and then look for timeouts and report."""
        while self._resume and self._resume[0][0] <= now:
            conn = heapq.heappop(self._resume)[2]
            if conn.sock is not None:
                self._send_next(conn, now)
            elif self._stopped_ns is None:
                self._connect(conn)
        if now < self._tally.next_report_ns:
            return
        self._time_out(now - self._order.timeout_ns)
        self._tally.report(now, self._inflight)

    def _time_out(self, before_ns: int) -> None:
        """Give up what began before."""
        within = f"within {self._order.timeout_ns / 1e9:g} s"
        for conn in self._connections:
            if conn.state not in (FREE, RESTING) and conn.started_ns < before_ns:
                self._fail(conn, f"timeout: no {'reply' if conn.state >= SENDING else 'connection'} {within}")
        while self._waiting and self._waiting[0] < before_ns:
            self._waiting.popleft()
            self._tally.failed(f"timeout: no free connection {within}")


def drive(order: Order, control: socket.socket, tally: Tally) -> None:
    """Drive one order until a message on `control` says stop. Raises OSError where the host has no address."""
    Driver(order, control, tally).run()


AddressInfo = tuple[socket.AddressFamily, socket.SocketKind, int, str, tuple[str, int] | tuple[str, int, int, int]]


def _address(host: str, port: int) -> AddressInfo:
    """The first address that takes a connection; where none does, the first."""
    addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    if len(addresses) > 1:
        for found in addresses:
            with socket.socket(found[0], found[1], found[2]) as probe:
                probe.settimeout(PROBE_S)
                if probe.connect_ex(found[4]) == 0:
                    return found  # type: ignore[return-value]
    return addresses[0]  # type: ignore[return-value]


def _connect_failure(code: int) -> str:
    return f"cannot connect: {os.strerror(code)}"


def _reason(error: OSError) -> str:
    return f"connection broke: {error.strerror or error}"
