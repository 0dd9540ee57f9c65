"""Known answers for the intervals, and how often they cover the truth on simulated servers."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from math import sqrt

import numpy as np
import pytest
import queues
from hypothesis import given
from hypothesis import strategies as st
from queues import Server, Speed

from model_analyzer.core.histogram import RESOLUTION, Histogram
from model_analyzer.core.motion import motion
from model_analyzer.core.stats import (
    Interval,
    SliceStats,
    mean_interval,
    percentile_interval,
    replies_for_interval,
    shared_edges,
    span_s,
    t_quantile,
    throughput_interval,
    throughput_motion,
    why_no_mean,
    why_no_percentile,
)
from model_analyzer.core.wording import counted

SECOND_NS = 1_000_000_000
MS_NS = 1_000_000


def a_slice(windows: Sequence[int], window_s: float = 0.1, latency_ns: Sequence[int] | int = MS_NS) -> SliceStats:
    """A slice of whole windows with these completions; latencies all alike, or these."""
    latencies = np.full(sum(windows), latency_ns) if isinstance(latency_ns, int) else np.array(latency_ns)
    return SliceStats(
        round(len(windows) * window_s * SECOND_NS),
        round(window_s * SECOND_NS),
        tuple(windows),
        Histogram.of(latencies.astype(np.int64)),
    )


def flat(*counts: int) -> list[SliceStats]:
    """Slices of 1 s in one window each: nothing is known of what is within them."""
    return [a_slice([count], 1.0) for count in counts]


class TestSliceStats:
    def test_completions_fall_into_whole_windows(self) -> None:
        done_ns = np.array([0, 49, 50, 99, 100, 129], np.int64)
        piece = SliceStats.of(done_ns, np.full(6, 5, np.int64), 0, 130, 50)
        assert piece.windows == (2, 2)
        assert piece.count == 6, "those after the last whole window still count"
        assert piece.rate == pytest.approx(6 / 130e-9)

    def test_a_slice_shorter_than_a_window_has_none(self) -> None:
        piece = SliceStats.of(np.array([3], np.int64), np.array([5], np.int64), 0, 40, 50)
        assert (piece.windows, piece.count) == ((), 1)

    def test_a_slice_without_replies(self) -> None:
        nothing = np.empty(0, np.int64)
        piece = SliceStats.of(nothing, nothing, 0, 200, 50)
        assert (piece.windows, piece.count, piece.rate) == ((0, 0, 0, 0), 0, 0)

    def test_a_slice_of_no_length_has_no_rate(self) -> None:
        nothing = np.empty(0, np.int64)
        assert SliceStats.of(nothing, nothing, 7, 7, 50).rate == 0

    @given(st.lists(st.integers(0, 999), max_size=40))
    def test_json_round_trip(self, done: list[int]) -> None:
        times = np.sort(np.array(done, np.int64))
        piece = SliceStats.of(times, times * 1000, 0, 1000, 50)
        again = SliceStats.from_json(json.loads(json.dumps(piece.to_json())))
        assert again.to_json() == piece.to_json()
        assert (again.windows, again.rate, again.start_ns) == (piece.windows, piece.rate, 0)


class TestSharedEdges:
    """Requests across the ends of a slice count by the share of their own time that lies in it."""

    def test_a_clock_is_counted_exactly_wherever_the_slice_begins(self) -> None:
        done = np.arange(1, 60) * 59
        for start in range(200, 260, 7):
            inside = int(((done >= start) & (done < start + 500)).sum())
            edges = shared_edges(done, np.full(len(done), 59), (start, start + 500), 1)
            assert edges is not None
            assert inside + edges == pytest.approx(500 / 59)

    def test_a_queue_of_four_too(self) -> None:
        done = np.arange(10, 200) * 59
        edges = shared_edges(done, np.full(len(done), 4 * 59), (2000, 2500), 4)
        assert edges is not None
        assert int(((done >= 2000) & (done < 2500)).sum()) + edges == pytest.approx(500 / 59)

    def test_a_request_longer_than_the_slice_counts_by_its_share(self) -> None:
        assert shared_edges(np.array([900]), np.array([800]), (300, 500), 1) == pytest.approx(0.25)

    def test_nothing_is_said_where_a_request_in_flight_at_the_end_is_not_known(self) -> None:
        done = np.array([100, 200, 300])
        assert shared_edges(done, np.full(3, 100), (150, 300), 1) is not None
        assert shared_edges(done, np.full(3, 100), (150, 301), 1) is None

    def test_they_survive_the_store(self) -> None:
        piece = SliceStats.of(np.array([5]), np.array([3]), 0, 10, 5, edges=-0.25)
        assert SliceStats.from_json(piece.to_json()) == piece
        assert (piece.count, piece.served) == (1, 0.75)

    def test_expected_are_as_many_as_ended(self) -> None:
        rng = np.random.default_rng(5)
        done, latency = queues.closed_loop(queues.Server(0.06, queues.gamma), 4, 1900, rng)
        shared, whole = (queues.slices_of(done, latency, 3000, 0.5, 0.6, inflight=n) for n in (4, 0))
        rates = np.array([[piece.rate for piece in slices] for slices in (shared, whole)])
        assert rates.mean(axis=1) == pytest.approx([1 / 0.06] * 2, rel=0.01)
        assert rates[0].std() < 0.8 * rates[1].std()


class TestSpan:
    def test_is_from_the_first_start_to_the_last_end(self) -> None:
        slices = [replace(piece, start_ns=n * 5 * SECOND_NS) for n, piece in enumerate(flat(90, 100, 110))]
        assert span_s(slices) == 11

    def test_is_not_known_without_times_or_where_the_machine_started_again(self) -> None:
        first, second = flat(90, 100)
        assert span_s([]) is None
        assert span_s([first, second]) is None
        assert span_s([replace(first, start_ns=9 * SECOND_NS), replace(second, start_ns=SECOND_NS)]) is None


class TestStudentsT:
    # From tables of the distribution.
    @pytest.mark.parametrize(
        ("dof", "value"),
        [(1, 12.7062), (3, 3.1824), (10, 2.2281), (30, 2.0423), (31, 2.0395), (60, 2.0003), (120, 1.9799)],
    )
    def test_known_quantiles(self, dof: int, value: float) -> None:
        assert t_quantile(dof) == pytest.approx(value, abs=1e-4)

    def test_falls_to_the_normal_quantile(self) -> None:
        values = [t_quantile(dof) for dof in range(1, 200)]
        assert values == sorted(values, reverse=True)
        assert t_quantile(10**6) == pytest.approx(1.959964, abs=1e-5)


class TestThroughputInterval:
    def test_is_that_of_the_model_of_a_moving_level(self) -> None:
        slices = flat(90, 100, 110, 95)
        moved = motion(np.array([90.0, 100, 110, 95]), np.arange(4) + 0.5, np.ones(4), 3, shortest_s=0.5)
        assert throughput_interval(slices) == Interval(98.75, pytest.approx(moved.half_width))

    def test_slices_far_apart_in_time_tell_more_than_neighbours(self) -> None:
        counts = (90, 92, 94, 96, 98, 102, 104, 106, 108, 110)
        close, far = (
            throughput_interval(
                [replace(piece, start_ns=n * gap_s * SECOND_NS) for n, piece in enumerate(flat(*counts))]
            )
            for gap_s in (2, 60)
        )
        assert close is not None
        assert far is not None
        assert close.half_width > 1.2 * far.half_width

    def test_a_trend_is_at_least_as_wide_as_its_quarters_say(self) -> None:
        found = throughput_interval(flat(*range(80, 120)))
        # Quarters of ten slices: 84.5, 94.5, 104.5, 114.5 about 99.5; sum of squares 500.
        assert found is not None
        assert found.half_width >= 0.999 * 3.1824 * sqrt(500 / 12)

    def test_a_drift_widens_the_interval(self) -> None:
        drifting = throughput_interval(flat(90, 92, 94, 96, 98, 102, 104, 106, 108, 110))
        shuffled = throughput_interval(flat(98, 110, 90, 102, 94, 108, 96, 104, 92, 106))
        assert drifting is not None
        assert shuffled is not None
        assert drifting.half_width > 1.5 * shuffled.half_width

    def test_a_longer_slice_weighs_more(self) -> None:
        slices = [a_slice([100], 1.0), a_slice([100], 1.0), a_slice([400], 2.0)]
        found = throughput_interval(slices)
        assert found is not None
        assert found.mean == 150

    def test_slices_that_agree_by_luck_are_widened_by_their_windows(self) -> None:
        lucky = throughput_interval([a_slice([50, 50, 150, 150] * 3)] * 4)
        steady = throughput_interval([a_slice([100] * 12)] * 4)
        assert lucky is not None
        assert steady is not None
        assert lucky.mean == steady.mean == 1000
        assert lucky.half_width > 10 * steady.half_width

    def test_windows_of_a_regular_slow_series_do_not_widen(self) -> None:
        # Every third window has a reply: the spread of ones and zeros says nothing of the throughput.
        slow = throughput_interval([a_slice([1, 0, 0] * 10)] * 4)
        assert slow is not None
        assert slow.relative < 0.03

    def test_never_narrower_than_one_reply(self) -> None:
        found = throughput_interval(flat(7, 7, 7, 7))
        assert found == Interval(7, pytest.approx(1 / 4))

    @pytest.mark.parametrize("slices", [[], flat(100), flat(100, 101), flat(0, 0, 0, 0)])
    def test_none_below_three_slices_or_without_a_reply(self, slices: list[SliceStats]) -> None:
        assert throughput_interval(slices) is None

    def test_slices_of_no_length_are_left_out(self) -> None:
        nothing = a_slice([])
        assert throughput_interval([*flat(90, 100, 110), nothing]) == throughput_interval(flat(90, 100, 110))
        assert throughput_interval([nothing] * 5) is None

    def test_one_reply_in_all_has_an_interval_beyond_its_value(self) -> None:
        found = throughput_interval(flat(0, 1, 0))
        assert found is not None
        assert found.relative > 1

    @given(st.lists(st.integers(0, 10**6), min_size=3, max_size=20).filter(any))
    def test_is_finite_and_positive_whatever_the_slices(self, counts: list[int]) -> None:
        slices = [
            SliceStats(SECOND_NS, SECOND_NS, (count,), Histogram(*_buckets(count), count, count * 5, 5, 5))
            for count in counts
        ]
        found = throughput_interval(slices)
        assert found is not None
        assert found.mean == pytest.approx(sum(counts) / len(counts))
        assert 0 < found.half_width < float("inf")


def _buckets(count: int) -> tuple[np.ndarray, np.ndarray]:
    return np.array([5], np.int64), np.array([count], np.int64)


class TestPercentileInterval:
    def test_as_many_replies_as_wilks_asks_for(self) -> None:
        assert replies_for_interval(0.99) == 299
        assert replies_for_interval(0.95) == 59
        slices = [a_slice([75])] * 3
        assert percentile_interval([*slices, a_slice([73])], 0.99) is None
        assert percentile_interval([*slices, a_slice([74])], 0.99) is not None

    @pytest.mark.parametrize("count", [0, 1, 2])
    def test_none_below_three_slices(self, count: int) -> None:
        assert percentile_interval([a_slice([1000])] * count, 0.99) is None

    def test_none_where_one_slice_has_nearly_all_replies(self) -> None:
        assert percentile_interval([a_slice([5000]), *[a_slice([10])] * 3], 0.99) is None

    def test_all_equal_is_known_to_a_bucket(self) -> None:
        found = percentile_interval([a_slice([500], latency_ns=8 * MS_NS)] * 4, 0.99)
        assert found == Interval(8 * MS_NS, pytest.approx(8 * MS_NS * RESOLUTION))

    def test_one_slice_that_decides_alone_leaves_nothing_to_say(self) -> None:
        # One slice of ten is ten times as slow and holds the whole tail: without it p99 is 1 ms, and another such slice
        # or none would do as well.
        slices = [a_slice([1000])] * 9 + [a_slice([1000], latency_ns=10 * MS_NS)]
        assert why_no_percentile(slices, 0.99) is None, "there are replies enough"
        assert percentile_interval(slices, 0.99) is None

    def test_slices_that_differ_widen_it(self) -> None:
        latencies_ns = [MS_NS * n // 100 for n in (100, 108, 95, 103, 92, 106, 99, 97)]
        apart = percentile_interval([a_slice([1000], latency_ns=each) for each in latencies_ns], 0.99)
        assert apart is not None
        assert apart.mean == pytest.approx(1.08 * MS_NS, rel=RESOLUTION)
        assert 0.01 < apart.relative < 0.5

    def test_a_throughput_that_moves_widens_it_by_the_quarters(self) -> None:
        latencies_ns = [MS_NS * n // 100 for n in (100, 101, 103, 105, 108, 110, 112, 114)]
        counts = [1000, 990, 970, 950, 930, 910, 890, 880]
        slices = [a_slice([n], latency_ns=each) for n, each in zip(counts, latencies_ns, strict=True)]
        moved = throughput_motion(slices)
        assert moved is not None
        moving, steady = (percentile_interval(slices, 0.99, replace(moved, steady=steady)) for steady in (0.0, 0.5))
        assert moving is not None
        assert steady is not None
        assert moving.half_width > steady.half_width

    def test_slices_that_agree_by_luck_are_widened_by_the_order_statistics(self) -> None:
        ranks = np.arange(1, 1001)
        latency_ns = np.where(ranks <= 980, ranks, 980 + 20 * (ranks - 980)) * MS_NS
        found = percentile_interval([a_slice([1000], latency_ns=list(latency_ns))] * 4, 0.99)
        assert found is not None
        # n = 4000: number 3960 is the 990th value, 1180 ms; 3960 + 12.3, rounded up, and 1 is 3974: the 994th, 1260 ms.
        assert found.mean == pytest.approx(1180 * MS_NS, rel=RESOLUTION)
        assert found.half_width == pytest.approx(80 * MS_NS, abs=10 * MS_NS)


class TestMeanInterval:
    @pytest.mark.parametrize("slices", [[], [a_slice([10])] * 2, [a_slice([10]), a_slice([10]), a_slice([0])]])
    def test_none_below_three_slices_with_replies(self, slices: list[SliceStats]) -> None:
        assert mean_interval(slices) is None
        assert why_no_mean(slices) == f"only {counted(len(slices[:2]), 'slice')} with replies"

    def test_all_equal_is_known_exactly(self) -> None:
        found = mean_interval([a_slice([500], latency_ns=8 * MS_NS)] * 4)
        assert found is not None
        assert found.mean == 8 * MS_NS
        assert found.relative < 1e-6

    def test_is_about_the_exact_mean_of_all_replies_however_many_a_slice_has(self) -> None:
        each = [a_slice([n], latency_ns=latency_ns) for n, latency_ns in ((100, MS_NS), (300, MS_NS * 11 // 10))]
        found = mean_interval(each * 2)
        assert found is not None
        assert found.mean == 1.075 * MS_NS

    def test_slices_that_differ_widen_it(self) -> None:
        levels = (100, 108, 95, 103, 92, 106, 99, 97)
        apart = mean_interval([a_slice([1000], latency_ns=MS_NS * n // 100) for n in levels])
        assert apart is not None
        # Student's t over eight means: 2.365 x 5.63 / sqrt(8) = 4.7 % of the mean, and what slower moves may hide.
        assert 0.04 < apart.relative < 0.15

    def test_slices_that_agree_by_luck_are_widened_by_the_spread_within(self) -> None:
        latencies = [MS_NS, 3 * MS_NS] * 50
        found = mean_interval([a_slice([100], latency_ns=latencies)] * 4)
        assert found is not None
        assert found.half_width == pytest.approx(1.96 * MS_NS / sqrt(400), rel=0.01)

    def test_slices_too_far_apart_leave_nothing_to_say(self) -> None:
        assert mean_interval([a_slice([100], latency_ns=MS_NS * 100**n) for n in range(3)]) is None


# -- coverage on simulated servers ---------------------------------------------------------------------


@cache
def true_p99_s(server: Server, clients: int) -> float:
    _, latency_ns = queues.closed_loop(server, clients, 1000, np.random.default_rng(0))
    return float(np.quantile(latency_ns, 0.99, method="inverted_cdf")) / 1e9


def true_mean_ns(server: Server, clients: int) -> float:
    """Little's law: of a closed loop that keeps the server busy."""
    return clients / server.throughput * 1e9


