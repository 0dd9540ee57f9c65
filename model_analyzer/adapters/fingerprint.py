"""A digest of a model's files, so that a changed model is measured again and an unchanged one is not."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

# Larger files are judged by their size and these many bytes of their start, middle and end: weights may be 100 GB.
WHOLE_BYTES = 1 << 20
PROBE_BYTES = 1 << 16
# Python writes it beside a model.py when it is first run: that is no change of the model.
_IGNORED = "__pycache__"


def fingerprint(paths: Iterable[Path]) -> str:
    """16 hex digits over files and folders (all files below them, through links); one that cannot be read counts as such."""
    digest = hashlib.sha256()
    for path in paths:
        try:
            folder = path.is_dir()
        except (OSError, ValueError):
            folder = False  # no path that a file could have; _add says so
        if folder:
            for name, file in sorted(_files(path)):
                digest.update(os.fsencode(name) + b"\0")
                _add(digest, file)
        else:
            _add(digest, path)
    return digest.hexdigest()[:16]


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Relative name and path of every file. A version folder is often a link to where the weights lie."""
    seen = set()
    for here, folders, names in os.walk(folder, followlinks=True):
        seen.add(os.path.realpath(here))
        folders[:] = [name for name in folders if name != _IGNORED and os.path.realpath(Path(here) / name) not in seen]
        for name in names:
            path = Path(here) / name
            if path.is_file():  # no socket, no pipe: reading one would wait for ever
                yield str(path.relative_to(folder)), path


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
    except (OSError, ValueError) as error:
        digest.update(f"unreadable {getattr(error, 'errno', None)}".encode())
