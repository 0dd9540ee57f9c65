"""What was found good before, to be known again by its bytes."""

from __future__ import annotations

from typing import TypeVar

# A server has few shapes of replies; error texts and lengths that change make ever new ones, which must not fill the memory.
MOST = 256
K = TypeVar("K")
V = TypeVar("V")


class Known(dict[K, V]):
    """A dict that begins anew when MOST are in it."""

    def remember(self, key: K, value: V) -> None:
        """Take one in."""
        if len(self) >= MOST:
            self.clear()
        self[key] = value
