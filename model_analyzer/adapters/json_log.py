"""One JSON object a line, for log collectors: `log_format: json`."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime, timezone
from typing import Any, Literal, TextIO

Level = Literal["info", "warning", "error"]


def write_line(
    event: str,
    message: str,
    level: Level = "info",
    fields: Mapping[str, Any] | None = None,
    stream: TextIO | None = None,
) -> None:
    """Write it, to stderr where no stream is given. A field that is None is left out: it is not known."""
    known = {key: value for key, value in (fields or {}).items() if value is not None}
    time = datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    record = {"time": time, "level": level, "event": event, "message": message, **known}
    with suppress(OSError, ValueError):  # whoever read it has gone: no reason to end a run
        # One write: lines of several threads do not mix.
        file = stream or sys.stderr
        file.write(json.dumps(record, ensure_ascii=False) + "\n")
        file.flush()
