"""Several stores as one run: in which order, which of two measurements of a phase, and what is missing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from model_analyzer.core.hardware import UNKNOWN, GpuTypes, holds, measured_on, shown
from model_analyzer.core.measurement import Baseline, Measurement
from model_analyzer.core.repeats import as_asked, unfinished, whole_repeats

_Key = tuple[str, GpuTypes]


@dataclass(frozen=True, slots=True)
class Part:
    """What one export path holds, that of a sharded run with all its shards.

    plan: phase ids in order. measurements: every one, also on other hardware than `here`, the GPU types of its last run.
    holes: phases of the plan that are not measured on it, or not as often as asked: these are `unfinished`, too.
    """

    plan: tuple[str, ...]
    measurements: tuple[Measurement, ...]
    baselines: tuple[Baseline, ...]
    here: GpuTypes
    holes: frozenset[str]
    unfinished: frozenset[str] = frozenset()

    @classmethod
    def of(
        cls,
        plan: Iterable[str],
        measurements: Iterable[Measurement],
        baselines: Iterable[Baseline] = (),
        here: GpuTypes = UNKNOWN,
        asked: int = 1,
    ) -> Part:
        """With the holes that follow from the rest. asked: how many repeats a phase was to have."""
        plan, measurements = tuple(plan), tuple(measurements)
        begun = frozenset(m.phase.id for m in measurements if unfinished(m, asked))
        measured = {m.phase.id for m in measurements if holds(measured_on(m), here)}
        rows = tuple(as_asked(m, asked) for m in measurements)
        return cls(plan, rows, tuple(baselines), here, frozenset(plan) - (measured - begun), begun)


@dataclass(frozen=True, slots=True)
class Merged:
    """One run. measurements: in the order of the plan, a phase's GPU types in the order of `gpu_types`.

    gpu_types: as shown, in the order of the parts. missing: phases that some part has not measured, in the order of the plan.
    """

    plan: tuple[str, ...]
    measurements: tuple[Measurement, ...]
    baselines: tuple[Baseline, ...]
    gpu_types: tuple[str, ...]
    missing: tuple[str, ...]


def merge(parts: Sequence[Part]) -> Merged:
    """The parts as one run. Of a phase that was measured twice on one GPU type the better row stays."""
    plan = union_order([part.plan for part in parts])
    rows = best(m for part in parts for m in part.measurements)
    types = tuple(dict.fromkeys(shown(measured_on(m)) for part in parts for m in part.measurements))
    by_phase: dict[str, list[Measurement]] = {}
    for m in rows:
        by_phase.setdefault(m.phase.id, []).append(m)
    missing = _missing(parts)
    return Merged(
        plan,
        tuple(
            m
            for phase_id in plan
            for m in sorted(by_phase.get(phase_id, ()), key=lambda m: types.index(shown(measured_on(m))))
        ),
        _baselines(baseline for part in parts for baseline in part.baselines),
        types,
        tuple(phase_id for phase_id in plan if phase_id in missing),
    )


def union_order(plans: Iterable[Sequence[str]]) -> tuple[str, ...]:
    """One order that keeps the first plan's; what only a later plan has follows what stands before it there."""
    order: list[str] = []
    for plan in plans:
        known = set(order)
        after: dict[str | None, list[str]] = {}
        last: str | None = None
        for phase_id in dict.fromkeys(plan):
            if phase_id in known:
                last = phase_id
            else:
                after.setdefault(last, []).append(phase_id)
        first = after.pop(None, [])
        rest = [each for phase_id in order for each in (phase_id, *after.get(phase_id, ()))]
        # A plan that shares nothing with those before comes after them.
        order = [*rest, *first] if last is None else [*first, *rest]
    return tuple(order)


def best(measurements: Iterable[Measurement]) -> list[Measurement]:
    """One of each phase and GPU type: what has figures beats what failed, then more repeats, then the later finished.

    A failed phase of which not even the hardware is known is no row beside one that was measured.
    """
    found: dict[_Key, Measurement] = {}
    for m in measurements:
        key = (m.phase.id, measured_on(m))
        if key not in found or _rank(m) > _rank(found[key]):
            found[key] = m
    measured = {m.phase.id for m in found.values() if m.status != "failed"}
    return [m for (id_, types), m in found.items() if types or m.status != "failed" or id_ not in measured]


def _rank(m: Measurement) -> tuple[bool, int, str]:
    return m.status != "failed", whole_repeats(m), m.finished_at


def _baselines(baselines: Iterable[Baseline]) -> tuple[Baseline, ...]:
    """The last of each baseline and set of GPUs: shards on GPUs of their own have one each, on a CPU one in all."""
    found: dict[tuple[str, tuple[str, ...]], Baseline] = {}
    for baseline in baselines:
        key = (baseline.id, tuple(sorted(baseline.gpus)))
        if key not in found or baseline.finished_at > found[key].finished_at:
            found[key] = baseline
    return tuple(found.values())


def _missing(parts: Sequence[Part]) -> frozenset[str]:
    """The holes that no other part fills with a row of the same hardware."""
    filled = [
        {(m.phase.id, measured_on(m)) for m in part.measurements if m.phase.id not in part.unfinished} for part in parts
    ]
    missing: set[str] = set()
    for n, part in enumerate(parts):
        others = {id_ for k, keys in enumerate(filled) if k != n for id_, types in keys if holds(types, part.here)}
        missing |= part.holes - others
    return frozenset(missing)
