"""Whether the load generator shaped what it measured, and how many processes it needs: from its own CPU, waits and lags.

Lancet (Kogias et al., ATC 2019) asks this of a tool that measures latency. Definitions: docs/measurement.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from model_analyzer.core import open_loop
from model_analyzer.core.measurement import Slice, WorkerShare

# Above this share of one core a process of the load generator is the limit.
CPU_LIMIT = 0.85
# In the warm-up above this one: another is added before the limit is reached.
CPU_BUSY = 0.75
# Below this one it is not its own work that makes it late, or keeps it from more.
CPU_AT_WORK = 0.5
# A finished reply, or a due request, waited for the load generator longer than this, and than this share of the latency.
LAG_S, LAG_SHARE = 0.01, 0.2
# Of the requests in flight, this share had its reply already.
BACKLOG_SHARE = 0.2
# A process could have run and had no CPU for this share of the time. While it waits it holds up at most all requests in
# flight, so latency is up to this share too long: as much as is asked of its precision (latency_precision's default).
WAIT_SHARE = 0.1

# Other programs that use so much of a core are more than what a machine does by itself, its handling of packets among it,
# which no process shows.
OTHERS_CORES = 0.4

# The CPUs of the host are full: what the load generator takes of them the server lacks, and the other way round.
HOST_FULL = 0.9
# Mostly at work: a neighbour is in the way.
HOST_BUSY = 0.75

# What to do, by who keeps the load generator from more: itself, others, or the server on the same full CPUs.
# docs/troubleshooting.md says it at length.
_BUSY = "its own work was the limit; more client_workers and CPUs, or another machine"
_OTHERS = "others had its CPU, or a CPU limit; keep cores free for it (client_cpus)"
_SHARED = "it and the server share full CPUs; run it on another machine"
_CROWDED = (
    "other programs used {:.1f} cores of the full CPUs that it and the server share; measure again once they are quiet"
)
_NEIGHBOUR = "other programs used {:.1f} cores of this machine, which server and load generator lacked; measure again once they are quiet"


def more_workers(workers: int, most: int, shares: Sequence[WorkerShare], lagging: bool) -> int:
    """With how many processes to go on after a warm-up: twice as many where one core each is not enough, `most` at most.

    lagging: replies waited for the load generator. Where it is short of CPU because others take it, more of it would not help.
    """
    busiest = max((share.cpu_ratio for share in shares), default=0.0)
    wait = max((share.wait_ratio or 0.0 for share in shares), default=0.0)
    return min(2 * workers, most) if busiest > CPU_BUSY or (lagging and _by_itself(busiest, wait)) else workers


def is_lagging(lag_s: float, latency_s: float | None) -> bool:
    """Whether a wait for the load generator is worth a word beside this mean latency."""
    return latency_s is not None and lag_s > LAG_S and lag_s > LAG_SHARE * latency_s


def client_limit(
    slices: Sequence[Slice], shared_full: bool = False, others_cores: float = 0.0
) -> tuple[bool, tuple[str, ...]]:
    """Whether the load generator was the limit, and what a reader should know of it: every reason, then what to do.

    shared_full: the server is on this machine, too, and its CPUs are full: then nobody knows what the server alone could do.
    others_cores: what programs that are neither used of a machine whose CPUs are mostly at work.
    """
    crowded = others_cores >= OTHERS_CORES
    shared = (_CROWDED.format(others_cores) if crowded else _SHARED) if shared_full else ""
    # A server that needs the CPUs more than the load generator does is slowed down by a neighbour all the same.
    beside = (_NEIGHBOUR.format(others_cores),) if crowded else ()
    notes = tuple(_workers(slices))
    cpu, wait = _over_time(slices, _busiest_cpu), _over_time(slices, _its_wait)
    reasons = tuple(_limits(slices, cpu, wait))
    if reasons:
        return True, (f"{'; '.join(reasons)}: {_why(cpu, wait, shared)}", *notes, *(() if shared else beside))
    starved = tuple(_starved(slices, shared))
    return False, (*notes, *starved, *(() if shared and starved else beside))


def _workers(slices: Sequence[Slice]) -> Iterator[str]:
    counts = [len(piece.workers) or 1 for piece in slices]
    if counts and max(counts) > 1:
        told = f"{min(counts)} to {max(counts)}" if min(counts) < max(counts) else f"{max(counts)}"
        yield f"driven by {told} load generator processes"


def _limits(slices: Sequence[Slice], cpu: float, wait: float) -> Iterator[str]:
    """Every reason for which the load generator was the limit. cpu, wait: of its busiest process, as shares of the time."""
    if cpu > CPU_LIMIT:
        several = any(len(piece.workers) > 1 for piece in slices)
        yield f"{'a process of the' if several else 'the'} load generator used {cpu:.0%} of a core"
    elif cpu > CPU_AT_WORK and cpu + wait > CPU_LIMIT:
        yield f"the load generator had work for {cpu + wait:.0%} of the time and a CPU for {cpu:.0%}"
    lagging = [piece for piece in slices if is_lagging(piece.client_lag_s, _latency_s(piece))]
    if lagging and len(lagging) > len(slices) / 2:
        worst = max(piece.client_lag_s for piece in lagging)
        yield f"replies waited up to {worst * 1e3:.0f} ms for the load generator"
    backlog = _over_time(slices, lambda piece: piece.client_backlog_ratio)
    if backlog > BACKLOG_SHARE:
        yield f"{backlog:.0%} of the requests in flight had a reply that the load generator had not read"
    if (late := open_loop.late(slices)) is not None:
        yield late


def _by_itself(cpu: float, wait: float) -> bool:
    """Whether the load generator comes late because of its own work, and not for want of a CPU."""
    return cpu > CPU_AT_WORK and wait <= WAIT_SHARE


def _why(cpu: float, wait: float, shared: str) -> str:
    """What kept it from more, and what to do. shared: what to say where it and the server share full CPUs, else empty."""
    if shared:
        return shared
    return _BUSY if cpu > CPU_LIMIT or _by_itself(cpu, wait) else _OTHERS


def _starved(slices: Sequence[Slice], shared: str) -> Iterator[str]:
    wait = _over_time(slices, _longest_wait)
    if wait > WAIT_SHARE:
        why = shared or _OTHERS
        yield f"the load generator waited for a CPU {wait:.0%} of the time, latencies hold up to as much of it: {why}"


def _latency_s(piece: Slice) -> float | None:
    mean_ns = piece.stats.latency.mean_ns
    return None if mean_ns is None else mean_ns / 1e9


def _busiest(piece: Slice) -> WorkerShare:
    alone = WorkerShare(piece.client_cpu_ratio, None)
    return max(piece.workers, key=lambda share: share.cpu_ratio + (share.wait_ratio or 0.0), default=alone)


def _busiest_cpu(piece: Slice) -> float:
    return _busiest(piece).cpu_ratio


def _its_wait(piece: Slice) -> float:
    return _busiest(piece).wait_ratio or 0.0


def _longest_wait(piece: Slice) -> float:
    return max((share.wait_ratio or 0.0 for share in piece.workers), default=0.0)


def _over_time(slices: Sequence[Slice], share: Callable[[Slice], float]) -> float:
    seconds = sum(piece.seconds for piece in slices)
    return sum(share(piece) * piece.seconds for piece in slices) / seconds if seconds else 0.0
