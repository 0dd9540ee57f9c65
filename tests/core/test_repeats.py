"""Repeats of a phase: one row of all, with the spread between them in its interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from model_analyzer.core.histogram import Histogram
from model_analyzer.core.load import InputSource, Load
from model_analyzer.core.measurement import Measurement, Slice
from model_analyzer.core.plan import Phase
from model_analyzer.core.reduce import failed, reduce_phase, skipped
from model_analyzer.core.repeats import (
    as_asked,
    begun,
    compared,
    differences,
    enough,
    judge_repeats,
    percentile_over,
    throughput_over,
    throughput_spread,
    unfinished,
)
from model_analyzer.core.stats import SliceStats, t_quantile
from model_analyzer.core.stopping import StopRule
from model_analyzer.core.telemetry import Series, Summary
from model_analyzer.core.variant import Variant

PHASE = Phase("id", Variant("m", "m_config_default"), 1, Load("concurrency", 1), InputSource(), "http")
SECOND_NS = 1_000_000_000
REPEAT_NS = 600 * SECOND_NS


def repeat(rate: int, number: int = 0, latency_ms: float = 1.0) -> list[SliceStats]:
    """Eight even slices of a second, ten minutes after those of the repeat before."""
    latency = Histogram.of(np.full(rate, int(latency_ms * 1e6), np.int64))
    start_ns = number * REPEAT_NS
    return [
        SliceStats(SECOND_NS, SECOND_NS // 20, (rate // 20,) * 20, latency, start_ns + 4 * n * SECOND_NS)
        for n in range(8)
    ]


def repeats(*rates: int) -> list[list[SliceStats]]:
    return [repeat(rate, number) for number, rate in enumerate(rates)]


def slices(of: Sequence[Sequence[SliceStats]], ram: Sequence[float] = (1e8, 2e8, 3e8)) -> list[Slice]:
    """As the engine keeps them; in each repeat the server's memory is another."""
    return [
        Slice(phase_id=PHASE.id, round=n, started_at="2026-01-01T00:00:00+00:00", warmup_s=0.2, stats=stats, failures={},
              server=None, server_problem="not read", client_cpu_ratio=0.1, client_lag_s=0.0, gpus=(),
              telemetry={Series("server processes (USS)", ""): Summary(1, 1, ram[number], ram[number], ram[number])},
              cadences={}, problems={}, repeat=number)
        for number, pieces in enumerate(of)
        for n, stats in enumerate(pieces)
    ]  # fmt: skip


def row(of: Sequence[Sequence[SliceStats]], rule: StopRule = StopRule()) -> Measurement:  # noqa: B008 -- frozen
    return reduce_phase(PHASE, slices(of), judge_repeats(of, rule), 1)


class TestIntervals:
    def test_holds_the_spread_between_repeats(self) -> None:
        found = throughput_over(repeats(1000, 1100, 1200))
        assert found is not None
        assert found.mean == pytest.approx(1100)
        assert found.half_width == pytest.approx(t_quantile(2) * 100 / np.sqrt(3), rel=0.01)

    def test_repeats_that_agree_by_luck_are_no_surer_than_their_slices(self) -> None:
        noisy = [[*repeat(900, n)[:4], *repeat(1100, n)[4:]] for n in range(3)]
        found, spread = throughput_over(noisy), throughput_spread(noisy)
        assert found is not None
        assert spread is not None
        assert spread.half_width == pytest.approx(0)
        assert found.half_width > 20

    def test_p99_holds_it_too(self) -> None:
        of = [repeat(1000, n, latency_ms) for n, latency_ms in enumerate((1.0, 1.1, 1.2))]
        found, alone = percentile_over(of, 0.99), percentile_over([of[0]] * 3, 0.99)
        assert found is not None
        assert alone is not None
        assert found.half_width > 0.1 * found.mean > 10 * alone.half_width

    def test_a_repeat_without_a_reply_has_no_spread(self) -> None:
        assert throughput_spread(repeats(1000, 0)) is None
        assert throughput_over(repeats(1000, 0)) is None

    def test_one_repeat_has_no_spread(self) -> None:
        assert throughput_spread(repeats(1000)) is None


