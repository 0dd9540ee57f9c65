"""Which phases to measure next, as ask and tell."""

from __future__ import annotations

from collections.abc import Container, Sequence
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
    """The simplest search: every group in order, without the phases that are measured already."""

    def __init__(self, groups: Sequence[Group], measured: Container[str] = ()) -> None:
        left = (Group(g.variant, tuple(p for p in g.phases if p.id not in measured)) for g in groups)
        self._left = [group for group in left if group.phases]

    def ask(self) -> Group | None:
        """The next group with a phase left to measure."""
        return self._left.pop(0) if self._left else None

    def tell(self, measurements: Sequence[Measurement]) -> None:
        """A fixed sweep learns nothing."""
