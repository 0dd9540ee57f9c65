"""An HTTP/2 connection as its client sees it (RFC 9113), one stream in flight; no I/O.

Bytes from the server go in (`feed`), what is to be sent comes out (`begin`, `more`).
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from model_analyzer.loadgen import frames as h2
from model_analyzer.loadgen.frames import FrameReader, frame, frame_head
from model_analyzer.loadgen.grpc_reply import GrpcReply
from model_analyzer.loadgen.header_blocks import HeaderBlocks
from model_analyzer.loadgen.reply import Malformed

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE = (
    range(1, 7)
)
DEFAULT_WINDOW = 65535
DEFAULT_FRAME = 16384
LARGEST_WINDOW = (1 << 31) - 1
FIRST_STREAM, LAST_STREAM = 1, (1 << 31) - 1
# What the server may send before it is credited: as much as there is, so that it never waits for us.
WINDOW = LARGEST_WINDOW
# Up to here one copy costs less than a call with several pieces.
ONE_PIECE = 1 << 16
# Bytes of a request that are framed at once.
BATCH = 1 << 20


class Request:
    """An encoded request: a message with its gRPC prefix. pieces: it whole in frames, but for the stream ids between them."""

    __slots__ = ("block", "message", "pieces", "size")

    def __init__(self, block: bytes, message: memoryview) -> None:
        self.block, self.message, self.size = block, message, len(message)
        head = frame_head(len(block), h2.HEADERS, h2.END_HEADERS, 0)[:5]
        # Longer ones go out by `more`.
        data = frame_head(min(self.size, ONE_PIECE), h2.DATA, h2.END_STREAM, 0)[:5]
        self.pieces = (head, block + data, message)


class Outcome(NamedTuple):
    """How a request ended. problem: None where it succeeded. again: the server has not begun with it, it may be sent anew."""

    problem: str | None
    again: bool = False


SUCCESS = Outcome(None)


class Session:
    """State of one connection."""

    __slots__ = (
        "_block", "_block_ends", "_block_stream", "_blocks", "_frames", "_initial_window", "_max_frame", "_message",
        "_out", "_reply", "_request", "_stream_received", "_stream_window", "_streams_allowed", "closing", "credit_at", "goodbye",
        "greeted", "in_flight", "received", "room", "stream", "stream_bytes", "window",
    )  # fmt: skip

    def __init__(self, blocks: HeaderBlocks, window: int = WINDOW) -> None:
        """window: what the server may send before it is credited."""
        self._blocks, self._frames = blocks, FrameReader()
        self._out = bytearray(greeting(window))
        # Whether the server's SETTINGS have come: nothing is sent before.
        self.greeted = False
        # No more requests on this connection; what GOAWAY said.
        self.closing, self.goodbye = False, ""
        self.stream, self.stream_bytes, self.in_flight = FIRST_STREAM - 2, b"", False
        # What we may send: on the connection, and a whole request in one piece.
        self.window, self.room = DEFAULT_WINDOW, 0
        self._initial_window, self._max_frame, self._streams_allowed = DEFAULT_WINDOW, DEFAULT_FRAME, True
        # The request that goes out bit by bit: its headers until they have gone, and what is left of its message.
        self._request: Request | None = None
        self._message = memoryview(b"")
        self._stream_window = 0
        # What came in since it was credited, on the connection and of the stream; when it is.
        self.received = self._stream_received = 0
        self.credit_at = window // 2
        self._reply: GrpcReply | None = None
        # A header block that goes on in CONTINUATION.
        self._block, self._block_stream, self._block_ends = bytearray(), 0, False

    # -- sending -------------------------------------------------------------------------------

    def begin(self, request: Request) -> bytes | None:
        """Open the next stream. The request as one piece where all limits allow that; else None, and `more` gives it."""
        stream = self.stream = self.stream + 2
        self.stream_bytes = stream_bytes = stream.to_bytes(4, "big")
        self.in_flight = True
        if stream >= LAST_STREAM:
            self.closing = True
        if request.size <= self.room and request.size <= self.window:
            self.window -= request.size
            return stream_bytes.join(request.pieces)
        self._request, self._message, self._stream_window = request, request.message, self._initial_window
        return None

    @property
    def uploading(self) -> bool:
        """Whether a part of the request waits for its turn, or for the server to make room."""
        return self._request is not None or bool(self._message)

    def more(self) -> list[memoryview]:
        """What may go out now: what the connection itself has to say, then BATCH bytes of the request as the windows allow."""
        pieces = []
        if self._out:
            pieces.append(memoryview(bytes(self._out)))
            self._out.clear()
        if self._request is not None and self._streams_allowed and self.greeted:
            pieces.append(memoryview(frame(h2.HEADERS, h2.END_HEADERS, self.stream, self._request.block)))
            self._request = None
        if self._request is None and self._message:
            self._frame_message(pieces)
        return pieces

    def _frame_message(self, pieces: list[memoryview]) -> None:
        batch = BATCH
        while self._message and batch > 0:
            size = min(len(self._message), self.window, self._stream_window, self._max_frame, batch)
            if size <= 0:
                return
            last = h2.END_STREAM if size == len(self._message) else 0
            pieces.append(memoryview(frame_head(size, h2.DATA, last, self.stream)))
            pieces.append(self._message[:size])
            self._message = self._message[size:]
            self.window -= size
            self._stream_window -= size
            batch -= size

    # -- receiving -----------------------------------------------------------------------------

    @property
    def midway(self) -> bool:
        """Whether a frame, a header block or a reply is in the making."""
        return self._reply is not None or self._frames.midway or self._block_stream != 0

    def feed(self, data: memoryview) -> Outcome | None:
        """Take bytes in; how the request in flight ended, where it did. Raises Malformed: the connection is of no more use."""
        outcome = None
        for kind, flags, stream, payload, size in self._frames.feed(data):
            if self._block_stream and (kind != h2.CONTINUATION or stream != self._block_stream):
                raise Malformed(f"{_kind(kind)} inside a header block")
            outcome = self._take(kind, flags, stream, payload, size) or outcome
        return outcome

    def _take(self, kind: int, flags: int, stream: int, payload: memoryview, size: int) -> Outcome | None:
        if kind == h2.DATA:
            return self._data(flags, stream, payload, size)
        if kind == h2.HEADERS:
            return self._headers(flags, stream, payload)
        if kind == h2.CONTINUATION:
            return self._continuation(flags, payload)
        if kind == h2.RST_STREAM:
            return self._reset(stream, payload)
        if kind == h2.GOAWAY:
            return self._go_away(stream, payload)
        if kind == h2.WINDOW_UPDATE:
            self._credit(stream, payload)
        elif kind == h2.SETTINGS:
            self._settings(flags, stream, payload)
        elif kind == h2.PING:
            self._ping(flags, stream, payload)
        elif kind == h2.PUSH_PROMISE:
            raise Malformed("PUSH_PROMISE, which was declined")
        return None  # PRIORITY, and kinds to come, say nothing to us

    def _is_in_flight(self, kind: int, stream: int) -> bool:
        """Whether a frame is about the request in flight. One that is over may be told of again: Triton repeats its errors."""
        if stream == self.stream:
            return self.in_flight
        if not stream & 1 or stream > self.stream:
            raise Malformed(f"{_kind(kind)} of stream {stream}, which was not opened")
        return False

    def _data(self, flags: int, stream: int, payload: memoryview, size: int) -> Outcome | None:
        self.received += size
        if self.received > self.credit_at:
            self._out += frame(h2.WINDOW_UPDATE, 0, 0, struct.pack(">I", self.received))
            self.received = 0
        if not self._is_in_flight(h2.DATA, stream):
            return None
        if self._reply is None:
            raise Malformed("DATA before HEADERS")
        self._reply.take_data(payload)
        if flags & h2.END_STREAM:
            return self._end()
        self._stream_received += size
        if self._stream_received > self.credit_at:
            self._out += frame(h2.WINDOW_UPDATE, 0, stream, struct.pack(">I", self._stream_received))
            self._stream_received = 0
        return None

    def _headers(self, flags: int, stream: int, payload: memoryview) -> Outcome | None:
        block = h2.unpadded(flags, payload)
        if flags & h2.HAS_PRIORITY:
            if len(block) < 5:
                raise Malformed("HEADERS too short for its priority")
            block = block[5:]
        if not flags & h2.END_HEADERS:
            # Even a block of a stream that is over goes on.
            self._is_in_flight(h2.HEADERS, stream)
            self._block, self._block_stream, self._block_ends = bytearray(block), stream, bool(flags & h2.END_STREAM)
            return None
        return self._header_block(stream, bytes(block), bool(flags & h2.END_STREAM))

    def _continuation(self, flags: int, payload: memoryview) -> Outcome | None:
        if not self._block_stream:
            raise Malformed("CONTINUATION of no header block")
        self._block += payload
        if len(self._block) > h2.CONTROL_LIMIT:
            raise Malformed(f"header block of more than {h2.CONTROL_LIMIT} bytes")
        if not flags & h2.END_HEADERS:
            return None
        stream, self._block_stream = self._block_stream, 0
        return self._header_block(stream, bytes(self._block), self._block_ends)

    def _header_block(self, stream: int, block: bytes, end: bool) -> Outcome | None:
        if not self._is_in_flight(h2.HEADERS, stream):
            return None
        if self._reply is None:
            self._reply = GrpcReply()
        self._reply.take_headers(self._blocks.fields(block), end)
        return self._end() if end else None

    def _end(self) -> Outcome:
        """The server has closed the stream."""
        assert self._reply is not None
        problem = self._reply.problem()
        self.finished()
        return SUCCESS if problem is None else Outcome(problem)

    def finished(self) -> None:
        """The stream is over."""
        self.in_flight, self._reply, self._stream_received = False, None, 0

    def _reset(self, stream: int, payload: memoryview) -> Outcome | None:
        if len(payload) != 4:
            raise Malformed(f"RST_STREAM of {len(payload)} bytes")
        if not self._is_in_flight(h2.RST_STREAM, stream):
            return None
        self.finished()
        code = int.from_bytes(payload, "big")
        return Outcome(f"stream reset by the server: {h2.error_name(code)}", again=code == h2.REFUSED_STREAM)

    def _go_away(self, stream: int, payload: memoryview) -> Outcome | None:
        if stream or len(payload) < 8:
            raise Malformed(f"GOAWAY of stream {stream}, {len(payload)} bytes")
        last, code = struct.unpack_from(">II", payload)
        text = bytes(payload[8:208]).decode(errors="replace")
        self.closing = True
        self.goodbye = f"GOAWAY {h2.error_name(code)}{': ' if text else ''}{text}"
        if not self.in_flight or self.stream <= last & h2.STREAM_ID:
            return None
        self.finished()
        return Outcome(f"the server did not take it: {self.goodbye}", again=True)

    def _credit(self, stream: int, payload: memoryview) -> None:
        increment = int.from_bytes(payload, "big") & LARGEST_WINDOW
        if len(payload) != 4 or not increment:
            raise Malformed(f"WINDOW_UPDATE {bytes(payload[:8])!r}")
        window = 0
        if not stream:
            window = self.window = self.window + increment
        elif self._is_in_flight(h2.WINDOW_UPDATE, stream) and self.uploading:
            window = self._stream_window = self._stream_window + increment
        if window > LARGEST_WINDOW:
            raise Malformed("WINDOW_UPDATE beyond 2^31-1 bytes")

    def _ping(self, flags: int, stream: int, payload: memoryview) -> None:
        if stream or len(payload) != 8:
            raise Malformed(f"PING of stream {stream}, {len(payload)} bytes")
        if not flags & h2.ACK:
            self._out += frame(h2.PING, h2.ACK, 0, bytes(payload))

    def _settings(self, flags: int, stream: int, payload: memoryview) -> None:
        if stream or len(payload) % 6 or (flags & h2.ACK and payload):
            raise Malformed(f"SETTINGS of stream {stream}, {len(payload)} bytes")
        if flags & h2.ACK:
            return
        for name, value in struct.iter_unpack(">HI", payload):
            self._set(name, value)
        self.greeted = True
        # 0 streams allowed: each request waits in `more`.
        self.room = min(self._initial_window, self._max_frame, ONE_PIECE) if self._streams_allowed else 0
        self._out += frame(h2.SETTINGS, h2.ACK, 0)

    def _set(self, name: int, value: int) -> None:
        if name == INITIAL_WINDOW_SIZE:
            if value > LARGEST_WINDOW:
                raise Malformed(f"INITIAL_WINDOW_SIZE {value}")
            # It counts for the stream that is open, too, whose window may fall below 0 by it.
            self._stream_window += value - self._initial_window
            self._initial_window = value
        elif name == MAX_FRAME_SIZE:
            if not DEFAULT_FRAME <= value < 1 << 24:
                raise Malformed(f"MAX_FRAME_SIZE {value}")
            self._max_frame = value
        elif name == MAX_CONCURRENT_STREAMS:
            self._streams_allowed = value > 0


def greeting(window: int) -> bytes:
    """Preface, SETTINGS, and the window of the connection."""
    settings = (
        (HEADER_TABLE_SIZE, 0),
        (ENABLE_PUSH, 0),
        (INITIAL_WINDOW_SIZE, window),
        (MAX_FRAME_SIZE, h2.MAX_FRAME),
        (MAX_HEADER_LIST_SIZE, h2.CONTROL_LIMIT),
    )
    payload = b"".join(struct.pack(">HI", *setting) for setting in settings)
    more = frame(h2.WINDOW_UPDATE, 0, 0, struct.pack(">I", window - DEFAULT_WINDOW)) if window > DEFAULT_WINDOW else b""
    return PREFACE + frame(h2.SETTINGS, 0, 0, payload) + more


def _kind(kind: int) -> str:
    return h2.KINDS[kind] if kind < len(h2.KINDS) else f"frame of kind {kind}"
