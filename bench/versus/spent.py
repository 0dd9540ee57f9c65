"""A command run as a user runs it, and what it cost: the CPU of its whole process tree, from start to end."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import psutil

SAMPLE_S = 1.0
OWN_SAMPLE_S = 0.05
TAIL = 300


class CommandError(Exception):
    """A command that failed or took too long; its message is one line."""


@dataclass(frozen=True, slots=True)
class Sample:
    """The tree's CPU so far (s) and the server's count of successes, at one time (s, monotonic)."""

    at_s: float
    cpu_s: float
    count: int


@dataclass(frozen=True, slots=True)
class Spent:
    """cpu_s: user and system of the command and all it started. kernel_s: of that, system. children_cpu_s: what it started.

    children_cpu_s is the whole less the last that was seen of the command's own process: it may be too high by what that
    used in its last 50 ms, never too low.
    """

    wall_s: float
    cpu_s: float
    kernel_s: float
    children_cpu_s: float
    samples: tuple[Sample, ...]


def run(
    command: Sequence[str],
    log: Path,
    timeout_s: float,
    count: Callable[[], int] | None = None,
    environment: Mapping[str, str] | None = None,
    fine: Collection[int] = (0,),
) -> Spent:
    """Run it to its end; its output goes to `log`. count: the server's counter, read each second.

    environment: ours where None. fine: exit codes that are no failure. Raises CommandError.
    """
    start = time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(
            list(command), stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=environment,
            start_new_session=True,
        )  # fmt: skip
        watch = _Watch(process.pid, count, start + timeout_s)
        watch.start()
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            end(process.pid)
            os.wait4(process.pid, 0)
            raise
        finally:
            watch.ended.set()
        process.returncode = os.waitstatus_to_exitcode(status)
    wall_s = time.monotonic() - start
    watch.join()
    cpu_s = usage.ru_utime + usage.ru_stime
    if watch.timed_out:
        raise CommandError(f"{_name(command)} was ended after {timeout_s:.0f} s; see {log}")
    if process.returncode not in fine:
        raise CommandError(f"{_name(command)} ended with {process.returncode}: {_tail(log)}; see {log}")
    return Spent(wall_s, cpu_s, usage.ru_stime, max(cpu_s - watch.own_cpu_s, 0.0), tuple(watch.samples))


def steady(samples: Sequence[Sample]) -> tuple[float, float] | None:
    """CPU a request (us) and requests a second between the second sample and the last but one that saw the count grow.

    So start-up, the first replies and the end are left out. None where fewer than three samples are left.
    """
    grew = [now for before, now in pairwise(samples) if now.count > before.count][1:-1]
    if len(grew) < 3:
        return None
    first, last = grew[0], grew[-1]
    requests = last.count - first.count
    return (last.cpu_s - first.cpu_s) / requests * 1e6, requests / (last.at_s - first.at_s)


@dataclass(eq=False)
class _Watch(threading.Thread):
    """Reads the tree's CPU while it runs, and ends it when its time is up."""

    pid: int
    count: Callable[[], int] | None
    until_s: float
    own_cpu_s: float = 0.0
    timed_out: bool = False
    samples: list[Sample] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        super().__init__(daemon=True)

    def run(self) -> None:
        due_s = time.monotonic()
        while not self.ended.wait(OWN_SAMPLE_S):
            with suppress(psutil.Error, OSError, ValueError):
                times = psutil.Process(self.pid).cpu_times()
                self.own_cpu_s = max(self.own_cpu_s, times.user + times.system)
                if self.count is not None and time.monotonic() >= due_s:
                    due_s += SAMPLE_S
                    cpu_s = tree_cpu_s([self.pid])
                    self.samples.append(Sample(time.monotonic(), cpu_s, self.count()))
            if time.monotonic() > self.until_s and not self.timed_out:
                self.timed_out = True
                end(self.pid)


def tree_cpu_s(pids: Sequence[int]) -> float:
    """User and system seconds of these processes and all below them, the ended ones included."""
    total = 0.0
    for pid in pids:
        with suppress(psutil.Error):
            root = psutil.Process(pid)
            for process in [root, *root.children(recursive=True)]:
                with suppress(psutil.Error):
                    times = process.cpu_times()
                    total += times.user + times.system + times.children_user + times.children_system
    return total


def end(pid: int) -> None:
    """Kill a process that we started and what it started."""
    with suppress(psutil.Error):
        root = psutil.Process(pid)
        for process in [*root.children(recursive=True), root]:
            with suppress(psutil.Error):
                process.kill()


def _name(command: Sequence[str]) -> str:
    return " ".join([Path(command[0]).name, *command[1:4]])


def _tail(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][:TAIL] if lines else "it said nothing"
