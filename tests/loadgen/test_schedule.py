"""Send times are a pure function of rate, distribution and seed."""

from __future__ import annotations

from itertools import islice, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_analyzer.loadgen.schedule import send_times_ns, slot_times_ns

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


MILLISECONDS = 1_000_000
# perf_analyzer's own example of a file of intervals.
EXAMPLE_NS = (100 * MILLISECONDS, 200 * MILLISECONDS, 500 * MILLISECONDS)


def repeated(count: int, intervals_ns: tuple[int, ...], seed: int = 0) -> list[int]:
    return list(islice(send_times_ns(1.0, "intervals", seed, intervals_ns), count))


def test_intervals_go_round_and_round_as_in_perf_analyzer() -> None:
    # Its documentation: "at the following times: 0.1s, 0.3s, 0.8s, 0.9s, 1.1s, 1.6s".
    assert [time // MILLISECONDS for time in repeated(6, EXAMPLE_NS)] == [100, 300, 800, 900, 1100, 1600]


def test_intervals_do_not_drift() -> None:
    assert repeated(300_001, EXAMPLE_NS)[-1] == 100_000 * 800 * MILLISECONDS + 100 * MILLISECONDS


def test_intervals_of_nothing_are_sent_at_once() -> None:
    assert repeated(4, (0, 0, 5)) == [0, 0, 5, 5]


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=20).filter(any), st.integers(0, 1000))
def test_each_seed_begins_at_its_own_place_of_the_round_and_keeps_the_pattern(intervals: list[int], seed: int) -> None:
    times = repeated(3 * len(intervals), tuple(intervals), seed)
    gaps = [b - a for a, b in pairwise(times)]
    assert 0 <= times[0] <= max(intervals)
    assert any(gaps == ((intervals * 4)[n : n + len(gaps)]) for n in range(len(intervals)))


def test_slices_see_all_of_a_long_file() -> None:
    # Each interval is of its own length, so that the gap after the first request says where a slice began.
    intervals = tuple(range(1, 101))
    begins = sorted(second - first for first, second in (repeated(2, intervals, seed) for seed in range(20)))
    assert len(set(begins)) >= 18
    # In time, not in lines: long intervals are met more often. None of the twelve parts of the round is left out.
    ends = [sum(intervals[:begin]) for begin in begins]
    assert {12 * end // (sum(intervals) + 1) for end in ends} == set(range(12))


@given(RATES, st.sampled_from(["constant", "poisson", "intervals"]), st.integers(0, 100), st.integers(1, 10**11))
def test_a_ramp_sends_half_as_much_and_then_keeps_the_schedule(
    rate: float, distribution: str, seed: int, ramp_ns: int
) -> None:
    plain = list(islice(send_times_ns(rate, distribution, seed, EXAMPLE_NS), 50))
    ramped = list(islice(send_times_ns(rate, distribution, seed, EXAMPLE_NS, ramp_ns), 50))
    half = ramp_ns // 2
    assert all(a <= b for a, b in pairwise(ramped))
    for before, after in zip(plain, ramped, strict=True):
        if before >= half:
            assert after == before + half
        else:
            # n(t) = rate t^2 / (2 ramp): where the full rate is at n, the ramp is at the same n later.
            assert before == pytest.approx(after**2 / (2 * ramp_ns), rel=1e-6, abs=2)


def test_a_ramp_grows_linearly() -> None:
    times = list(islice(send_times_ns(1000.0, "constant", 0, (), 10 * 10**9), 6000))
    counts = [sum(1 for time in times if second <= time / 1e9 < second + 1) for second in range(11)]
    # The rate in second n is between n and n + 1 tenths of 1000; from 10 s on it is whole.
    assert counts == pytest.approx([50 + 100 * n for n in range(10)] + [1000], abs=1)


def test_a_closed_loop_begins_at_once_or_over_its_ramp() -> None:
    assert list(slot_times_ns(3)) == [0, 0, 0]
    assert list(slot_times_ns(4, 100)) == [0, 25, 50, 75]
    # Those that share a connection begin together.
    assert list(slot_times_ns(6, 60, together=2)) == [0, 0, 20, 20, 40, 40]
