"""The command as a user runs it: a process, a job file, an export path."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

# Short phases: these tests are about what happens, not about figures.
QUICK = {"min_seconds": 0.2, "max_seconds": 0.4, "slice_seconds": 0.2, "duration_seconds": 0.3, "stop_rule": "fixed"}
# How long a test waits for what is to come: short of what pytest gives it.
PATIENCE_S = 240.0
COMMAND = [sys.executable, "-m", "model_analyzer"]


@dataclass(frozen=True)
class Job:
    """A job file and its export path."""

    file: Path
    export_path: Path

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        """`profile`, running."""
        return subprocess.Popen(
            [*COMMAND, "profile", "-f", str(self.file), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
        )

    def profile(self, *arguments: str, timeout: float = PATIENCE_S) -> subprocess.CompletedProcess[str]:
        """`profile`, to its end."""
        return command("profile", "-f", str(self.file), *arguments, timeout=timeout)

    def rows(self, name: str = "metrics-model-inference.csv") -> list[dict[str, str]]:
        """The rows of a table; none where there is no file yet."""
        return read_csv(self.export_path / name)

    def finished(self) -> list[str]:
        """Phase ids of the stored measurements, in order, doubles included."""
        path = self.export_path / "measurements.jsonl"
        lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
        records = [json.loads(line) for line in lines]
        return [record["data"]["phase"]["id"] for record in records if record["kind"] == "measurement"]


def command(*arguments: str, timeout: float = PATIENCE_S) -> subprocess.CompletedProcess[str]:
    """Any command line."""
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=timeout, check=False)


def read_csv(path: Path) -> list[dict[str, str]]:
    """Rows as mappings; a row of another width than the header is an error."""
    if not path.exists():
        return []
    head, *rows = list(csv.reader(path.read_text().splitlines(keepends=True)))
    assert all(len(row) == len(head) for row in rows), path.read_text()
    return [dict(zip(head, row, strict=True)) for row in rows]
