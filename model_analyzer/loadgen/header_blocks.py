"""HPACK header blocks (RFC 7541) without a dynamic table, so that equal bytes always mean the same.

The server is told SETTINGS_HEADER_TABLE_SIZE 0; ours never ask it to index anything.
"""

from __future__ import annotations

from typing import NamedTuple

from hpack import Decoder, Encoder, HPACKError, NeverIndexedHeaderTuple

from model_analyzer.loadgen.known import Known
from model_analyzer.loadgen.reply import Malformed

METHOD = "/inference.GRPCInferenceService/ModelInfer"
STREAM_METHOD = "/inference.GRPCInferenceService/ModelStreamInfer"
STATUSES = (
    "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE",
    "DATA_LOSS", "UNAUTHENTICATED",
)  # fmt: skip


class Fields(NamedTuple):
    """What we read of a block; None or "": not in it. message: of the status, percent-decoded."""

    http_status: int | None
    content_type: str
    encoding: str
    grpc_status: int | None
    message: str


def request_block(authority: str, secure: bool, method: str = METHOD) -> bytes:
    """The headers of a call."""
    headers = (
        (":method", "POST"),
        (":scheme", "https" if secure else "http"),
        (":path", method),
        (":authority", authority),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        ("user-agent", "model-analyzer"),
    )
    # Plain text: the server decodes it with each request. Never indexed: nothing of it enters a dynamic table.
    return Encoder().encode([NeverIndexedHeaderTuple(*header) for header in headers], huffman=False)


class HeaderBlocks:
    """Blocks of a server, each distinct one decoded once."""

    def __init__(self) -> None:
        self._known = Known[bytes, Fields]()

    def fields(self, block: bytes) -> Fields:
        """What a block says. Raises Malformed."""
        found = self._known.get(block)
        if found is None:
            found = _fields(block)
            self._known.remember(block, found)
        return found


def _fields(block: bytes) -> Fields:
    decoder = Decoder()
    decoder.max_allowed_table_size = decoder.header_table_size = 0
    try:
        pairs = decoder.decode(block, raw=True)
    except HPACKError as error:
        raise Malformed(f"header block: {error}") from None
    values = {bytes(name): bytes(value) for name, value in pairs}
    return Fields(
        http_status=_number(values, b":status"),
        content_type=_text(values, b"content-type"),
        encoding=_text(values, b"grpc-encoding"),
        grpc_status=_number(values, b"grpc-status"),
        message=_message(values.get(b"grpc-message", b"")),
    )


def _message(value: bytes) -> str:
    if b"%" in value:
        from urllib.parse import unquote_to_bytes

        value = unquote_to_bytes(value)
    return value.decode(errors="replace")


def _number(values: dict[bytes, bytes], name: bytes) -> int | None:
    value = values.get(name)
    if value is None:
        return None
    if not value.isdigit() or len(value) > 3:
        raise Malformed(f"{name.decode()}: {value[:40]!r}")
    return int(value)


def _text(values: dict[bytes, bytes], name: bytes) -> str:
    return values.get(name, b"").decode(errors="replace")


def status_name(code: int) -> str:
    """Of a grpc-status."""
    return STATUSES[code] if code < len(STATUSES) else f"status {code}"
