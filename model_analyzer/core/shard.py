"""Which run of a sharded job measures what: by variant, because loading one twice costs more than it saves."""

from __future__ import annotations

from collections.abc import Sequence

from model_analyzer.core.plan import Group


def assign(groups: Sequence[Group], shards: int) -> tuple[int, ...]:
    """The shard of each group, 0 to shards - 1; the same for every run of the same plan.

    A group goes whole, in plan order, to the shard that has the fewest phases so far; of several to the lowest.
    """
    phases = [0] * shards
    chosen = []
    for group in groups:
        least = phases.index(min(phases))
        phases[least] += len(group.phases)
        chosen.append(least)
    return tuple(chosen)


def share(groups: Sequence[Group], shards: int, index: int) -> tuple[Group, ...]:
    """The groups of one shard, in plan order; none where there are more shards than variants."""
    return tuple(group for group, of in zip(groups, assign(groups, shards), strict=True) if of == index)
