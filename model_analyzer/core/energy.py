"""Joules an inference, with an interval: from the energy counters of the GPUs that count. Formulas: docs/measurement.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import hypot, sqrt

import numpy as np

from model_analyzer.core.gpus import parent
from model_analyzer.core.measurement import Slice
from model_analyzer.core.metric import METRICS
from model_analyzer.core.motion import motion
from model_analyzer.core.reading import MIG_ENERGY, source_of
from model_analyzer.core.repeats import spread_of
from model_analyzer.core.stats import MIN_SLICES, Z975, starts_s
from model_analyzer.core.telemetry import Reading, Series
from model_analyzer.core.wording import counted

COUNTER_NAMES = METRICS["gpu_energy"].sources
BY_POWER = "energy is average power x time"


@dataclass(frozen=True, slots=True)
class Energy:
    """J an inference, and the half-width of its 95 % interval; None: `reason` and `interval_reason` say why."""

    joules: float | None
    half_width: float | None = None
    reason: str = ""
    interval_reason: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Delta:
    """What a counter moved within a slice. every_s: between two of its refreshes."""

    watts: float
    seconds: float
    every_s: float

    @property
    def edge_watts(self) -> float:
        """Standard error of the power, as its time is known to a refresh at either end: uniform, so every_s^2 / 12 each."""
        return self.watts * self.every_s / sqrt(6) / self.seconds


@dataclass(frozen=True, slots=True)
class _Covered:
    """A slice in which the counter of every GPU moved.

    seconds: of the GPU that is covered least. rate: infer/s. start_s, length_s, repeat: the slice's.
    """

    watts: float
    edge_watts: float
    seconds: float
    rate: float
    start_s: float
    length_s: float
    repeat: int


def energy_per_inference(
    slices: Sequence[Slice], gpus: Mapping[str, Mapping[str, Reading]], inferences: int, no_gpu: str
) -> Energy:
    """Energy of all GPUs together over inferences.

    gpus: key -> tag -> reading over all slices. inferences: carried by one request. no_gpu: why there is none.
    """
    if any(parent(key) != key for key in gpus):
        return _absent(MIG_ENERGY)
    covered = _covered(slices, tuple(gpus), inferences)
    if not covered:
        return _by_readings(slices, gpus, inferences, no_gpu)
    if not any(piece.rate for piece in covered):
        return _absent("no inference")
    joules, (half_width, why) = _ratio(covered), _half_width(covered, len({piece.repeat for piece in slices}))
    return Energy(joules, half_width, interval_reason=why, notes=_notes(slices, tuple(gpus), len(covered)))


def _absent(reason: str) -> Energy:
    return Energy(None, None, reason, reason)


def _covered(slices: Sequence[Slice], gpus: Sequence[str], inferences: int) -> list[_Covered]:
    found = []
    for piece, start_s in zip(slices, starts_s([piece.stats for piece in slices]), strict=True):
        known = [delta for key in gpus if (delta := _delta(piece, key)) is not None]
        if not known or len(known) < len(gpus):
            continue
        found.append(
            _Covered(
                sum(delta.watts for delta in known),
                # Added up as they are: GPUs of one exporter are refreshed together.
                sum(delta.edge_watts for delta in known),
                min(delta.seconds for delta in known),
                piece.stats.rate * inferences,
                start_s,
                piece.seconds,
                piece.repeat,
            )
        )
    return found


def _delta(piece: Slice, gpu: str) -> _Delta | None:
    """By the first source whose counter moved between two refreshes inside the slice."""
    for name in COUNTER_NAMES:
        summary = piece.telemetry.get(Series(name, gpu))
        if summary is not None and summary.delta > 0:
            every_s = piece.cadences.get(source_of(name), summary.delta_s / max(summary.fresh - 1, 1))
            return _Delta(summary.delta / summary.delta_s, summary.delta_s, every_s)
    return None


def _ratio(covered: Sequence[_Covered]) -> float:
    """J an inference: a ratio of sums, so that a slice counts by what it covers."""
    return sum(piece.watts * piece.seconds for piece in covered) / sum(piece.rate * piece.seconds for piece in covered)


def _half_width(covered: Sequence[_Covered], repeats: int) -> tuple[float | None, str]:
    """(half-width, "") or (None, why there is none): what slices and repeats show, and what the counters' edges hide."""
    if len(covered) < MIN_SLICES:
        return None, f"no interval: only {counted(len(covered), 'slice')} with a difference of the energy counters"
    parts = [[piece for piece in covered if piece.repeat == repeat] for repeat in {piece.repeat for piece in covered}]
    ratios = [_ratio(part) for part in parts if any(piece.rate for piece in part)]
    if len(ratios) < repeats:
        return None, "no interval: a repeat has no energy per inference of its own"
    whole = _ratio(covered)
    spread = spread_of(ratios, lambda ratio: ratio / whole - 1)
    seen = max(_between_slices(covered), spread.half_width if spread else 0.0)
    return whole * hypot(seen, _edges(covered)), ""


