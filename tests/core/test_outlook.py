"""How long a run takes: what is left is right by half way, however wrong the guess before it was."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import queues
from adapters.measured import measured, piece
from queues import Server, Speed

from model_analyzer.core.estimate import SERVER_S, VARIANT_S, Outlook
from model_analyzer.core.forecast import Forecast, forecast, worth_a_look
from model_analyzer.core.load import InputSource, Load
from model_analyzer.core.measurement import Measurement, Slice
from model_analyzer.core.plan import Group, Phase
from model_analyzer.core.reduce import failed
from model_analyzer.core.search import Sweep
from model_analyzer.core.stopping import StopRule, Verdict, judge, may_be_done
from model_analyzer.core.variant import Variant

FIXED = StopRule("fixed", min_s=2.0)


def group(model: str = "m", phases: int = 4, load: Load | None = None) -> Group:
    variant = Variant(model, f"{model}_config_default")
    loads = [load] if load else [Load("concurrency", n + 1) for n in range(phases)]
    return Group(
        variant, tuple(Phase(f"{model}-{load.value}", variant, 1, load, InputSource(), "http") for load in loads)
    )


def done(phase: Phase, seconds: float, status: str = "ok", repeats: int = 1) -> Measurement:
    row = measured(phase)
    return replace(row, status=status, repeats=repeats, values={**row.values, "measured_seconds": seconds})  # type: ignore[arg-type]


def outlook(groups: Sequence[Group], rule: StopRule = FIXED, **keys: float) -> Outlook:
    return Outlook.of(groups, rule, 0.5, keys.get("baseline_s", 3.0))


@dataclass(frozen=True)
class Pace:
    """What a model takes beside its measured time, and the length of its slices."""

    load_s: float = 2.0
    overhead_s: float = 0.4
    slice_s: float = 0.5


# A phase that is measured: told that a slice of so many seconds begins at a time, it says whether that was the last one, and
# what it foretells.
Measuring = Callable[[Phase, float, float], tuple[bool, Forecast | None]]


class Simulated:
    """A run that takes what it takes. history: (seconds since its begin, seconds left as told then)."""

    def __init__(self, left: Outlook, pace: Pace = Pace(), paces: Mapping[str, Pace] = {}) -> None:
        self.left, self._pace, self._paces = left, pace, paces
        self.now_s = 1000.0
        self.history: list[tuple[float, float]] = []

    def run(self, groups: Sequence[Group], measuring: Measuring, start_s: float = 7.0) -> None:
        self.left.begin(self.now_s)
        self._wait(start_s)
        for each in groups:
            pace = self._paces.get(each.variant.model, self._pace)
            self._wait(pace.load_s)
            measured_s = {phase.id: 0.0 for phase in each.phases}
            while measured_s:
                for phase in [phase for phase in each.phases if phase.id in measured_s]:
                    self.left.running(phase.id, measured_s[phase.id], self.now_s)
                    self._wait(pace.overhead_s)
                    last, foretold = measuring(phase, self.now_s, pace.slice_s)
                    self._wait(pace.slice_s)
                    measured_s[phase.id] += pace.slice_s
                    self.left.running(phase.id, measured_s[phase.id], self.now_s, foretold)
                    if last:
                        self.left.finish(done(phase, measured_s.pop(phase.id), repeats=each.repeat + 1), self.now_s)

    def _wait(self, seconds: float) -> None:
        # Displays ask all the time.
        end_s = self.now_s + seconds
        while self.now_s < end_s:
            self.history.append((self.now_s - 1000.0, self.left.left_s(self.now_s)))
            self.now_s = min(self.now_s + 0.5, end_s)

    def error_at(self, share: float) -> float:
        """By which share of the whole run what was told at `share` of it is wrong."""
        took_s = self.now_s - 1000.0
        at_s, left_s = next(each for each in self.history if each[0] >= share * took_s)
        return abs(at_s + left_s - took_s) / took_s


class After:
    """Precise after so many measured seconds, in each pass; nothing is foretold."""

    def __init__(self, needs_s: float) -> None:
        self._needs_s = needs_s
        self._measured_s: dict[str, float] = {}

    def __call__(self, phase: Phase, now_s: float, seconds: float) -> tuple[bool, Forecast | None]:
        so_far_s = self._measured_s.get(phase.id, 0.0) + seconds
        last = so_far_s >= self._needs_s
        self._measured_s[phase.id] = 0.0 if last else so_far_s
        return last, None


@dataclass
class Queued:
    """Slices of simulated servers, judged and foretold as the engine does."""

    rule: StopRule
    server: Server
    seed: int = 0
    _replies: dict[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)  # type: ignore[type-arg]
    _slices: dict[str, list[Slice]] = field(default_factory=dict)

    def __call__(self, phase: Phase, now_s: float, seconds: float) -> tuple[bool, Forecast | None]:
        if phase.id not in self._replies:
            rng = np.random.default_rng([self.seed, len(self._replies)])
            self._replies[phase.id] = queues.closed_loop(self.server, int(phase.load.value), 300.0, rng)
        (stats,) = queues.slices_of(*self._replies[phase.id], 1, seconds, 1.0, now_s - 1000.0)
        slices = self._slices.setdefault(phase.id, [])
        slices.append(replace(piece(phase, len(slices)), stats=stats))
        verdict = self._judge(slices)
        return verdict.done, forecast(slices, self.rule, verdict)

    def _judge(self, slices: Sequence[Slice]) -> Verdict:
        stats = [each.stats for each in slices]
        if may_be_done(stats, self.rule) or worth_a_look(len(stats), self.rule):
            return judge(stats, self.rule)
        return Verdict(False, False, (), None, None)


# Precise after half of the time, mostly by its p99; never within it.
STEADY = Server(0.002, queues.exponential)
MOVING = Server(0.002, queues.gamma, Speed(ar_cv=0.15, ar_s=0.3))


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
    run = Simulated(outlook(groups, StopRule()), Pace(load_s, overhead_s))
    run.run(groups, After(needs_s))
    assert run.error_at(0.5) < 0.2
    assert run.error_at(0.9) < 0.1
    assert run.left.left_s(run.now_s) == 0


def test_a_model_that_is_slower_than_others_is_known_while_it_runs() -> None:
    """Slices of a slow model are longer, and its warm-up too."""
    groups = [group("slow", 2)]
    run = Simulated(outlook(groups, StopRule()), Pace(overhead_s=3.0, slice_s=2.5))
    run.run(groups, After(10.0))
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
    run = Simulated(Outlook.of(thrice, StopRule(), 0.5, 3.0, ours=False), Pace(overhead_s=0.8))
    run.run(thrice, After(4.0), start_s=3.0)
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


# -- as the run goes -----------------------------------------------------------------------------------


def errors(groups: Sequence[Group], server: Server, seeds: int = 3, **keys: Pace | Mapping[str, Pace]) -> np.ndarray:  # type: ignore[type-arg]
    """[seeds, 4]: the error at 10 %, 25 %, 50 % and 75 % of as many runs."""
    found = []
    for seed in range(seeds):
        run = Simulated(outlook(groups, StopRule()), **keys)  # type: ignore[arg-type]
        run.run(groups, Queued(StopRule(), server, seed))
        assert run.left.left_s(run.now_s) == 0
        found.append([run.error_at(share) for share in (0.1, 0.25, 0.5, 0.75)])
    return np.array(found)


@pytest.mark.parametrize("server", [STEADY, MOVING], ids=["becomes precise", "never does"])
def test_phases_of_a_single_variant_foretell_when_they_are_precise(server: Server) -> None:
    """A half-width of a few slices is itself not known well: single runs are off by more than they are on average."""
    found = errors([group()], server, 3 if server is STEADY else 1)
    assert all(found.mean(axis=0) < [0.25, 0.2, 0.2, 0.15])
    assert found.max() < 0.35


@pytest.mark.parametrize("rate", [50.0, 500.0, 5000.0])
def test_a_count_of_requests_is_known_with_the_first_slices(rate: float) -> None:
    groups, rule = [group(phases=2)], StopRule(requests=30_000 if rate > 100 else 2000)
    run = Simulated(Outlook.of(groups, StopRule(), 0.5, 3.0, counts={"m": rule.requests or 0}))
    run.run(groups, Queued(rule, Server(1 / rate, queues.gamma)))
    assert run.error_at(0.5) < 0.2
    assert run.error_at(0.25) < (0.2 if rate < 1000 else 1.0)


def test_a_count_of_requests_of_an_open_loop_is_known_before() -> None:
    groups = [group(load=Load("request_rate", 50))]
    left = Outlook.of(groups, StopRule(), 0.5, 0.0, ours=False, counts={"m": 1000})
    assert left.left_s(0.0) == pytest.approx(VARIANT_S + 20 * (1 + 0.35 / 0.5))


@pytest.mark.parametrize("order", [("slow", "quick", "middle"), ("quick", "middle", "slow")])
def test_three_models_of_different_speed(order: tuple[str, ...]) -> None:
    paces = {"slow": Pace(6.0, 1.0, 1.0), "middle": Pace(3.0, 0.5), "quick": Pace(2.0, 0.3)}
    found = errors([group(model, 3) for model in order], MOVING, 1, paces=paces)
    assert all(found.mean(axis=0) < [0.25, 0.2, 0.2, 0.15])


@pytest.mark.parametrize("load_s", [10.0, 30.0])
def test_models_that_are_slow_to_load_are_known_while_the_first_one_loads(load_s: float) -> None:
    found = errors([group(f"m{n}", 3) for n in range(3)], MOVING, 1, pace=Pace(load_s))
    assert all(found.mean(axis=0) < [0.25, 0.2, 0.2, 0.15])


def test_another_repeat_of_a_phase_takes_what_it_took() -> None:
    """Of 600 requests at 100 a second the second pass takes as long as the first, whatever the stop rule would."""
    groups = Sweep([group(phases=1)], repeats=2).left
    left = Outlook.of(groups, StopRule(), 0.5, 0.0, ours=False, counts={"m": 600})
    (phase,) = groups[0].phases
    left.begin(0.0)
    left.running(phase.id, 0.0, 2.5)
    left.running(phase.id, 6.0, 2.5 + 6.0 * 1.7, Forecast(6.0))
    left.finish(done(phase, 6.0), 2.5 + 6.0 * 1.7)
    assert left.left_s(2.5 + 6.0 * 1.7) == pytest.approx(2.5 + 6.0 * 1.7)


def test_a_wait_for_gpu_telemetry_is_no_slower_pace() -> None:
    """Once the exporter's cadence is seen the wait is in the time left, of phases that have not begun yet, too."""
    one, other = group("a", 1), group("b", 1)
    (phase,), pace, load_s = one.phases, 1.7, 2.5
    left = Outlook.of([one, other], FIXED, 0.5, 0.0, ours=False)
    left.begin(0.0)
    left.running(phase.id, 0.0, load_s)
    now_s = load_s + 2.0 * pace
    left.running(phase.id, 2.0, now_s, Forecast(2.0, None))
    assert left.left_s(now_s) == pytest.approx(load_s + 2.0 * pace)
    left.running(phase.id, 2.0, now_s + 5.0, Forecast(2.0, 45.0))
    assert left.left_s(now_s + 5.0) == pytest.approx(40.0 + load_s + 2.0 * pace + 45.0)
    left.running(phase.id, 2.0, now_s + 25.0)
    assert left.left_s(now_s + 25.0) == pytest.approx(20.0 + load_s + 2.0 * pace + 45.0)
    left.finish(done(phase, 46.0), now_s + 44.0)
    assert left.left_s(now_s + 44.0) == pytest.approx(load_s + 2.0 * pace + 44.0)


def test_a_load_that_is_late_is_neither_over_nor_without_end() -> None:
    left = outlook([group(), group("other")], baseline_s=0.0)
    left.begin(0.0)
    whole_s, load_s = left.left_s(0.0), 60.0
    told = [left.left_s(SERVER_S + seconds) for seconds in (30.0, load_s)]
    phases_s = whole_s - SERVER_S - 2 * VARIANT_S
    # 30 s were left of this load, and the other one takes a minute, too.
    assert told[0] == pytest.approx(phases_s + 30 + 60, rel=0.3)
    assert told[1] < phases_s + 60 + 2 * 60


def test_the_plan_says_between_what_the_time_lies() -> None:
    rule = StopRule(min_s=2.0, max_s=10.0)
    least_s, most_s = outlook([group()], rule).bounds_s(0.0)
    assert least_s < outlook([group()], rule).left_s(0.0) < most_s
    assert least_s == pytest.approx(outlook([group()], replace(rule, max_s=2.0)).left_s(0.0))
    assert outlook([group()]).bounds_s(0.0) == (outlook([group()]).left_s(0.0),) * 2
