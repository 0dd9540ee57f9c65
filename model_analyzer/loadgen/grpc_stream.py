"""Streams over gRPC: each request is a call of ModelStreamInfer of its own, one message there, any number back.

What comes back is parsed message by message: of a ModelStreamInferResponse only whether it is an error, a response with
outputs, or the empty one that says that no more follow.
"""

from __future__ import annotations

import socket

from model_analyzer.loadgen.grpc import GrpcConnection, GrpcDriver, GrpcSlot, SlotStream
from model_analyzer.loadgen.grpc_reply import (
    MODEL_NAME,
    OUTPUTS,
    PREFIX,
    GrpcReply,
    before_contents,
    field_at,
    fields_of,
    payload_at,
    tensors_problem,
)
from model_analyzer.loadgen.header_blocks import STREAM_METHOD
from model_analyzer.loadgen.known import Known
from model_analyzer.loadgen.order import Order
from model_analyzer.loadgen.reply import KEEP, Malformed
from model_analyzer.loadgen.responses import NONE_CAME, Arrivals, Responses
from model_analyzer.loadgen.session import Outcome, Request
from model_analyzer.loadgen.streamed import StreamedDriver
from model_analyzer.loadgen.tally import Tally

# Fields of ModelStreamInferResponse.
ERROR_MESSAGE, INFER_RESPONSE = 1, 2
# In the parameters of the last response: {"triton_final_response": true}. It may be empty but for that.
FINAL = b"\x0a\x15triton_final_response\x12\x02\x08\x01"
ERROR_LENGTH = 2000


class KnownResponses:
    """What is a response: those that were found good are known by what comes before their tensors' bytes."""

    def __init__(self) -> None:
        self._heads = Known[int, bytes]()

    def judge(self, message: bytearray, length: int) -> str | None:
        """ "" where the message is a response, None where it is the empty end of a stream; else what is wrong.

        message: its first KEEP bytes.
        """
        head = self._heads.get(length)
        if head is not None and message.startswith(head):
            return ""
        error, start, size = _parts(message, length)
        if error:
            return error.decode(errors="replace")
        inner = message[start : start + size]
        numbers, end, proper = fields_of(inner, size)
        if not proper or MODEL_NAME not in numbers:
            return "malformed reply: no ModelInferResponse"
        if OUTPUTS not in numbers and end >= size:
            return None if FINAL in inner else "malformed reply: no outputs in it"
        problem = tensors_problem(inner, size)
        if problem is not None:
            return problem
        self._heads.remember(length, bytes(message[: start + before_contents(inner, size)]))
        return ""


def _parts(message: bytearray, length: int) -> tuple[bytes, int, int]:
    """Of a ModelStreamInferResponse: the error, and where its response begins and how long it is; 0, 0 where it has none."""
    error, start, size, at = b"", 0, 0, 0
    while at < len(message):
        number, end = field_at(message, at)
        if number not in (ERROR_MESSAGE, INFER_RESPONSE) or end > length:
            return b"malformed reply: no ModelStreamInferResponse", 0, 0
        begin, many = payload_at(message, at)
        if number == ERROR_MESSAGE:
            error = bytes(message[begin : begin + min(many, ERROR_LENGTH)])
        else:
            start, size = begin, many
        at = end
    return error, start, size


class StreamReply(GrpcReply):
    """A reply of ModelStreamInfer in the making. `message` is the one that comes in now."""

    __slots__ = ("_fault", "_known", "_responses")

    def __init__(self, known: KnownResponses, responses: Responses) -> None:
        super().__init__()
        self._known, self._responses = known, responses
        # The first thing that was wrong: what comes after it counts for nothing.
        self._fault = ""

    def take_data(self, data: memoryview) -> None:
        """A piece of the body: messages, or pieces of them."""
        if not self._is_grpc():
            super().take_data(data)
            return
        while data:
            missing = PREFIX - len(self._prefix)
            if missing:
                self._prefix += data[:missing]
                data = data[missing:]
                if len(self._prefix) < PREFIX:
                    return
                self._begin()
            size = min(self._left, len(data))
            if len(self.message) < KEEP:
                self.message += data[: min(size, KEEP - len(self.message))]
            self._left -= size
            data = data[size:]
            if not self._left:
                self._whole()

    def _begin(self) -> None:
        """A message's prefix has come."""
        if self._prefix[0] > 1:
            raise Malformed(f"message prefix {bytes(self._prefix)!r}")
        if self._prefix[0] == 1:
            self.compressed = True
        self.length = self._left = int.from_bytes(self._prefix[1:], "big")
        self.message.clear()

    def _whole(self) -> None:
        """A message is there."""
        self._prefix.clear()
        if self._fault or self.compressed:
            return
        verdict = self._known.judge(self.message, self.length)
        if verdict:
            self._fault = verdict
        elif verdict is not None:
            self._responses.came()

    def problem(self) -> str | None:
        """The stream has ended: why that was no success. What a response said of it comes first."""
        return self._fault or super().problem()

    def _message_problem(self) -> str | None:
        if self.compressed:
            return self._compressed()
        if self._prefix:
            return f"malformed reply: the stream ends in mid-message, after {self._responses.count} responses"
        return None if self._responses.count else NONE_CAME


class ResponseStream(SlotStream):
    """A stream whose reply is many messages."""

    __slots__ = ("_known", "_responses")

    def __init__(self, slot: StreamSlot, known: KnownResponses, responses: Responses) -> None:
        super().__init__(slot)
        self._known, self._responses = known, responses

    def new_reply(self) -> GrpcReply:
        """One that counts responses as they come."""
        return StreamReply(self._known, self._responses)


class StreamSlot(GrpcSlot):
    """A slot with its request's responses."""

    __slots__ = ()

    def __init__(self, known: KnownResponses, arrivals: Arrivals) -> None:
        super().__init__()
        self.responses = Responses(arrivals)
        self.stream = ResponseStream(self, known, self.responses)


class StreamDriver(StreamedDriver[GrpcConnection, GrpcSlot], GrpcDriver):
    """One order of streams."""

    method = STREAM_METHOD

    def __init__(self, order: Order, control: socket.socket, tally: Tally) -> None:
        super().__init__(order, control, tally)
        self._responses_known = KnownResponses()

    def _new_slot(self) -> StreamSlot:
        return StreamSlot(self._responses_known, self._arrivals)

    def _send_request(self, slot: GrpcSlot, request: Request, started_ns: int) -> None:
        slot.responses.begin(started_ns)
        super()._send_request(slot, request, started_ns)

    def _learn(self, ended: list[tuple[SlotStream, Outcome]], data: memoryview) -> None:
        """Nothing: a reply known as a whole would not have its responses counted."""


def drive(order: Order, control: socket.socket, tally: Tally) -> None:
    """Drive one order until a message on `control` says stop. Raises OSError where the host has no address."""
    StreamDriver(order, control, tally).run()
