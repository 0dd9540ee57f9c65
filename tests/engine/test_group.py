"""The phases of one variant: rounds, judging, failures, what is loaded and unloaded."""

from __future__ import annotations

from dataclasses import replace
from itertools import groupby

import pytest
from fakes import SECOND_NS, FakeSampler, Replies, World, group

from model_analyzer.core.load import Call, LoadOrder, Protocol
from model_analyzer.core.reduce import gpu_refreshes
from model_analyzer.core.stopping import StopRule
from model_analyzer.errors import ExportPathError, LoadGeneratorError


def test_rounds_are_ascending_and_interleaved(world: World) -> None:
    world.run([group([1, 4], [1, 8])])
    ascending = [(1, 1), (1, 8), (4, 1), (4, 8)]
    assert world.driven() == ascending * 2
    assert [order.seed for order in world.generator.orders] == [0] * 4 + [1] * 4


def test_memory_is_of_the_first_round_and_utilization_of_all(world: World) -> None:
    world.sampler.gpu = "GPU-a"
    # The allocator's high-water mark: it grows with every slice, and never shrinks.
    world.sampler.memory = lambda: 1e9 * len(world.generator.orders)
    small, large = world.run([group([1], [1, 8])])
    assert small.values["gpu_used_memory_max"] == 1e9
    assert large.values["gpu_used_memory_max"] == 2e9
    assert small.gpus["GPU-a"]["gpu_utilization"].fresh == 2


def test_a_phase_stops_when_the_rule_is_met_and_the_others_go_on(world: World) -> None:
    world.rule = StopRule("interval", min_s=2.0, max_s=6.0)
    flip = iter(range(10**9))

    def script(order: LoadOrder) -> Replies:
        wild = order.load.value == 8 and next(flip) // 20 % 2
        return Replies(rate=400 if wild else 2000)

    world.generator.script = script
    steady, wild = world.run([group([1], [1, 8])])
    assert (steady.phase.load.value, steady.status) == (1, "ok")
    assert (wild.phase.load.value, wild.status) == (8, "unstable")
    assert wild.notes[0].startswith("throughput is known to ±")
    assert world.driven().count((1, 1)) == 7, "until eight seconds have gone by"
    assert world.driven().count((1, 8)) == 12, "until max_s"


def test_a_slow_model_gets_longer_slices_but_not_beyond_max_seconds(world: World) -> None:
    world.rule = StopRule("fixed", min_s=1.0, max_s=4.0)
    world.generator.script = lambda _order: Replies(rate=20, latency_ns=200_000_000)
    (measurement,) = world.run([group()])
    # 5 latencies of 0.2 s, as the warm-up has shown.
    assert measurement.values["measured_seconds"] == pytest.approx(1.0)


def test_a_phase_is_extended_until_there_are_enough_gpu_samples(world: World) -> None:
    world.sampler.gpu = "GPU-a"
    world.sampler.cadence_s = 3.0
    world.min_gpu_samples = 2
    (measurement,) = world.run([group()])
    assert measurement.values["gpu_fresh_samples"] == 2
    assert measurement.values["measured_seconds"] > world.rule.max_s


@pytest.mark.parametrize("wanted", [1, 2, 5])
@pytest.mark.parametrize("cadence_s", [0.1, 1.0, 10.0, 30.0])
@pytest.mark.parametrize("loads", [1, 3])
def test_at_any_cadence_a_phase_goes_on_as_long_as_its_gpu_samples_take(
    world: World, cadence_s: float, wanted: int, loads: int
) -> None:
    world.sampler.gpu = "GPU-a"
    world.sampler.cadence_s = cadence_s
    world.min_gpu_samples = wanted
    measured = world.run([group(loads=tuple(range(1, loads + 1)))])
    assert len(measured) == loads
    for measurement in measured:
        fresh, seconds = measurement.values["gpu_fresh_samples"], measurement.values["measured_seconds"]
        assert fresh is not None
        assert seconds is not None
        assert fresh >= wanted
        assert seconds <= world.rule.min_s + (wanted + 1) * cadence_s + 1.0
        assert measurement.status == "ok"


