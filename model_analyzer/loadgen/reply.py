"""HTTP/1.1 replies, fed piece by piece. Garbage raises Malformed; it never hangs and is never a success."""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

from model_analyzer.loadgen.tensors import size_problem, tensor_size

HEAD_LIMIT = 65536
# Of a chunk's size line or a trailer.
LINE_LIMIT = 8192
# Of a body only so much is kept: enough for any error text and for Triton's JSON part.
KEEP = 65536
CHUNK_SIZE, CHUNK_END, TRAILER = range(3)
# How an error begins whose text is too long to be read as JSON.
ERROR = re.compile(rb'\s*\{\s*"error"\s*:')


class Malformed(Exception):  # noqa: N818 -- a verdict on the bytes
    """The bytes are no HTTP reply."""


class Head(NamedTuple):
    """A parsed head. length None: chunked, or until the connection closes (`close` is set then). size: bytes of the head itself."""

    size: int
    status: int
    length: int | None
    chunked: bool
    close: bool
    json_length: int | None
    content_type: bytes = b""


def parse_head(raw: bytes) -> Head:
    """From the bytes up to and with the blank line."""
    lines = raw[:-4].split(b"\r\n")
    version, _, rest = lines[0].partition(b" ")
    code, _, _ = rest.partition(b" ")
    if version not in (b"HTTP/1.1", b"HTTP/1.0") or len(code) != 3 or not code.isdigit() or code < b"100":
        raise Malformed(f"status line {lines[0][:60]!r}")
    fields = _fields(lines[1:])
    status = int(code)
    coding = fields.get(b"transfer-encoding", b"").lower()
    if coding not in (b"", b"chunked", b"identity"):
        raise Malformed(f"transfer-encoding {coding[:40]!r}")
    chunked = coding == b"chunked"
    length = None if chunked else _number(fields, b"content-length")
    if status in (204, 304) or status < 200:
        length, chunked = 0, False
    options = [option.strip() for option in fields.get(b"connection", b"").lower().split(b",")]
    persistent = version == b"HTTP/1.1" or b"keep-alive" in options
    close = b"close" in options or not persistent or (length is None and not chunked)
    json_length = _number(fields, b"inference-header-content-length")
    return Head(len(raw), status, length, chunked, close, json_length, fields.get(b"content-type", b"").lower())


def _fields(lines: list[bytes]) -> dict[bytes, bytes]:
    fields: dict[bytes, bytes] = {}
    for line in lines:
        name, colon, value = line.partition(b":")
        name, value = name.lower(), value.strip()
        if not colon or not name.strip() or (fields.get(name, value) != value and name == b"content-length"):
            raise Malformed(f"header line {line[:60]!r}")
        fields[name] = value
    return fields


def _number(fields: dict[bytes, bytes], name: bytes) -> int | None:
    value = fields.get(name)
    if value is None:
        return None
    if not value.isdigit() or len(value) > 15:
        raise Malformed(f"{name.decode()}: {value[:40]!r}")
    return int(value)


