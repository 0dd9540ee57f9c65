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
from time import monotonic_ns

from model_analyzer.loadgen.order import Order, tls_context
from model_analyzer.loadgen.reply import Head, Malformed, Reply, failure_of, full_check, parse_head
from model_analyzer.loadgen.schedule import send_times_ns
from model_analyzer.loadgen.tally import Tally

READ_SIZE = 1 << 18
# After `stop` requests in flight get this long to come back, so that they do not burden the next slice.
DRAIN_NS = 1_000_000_000
BACKOFF_FIRST_NS = 10_000_000
BACKOFF_LAST_NS = 1_000_000_000
OPEN_LOOP_CONNECTIONS = 1024
# Distinct heads that are kept; more come from a server that puts a date or an id in each.
HEADS = 256
CONNECTING, HANDSHAKE, IDLE, BUSY = range(4)
IN, OUT = select.EPOLLIN, select.EPOLLOUT


class Connection:
    """A socket, its state, and the request in flight on it."""

    __slots__ = ("failures", "first", "reply", "sock", "started_ns", "state", "unsent")

    def __init__(self) -> None:
        self.sock: socket.socket | None = None
        self.state = IDLE
        self.started_ns = 0
        self.unsent: memoryview | None = None
        self.reply: Reply | None = None
        self.failures = 0
        self.first = True


