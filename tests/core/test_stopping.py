from __future__ import annotations

import re

import numpy as np
import pytest
import queues
from queues import Server, Speed

from model_analyzer.core.histogram import Histogram
from model_analyzer.core.stats import SliceStats
from model_analyzer.core.stopping import StopRule, Verdict, fitted, judge, may_be_done, slice_seconds

SECOND_NS = 1_000_000_000
STEADY = Server(0.002, queues.gamma)
WILD = Server(0.002, queues.gamma, Speed(level_cv=0.5, level_s=1.0))


def flat(*counts: int, seconds: float = 0.5, latency_ns: int = 1_000_000) -> list[SliceStats]:
    """Slices of one window."""
    length = int(seconds * SECOND_NS)
    return [SliceStats(length, length, (n,), Histogram.of(np.full(n, latency_ns, np.int64))) for n in counts]


def simulated(server: Server, count: int, seed: int = 1, period_s: float = 3.2) -> list[SliceStats]:
    done_ns, latency_ns = queues.closed_loop(server, 1, count * period_s + 1, np.random.default_rng(seed))
    return queues.slices_of(done_ns, latency_ns, count, 0.5, period_s)


class TestIntervalRule:
    rule = StopRule("interval", min_s=2.0, max_s=10.0)

    def test_a_steady_phase_stops_early_and_is_stable(self) -> None:
        verdict = judge(simulated(STEADY, 8), self.rule)
        assert (verdict.done, verdict.stable, verdict.reasons) == (True, True, ())
        assert verdict.throughput is not None
        assert verdict.throughput.relative <= 0.05
        assert verdict.p99 is not None

    def test_not_before_the_least_seconds(self) -> None:
        verdict = judge(simulated(STEADY, 6), StopRule("interval", min_s=5.0, max_s=10.0))
        assert (verdict.done, verdict.stable) == (False, False)

    @pytest.mark.parametrize(("slices", "done"), [(8, False), (12, True)])
    def test_a_phase_alone_is_not_done_before_eight_seconds_have_gone_by(self, slices: int, done: bool) -> None:
        verdict = judge(simulated(STEADY, slices, period_s=0.7), self.rule)
        assert (verdict.done, verdict.stable) == (done, True)

    def test_nor_is_it_kept_beyond_the_most_seconds(self) -> None:
        verdict = judge(simulated(STEADY, 8, period_s=0.7), StopRule("interval", min_s=2.0, max_s=4.0))
        assert (verdict.done, verdict.stable) == (True, True)

    def test_other_rules_know_no_least_time(self) -> None:
        assert judge(simulated(STEADY, 4, period_s=0.7), StopRule("fixed", min_s=2.0)).done

    def test_a_wild_phase_goes_on_and_says_why(self) -> None:
        verdict = judge(simulated(WILD, 8), self.rule)
        assert (verdict.done, verdict.stable) == (False, False)
        assert verdict.reasons[0].startswith("throughput is known to ±")
        assert verdict.reasons[0].endswith("only (asked: 5%)")

    def test_at_the_most_seconds_it_is_done_and_unstable(self) -> None:
        verdict = judge(simulated(WILD, 20), self.rule)
        assert (verdict.done, verdict.stable) == (True, False)
        assert verdict.reasons

    def test_three_slices_are_too_few(self) -> None:
        verdict = judge(flat(100, 100, 100), StopRule("interval", min_s=1.0, max_s=1.5))
        assert (verdict.done, verdict.stable) == (True, False)
        assert verdict.reasons == ("3 slices, 4 are needed to judge the intervals by",)

    def test_too_few_replies_for_p99_are_named(self) -> None:
        verdict = judge(flat(*[30] * 8), self.rule)
        assert verdict.reasons == ("p99 latency has no interval: 240 replies, 299 are needed",)

    def test_replies_in_one_slice_only_are_named(self) -> None:
        verdict = judge(flat(5000, 10, 10, 10), self.rule)
        assert "p99 latency has no interval: nearly all replies fell into one slice" in verdict.reasons

    def test_without_a_reply_there_is_a_reason_and_no_interval(self) -> None:
        verdict = judge(flat(*[0] * 20), self.rule)
        assert (verdict.done, verdict.stable, verdict.throughput, verdict.p99) == (True, False, None, None)
        assert verdict.reasons[0] == "throughput has no interval: no reply"

    def test_no_slice_is_not_done(self) -> None:
        assert judge([], self.rule).done is False

    def test_a_precision_that_was_asked_for_decides(self) -> None:
        slices = simulated(STEADY, 8)
        assert judge(slices, StopRule(precision=0.05)).stable
        assert not judge(slices, StopRule(precision=0.001)).stable
        assert not judge(slices, StopRule(latency_precision=0.001)).stable


class TestTheReasonTellsReachedFromAsked:
    slices = flat(450, 550, 450, 550)

    @pytest.mark.parametrize("below", [0.2, 0.01, 0.004, 0.0005])
    def test_never_the_same_figure_twice(self, below: float) -> None:
        reached = judge(self.slices, StopRule()).throughput
        assert reached is not None
        asked = round(reached.relative - below, 4)
        reason = judge(self.slices, StopRule(precision=asked)).reasons[0]
        found = re.fullmatch(r"throughput is known to ±(.+)% only \(asked: (.+)%\)", reason)
        assert found is not None
        assert float(found[2]) == pytest.approx(asked * 100)
        assert float(found[1]) > float(found[2])
        assert float(found[1]) == pytest.approx(reached.relative * 100, abs=0.51)


