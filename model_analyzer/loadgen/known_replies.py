"""Good gRPC replies, known again by their bytes: the stream id and the tensors' bytes are all that changes."""

from __future__ import annotations

from typing import NamedTuple

from model_analyzer.loadgen.frames import DATA, END_HEADERS, END_STREAM, HEAD, HEADERS, WINDOW_UPDATE, frame_head
from model_analyzer.loadgen.grpc_reply import PREFIX, before_contents
from model_analyzer.loadgen.reply import KEEP
from model_analyzer.loadgen.session import LARGEST_WINDOW, Session

# Shapes that are remembered.
KNOWN = 256
# Triton puts one after each reply: WINDOW_UPDATE of the connection. Its increment follows.
CREDIT = frame_head(4, WINDOW_UPDATE, 0, 0)
INCREMENT = 4
# Of a frame's head, what comes before the stream id.
BEFORE_ID = 5


class Shape(NamedTuple):
    """What a reply begins with (up to the tensors' bytes) and ends with (at `end`), but for the stream ids between the pieces.

    flow: the bytes that flow control counts. An increment follows where `end` is not the end.
    """

    head: tuple[bytes, bytes, bytes]
    tail: tuple[bytes, bytes]
    end: int
    flow: int


class KnownReplies:
    """Shapes of the replies that were found good, by their size."""

    def __init__(self) -> None:
        self._shapes: dict[int, Shape] = {}

    def match(self, buffer: bytearray, size: int, session: Session) -> bool:
        """Whether the first `size` bytes are a known reply to the stream in flight, whole and alone. The session then counts it."""
        shape = self._shapes.get(size)
        # When the server is due a credit, or the connection has to end, the session is to see the reply.
        if shape is None or session.received > session.credit_at or session.closing:
            return False
        head, tail, end, flow = shape
        stream = session.stream_bytes
        if not buffer.startswith(stream.join(head)) or not buffer.endswith(stream.join(tail), 0, end):
            return False
        if end < size:
            increment = int.from_bytes(buffer[end:size], "big")
            if not 0 < increment <= LARGEST_WINDOW - session.window:
                return False
            session.window += increment
        session.received += flow
        session.in_flight = False
        return True

    def learn(self, data: bytes, stream: bytes) -> None:
        """Remember a reply that was found good, where it has the form that `match` looks for: headers, one DATA, trailers."""
        shape = _shape(data, stream)
        if shape is None:
            return
        if len(self._shapes) >= KNOWN:
            self._shapes.clear()
        self._shapes[len(data)] = shape


def _shape(data: bytes, stream: bytes) -> Shape | None:
    message_frame = _end_of(data, 0, HEADERS, END_HEADERS, stream)
    trailers = message_frame and _end_of(data, message_frame, DATA, 0, stream)
    end = trailers and _end_of(data, trailers, HEADERS, END_HEADERS | END_STREAM, stream)
    if not end:
        return None
    if data[end:-INCREMENT] == CREDIT:
        end += len(CREDIT)
    elif end < len(data):
        return None
    message, length = message_frame + HEAD + PREFIX, trailers - message_frame - HEAD - PREFIX
    contents = message + before_contents(data[message : message + min(length, KEEP)], length)
    head = data[:BEFORE_ID], data[HEAD : message_frame + BEFORE_ID], data[message_frame + HEAD : contents]
    return Shape(head, (data[trailers : trailers + BEFORE_ID], data[trailers + HEAD : end]), end, length + PREFIX)


def _end_of(data: bytes, at: int, kind: int, flags: int, stream: bytes) -> int:
    """Where the frame at `at` ends, if it is one of this kind and whole; else 0."""
    if (
        len(data) < at + HEAD
        or data[at + 3] != kind
        or data[at + 4] != flags
        or data[at + BEFORE_ID : at + HEAD] != stream
    ):
        return 0
    end = at + HEAD + int.from_bytes(data[at : at + 3], "big")
    return end if end <= len(data) else 0
