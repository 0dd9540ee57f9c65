"""Repeats: passes over the whole sweep, each with the model loaded anew, and one row a phase."""

from __future__ import annotations

import pytest
from fakes import Replies, World, group

from model_analyzer.core.load import LoadOrder
from model_analyzer.core.search import Sweep
from model_analyzer.errors import Interrupted


def asked(world: World) -> list[str]:
    """Starts and loads, in order."""
    return [event for event in world.server.events if event.startswith(("start", "load"))]


def test_the_sweep_is_gone_through_again_with_every_variant_loaded_anew_on_a_new_server(world: World) -> None:
    world.run(Sweep([group(model="a"), group(model="b")], repeats=3))
    assert asked(world) == ["start", "load a_config_default", "load b_config_default"] * 3


def test_a_server_that_is_not_ours_is_not_restarted(world: World) -> None:
    world.server.ours = False
    world.run(Sweep([group(model="a")], repeats=2))
    assert asked(world) == ["start", "load a_config_default", "load a_config_default"]


def test_a_phase_is_one_row_of_all_its_repeats(world: World) -> None:
    # A new measurement replaces the one before in the store: the last holds.
    rates = iter([1000.0, 1200.0, 1400.0])
    rate = {"now": 0.0}

    def script(order: LoadOrder) -> Replies:
        loads = len([event for event in world.server.events if event.startswith("load")])
        if loads > rate.setdefault("loads", 0):
            rate.update(loads=loads, now=next(rates))
        return Replies(rate["now"])

    world.generator.script = script
    world.store.keeps_slices = True
    world.run(Sweep([group()], repeats=3))
    assert [m.repeats for m in world.store.measurements] == [1, 2, 3]
    assert [m.values["perf_throughput"] for m in world.store.measurements] == pytest.approx([1000, 1100, 1200])
    assert world.store.measurements[-1].values["perf_throughput_repeats_cv"] == pytest.approx(1 / 6)
    assert world.store.measurements[-1].values["measured_seconds"] == pytest.approx(3)


def test_each_repeat_has_its_own_least_time_and_its_own_send_times(world: World) -> None:
    world.store.keeps_slices = True
    world.run(Sweep([group()], repeats=2))
    assert [(piece.repeat, piece.round) for piece in world.store.slices["m-1-1"]] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    seeds = [order.seed for order in world.generator.orders]
    assert len(set(seeds)) == len(seeds)


def test_a_run_ended_in_a_later_repeat_goes_on_there(world: World) -> None:
    world.store.keeps_slices = True

    def script(_order: LoadOrder) -> Replies:
        if len(world.generator.orders) == 4:
            raise Interrupted(15)
        return Replies()

    world.generator.script = script
    with pytest.raises(Interrupted):
        world.run(Sweep([group()], repeats=3))
    world.generator.script = lambda _order: Replies()
    world.run(Sweep([group()], {"m-1-1": 1}, repeats=3))
    assert [m.repeats for m in world.store.measurements] == [1, 2, 3]
    assert [piece.repeat for piece in world.store.slices["m-1-1"]] == [0, 0, 1, 1, 2, 2]


def test_more_repeats_of_a_finished_phase_measure_only_these(world: World) -> None:
    world.store.keeps_slices = True
    world.run(Sweep([group()]))
    before = len(world.generator.orders)
    world.run(Sweep([group()], {"m-1-1": 1}, repeats=3))
    assert len(world.generator.orders) == 3 * before
    assert [m.repeats for m in world.store.measurements] == [1, 2, 3]


def test_what_fails_or_makes_no_sense_is_not_repeated(world: World) -> None:
    world.server.unloadable["bad"] = "weights.bin is missing"
    world.server.max_batch_size = 1
    world.run(Sweep([group(model="bad"), group([1, 2])], repeats=2))
    assert [(m.phase.id, m.status) for m in world.store.measurements] == [
        ("bad-1-1", "failed"),
        ("m-2-1", "skipped"),
        ("m-1-1", "ok"),
        ("m-1-1", "ok"),
    ]


def test_a_later_repeat_that_fails_keeps_the_figures_of_those_before(world: World) -> None:
    world.store.keeps_slices = True

    def script(_order: LoadOrder) -> Replies:
        return Replies() if len(world.generator.orders) < 3 else Replies(0, failures={"out of memory": 1000})

    world.generator.script = script
    world.run(Sweep([group()], repeats=3))
    first, last = world.store.measurements
    assert (first.status, last.status, last.repeats) == ("ok", "failed", 1)
    assert last.notes[0].startswith("repeat 2 failed: every request failed")
    assert last.values["perf_throughput"] == first.values["perf_throughput"]
