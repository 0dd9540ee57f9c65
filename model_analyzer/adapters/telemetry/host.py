"""This host, and the server's processes where they are ours.

What is read at each scrape is read from /proc itself (proc(5)), where psutil takes a multiple of the CPU: this runs ten times a second
beside what is measured.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import monotonic_ns
from typing import NamedTuple

import psutil

from model_analyzer.core.telemetry import Page, Series

# The kernel counts CPU time in ticks of 10 ms: over a shorter time the rate would be mostly rounding.
LEAST_RATE_NS = 100_000_000
# What a process shares is counted by walking all of its pages, which takes milliseconds; how much is resident stands in a
# counter. Its USS is read anew when that has moved by so many bytes or such a share of it, or after so long.
USS_STEP, USS_SHARE = 1_000_000, 0.005
USS_NS = 10_000_000_000
# All processes are listed when there is a new one, and after so long: a kernel may not tell (gVisor).
LIST_NS = 1_000_000_000
AVAILABLE = Series("host memory available", "")
MEMORY = Series("server processes (USS)", "")
CPU = Series("server processes", "")
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class State(NamedTuple):
    """Of a process: CPU time in seconds, resident memory in bytes."""

    cpu_s: float
    rss: int


class HostSampler:
    """A ports.Sampler of the host and of a server's process trees. pids: roots; none for a server elsewhere."""

    name = "host"

    def __init__(self, pids: Sequence[int]) -> None:
        self.origin = os.uname().nodename
        self._pids = tuple(pids)
        self._before: tuple[int, dict[int, float]] | None = None
        self._newest, self._listed_ns = b"", 0
        self._listed: frozenset[int] = frozenset()
        self._parents: dict[int, int] = {}
        self._family: list[int] = []
        self._uss: dict[int, _Uss] = {}

    def sample(self) -> Page:
        """Read once; never raises."""
        now = monotonic_ns()
        if not self._pids:
            return Page(self.name, self.origin, now)
        values = {AVAILABLE: _available()}
        tree = self._tree(now)
        if not tree:
            return Page(self.name, self.origin, now, values, problem="the server's processes are gone")
        cpu = self._cpu(tree, now)
        if cpu is not None:
            values[CPU] = cpu
        try:
            values[MEMORY] = self._memory(tree, now)
        except psutil.AccessDenied:
            # What of it can be read would look like all of it.
            problem = "the memory of the server's processes cannot be read (they belong to another user)"
            return Page(self.name, self.origin, now, values, problem=problem)
        return Page(self.name, self.origin, now, values)

    def _tree(self, now: int) -> dict[int, State]:
        """The processes that run."""
        newest = _newest()
        if newest != self._newest or now - self._listed_ns >= LIST_NS:
            self._newest, self._listed_ns = newest, now
            self._list()
        return {pid: state for pid in self._family if (state := _state(pid)) is not None}

    def _list(self) -> None:
        listed = frozenset(psutil.pids())
        # Who descends from whom is asked again only of processes that are new: on a host with a hundred of them, asking
        # all each time would be the dearest part of a scrape.
        if listed != self._listed:
            self._parents = {pid: self._parents.get(pid) or _parent(pid) for pid in listed}
            self._listed = listed
            self._family = self._descendants()

    def _descendants(self) -> list[int]:
        """The roots that exist, and all below them."""
        children: dict[int, list[int]] = {}
        for pid, parent in self._parents.items():
            children.setdefault(parent, []).append(pid)
        found: list[int] = []
        left = [pid for pid in self._pids if pid in self._parents]
        while left:
            pid = left.pop()
            if pid not in found:
                found.append(pid)
                left += children.get(pid, [])
        return found

    def _cpu(self, tree: Mapping[int, State], now: int) -> float | None:
        """Cores in use since the last reading; None where there is none, or it is too near."""
        if self._before is not None and now - self._before[0] < LEAST_RATE_NS:
            return None
        used = {pid: state.cpu_s for pid, state in tree.items()}
        before, self._before = self._before, (now, used)
        if before is None:
            return None
        # A process at a time: the sum would fall with each process that ends.
        seconds = sum(max(0.0, cpu_s - before[1].get(pid, 0.0)) for pid, cpu_s in used.items())
        return seconds / (now - before[0]) * 1e9

    def _memory(self, tree: Mapping[int, State], now: int) -> float:
        """Bytes that would be free again if these processes ended (USS): shared pages do not count twice."""
        before, self._uss = self._uss, {}
        for pid, state in tree.items():
            try:
                self._uss[pid] = _uss(pid, state.rss, now, before.get(pid))
            except psutil.NoSuchProcess:
                continue  # it ended in between
        return float(sum(each.uss for each in self._uss.values()))


@dataclass(frozen=True, slots=True)
class _Uss:
    """One reading. uss, rss: bytes."""

    uss: int
    rss: int
    time_ns: int


def _uss(pid: int, rss: int, now: int, last: _Uss | None) -> _Uss:
    if last is not None and now - last.time_ns < USS_NS and abs(rss - last.rss) < max(USS_STEP, USS_SHARE * last.rss):
        return last
    return _Uss(psutil.Process(pid).memory_full_info().uss, rss, now)


def _parent(pid: int) -> int:
    """0 where it has ended in between."""
    try:
        return psutil.Process(pid).ppid()
    except psutil.Error:
        return 0


def _state(pid: int) -> State | None:
    """None for a process that is gone, or dead while nobody has waited for it: that one is still listed, with 0 bytes."""
    try:
        # The name stands before it in brackets, and may have any character.
        fields = _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
    except OSError:
        return None
    if fields[0] in b"ZX":
        return None
    user, system, pages = (int(fields[number - 3]) for number in (14, 15, 24))
    return State((user + system) * _TICK_S, pages * _PAGE_BYTES)


def _newest() -> bytes:
    """The id of the process or thread that was begun last; b"" where nothing tells."""
    try:
        return _read("/proc/loadavg").rpartition(b" ")[2]
    except OSError:
        return b""


def _available() -> float:
    """Memory that new processes can have, in bytes."""
    try:
        text = _read("/proc/meminfo").partition(b"MemAvailable:")[2]
    except OSError:
        text = b""
    return float(int(text.split(None, 1)[0]) * 1024) if text else float(psutil.virtual_memory().available)


def _read(path: str) -> bytes:
    """A small file of /proc, in one read. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, 1 << 14)
    finally:
        os.close(descriptor)