def test_an_extension_holds_two_refreshes_in_one_slice_so_that_an_energy_counter_can_tell(world: World) -> None:
    world.sampler.gpu = "GPU-a"
    world.sampler.cadence_s = 30.0
    world.min_gpu_samples = 2
    world.store.keeps_slices = True
    world.run([group()])
    (slices,) = world.store.slices.values()
    assert max(gpu_refreshes([piece]) or 0 for piece in slices) == 2


def test_an_exporter_that_dies_is_given_up_soon_where_it_was_seen_to_be_quick(world: World) -> None:
    world.sampler.gpu = "GPU-a"
    world.min_gpu_samples = 40
    began_ns = world.clock.now_ns()

    def dies(_order: LoadOrder) -> Replies:
        if world.clock.now_ns() - began_ns > 6 * SECOND_NS:
            world.sampler.problem = "connection refused"
        return Replies()

    world.generator.script = dies
    (measurement,) = world.run([group()])
    assert measurement.values["measured_seconds"] == pytest.approx(10, abs=3)
    (note,) = [note for note in measurement.notes if note.startswith("GPU telemetry refreshed")]
    assert "not waited for any longer" in note


def test_without_a_gpu_nothing_is_extended(world: World) -> None:
    world.min_gpu_samples = 100
    (measurement,) = world.run([group()])
    assert measurement.values["measured_seconds"] == pytest.approx(world.rule.min_s)


def test_an_exporter_that_never_refreshes_does_not_extend_for_ever(world: World) -> None:
    world.sampler.gpu = "GPU-a"
    world.sampler.cadence_s = 1e6
    world.min_gpu_samples = 1
    (measurement,) = world.run([group()])
    assert measurement.values["measured_seconds"] == pytest.approx(46, abs=1), "the asked 1 s, and then 45 s in vain"
    assert any("GPU telemetry refreshed 0 times of 1" in note for note in measurement.notes)
    assert measurement.values["gpu_utilization"] is None
    assert "did not refresh" in measurement.reasons["gpu_utilization"]


def test_a_model_that_does_not_load_fails_its_phases_and_the_next_goes_on(world: World) -> None:
    world.server.unloadable["bad"] = "cannot be loaded: weights.bin is missing"
    measured = world.run([group([1, 2], model="bad"), group()])
    assert [(m.phase.variant.model, m.status) for m in measured] == [("bad", "failed")] * 2 + [("m", "ok")]
    assert "weights.bin is missing" in measured[0].notes[0]
    assert world.server.events.count("start") == 1, "the server is not to blame"


def test_a_batch_above_the_models_is_skipped_with_the_reason(world: World) -> None:
    world.server.max_batch_size = 4
    world.run([group([1, 8])])
    assert world.statuses() == {(1, 1): "ok", (8, 1): "skipped"}
    skipped = next(m for m in world.store.measurements if m.status == "skipped")
    assert skipped.notes == ("batch size 8 is above the model's max_batch_size 4",)
    assert (skipped.max_batch_size, skipped.instance_group) == (4, "1:CPU")


def test_a_model_that_does_not_batch_takes_batch_size_1_only(world: World) -> None:
    world.server.max_batch_size = 0
    world.run([group([1, 2])])
    assert world.statuses() == {(1, 1): "ok", (2, 1): "skipped"}


@pytest.mark.parametrize(
    ("decoupled", "protocol", "asked", "call"),
    [
        (False, "http", None, "infer"),
        (False, "grpc", None, "infer"),
        (True, "http", None, "generate_stream"),
        (True, "grpc", None, "stream_infer"),
        (False, "grpc", "stream_infer", "stream_infer"),
        (True, "http", "generate", "generate"),
    ],
)
def test_a_model_is_called_as_asked_or_as_its_kind_needs_it(
    world: World, decoupled: bool, protocol: Protocol, asked: Call | None, call: Call
) -> None:
    world.server.decoupled = decoupled
    phases = tuple(replace(phase, protocol=protocol, call=asked) for phase in group().phases)
    world.run([replace(group(), phases=phases)])
    assert {order.requests.call for order in world.generator.orders} == {call}


def test_the_generate_extension_takes_no_batches(world: World) -> None:
    world.server.decoupled = True
    world.run([group([1, 2])])
    assert world.statuses() == {(1, 1): "ok", (2, 1): "skipped"}
    (skipped,) = [each for each in world.store.measurements if each.status == "skipped"]
    assert "the generate extension takes one inference a request" in skipped.notes[0]


