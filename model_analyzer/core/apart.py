"""What else tells phases apart than model, variant, batch size and load: said where rows would look alike without it.

The protocol is said wherever rows differ in it: it moves every figure, so that rows of two of them are no series over the load.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from model_analyzer.core.plan import Phase


def _distribution(phase: Phase) -> str:
    """Of custom intervals with their digest: two files may have one mean."""
    load = phase.load
    return "" if load.kind == "concurrency" else f"{load.distribution} {load.intervals}".strip()


# Column -> what it says of a phase.
ASPECTS: dict[str, Callable[[Phase], str]] = {
    "client_protocol": lambda phase: phase.protocol,
    "call": lambda phase: phase.call or "default",
    "shared_memory": lambda phase: "none" if phase.source.shared_memory is None else "system",
    "input_data": lambda phase: phase.source.path or phase.source.mode,
    "request_distribution": _distribution,
    "max_concurrency": lambda phase: "" if phase.load.max_concurrency is None else str(phase.load.max_concurrency),
    "ramp_seconds": lambda phase: f"{phase.load.ramp_s:g}",
}


# Said wherever two phases of a table differ in it, whatever they are named.
OF_ALL = "client_protocol"


def apart(phases: Iterable[Phase]) -> tuple[str, ...]:
    """The columns in which phases differ that are named alike, and the protocol where any do, in the order of ASPECTS."""
    phases = tuple(phases)
    alike: dict[tuple[Any, ...], list[Phase]] = {}
    for phase in phases:
        name = (phase.variant.model, phase.variant.name, phase.batch_size, phase.load.kind, phase.load.value)
        alike.setdefault(name, []).append(phase)
    several = [each for each in alike.values() if len(each) > 1]

    def differ(tag: str, said: Callable[[Phase], str]) -> bool:
        return any(len({said(phase) for phase in each}) > 1 for each in ([phases] if tag == OF_ALL else several))

    return tuple(tag for tag, said in ASPECTS.items() if differ(tag, said))