def covered(
    server: Server,
    clients: int,
    interval: Callable[[Sequence[SliceStats]], Interval | None],
    truth: float,
    *,
    period_s: float = 3.2,
    slices: int = 12,
    repeats: int = 300,
) -> float:
    """How often the interval of 12 slices of 0.5 s, one every `period_s`, covers the truth."""
    rng = np.random.default_rng(11)
    hits = 0
    for _ in range(repeats):
        done_ns, latency_ns = queues.closed_loop(server, clients, slices * period_s + 1, rng)
        found = interval(queues.slices_of(done_ns, latency_ns, slices, 0.5, period_s, start_s=rng.random() / 2))
        assert found is not None
        hits += abs(found.mean - truth) <= found.half_width
    return hits / repeats


def naive(slices: Sequence[SliceStats]) -> Interval:
    """Batch means: every window as if it were independent of its neighbours."""
    rates = np.concatenate([piece.windows for piece in slices]) / (slices[0].window_ns / 1e9)
    return Interval(float(rates.mean()), 1.96 * float(rates.std(ddof=1)) / sqrt(len(rates)))


def p99(slices: Sequence[SliceStats]) -> Interval | None:
    return percentile_interval(slices, 0.99)


STEADY = {
    "M/M/1": (Server(0.002, queues.exponential), 1),
    "M/D/1": (Server(0.003, queues.deterministic), 4),
    "compute-bound": (Server(0.004, queues.gamma), 4),
    "slow": (Server(0.015, queues.gamma), 1),
    "heavy tail": (Server(0.003, queues.heavy), 2),
}
AUTOREGRESSIVE = Server(0.004, queues.gamma, Speed(ar_cv=0.15, ar_s=0.3))
LEVELS = Server(0.004, queues.gamma, Speed(ar_cv=0.05, ar_s=0.2, level_cv=0.15, level_s=2.0))


