"""Whether the machine is free: what it does while nothing of ours runs, and who does it."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

WATCH_S = 4.0
# In cores. An idle Linux stays far below; one process in a loop is 1.
MOST_BUSY = 0.15
MOST_STOLEN = 0.05
NAMED = 5
# user nice system idle iowait irq softirq steal. Interrupts belong to no process: what they cost is nobody's load.
RUNNING_FIELDS = (0, 1, 2)
STEAL_FIELD = 7


@dataclass(frozen=True, slots=True)
class Load:
    """busy: cores in use, ours not counted; stolen: cores that the hypervisor gave to others; by: who used most, (name, cores)."""

    busy: float
    stolen: float
    average: float
    by: tuple[tuple[str, float], ...]

    def problem(self) -> str | None:
        """One line, or None on a quiet machine. The load average is not judged: it remembers what has ended."""
        if self.busy > MOST_BUSY:
            who = ", ".join(f"{name} {cores:.2f}" for name, cores in self.by) or "nothing that is seen from here"
            return f"other load uses {self.busy:.2f} cores ({who})"
        if self.stolen > MOST_STOLEN:
            return f"the hypervisor gives {self.stolen:.2f} cores of this machine to others"
        return None

    def to_json(self) -> dict[str, Any]:
        return {
            "busy_cores": round(self.busy, 3),
            "stolen_cores": round(self.stolen, 3),
            "load_average": round(self.average, 2),
            "by": [{"name": name, "cores": round(cores, 3)} for name, cores in self.by],
        }


def watch(seconds: float = WATCH_S) -> Load:
    """Look on for so long, without doing anything."""
    busy, stolen, before, start = *cpu_times(), _by_process(), time.monotonic()
    own = sum(os.times()[:4])
    time.sleep(seconds)
    elapsed = time.monotonic() - start
    own_s = sum(os.times()[:4]) - own
    busy_after, stolen_after = cpu_times()
    used = {}
    for pid, (name, cpu_s) in _by_process().items():
        spent = cpu_s - before.get(pid, (name, 0.0))[1]
        if pid != os.getpid() and spent / elapsed > 0.005:
            used[f"{name} ({pid})"] = spent / elapsed
    most = sorted(used.items(), key=lambda each: -each[1])[:NAMED]
    busy_cores = max((busy_after - busy - own_s) / elapsed, 0.0)
    return Load(busy_cores, (stolen_after - stolen) / elapsed, os.getloadavg()[0], tuple(most))


@dataclass(frozen=True, slots=True)
class Mark:
    """A point in time: all that ran so far, and of that the server and we."""

    at_s: float
    busy_s: float
    known_s: float


def mark(server_cpu_s: float) -> Mark:
    """Now. server_cpu_s: what the server has used."""
    return Mark(time.monotonic(), cpu_times()[0], server_cpu_s + sum(os.times()[:2]))


def others(before: Mark, after: Mark, client_cpu_s: float) -> float:
    """Cores in use between two marks that neither the server, nor the client, nor we explain."""
    unknown_s = (after.busy_s - before.busy_s) - (after.known_s - before.known_s) - client_cpu_s
    return max(unknown_s, 0.0) / (after.at_s - before.at_s)


def cpu_times() -> tuple[float, float]:
    """Core seconds since boot: of all processes here, and stolen."""
    return read_stat(Path("/proc/stat").read_text(), os.sysconf("SC_CLK_TCK"))


def read_stat(text: str, ticks: int) -> tuple[float, float]:
    """The same from /proc/stat's text. Guests are within user, and not counted twice."""
    fields = [int(value) for value in text.splitlines()[0].split()[1:]]
    return sum(fields[place] for place in RUNNING_FIELDS) / ticks, fields[STEAL_FIELD] / ticks


def _by_process() -> dict[int, tuple[str, float]]:
    found = {}
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            times = process.cpu_times()
            found[process.pid] = (process.name(), times.user + times.system)
    return found
