"""The line in a pod's termination message where the exit code is 4 or 5."""

from __future__ import annotations

from dataclasses import replace

from adapters.measured import measured, phase

from model_analyzer.adapters.tables import Layout
from model_analyzer.core.reduce import failed
from model_analyzer.wire import exit_code, verdict

FIELDS = ("model_name",)
LAYOUT = Layout(FIELDS, FIELDS, FIELDS, "i.csv", "g.csv", "s.csv", {})


def test_failed_phases_are_counted_and_the_first_reason_given() -> None:
    rows = [measured(phase()), failed(phase("bad", 2), "weights.bin\n  is missing"), failed(phase("bad", 4), "as well")]
    assert exit_code(rows, LAYOUT) == 4
    assert verdict(rows, LAYOUT) == [
        "2 of 3 phases failed, the first one bad_config_default batch 2 concurrency 1: weights.bin is missing"
    ]


def test_constraints_that_nothing_satisfies_are_told() -> None:
    layout = replace(LAYOUT, constraints={"m": {"perf_latency_p99": {"max": 0.001}}})
    assert exit_code([measured(phase())], layout) == 5
    assert verdict([measured(phase())], layout) == [
        "none of 1 phases satisfies the constraints; the tables show by how much"
    ]


def test_a_good_end_has_no_message() -> None:
    assert verdict([measured(phase())], LAYOUT) == []
