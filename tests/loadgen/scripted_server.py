"""An HTTP server on loopback whose every byte is scripted, and a driver run against it in this process."""

from __future__ import annotations

import json
import socket
import ssl
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from model_analyzer.loadgen import drain, driver
from model_analyzer.loadgen.__main__ import _drive
from model_analyzer.loadgen.client import _batch
from model_analyzer.loadgen.order import Order
from model_analyzer.loadgen.tally import Tally

PART_S = 0.0005
# How long a test waits for what is to come: on a machine that others use, too, that says nothing but that it never came.
PATIENCE_S = 60.0


def reply(
    data: bytes = b"0123456789abcdef", *headers: str, status: str = "200 OK", document: Any = None, length: bool = True
) -> bytes:
    """A reply as Triton writes it: JSON part, then the tensors' bytes."""
    if document is None:
        document = {"model_name": "m", "outputs": [{"name": "OUTPUT", "parameters": {"binary_data_size": len(data)}}]}
    text = json.dumps(document).encode()
    lines = [f"HTTP/1.1 {status}", "Content-Type: application/octet-stream", *headers]
    lines.append(f"Inference-Header-Content-Length: {len(text)}")
    if length:
        lines.append(f"Content-Length: {len(text) + len(data)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + text + data


def refusal(status: str, text: str = "model is not ready") -> bytes:
    """An error reply as Triton writes it."""
    body = json.dumps({"error": text}).encode()
    return f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


class Peer:
    """One accepted connection. number: how many were accepted before it."""

    def __init__(self, sock: socket.socket, number: int, server: ScriptedServer) -> None:
        self.sock, self.number, self._server = sock, number, server
        self._received = b""

    def request(self) -> bytes | None:
        """The body of the next request; None when the client has closed."""
        while b"\r\n\r\n" not in self._received:
            if not self._more():
                return None
        head, _, self._received = self._received.partition(b"\r\n\r\n")
        size = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
        while len(self._received) < size:
            if not self._more():
                return None
        body, self._received = self._received[:size], self._received[size:]
        self.note(body)
        return body

    def note(self, body: bytes) -> None:
        """Tell the server what was received."""
        self._server.note(self.number, body)

    def _more(self) -> bytes:
        data = self.sock.recv(1 << 20)
        self._received += data
        return data

    def send(self, *parts: bytes) -> None:
        """Send the parts, each likely to be a segment of its own."""
        for number, part in enumerate(parts):
            if number:
                time.sleep(PART_S)
            self.sock.sendall(part)

    def reset(self) -> None:
        """Close with RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


Script = Callable[[Peer], None]


class ScriptedServer:
    """Each connection runs the script in a thread of its own; when it returns, the connection is closed."""

    def __init__(self, script: Script, port: int = 0, tls: ssl.SSLContext | None = None, receive_buffer: int = 0):
        self._script, self._tls = script, tls
        self._lock = threading.Lock()
        self._socks: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self.bodies: list[bytes] = []
        self.times_ns: list[int] = []
        self.served: Counter[int] = Counter()
        self.accepted = 0
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if receive_buffer:
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self._listener.bind(("127.0.0.1", port))
        self._listener.listen(256)
        self.port = self._listener.getsockname()[1]
        self._threads.append(threading.Thread(target=self._accept, daemon=True))
        self._threads[0].start()

    def note(self, connection: int, body: bytes) -> None:
        with self._lock:
            self.bodies.append(body)
            self.times_ns.append(time.monotonic_ns())
            self.served[connection] += 1

    def refuse(self) -> None:
        """No more connections; those that there are go on."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.refuse()
        self._listener.close()
        self._threads[0].join(5)
        with self._lock:
            socks = list(self._socks)
        for sock in socks:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads[1:]:
            thread.join(5)

    def __enter__(self) -> ScriptedServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            thread = threading.Thread(target=self._serve, args=(sock, self.accepted), daemon=True)
            self.accepted += 1
            with self._lock:
                self._socks.append(sock)
            self._threads.append(thread)
            thread.start()

    def _serve(self, sock: socket.socket, number: int) -> None:
        with suppress(OSError):  # the client has gone, or `close` was called
            if self._tls is not None:
                try:
                    secure = self._tls.wrap_socket(sock, server_side=True)
                except OSError:
                    sock.close()
                    raise
                with self._lock:
                    self._socks.append(secure)
                sock = secure
            with sock:
                self._script(Peer(sock, number, self))


def always(*parts: bytes) -> Script:
    """Answer each request with these bytes."""

    def script(peer: Peer) -> None:
        while peer.request() is not None:
            peer.send(*parts)

    return script


def in_turn(*replies: bytes) -> Script:
    """Answer the requests of a connection with these replies, round and round."""

    def script(peer: Peer) -> None:
        turn = 0
        while peer.request() is not None:
            peer.send(replies[turn % len(replies)])
            turn += 1

    return script


def wire(body: bytes) -> bytes:
    """A request."""
    return f"POST /v2/models/m/infer HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


@dataclass
class Seen:
    """What the driver reported."""

    done_ns: list[int] = field(default_factory=list)
    latency_ns: list[int] = field(default_factory=list)
    send_lags_ns: list[int] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)
    # Of streams: responses of each success; when a first and a later response came, and how long after what came before.
    responses: list[int] = field(default_factory=list)
    first_at_ns: list[int] = field(default_factory=list)
    first_ns: list[int] = field(default_factory=list)
    gap_at_ns: list[int] = field(default_factory=list)
    gap_ns: list[int] = field(default_factory=list)
    reports: list[dict[str, Any]] = field(default_factory=list)
    error: str | None = None
    # From the order to its end, and of that from the stop.
    took_s: float = 0.0
    drained_s: float = 0.0

    @property
    def failed(self) -> int:
        return self.failures.total()

    def take(self, data: bytes) -> None:
        size = struct.unpack("<I", data[:4])[0]
        header = json.loads(data[4 : 4 + size])
        if "ended" in header:
            return
        batch = _batch(header, data[4 + size :])
        self.done_ns += batch.done_ns.tolist()
        self.latency_ns += batch.latency_ns.tolist()
        self.send_lags_ns += batch.send_lags_ns.tolist()
        if batch.streamed is not None:
            for name in ("responses", "first_at_ns", "first_ns", "gap_at_ns", "gap_ns"):
                getattr(self, name).extend(getattr(batch.streamed, name).tolist())
        self.failures.update(header["failures"])
        self.reports.append(header)


