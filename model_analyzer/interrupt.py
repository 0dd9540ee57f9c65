"""SIGINT and SIGTERM as an exception that comes once: what follows is the clean-up, which no second signal breaks."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from model_analyzer.errors import Interrupted

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruption:
    """What one `interruptible` block knows of signals. hurry: called at the first one, before the clean-up begins."""

    def __init__(self) -> None:
        self.hurry: Callable[[], None] | None = None
        self._signum: int | None = None

    def check(self) -> None:
        """Raise Interrupted again where a signal came: an exception raised within a destructor is lost."""
        if self._signum is not None:
            raise Interrupted(self._signum)

    def handle(self, signum: int, _: FrameType | None) -> None:
        """Raise Interrupted; ignore all later signals."""
        for one in SIGNALS:
            signal.signal(one, signal.SIG_IGN)
        self._signum = signum
        if self.hurry is not None:
            self.hurry()
        raise Interrupted(signum)


@contextmanager
def interruptible() -> Iterator[Interruption]:
    """Raise Interrupted in the main thread at the first SIGINT or SIGTERM.

    The handlers of before come back only where none came: an interrupted process has nothing left to do but to end.
    """
    interruption = Interruption()
    before = {one: signal.signal(one, interruption.handle) for one in SIGNALS}
    try:
        yield interruption
    finally:
        for one, handler in before.items():
            if signal.getsignal(one) == interruption.handle:
                signal.signal(one, handler)
