"""One reply of ModelInfer, fed piece by piece, and the verdict on it."""

from __future__ import annotations

from model_analyzer.loadgen.header_blocks import Fields, status_name
from model_analyzer.loadgen.reply import KEEP, Malformed
from model_analyzer.loadgen.tensors import size_problem, tensor_size

# Before a message: a flag (1: compressed) and four bytes of its length.
PREFIX = 5
# Fields of ModelInferResponse: model_name, model_version, id, parameters, outputs, raw_output_contents.
MODEL_NAME, OUTPUTS, RAW_CONTENTS = 1, 5, 6
# Of InferOutputTensor, as its outputs are: name, datatype, shape, parameters, contents.
NAME, DATATYPE, SHAPE, CONTENTS = 1, 2, 3, 5
LENGTH_DELIMITED = 2


class GrpcReply:
    """A reply in the making. `message` keeps its first bytes only, `length` is how long it says to be."""

    __slots__ = ("_left", "_prefix", "_second", "compressed", "headers", "length", "message", "trailers")

    def __init__(self) -> None:
        self.headers: Fields | None = None
        self.trailers: Fields | None = None
        self.message = bytearray()
        self.length = 0
        self.compressed = False
        self._prefix = bytearray()
        self._left = 0
        # A unary call has one message.
        self._second = False

    def take_headers(self, fields: Fields, end: bool) -> None:
        """Headers, interim headers, trailers, or both in one (trailers-only)."""
        if self.headers is None:
            if fields.http_status is None:
                raise Malformed("no :status")
            if fields.http_status < 200 and not end:
                return
            self.headers = fields
        elif not end:
            raise Malformed("headers in mid-reply")
        if end:
            self.trailers = fields

    def take_data(self, data: memoryview) -> None:
        """A piece of the body."""
        if self.headers is None:
            raise Malformed("DATA before HEADERS")
        if not self._is_grpc():
            self.message += data[: KEEP - len(self.message)]
            return
        missing = PREFIX - len(self._prefix)
        if missing:
            self._prefix += data[:missing]
            if len(self._prefix) < PREFIX:
                return
            data = data[missing:]
            if self._prefix[0] > 1:
                raise Malformed(f"message prefix {bytes(self._prefix)!r}")
            self.compressed = self._prefix[0] == 1
            self.length = self._left = int.from_bytes(self._prefix[1:], "big")
        if len(self.message) < KEEP:
            self.message += data[: min(KEEP - len(self.message), self._left)]
        self._second = self._second or len(data) > self._left
        self._left -= min(len(data), self._left)

    def _is_grpc(self) -> bool:
        headers = self.headers
        return (
            headers is not None and headers.http_status == 200 and headers.content_type.startswith("application/grpc")
        )

    def problem(self) -> str | None:
        """The stream has ended: why that was no inference; None when it was one."""
        headers, trailers = self.headers, self.trailers
        # Some proxies end an error with an empty DATA, and its status stands in the headers.
        last = trailers or headers
        if last is not None and last.grpc_status:
            name = status_name(last.grpc_status)
            return f"gRPC {name}: {last.message}" if last.message else f"gRPC {name}"
        if headers is not None and headers.http_status != 200:
            text = bytes(self.message[:200]).decode(errors="replace")
            return f"HTTP {headers.http_status}: {text}" if text else f"HTTP {headers.http_status}"
        if headers is not None and not self._is_grpc():
            return f"malformed reply: content-type {headers.content_type[:60]!r}"
        if trailers is None or trailers.grpc_status is None:
            return "malformed reply: no grpc-status at its end"
        return self._message_problem()

    def _message_problem(self) -> str | None:
        if self.compressed:
            return self._compressed()
        if len(self._prefix) < PREFIX:
            return "malformed reply: no message in it"
        if self._left:
            return f"malformed reply: {self.length - self._left} of {self.length} bytes of its message"
        if self._second:
            return "malformed reply: more than one message in it"
        return message_problem(self.message, self.length)

    def _compressed(self) -> str:
        encoding = self.headers.encoding if self.headers is not None else ""
        return f"compressed reply ({encoding or 'no grpc-encoding'}): none was asked for"


