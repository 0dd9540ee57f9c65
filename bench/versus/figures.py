"""From raw runs to figures: ratios within pairs, medians, spreads, verdicts. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Run = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Goal:
    """What a figure should be. limit: in the figure's unit; at_most: else at least."""

    limit: float
    at_most: bool = True

    def __str__(self) -> str:
        return f"{'≤' if self.at_most else '≥'} {number(self.limit)}"

    def met(self, value: float) -> bool:
        return value <= self.limit if self.at_most else value >= self.limit


@dataclass(frozen=True, slots=True)
class Figure:
    """The median of some values and where they lie. No values: no figure."""

    values: tuple[float, ...]
    goal: Goal | None = None

    @property
    def value(self) -> float | None:
        return statistics.median(self.values) if self.values else None

    @property
    def met(self) -> bool | None:
        """None: there is nothing to judge."""
        return None if self.goal is None or self.value is None else self.goal.met(self.value)

    def verdict(self) -> str:
        """Met, or missed by how much; where the values disagree with the verdict, how many of them do."""
        if self.goal is None:
            return ""
        if self.value is None:
            return "not measured"
        each = [self.goal.met(value) for value in self.values]
        split = "" if len(set(each)) == 1 else f" (met in {sum(each)} of {len(each)})"
        return ("met" if self.met else missed(self.value, self.goal.limit)) + split


def missed(value: float, limit: float) -> str:
    """How far a value is from its limit, as a share of the limit."""
    share = abs(value - limit) / limit if limit else abs(value)
    return f"missed by {share:.0%}" if share >= 0.01 else f"missed by {share:.1%}"


def paired(
    runs: Iterable[Run], ours: str, theirs: str, value: str | Callable[[Run], float | None]
) -> tuple[float, ...]:
    """Our value / theirs for each round in which both have one, in the rounds' order. side: whose run it is."""
    read: Callable[[Run], float | None] = value if callable(value) else lambda run: run.get(str(value))
    rounds: dict[int, dict[str, float | None]] = {}
    for run in runs:
        rounds.setdefault(run["round"], {})[run["side"]] = read(run)
    ratios = []
    for _, sides in sorted(rounds.items()):
        mine, other = sides.get(ours), sides.get(theirs)
        if mine is not None and other:
            ratios.append(mine / other)
    return tuple(ratios)


def values_of(runs: Iterable[Run], side: str, value: str) -> tuple[float, ...]:
    """One side's values, those that are there."""
    return tuple(run[value] for run in runs if run["side"] == side and run.get(value) is not None)


def variation(values: Sequence[float]) -> float | None:
    """Coefficient of variation: standard deviation (n - 1) / mean. None for fewer than three values."""
    if len(values) < 3 or not statistics.fmean(values):
        return None
    return statistics.stdev(values) / statistics.fmean(values)


def row_variations(sweeps: Iterable[Run]) -> dict[str, tuple[float | None, int]]:
    """Name of a row -> CV of its throughput over the sweeps, and in how many of them the row was there."""
    rows: dict[str, list[float]] = {}
    for sweep in sweeps:
        for name, throughput in sweep["rows"].items():
            if throughput is not None:
                rows.setdefault(name, []).append(throughput)
    return {name: (variation(values), len(values)) for name, values in rows.items()}


def number(value: float) -> str:
    """Three significant digits; whole numbers from 100 on with a space between thousands."""
    if value and abs(value) < 0.001:
        return f"{value:.2g}"
    if abs(value) >= 99.95:
        return f"{value:,.0f}".replace(",", " ")
    digits = 1 if abs(value) >= 9.995 else 2 if abs(value) >= 0.9995 else 3
    text = f"{value:.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def spread(values: Sequence[float]) -> str:
    """Smallest to largest."""
    if not values:
        return "-"
    low, high = number(min(values)), number(max(values))
    return low if low == high else f"{low} - {high}"
