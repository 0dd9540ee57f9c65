"""An HTTP/2 connection as its client sees it (RFC 9113); no I/O.

Bytes from the server go in (`feed`), what is to be sent comes out (`begin`, `more`). Several streams may be in flight.
"""

from __future__ import annotations

import struct
from collections import deque
from typing import Generic, NamedTuple, TypeVar

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


class Stream:
    """One stream; used again when it is over."""

    __slots__ = ("ident", "message", "number", "received", "reply", "request", "window")

    def __init__(self) -> None:
        self.number, self.ident = 0, b""
        self.reply: GrpcReply | None = None
        # Of a request that goes out bit by bit: its headers until they have gone, what is left of its message, and what may go out.
        self.request: Request | None = None
        self.message = memoryview(b"")
        self.window = 0
        # What came in since it was credited.
        self.received = 0

    def new_reply(self) -> GrpcReply:
        """What the server's answer is gathered in."""
        return GrpcReply()

    def forget(self) -> None:
        """The stream is over, or its connection is gone."""
        self.reply, self.received = None, 0
        self.request, self.message = None, memoryview(b"")

    @property
    def uploading(self) -> bool:
        """Whether a part of the request waits for its turn, or for the server to make room."""
        return self.request is not None or bool(self.message)


S = TypeVar("S", bound=Stream)


