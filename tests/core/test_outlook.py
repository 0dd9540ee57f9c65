"""How long a run takes: what is left is right by half way, however wrong the guess before it was."""

from __future__ import annotations

from dataclasses import replace

import pytest
from adapters.measured import measured

from model_analyzer.core.estimate import SERVER_S, VARIANT_S, Outlook
from model_analyzer.core.load import InputSource, Load
from model_analyzer.core.measurement import Measurement
from model_analyzer.core.plan import Group, Phase
from model_analyzer.core.reduce import failed
from model_analyzer.core.search import Sweep
from model_analyzer.core.stopping import StopRule
from model_analyzer.core.variant import Variant

FIXED = StopRule("fixed", min_s=2.0)


def group(model: str = "m", phases: int = 4) -> Group:
    variant = Variant(model, f"{model}_config_default")
    loads = [Load("concurrency", n + 1) for n in range(phases)]
    return Group(
        variant, tuple(Phase(f"{model}-{load.value}", variant, 1, load, InputSource(), "http") for load in loads)
    )


def done(phase: Phase, seconds: float, status: str = "ok", repeats: int = 1) -> Measurement:
    row = measured(phase)
    return replace(row, status=status, repeats=repeats, values={**row.values, "measured_seconds": seconds})  # type: ignore[arg-type]


def outlook(groups: list[Group], rule: StopRule = FIXED, **keys: float) -> Outlook:
    return Outlook.of(groups, rule, 0.5, keys.get("baseline_s", 3.0))


class Simulated:
    """A run that takes what it takes. history: (seconds since its begin, seconds left as told then)."""

    def __init__(self, left: Outlook, load_s: float = 2.0, overhead_s: float = 0.4, slice_s: float = 0.5) -> None:
        self.left, self.load_s, self.overhead_s, self.slice_s = left, load_s, overhead_s, slice_s
        self.now_s = 1000.0
        self.history: list[tuple[float, float]] = []

    def run(self, groups: list[Group], needs_s: float, start_s: float = 7.0) -> None:
        """Each phase needs so many measured seconds."""
        self.left.begin(self.now_s)
        self._wait(start_s)
        for each in groups:
            self._wait(self.load_s)
            measured_s = {phase.id: 0.0 for phase in each.phases}
            while measured_s:
                for phase in [phase for phase in each.phases if phase.id in measured_s]:
                    self.left.running(phase.id, measured_s[phase.id], self.now_s)
                    self._wait(self.overhead_s + self.slice_s)
                    measured_s[phase.id] += self.slice_s
                    self.left.running(phase.id, measured_s[phase.id], self.now_s)
                    if measured_s[phase.id] >= needs_s:
                        self.left.finish(done(phase, measured_s.pop(phase.id), repeats=each.repeat + 1), self.now_s)

    def _wait(self, seconds: float) -> None:
        self.history.append((self.now_s - 1000.0, self.left.left_s(self.now_s)))
        self.now_s += seconds

    def error_at(self, share: float) -> float:
        """By which share of the whole run what was told at `share` of it is wrong."""
        took_s = self.now_s - 1000.0
        at_s, left_s = next(each for each in self.history if each[0] >= share * took_s)
        return abs(at_s + left_s - took_s) / took_s


def test_before_anything_is_known_it_is_server_baseline_loads_and_slices() -> None:
    left = outlook([group(phases=4)])
    assert left.left_s(0.0) == pytest.approx(SERVER_S + 3.0 + VARIANT_S + 4 * 2.0 * (1 + 0.35 / 0.5))


def test_time_that_goes_by_is_taken_off_and_never_below_nothing() -> None:
    left = outlook([group()])
    whole_s = left.left_s(0.0)
    left.begin(50.0)
    assert left.left_s(52.0) == pytest.approx(whole_s - 2.0)
    assert Outlook().left_s(1e6) == 0


def test_nothing_left_takes_no_time() -> None:
    assert outlook([], baseline_s=0.0).left_s(0.0) == 0


@pytest.mark.parametrize(("load_s", "overhead_s"), [(2.0, 0.35), (20.0, 0.35), (2.0, 2.0), (0.1, 0.1)])
@pytest.mark.parametrize(("variants", "needs_s"), [(4, 2.0), (4, 6.0), (4, 10.0), (1, 10.0)])
def test_by_half_way_the_end_is_known_within_a_fifth(
    load_s: float, overhead_s: float, variants: int, needs_s: float
) -> None:
    """Of one variant the phases end together, at a time that nothing told before: but for the most that they may take."""
    groups = [group(f"m{n}") for n in range(variants)]
    run = Simulated(outlook(groups, StopRule()), load_s, overhead_s)
    run.run(groups, needs_s)
    assert run.error_at(0.5) < 0.2
    assert run.error_at(0.9) < 0.1
    assert run.left.left_s(run.now_s) == 0


def test_a_model_that_is_slower_than_others_is_known_while_it_runs() -> None:
    """Slices of a slow model are longer, and its warm-up too."""
    groups = [group("slow", 2)]
    run = Simulated(outlook(groups, StopRule()), overhead_s=3.0, slice_s=2.5)
    run.run(groups, 10.0)
    assert run.error_at(0.5) < 0.2


def test_a_load_alone_goes_on_until_it_has_seen_some_seconds_of_its_server() -> None:
    alone, among = outlook([group(phases=1)], StopRule()), outlook([group(phases=8)], StopRule())
    setup_s = SERVER_S + 3.0 + VARIANT_S
    assert alone.left_s(0.0) - setup_s > (among.left_s(0.0) - setup_s) / 8


def test_repeats_count_each_and_start_a_server_of_ours_each_time() -> None:
    groups = [group()]
    once, thrice = (Sweep(groups, repeats=n).left for n in (1, 3))
    each_s = Outlook.of(once, FIXED, 0.5, 0.0).left_s(0.0)
    assert Outlook.of(thrice, FIXED, 0.5, 0.0).left_s(0.0) == pytest.approx(3 * each_s)
    remote_s = Outlook.of(once, FIXED, 0.5, 0.0, ours=False).left_s(0.0)
    assert Outlook.of(thrice, FIXED, 0.5, 0.0, ours=False).left_s(0.0) == pytest.approx(3 * remote_s)
    run = Simulated(Outlook.of(thrice, StopRule(), 0.5, 3.0, ours=False), overhead_s=0.8)
    run.run(list(thrice), 4.0, start_s=3.0)
    assert run.error_at(0.5) < 0.2


def test_what_failed_is_not_repeated_and_settles_all_its_repeats() -> None:
    left = Outlook.of(Sweep([group(phases=2)], repeats=3).left, FIXED, 0.5, 0.0)
    bad, good = group(phases=2).phases
    assert left.finish(failed(bad, "x"), 1.0) == 3
    assert [left.finish(done(good, 2.0, repeats=n), 2.0) for n in (1, 2, 3)] == [1, 1, 1]
    assert left.left_s(3.0) == 0


def test_a_resumed_phase_takes_what_is_missing_of_it() -> None:
    one = group(phases=1)
    left = outlook([one], FIXED, baseline_s=0.0)
    left.begin(0.0)
    left.running(one.phases[0].id, 1.5, 6.0)
    assert left.left_s(6.0) == pytest.approx(0.5 * (1 + 0.35 / 0.5))


def test_a_phase_that_is_extended_for_gpu_samples_is_never_said_to_be_over() -> None:
    one = group(phases=1)
    left = outlook([one])
    left.begin(0.0)
    left.running(one.phases[0].id, 0.0, 9.0)
    left.running(one.phases[0].id, 30.0, 60.0)
    assert left.left_s(60.0) > 0