def test_requests_that_cannot_be_made_fail_their_batch_size_only(world: World) -> None:
    world.encoder.unfit[4] = "INPUT has dynamic dims [-1]"
    world.run([group([1, 4], [1, 8])])
    assert world.statuses() == {(1, 1): "ok", (1, 8): "ok", (4, 1): "failed", (4, 8): "failed"}
    assert "INPUT has dynamic dims" in next(m for m in world.store.measurements if m.status == "failed").notes[0]
    assert world.encoder.encoded == [1], "once for all loads"


def test_a_hopeless_load_fails_its_phase_and_the_others_go_on(world: World) -> None:
    broken = Replies(0, failures={"shape mismatch": 100})
    world.generator.script = lambda order: broken if order.load.value == 8 else Replies()
    world.run([group([1], [1, 8, 16])])
    assert world.statuses() == {(1, 1): "ok", (1, 8): "failed", (1, 16): "ok"}
    assert "every request failed" in next(m for m in world.store.measurements if m.status == "failed").notes[0]
    assert world.driven().count((1, 8)) == 1


@pytest.mark.parametrize(("failures", "status"), [(5, "ok"), (0, "ok"), (500, "failed")])
def test_more_than_one_percent_of_failures_fails_the_phase_early(world: World, failures: int, status: str) -> None:
    world.rule = StopRule("fixed", min_s=4.0, max_s=4.0)
    # Rates are of 20 batches a second: at 5 a second every batch rounds to none.
    world.generator.script = lambda _order: Replies(rate=1000, failures={"every third": failures})
    (measurement,) = world.run([group()])
    assert measurement.status == status
    if status == "failed":
        assert measurement.notes[0] == "33.3% of the requests failed: every third"
        assert measurement.values["perf_throughput"] == pytest.approx(1000), "what there was is still told"
        assert len(world.generator.orders) == 2


def test_a_broken_load_generator_fails_the_phase_and_the_run_goes_on(world: World) -> None:
    def script(order: LoadOrder) -> Replies:
        if order.load.value == 1:
            raise LoadGeneratorError("load generator", "exited with code -9", "see the log")
        return Replies()

    world.generator.script = script
    world.run([group([1], [1, 8])])
    assert world.statuses() == {(1, 1): "failed", (1, 8): "ok"}


def test_each_variant_is_loaded_once_and_unloaded_before_the_next(world: World) -> None:
    world.run([group([1, 2], model="a"), group(model="b")])
    assert world.server.events == [
        "start",
        "load a_config_default",
        "unload a_config_default",
        "load b_config_default",
        "unload b_config_default",
        "stop",
    ]


def test_what_requests_hold_is_given_back_after_each_group(world: World) -> None:
    world.run([group(model="a"), group([1, 2], model="b")])
    assert world.encoder.released == [True, True]


def test_a_model_that_does_not_unload_is_said_and_the_run_goes_on(world: World) -> None:
    world.server.unload_error = "is still unloading after 30 s"
    assert [m.status for m in world.run([group(model="a"), group(model="b")])] == ["ok", "ok"]
    assert any("still unloading" in line for line in world.progress.said)


def test_stored_slices_of_an_interrupted_run_are_used(world: World) -> None:
    interrupted = World()
    interrupted.store.full_after = 3  # both phases' first slice, and the first one's second
    with pytest.raises(Exception, match="No space left"):
        interrupted.run([group([1], [1, 8])])
    kept = interrupted.store.slices
    # The first phase has what it needs but no measurement: a kill fell between the two.
    assert {phase: len(pieces) for phase, pieces in kept.items()} == {"m-1-1": 2, "m-1-8": 1}
    world.store.slices = {phase: list(pieces) for phase, pieces in kept.items()}
    measured = world.run([group([1], [1, 8])])
    assert {m.phase.id: m.status for m in measured} == {"m-1-1": "ok", "m-1-8": "ok"}
    assert world.driven() == [(1, 8)], "one slice was missing"
    assert [m.values["measured_seconds"] for m in measured] == [pytest.approx(1.0)] * 2


