"""How figures stand in sentences."""

from __future__ import annotations

import pytest

from model_analyzer.core.wording import counted, figure, told_together


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (counted(1, "slice"), "1 slice"),
        (counted(0, "slice"), "0 slices"),
        (counted(20_000, "reply", "replies"), "20000 replies"),
        (figure(8.5412), "8.541"),
        (figure(20.0), "20"),
        (figure(20_000.0), "20000"),
        (figure(1_234_567.8), "1234568"),
        (figure(999.96), "1000"),
    ],
)
def test_counts_are_whole_and_rates_no_powers_of_ten(said: str, expected: str) -> None:
    assert said == expected


def test_equal_reasons_are_told_together() -> None:
    empty = [("p50", "no reply"), ("Energy", "no counter"), ("p99", "no reply")]
    assert told_together(empty) == {"no reply": "p50, p99: no reply", "no counter": "Energy: no counter"}