def order(port: int, bodies: Sequence[bytes] = (b"request",), **values: Any) -> Order:
    """An order of one connection."""
    wires = tuple(memoryview(wire(body)) for body in bodies)
    defaults: dict[str, Any] = {
        "number": 1, "protocol": "http", "host": "127.0.0.1", "kind": "concurrency", "value": 1,
        "distribution": "constant", "seed": 1, "timeout_ns": 120_000_000_000, "tls": None, "max_concurrency": 1024,
    }  # fmt: skip
    return Order(port=port, wires=wires, **{**defaults, **values})


def run(work: Order, until: Callable[[Seen], bool]) -> Seen:
    """Drive until what was reported satisfies `until`; then stop and drain. Fails the test where it never does."""
    seen, met = Seen(), False
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def drive() -> None:
        try:
            _drive(work, theirs, Tally(seen.take, 1))
        except Exception as error:  # told to the test
            seen.error = repr(error)

    thread = threading.Thread(target=drive, daemon=True)
    with ours, theirs:
        began = time.monotonic()
        thread.start()
        while thread.is_alive() and not (met := until(seen)) and time.monotonic() < began + PATIENCE_S:
            time.sleep(0.005)
        stopped = time.monotonic()
        ours.send(b"stop")
        thread.join(PATIENCE_S)
        ended = time.monotonic()
        seen.took_s, seen.drained_s = ended - began, ended - stopped
        assert not thread.is_alive(), "the driver does not end"
    assert seen.error is None, seen.error
    assert met, f"it never came to that: {len(seen.done_ns)} successes, failures {dict(seen.failures)}"
    return seen


def enough(successes: int = 0, failures: int = 0) -> Callable[[Seen], bool]:
    """For `until`."""
    return lambda seen: len(seen.done_ns) >= successes and seen.failed >= failures


def least_s(failures: int, slots: int) -> float:
    """How long so many slots take to fail so often together, at least: each pauses for 10, 20, 40, ... ms, a second at most."""
    in_a_row = -(-failures // slots)
    return float(sum(min(0.01 * 2**n, 1.0) for n in range(in_a_row - 1)))


def released_by_the_stop(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """An event that comes when the driver has taken its stop and has had time to send; it drains for as long as it takes."""
    release, stop = threading.Event(), driver.Driver._stop

    def stopped(self: Any) -> None:
        stop(self)
        threading.Timer(0.1, release.set).start()

    monkeypatch.setattr(driver.Driver, "_stop", stopped)
    monkeypatch.setattr(drain, "LEAST_NS", int(PATIENCE_S * 1e9))
    return release


def larger_than_buffers() -> int:
    """Bytes that a socket does not take at once, however large the kernel lets its buffer grow."""
    return int(Path("/proc/sys/net/ipv4/tcp_wmem").read_text().split()[2]) + 4_000_000


def scheduled(seen: Seen) -> list[int]:
    """Open loop: when each success was due, ns; its latency counts from then."""
    return sorted(done - latency for done, latency in zip(seen.done_ns, seen.latency_ns, strict=True))


def follows_schedule(seen: Seen, times: Iterator[int]) -> bool:
    """Whether the successes were due at these times after some start, all but those that had not come back at the end."""
    due = scheduled(seen)
    offsets = list(islice(times, 2 * len(due) + 50))
    # The first of the schedule comes back first or is passed by a few.
    return any(set(due) <= {due[0] - first + offset for offset in offsets} for first in offsets[:50])