def test_a_resumed_group_lets_the_phases_behind_catch_up_first(world: World) -> None:
    world.rule = StopRule("fixed", min_s=1.5, max_s=2.0)
    ahead = World()
    ahead.rule = world.rule
    ahead.store.full_after = 1
    with pytest.raises(Exception, match="No space left"):
        ahead.run([group([1], [1, 8])])
    world.store.slices = {phase: list(pieces) for phase, pieces in ahead.store.slices.items()}
    world.run([group([1], [1, 8])])
    assert [key for key, _ in groupby(world.driven())] == [(1, 8), (1, 1), (1, 8), (1, 1), (1, 8)]


def test_telemetry_that_fails_never_stops_a_sweep_and_leaves_its_reason(world: World) -> None:
    world.sampler.problem = "http://metrics: HTTP 404"
    measured = world.run([group([1, 2])], baseline="b")
    assert [m.status for m in measured] == ["ok", "ok"]
    assert "HTTP 404" in measured[0].reasons["gpu_utilization"]
    assert "HTTP 404" in measured[0].reasons["perf_server_queue"]
    assert "HTTP 404" in world.store.baselines[0].no_gpu_reason


def test_a_row_names_the_server_and_gpus_it_was_measured_with(world: World) -> None:
    world.sampler = FakeSampler(world.generator, gpu="GPU-a")
    (measurement,) = world.run([group()])
    assert measurement.environment.server_version == "2.51.0"
    assert measurement.environment.gpus["GPU-a"].model == "H100"
    assert measurement.finished_at.startswith("2026-")


# -- processes of the load generator -------------------------------------------------------------------


def workers(world: World) -> list[tuple[int, int]]:
    """(load, workers) of every order."""
    return [(int(order.load.value), order.workers) for order in world.generator.orders]


def busy(order: LoadOrder) -> Replies:
    """As much as one core of the load generator can do, but for a concurrency of 1."""
    return Replies(cpu=0.2 if order.load.value == 1 else min(1.5, 0.99 * order.workers))


def test_all_slices_of_a_phase_are_driven_by_as_many_as_its_first_one_took(world: World) -> None:
    world.cpus = 8
    world.generator.script = busy
    world.run([group([1], [1, 4])])
    assert workers(world) == [(1, 1), (4, 1), (4, 2), (1, 1), (4, 2)]
    _, measurement = world.store.measurements
    assert "driven by 2 load generator processes" in measurement.notes


def interrupt_after_a_slice(world: World) -> None:
    """It found that it needs two processes, and the export path was full."""
    world.cpus = 8
    world.generator.script = busy
    world.rule = StopRule("fixed", min_s=3.0, max_s=6.0)
    world.store.full_after = 1
    with pytest.raises(ExportPathError):
        world.run([group([1], [4])])
    assert workers(world) == [(4, 1), (4, 2), (4, 2)]
    world.store.full_after = None
    world.generator.orders.clear()


def test_a_resumed_phase_goes_on_with_as_many_as_before(world: World) -> None:
    interrupt_after_a_slice(world)
    world.run([group([1], [4])])
    assert {count for _, count in workers(world)} == {2}


def test_a_resumed_phase_takes_no_more_than_the_cpus_that_are_there_now(world: World) -> None:
    interrupt_after_a_slice(world)
    world.cpus = 1
    world.run([group([1], [4])])
    assert {count for _, count in workers(world)} == {1}


@pytest.mark.parametrize(("wanted", "cpus"), [(None, 8), (6, 1)])
def test_never_more_than_requests_in_flight(world: World, wanted: int | None, cpus: int) -> None:
    world.workers, world.cpus = wanted, cpus
    world.generator.script = lambda order: Replies(cpu=0.99 * order.workers)
    world.run([group([1], [1, 3])])
    assert max(count for load, count in workers(world) if load == 3) == 3
    assert max(count for load, count in workers(world) if load == 1) == 1


def test_a_number_is_taken_as_it_is(world: World) -> None:
    world.workers, world.cpus = 2, 8
    world.generator.script = lambda order: Replies(cpu=0.99 * order.workers)
    world.run([group([1], [4])])
    assert workers(world) == [(4, 2), (4, 2)]
