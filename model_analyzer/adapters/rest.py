"""Work that is repeated as a run goes on, held to a small share of its time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic


class Rest:
    """share: how much of the time the work may take. short_s: work that takes no longer is done each time."""

    def __init__(self, share: float, short_s: float, now: Callable[[], float] = monotonic) -> None:
        self._share, self._short_s, self._now = share, short_s, now
        self._until = float("-inf")

    def is_over(self) -> bool:
        """Whether the work may be done again."""
        return self._now() >= self._until

    @contextmanager
    def after(self) -> Iterator[None]:
        """The work; then rest for as long as makes it that share of the time."""
        began = self._now()
        yield
        ended = self._now()
        if ended - began > self._short_s:
            self._until = ended + (ended - began) * (1 / self._share - 1)
