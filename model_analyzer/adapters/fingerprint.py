"""A digest of a model's files, so that a changed model is measured again and an unchanged one is not."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

# Larger files are judged by their size and these many bytes of their start, middle and end: weights may be 100 GB.
WHOLE_BYTES = 1 << 20
PROBE_BYTES = 1 << 16


def fingerprint(paths: Iterable[Path]) -> str:
    """16 hex digits over files and folders (all files below them); a path that is not there or not readable counts as such."""
    digest = hashlib.sha256()
    for path in paths:
        if path.is_dir():
            files = sorted(file for file in path.rglob("*") if file.is_file() and "__pycache__" not in file.parts)
            for file in files:
                digest.update(str(file.relative_to(path)).encode() + b"\0")
                _add(digest, file)
        else:
            _add(digest, path)
    return digest.hexdigest()[:16]


def _add(digest: hashlib._Hash, path: Path) -> None:
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            digest.update(str(size).encode() + b"\0")
            if size <= WHOLE_BYTES:
                digest.update(file.read())
                return
            for offset in (0, size // 2, size - PROBE_BYTES):
                file.seek(offset)
                digest.update(file.read(PROBE_BYTES))
    except OSError as error:
        digest.update(f"unreadable {error.errno}".encode())