class TestCoverage:
    """300 repeats, seeds fixed: a true 95 % comes out between 92.5 and 97.5 % in 95 of 100 such studies."""

    @pytest.mark.parametrize("name", STEADY)
    def test_of_throughput_on_a_steady_server(self, name: str) -> None:
        server, clients = STEADY[name]
        assert covered(server, clients, throughput_interval, server.throughput) >= 0.93

    @pytest.mark.parametrize("server", [AUTOREGRESSIVE, LEVELS], ids=["AR(1)", "levels"])
    def test_of_throughput_that_moves_where_naive_batch_means_fail(self, server: Server) -> None:
        assert covered(server, 4, throughput_interval, server.throughput) >= 0.94
        assert covered(server, 4, naive, server.throughput) <= 0.70

    def test_of_throughput_on_levels_that_outlast_the_gaps_between_slices(self) -> None:
        assert covered(LEVELS, 4, throughput_interval, LEVELS.throughput, period_s=0.8) >= 0.92
        assert covered(LEVELS, 4, naive, LEVELS.throughput, period_s=0.8) <= 0.40

    def test_of_throughput_on_levels_that_outlast_the_phase_it_cannot_be_had(self) -> None:
        # The honest limit of the method: ten seconds do not show what moves over ten seconds. Still twice the naive.
        slow = Server(0.004, queues.gamma, Speed(ar_cv=0.05, level_cv=0.10, level_s=8.0))
        found = covered(slow, 4, throughput_interval, slow.throughput, period_s=0.8)
        assert 0.55 <= found <= 0.85
        assert found >= 2 * covered(slow, 4, naive, slow.throughput, period_s=0.8)

    @pytest.mark.parametrize("name", STEADY)
    def test_of_p99_on_a_steady_server(self, name: str) -> None:
        server, clients = STEADY[name]
        assert covered(server, clients, p99, true_p99_s(server, clients) * 1e9, repeats=100) >= 0.93

    def test_of_p99_on_a_server_whose_speed_moves(self) -> None:
        assert covered(AUTOREGRESSIVE, 4, p99, true_p99_s(AUTOREGRESSIVE, 4) * 1e9, repeats=150) >= 0.93

    @pytest.mark.parametrize("name", STEADY)
    def test_of_the_mean_latency_on_a_steady_server(self, name: str) -> None:
        server, clients = STEADY[name]
        assert covered(server, clients, mean_interval, true_mean_ns(server, clients)) >= 0.93

    @pytest.mark.parametrize("server", [AUTOREGRESSIVE, LEVELS], ids=["AR(1)", "levels"])
    def test_of_the_mean_latency_on_a_server_whose_speed_moves(self, server: Server) -> None:
        assert covered(server, 4, mean_interval, true_mean_ns(server, 4), repeats=150) >= 0.93

    def test_an_interval_that_covers_is_not_wide_for_nothing(self) -> None:
        server = STEADY["M/M/1"][0]
        widths = []
        rng = np.random.default_rng(2)
        for _ in range(40):
            done_ns, latency_ns = queues.closed_loop(server, 1, 40, rng)
            found = throughput_interval(queues.slices_of(done_ns, latency_ns, 12, 0.5, 3.2))
            assert found is not None
            widths.append(found.relative)
        # 6 s x 500/s independent exponential times: the ideal half-width is 1.96 / sqrt(3000) = 3.6 %.
        assert 0.036 <= float(np.median(widths)) <= 0.060