class TestPerfAnalyzersRule:
    rule = StopRule("perf_analyzer", min_s=1.5, max_s=10.0)

    @pytest.mark.parametrize(("last", "stable"), [((100, 105, 110), True), ((100, 105, 111), False)])
    def test_largest_over_smallest_throughput_of_the_last_three(self, last: tuple[int, ...], stable: bool) -> None:
        assert judge(flat(50, 200, *last), self.rule).stable is stable

    def test_mean_latency_must_agree_as_well(self) -> None:
        slices = [*flat(100, 100), *flat(100, latency_ns=1_200_000)]
        verdict = judge(slices, self.rule)
        assert verdict.reasons == ("latency of the last three windows differs by 20% (limit 10%)",)

    def test_three_windows_with_replies_are_needed(self) -> None:
        assert judge(flat(100, 100), self.rule).reasons == ("fewer than 3 windows with replies",)
        assert not judge(flat(100, 100, 0), self.rule).stable

    def test_windows_of_no_length_do_not_agree(self) -> None:
        assert not judge([*flat(100, 100), *flat(100, seconds=0)], self.rule).stable


class TestFixed:
    rule = StopRule("fixed", min_s=2.0, max_s=10.0)

    def test_is_done_after_the_least_seconds_whatever_it_saw(self) -> None:
        assert not judge(flat(1, 100, 3), self.rule).done
        verdict = judge(flat(1, 100, 3, 70), self.rule)
        assert (verdict.done, verdict.stable, verdict.reasons) == (True, True, ())

    def test_says_how_precise_it_was(self) -> None:
        assert judge(flat(90, 100, 110, 100), self.rule).throughput is not None


class TestFreshGpuSamples:
    rule = StopRule("fixed", min_s=1.0, max_s=2.0)

    def done(self, measured_s: float, fresh: int | None, wanted: int) -> Verdict:
        return judge(flat(*[100] * int(measured_s * 2)), self.rule, fresh, wanted)

    def test_a_phase_is_extended_until_they_are_there(self) -> None:
        assert not self.done(2.0, fresh=1, wanted=2).done
        assert self.done(2.0, fresh=2, wanted=2).done

    def test_but_not_for_ever(self) -> None:
        assert not self.done(89.0, fresh=0, wanted=2).done
        assert self.done(90.0, fresh=0, wanted=2).done

    def test_without_a_gpu_nothing_is_waited_for(self) -> None:
        assert self.done(1.0, fresh=None, wanted=2).done


class TestSliceSeconds:
    @pytest.mark.parametrize(
        ("period_s", "seconds"),
        [
            (0.0, 0.5),
            (0.001, 0.5),
            (0.1, 0.5),
            (0.3, 1.5),  # five periods
            (0.8, 2.5),  # a quarter of the most seconds
            (2.0, 4.0),  # two periods
            (9.0, 10.0),  # never more than the most seconds
        ],
    )
    def test_holds_a_handful_of_replies_and_leaves_room_for_four(self, period_s: float, seconds: float) -> None:
        assert slice_seconds(period_s, base_s=0.5, max_s=10.0) == pytest.approx(seconds)


def test_stopping_at_the_first_good_look_costs_little_coverage() -> None:
    """The rule looks after every slice and stops at the first interval that is narrow enough: it must still cover."""
    rng = np.random.default_rng(4)
    hits = stopped = 0
    for _ in range(150):
        done_ns, latency_ns = queues.closed_loop(STEADY, 1, 33, rng)
        slices = queues.slices_of(done_ns, latency_ns, 20, 0.5, 1.6, start_s=rng.random() / 2)
        verdict = next(v for n in range(1, 21) if (v := judge(slices[:n], StopRule(max_s=10.0))).done)
        assert verdict.throughput is not None
        stopped += verdict.stable
        hits += abs(verdict.throughput.mean - STEADY.throughput) <= verdict.throughput.half_width
    assert stopped == 150
    assert hits >= 0.92 * 150


@pytest.mark.parametrize(
    "rule",
    [
        StopRule("interval", min_s=2.0, max_s=6.0),
        StopRule("perf_analyzer", min_s=2.0, max_s=6.0),
        StopRule("fixed", min_s=3.0, max_s=6.0),
        StopRule("interval", requests=1500),
    ],
)
@pytest.mark.parametrize("period_s", [0.7, 3.2])
def test_the_quick_look_never_says_no_where_the_whole_one_says_yes(rule: StopRule, period_s: float) -> None:
    slices = simulated(STEADY, 12, period_s=period_s)
    ends = [n for n in range(1, 13) if judge(slices[:n], rule).done]
    quick = [n for n in range(1, 13) if may_be_done(slices[:n], rule)]
    assert ends
    assert quick[0] > 1
    assert set(ends) <= set(quick)


@pytest.mark.parametrize(
    ("seconds", "left_s", "fits"),
    [(0.5, 10.0, 0.5), (0.5, 9.497, 9.497 / 19), (1.43, 3.0, 1.5), (2.2, 3.0, 3.0), (0.5, 0.2, 0.2), (0.5, -0.1, 0.5)],
)
def test_slices_fill_what_is_left_of_a_phases_time(seconds: float, left_s: float, fits: float) -> None:
    assert fitted(seconds, left_s) == pytest.approx(fits)
