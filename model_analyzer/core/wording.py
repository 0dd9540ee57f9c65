"""How figures, and what others said, stand in sentences."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlsplit


def counted(count: int, one: str, many: str | None = None) -> str:
    """`1 slice`, `3 slices`, `2 replies`. many: where it is more than `one` with an s."""
    return f"{count} {one if count == 1 else many or one + 's'}"


def figure(value: float) -> str:
    """A measured value, to four digits: `8.541`, `20`; never as a power of ten, so from 1000 on whole: `20000`."""
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def told_together(empty: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Why cells are empty, from (header, reason): reason -> `header, header: reason`, in the order of the first of each."""
    headers: dict[str, list[str]] = {}
    for header, why in empty:
        headers.setdefault(why, []).append(header)
    return {why: f"{', '.join(names)}: {why}" for why, names in headers.items()}


def printable(text: str) -> str:
    """What somebody else said, as one line without control characters."""
    return " ".join("".join(each if each.isprintable() else " " for each in text).split())


def without_secrets(url: str) -> str:
    """The URL without the name and password in it; without all before the last @ where a password broke it, by a `/` of its own."""
    scheme, mark, rest = url.partition("://")
    try:
        _ = urlsplit(url).port
    except ValueError:
        return f"{scheme}{mark}{rest.rpartition('@')[2]}"
    host, slash, path = rest.partition("/")
    return f"{scheme}{mark}{host.rpartition('@')[2]}{slash}{path}"