class TestSimulatedQueues:
    """The simulator itself against closed forms: what judges the statistics must be right."""

    def test_a_closed_loop_keeps_the_server_busy(self) -> None:
        done_ns, latency_ns = queues.closed_loop(STEADY["M/M/1"][0], 1, 400, np.random.default_rng(5))
        assert len(done_ns) / 400 == pytest.approx(500, rel=0.01)
        assert latency_ns.mean() / 1e9 == pytest.approx(0.002, rel=0.02)
        # Exponential: the 99th percentile is ln(100) means.
        assert np.quantile(latency_ns, 0.99) / 1e9 == pytest.approx(np.log(100) * 0.002, rel=0.03)

    @pytest.mark.parametrize(
        ("service", "second_moment"), [(queues.exponential, 2.0), (queues.deterministic, 1.0)], ids=["M/M/1", "M/D/1"]
    )
    def test_an_open_loop_waits_as_pollaczek_and_khinchine_say(
        self, service: Callable[[int, np.random.Generator], queues.Floats], second_moment: float
    ) -> None:
        server = Server(0.002, service)
        _, latency_ns = queues.open_loop(350, server, 1500, np.random.default_rng(6))
        wait_s = latency_ns.mean() / 1e9 - server.mean_s
        assert wait_s == pytest.approx(queues.mean_wait_s(350, server, second_moment), rel=0.05)

    def test_the_speed_has_mean_one_and_the_asked_correlation(self) -> None:
        speed = Speed(ar_cv=0.2, ar_s=0.1).draw(2000, np.random.default_rng(8))
        assert speed.mean() == pytest.approx(1, abs=0.01)
        assert speed.std() == pytest.approx(0.2, rel=0.05)
        assert queues.autocorrelation(np.log(speed), 10) == pytest.approx(np.exp(-1), abs=0.03)