class Driver:
    """One order."""

    def __init__(self, order: Order, control: socket.socket, tally: Tally) -> None:
        self._order, self._control, self._tally = order, control, tally
        self._epoll = select.epoll()
        self._by_fd: dict[int, Connection] = {}
        self._heads: dict[bytes, Head] = {}
        self._next = 0
        self._inflight = 0
        self._stopped_ns: int | None = None
        self._resume: list[tuple[int, int, Connection]] = []
        self._tls = tls_context(order.tls) if order.tls else None
        self._address = socket.getaddrinfo(order.host, order.port, type=socket.SOCK_STREAM)[0]
        self._open_loop = order.kind == "request_rate"
        self._free: deque[Connection] = deque()
        self._waiting: deque[int] = deque()
        self._connections: list[Connection] = []

    def run(self) -> None:
        """Send until told to stop, then drain."""
        self._epoll.register(self._control.fileno(), IN)
        schedule = self._begin()
        due = next(schedule, None)
        try:
            while not self._finished():
                wait_s = self._wait_s(due)
                # select() on the epoll descriptor waits in microseconds, epoll itself in milliseconds only.
                if wait_s and self._open_loop:
                    select.select([self._epoll.fileno()], (), (), wait_s)
                    wait_s = 0
                events = self._epoll.poll(wait_s)
                woke_ns = monotonic_ns()
                for fd, event in events:
                    self._handle(fd, event)
                now = monotonic_ns()
                if events and now - woke_ns > self._tally.lag_ns:
                    self._tally.lag_ns = now - woke_ns
                due = self._send_due(schedule, due, now)
                self._tick(now)
        finally:
            self._close_all()

    def _begin(self) -> Iterator[int]:
        if not self._open_loop:
            for _ in range(int(self._order.value)):
                self._add_connection()
            return iter(())
        start = monotonic_ns()
        times = send_times_ns(self._order.value, self._order.distribution, self._order.seed)
        return (start + time for time in times)

    def _finished(self) -> bool:
        if self._stopped_ns is None:
            return False
        return not self._inflight or monotonic_ns() - self._stopped_ns > DRAIN_NS

    def _wait_s(self, due: int | None) -> float:
        until = self._tally.next_report_ns
        if due is not None and self._stopped_ns is None:
            until = min(until, due)
        if self._resume:
            until = min(until, self._resume[0][0])
        return max(0.0, (until - monotonic_ns()) / 1e9)

    # -- connections ---------------------------------------------------------------------------

    def _add_connection(self) -> Connection:
        conn = Connection()
        self._connections.append(conn)
        self._connect(conn)
        return conn

    def _connect(self, conn: Connection) -> None:
        family, kind, proto, _, address = self._address
        sock = socket.socket(family, kind, proto)
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        conn.sock, conn.state, conn.first = sock, CONNECTING, True
        conn.started_ns = monotonic_ns()
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
            secure = self._tls.wrap_socket(sock, do_handshake_on_connect=False, server_hostname=self._order.host)
            conn.sock, conn.state = secure, HANDSHAKE
            self._shake_hands(conn, secure)

    def _shake_hands(self, conn: Connection, sock: ssl.SSLSocket) -> None:
        try:
            sock.do_handshake()
        except ssl.SSLWantReadError:
            self._epoll.modify(sock.fileno(), IN)
        except ssl.SSLWantWriteError:
            self._epoll.modify(sock.fileno(), OUT)
        except (ssl.SSLError, OSError) as error:
            self._fail(conn, f"TLS handshake failed: {_reason(error)}")
        else:
            self._ready(conn, sock)

    def _ready(self, conn: Connection, sock: socket.socket) -> None:
        conn.state = IDLE
        self._epoll.modify(sock.fileno(), IN)
        self._send_next(conn)

    def _close(self, conn: Connection) -> None:
        if conn.sock is not None:
            fd = conn.sock.fileno()
            self._by_fd.pop(fd, None)
            self._epoll.unregister(fd)
            conn.sock.close()
            conn.sock = None
        if conn.state == BUSY:
            self._inflight -= 1
        conn.state, conn.unsent, conn.reply = IDLE, None, None

    def _close_all(self) -> None:
        for conn in self._connections:
            self._close(conn)
        self._epoll.close()

    # -- sending -------------------------------------------------------------------------------

    def _send_next(self, conn: Connection) -> None:
        """The connection is free: send, or wait for the next due time."""
        if self._stopped_ns is not None:
            return
        if not self._open_loop:
            self._send(conn, monotonic_ns())
        elif self._waiting:
            self._send(conn, self._waiting.popleft())
        else:
            self._free.append(conn)

    def _send_due(self, schedule: Iterator[int], due: int | None, now: int) -> int | None:
        """Open loop: send what is due; a request waits for a connection where none is free, and its wait counts."""
        while due is not None and due <= now and self._stopped_ns is None:
            while self._free and self._free[0].sock is None:
                self._free.popleft()
            if self._free:
                self._send(self._free.popleft(), due)
            else:
                self._waiting.append(due)
                if len(self._connections) < OPEN_LOOP_CONNECTIONS:
                    self._add_connection()
            due = next(schedule)
        return due

    def _send(self, conn: Connection, started_ns: int) -> None:
        wires = self._order.wires
        wire = wires[self._next]
        self._next = (self._next + 1) % len(wires)
        conn.state, conn.started_ns = BUSY, started_ns
        self._inflight += 1
        if self._open_loop:
            self._tally.send_lag_ns = max(self._tally.send_lag_ns, monotonic_ns() - started_ns)
        self._write(conn, wire)

    def _write(self, conn: Connection, wire: memoryview) -> None:
        sock = conn.sock
        assert sock is not None
        try:
            sent = sock.send(wire)
        except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
            sent = 0
        except OSError as error:
            self._fail(conn, _reason(error))
            return
        if sent == len(wire):
            if conn.unsent is not None:
                conn.unsent = None
                self._epoll.modify(sock.fileno(), IN)
            return
        if conn.unsent is None:
            self._epoll.modify(sock.fileno(), IN | OUT)
        conn.unsent = wire[sent:]

    # -- receiving -----------------------------------------------------------------------------

    def _handle(self, fd: int, event: int) -> None:
        conn = self._by_fd.get(fd)
        if conn is None:
            if fd == self._control.fileno():
                self._stop()
            return
        sock = conn.sock
        assert sock is not None
        if conn.state == CONNECTING:
            self._connected(conn, sock)
        elif conn.state == HANDSHAKE:
            assert isinstance(sock, ssl.SSLSocket)
            self._shake_hands(conn, sock)
        elif conn.unsent is not None and event & OUT and not event & IN:
            self._write(conn, conn.unsent)
        else:
            self._read(conn, sock)

    def _stop(self) -> None:
        self._control.recv(64)  # b"" too: an analyzer that is gone is a stop
        self._epoll.unregister(self._control.fileno())
        self._stopped_ns = monotonic_ns()
        self._waiting.clear()

    def _read(self, conn: Connection, sock: socket.socket) -> None:
        try:
            data = sock.recv(READ_SIZE)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return
        except OSError as error:
            self._fail(conn, _reason(error))
            return
        now = monotonic_ns()
        if conn.state != BUSY:
            # Nothing was asked: the server closed an idle connection, or sent what no one asked for.
            self._close(conn)
            self._reopen(conn)
            return
        if conn.reply is None and not conn.first:
            end = data.find(b"\r\n\r\n") + 4
            head = self._heads.get(data[:end]) or self._remember(data[:end])
            if head is not None and len(data) == end + (head.length or 0):
                self._replied(conn, now, head, data[end:])
                return
        self._feed(conn, data, now)

    def _remember(self, raw: bytes) -> Head | None:
        """Heads of Triton are constant for a shape: each distinct one is parsed once. Only plain ones are kept."""
        try:
            head = parse_head(raw)
        except Malformed:
            return None  # the slow path says what is wrong
        if head.length is None or head.status < 200:
            return None
        if len(self._heads) < HEADS:
            self._heads[raw] = head
        return head

    def _feed(self, conn: Connection, data: bytes, now: int) -> None:
        """The slow path: a first reply, a reply in pieces, a head not seen before."""
        reply = conn.reply = conn.reply or Reply()
        try:
            whole = reply.feed(data) if data else reply.end()
        except Malformed as error:
            self._fail(conn, f"malformed reply: {error}")
            return
        if whole and reply.head is not None:
            if reply.extra:
                self._fail(conn, "malformed reply: bytes after its end")
            else:
                self._whole(conn, reply, reply.head, now)
        elif not data:
            self._fail(conn, "connection closed in mid-reply" if reply.head else "connection closed without a reply")

    def _whole(self, conn: Connection, reply: Reply, head: Head, now: int) -> None:
        body = bytes(reply.body)
        if conn.first and head.status == 200:
            problem = failure_of(200, body) or full_check(head, body)
            if problem is not None:
                self._fail(conn, problem)
                return
            conn.first = False
        self._replied(conn, now, head, body)

    def _replied(self, conn: Connection, now: int, head: Head, body: bytes) -> None:
        """A whole reply: count it, send the next request."""
        failure = None if head.status == 200 and body[:8] != b'{"error"' else failure_of(head.status, body)
        unsent = conn.unsent is not None
        if failure is not None:
            self._tally.failed(failure)
            self._rest(conn, broken=unsent or head.close)
            return
        self._tally.done.append(now)
        self._tally.latency.append(now - conn.started_ns)
        self._inflight -= 1
        conn.state, conn.reply, conn.failures = IDLE, None, 0
        if head.close or unsent:
            self._close(conn)
            self._reopen(conn)
        else:
            self._send_next(conn)

    # -- failures ------------------------------------------------------------------------------

    def _fail(self, conn: Connection, message: str) -> None:
        self._tally.failed(message)
        self._rest(conn, broken=True)

    def _rest(self, conn: Connection, broken: bool) -> None:
        """Back off, twice as long after each failure in a row: a dead server answers errors very fast."""
        conn.failures += 1
        if broken:
            self._close(conn)
        else:
            self._inflight -= 1
            conn.state, conn.reply = IDLE, None
        pause = min(BACKOFF_FIRST_NS << min(conn.failures - 1, 10), BACKOFF_LAST_NS)
        heapq.heappush(self._resume, (monotonic_ns() + pause, id(conn), conn))

    def _reopen(self, conn: Connection) -> None:
        if self._stopped_ns is None:
            self._connect(conn)

    def _tick(self, now: int) -> None:
        """Wake those that backed off; now and then look for timeouts and report."""
        while self._resume and self._resume[0][0] <= now:
            conn = heapq.heappop(self._resume)[2]
            if conn.sock is None:
                self._reopen(conn)
            else:
                self._send_next(conn)
        if now < self._tally.next_report_ns:
            return
        for conn in self._connections:
            waits = conn.state in (BUSY, CONNECTING, HANDSHAKE) and conn.sock is not None
            if waits and now - conn.started_ns > self._order.timeout_ns:
                what = "reply" if conn.state == BUSY else "connection"
                self._fail(conn, f"timeout: no {what} within {self._order.timeout_ns / 1e9:g} s")
        self._tally.report(now, self._inflight)


def drive(order: Order, control: socket.socket, tally: Tally) -> None:
    """Drive one order until a message on `control` says stop. Raises OSError where the host has no address."""
    Driver(order, control, tally).run()


def _connect_failure(code: int) -> str:
    return f"cannot connect: {os.strerror(code)}"


def _reason(error: OSError) -> str:
    return f"connection broke: {error.strerror or error}"