class Session(Generic[S]):
    """State of one connection."""

    __slots__ = (
        "_block", "_block_ends", "_block_stream", "_blocks", "_frames", "_initial_window", "_max_frame", "_streams_allowed",
        "closing", "credit_at", "goodbye", "greeted", "inside", "last", "limit", "longest", "out", "received", "room", "streams", "uploads", "window",
    )  # fmt: skip

    def __init__(self, blocks: HeaderBlocks, window: int = WINDOW) -> None:
        """window: what the server may send before it is credited."""
        self._blocks, self._frames = blocks, FrameReader()
        # What the connection itself has to say.
        self.out = bytearray(greeting(window))
        # Whether the server's SETTINGS have come: nothing is sent before.
        self.greeted = False
        # No more requests on this connection; what GOAWAY said.
        self.closing, self.goodbye = False, ""
        # The last stream that was opened; those in flight, by the bytes of their numbers; how many there may be at most, one if
        # the server allows none: it waits then.
        self.last = FIRST_STREAM - 2
        self.streams: dict[bytes, S] = {}
        self.limit = LAST_STREAM
        # Those whose request is not out yet, in the order of their numbers.
        self.uploads: deque[S] = deque()
        # What we may send: on the connection, and a whole request in one piece.
        self.window, self.room = DEFAULT_WINDOW, 0
        self._initial_window, self._max_frame, self._streams_allowed = DEFAULT_WINDOW, DEFAULT_FRAME, True
        # What came in since it was credited, on the connection; when it and a stream are.
        self.received = 0
        self.credit_at = window // 2
        # Whether a frame or a header block is in the making; bytes of the longest reply, so far as it was looked at.
        self.inside, self.longest = False, 0
        # A header block that goes on in CONTINUATION.
        self._block, self._block_stream, self._block_ends = bytearray(), 0, False

    # -- sending -------------------------------------------------------------------------------

    def begin(self, request: Request, stream: S) -> bytes | None:
        """Open the next stream. The request as one piece where all limits allow that; else None, and `more` gives it."""
        number = stream.number = self.last = self.last + 2
        ident = stream.ident = number.to_bytes(4, "big")
        self.streams[ident] = stream
        if number >= LAST_STREAM:
            self.closing = True
        size = request.size
        # A stream must not overtake one of a lower number that is not open yet.
        if size <= self.room and size <= self.window and not self.uploads:
            self.window -= size
            return ident.join(request.pieces)
        stream.request, stream.message, stream.window = request, request.message, self._initial_window
        self.uploads.append(stream)
        return None

    def said(self) -> list[memoryview]:
        """What the connection itself has to say. It goes out before all else: what SETTINGS allow holds from their ACK on."""
        pieces = [memoryview(bytes(self.out))] if self.out else []
        self.out.clear()
        return pieces

    def more(self) -> list[memoryview]:
        """What may go out now: what the connection itself has to say, then BATCH bytes of the requests as the windows allow."""
        pieces = self.said()
        batch = BATCH if self.greeted else 0
        for stream in tuple(self.uploads):
            if batch <= 0 or (stream.request is not None and not self._streams_allowed):
                break
            if stream.request is not None:
                pieces.append(memoryview(frame(h2.HEADERS, h2.END_HEADERS, stream.number, stream.request.block)))
                stream.request = None
            batch -= self._frame_message(stream, pieces, batch)
            if not stream.message:
                self.uploads.remove(stream)
        return pieces

    def _frame_message(self, stream: S, pieces: list[memoryview], batch: int) -> int:
        """Up to `batch` bytes of a message, as the windows allow; how many."""
        framed = 0
        while stream.message:
            size = min(len(stream.message), self.window, stream.window, self._max_frame, batch - framed)
            if size <= 0:
                break
            last = h2.END_STREAM if size == len(stream.message) else 0
            pieces.append(memoryview(frame_head(size, h2.DATA, last, stream.number)))
            pieces.append(stream.message[:size])
            stream.message = stream.message[size:]
            self.window -= size
            stream.window -= size
            framed += size
        return framed

    def cancel(self, stream: S) -> None:
        """Give a stream up. The server is told, where it has heard of it."""
        if stream.request is None:
            self.out += frame(h2.RST_STREAM, 0, stream.number, struct.pack(">I", h2.CANCEL))
        self.finished(stream)

    # -- receiving -----------------------------------------------------------------------------

    @property
    def midway(self) -> bool:
        """Whether a frame, a header block or a reply is in the making."""
        return self.inside or any(stream.reply is not None for stream in self.streams.values())

    def feed(self, data: memoryview) -> list[tuple[S, Outcome]]:
        """Take bytes in; the streams that ended by them, and how. Raises Malformed: the connection is of no more use."""
        ended: list[tuple[S, Outcome]] = []
        for kind, flags, stream, payload, size in self._frames.feed(data):
            if self._block_stream and (kind != h2.CONTINUATION or stream != self._block_stream):
                raise Malformed(f"{_kind(kind)} inside a header block")
            if kind == h2.GOAWAY:
                ended += self._go_away(stream, payload)
                continue
            found = self._take(kind, flags, stream, payload, size)
            if found is not None:
                ended.append(found)
        self.inside = self._frames.midway or self._block_stream != 0
        return ended

    def _take(self, kind: int, flags: int, stream: int, payload: memoryview, size: int) -> tuple[S, Outcome] | None:
        if kind == h2.DATA:
            return self._data(flags, stream, payload, size)
        if kind == h2.HEADERS:
            return self._headers(flags, stream, payload)
        if kind == h2.CONTINUATION:
            return self._continuation(flags, payload)
        if kind == h2.RST_STREAM:
            return self._reset(stream, payload)
        if kind == h2.WINDOW_UPDATE:
            self._credit(stream, payload)
        elif kind == h2.SETTINGS:
            self._settings(flags, stream, payload)
        elif kind == h2.PING:
            self._ping(flags, stream, payload)
        elif kind == h2.PUSH_PROMISE:
            raise Malformed("PUSH_PROMISE, which was declined")
        return None  # PRIORITY, and kinds to come, say nothing to us

    def _in_flight(self, kind: int, number: int) -> S | None:
        """The stream that a frame is about. One that is over may be told of again: Triton repeats its errors."""
        stream = self.streams.get(number.to_bytes(4, "big"))
        if stream is None and (not number & 1 or number > self.last):
            raise Malformed(f"{_kind(kind)} of stream {number}, which was not opened")
        return stream

    def _data(self, flags: int, number: int, payload: memoryview, size: int) -> tuple[S, Outcome] | None:
        self.received += size
        if self.received > self.credit_at:
            self.out += frame(h2.WINDOW_UPDATE, 0, 0, struct.pack(">I", self.received))
            self.received = 0
        stream = self._in_flight(h2.DATA, number)
        if stream is None:
            return None
        if stream.reply is None:
            raise Malformed("DATA before HEADERS")
        stream.reply.take_data(payload)
        if flags & h2.END_STREAM:
            return self._end(stream)
        stream.received += size
        self.longest = max(self.longest, stream.received)
        if stream.received > self.credit_at:
            self.out += frame(h2.WINDOW_UPDATE, 0, number, struct.pack(">I", stream.received))
            stream.received = 0
        return None

    def _headers(self, flags: int, stream: int, payload: memoryview) -> tuple[S, Outcome] | None:
        block = h2.unpadded(flags, payload)
        if flags & h2.HAS_PRIORITY:
            if len(block) < 5:
                raise Malformed("HEADERS too short for its priority")
            block = block[5:]
        if not flags & h2.END_HEADERS:
            # Even a block of a stream that is over goes on.
            self._in_flight(h2.HEADERS, stream)
            self._block, self._block_stream, self._block_ends = bytearray(block), stream, bool(flags & h2.END_STREAM)
            return None
        return self._header_block(stream, bytes(block), bool(flags & h2.END_STREAM))

    def _continuation(self, flags: int, payload: memoryview) -> tuple[S, Outcome] | None:
        if not self._block_stream:
            raise Malformed("CONTINUATION of no header block")
        self._block += payload
        if len(self._block) > h2.CONTROL_LIMIT:
            raise Malformed(f"header block of more than {h2.CONTROL_LIMIT} bytes")
        if not flags & h2.END_HEADERS:
            return None
        stream, self._block_stream = self._block_stream, 0
        return self._header_block(stream, bytes(self._block), self._block_ends)

    def _header_block(self, number: int, block: bytes, end: bool) -> tuple[S, Outcome] | None:
        stream = self._in_flight(h2.HEADERS, number)
        if stream is None:
            return None
        if stream.reply is None:
            stream.reply = stream.new_reply()
        stream.reply.take_headers(self._blocks.fields(block), end)
        return self._end(stream) if end else None

    def _end(self, stream: S) -> tuple[S, Outcome]:
        """The server has closed the stream."""
        assert stream.reply is not None
        problem = stream.reply.problem()
        self._over(stream)
        return stream, SUCCESS if problem is None else Outcome(problem)

    def _over(self, stream: S) -> None:
        """The server has done with the stream. What it did not take of the request would be in the way of the next ones."""
        if stream.uploading:
            self.closing = True
            self.cancel(stream)
        else:
            self.finished(stream)

    def finished(self, stream: S) -> None:
        """The stream is over."""
        del self.streams[stream.ident]
        if stream.uploading:
            self.uploads.remove(stream)
        stream.forget()

    def _reset(self, number: int, payload: memoryview) -> tuple[S, Outcome] | None:
        if len(payload) != 4:
            raise Malformed(f"RST_STREAM of {len(payload)} bytes")
        stream = self._in_flight(h2.RST_STREAM, number)
        if stream is None:
            return None
        if stream.uploading:
            self.closing = True
        self.finished(stream)
        code = int.from_bytes(payload, "big")
        return stream, Outcome(f"stream reset by the server: {h2.error_name(code)}", again=code == h2.REFUSED_STREAM)

    def _go_away(self, number: int, payload: memoryview) -> list[tuple[S, Outcome]]:
        if number or len(payload) < 8:
            raise Malformed(f"GOAWAY of stream {number}, {len(payload)} bytes")
        last, code = struct.unpack_from(">II", payload)
        text = bytes(payload[8:208]).decode(errors="replace")
        self.closing = True
        self.goodbye = f"GOAWAY {h2.error_name(code)}{': ' if text else ''}{text}"
        left_out = [stream for stream in self.streams.values() if stream.number > last & h2.STREAM_ID]
        for stream in left_out:
            self.finished(stream)
        return [(stream, Outcome(f"the server did not take it: {self.goodbye}", again=True)) for stream in left_out]

    def _credit(self, number: int, payload: memoryview) -> None:
        increment = int.from_bytes(payload, "big") & LARGEST_WINDOW
        if len(payload) != 4 or not increment:
            raise Malformed(f"WINDOW_UPDATE {bytes(payload[:8])!r}")
        window = 0
        if not number:
            window = self.window = self.window + increment
        else:
            stream = self._in_flight(h2.WINDOW_UPDATE, number)
            if stream is not None and stream.uploading:
                window = stream.window = stream.window + increment
        if window > LARGEST_WINDOW:
            raise Malformed("WINDOW_UPDATE beyond 2^31-1 bytes")

    def _ping(self, flags: int, stream: int, payload: memoryview) -> None:
        if stream or len(payload) != 8:
            raise Malformed(f"PING of stream {stream}, {len(payload)} bytes")
        if not flags & h2.ACK:
            self.out += frame(h2.PING, h2.ACK, 0, bytes(payload))

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
        self.out += frame(h2.SETTINGS, h2.ACK, 0)

    def _set(self, name: int, value: int) -> None:
        if name == INITIAL_WINDOW_SIZE:
            if value > LARGEST_WINDOW:
                raise Malformed(f"INITIAL_WINDOW_SIZE {value}")
            # It counts for the streams that are open, too, whose window may fall below 0 by it.
            for stream in self.uploads:
                stream.window += value - self._initial_window
            self._initial_window = value
        elif name == MAX_FRAME_SIZE:
            if not DEFAULT_FRAME <= value < 1 << 24:
                raise Malformed(f"MAX_FRAME_SIZE {value}")
            self._max_frame = value
        elif name == MAX_CONCURRENT_STREAMS:
            self._streams_allowed, self.limit = value > 0, max(value, 1)


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
