"""Each trouble, made on purpose, brings its remark and no other; a steady phase brings none."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import queues
from queues import Server, Speed

from model_analyzer.core.histogram import Histogram
from model_analyzer.core.remarks import find_modes, remarks, still_filling
from model_analyzer.core.stats import SliceStats

SECOND_NS = 1_000_000_000
MS_NS = 1_000_000


# A table has hundreds of rows: a remark is a clause, and the page explains it.
MOST_CHARACTERS = 170


def slices_of_rates(*rates: int) -> list[SliceStats]:
    """Slices of 1 s in ten windows, each even in itself."""
    return [SliceStats(SECOND_NS, SECOND_NS // 10, (rate // 10,) * 10, latencies([MS_NS] * rate)) for rate in rates]


class TestFillingLoop:
    @pytest.mark.parametrize("places", [1, 4, 16])
    def test_a_slow_server_s_queue_that_still_grows_is_told_with_the_latency_to_come(self, places: int) -> None:
        """One request a second, one after the other: from 4 s to 9 s after the load began, seen twice."""
        seen = np.arange(4, 9) * SECOND_NS
        piece = SliceStats.of(seen, np.minimum(seen, places * SECOND_NS), 4 * SECOND_NS, 9 * SECOND_NS, SECOND_NS // 20)
        found = still_filling(places, [piece, piece])
        if places < 16:
            assert found == ()
        else:
            (remark,) = found
            assert remark.startswith(
                "latencies are too short: 16 requests in flight at 1 replies/s take about 16 s each"
            )
            assert "raise slice_seconds and max_seconds" in remark
            assert len(remark) <= MOST_CHARACTERS

    def test_a_reply_that_just_missed_a_slice_makes_no_queue(self) -> None:
        piece = SliceStats.of(
            np.array([4, 5]) * SECOND_NS, np.full(2, 4 * SECOND_NS), int(3.01e9), int(5.99e9), SECOND_NS // 20
        )
        assert still_filling(4, [piece]) == ()

    def test_a_slow_server_that_takes_all_at_once_has_a_full_loop_from_its_first_replies_on(self) -> None:
        done = np.repeat(np.array([4, 8]) * SECOND_NS, 16)
        piece = SliceStats.of(done, np.full(32, 4 * SECOND_NS), 2 * SECOND_NS, 10 * SECOND_NS, SECOND_NS // 20)
        assert still_filling(16, [piece]) == ()

    def test_a_fast_server_is_not_told_of_the_time_between_a_reply_and_the_next_request(self) -> None:
        assert still_filling(4, [SliceStats(SECOND_NS, SECOND_NS // 10, (100,) * 10, latencies([MS_NS] * 1000))]) == ()


def latencies(values_ns: Sequence[int]) -> Histogram:
    return Histogram.of(np.array(values_ns, np.int64))


class TestSlices:
    def test_a_steady_phase_has_none(self) -> None:
        assert remarks(slices_of_rates(1000, 1010, 990, 1000, 1020, 980, 1000)) == ()

    def test_one_slice_far_below_is_told_with_what_to_do(self) -> None:
        (remark,) = remarks(slices_of_rates(1000, 1000, 600, 1010, 990, 1000))
        assert remark.startswith("slice 3 of 6 ran at 60% of the median: something else used the machine")
        assert "measure again" in remark

    def test_the_first_slice_alone_is_the_model_warming_up(self) -> None:
        (remark,) = remarks(slices_of_rates(600, 1000, 1000, 1010, 990, 1000, 1010, 990))
        assert remark.startswith("the first slice ran at 60% of the median: the model warmed up")

    def test_a_quarter_of_the_slices_is_no_outlier(self) -> None:
        found = remarks(slices_of_rates(1000, 600, 1000, 610, 990, 1000, 600, 1000))
        assert not any("something else" in remark for remark in found)

    def test_a_slower_part_of_the_phase_is_told_with_when_it_was(self) -> None:
        found = remarks(slices_of_rates(1000, 1010, 600, 610, 590, 1000, 990, 1000, 600, 1010))
        assert found[0].startswith(
            "throughput had two levels: slices 3-5, 9 of 10 ran at 60% of the others: a neighbour"
        )
        assert "pin CPUs" in found[0]

    def test_slices_that_scatter_evenly_are_no_two_levels(self) -> None:
        found = remarks(slices_of_rates(1000, 950, 900, 850, 800, 1000, 950, 900, 850, 800))
        assert not any("two levels" in remark for remark in found)

    def test_a_trend_is_told_with_its_size(self) -> None:
        found = remarks(slices_of_rates(1000, 970, 940, 910, 880, 850, 820, 790, 760))
        assert found[0].startswith("throughput drifted by -27% over the phase")

    def test_a_small_trend_is_not_worth_a_word(self) -> None:
        assert not any("drifted" in each for each in remarks(slices_of_rates(*range(1000, 1090, 10))))

    def test_few_slices_or_no_reply_say_nothing(self) -> None:
        assert remarks(slices_of_rates(1000, 500, 100)) == ()
        assert remarks(slices_of_rates(*[0] * 8)) == ()

    def test_a_slice_that_begins_slow_each_time_is_told(self) -> None:
        rng = np.random.default_rng(1)
        slices = []
        for _ in range(8):
            windows = tuple(int(n) for n in rng.normal([90] * 5 + [110] * 5, 2))
            slices.append(SliceStats(SECOND_NS, SECOND_NS // 10, windows, latencies([MS_NS] * sum(windows))))
        found = remarks(slices)
        assert any(each.startswith("each slice begins 20% slower than it ends") for each in found)

    def test_windows_without_replies_are_pauses(self) -> None:
        windows = (100,) * 9 + (3,)
        slices = [SliceStats(SECOND_NS, SECOND_NS // 10, windows, latencies([MS_NS] * 903))] * 6
        assert any(each.startswith("the load stood still in 6 of 60 windows of 100 ms") for each in remarks(slices))

    def test_a_throughput_that_moves_is_told_with_what_it_is_worth(self) -> None:
        server = Server(0.002, queues.gamma, Speed(ar_cv=0.15, ar_s=1.0))
        done_ns, latency_ns = queues.closed_loop(server, 1, 20, np.random.default_rng(3))
        found = [each for each in remarks(queues.slices_of(done_ns, latency_ns, 20, 0.5, 0.8)) if "moves by" in each]
        assert len(found) == 1
        assert "independent values" in found[0]


class TestTwoModes:
    rng = np.random.default_rng(5)
    fast = rng.gamma(25, MS_NS / 25, 800).astype(np.int64)
    slow = rng.gamma(25, 3 * MS_NS / 25, 200).astype(np.int64)

    def test_are_found_where_they_are(self) -> None:
        modes = find_modes(Histogram.of(np.concatenate([self.fast, self.slow])))
        assert modes is not None
        assert modes.fast_ns == pytest.approx(MS_NS, rel=0.15)
        assert modes.slow_ns == pytest.approx(3 * MS_NS, rel=0.15)

    def test_a_mixture_at_all_times_is_of_requests(self) -> None:
        both = Histogram.of(np.concatenate([self.fast, self.slow]))
        slices = [SliceStats(SECOND_NS, SECOND_NS // 10, (100,) * 10, both)] * 6
        (remark,) = remarks(slices)
        assert "(20% of the replies), at all times: read p50 and p99" in remark

    def test_slices_of_one_kind_each_are_of_the_machine(self) -> None:
        fast, slow = (Histogram.of(values[:200]) for values in (self.fast, self.slow))
        slices = [SliceStats(SECOND_NS, SECOND_NS // 10, (20,) * 10, fast if n % 2 else slow) for n in range(8)]
        assert any("at different times: the machine has two speeds" in each for each in remarks(slices))

    @pytest.mark.parametrize(
        "values",
        [
            rng.exponential(MS_NS, 20_000),
            rng.gamma(16, MS_NS / 16, 20_000),
            rng.lognormal(14, 0.8, 20_000),
            np.full(20_000, MS_NS),
            np.concatenate([rng.gamma(25, MS_NS / 25, 9_700), rng.gamma(25, 5 * MS_NS / 25, 300)]),
            rng.gamma(16, MS_NS / 16, 100),
        ],
        ids=["exponential", "gamma", "log-normal", "constant", "a tail of 3 %", "few replies"],
    )
    def test_one_mode_is_not_taken_for_two(self, values: np.ndarray) -> None:
        assert find_modes(Histogram.of(values.astype(np.int64))) is None


class TestNoise:
    """Troubles of a machine, on a simulated server of known speed: each is said in words, with what to do."""

    SLICES, PERIOD_S = 12, 3.2

    def told(self, speed: queues.Floats, server: Server = Server(0.0015, queues.gamma)) -> tuple[str, ...]:  # noqa: B008 -- frozen
        rng = np.random.default_rng(7)
        done_ns, latency_ns = queues.closed_loop(server, 1, self.SLICES * self.PERIOD_S + 1, rng, speed)
        found = remarks(queues.slices_of(done_ns, latency_ns, self.SLICES, 0.5, self.PERIOD_S))
        assert all(len(each) <= MOST_CHARACTERS for each in found), found
        return found

    @property
    def at_s(self) -> queues.Floats:
        return np.arange(int((self.SLICES * self.PERIOD_S + 1) / queues.GRID_S) + 1) * queues.GRID_S

    def test_calm_says_nothing(self) -> None:
        assert self.told(np.ones(len(self.at_s))) == ()

    @pytest.mark.parametrize(("begin_s", "end_s"), [(12.0, 25.0), (0.0, 19.0), (19.0, 40.0), (6.0, 31.0)])
    def test_a_busy_neighbour_for_a_part_of_the_phase(self, begin_s: float, end_s: float) -> None:
        found = self.told(np.where((self.at_s > begin_s) & (self.at_s < end_s), 0.6, 1.0))
        assert any("two levels" in each and "a neighbour" in each and "measure again" in each for each in found), found

    def test_a_busy_neighbour_for_a_moment(self) -> None:
        found = self.told(np.where((self.at_s > 12) & (self.at_s < 15), 0.6, 1.0))
        assert any("something else used the machine" in each and "measure again" in each for each in found), found

    def test_a_machine_that_heats_up(self) -> None:
        found = self.told(1 - 0.3 * self.at_s / self.at_s[-1])
        assert any("drifted by -" in each and "measure longer" in each for each in found), found

    def test_a_cache_that_is_cold_at_first(self) -> None:
        found = self.told(np.where(self.at_s < self.PERIOD_S, 0.5, 1.0))
        assert any("the model warmed up" in each and "model_warmup" in each for each in found), found

    def test_a_cache_that_is_cold_in_each_slice(self) -> None:
        found = self.told(np.where(self.at_s % self.PERIOD_S < 0.2, 0.7, 1.0))
        assert any("each slice begins" in each and "slice_seconds" in each for each in found), found

    def test_autocorrelation(self) -> None:
        speed = Speed(ar_cv=0.10, ar_s=1.0).draw(self.SLICES * self.PERIOD_S + 1, np.random.default_rng(8))
        found = self.told(speed)
        assert any("throughput moves by" in each and "max_seconds" in each for each in found), found

    def test_requests_of_two_kinds(self) -> None:
        mixed = Server(0.0015, lambda n, rng: np.where(rng.random(n) < 0.2, 3.0, 1.0) * queues.gamma(n, rng) / 1.4)
        found = self.told(np.ones(len(self.at_s)), mixed)
        assert any("two modes" in each and "read p50 and p99" in each for each in found), found
