"""An HTTP/2 server whose every frame is scripted: peers for scripted_server.ScriptedServer, and replies as bytes."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from scripted_server import Peer, Script, order

from model_analyzer.loadgen.frames import (
    ACK,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PING,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    frame,
)
from model_analyzer.loadgen.order import Order
from model_analyzer.loadgen.session import (
    DEFAULT_FRAME,
    DEFAULT_WINDOW,
    INITIAL_WINDOW_SIZE,
    MAX_CONCURRENT_STREAMS,
    MAX_FRAME_SIZE,
    PREFACE,
)

# ModelInferResponse { model_name: "m", outputs: [{ name: "OUTPUT" }], raw_output_contents: [16 bytes] }
MESSAGE = b"\x0a\x01m" + b"\x2a\x08\x0a\x06OUTPUT" + b"\x32\x100123456789abcdef"


def literal(name: str, value: str, first: int = 0) -> bytes:
    """A header field as a literal with a literal name (first byte 0: not indexed; 0x40: incremental indexing)."""
    return bytes([first, len(name)]) + name.encode() + _size(len(value)) + value.encode()


def _size(size: int) -> bytes:
    return bytes([size]) if size < 127 else bytes([127, (size - 127) & 0x7F | 0x80, (size - 127) >> 7])


STATUS_200 = b"\x88"
OPENING = STATUS_200 + literal("content-type", "application/grpc")
OK = literal("grpc-status", "0")


def message(content: bytes = MESSAGE, flag: int = 0) -> bytes:
    """With its gRPC prefix."""
    return struct.pack(">BI", flag, len(content)) + content


def headers(stream: int, block: bytes = OPENING, flags: int = 0) -> bytes:
    return frame(HEADERS, END_HEADERS | flags, stream, block)


def data(stream: int, payload: bytes, flags: int = 0) -> bytes:
    return frame(DATA, flags, stream, payload)


def trailers(stream: int, block: bytes = OK) -> bytes:
    return headers(stream, block, END_STREAM)


def credit(increment: int, stream: int = 0) -> bytes:
    return frame(WINDOW_UPDATE, 0, stream, struct.pack(">I", increment))


def good(stream: int, content: bytes = MESSAGE) -> bytes:
    """A reply."""
    return headers(stream) + data(stream, message(content)) + trailers(stream)


def triton(stream: int, content: bytes = MESSAGE) -> bytes:
    """A reply as Triton sends it: with a credit for the request."""
    return good(stream, content) + credit(100)


def refusal(stream: int, status: int, text: str = "", more: bytes = b"") -> bytes:
    """An error reply: trailers only."""
    block = OPENING + literal("grpc-status", str(status)) + (literal("grpc-message", text) if text else b"") + more
    return trailers(stream, block)


def reset(stream: int, code: int) -> bytes:
    return frame(RST_STREAM, 0, stream, struct.pack(">I", code))


def go_away(last: int, code: int = 0, text: bytes = b"") -> bytes:
    return frame(GOAWAY, 0, 0, struct.pack(">II", last, code) + text)


def settings(*values: tuple[int, int]) -> bytes:
    return frame(SETTINGS, 0, 0, b"".join(struct.pack(">HI", *value) for value in values))


class H2Peer:
    """The server's end of a connection. It reads what it needs, holds the client to what it was told, credits what it reads."""

    def __init__(self, peer: Peer, *ours: tuple[int, int], greet: bool = True, credits: bool = True) -> None:
        self.peer, self._greets, self._credits = peer, greet, credits
        self.told = dict(ours)
        self._buffer = bytearray()
        # What the client may send; by stream, for those whose requests are not whole yet.
        self.window, self.stream_windows = DEFAULT_WINDOW, dict[int, int]()
        # Streams that have no answer yet, and the most there were at once; those that the client gave up; parts of requests.
        self.open, self.most = set[int](), 0
        self.cancelled: dict[int, int] = {}
        self._parts: dict[int, bytes] = {}
        # What it told us, and what it has credited us, the stream in flight included.
        self.theirs: dict[int, int] = {}
        self.credited, self.stream_credited = DEFAULT_WINDOW, 0
        self.stream = 0
        self.data_frames: list[int] = []
        self.acks = 0
        assert self._exactly(len(PREFACE)) in (PREFACE, None)
        if greet:
            peer.send(settings(*ours))

    @property
    def stream_window(self) -> int:
        """Of the last stream that was opened."""
        return self.stream_windows[self.stream]

    def send(self, *parts: bytes) -> None:
        self.peer.send(*parts)

    def tell(self, *values: tuple[int, int]) -> None:
        """Change settings. Only when the client cannot have used the old ones meanwhile."""
        before = self._limit(INITIAL_WINDOW_SIZE)
        self.told.update(values)
        for stream in self.stream_windows:
            self.stream_windows[stream] += self._limit(INITIAL_WINDOW_SIZE) - before
        self.send(settings(*values))

    def _limit(self, name: int) -> int:
        default = {INITIAL_WINDOW_SIZE: DEFAULT_WINDOW, MAX_FRAME_SIZE: DEFAULT_FRAME, MAX_CONCURRENT_STREAMS: 1}
        return self.told.get(name, default[name])

    def frame(self) -> tuple[int, int, int, bytes] | None:
        """The next frame; None when the client has closed."""
        head = self._exactly(9)
        if head is None:
            return None
        kind, flags, stream = struct.unpack(">BBI", head[3:])
        payload = self._exactly(int.from_bytes(head[:3], "big"))
        if payload is None:
            return None
        self._note(kind, flags, stream, payload)
        return kind, flags, stream, payload

    def _note(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        """Hold the client to the protocol."""
        if kind == HEADERS:
            assert stream % 2 == 1
            assert stream > self.stream
            assert self._limit(MAX_CONCURRENT_STREAMS) > 0
            assert self.acks or not self._greets, "a request before the ACK of the settings that allow it"
            self.stream, self.stream_windows[stream] = stream, self._limit(INITIAL_WINDOW_SIZE)
            self.open.add(stream)
            self.most = max(self.most, len(self.open))
            self.stream_credited = self.theirs[INITIAL_WINDOW_SIZE]
        elif kind == DATA:
            self.window -= len(payload)
            self.stream_windows[stream] -= len(payload)
            assert self.window >= 0, "the connection's window is overrun"
            assert self.stream_windows[stream] >= 0, "the stream's window is overrun"
            assert len(payload) <= self._limit(MAX_FRAME_SIZE)
            self.data_frames.append(len(payload))
            if self._credits and payload:
                self.give(len(payload), stream if not flags & END_STREAM else None)
        elif kind == RST_STREAM:
            self.open.discard(stream)
            self.cancelled[stream] = int.from_bytes(payload, "big")
        elif kind == SETTINGS and flags & ACK:
            self.acks += 1
        elif kind == SETTINGS:
            self.theirs = dict(struct.iter_unpack(">HI", payload))
            if self._greets:
                self.send(frame(SETTINGS, ACK, 0))
        elif kind == WINDOW_UPDATE:
            increment = struct.unpack(">I", payload)[0]
            if stream:
                self.stream_credited += increment
            else:
                self.credited += increment

    def give(self, increment: int, stream: int | None) -> None:
        """Let the client send more."""
        self.window += increment
        self.send(credit(increment))
        if stream:
            self.stream_windows[stream] += increment
            self.send(credit(increment, stream))

    def request(self) -> int | None:
        """Read a whole request; its stream, None when the client has closed. Its message goes to the server's bodies."""
        while (found := self.frame()) is not None:
            if self._ends_request(*found):
                return found[2]
        return None

    def _ends_request(self, kind: int, flags: int, stream: int, payload: bytes) -> bool:
        if kind != DATA:
            return False
        body = self._parts[stream] = self._parts.get(stream, b"") + payload
        if not flags & END_STREAM:
            return False
        del self._parts[stream], self.stream_windows[stream]
        assert len(body) == 5 + struct.unpack(">xI", body[:5])[0]
        self.peer.note(body[5:])
        return True

    def arrived(self) -> list[int]:
        """The requests that the client has sent before it answers a PING, one at least; none when it has closed."""
        first = self.request()
        streams = [] if first is None else [first]
        self.send(frame(PING, 0, 0, b"what now"))
        while (found := self.frame()) is not None and not (found[0] == PING and found[1] & ACK):
            if self._ends_request(*found):
                streams.append(found[2])
        return streams

    def requests(self, count: int) -> list[int]:
        """Read so many whole requests; fewer when the client has closed."""
        streams: list[int] = []
        while len(streams) < count and (stream := self.request()) is not None:
            streams.append(stream)
        return streams

    def answer(self, *streams: int) -> None:
        """Answer these in one piece."""
        self.open.difference_update(streams)
        self.send(b"".join(map(triton, streams)))

    def send_large(self, stream: int, content: bytes, piece: int) -> None:
        """A good reply in DATA frames of so many bytes, never more than the client has made room for."""
        self.send(headers(stream))
        rest = message(content)
        while rest:
            part, rest = rest[:piece], rest[piece:]
            while len(part) > min(self.credited, self.stream_credited):
                if self.frame() is None:
                    return
            self.credited -= len(part)
            self.stream_credited -= len(part)
            self.send(data(stream, part))
        self.send(trailers(stream))

    def until(self, kind: int, flags: int = 0) -> bytes | None:
        """Read up to a frame of this kind; its payload."""
        while (found := self.frame()) is not None:
            if found[0] == kind and found[1] & flags == flags:
                return found[3]
        return None

    def ping(self, payload: bytes = b"12345678") -> bool:
        """Whether a PING is answered."""
        self.send(frame(PING, 0, 0, payload))
        answered: bytes | None = b""
        while answered not in (payload, None):
            answered = self.until(PING, ACK)
        return answered == payload

    def serve(self, answer: Callable[[int], bytes] = good) -> None:
        """Answer each request."""
        while (stream := self.request()) is not None:
            self.open.discard(stream)
            self.send(answer(stream))

    def _exactly(self, size: int) -> bytes | None:
        while len(self._buffer) < size:
            received = self.peer.sock.recv(1 << 20)
            if not received:
                return None
            self._buffer += received
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken


def always(answer: Callable[[int], bytes] = triton, *ours: tuple[int, int]) -> Script:
    """Answer each request so; the settings are the server's."""
    return lambda peer: H2Peer(peer, *ours).serve(answer)


def grpc_order(port: int, bodies: tuple[bytes, ...] = (b"request",), **values: Any) -> Order:
    """An order over gRPC of one connection."""
    wires = tuple(memoryview(message(body)) for body in bodies)
    return order(port, (), protocol="grpc", **values)._replace(wires=wires)
