"""Regions of system shared memory that tensors lie in, and what is left of those whose owner was killed.

A region is a file in /dev/shm. Its owner holds a lock on it for as long as it lives: the kernel frees that lock
however the owner ends, and it is seen from another container (where a process id would say nothing) too. So a
region that nobody has locked is left over, and the next run removes it and takes it from the servers that know it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from model_analyzer.adapters.container import in_docker, in_pod
from model_analyzer.adapters.triton.wire_api import CALL_TIMEOUT_S, Refused, Unreachable, WireApi
from model_analyzer.errors import InputError, ServerError

FOLDER = Path("/dev/shm")
PREFIX = "model-analyzer-tensors"
# Tensors begin on pages of their own, as if each were a region: no two threads of the server write to one.
PAGE = 4096
# A request that was given up may hold a region for a moment; Triton frees it when that is answered.
IN_USE_S, TRY_EVERY_S = 2.0, 0.1


@cache
def prefix() -> str:
    """How the names of all regions in this /dev/shm begin; those in another host's (or container's) differ.

    A server elsewhere may list regions of runs there: theirs are not ours to judge.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()
    except OSError:
        boot = os.uname().nodename
    identity = f"{boot} {FOLDER.stat().st_dev}"
    return f"{PREFIX}-{hashlib.sha256(identity.encode()).hexdigest()[:8]}-"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a tensor lies in a region; bytes."""

    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Places:
    """Where the tensors of one request lie. region: its name; inputs, outputs: by the tensor's name."""

    region: str
    inputs: Mapping[str, Place]
    outputs: Mapping[str, Place]


class Layout:
    """Hands out places in a region to come. size: bytes so far."""

    def __init__(self) -> None:
        self.size = 0

    def place(self, size: int) -> Place:
        """The next free one; nothing else lies on its pages."""
        place = Place(self.size, size)
        self.size += -(-size // PAGE) * PAGE
        return place


class Region:
    """One region, ours until `remove`. name: its file in /dev/shm, and what servers call it."""

    def __init__(self, size: int) -> None:
        """Raises InputError where there is no room for `size` bytes."""
        self.size = max(size, PAGE)
        try:
            self.name, self._fd = _create()
            try:
                # Not truncate: where memory is short that succeeds, and whoever writes to it is killed by SIGBUS.
                os.posix_fallocate(self._fd, 0, self.size)
            except BaseException:
                self.remove()
                raise
        except OSError as error:
            what = f"has no room for {self.size / 1e6:,.1f} MB of tensors ({error.strerror})"
            raise InputError(str(FOLDER), what, _more_room()) from error

    @property
    def key(self) -> str:
        """Its name for shm_open."""
        return f"/{self.name}"

    def write(self, offset: int, data: bytes) -> None:
        """Put a tensor there."""
        view = memoryview(data)
        while view:
            written = os.pwrite(self._fd, view, offset)
            offset, view = offset + written, view[written:]

    def read(self, offset: int, size: int) -> bytes:
        """What lies there now."""
        return os.pread(self._fd, size, offset)

    def remove(self) -> None:
        """Unlink it; a server that has it mapped keeps the memory. Safe to call twice."""
        if self._fd >= 0:
            (FOLDER / self.name).unlink(missing_ok=True)
            os.close(self._fd)
            self._fd = -1


def _create() -> tuple[str, int]:
    """A new, empty, locked file: its name and descriptor."""
    while True:
        name = f"{prefix()}{os.getpid()}-{secrets.token_hex(4)}"
        fd = os.open(FOLDER / name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        # Another run may look for leftovers between the two calls.
        if _lock(fd) and os.fstat(fd).st_nlink:
            return name, fd
        os.close(fd)


def _lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


@contextlib.contextmanager
def _taken_over(path: Path) -> Iterator[bool]:
    """Whether nobody has locked the file, or there is none; while it is left over, it stays ours."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        yield True
        return
    except OSError:  # another user's
        yield False
        return
    try:
        yield _lock(fd)
    finally:
        os.close(fd)


def remove_leftovers(say: Callable[[str], None]) -> None:
    """Remove the files of this user's runs that were killed. Never raises."""
    removed = 0
    with contextlib.suppress(OSError):
        for path in FOLDER.glob(f"{prefix()}*"):
            with contextlib.suppress(OSError), _taken_over(path) as left:
                if left and path.stat().st_uid == os.geteuid():
                    path.unlink()
                    removed += 1
    if removed:
        say(f"removed {removed} shared memory region{'s' * (removed > 1)} of a run that was killed")


def register(region: Region, api: WireApi) -> None:
    """Make the region known to a server. Raises InputError where it cannot have it, ServerError where it is gone."""
    try:
        api.register_region(region.name, region.key, region.size)
    except Refused as error:
        raise InputError(api.endpoint, f"does not take shared memory: {error}", _sharing()) from error
    except Unreachable as error:
        raise ServerError(api.endpoint, f"does not answer: {error}", "see the server's log") from error


def unregister(names: Sequence[str], api: WireApi, say: Callable[[str], None], patience_s: float = IN_USE_S) -> None:
    """Make a server forget regions; waits a little for those in use. Never raises: what it keeps is said."""
    deadline = time.monotonic() + min(patience_s, IN_USE_S)
    for name in names:
        while (problem := _unregister(name, api)) is not None:
            if time.monotonic() > deadline:
                say(f"{api.endpoint} keeps the shared memory region {name}: {problem}; the next run tries again")
                break
            time.sleep(TRY_EVERY_S)


def _unregister(name: str, api: WireApi) -> str | None:
    try:
        api.unregister_region(name)
    except Refused as error:
        return str(error)
    except Unreachable:  # a server that is gone has forgotten it
        return None
    return None


def forget_leftovers(api: WireApi, say: Callable[[str], None], patience_s: float = CALL_TIMEOUT_S) -> None:
    """Make a server forget the regions of runs from here that were killed. Never raises."""
    try:
        known = api.regions(min(CALL_TIMEOUT_S, patience_s))
    except (Refused, Unreachable):  # one that has no shared memory, or keeps it to itself
        return
    names = [name for name in known if name.startswith(prefix()) and _is_left(name)]
    unregister(names, api, say, patience_s)


def _is_left(name: str) -> bool:
    with _taken_over(FOLDER / name) as left:
        return left


def _sharing() -> str:
    if in_pod():
        return "mount one volume at /dev/shm of both containers (the chart: triton.shareMemory), or set shared_memory: none"
    if in_docker():
        return "start this container and Triton's with --ipc=host, or set shared_memory: none"
    return "it must share this host's /dev/shm (a container: --ipc=host), or set shared_memory: none"


def _more_room() -> str:
    if in_pod():
        return "raise triton.shmSize of the chart, or measure smaller batches"
    if in_docker():
        return "start this container with --ipc=host, or measure smaller batches"
    return "free some (ls -l /dev/shm), or measure smaller batches"
