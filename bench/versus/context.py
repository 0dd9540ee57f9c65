"""What every part of the benchmark is given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.versus.rivals import Rivals
from bench.versus.server import Shared


@dataclass(frozen=True, slots=True)
class Context:
    """folder: scratch, removed at the end. say: a line of progress. quick: see that it works; the figures are worth nothing.

    keep: is given each run's record as soon as it is there, so that an interrupted part has not measured for nothing.
    """

    server: Shared
    rivals: Rivals
    folder: Path
    say: Callable[[str], None]
    quick: bool
    keep: Callable[[Mapping[str, Any]], None] = lambda _record: None
