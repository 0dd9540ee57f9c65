"""HTTP/1.1 replies, fed piece by piece. Garbage raises Malformed; it never hangs and is never a success."""

from __future__ import annotations

import json
from dataclasses import dataclass

HEAD_LIMIT = 65536
# Of a body only so much is kept: enough for any error text and for Triton's JSON part.
KEEP = 65536


class Malformed(Exception):  # noqa: N818 -- a verdict on the bytes
    """The bytes are no HTTP reply."""


@dataclass(frozen=True, slots=True)
class Head:
    """A parsed head. length None: chunked, or until the connection closes. size: bytes of the head itself."""

    size: int
    status: int
    length: int | None
    chunked: bool
    close: bool
    json_length: int | None


def parse_head(raw: bytes) -> Head:
    """From the bytes up to and with the blank line."""
    lines = raw[:-4].split(b"\r\n")
    version, _, rest = lines[0].partition(b" ")
    if version not in (b"HTTP/1.1", b"HTTP/1.0") or not rest[:3].isdigit():
        raise Malformed(f"status line {lines[0][:60]!r}")
    fields = {}
    for line in lines[1:]:
        name, colon, value = line.partition(b":")
        if not colon:
            raise Malformed(f"header line {line[:60]!r}")
        fields[name.strip().lower()] = value.strip()
    status = int(rest[:3])
    chunked = fields.get(b"transfer-encoding", b"").lower() == b"chunked"
    length = None if chunked else _number(fields, b"content-length")
    if status in (204, 304) or status < 200:
        length, chunked = 0, False
    close = fields.get(b"connection", b"").lower() == b"close" or version == b"HTTP/1.0"
    return Head(len(raw), status, length, chunked, close, _number(fields, b"inference-header-content-length"))


def _number(fields: dict[bytes, bytes], name: bytes) -> int | None:
    value = fields.get(name)
    if value is None:
        return None
    if not value.isdigit() or len(value) > 15:
        raise Malformed(f"{name.decode()}: {value[:40]!r}")
    return int(value)


class Reply:
    """One reply in the making. `body` keeps its first bytes only."""

    __slots__ = ("_buffer", "_chunk_left", "_left", "body", "extra", "head")

    def __init__(self) -> None:
        self.head: Head | None = None
        self.body = bytearray()
        self.extra = False
        self._buffer = b""
        self._left = 0
        self._chunk_left: int | None = None

    def feed(self, data: bytes) -> bool:
        """Take bytes in; True when the reply is whole (`extra`: bytes came after it)."""
        if self.head is None:
            self._buffer += data
            if not self._take_head():
                return False
            data, self._buffer = self._buffer, b""
        if self.head is not None and self.head.chunked:
            return self._feed_chunks(data)
        return self._feed_body(data)

    def end(self) -> bool:
        """The connection was closed: True when that ends the reply properly."""
        return self.head is not None and self.head.length is None and not self.head.chunked

    def _take_head(self) -> bool:
        """Cut the head off the buffer; interim replies (1xx) are dropped."""
        while True:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                if len(self._buffer) > HEAD_LIMIT:
                    raise Malformed(f"no end of head in {HEAD_LIMIT} bytes")
                if not b"HTTP/1.".startswith(self._buffer[:7]):
                    raise Malformed(f"starts with {self._buffer[:20]!r}")
                return False
            head = parse_head(self._buffer[: end + 4])
            self._buffer = self._buffer[end + 4 :]
            if head.status >= 200:
                self.head, self._left = head, head.length or 0
                return True

    def _feed_body(self, data: bytes) -> bool:
        if len(self.body) < KEEP:
            self.body += data[: KEEP - len(self.body)]
        if self.head is None or self.head.length is None:
            return False
        self._left -= len(data)
        self.extra = self._left < 0
        if self.extra:
            del self.body[self.head.length :]
        return self._left <= 0

    def _feed_chunks(self, data: bytes) -> bool:
        """Chunked coding: size line, bytes, CRLF, ...; trailers after the last chunk are skipped."""
        self._buffer += data
        while True:
            if self._chunk_left is None:
                line, found, rest = self._buffer.partition(b"\r\n")
                if not found:
                    if len(line) > 1024:
                        raise Malformed("chunk size line without end")
                    return False
                try:
                    self._chunk_left = int(line.partition(b";")[0], 16)
                except ValueError:
                    raise Malformed(f"chunk size {line[:20]!r}") from None
                if self._chunk_left < 0:
                    raise Malformed(f"chunk size {line[:20]!r}")
                self._buffer = rest
            if self._chunk_left == 0:
                end = 0 if self._buffer.startswith(b"\r\n") else self._buffer.find(b"\r\n\r\n")
                if end < 0:
                    return False
                self.extra = len(self._buffer) > end + (2 if end == 0 else 4)
                return True
            if len(self._buffer) < self._chunk_left + 2:
                return False
            if self._buffer[self._chunk_left : self._chunk_left + 2] != b"\r\n":
                raise Malformed("chunk without its end")
            self.body += self._buffer[: min(self._chunk_left, max(KEEP - len(self.body), 0))]
            self._buffer = self._buffer[self._chunk_left + 2 :]
            self._chunk_left = None


def failure_of(status: int, body: bytes) -> str | None:
    """Why a whole reply is no success; None when it is one. An error with status 200 is an error."""
    if status == 200 and not body.lstrip()[:9].startswith(b'{"error"'):
        return None
    try:
        text = json.loads(body)["error"]
    except (ValueError, KeyError, TypeError):
        text = bytes(body[:200]).decode(errors="replace").strip()
    return f"HTTP {status}: {text}" if text else f"HTTP {status}"


def full_check(head: Head, body: bytes) -> str | None:
    """What is wrong with the first reply of an order, looked at closely: is it an inference at all?"""
    text = body[: head.json_length] if head.json_length is not None else body
    if len(body) >= KEEP and (head.json_length is None or head.json_length > KEEP):
        return None  # longer than what was kept
    try:
        reply = json.loads(bytes(text))
    except ValueError:
        return "malformed reply: its JSON part does not parse"
    if not isinstance(reply, dict) or "outputs" not in reply:
        return "malformed reply: no outputs in it"
    return None