def _between_slices(covered: Sequence[_Covered]) -> float:
    """Half-width by the spread of the slices about the whole, as a share; judged like the throughput, for it drifts, too."""
    joules = sum(piece.watts * piece.seconds for piece in covered)
    whole, k = _ratio(covered), len(covered)
    # The ratio's residuals, around 1: their mean varies as the ratio does (Cochran 1977, 6.3).
    values = [1 + k * piece.seconds * (piece.watts - whole * piece.rate) / joules for piece in covered]
    starts = np.array([piece.start_s for piece in covered])
    shortest_s = 0.5 * min(piece.length_s for piece in covered)
    return motion(np.array(values), starts, np.ones(k), k - 1, shortest_s=shortest_s).half_width


def _edges(covered: Sequence[_Covered]) -> float:
    """Half-width by what is not known of the time at either end of what a slice covers, as a share."""
    joules = sum(piece.watts * piece.seconds for piece in covered)
    return Z975 * sqrt(sum((piece.edge_watts * piece.seconds) ** 2 for piece in covered)) / joules


def _notes(slices: Sequence[Slice], gpus: Sequence[str], covered: int) -> tuple[str, ...]:
    notes = [f"the energy counter of {key} fell in {n} of {len(slices)} slices: it was reset, and is left out there"
             for key in gpus if (n := sum(_fell(piece, key) for piece in slices))]  # fmt: skip
    if covered < len(slices):
        some = f"energy per inference is from {covered} of {len(slices)} slices"
        notes.append(f"{some}: only these have a difference of every GPU's energy counter")
    return tuple(notes)


def _fell(piece: Slice, gpu: str) -> bool:
    summaries = (piece.telemetry.get(Series(name, gpu)) for name in COUNTER_NAMES)
    return _delta(piece, gpu) is None and any(summary is not None and summary.falls for summary in summaries)


def _by_readings(
    slices: Sequence[Slice], gpus: Mapping[str, Mapping[str, Reading]], inferences: int, no_gpu: str
) -> Energy:
    """Where no slice has all counters: each GPU's own energy, or its power x time, over the measured seconds."""
    seconds = sum(piece.seconds for piece in slices)
    joules = 0.0
    powered = False
    for readings in gpus.values():
        energy, power = readings["gpu_energy"].value, readings["gpu_power_usage"].value
        if energy is None and power is not None:
            energy, powered = power * seconds, True
        if energy is None:
            return _absent(readings["gpu_energy"].reason or no_gpu)
        joules += energy
    if not gpus:
        return _absent(no_gpu)
    count = sum(piece.stats.count for piece in slices) * inferences
    if not count:
        return _absent("no inference")
    why = BY_POWER if powered else "no slice has a difference of every GPU's energy counter"
    return Energy(joules / count, None, interval_reason=f"no interval: {why}", notes=(BY_POWER,) if powered else ())
