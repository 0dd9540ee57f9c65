"""The model of a moving level against its textbook form in whole matrices, and what it says of known series."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_analyzer.core.motion import HOLDS_S, SHARES, Floats, Motion, both_tails, motion


def regular(values: Floats, step_s: float = 0.1, dof: int = 30) -> Motion:
    n = len(values)
    return motion(values, np.arange(n) * step_s, np.full(n, step_s), dof)


def autoregression(n: int, fade: float, rng: np.random.Generator) -> Floats:
    values = [float(rng.standard_normal())]
    for _ in range(n - 1):
        values.append(fade * values[-1] + float(rng.standard_normal()) * (1 - fade * fade) ** 0.5)
    return np.array(values)


def test_agrees_with_generalised_least_squares_in_matrices() -> None:
    rng = np.random.default_rng(3)
    times = np.cumsum(rng.uniform(0.1, 2.0, 9))
    lengths = rng.uniform(0.1, 0.4, 9)
    values = rng.normal(50, 4, 9)
    weights, apart = lengths / lengths.sum(), np.abs(np.subtract.outer(times, times))
    scores, spreads = [], []
    grid = [(hold, share) for hold in HOLDS_S for share in SHARES] + [(1.0, 0.0)]
    for hold, share in grid:
        covariance = share * np.exp(-apart / hold) + np.diag((1 - share) * lengths.mean() / lengths)
        inverse = np.linalg.inv(covariance)
        ones = np.ones(9)
        level = (ones @ inverse @ values) / (ones @ inverse @ ones)
        square = (values - level) @ inverse @ (values - level)
        prior = len(grid) - 1 if share == 0 else 1
        determinants = np.linalg.slogdet(covariance)[1] + np.log(ones @ inverse @ ones)
        scores.append(np.log(prior) - determinants / 2 - 4 * np.log(square))
        spreads.append(np.sqrt(weights @ covariance @ weights * square / 8))
    expected = np.exp(np.array(scores) - max(scores))

    found = motion(values, times, lengths, 5)

    assert found.mean == pytest.approx(weights @ values)
    assert found.weight == pytest.approx(expected / expected.sum(), rel=1e-5)
    assert found.spread == pytest.approx(np.array(spreads), rel=1e-6)
    outside = (found.weight * both_tails(found.half_width / found.spread, 5)).sum()
    assert outside == pytest.approx(0.05, abs=1e-6), "the interval leaves out 5 % of the mixture"


class TestKnownSeries:
    def test_noise_is_taken_for_steady_and_worth_most_of_its_values(self) -> None:
        found = regular(100 + np.random.default_rng(1).standard_normal(100))
        assert found.steady > 0.4
        assert found.pieces > 20
        assert found.half_width < 2 * 2.0 * 0.1, "at most twice what independent values would give"

    def test_a_slow_move_is_seen_and_makes_the_series_worth_little(self) -> None:
        found = regular(100 + autoregression(100, float(np.exp(-0.1 / 2)), np.random.default_rng(2)))
        assert found.steady < 0.01
        assert found.pieces < 15
        assert 0.5 < found.hold_s < 10
        assert 0.3 < found.moving_sd < 2

    def test_a_trend_is_worth_less_than_its_values_in_any_order(self) -> None:
        trend = np.linspace(95, 105, 60)
        shuffled = np.random.default_rng(5).permutation(trend)
        assert regular(trend).steady < 1e-6
        assert regular(trend).pieces < regular(shuffled).pieces / 5
        assert regular(trend).half_width > regular(shuffled).half_width

    def test_equal_values_have_next_to_no_width(self) -> None:
        assert regular(np.full(20, 7.0)).half_width < 1e-6

    def test_a_clock_that_went_back_makes_what_follows_independent(self) -> None:
        level = np.repeat([95.0, 105.0], 10) + np.random.default_rng(4).standard_normal(20) / 10
        close, lengths = np.arange(20) * 0.5, np.full(20, 0.5)
        restarted = np.concatenate([close[:10] + 1000, close[10:]])
        assert motion(level, close, lengths, 19).spread[-1] == motion(level, restarted, lengths, 19).spread[-1]
        assert np.isfinite(motion(level, restarted, lengths, 19).half_width)

    def test_moves_shorter_than_the_resolution_are_noise(self) -> None:
        values = 100 + np.random.default_rng(6).standard_normal(12)
        found = motion(values, np.arange(12) * 5.0, np.full(12, 5.0), 11, shortest_s=2.5)
        assert len(found.weight) == len(SHARES) * sum(hold >= 2.5 for hold in HOLDS_S) + 1

    def test_what_is_believed_beforehand_counts(self) -> None:
        values = 100 + np.random.default_rng(7).standard_normal(8)
        times, lengths = np.arange(8) * 0.8, np.full(8, 0.5)
        doubtful, sure = (motion(values, times, lengths, 7, odds) for odds in (0.05, 20.0))
        assert doubtful.steady < sure.steady
        assert doubtful.half_width > sure.half_width

    @given(st.lists(st.floats(0, 1e9), min_size=2, max_size=30))
    def test_is_finite_whatever_the_values(self, values: list[float]) -> None:
        found = regular(np.array(values))
        assert np.isfinite(found.half_width)
        assert found.half_width >= 0


@pytest.mark.parametrize(
    ("dof", "quantile"),
    [(1, 12.7062), (2, 4.3027), (3, 3.1824), (4, 2.7764), (5, 2.5706), (30, 2.0423), (60, 2.0003)],
)
def test_the_tails_of_students_t_are_those_of_the_tables(dof: int, quantile: float) -> None:
    assert both_tails(np.array([quantile]), dof)[0] == pytest.approx(0.05, abs=1e-5)
    assert both_tails(np.array([0.0]), dof)[0] == pytest.approx(1)
