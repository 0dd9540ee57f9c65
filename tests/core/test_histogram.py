from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_analyzer.core.histogram import RESOLUTION, Histogram

HUGE_NS = (1 << 53) - 1  # 104 days
Latencies = st.lists(st.integers(0, HUGE_NS) | st.integers(0, 1000) | st.integers(10**5, 10**8), max_size=60)


def of(values: list[int]) -> Histogram:
    return Histogram.of(np.array(values, np.int64))


def same(one: Histogram, other: Histogram) -> bool:
    return one.to_json() == other.to_json()


class TestExactFigures:
    @given(Latencies)
    def test_count_sum_minimum_and_maximum_are_exact(self, values: list[int]) -> None:
        histogram = of(values)
        assert (histogram.count, histogram.sum_ns) == (len(values), sum(values))
        assert (histogram.min_ns, histogram.max_ns) == ((min(values), max(values)) if values else (None, None))
        assert int(histogram.counts.sum()) == len(values)

    def test_the_mean_is_exact(self) -> None:
        assert of([1_000_000, 1_000_001, 1_000_005]).mean_ns == 1_000_002

    def test_no_latency_has_no_figures(self) -> None:
        empty = of([])
        assert (empty.count, empty.sum_ns, empty.mean_ns, empty.percentile_ns(0.5), empty.ranked_ns(1)) == (
            0,
            0,
            None,
            None,
            None,
        )


class TestPercentiles:
    @given(Latencies.filter(bool), st.sampled_from([0.5, 0.9, 0.95, 0.99]))
    def test_within_a_bucket_of_the_nearest_rank(self, values: list[int], q: float) -> None:
        found = of(values).percentile_ns(q)
        exact = np.quantile(np.array(values, np.int64), q, method="inverted_cdf")
        assert found == pytest.approx(float(exact), rel=RESOLUTION, abs=0.5)

    @pytest.mark.parametrize(("q", "enough"), [(0.5, 2), (0.9, 10), (0.95, 20), (0.99, 100)])
    def test_without_samples_beyond_it_a_percentile_is_the_maximum(self, q: float, enough: int) -> None:
        assert of(list(range(1, enough))).percentile_ns(q) == enough - 1
        assert of(list(range(1, enough + 1))).percentile_ns(q) == enough - 1

    def test_nearest_rank_by_hand(self) -> None:
        # 1 ... 100: values below 128 have a bucket of their own.
        histogram = of(list(range(1, 101)))
        assert [histogram.percentile_ns(q) for q in (0.5, 0.9, 0.95, 0.99)] == [50, 90, 95, 99]

    def test_one_hundred_and_one_samples_take_the_hundredth(self) -> None:
        assert of(list(range(1, 102))).percentile_ns(0.99) == 100

    @given(Latencies.filter(bool))
    def test_percentiles_never_leave_the_range_and_never_fall(self, values: list[int]) -> None:
        histogram = of(values * 100)
        found = [histogram.percentile_ns(q) for q in (0.5, 0.9, 0.95, 0.99)]
        assert all(value is not None and min(values) <= value <= max(values) for value in found)
        assert found == sorted(found, key=lambda value: value or 0)

    def test_all_equal_is_that_value_exactly(self) -> None:
        assert of([123_456_789] * 1000).percentile_ns(0.99) == 123_456_789

    def test_ranks_beyond_the_ends_are_the_ends(self) -> None:
        histogram = of([10, 20, 30])
        assert [histogram.ranked_ns(rank) for rank in (-5, 0, 1, 2, 3, 9)] == [10, 10, 10, 20, 30, 30]

    def test_a_latency_beyond_104_days_is_kept_as_the_maximum(self) -> None:
        beyond = of([1_000, 1 << 60, 1 << 60])
        assert beyond.max_ns == 1 << 60
        assert beyond.ranked_ns(2) == pytest.approx(HUGE_NS, rel=RESOLUTION)

    @given(st.integers(0, HUGE_NS))
    def test_every_value_is_within_half_a_bucket_of_its_buckets_middle(self, value: int) -> None:
        # Between two far ends, so that the exact minimum and maximum do not help.
        assert of([0, value, HUGE_NS]).ranked_ns(2) == pytest.approx(value, rel=RESOLUTION, abs=0.5)

    @pytest.mark.parametrize(("values", "deviation"), [([], 0), ([7], 0), ([5, 5, 5], 0), ([10, 20, 30], 10)])
    def test_the_standard_deviation_of_small_values_is_exact(self, values: list[int], deviation: float) -> None:
        assert of(values).deviation_ns == pytest.approx(deviation)

    def test_the_standard_deviation_of_large_values_is_that_of_their_buckets(self) -> None:
        values = np.random.default_rng(1).gamma(4, 1e6, 10_000).astype(np.int64)
        assert of(values.tolist()).deviation_ns == pytest.approx(float(values.std(ddof=1)), rel=RESOLUTION)


class TestMerge:
    @given(st.lists(Latencies, max_size=6))
    def test_parts_merge_to_the_whole(self, parts: list[list[int]]) -> None:
        whole = of([value for part in parts for value in part])
        assert same(Histogram.merge(of(part) for part in parts), whole)

    @given(Latencies, Latencies, Latencies)
    def test_the_order_of_merging_does_not_matter(self, a: list[int], b: list[int], c: list[int]) -> None:
        one, two, three = of(a), of(b), of(c)
        left = Histogram.merge([Histogram.merge([one, two]), three])
        assert same(left, Histogram.merge([three, Histogram.merge([two, one])]))

    def test_nothing_merges_to_nothing(self) -> None:
        assert same(Histogram.merge([]), of([]))


class TestJson:
    @given(Latencies)
    def test_round_trip_through_text(self, values: list[int]) -> None:
        histogram = of(values)
        again = Histogram.from_json(json.loads(json.dumps(histogram.to_json())))
        assert same(again, histogram)
        assert again.percentile_ns(0.5) == histogram.percentile_ns(0.5)

    def test_is_compact(self) -> None:
        rng = np.random.default_rng(3)
        histogram = Histogram.of(rng.lognormal(16, 0.5, 100_000).astype(np.int64))
        assert len(json.dumps(histogram.to_json())) < 3000


@given(st.lists(st.lists(st.integers(1, 10**9), min_size=60, max_size=90), min_size=3, max_size=5))
def test_percentiles_without_one_part_are_those_of_the_other_parts(values: list[list[int]]) -> None:
    parts = [Histogram.of(np.array(each, np.int64)) for each in values]
    found = Histogram.left_out_ns(parts, 0.95)
    for n, without in enumerate(found):
        expected = Histogram.merge(parts[:n] + parts[n + 1 :]).percentile_ns(0.95)
        assert without == pytest.approx(expected, rel=2 * RESOLUTION)
