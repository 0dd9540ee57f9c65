"""Which phases to measure next, as ask and tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from model_analyzer.core.measurement import Measurement
from model_analyzer.core.plan import Group


class Search(Protocol):
    """Names groups of phases one after the other and learns from their measurements."""

    def ask(self) -> Group | None:
        """The next group to measure, or None when there is nothing left to learn."""
        ...

    def tell(self, measurements: Sequence[Measurement]) -> None:
        """The measurements of the group asked last."""
        ...


class Sweep:
    """The simplest search: every group in order, without what is measured already; then all again for each repeat.

    Not each group so often at once: repeats of a phase are to lie far apart in time, as a machine changes over minutes.
    """

    def __init__(self, groups: Sequence[Group], done: Mapping[str, int] = {}, repeats: int = 1) -> None:
        """done: phase id -> how many of its repeats are measured already."""
        self._left = [
            group
            for repeat in range(repeats)
            for each in groups
            if (
                group := Group(each.variant, tuple(p for p in each.phases if done.get(p.id, 0) <= repeat), repeat)
            ).phases
        ]

    @property
    def left(self) -> tuple[Group, ...]:
        """What is still to be asked, in order."""
        return tuple(self._left)

    def ask(self) -> Group | None:
        """The next group with a phase left to measure."""
        return self._left.pop(0) if self._left else None

    def tell(self, measurements: Sequence[Measurement]) -> None:
        """What failed or makes no sense is not repeated; beyond that a fixed sweep learns nothing."""
        over = {m.phase.id for m in measurements if m.status in ("failed", "skipped")}
        if over:
            left = (replace(group, phases=tuple(p for p in group.phases if p.id not in over)) for group in self._left)
            self._left = [group for group in left if group.phases]
