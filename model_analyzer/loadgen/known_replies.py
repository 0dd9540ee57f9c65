"""Good gRPC replies, known again by their bytes: the stream id and the tensors' bytes are all that changes."""

from __future__ import annotations

from typing import NamedTuple

from model_analyzer.loadgen.frames import DATA, END_HEADERS, END_STREAM, HEAD, HEADERS, WINDOW_UPDATE, frame_head
from model_analyzer.loadgen.grpc_reply import PREFIX, before_contents
from model_analyzer.loadgen.known import Known
from model_analyzer.loadgen.reply import KEEP
from model_analyzer.loadgen.session import LARGEST_WINDOW, S, Session

# Triton puts one after its replies: WINDOW_UPDATE of the connection. Its increment follows.
CREDIT = frame_head(4, WINDOW_UPDATE, 0, 0)
CREDIT_SIZE = len(CREDIT) + 4
# Of a frame's head, what comes before the stream id.
BEFORE_ID = 5


class Shape(NamedTuple):
    """What a reply begins with (up to the tensors' bytes) and ends with (from `trailers` to `end`), but for the stream ids between
    the pieces. flow: the bytes that flow control counts.
    """

    head: tuple[bytes, bytes, bytes]
    tail: tuple[bytes, bytes]
    trailers: int
    end: int
    flow: int


class KnownReplies:
    """Shapes of the replies that were found good, by the three bytes that say how long their DATA is."""

    def __init__(self) -> None:
        self._shapes = Known[bytes, Shape]()
        # The next reply is likely to be as the one before.
        self._latest: Shape | None = None

    def take(self, buffer: bytearray, size: int, session: Session[S]) -> tuple[list[S], int]:
        """The streams whose replies begin the first `size` bytes, whole and known, and where what is not known begins.

        The session then counts them. Credits of the connection are taken between them.
        """
        ended: list[S] = []
        at, streams = 0, session.streams
        # At the start, in the middle of a frame, or when the connection has to end, the session is to see it all.
        if not session.greeted or session.inside or session.closing or session.uploads:
            return ended, at
        while at < size:
            ident = bytes(buffer[at + BEFORE_ID : at + HEAD])
            stream = streams.get(ident)
            if stream is None:
                increment = int.from_bytes(buffer[at + HEAD : at + CREDIT_SIZE], "big")
                if at + CREDIT_SIZE > size or not buffer.startswith(CREDIT, at):
                    break
                if not 0 < increment <= LARGEST_WINDOW - session.window:
                    break
                session.window += increment
                at += CREDIT_SIZE
                continue
            # When the server is due a credit the session is to see the reply.
            if stream.reply is not None or session.received > session.credit_at:
                break
            shape = self._latest
            if shape is None or not buffer.startswith(ident.join(shape[0]), at):
                shape = self._shape_of(buffer, at, size)
                if shape is None or not buffer.startswith(ident.join(shape[0]), at):
                    break
                self._latest = shape
            _, tail, trailers, end, flow = shape
            if at + end > size or not buffer.startswith(ident.join(tail), at + trailers):
                break
            del streams[ident]
            session.received += flow
            at += end
            ended.append(stream)
        return ended, at

    def _shape_of(self, buffer: bytearray, at: int, size: int) -> Shape | None:
        """What a reply that begins at `at` may be, by the length of its DATA behind HEADERS of less than 256 bytes."""
        if at + HEAD > size:
            return None
        message_frame = at + HEAD + buffer[at + 2]
        return self._shapes.get(bytes(buffer[message_frame : message_frame + 3]))

    def learn(self, data: bytes, ident: bytes) -> None:
        """Remember the reply of a stream that was found good, where it has the form that `take` looks for: headers, one DATA, trailers.

        data: begins with a frame.
        """
        at = 0
        while at + HEAD <= len(data):
            shape = _shape(data, at, ident)
            if shape is not None:
                self._shapes.remember(shape.head[1][-BEFORE_ID:][:3], shape)
                self._latest = shape
                return
            at += HEAD + int.from_bytes(data[at : at + 3], "big")


def _shape(data: bytes, at: int, ident: bytes) -> Shape | None:
    message_frame = _end_of(data, at, HEADERS, END_HEADERS, ident)
    trailers = message_frame and _end_of(data, message_frame, DATA, 0, ident)
    end = trailers and _end_of(data, trailers, HEADERS, END_HEADERS | END_STREAM, ident)
    if not end or message_frame - at >= HEAD + 256:
        return None
    message, length = message_frame + HEAD + PREFIX, trailers - message_frame - HEAD - PREFIX
    contents = message + before_contents(data[message : message + min(length, KEEP)], length)
    head = data[at : at + BEFORE_ID], data[at + HEAD : message_frame + BEFORE_ID], data[message_frame + HEAD : contents]
    tail = data[trailers : trailers + BEFORE_ID], data[trailers + HEAD : end]
    return Shape(head, tail, trailers - at, end - at, length + PREFIX)


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
