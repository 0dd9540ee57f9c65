"""How a run ends: the exit code, and the line in a pod's termination message where it is 4 or 5."""

from __future__ import annotations

from adapters.measured import measured, phase

from model_analyzer.core.ending import ending
from model_analyzer.core.reduce import failed


def test_failed_phases_are_counted_and_the_first_reason_given() -> None:
    rows = [measured(phase()), failed(phase("bad", 2), "weights.bin\n  is missing"), failed(phase("bad", 4), "as well")]
    why = "2 of 3 phases failed, the first one bad_config_default batch 2 concurrency 1: weights.bin is missing"
    assert ending(iter(rows), {}) == (4, [why])


def test_constraints_that_nothing_satisfies_are_told() -> None:
    bounds = {"m": {"perf_latency_p99": {"max": 0.001}}}
    assert ending(iter([measured(phase())]), bounds) == (
        5,
        ["none of 1 phases satisfies the constraints; the tables show by how much"],
    )


def test_one_model_within_its_constraints_is_enough() -> None:
    rows = [measured(phase()), measured(phase("other"))]
    assert ending(iter(rows), {"m": {"perf_latency_p99": {"max": 0.001}}}) == (0, [])


def test_a_good_end_has_no_message() -> None:
    assert ending(iter([measured(phase())]), {}) == (0, [])
