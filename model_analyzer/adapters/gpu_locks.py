"""One shard a GPU: advisory locks on files that all shards of a run see."""

from __future__ import annotations

import os
import re
from pathlib import Path

from model_analyzer.adapters.files import cannot_write, sign_lock, try_lock
from model_analyzer.errors import ExportPathError

FOLDER = ".gpus"


class GpuLocks:
    """A ports.GpuClaims on the shared export path of a sharded run. Use as a context manager: leaving it frees all."""

    def __init__(self, export_path: Path) -> None:
        self._folder = export_path / FOLDER
        self._held: dict[str, int] = {}

    def __enter__(self) -> GpuLocks:
        return self

    def __exit__(self, *exc: object) -> None:
        for fd in self._held.values():
            os.close(fd)
        self._held.clear()

    def claim(self, gpu: str) -> str | None:
        """Hold this GPU, or this MIG instance, until the end: None, or who holds it. Raises ExportPathError."""
        if gpu in self._held:
            return None
        # What a metrics page calls a GPU is not to name a file elsewhere.
        path = self._folder / f"{re.sub(r'[^A-Za-z0-9-]', '_', gpu)}.lock"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise cannot_write(path, error) from error
        try:
            holder = try_lock(fd)
            if holder is None:
                sign_lock(fd)
                self._held[gpu] = fd
        except OSError as error:
            what = f"cannot be locked ({error.strerror})"
            raise ExportPathError(str(path), what, "use an --export-path on a file system with locks") from error
        finally:
            if gpu not in self._held:
                os.close(fd)
        return holder
