"""What the statistics need of a slice: bounds, warm-up and length, judged on a load that runs like a clock."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from fakes import SECOND_NS, FakeClock, Replies, World, group

from model_analyzer.core.load import Load, LoadOrder, of_intervals
from model_analyzer.core.measurement import Slice
from model_analyzer.core.plan import Group
from model_analyzer.core.stopping import StopRule
from model_analyzer.ports import LoadBatch


@dataclass
class Clockwork:
    """A loop whose requests all take the same time; an open one sends them at equal distances.

    failing_s: how long, from the first order's start, they fail. failures_a_batch: how many more fail all the time.

    As from the real load generator, a batch comes every 50 ms and says what happened since the one before.
    """

    clock: FakeClock
    latency_s: float
    failing_s: float = 0.0
    failures_a_batch: int = 0
    began: list[int] = field(default_factory=list)

    @contextmanager
    def run(self, order: LoadOrder) -> Iterator[Iterator[LoadBatch]]:
        self.began.append(self.clock.now_ns())
        latency_ns = int(self.latency_s * SECOND_NS)
        if order.load.kind == "concurrency":
            batches = self._batches(self.clock.now_ns(), latency_ns, int(order.load.value))
        else:
            batches = self._batches(self.clock.now_ns(), int(SECOND_NS / order.load.value), 1)
        yield batches
        batches.close()

    def _batches(self, began_ns: int, period_ns: int, at_once: int) -> Generator[LoadBatch]:
        told_ns = began_ns
        while True:
            due_ns = told_ns + SECOND_NS // 20
            # A reader who slept finds the batches that came meanwhile.
            self.clock.sleep(max(0, due_ns - self.clock.now_ns()) / SECOND_NS)
            times = np.arange((told_ns - began_ns) // period_ns + 1, (due_ns - began_ns) // period_ns + 1)
            done_ns = np.repeat(began_ns + times * period_ns, at_once).astype(np.int64)
            failing = due_ns - self.began[0] <= self.failing_s * SECOND_NS
            yield LoadBatch(
                due_ns,
                done_ns[:0] if failing else done_ns,
                np.full(0 if failing else len(done_ns), int(self.latency_s * SECOND_NS), np.int64),
                {"busy": failures} if (failures := 1 if failing else self.failures_a_batch) else {},
                cpu_ns=0,
            )
            told_ns = due_ns

    def close(self) -> None: ...


@pytest.fixture
def world(world: World) -> World:
    world.rule = StopRule("fixed", min_s=10.0, max_s=10.0)
    return world


def measure(world: World, latency_s: float, concurrency: int = 1) -> Clockwork:
    clockwork = Clockwork(world.clock, latency_s)
    world.generator = clockwork  # type: ignore[assignment]
    world.run([group(loads=(concurrency,))])
    return clockwork


def throughput(world: World) -> float:
    value = world.store.measurements[0].values["perf_throughput"]
    assert value is not None
    return value


@pytest.mark.parametrize("latency_s", [0.0317, 0.11, 0.13, 0.27, 0.4049, 0.999, 1.02])
def test_a_loop_that_runs_like_a_clock_is_counted_without_bias(world: World, latency_s: float) -> None:
    measure(world, latency_s)
    replies = 10 / latency_s
    assert throughput(world) == pytest.approx(1 / latency_s, rel=0.02 + 0.5 / replies)


def test_a_model_of_one_reply_a_second_is_measured(world: World) -> None:
    measure(world, 1.0)
    assert world.store.measurements[0].status == "ok"
    assert world.store.measurements[0].values["perf_latency_p50"] == pytest.approx(1e9, rel=0.01)


def test_a_slice_of_a_slow_model_holds_a_handful_of_replies(world: World) -> None:
    clockwork = measure(world, 0.4)
    assert len(clockwork.began) == 5, "slices of 2 s"


def test_a_model_of_one_reply_a_second_still_gets_an_interval(world: World) -> None:
    world.rule = StopRule("interval", min_s=2.0, max_s=10.0)
    measure(world, 0.9)
    assert world.store.measurements[0].values["perf_throughput_ci"] is not None


def test_an_open_loop_of_few_requests_is_counted_without_bias(world: World) -> None:
    one = group()
    phase = replace(one.phases[0], load=Load("request_rate", 0.9))
    world.generator = Clockwork(world.clock, 0.005)  # type: ignore[assignment]
    world.run([replace(one, phases=(phase,))])
    assert throughput(world) == pytest.approx(0.9, rel=0.1)


@pytest.mark.parametrize("latency_s", [0.001, 0.05, 0.11, 0.286, 0.4, 0.75, 1.3, 2.9])
@pytest.mark.parametrize("max_s", [1.0, 3.0, 10.0])
def test_no_phase_takes_more_than_max_seconds(world: World, latency_s: float, max_s: float) -> None:
    world.rule = StopRule("interval", min_s=1.0, max_s=max_s, precision=1e-9)
    measure(world, latency_s)
    assert world.store.measurements[0].values["measured_seconds"] == pytest.approx(max_s, abs=1e-6)


def test_a_slice_is_as_long_as_asked_for(world: World) -> None:
    measure(world, 0.001)
    assert world.store.measurements[0].values["measured_seconds"] == pytest.approx(10.0, abs=1e-6)


def test_a_model_slower_than_max_seconds_fails_and_says_so(world: World) -> None:
    measure(world, 12.0)
    (row,) = world.store.measurements
    assert (row.status, row.notes) == ("failed", ("no reply within 10 s",))


def warmups(world: World, measured: Group | None = None) -> list[float]:
    """Seconds of warm-up of each slice, in order."""
    found = []
    add = world.store.add_slice

    def keep(piece: Slice) -> None:
        found.append(piece.warmup_s)
        add(piece)

    world.store.add_slice = keep  # type: ignore[method-assign]
    world.run([measured or group()])
    return found


def test_later_slices_warm_up_as_long_as_the_slow_requests_take(world: World) -> None:
    world.generator.script = lambda _order: Replies(rate=1000, latency_ns=700_000_000)
    first, *later = warmups(world)
    assert first < 0.3, "nothing is known of the latency yet"
    assert later
    assert all(0.7 <= seconds <= 0.7 + 0.7 + 0.1 for seconds in later), "and a point of the period, spread"


def test_every_place_of_the_loop_comes_back_twice_before_a_slice(world: World) -> None:
    world.generator = Clockwork(world.clock, 0.6)  # type: ignore[assignment]
    first, *_ = warmups(world)
    assert first == pytest.approx(1.2, abs=0.06)


def test_failures_of_the_warm_up_do_not_count(world: World) -> None:
    clockwork = Clockwork(world.clock, 0.01, failing_s=0.35)
    world.generator = clockwork  # type: ignore[assignment]
    world.run([group()])
    assert world.store.measurements[0].values["requests_failed"] == 0


def test_only_failures_inside_a_slice_count(world: World) -> None:
    world.generator = Clockwork(world.clock, 0.3, failures_a_batch=1)  # type: ignore[assignment]
    world.run([group()])
    values = world.store.measurements[0].values
    seconds = 2 * 10 / 7
    assert values["measured_seconds"] == pytest.approx(seconds), "two slices of seven, then the phase is given up"
    assert values["requests_failed"] == pytest.approx(20 * seconds, abs=2), "20 batches a second"


def test_a_ramp_is_over_before_a_slice_is_measured(world: World) -> None:
    world.rule = StopRule("fixed", min_s=1.0, max_s=2.0)
    one = group()
    phase = replace(one.phases[0], load=Load("concurrency", 1, ramp_s=4.0))
    found = warmups(world, replace(one, phases=(phase,)))
    assert found
    # And then it settles as without one; that it is longer than a warm-up may be does not matter.
    assert all(4.2 <= seconds <= 4.5 for seconds in found)
    assert not any("settled" in note for note in world.store.measurements[0].notes)
    # What is measured is not forgotten while the next slice's load grows: the time left is reckoned from it.
    told = [live.before_s + live.measured_s for _, live in world.progress.lives]
    assert told == sorted(told)


@pytest.mark.parametrize(("rate", "latency_ns"), [(1000.0, 1_000_000), (40.0, 25_000_000)])
def test_a_count_of_requests_ends_a_phase(world: World, rate: float, latency_ns: int) -> None:
    world.request_counts = {"m": 700}
    world.rule = StopRule("interval", min_s=2.0, max_s=10.0)
    world.generator.script = lambda _order: Replies(rate=rate, latency_ns=latency_ns)
    world.run([group()])
    (row,) = world.store.measurements
    replies, seconds = row.values["requests_succeeded"], row.values["measured_seconds"]
    assert replies is not None
    assert seconds is not None
    # A report of 50 ms more at most, at both ends of the last slice; max_seconds does not end it, nor is it kept up by the rule.
    assert 700 <= replies <= 700 + 0.15 * rate + 2
    assert seconds == pytest.approx(700 / rate, abs=0.2)
    assert row.status == "ok"


def test_failed_requests_count_as_requests(world: World) -> None:
    world.request_counts = {"m": 2000}
    world.generator.script = lambda _order: Replies(rate=1000.0, failures={"busy": 20.0})
    world.run([group()])
    (row,) = world.store.measurements
    assert row.status == "failed", "above 1 % of them: given up after two slices, whatever the count"
    world = World(lambda _order: Replies(rate=10_000.0, failures={"busy": 80.0}))
    world.request_counts = {"m": 20_000}
    world.run([group()])
    values = world.store.measurements[0].values
    assert values["requests_failed"] is not None
    assert values["requests_succeeded"] is not None
    assert 20_000 <= values["requests_failed"] + values["requests_succeeded"] <= 22_000


def test_slices_of_custom_intervals_are_whole_rounds_and_begin_at_places_of_their_own(world: World) -> None:
    intervals_ns = (100_000_000, 200_000_000, 500_000_000)
    load = of_intervals(intervals_ns)
    world.intervals_ns = {load.intervals: intervals_ns}
    one = group()
    lengths: list[float] = []
    add = world.store.add_slice

    def keep(piece: Slice) -> None:
        lengths.append(piece.seconds)
        add(piece)

    world.store.add_slice = keep  # type: ignore[method-assign]
    clockwork = Clockwork(world.clock, 0.005)
    orders: list[LoadOrder] = []
    run = clockwork.run
    clockwork.run = lambda order: orders.append(order) or run(order)  # type: ignore[func-returns-value, method-assign]
    world.generator = clockwork  # type: ignore[assignment]
    world.run([replace(one, phases=(replace(one.phases[0], load=load),))])
    assert all(order.intervals_ns == intervals_ns for order in orders)
    assert [order.seed for order in orders] == list(range(len(orders)))
    assert all(seconds / 0.8 == pytest.approx(round(seconds / 0.8), abs=0.01) for seconds in lengths)


@pytest.mark.parametrize(
    ("latency_s", "took_s", "status"),
    [(5.0, 20.0, "unstable"), (1.0, 22.0, "unstable"), (0.1, 16.0, "unstable"), (0.001, 9.0, "ok")],
    ids=["0.2/s", "1/s", "10/s", "1000/s"],
)
def test_slow_and_fast_models_end_in_the_time_that_the_page_names(
    world: World, latency_s: float, took_s: float, status: str
) -> None:
    world.rule = StopRule("interval", min_s=2.0, max_s=10.0)
    began_ns = world.clock.now_ns()
    measure(world, latency_s)
    assert (world.clock.now_ns() - began_ns) / SECOND_NS == pytest.approx(took_s, abs=0.5)
    assert world.store.measurements[0].status == status
