"""The loop that both protocols share: connections in one epoll, closed and open load, back-off, timeouts, drain.

A slot has one request in flight, with its latency, its timeout and its back-off. It sends over a connection, which carries one
slot or several. Latency runs from just before the first byte is sent (open loop: from the scheduled time) to the last byte
received. http.py and grpc.py say what a request and a reply are.
"""

from __future__ import annotations

import errno
import heapq
import os
import resource
import select
import socket
import struct
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator
from itertools import islice
from time import monotonic_ns
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from model_analyzer.loadgen.drain import Drain
from model_analyzer.loadgen.order import Order
from model_analyzer.loadgen.responses import Responses
from model_analyzer.loadgen.schedule import send_times_ns, slot_times_ns
from model_analyzer.loadgen.split import of_schedule, share
from model_analyzer.loadgen.tally import Tally

if TYPE_CHECKING:
    import ssl

# More than a TLS record holds (16 KiB): else a part of one would stay in the SSLSocket, where epoll does not see it.
READ_SIZE = 1 << 18
# Events taken at once: the rest waits in the kernel's queue, which goes round.
EVENTS = 64
# How long the loop waits for one connection alone, and for one call on it (a timeval).
CONVERSE_NS = 5_000_000
CONVERSE_LIMIT = struct.pack("@ll", 0, CONVERSE_NS // 1000)
# Pieces given to the kernel at once; it takes 1024.
PIECES = 256
BACKOFF_FIRST_NS = 10_000_000
BACKOFF_LAST_NS = 1_000_000_000
# A host with several addresses (localhost: ::1 and 127.0.0.1) is tried this long at each.
PROBE_S = 2.0
# Of a connection. GREETING: the server has yet to say what it takes (HTTP/2). OPEN: it takes requests.
CONNECTING, HANDSHAKE, GREETING, OPEN = range(4)
# Of a slot. RESTING: backs off. JOINING: waits for its connection. BUSY: a request is in flight.
FREE, RESTING, JOINING, BUSY = range(4)
IN, OUT = select.EPOLLIN, select.EPOLLOUT


class Slot:
    """A request in flight, or the place for one."""

    __slots__ = ("conn", "failures", "responses", "started_ns", "state")
    # Of a streamed reply; other slots have none.
    responses: Responses

    def __init__(self) -> None:
        # The Connection that it sends over; None while it has none.
        self.conn: Any = None
        self.state = FREE
        self.started_ns = 0
        self.failures = 0


S = TypeVar("S", bound=Slot)


class Connection(Generic[S]):
    """A socket, and the slots that send over it. It ends with the socket, or with the last slot that leaves it."""

    __slots__ = ("slots", "sock", "started_ns", "state", "unsent", "watched")

    def __init__(self) -> None:
        self.sock: socket.socket | None = None
        self.state = CONNECTING
        self.started_ns = 0
        self.slots: list[S] = []
        # What the socket did not take yet.
        self.unsent: deque[memoryview] = deque()
        # Whether epoll tells when it takes more.
        self.watched = False


C = TypeVar("C", bound=Connection[Any])


class Driver(ABC, Generic[C, S]):
    """One order."""

    def __init__(self, order: Order, control: socket.socket, tally: Tally) -> None:
        self._order, self._control, self._tally = order, control, tally
        self._epoll = select.epoll()
        self._by_fd: dict[int, C] = {}
        self._buffer = bytearray(READ_SIZE)
        self._view = memoryview(self._buffer)
        self._inflight = 0
        self._stopped = False
        self._drain = Drain()
        self._resume: list[tuple[int, int, S]] = []
        self._tls: ssl.SSLContext | None = None
        # What a socket raises that takes or has nothing now.
        self._blocked: tuple[type[OSError], ...] = (BlockingIOError,)
        if order.tls:
            from model_analyzer.loadgen import tls

            self._tls = tls.context(order.tls)
            self._blocked = tls.BLOCKED
        self._address = _address(order.host, order.port)
        self._open_loop = order.scheduled
        self._most_slots = max(1, share(order.max_concurrency, order.worker, order.workers))
        self._free: deque[S] = deque()
        self._waiting: deque[int] = deque()
        self._slots: list[S] = []
        self._connections: set[C] = set()
        # Slots that share a connection at most; the last connection that was begun: others may join it until it is open.
        self._shared_by = 1
        self._latest: C | None = None

    # -- the protocol's part -------------------------------------------------------------------

    @abstractmethod
    def _new_slot(self) -> S:
        """A slot without a connection."""

    @abstractmethod
    def _new_connection(self) -> C:
        """A connection without a socket."""

    @abstractmethod
    def _opened(self, conn: C) -> None:
        """The socket is connected, and secure where it is to be."""

    @abstractmethod
    def _send(self, slot: S, started_ns: int) -> None:
        """Send the next request; its latency counts from `started_ns`."""

    @abstractmethod
    def _all_sent(self, conn: C) -> None:
        """The socket has taken what it had left over before."""

    @abstractmethod
    def _received(self, conn: C, size: int, now: int) -> None:
        """So many bytes lie in the buffer; 0: the server closed."""

    @abstractmethod
    def _give_up(self, slot: S, message: str, before_ns: int) -> None:
        """The request in flight, begun before `before_ns`, has had its time: it failed."""

    # -- the loop ------------------------------------------------------------------------------

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
                if events and due is None and len(self._slots) == 1:
                    now = self._converse(self._slots[0], now)
            self._tally.unanswered = self._inflight
        finally:
            self._close_all()

    def _begin(self, start_ns: int) -> Iterator[int]:
        """When to act: an open loop sends, a closed one begins a place of it."""
        order = self._order
        if self._open_loop:
            times = send_times_ns(order.value, order.distribution, order.seed, order.intervals_ns, order.ramp_ns)
            times = of_schedule(times, order.worker, order.workers)
        else:
            times = slot_times_ns(int(order.value), order.ramp_ns, self._shared_by, order.worker, order.workers)
        origin_ns = start_ns if order.start_ns is None else order.start_ns
        return (origin_ns + time for time in times)

    def _finished(self, now: int) -> bool:
        return self._stopped and (not self._inflight or self._drain.over(now))

    def _wait_s(self, due: int | None, now: int) -> float:
        until = self._tally.next_report_ns
        if due is not None and due < until and not self._stopped:
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

    def _handle(self, fd: int, event: int) -> None:
        conn = self._by_fd.get(fd)
        if conn is None:
            if fd == self._control.fileno():
                self._stop()
            return
        sock = conn.sock
        assert sock is not None
        if conn.state >= OPEN and not conn.watched:
            self._read(conn, sock)
        elif conn.state == CONNECTING:
            self._connected(conn, sock)
        elif conn.state == HANDSHAKE:
            self._shake_hands(conn, cast("ssl.SSLSocket", sock))
        elif event & OUT and not event & IN:
            self._send_rest(conn, sock)
        else:
            self._read(conn, sock)

    def _stop(self) -> None:
        said = self._control.recv(64)
        if not said:  # An analyzer that is gone is a stop, too, and may go while the load drains.
            self._epoll.unregister(self._control.fileno())
        self._stopped = True
        # A stream is cancelled: a backend that answers for long, such as one of a language model, looks for that.
        self._drain.begin(monotonic_ns(), patient=bool(said) and not self._tally.streams)
        self._waiting.clear()

    # -- connections ---------------------------------------------------------------------------

    def _add_slot(self) -> None:
        slot = self._new_slot()
        self._slots.append(slot)
        self._join(slot)

    def _join(self, slot: S) -> None:
        """Wait for a connection: the one that is in the making, where it has room, or a new one."""
        conn, begun = self._latest, True
        if conn is None or conn.state >= OPEN or conn.sock is None or len(conn.slots) >= self._shared_by:
            conn, begun = self._new_connection(), False
            self._latest = conn
            self._connections.add(conn)
        conn.slots.append(slot)
        slot.conn, slot.state = conn, JOINING
        if not begun:
            self._connect(conn)

    def _leave(self, slot: S) -> None:
        """The slot and its connection part. The connection ends with the last one."""
        conn, slot.conn = slot.conn, None
        conn.slots.remove(slot)
        if not conn.slots:
            self._close(conn)

    def _move(self, slot: S) -> None:
        """The slot goes on over another connection."""
        self._leave(slot)
        slot.state = FREE
        if not self._stopped:
            self._join(slot)

    def _drop(self, slot: S) -> None:
        """A free slot whose connection is gone. Open loop: another one is made when a request needs it."""
        self._slots.remove(slot)
        if slot in self._free:
            self._free.remove(slot)

    def _connect(self, conn: C) -> None:
        family, kind, proto, _, address = self._address
        try:
            sock = socket.socket(family, kind, proto)
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE):
                raise
            raise OSError(_no_more(len(self._by_fd))) from error
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for limit in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            sock.setsockopt(socket.SOL_SOCKET, limit, CONVERSE_LIMIT)
        conn.sock, conn.state, conn.started_ns = sock, CONNECTING, monotonic_ns()
        self._by_fd[sock.fileno()] = conn
        self._epoll.register(sock.fileno(), OUT)
        code = sock.connect_ex(address)
        if code not in (0, errno.EINPROGRESS):
            self._lose(conn, _connect_failure(code))

    def _connected(self, conn: C, sock: socket.socket) -> None:
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self._lose(conn, _connect_failure(code))
        elif self._tls is None:
            self._ready(conn, sock)
        else:
            self._begin_tls(conn, sock, self._tls)

    def _begin_tls(self, conn: C, sock: socket.socket, tls: ssl.SSLContext) -> None:
        fd = sock.fileno()
        try:
            secure = tls.wrap_socket(sock, do_handshake_on_connect=False, server_hostname=self._order.host)
        except OSError as error:  # the peer is gone again; the descriptor with it
            self._by_fd.pop(fd, None)
            conn.sock = None
            self._lose(conn, f"TLS handshake failed: {reason(error)}")
            return
        conn.sock, conn.state = secure, HANDSHAKE
        self._shake_hands(conn, secure)

    def _shake_hands(self, conn: C, sock: ssl.SSLSocket) -> None:
        from model_analyzer.loadgen import tls

        try:
            sock.do_handshake()
        except tls.READ_FIRST:
            self._epoll.modify(sock.fileno(), IN)
        except tls.WRITE_FIRST:
            self._epoll.modify(sock.fileno(), OUT)
        except OSError as error:  # ssl.SSLError is one
            self._lose(conn, f"TLS handshake failed: {reason(error)}")
        else:
            self._ready(conn, sock)

    def _ready(self, conn: C, sock: socket.socket) -> None:
        self._epoll.modify(sock.fileno(), IN)
        self._opened(conn)

    def _use(self, conn: C) -> None:
        """The connection is open: its slots begin."""
        conn.state = OPEN
        for slot in tuple(conn.slots):
            if slot.conn is conn:
                self._arrived(slot, monotonic_ns())

    def _arrived(self, slot: S, now: int) -> None:
        """The connection that the slot waited for is open."""
        self._send_next(slot, now)

    def _close(self, conn: C) -> None:
        """Free the socket. Whoever calls says what becomes of the slots."""
        if conn.sock is not None:
            fd = conn.sock.fileno()
            self._by_fd.pop(fd, None)
            self._epoll.unregister(fd)
            conn.sock.close()
            conn.sock = None
        conn.watched = False
        conn.unsent.clear()
        self._connections.discard(conn)

    def _close_all(self) -> None:
        for conn in tuple(self._connections):
            self._close(conn)
        self._epoll.close()

    # -- sending -------------------------------------------------------------------------------

    def _send_next(self, slot: S, now: int) -> None:
        """The slot has a connection and nothing in flight: send, or wait for the next due time."""
        if self._stopped:
            slot.state = FREE
        elif not self._open_loop:
            self._send(slot, now)
        elif self._waiting:
            self._send(slot, self._waiting.popleft())
        else:
            slot.state = FREE
            self._free.append(slot)

    def _send_due(self, schedule: Iterator[int], due: int | None, now: int) -> int | None:
        """Do what is due; the time of what comes next, None where nothing does."""
        while due is not None and due <= now and not self._stopped:
            if self._open_loop:
                self._send_one(due, now)
            else:
                self._add_slot()
            due = next(schedule, None)
        return due

    def _send_one(self, due: int, now: int) -> None:
        """Open loop: send a request; it waits for a slot where none is free, and its wait counts."""
        lag_ns = now - due
        self._tally.send_lags.append(lag_ns)
        if lag_ns > self._tally.lag_ns:
            self._tally.lag_ns = lag_ns
        if self._free:
            self._send(self._free.popleft(), due)
            if self._free:
                return
        else:
            self._waiting.append(due)
            if len(self._slots) >= self._most_slots:
                self._tally.delayed += 1
        # One in reserve: to connect takes time that is not the server's. While a slot backs off the server is in
        # trouble: more connections would not help it.
        if len(self._slots) < self._most_slots and not self._resume:
            self._add_slot()

    def _put(self, conn: C, data: bytes | memoryview) -> bool:
        """Send one piece; whether the socket took it whole. The rest of it goes when the socket takes more."""
        try:
            sent = conn.sock.send(data)  # type: ignore[union-attr]
        except self._blocked:
            sent = 0
        except OSError as error:
            self._lose(conn, reason(error))
            return False
        if sent == len(data):
            return True
        conn.unsent.append(memoryview(data)[sent:])
        self._watch(conn, room=True)
        return False

    def _watch(self, conn: C, room: bool) -> None:
        """Be told when the socket takes more, or no longer."""
        if conn.watched != room and conn.sock is not None:
            conn.watched = room
            self._epoll.modify(conn.sock.fileno(), IN | OUT if room else IN)

    def _send_rest(self, conn: C, sock: socket.socket) -> None:
        unsent = conn.unsent
        try:
            # An SSLSocket has no sendmsg.
            sent = sock.sendmsg(islice(unsent, PIECES)) if self._tls is None else sock.send(unsent[0])
        except self._blocked:
            return
        except OSError as error:
            self._lose(conn, reason(error))
            return
        while sent:
            piece = unsent.popleft()
            if sent < len(piece):
                unsent.appendleft(piece[sent:])
                return
            sent -= len(piece)
        if not unsent:
            self._all_sent(conn)

    # -- receiving -----------------------------------------------------------------------------

    def _converse(self, slot: S, now: int) -> int:
        """The only request that there is: a read that blocks finds its reply, without the two calls that epoll takes.

        Not for long at a time: what else there may be, a stop above all, is the loop's. Returns the time.
        """
        conn, until_ns = slot.conn, now + CONVERSE_NS
        if slot.state != BUSY or self._tls is not None:
            return now
        sock = conn.sock
        sock.setblocking(True)
        while now < until_ns and slot.state == BUSY and slot.conn is conn and not conn.watched:
            try:
                size = sock.recv_into(self._buffer)
            except BlockingIOError:  # as long as SO_RCVTIMEO says
                break
            except OSError as error:
                self._lose(conn, reason(error))
                break
            now = monotonic_ns()
            self._received(conn, size, now)
        if conn.sock is sock:
            sock.setblocking(False)
        return now

    def _read(self, conn: C, sock: socket.socket) -> None:
        try:
            size = sock.recv_into(self._buffer)
        except self._blocked:
            return
        except OSError as error:
            self._lose(conn, reason(error))
            return
        self._received(conn, size, monotonic_ns())

    def _succeeded(self, slot: S, now: int) -> None:
        self._tally.done.append(now)
        self._tally.latency.append(now - slot.started_ns)
        self._inflight -= 1
        slot.failures = 0

    # -- failures ------------------------------------------------------------------------------

    def _refused(self, slot: S, problem: str, leave: bool) -> None:
        """The request failed. leave: its connection is of no more use to it."""
        self._tally.failed(problem)
        self._inflight -= 1
        if leave:
            self._leave(slot)
        self._rest(slot)

    def _lose(self, conn: C, message: str) -> None:
        """The connection broke, or said something nobody had asked for. That costs each slot that waits for it its request.

        Open loop: one in reserve that does not come about has no request to lose.
        """
        slots, conn.slots = conn.slots, []
        self._close(conn)
        for slot in slots:
            slot.conn = None
            if slot.state >= JOINING:
                if slot.state == BUSY:
                    self._inflight -= 1
                if slot.state == BUSY or self._takes_a_request(slot):
                    self._tally.failed(message)
                self._rest(slot)
            elif slot.state == FREE:
                self._drop(slot)

    def _takes_a_request(self, slot: S) -> bool:  # noqa: ARG002 -- for those that have one already
        """Whether a request goes with the slot that does not get its connection: it was due, and cannot be sent."""
        if not self._open_loop:
            return True
        if not self._waiting:
            return False
        self._waiting.popleft()
        return True

    def _waits_since(self, slot: S) -> int:
        """Since when the request in flight has waited for the server; its timeout counts from then."""
        return slot.started_ns

    def _overdue(self, slot: S, patience: str) -> str:  # noqa: ARG002 -- for those that count what comes in
        """The message of a request whose time is over."""
        return f"timeout: no reply within {patience}"

    def _rest(self, slot: S) -> None:
        """Back off, twice as long after each failure in a row: a dead server answers errors very fast."""
        slot.failures += 1
        slot.state = RESTING
        now = monotonic_ns()
        if self._open_loop and slot.conn is not None:
            # The schedule is the limit already.
            self._send_next(slot, now)
            return
        pause = min(BACKOFF_FIRST_NS << min(slot.failures - 1, 10), BACKOFF_LAST_NS)
        heapq.heappush(self._resume, (now + pause, id(slot), slot))

    def _tick(self, now: int) -> None:
        """Wake those that backed off; now and then look for timeouts and report."""
        while self._resume and self._resume[0][0] <= now:
            slot = heapq.heappop(self._resume)[2]
            if slot.conn is not None:
                self._send_next(slot, now)
            elif not self._stopped:
                self._join(slot)
        if now < self._tally.next_report_ns:
            return
        if not self._stopped:
            self._time_out(now - self._order.timeout_ns)
        self._drain.told(now, self._tally.latency)
        self._tally.report(now, self._inflight, self._backlog())

    def _backlog(self) -> int:
        """Sockets that have something for us right now: replies that wait until we come to them."""
        return min(len(self._epoll.poll(0, len(self._by_fd) + 1)), self._inflight)

    def _time_out(self, before_ns: int) -> None:
        """Give up what began before."""
        patience = f"{self._order.timeout_ns / 1e9:g} s"
        for conn in tuple(self._connections):
            if conn.state < OPEN and conn.started_ns < before_ns:
                self._lose(conn, f"timeout: no connection within {patience}")
        for slot in tuple(self._slots):
            if slot.state == BUSY and self._waits_since(slot) < before_ns:
                self._give_up(slot, self._overdue(slot, patience), before_ns)
        while self._waiting and self._waiting[0] < before_ns:
            self._waiting.popleft()
            self._tally.failed(f"timeout: no free connection within {patience}")


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


def _no_more(connections: int) -> str:
    """What to do where no further socket is to be had."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return (
        f"no socket for more than {connections} connections, a process may have {limit} files open; "
        "raise that hard limit (ulimit -Hn), use more workers, or lower the load"
    )


def _connect_failure(code: int) -> str:
    return f"cannot connect: {os.strerror(code)}"


def reason(error: OSError) -> str:
    """Why a connection broke."""
    return f"connection broke: {error.strerror or error}"
