"""The server's log: one file that every start appends to, and what its end says about a death."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import IO

from model_analyzer.errors import ExportPathError

TAIL_BYTES = 65_536
# Triton's own prefix, `E1124 08:43:15.732317 5766 server.cc:302] "..."`: noise where one line must tell.
PREFIX = re.compile(r"^[IWEF]\d{4} [\d:.]+ \d+ [\w.]+:\d+\] ")


class LogFile:
    """A log file under the export path; lines of earlier starts are kept, but never taken for this start's."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._start = 0

    def open(self, command: Sequence[str]) -> IO[bytes]:
        """Open for appending, with a header line. Raises ExportPathError."""
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            stream = self.path.open("ab")
            self._start = stream.tell()
            stream.write(f"# {now} model-analyzer starts: {' '.join(command)}\n".encode())
            stream.flush()
        except OSError as error:
            fix = "make the export path writable or choose another"
            raise ExportPathError(
                str(self.path), f"the server's log cannot be written: {error.strerror}", fix
            ) from error
        return stream

    def mark(self) -> int:
        """A place in the log, for `errors_since`."""
        try:
            return self.path.stat().st_size
        except OSError:
            return self._start

    def tail(self, lines: int = 15) -> list[str]:
        """The last lines of this start, without the header; [] where there is nothing."""
        # After an unknown flag comes all of `--help`, and would push out the line that names the flag.
        text = self._read(self._start).split("Usage: tritonserver", 1)[0]
        return [line for line in text.splitlines() if line.strip() and not line.startswith("# ")][-lines:]

    def errors_since(self, mark: int) -> list[str]:
        """Messages of error lines written since `mark`, without time and place."""
        found = [line for line in self._read(mark).splitlines() if re.match(r"^[EF]\d{4} ", line)]
        return list(dict.fromkeys(PREFIX.sub("", line).strip('"') for line in found))

    def _read(self, start: int) -> str:
        try:
            with self.path.open("rb") as stream:
                size = stream.seek(0, 2)
                stream.seek(max(start, size - TAIL_BYTES))
                return stream.read().decode(errors="replace")
        except OSError:
            return ""
