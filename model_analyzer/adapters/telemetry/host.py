"""This host, and the server's processes where they are ours (psutil)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from time import monotonic_ns

import psutil

from model_analyzer.core.telemetry import Page, Series


class HostSampler:
    """A ports.Sampler of the host and of a server's process trees. pids: roots; none for a server elsewhere."""

    name = "host"

    def __init__(self, pids: Sequence[int]) -> None:
        self.origin = os.uname().nodename
        self._pids = tuple(pids)
        self._cpu_before: tuple[int, float] | None = None

    def sample(self) -> Page:
        """Read once; never raises."""
        now = monotonic_ns()
        values = {Series("host", ""): float(psutil.virtual_memory().available)} if self._pids else {}
        problem = None
        tree = self._tree()
        if tree:
            values.update(self._processes(tree, now))
        elif self._pids:
            problem = "the server's processes are gone"
        return Page(self.name, self.origin, now, values, problem=problem)

    def _tree(self) -> list[psutil.Process]:
        found = []
        for pid in self._pids:
            try:
                root = psutil.Process(pid)
                found += [root, *root.children(recursive=True)]
            except psutil.Error:
                continue
        return found

    def _processes(self, tree: Sequence[psutil.Process], now: int) -> dict[Series, float]:
        memory = cpu = 0.0
        for process in tree:
            try:
                # USS: what would be free again if the process ended; shared pages do not count twice.
                memory += process.memory_full_info().uss
                times = process.cpu_times()
            except psutil.Error:
                continue
            cpu += times.user + times.system
        values = {Series("server processes (USS)", ""): memory}
        if self._cpu_before is not None and now > self._cpu_before[0] and cpu >= self._cpu_before[1]:
            values[Series("server processes", "")] = (cpu - self._cpu_before[1]) / (now - self._cpu_before[0]) * 1e9
        self._cpu_before = (now, cpu)
        return values
