from __future__ import annotations

import numpy as np
import pytest

from model_analyzer.core.histogram import Histogram
from model_analyzer.core.warmup import least_warmup_s, start_offset, warmed_up


class TestWarmedUp:
    def test_four_windows_are_the_least(self) -> None:
        assert not warmed_up([100, 100, 100], 1)
        assert warmed_up([100, 100, 100, 100], 1)

    def test_no_completion_is_no_steady_load(self) -> None:
        assert not warmed_up([0] * 20, 1)

    def test_a_rise_is_not_settled_until_it_ends(self) -> None:
        rise = [100, 200, 400, 800, 1600, 1600, 1600, 1600]
        assert [warmed_up(rise[:n], 1) for n in range(4, 9)] == [False, False, False, False, True]

    @pytest.mark.parametrize(("last", "settled"), [(1150, True), (1170, False)])
    def test_groups_may_differ_by_fifteen_percent_of_their_average(self, last: int, settled: bool) -> None:
        assert warmed_up([500, 500, last // 2, last - last // 2], 1) is settled

    def test_few_completions_may_differ_as_much_as_chance_lets_them(self) -> None:
        assert warmed_up([1, 1, 3, 2], 1)
        assert not warmed_up([1, 0, 8, 9], 1)

    def test_every_place_of_the_loop_comes_back_twice(self) -> None:
        assert not warmed_up([4, 4, 4, 4], 16)
        assert warmed_up([8, 8, 8, 8], 16)

    def test_what_was_long_ago_does_not_matter(self) -> None:
        assert warmed_up([0, 0, 0, 5000, 100, 100, 100, 100], 1)


class TestLeastWarmup:
    def test_nothing_known_asks_for_nothing(self) -> None:
        assert least_warmup_s(Histogram.of(np.empty(0, np.int64))) == 0

    def test_lasts_as_long_as_the_slow_requests(self) -> None:
        latency_ns = np.array([10_000_000] * 98 + [900_000_000] * 2, np.int64)
        assert least_warmup_s(Histogram.of(latency_ns)) == pytest.approx(0.9, rel=0.004)

    def test_of_few_replies_the_slowest_counts(self) -> None:
        assert least_warmup_s(Histogram.of(np.array([10, 700_000_000], np.int64))) == pytest.approx(0.7, rel=0.004)


class TestStartOffset:
    @pytest.mark.parametrize("slices", [4, 8, 20])
    def test_starts_are_spread_evenly_over_the_period(self, slices: int) -> None:
        points = np.sort([start_offset(number) for number in range(slices)])
        gaps = np.diff([*points, points[0] + 1])
        assert points[0] >= 0
        assert points[-1] < 1
        assert gaps.max() < 2.7 / slices, "an even spread has 1 / slices"
        assert gaps.min() > 0.3 / slices