class TestVerdict:
    def test_repeats_that_agree_are_stable(self) -> None:
        verdict = judge_repeats(repeats(1000, 1002, 998), StopRule())
        assert verdict.stable
        assert verdict.done
        assert not verdict.reasons

    def test_repeats_that_do_not_are_as_imprecise_as_they_lie_apart(self) -> None:
        verdict = judge_repeats(repeats(1000, 1100, 1200), StopRule())
        assert not verdict.stable
        assert verdict.reasons[0].startswith("throughput is known to ±23% only (asked: 5%)")

    def test_a_rule_without_a_precision_is_to_be_met_by_each_repeat(self) -> None:
        moving = [*repeat(1000)[:5], *repeat(2000)[5:7], *repeat(1000)[7:]]
        verdict = judge_repeats([repeat(1000), moving], StopRule("perf_analyzer"))
        assert verdict.reasons[0].startswith("repeat 2: throughput of the last three windows differs by 100%")
        assert judge_repeats(repeats(1000, 2000), StopRule("fixed")).stable


class TestRow:
    def test_is_of_all_repeats_with_how_far_they_lie_apart(self) -> None:
        values = row(repeats(1000, 1100, 1200)).values
        assert (values["repeats"], values["perf_throughput"]) == (3, 1100)
        assert values["perf_throughput_repeats_cv"] == pytest.approx(100 / 1100)
        assert values["perf_latency_p99_repeats_cv"] == pytest.approx(0)
        assert values["measured_seconds"] == 24

    def test_of_one_repeat_says_why_it_has_no_spread(self) -> None:
        found = row(repeats(1000))
        assert found.values["repeats"] == 1
        assert found.reasons["perf_throughput_repeats_cv"] == "one repeat"

    def test_memory_is_that_of_the_first_round_of_the_first_repeat(self) -> None:
        of = repeats(1000, 1000, 1000)
        backwards = sorted(slices(of), key=lambda piece: -piece.repeat)
        found = reduce_phase(PHASE, backwards, judge_repeats(of, StopRule()), 1)
        assert found.host["cpu_used_ram"].value == 1e8

    def test_says_that_reloads_differ_and_what_to_do(self) -> None:
        notes = row(repeats(1000, 1100, 1200)).notes
        (remark,) = [note for note in notes if note.startswith("results differ between reloads")]
        assert "throughput by 20% (largest / smallest of 3 repeats)" in remark
        assert "several repeats" in remark
        assert not any("moves" in note or "drifted" in note for note in notes), "what lies between repeats is no drift"

    def test_what_is_said_of_one_repeat_names_it(self) -> None:
        slow = repeat(1000, 1)
        slow[3] = repeat(500, 1)[3]
        notes = row([repeat(1000), slow]).notes
        assert any(note.startswith("repeat 2: slice 4 of 8 ran at 50% of the median") for note in notes)


def test_repeats_that_differ_within_their_intervals_are_not_worth_a_word() -> None:
    rng = np.random.default_rng(1)
    said = 0
    for _ in range(40):
        of = [[repeat(int(rate), number)[n] for n, rate in enumerate(rng.normal(1000, 60, 8))] for number in range(3)]
        said += bool(differences(compared(of), len(of)))
    assert said <= 3


class TestWhatIsThere:
    ONE = row(repeats(1000))
    ALL = row(repeats(1000, 1000, 1000))

    def test_a_row_of_fewer_repeats_than_asked_is_shown_as_unfinished(self) -> None:
        shown = as_asked(self.ONE, 3)
        assert (self.ONE.status, shown.status) == ("ok", "unstable")
        assert shown.notes[0] == "unfinished: 1 of 3 repeats; the same command measures the others"
        assert shown.values == self.ONE.values

    def test_a_row_of_as_many_or_more_is_shown_as_it_is(self) -> None:
        assert as_asked(self.ALL, 3) is self.ALL
        assert as_asked(self.ALL, 1) is self.ALL

    def test_a_row_of_before_there_were_repeats_is_one(self) -> None:
        old = replace(self.ONE, repeats=0)
        assert enough(old, 1)
        assert not enough(old, 2)

    def test_what_failed_is_measured_again_and_what_makes_no_sense_is_not(self) -> None:
        assert not enough(failed(PHASE, "x"), 1)
        assert not unfinished(failed(PHASE, "x"), 3)
        assert enough(skipped(PHASE, "x"), 3)
        assert not enough(None, 1)

    def test_repeats_whose_slices_are_there_are_not_measured_again(self) -> None:
        of = slices(repeats(1000, 1000))
        two = row(repeats(1000, 1000))
        assert begun(two, of) == 2
        assert begun(two, []) == 0, "the slices of a merged row are elsewhere"
        assert begun(failed(PHASE, "x"), of) == 0
        assert begun(replace(two, status="failed", repeats=1), of) == 1
        assert begun(None, of) == 0