class Reply:
    """One reply in the making. `body` keeps its first bytes only, `size` counts them all."""

    __slots__ = ("_buffer", "_left", "_part", "body", "extra", "head", "raw_head", "size")

    def __init__(self) -> None:
        self.head: Head | None = None
        self.raw_head = b""
        self.body = bytearray()
        self.size = 0
        self.extra = False
        self._buffer = bytearray()
        # Bytes still to come: of the body, or of the current chunk.
        self._left = 0
        self._part = CHUNK_SIZE

    def feed(self, data: bytes | bytearray | memoryview) -> bool:
        """Take bytes in; True when the reply is whole (`extra`: bytes came after it)."""
        head = self.head
        if head is None:
            self._buffer += data
            head = self._take_head()
            if head is None:
                return False
            data, self._buffer = self._buffer, bytearray()
        if head.chunked:
            self._buffer += data
            return self._take_chunks()
        return self._take_body(head, data)

    def end(self) -> bool:
        """The connection was closed: True when that ends the reply properly."""
        return self.head is not None and self.head.length is None and not self.head.chunked

    def _take_head(self) -> Head | None:
        """Cut the head off the buffer; interim replies (1xx) are dropped."""
        while True:
            end = self._buffer.find(b"\r\n\r\n", 0, HEAD_LIMIT)
            if end < 0:
                if len(self._buffer) >= HEAD_LIMIT:
                    raise Malformed(f"no end of head in {HEAD_LIMIT} bytes")
                if not b"HTTP/1.".startswith(self._buffer[:7]):
                    raise Malformed(f"starts with {bytes(self._buffer[:20])!r}")
                return None
            raw = bytes(self._buffer[: end + 4])
            head = parse_head(raw)
            del self._buffer[: end + 4]
            if head.status >= 200:
                self.head, self.raw_head, self._left = head, raw, head.length or 0
                return head

    def _take_body(self, head: Head, data: bytes | bytearray | memoryview) -> bool:
        if head.length is None:
            self._keep(data)
            return False
        self._keep(data[: self._left])
        self._left -= len(data)
        self.extra = self._left < 0
        return self._left <= 0

    def _keep(self, data: bytes | bytearray | memoryview) -> None:
        """A piece of the body."""
        self.size += len(data)
        if len(self.body) < KEEP:
            self.body += data[: KEEP - len(self.body)]

    def _take_chunks(self) -> bool:
        """Chunked coding: a size line, so many bytes, CRLF, ... until size 0; then trailers, which are skipped."""
        while True:
            if self._left:
                taken = min(self._left, len(self._buffer))
                self._keep(self._buffer[:taken])
                del self._buffer[:taken]
                self._left -= taken
                if self._left:
                    return False
            line = self._take_line()
            if line is None:
                return False
            if self._part == CHUNK_SIZE:
                self._left = _chunk_size(line)
                self._part = CHUNK_END if self._left else TRAILER
            elif self._part == CHUNK_END:
                if line:
                    raise Malformed("chunk without its end")
                self._part = CHUNK_SIZE
            elif not line:
                self.extra = bool(self._buffer)
                return True

    def _take_line(self) -> bytes | None:
        end = self._buffer.find(b"\r\n", 0, LINE_LIMIT)
        if end < 0:
            if len(self._buffer) >= LINE_LIMIT:
                raise Malformed("line of a chunk without end")
            return None
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        return line


def _chunk_size(line: bytes) -> int:
    digits = line.partition(b";")[0].strip()
    # int() alone would take signs, underscores and 0x.
    if not digits or len(digits) > 12 or digits.strip(b"0123456789abcdefABCDEF"):
        raise Malformed(f"chunk size {line[:20]!r}")
    return int(digits, 16)


def problem_of(head: Head, body: bytes | bytearray, size: int) -> str | None:
    """Why a whole reply is no inference; None when it is one. An error with status 200 is an error.

    body: its first KEEP bytes. size: how many it had.
    """
    if head.status != 200:
        return refusal(head.status, body)
    text = body if head.json_length is None else body[: head.json_length]
    if len(body) >= KEEP and len(text) >= KEEP:
        # Longer than what was kept.
        if ERROR.match(text):
            return f"HTTP 200: {bytes(text[:200]).decode(errors='replace')}"
        return None if text.startswith(b"{") else "malformed reply: no JSON in it"
    reply = _json(text)
    if not isinstance(reply, dict):
        return "malformed reply: its JSON part does not parse"
    if "error" in reply:
        return refusal(200, text)
    outputs = reply.get("outputs")
    if not isinstance(outputs, list) or not outputs:
        return "malformed reply: no outputs in it"
    if head.json_length is not None:
        # By the bytes that came: a reply in chunks, or up to the close, does not say beforehand how many.
        there, told = size - head.json_length, sum(_binary_size(output) or 0 for output in outputs)
        if there != told:
            return f"malformed reply: {there} bytes of tensors, and its JSON part tells of {told}"
    return next((problem for problem in map(_tensor_problem, outputs) if problem is not None), None)


def _binary_size(output: Any) -> int | None:
    """Bytes of it that come after the JSON part, by what it says (Triton's extension_binary_data.md); None: it does not say."""
    parameters = output.get("parameters") if isinstance(output, dict) else None
    size = parameters.get("binary_data_size") if isinstance(parameters, dict) else None
    return size if isinstance(size, int) else None


def _tensor_problem(output: Any) -> str | None:
    """Why its bytes are not the tensor that its shape tells of. Without a size it is in the JSON, or in shared memory."""
    size = _binary_size(output)
    if size is None:
        return None
    return size_problem(str(output.get("name")), size, tensor_size(output.get("datatype"), output.get("shape")))


def refusal(status: int, body: bytes | bytearray) -> str:
    """An error reply in words."""
    reply = _json(body)
    text = reply.get("error") if isinstance(reply, dict) else None
    if text is None:
        text = bytes(body[:200]).decode(errors="replace")
    return f"HTTP {status}: {text}" if text else f"HTTP {status}"


def _json(text: bytes | bytearray) -> Any:
    """None where it does not parse."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
