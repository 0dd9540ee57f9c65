"""Send times are a pure function of rate, distribution and seed."""

from __future__ import annotations

from itertools import islice, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_analyzer.loadgen.schedule import send_times_ns

RATES = st.floats(min_value=0.01, max_value=1e6)


def first(count: int, rate: float, distribution: str, seed: int = 0) -> list[int]:
    return list(islice(send_times_ns(rate, distribution, seed), count))


@pytest.mark.parametrize(
    ("rate", "times"),
    [
        (1.0, [0, 1_000_000_000, 2_000_000_000]),
        (1000.0, [0, 1_000_000, 2_000_000]),
        (3.0, [0, 333_333_333, 666_666_667]),
        (0.5, [0, 2_000_000_000, 4_000_000_000]),
    ],
)
def test_constant_times_are_evenly_spaced(rate: float, times: list[int]) -> None:
    assert first(3, rate, "constant") == times


def test_constant_times_do_not_drift() -> None:
    # 1e9 / 7 is no whole number of ns: an interval that is added up would be off by 60 us after 420,000 sends.
    *_, last = first(420_001, 7.0, "constant")
    assert last == 60_000_000_000_000


@given(RATES, st.sampled_from(["constant", "poisson"]), st.integers(0, 2**32))
def test_equal_arguments_give_equal_times_that_never_go_back(rate: float, distribution: str, seed: int) -> None:
    times = first(50, rate, distribution, seed)
    assert times == first(50, rate, distribution, seed)
    assert times[0] >= 0
    assert all(a <= b for a, b in pairwise(times))


def test_the_seed_changes_poisson_times_and_leaves_constant_ones() -> None:
    assert first(5, 10.0, "poisson", 1) != first(5, 10.0, "poisson", 2)
    assert first(5, 10.0, "constant", 1) == first(5, 10.0, "constant", 2)


def test_poisson_gaps_are_exponential_with_the_rates_mean() -> None:
    times = first(20_001, 100.0, "poisson", 3)
    gaps = [(b - a) / 1e9 for a, b in pairwise(times)]
    mean = sum(gaps) / len(gaps)
    variance = sum((gap - mean) ** 2 for gap in gaps) / len(gaps)
    # Of an exponential the standard deviation is the mean, and 1/e of the gaps are longer than it.
    assert mean == pytest.approx(0.01, rel=0.03)
    assert variance**0.5 == pytest.approx(0.01, rel=0.05)
    assert sum(gap > 0.01 for gap in gaps) / len(gaps) == pytest.approx(0.3679, abs=0.015)
