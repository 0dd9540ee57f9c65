"""Server-sent events (WHATWG HTML, 9.2.6), fed piece by piece, and what those of the generate extension say."""

from __future__ import annotations

import json
from typing import Any

from model_analyzer.loadgen.reply import Malformed

# A line without an end beyond so many bytes is no event of a model.
EVENT_LIMIT = 1 << 26
# What a reply of the generate extension has beside its outputs.
NO_OUTPUTS = frozenset(("model_name", "model_version", "id", "parameters"))
NO_JSON = "malformed reply: an event that is no JSON object"


class EventReader:
    """Lines to events: the data of each, in the order of their ends. A part of an event at the end is none."""

    __slots__ = ("_after_return", "_data", "_line")

    def __init__(self) -> None:
        self._line = bytearray()
        self._data: list[bytes] = []
        # A line may end with \\r\\n, and a read between the two.
        self._after_return = False

    @property
    def midway(self) -> bool:
        """Whether an event is in the making."""
        return bool(self._line or self._data)

    def feed(self, data: bytes) -> list[bytes]:
        """The events that end in `data`. Raises Malformed."""
        if data:
            if self._after_return and data.startswith(b"\n"):
                data = data[1:]
            self._after_return = data.endswith(b"\r")
        if b"\r" in data:
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        events: list[bytes] = []
        *lines, rest = data.split(b"\n")
        for line in lines:
            if self._line:
                line = bytes(self._line + line)
                self._line.clear()
            if line:
                self._take(line)
            elif self._data:
                events.append(b"\n".join(self._data))
                self._data.clear()
        self._line += rest
        if len(self._line) + sum(map(len, self._data)) > EVENT_LIMIT:
            raise Malformed(f"event of more than {EVENT_LIMIT} bytes")
        return events

    def _take(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        # Comments (no name), event, id and retry say nothing to us.
        if name == b"data":
            self._data.append(value.removeprefix(b" "))


def judge(text: bytes | bytearray) -> str | None:
    """ "" where a JSON text of the generate extension is a response, None where it has no outputs; else what is wrong."""
    try:
        document: Any = json.loads(text)
    except (ValueError, RecursionError):
        return NO_JSON
    if not isinstance(document, dict):
        return NO_JSON
    if "error" in document:
        return f"{document['error']}" or "an error without a text"
    return "" if document.keys() - NO_OUTPUTS else None
