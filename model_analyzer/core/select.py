"""Which measurements satisfy the constraints of the job spec."""

from __future__ import annotations

from collections.abc import Mapping

from model_analyzer.core.measurement import Measurement
from model_analyzer.core.metric import METRICS

# metric tag -> {"min" | "max": bound in the metric's table unit, as in Triton Model Analyzer (ms, MB, %)}
Constraints = Mapping[str, Mapping[str, float]]


def satisfies(measurement: Measurement, constraints: Constraints) -> bool | None:
    """Whether every bound holds; None where the phase has no figures to hold against them.

    A metric that could not be measured does not satisfy a bound on it.
    """
    if measurement.values.get("perf_throughput") is None or measurement.status in ("failed", "skipped"):
        return None
    return all(_holds(_value(measurement, tag), bounds) for tag, bounds in constraints.items())


def _value(measurement: Measurement, tag: str) -> float | None:
    """In the unit of the tables."""
    value = measurement.values.get(tag)
    if value is None and tag in measurement.host:
        value = measurement.host[tag].value
    return None if value is None else value * METRICS[tag].scale


def _holds(value: float | None, bounds: Mapping[str, float]) -> bool:
    if value is None:
        return False
    return bounds.get("min", value) <= value <= bounds.get("max", value)
