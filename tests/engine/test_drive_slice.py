"""One slice: warm-up left out, measured between two scrapes, given up when it is hopeless."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import cycle

import pytest
from fakes import SECOND_NS, Replies, Script, World, group

from model_analyzer.core.gpus import GpuChoice
from model_analyzer.core.load import Load, LoadOrder
from model_analyzer.core.measurement import Slice
from model_analyzer.engine.recorder import Recorder
from model_analyzer.engine.slice import SliceFailed, SlicePlan, drive_slice


def drive(
    world: World,
    script: Script,
    load: int = 1,
    measure_s: float = 0.5,
    patience_s: float = 10.0,
    timeout_s: float = 10.0,
    most_workers: int = 1,
    ramp_s: float = 0.0,
) -> Slice:
    (phase,) = group(loads=[load]).phases
    world.generator.script = script
    requests = world.encoder.encode(world.server.load(phase.variant), 1, phase.source, "http", "")
    order = LoadOrder("", Load("concurrency", load, ramp_s=ramp_s), requests, timeout_s)
    plan = SlicePlan(phase, order, 0, measure_s, patience_s, GpuChoice(), most_workers=most_workers)
    recorder = Recorder([world.sampler], 3600.0, world.clock)
    recorder.start()
    try:
        return drive_slice(plan, world.generator, recorder, world.clock, world.progress)
    finally:
        recorder.stop()


@pytest.fixture
def running(world: World) -> World:
    world.server.dead = None
    return world


def in_turn(*replies: Replies) -> Script:
    """One of these each batch; the last one for ever."""
    left: Iterator[Replies] = iter(replies)
    return lambda _order: next(left, replies[-1])


def test_only_replies_between_the_scrapes_count(running: World) -> None:
    piece = drive(running, lambda _order: Replies(rate=1000))
    assert piece.stats.count == pytest.approx(1000 * piece.seconds, abs=1)
    assert piece.server is not None
    assert piece.server["nv_inference_request_success"] == pytest.approx(
        piece.stats.count, abs=51
    )  # the fake counts a batch at once


def test_warm_up_lasts_until_windows_agree(running: World) -> None:
    cold = [Replies(rate=rate) for rate in (40, 100, 200, 400, 800, 1600)]
    piece = drive(running, in_turn(*cold, Replies(rate=2000)))
    assert piece.warmup_s >= 0.3
    assert piece.stats.rate == pytest.approx(2000, rel=0.01)
    assert piece.notes == ()


def test_warm_up_waits_for_every_request_in_flight_once(running: World) -> None:
    assert drive(running, lambda _order: Replies(rate=100), load=64).warmup_s >= 0.6


def test_a_load_that_never_settles_is_measured_after_the_cap_and_says_so(running: World) -> None:
    levels = cycle([100, 2000, 6000])  # no two neighbouring pairs agree
    piece = drive(running, lambda _order: Replies(rate=next(levels)))
    assert 2.5 < piece.warmup_s < 5
    assert "warm-up had not settled after" in piece.notes[0]


def test_a_slow_models_warm_up_ends_soon_after_its_first_reply(running: World) -> None:
    silent = [Replies(rate=0)] * 100
    assert 5.0 < drive(running, in_turn(*silent, Replies(rate=20))).warmup_s < 6


def test_a_slice_is_not_as_long_as_the_first_reply_of_a_cold_model_was(running: World) -> None:
    cold = [Replies(rate=0)] * 100
    piece = drive(
        running, in_turn(*cold, Replies(rate=20, latency_ns=5 * SECOND_NS), Replies(rate=1000, latency_ns=1_000_000))
    )
    assert 5.1 < piece.warmup_s < 5.7
    assert piece.seconds == pytest.approx(0.5, abs=0.05)


def test_a_slice_of_a_model_of_which_nothing_followed_the_first_reply_is_by_that_reply(running: World) -> None:
    slow = [Replies(rate=0)] * 100
    one = Replies(rate=20, latency_ns=5 * SECOND_NS)
    piece = drive(running, in_turn(*slow, one, *slow[:98], one, *slow[:98], Replies(rate=20, latency_ns=5 * SECOND_NS)))
    assert piece.seconds == pytest.approx(10.0, abs=0.1)


def test_failures_only_are_given_up_with_the_commonest_message(running: World) -> None:
    with pytest.raises(SliceFailed, match=r"every request failed \(\d+ in 1\.\d s\): no such tensor"):
        drive(running, lambda _order: Replies(0, failures={"no such tensor": 100, "other": 20}))


@pytest.mark.parametrize(("phase_s", "request_s", "waited_s"), [(4, 2, 4), (0.4, 20, 20), (0.4, 1, 3)])
def test_silence_is_given_up_after_what_a_phase_and_a_request_may_take(
    running: World, phase_s: float, request_s: float, waited_s: float
) -> None:
    before = running.clock.now_ns()
    with pytest.raises(SliceFailed, match=f"no reply within {waited_s} s"):
        drive(running, lambda _order: Replies(rate=0), patience_s=phase_s, timeout_s=request_s)
    assert running.clock.now_ns() - before == pytest.approx(waited_s * SECOND_NS, rel=0.05)


def test_a_load_that_breaks_down_in_mid_slice_is_given_up(running: World) -> None:
    good, bad = Replies(rate=1000), Replies(0, failures={"connection refused": 100})
    with pytest.raises(SliceFailed, match="every request failed"):
        drive(running, in_turn(good, good, good, good, bad), measure_s=5)


def test_failures_beside_replies_are_counted_and_not_timed(running: World) -> None:
    piece = drive(running, lambda _order: Replies(rate=100, failures={"busy": 20}))
    assert piece.stats.count == pytest.approx(100 * piece.seconds, abs=1)
    assert piece.failures == {"busy": pytest.approx(20 * piece.seconds, abs=1)}


def test_the_clients_cpu_is_that_of_the_measured_time(running: World) -> None:
    hot = [Replies(cpu=1.0)] * 4
    assert drive(running, in_turn(*hot, Replies(cpu=0.25))).client_cpu_ratio == pytest.approx(0.25, abs=0.1)


def test_a_metrics_page_that_fails_leaves_its_reason_and_the_clients_figures(running: World) -> None:
    running.sampler.problem = "http://metrics: connection refused"
    piece = drive(running, lambda _order: Replies(rate=1000))
    assert (piece.server, piece.server_problem) == (None, "http://metrics: connection refused")
    assert piece.problems == {"triton": "http://metrics: connection refused"}
    assert piece.stats.count == pytest.approx(500, abs=5)


def test_a_person_sees_the_stage_then_the_figures(running: World) -> None:
    drive(running, lambda _order: Replies(rate=1000, latency_ns=3_000_000))
    stages = [figures.stage for _, figures in running.progress.lives]
    assert stages[0] == "warm-up"
    last = running.progress.lives[-1][1]
    assert last.stage == "measuring"
    assert last.throughput == pytest.approx(1000, rel=0.1)
    assert last.latency_p99_ms == pytest.approx(3.0)


def test_what_each_process_used_and_missed_is_that_of_the_measured_time(running: World) -> None:
    hot = [Replies(cpu=1.0, wait=0.9, backlog=1.0)] * 4
    piece = drive(running, in_turn(*hot, Replies(cpu=0.3, wait=0.2, backlog=0.25)))
    (share,) = piece.workers
    assert share.cpu_ratio == pytest.approx(0.3, abs=0.1)
    assert share.wait_ratio == pytest.approx(0.2, abs=0.1)
    assert piece.client_backlog_ratio == pytest.approx(0.25)
    assert Slice.from_json(json.loads(json.dumps(piece.to_json()))) == piece


def needs(cores: float) -> Script:
    """A load that takes so many cores of the load generator, if it may have them."""
    return lambda order: Replies(cpu=min(cores, 0.99 * order.workers))


@pytest.mark.parametrize(
    ("cores", "most", "workers"),
    [
        (0.5, 8, [1]),
        (0.9, 8, [1, 2]),
        (1.4, 8, [1, 2]),
        (1.9, 8, [1, 2, 4]),
        (1.9, 3, [1, 2, 3]),
        (9.0, 2, [1, 2]),
        (9.0, 1, [1]),
    ],
)
def test_processes_are_added_until_the_load_generator_is_not_the_limit(
    running: World, cores: float, most: int, workers: list[int]
) -> None:
    piece = drive(running, needs(cores), most_workers=most)
    assert [order.workers for order in running.generator.orders] == workers
    assert len(piece.workers) == workers[-1]


def test_the_cold_begin_of_a_warm_up_asks_for_no_more(running: World) -> None:
    """Connections are made and replies are seen for the first time."""
    drive(running, in_turn(*[Replies(cpu=0.95)] * 2, Replies(cpu=0.3)), most_workers=8)
    assert [order.workers for order in running.generator.orders] == [1]


def test_a_ramp_does_not_hide_that_the_whole_load_takes_more(running: World) -> None:
    ramp = [Replies(cpu=0.1)] * 80
    drive(running, in_turn(*ramp, Replies(cpu=0.95)), most_workers=2, ramp_s=4.0)
    assert [order.workers for order in running.generator.orders] == [1, 2]


def test_a_slice_is_as_long_as_the_latency_of_the_whole_load_asks(running: World) -> None:
    """Not as that of its ramp, in which the server was less busy."""
    slow = Replies(latency_ns=SECOND_NS // 5)
    piece = drive(running, in_turn(*[Replies()] * 80, slow), ramp_s=4.0)
    assert piece.seconds == pytest.approx(1.0, abs=0.1), "five latencies"


@pytest.mark.parametrize(("replies", "orders"), [
    (Replies(cpu=0.6, lag_ns=30_000_000), 2),
    (Replies(cpu=0.6, wait=0.3, lag_ns=30_000_000), 1),
    (Replies(cpu=0.1, lag_ns=30_000_000), 1),
])  # fmt: skip
def test_lag_asks_for_more_where_it_is_the_load_generators_own(running: World, replies: Replies, orders: int) -> None:
    drive(running, lambda order: replies if order.workers == 1 else Replies(), most_workers=2)
    assert len(running.generator.orders) == orders


def test_a_slice_knows_how_long_the_scrapes_at_its_ends_took(running: World) -> None:
    running.sampler.took_ns = 30_000_000
    assert drive(running, lambda _order: Replies(rate=1000)).scrapes_s == pytest.approx(0.06)


def test_a_slice_knows_what_the_hypervisor_took_in_it(running: World) -> None:
    running.clock.steal = 0.25
    piece = drive(running, lambda _order: Replies(rate=1000))
    assert piece.cpu_time is not None
    assert piece.cpu_time.wanted_ns / 1e9 == pytest.approx(2 * piece.seconds, abs=0.001)
    assert piece.cpu_time.stolen_ns / 1e9 == pytest.approx(0.5 * piece.seconds, abs=0.001)


def test_where_the_kernel_counts_no_steal_a_slice_knows_none(running: World) -> None:
    running.clock.steal = None
    assert drive(running, lambda _order: Replies(rate=1000)).cpu_time is None


def test_a_slice_knows_how_many_requests_never_had_a_reply(running: World) -> None:
    running.generator.unanswered = 3
    assert drive(running, lambda _order: Replies(rate=1000)).unanswered == 3
