"""The benchmark's arithmetic: pairs, medians, verdicts, numbers on a page."""

from __future__ import annotations

import pytest

from bench.versus.figures import Figure, Goal, missed, number, paired, row_variations, spread, variation


def run(number: int, side: str, **values: float | None) -> dict[str, object]:
    return {"round": number, "side": side, **values}


def test_a_ratio_is_formed_within_each_round() -> None:
    runs = [run(1, "a", x=1.0), run(1, "b", x=2.0), run(2, "b", x=8.0), run(2, "a", x=2.0)]
    assert paired(runs, "a", "b", "x") == (0.5, 0.25)


def test_a_round_in_which_one_side_failed_is_no_pair() -> None:
    runs = [
        run(1, "a", x=1.0),
        run(1, "b"),
        run(2, "a", x=None),
        run(2, "b", x=2.0),
        run(3, "a", x=3.0),
        run(3, "b", x=2.0),
    ]
    assert paired(runs, "a", "b", "x") == (1.5,)


def test_the_figure_is_the_median_of_the_pairs() -> None:
    assert Figure((0.9, 0.3, 0.4)).value == 0.4
    assert Figure(()).value is None


@pytest.mark.parametrize(
    ("values", "goal", "verdict"),
    [
        ((0.3, 0.35), Goal(0.4), "met"),
        ((0.3, 0.35, 0.5), Goal(0.4), "met (met in 2 of 3)"),
        ((0.6,), Goal(0.4), "missed by 50%"),
        ((0.9,), Goal(1.0, at_most=False), "missed by 10%"),
        ((1.0,), Goal(1.0, at_most=False), "met"),
        ((0.401,), Goal(0.4), "missed by 0.3%"),
        ((), Goal(0.4), "not measured"),
        ((0.4,), None, ""),
    ],
)
def test_a_verdict_says_by_how_much_and_where_the_pairs_disagree(
    values: tuple[float, ...], goal: Goal | None, verdict: str
) -> None:
    assert Figure(values, goal).verdict() == verdict


def test_a_goal_of_nothing_is_missed_by_the_value_itself() -> None:
    assert missed(0.5, 0.0) == "missed by 50%"


def test_the_variation_needs_three_values() -> None:
    assert variation([1.0, 2.0]) is None
    assert variation([90.0, 100.0, 110.0]) == pytest.approx(0.1)


def test_rows_that_a_sweep_left_out_are_counted() -> None:
    sweeps = [{"rows": {"a": 90.0, "b": 5.0}}, {"rows": {"a": 100.0, "b": None}}, {"rows": {"a": 110.0}}]
    assert row_variations(sweeps) == {"a": (pytest.approx(0.1), 3), "b": (None, 1)}


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (0.00012, "0.00012"), (0.3333, "0.333"), (0.4, "0.4"), (1.0, "1"), (1.234, "1.23"), (9.999, "10"), (44.75, "44.8"),
     (99.97, "100"), (12345.6, "12 346"), (-2.5, "-2.5")],
)  # fmt: skip
def test_numbers_have_three_digits(value: float, text: str) -> None:
    assert number(value) == text


def test_a_spread_that_rounds_to_one_number_is_that_number() -> None:
    assert spread([0.30001, 0.30002]) == "0.3"
    assert spread([0.5, 0.25]) == "0.25 - 0.5"
    assert spread([]) == "-"
