"""Writing whole files, or not at all; locks that die with their holder."""

from __future__ import annotations

import errno
import fcntl
import glob
import os
import socket
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from model_analyzer.adapters.container import remedy_for_folder
from model_analyzer.errors import ExportPathError


def write_atomically(path: Path, text: str | Iterable[str], root: Path | None = None) -> None:
    """Replace `path` by `text` in one step: a reader sees the old file or the new one. Raises ExportPathError.

    text: whole, or piece by piece.
    root: a folder that has to be there already; without it, all missing folders are made.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        if root is not None:
            root.stat()
        if path.parent != root:
            path.parent.mkdir(parents=True, exist_ok=True)
        with draft.open("w", encoding="utf-8", newline="") as file:
            file.writelines([text] if isinstance(text, str) else text)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except BaseException as error:
        with suppress(OSError):
            draft.unlink()
        if isinstance(error, OSError):
            raise cannot_write(path, error) from error
        raise


def remove_drafts(path: Path) -> None:
    """Remove what killed processes have left of `write_atomically(path, ...)`. Raises ExportPathError."""
    for draft in path.parent.glob(f".{glob.escape(path.name)}.*"):
        pid = draft.suffix[1:]
        if pid.isdigit() and not Path("/proc", pid).exists():
            try:
                draft.unlink(missing_ok=True)
            except OSError as error:
                raise cannot_write(draft, error) from error


def try_lock(fd: int) -> str | None:
    """Lock the open file, not waiting: None, or who holds it. Raises OSError where the file system has no locks."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return os.pread(fd, 200, 0).decode(errors="replace").strip() or "another run"
    return None


def sign_lock(fd: int) -> None:
    """Write into the locked file who holds it. Raises OSError."""
    os.ftruncate(fd, 0)
    os.pwrite(fd, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)


def cannot_write(path: Path, error: OSError) -> ExportPathError:
    """The one line for a path that cannot be written."""
    remedy = remedy_for_folder(path) if error.errno in (errno.EACCES, errno.EPERM) else None
    remedy = remedy or _REMEDIES.get(error.errno or 0, _REMEDY)
    return ExportPathError(str(path), f"cannot be written ({error.strerror})", remedy)


_REMEDY = "mend it or use another --export-path, then run again: it resumes"
_REMEDIES = {
    errno.ENOSPC: "free space, then run again: it resumes",
    errno.EDQUOT: "free space or raise the quota, then run again: it resumes",
    errno.EROFS: "mount it writable or use another --export-path, then run again: it resumes",
    errno.EACCES: "mend its permissions or use another --export-path, then run again: it resumes",
    errno.ENOENT: "that folder is gone: put it back, then run again: it resumes",
    errno.EEXIST: "that is a file: name a folder as --export-path",
    errno.ENOTDIR: "a part of that path is a file: name a folder as --export-path",
}
