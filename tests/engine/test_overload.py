"""An open loop that the server does not keep up with: a row with figures, and each slice's figures its own."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fakes import Replies, World, group

from model_analyzer.core.load import Load, LoadOrder
from model_analyzer.core.measurement import Measurement
from model_analyzer.core.plan import Group
from model_analyzer.core.stopping import StopRule


def rated(rate: float, max_concurrency: int | None = None) -> Group:
    one = group()
    load = Load("request_rate", rate, max_concurrency=max_concurrency)
    return replace(one, phases=(replace(one.phases[0], load=load),))


def twenty_a_second(_order: LoadOrder) -> Replies:
    return Replies(rate=20, latency_ns=700_000_000)


@pytest.fixture
def world() -> World:
    world = World(twenty_a_second)
    world.rule = StopRule("fixed", min_s=2.0, max_s=3.0)
    return world


def row(world: World, measured: Group) -> Measurement:
    (found,) = world.run([measured])
    return found


@pytest.mark.parametrize("requests", [None, 30])
def test_its_row_is_unstable_however_it_ends(world: World, requests: int | None) -> None:
    world.request_counts = {} if requests is None else {"m": requests}
    found = row(world, rated(100.0))
    assert found.status == "unstable"
    assert found.values["perf_throughput"] == pytest.approx(20, rel=0.1)
    assert "100 requests a second offered, 20 answered" in found.notes[0], "the status has its reason first"


@pytest.mark.parametrize("requests", [None, 30])
def test_one_that_is_kept_up_with_is_ok(world: World, requests: int | None) -> None:
    world.request_counts = {} if requests is None else {"m": requests}
    assert row(world, rated(20.0)).status == "ok"


@pytest.mark.parametrize(("given", "later"), [(None, 200), (500, 200), (30, 30)])
def test_from_its_second_slice_on_it_is_given_ten_seconds_of_work(world: World, given: int | None, later: int) -> None:
    found = row(world, rated(100.0, given))
    first, *others = [order.load.max_concurrency for order in world.generator.orders]
    assert first == given
    assert set(others) == {later}
    assert found.phase.load.max_concurrency == given, "the phase is what was asked for"


def test_a_load_that_is_kept_up_with_is_not_bounded(world: World) -> None:
    row(world, rated(20.0))
    assert {order.load.max_concurrency for order in world.generator.orders} == {None}


def test_a_long_wait_for_its_queue_is_said(world: World) -> None:
    # Of the fake's hundred requests in flight 20 a second come back.
    row(world, rated(100.0))
    assert any(live.stage == "waiting for 100 replies" for _, live in world.progress.lives)
    world.progress.lives.clear()
    world.generator.script = lambda _order: Replies(rate=100)
    world.run([rated(100.0)])
    assert not any(live.stage.startswith("waiting") for _, live in world.progress.lives)


def silent_from_the_third(order: LoadOrder) -> Replies:
    return Replies(rate=20 if order.seed < 2 else 0, latency_ns=700_000_000)


def test_a_slice_without_a_reply_does_not_cost_the_figures_of_those_before(world: World) -> None:
    world.generator.script = silent_from_the_third
    found = row(world, rated(100.0))
    assert found.status == "unstable"
    assert found.values["measured_seconds"] == pytest.approx(1.0, abs=0.1)
    assert found.values["perf_throughput"] == pytest.approx(20, rel=0.1)
    assert found.notes[0].startswith("slice 3 brought nothing, the figures are of those before it: no reply within")


def test_nor_does_it_where_the_load_was_not_too_much_but_then_the_row_has_failed(world: World) -> None:
    world.generator.script = silent_from_the_third
    found = row(world, rated(20.0))
    assert (found.status, found.repeats) == ("failed", 0)
    assert found.values["perf_throughput"] == pytest.approx(20, rel=0.1)
    assert found.notes[0].startswith("slice 3 brought nothing")


def test_a_first_slice_without_a_reply_leaves_no_figures(world: World) -> None:
    world.generator.script = lambda _order: Replies(rate=0)
    found = row(world, rated(100.0))
    assert (found.status, found.values) == ("failed", {})


def test_a_server_is_not_said_to_start_again_where_nothing_is_left_for_it(world: World) -> None:
    world.server.unload_error = "is still unloading after 30 s"
    row(world, rated(100.0))
    assert world.server.events.count("start") == 1
    (said,) = [line for line in world.progress.said if "still unloading" in line]
    assert "starting it again" not in said
    assert said.endswith("the next model gets a new one")
