"""This host, and the server's processes where they are ours (psutil)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic_ns

import psutil

from model_analyzer.core.telemetry import Page, Series

# The kernel counts CPU time in ticks of 10 ms: over a shorter time the rate would be mostly rounding.
LEAST_RATE_NS = 100_000_000
# What a process shares is counted by walking all of its pages, which takes milliseconds; how much is resident stands in a
# counter. Its USS is read anew when that has moved by so many bytes or such a share of it, or after so long.
USS_STEP, USS_SHARE = 1_000_000, 0.005
USS_NS = 10_000_000_000
AVAILABLE = Series("host memory available", "")
MEMORY = Series("server processes (USS)", "")
CPU = Series("server processes", "")


class HostSampler:
    """A ports.Sampler of the host and of a server's process trees. pids: roots; none for a server elsewhere."""

    name = "host"

    def __init__(self, pids: Sequence[int]) -> None:
        self.origin = os.uname().nodename
        self._pids = tuple(pids)
        self._before: tuple[int, dict[int, float]] | None = None
        self._listed: frozenset[int] = frozenset()
        self._parents: dict[int, int] = {}
        self._family: list[psutil.Process] = []
        self._uss: dict[int, _Uss] = {}

    def sample(self) -> Page:
        """Read once; never raises."""
        now = monotonic_ns()
        if not self._pids:
            return Page(self.name, self.origin, now)
        values = {AVAILABLE: float(psutil.virtual_memory().available)}
        tree = self._tree()
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

    def _tree(self) -> list[psutil.Process]:
        """The processes that run. A dead one that nobody has waited for is still listed, with 0 bytes."""
        listed = frozenset(psutil.pids())
        # Who descends from whom is asked again only of processes that are new: on a host with a hundred of them, asking
        # all each time would be the dearest part of a scrape.
        if listed != self._listed:
            self._parents = {pid: self._parents.get(pid) or _parent(pid) for pid in listed}
            self._listed = listed
            known = {process.pid: process for process in self._family}
            self._family = [p for pid in self._descendants() if (p := known.get(pid) or _process(pid)) is not None]
        return [process for process in self._family if _runs(process)]

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

    def _cpu(self, tree: Sequence[psutil.Process], now: int) -> float | None:
        """Cores in use since the last reading; None where there is none, or it is too near."""
        if self._before is not None and now - self._before[0] < LEAST_RATE_NS:
            return None
        used = {}
        for process in tree:
            try:
                times = process.cpu_times()
            except psutil.Error:
                continue
            used[process.pid] = times.user + times.system
        before, self._before = self._before, (now, used)
        if before is None:
            return None
        # A process at a time: the sum would fall with each process that ends.
        seconds = sum(max(0.0, cpu_s - before[1].get(pid, 0.0)) for pid, cpu_s in used.items())
        return seconds / (now - before[0]) * 1e9

    def _memory(self, tree: Sequence[psutil.Process], now: int) -> float:
        """Bytes that would be free again if these processes ended (USS): shared pages do not count twice."""
        before, self._uss = self._uss, {}
        for process in tree:
            try:
                self._uss[process.pid] = _uss(process, now, before.get(process.pid))
            except psutil.NoSuchProcess:
                continue  # it ended in between
        return float(sum(each.uss for each in self._uss.values()))


@dataclass(frozen=True, slots=True)
class _Uss:
    """One reading. uss, rss: bytes."""

    uss: int
    rss: int
    time_ns: int


def _uss(process: psutil.Process, now: int, last: _Uss | None) -> _Uss:
    rss = process.memory_info().rss
    if last is not None and now - last.time_ns < USS_NS and abs(rss - last.rss) < max(USS_STEP, USS_SHARE * last.rss):
        return last
    return _Uss(process.memory_full_info().uss, rss, now)


def _parent(pid: int) -> int:
    """0 where it has ended in between."""
    try:
        return psutil.Process(pid).ppid()
    except psutil.Error:
        return 0


def _process(pid: int) -> psutil.Process | None:
    try:
        return psutil.Process(pid)
    except psutil.Error:
        return None


def _runs(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
