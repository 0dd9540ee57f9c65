"""What every part of the benchmark is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.versus.rivals import Rivals
from bench.versus.server import Shared


@dataclass(frozen=True, slots=True)
class Context:
    """folder: scratch, removed at the end. say: a line of progress. quick: see that it works; the figures are worth nothing."""

    server: Shared
    rivals: Rivals
    folder: Path
    say: Callable[[str], None]
    quick: bool