def message_problem(message: bytes | bytearray, length: int) -> str | None:
    """Why a message is no ModelInferResponse with outputs; None when it is one. message: its first KEEP bytes."""
    numbers, end, proper = fields_of(message, length)
    if not proper or MODEL_NAME not in numbers:
        return "malformed reply: no ModelInferResponse"
    if OUTPUTS not in numbers and end >= length:
        return "malformed reply: no outputs in it"
    return tensors_problem(message, length)


def tensors_problem(message: bytes | bytearray, length: int) -> str | None:
    """Why the tensors of a ModelInferResponse are not those that it tells of; None when they are, as far as it was kept.

    Where they all lie in shared memory Triton sends an empty one for each.
    """
    told: list[tuple[str, int | None]] = []
    there: list[int] = []
    at = 0
    while at < len(message):
        start, size = payload_at(message, at)
        number, at = field_at(message, at)
        if number == OUTPUTS:
            told.append(_described(message[start:at]))
        elif number == RAW_CONTENTS and start <= len(message):
            there.append(size)
    whole = len(message) == length
    if there and not any(there) and len(there) == len(told):
        return None
    if whole and len(there) > len(told):
        return f"malformed reply: {len(there)} tensors, and it tells of {len(told)}"
    if whole:
        there += [0] * (len(told) - len(there))
    problems = (size_problem(name, size, tells) for (name, tells), size in zip(told, there, strict=False))
    return next((problem for problem in problems if problem is not None), None)


def _described(output: bytes | bytearray) -> tuple[str, int | None]:
    """Name of an output, and how long its tensor has to be; None where that does not follow, or where it is not a raw one."""
    name, datatype, shape = "", "", b""
    at = 0
    while at < len(output):
        start, _ = payload_at(output, at)
        number, at = field_at(output, at)
        if number == NAME:
            name = output[start:at].decode(errors="replace")
        elif number == DATATYPE:
            datatype = output[start:at].decode(errors="replace")
        elif number == SHAPE:
            shape = bytes(output[start:at])
        elif number in (0, CONTENTS):
            return name, None
    return name, tensor_size(datatype, _dims(shape))


def _dims(packed: bytes) -> list[int]:
    """Packed int64."""
    dims, value, shift = [], 0, 0
    for byte in packed:
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            dims.append(value - (value >> 63 << 64))
            value = shift = 0
    return dims


def before_contents(message: bytes | bytearray, length: int) -> int:
    """How many bytes of a message come before the first tensor's own: names, datatypes, shapes, and how long it is."""
    at = 0
    while at < len(message):
        number, after = field_at(message, at)
        if number >= RAW_CONTENTS or after > length:
            return min(payload_at(message, at)[0], len(message))
        at = after
    return at


def fields_of(message: bytes | bytearray, length: int) -> tuple[set[int], int, bool]:
    """Numbers of the fields that begin in `message`, where the last one ends, and whether all are as they must be."""
    numbers: set[int] = set()
    at = 0
    while at < len(message):
        number, at = field_at(message, at)
        numbers.add(number)
        if not MODEL_NAME <= number <= RAW_CONTENTS or at > length:
            return numbers, at, False
    return numbers, at, True


def field_at(message: bytes | bytearray, at: int) -> tuple[int, int]:
    """Number of the field that begins at `at`, and where it ends. 0: no length-delimited field of one byte's tag."""
    tag = message[at]
    start, size = payload_at(message, at)
    return (tag >> 3 if tag & 7 == LENGTH_DELIMITED and size >= 0 else 0), start + size


def payload_at(message: bytes | bytearray, at: int) -> tuple[int, int]:
    """Where the payload of a field begins and how long it is. A length that is cut off ends beyond the bytes; -1: none is so long."""
    size, at, shift = 0, at + 1, 0
    while at < len(message) and shift < 35:
        byte = message[at]
        size |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return at, size
    return at + 1, 0 if shift < 35 else -1
