"""HTTP/2 frames (RFC 9113, sections 4 and 6): ours as bytes, the server's cut out of whatever pieces they come in."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from model_analyzer.loadgen.reply import Malformed

KINDS = (
    "DATA", "HEADERS", "PRIORITY", "RST_STREAM", "SETTINGS", "PUSH_PROMISE", "PING", "GOAWAY", "WINDOW_UPDATE", "CONTINUATION",
)  # fmt: skip
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM = ACK = 0x1
END_HEADERS, PADDED, HAS_PRIORITY = 0x4, 0x8, 0x20
# Bytes before the payload.
HEAD = 9
# The longest frame that we take: a long message in few frames, as gRPC's own library. Only DATA may be so long.
MAX_FRAME = 1 << 22
CONTROL_LIMIT = 1 << 16
STREAM_ID = (1 << 31) - 1
ERRORS = (
    "NO_ERROR", "PROTOCOL_ERROR", "INTERNAL_ERROR", "FLOW_CONTROL_ERROR", "SETTINGS_TIMEOUT", "STREAM_CLOSED", "FRAME_SIZE_ERROR",
    "REFUSED_STREAM", "CANCEL", "COMPRESSION_ERROR", "CONNECT_ERROR", "ENHANCE_YOUR_CALM", "INADEQUATE_SECURITY", "HTTP_1_1_REQUIRED",
)  # fmt: skip
REFUSED_STREAM, CANCEL = 7, 8

# kind, flags, stream, payload, bytes that flow control counts. Of DATA each piece is a frame; the last one has the flags,
# the first one has the bytes.
Frame = tuple[int, int, int, memoryview, int]


def frame_head(length: int, kind: int, flags: int, stream: int) -> bytes:
    """The bytes before a payload of `length` bytes."""
    return struct.pack(">HBBBI", length >> 8, length & 0xFF, kind, flags, stream)


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """A whole frame."""
    return frame_head(len(payload), kind, flags, stream) + payload


def error_name(code: int) -> str:
    """Of RST_STREAM and GOAWAY."""
    return ERRORS[code] if code < len(ERRORS) else f"error {code}"


def unpadded(flags: int, payload: memoryview) -> memoryview:
    """A payload without its padding (DATA's is taken off by the reader)."""
    if not flags & PADDED:
        return payload
    if not payload or payload[0] >= len(payload):
        raise Malformed("padding longer than its frame")
    return payload[1 : len(payload) - payload[0]]


class FrameReader:
    """Cuts frames out of what comes in. Garbage raises Malformed."""

    __slots__ = ("_data_size", "_data_stream", "_first", "_flags", "_held", "_inside", "_left", "_needed", "_padding")

    def __init__(self) -> None:
        # The beginning of a frame that is not whole, and how many bytes it needs.
        self._held = bytearray()
        self._needed = 0
        self._first = True
        # Of the DATA frame whose middle we are in.
        self._inside = False
        self._flags = self._data_stream = self._data_size = self._left = self._padding = 0

    @property
    def midway(self) -> bool:
        """Whether a frame is in the making."""
        return self._inside or bool(self._held)

    def feed(self, data: memoryview) -> Iterator[Frame]:
        """Yield the frames that end in `data`, and the pieces of DATA in it. Read to the end."""
        if self._held:
            self._held += data
            if len(self._held) < self._needed:
                return
            data = memoryview(bytes(self._held))
            self._held.clear()
        at, end = 0, len(data)
        while at < end or self._inside:
            if self._inside:
                at, piece = self._take_data(data, at)
                yield piece
                if self._inside:
                    return
            elif end - at < HEAD:
                self._hold(data[at:], HEAD)
                return
            else:
                length, kind, flags, stream = self._frame_head(data, at)
                if kind == DATA:
                    begun = self._begin_data(length, flags, stream, data[at + HEAD : at + HEAD + 1])
                    if not begun:
                        self._hold(data[at:], HEAD + 1)
                        return
                    at += begun
                elif end - at < HEAD + length:
                    self._hold(data[at:], HEAD + length)
                    return
                else:
                    at += HEAD + length
                    yield kind, flags, stream, data[at - length : at], 0

    def _hold(self, data: memoryview, needed: int) -> None:
        self._held += data
        self._needed = needed

    def _frame_head(self, data: memoryview, at: int) -> tuple[int, int, int, int]:
        high, low, kind, flags, stream = struct.unpack_from(">HBBBI", data, at)
        length = high << 8 | low
        if self._first:
            if kind != SETTINGS or flags & ACK or stream & STREAM_ID or length > CONTROL_LIMIT:
                raise Malformed(f"not HTTP/2: starts with {bytes(data[at : at + 20])!r}")
            self._first = False
        if length > (MAX_FRAME if kind == DATA else CONTROL_LIMIT):
            raise Malformed(f"{KINDS[kind] if kind < len(KINDS) else f'frame of kind {kind}'} of {length} bytes")
        return length, kind, flags, stream & STREAM_ID

    def _begin_data(self, length: int, flags: int, stream: int, first: memoryview) -> int:
        """Enter a DATA frame; how many bytes come before its data, 0 where they are not all there."""
        padded = flags & PADDED
        if padded:
            if not length:
                raise Malformed("padding longer than its frame")
            if not first:
                return 0
            if first[0] >= length:
                raise Malformed("padding longer than its frame")
        self._inside, self._flags, self._data_stream, self._data_size = True, flags, stream, length
        self._padding = first[0] if padded else 0
        self._left = length - self._padding - bool(padded)
        return HEAD + bool(padded)

    def _take_data(self, data: memoryview, at: int) -> tuple[int, Frame]:
        piece = data[at : at + self._left]
        at += len(piece)
        self._left -= len(piece)
        if not self._left:
            skipped = min(self._padding, len(data) - at)
            at += skipped
            self._padding -= skipped
        self._inside = bool(self._left or self._padding)
        size, self._data_size = self._data_size, 0
        return at, (DATA, 0 if self._inside else self._flags, self._data_stream, piece, size)
