"""What a run tells of its own time while it goes on, against the time that it took: the engine and the outlook together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import pytest
from fakes import FakeClock, FakeProgress, Replies, World, group

from model_analyzer.core.estimate import Outlook
from model_analyzer.core.load import Load
from model_analyzer.core.measurement import Measurement
from model_analyzer.core.plan import Group, Phase
from model_analyzer.core.stopping import StopRule
from model_analyzer.ports import Live


@dataclass
class Told(FakeProgress):
    """history: (when, seconds left as told then)."""

    outlook: Outlook = field(default_factory=Outlook)
    clock: FakeClock = field(default_factory=FakeClock)
    history: list[tuple[float, float]] = field(default_factory=list)

    def live(self, phase: Phase, figures: Live) -> None:
        super().live(phase, figures)
        self.outlook.running(phase.id, figures.before_s, self._now(), figures.forecast)
        self._note()

    def finished(self, measurement: Measurement) -> None:
        super().finished(measurement)
        self.outlook.finish(measurement, self._now())
        self._note()

    def _now(self) -> float:
        return self.clock.now_ns() / 1e9

    def _note(self) -> None:
        self.history.append((self._now(), self.outlook.left_s(self._now())))


def errors(world: World, groups: Sequence[Group], counts: Mapping[str, int] = {}) -> dict[float, float]:
    """Share of the run that is over -> by which share of the whole what is told then is wrong."""
    told = Told(
        outlook=Outlook.of(groups, world.rule, 0.5, 0.0, ours=False, counts=counts),
        clock=world.clock,
    )
    world.progress = told
    began_s = world.clock.now_ns() / 1e9
    told.outlook.begin(began_s)
    told.history.append((began_s, told.outlook.left_s(began_s)))
    world.run(groups)
    took_s = world.clock.now_ns() / 1e9 - began_s
    found = {}
    for share in (0.0, 0.1, 0.25, 0.5, 0.75):
        at_s, left_s = next(each for each in told.history if each[0] >= began_s + share * took_s)
        found[share] = abs(at_s - began_s + left_s - took_s) / took_s
    assert told.history[-1][1] == 0
    return found


def test_a_count_of_requests_is_foretold_by_the_rate_of_its_first_slices(world: World) -> None:
    world.request_counts = {"m": 8000}
    world.rule = StopRule("interval", min_s=2.0, max_s=10.0)
    world.generator.script = lambda order: Replies(rate=200.0 * order.load.value, latency_ns=5_000_000)
    found = errors(world, [group(loads=(1, 2))], {"m": 8000})
    assert found[0.1] < 0.25
    assert max(found[0.25], found[0.5], found[0.75]) < 0.2


@pytest.mark.parametrize("cadence_s", [5.0, 30.0])
def test_an_exporter_s_cadence_once_seen_is_in_the_time_left(world: World, cadence_s: float) -> None:
    world.sampler.gpu, world.sampler.cadence_s = "GPU-0", cadence_s
    world.min_gpu_samples = 3
    found = errors(world, [group(loads=(1, 2, 4, 8))])
    assert max(found[0.25], found[0.5], found[0.75]) < 0.2


def test_ramps_are_in_the_time_from_the_start(world: World) -> None:
    world.rule = StopRule("fixed", min_s=4.0, max_s=10.0)
    ramped = group(loads=(1, 2))
    phases = tuple(replace(each, load=Load("concurrency", each.load.value, ramp_s=4.0)) for each in ramped.phases)
    found = errors(world, [replace(ramped, phases=phases)])
    assert max(found.values()) < 0.2


def test_after_each_slice_but_the_last_it_is_told_how_long_the_phase_will_take(world: World) -> None:
    world.rule = StopRule("fixed", min_s=2.0, max_s=10.0)
    world.run([group()])
    told = [live for _, live in world.progress.lives if live.stage == "slice done"]
    assert [live.before_s for live in told] == pytest.approx([0.5, 1.0, 1.5], abs=0.01)
    assert all(live.forecast is not None and live.forecast.seconds == pytest.approx(2.0, abs=0.1) for live in told)
