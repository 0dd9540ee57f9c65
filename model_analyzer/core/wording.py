"""How figures stand in sentences."""

from __future__ import annotations


def counted(count: int, one: str, many: str | None = None) -> str:
    """`1 slice`, `3 slices`, `2 replies`. many: where it is more than `one` with an s."""
    return f"{count} {one if count == 1 else many or one + 's'}"


def figure(value: float) -> str:
    """A measured value, to four digits: `8.541`, `20`; never as a power of ten, so from 1000 on whole: `20000`."""
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"
