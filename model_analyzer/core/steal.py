"""CPU time that a hypervisor takes from this machine ("steal"), and when a row says so. Definition: docs/measurement.md."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

# Told of from here on, as moves of throughput are (remarks.MOVES_SHARE): less is lost in the interval that is asked for.
STEAL_SHARE = 0.03


@dataclass(frozen=True, slots=True)
class CpuTime:
    """Of all CPUs of a machine together, over some time: while they had something to run, and the part of it stolen."""

    wanted_ns: int
    stolen_ns: int


def cpu_between(before: CpuTime | None, after: CpuTime | None) -> CpuTime | None:
    """From one reading to a later one; None without both, or where a counter fell, as it may when the machine is moved."""
    if before is None or after is None:
        return None
    wanted_ns, stolen_ns = after.wanted_ns - before.wanted_ns, after.stolen_ns - before.stolen_ns
    return CpuTime(wanted_ns, stolen_ns) if 0 <= stolen_ns <= wanted_ns else None


def steal_notes(slices: Iterable[tuple[CpuTime | None, float]]) -> list[str]:
    """A note where the hypervisor took so much that it shows. slices: CPU time (None: not known) and seconds of each."""
    known = [(cpu, seconds) for cpu, seconds in slices if cpu is not None]
    stolen_ns, wanted_ns = sum(cpu.stolen_ns for cpu, _ in known), sum(cpu.wanted_ns for cpu, _ in known)
    elapsed_ns = 1e9 * sum(seconds for _, seconds in known)
    # A large share of a CPU that is hardly wanted is little: nothing was held up for longer than was stolen.
    if not stolen_ns or stolen_ns < STEAL_SHARE * max(wanted_ns, elapsed_ns):
        return []
    return [
        f"the hypervisor took {stolen_ns / wanted_ns:.0%} of the CPU time that this machine wanted (steal): measure again"
        " later, or on a dedicated host"
    ]
