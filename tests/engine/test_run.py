"""A run: server, baseline, groups; deaths, interruptions, what is kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pytest
from fakes import FakeClaims, Replies, World, group

from model_analyzer.core.gpus import GpuChoice
from model_analyzer.core.load import LoadOrder
from model_analyzer.core.measurement import Measurement
from model_analyzer.core.plan import Group
from model_analyzer.core.search import Sweep
from model_analyzer.core.telemetry import Gpu, Page
from model_analyzer.core.variant import ServerSettings
from model_analyzer.errors import ExportPathError, Interrupted, LoadGeneratorError, ServerError


def dying(world: World, at: Sequence[int], reason: str = "was ended by SIGKILL") -> None:
    """Let the server die under the slices of these numbers (from 1), as the load generator sees it: no connection."""

    def script(_order: LoadOrder) -> Replies:
        if len(world.generator.orders) in at:
            world.server.dead = reason
        return Replies(0, failures={"connection refused": 1000}) if world.server.dead else Replies()

    world.generator.script = script


def test_the_outputs_are_made_again_after_every_phase(world: World) -> None:
    world.run([group([1, 2])], baseline="b")
    assert world.outputs.seen == [0, 1, 2]
    assert world.progress.done == world.store.measurements


def test_measured_phases_are_skipped(world: World) -> None:
    world.run(Sweep([group([1, 2]), group(model="done")], {"m-1-1": 1, "done-1-1": 1}))
    assert list(world.statuses()) == [(2, 1)]
    assert "load done_config_default" not in world.server.events


def test_nothing_left_starts_nothing(world: World) -> None:
    assert world.run([]) == []
    assert world.server.events == ["stop"]


def test_the_baseline_is_measured_once_and_before_any_load(world: World) -> None:
    world.run([group(model="a"), group(model="b")], baseline="b-id")
    (baseline,) = world.store.baselines
    assert (baseline.id, baseline.seconds) == ("b-id", 1.0)
    assert "no GPU" in baseline.no_gpu_reason
    assert world.server.events[:2] == ["start", "load a_config_default"]


def test_the_baseline_of_a_remote_server_says_what_was_loaded(world: World) -> None:
    world.server.ours = False
    world.server.loaded = {"theirs"}
    world.run([], baseline="b")
    assert world.store.baselines[0].notes[0] == "not an empty server: 1 models were loaded (theirs)"


def test_other_settings_restart_a_server_of_ours_and_the_same_do_not(world: World) -> None:
    special = ServerSettings((("log-verbose", "1"),))
    world.run([group(model="a"), group(model="b"), group(model="c", server=special)], baseline="b")
    assert world.server.settings == [ServerSettings(), special]
    at = world.server.events.index("load c_config_default")
    assert world.server.events[at - 2 : at] == ["stop", "start"]


def test_other_settings_do_not_stop_a_server_that_is_not_ours(world: World) -> None:
    world.server.ours = False
    world.run([group(model="a"), group(model="b", server=ServerSettings((("log-verbose", "1"),)))])
    assert world.server.events.count("start") == 1


def test_a_server_that_dies_once_in_mid_phase_costs_no_row(world: World) -> None:
    """Somebody may have killed it: the phase is tried again."""
    dying(world, at=[2])
    world.run([group([1], [1, 8, 16])])
    assert world.statuses() == {(1, 1): "ok", (1, 8): "ok", (1, 16): "ok"}
    assert world.server.events.count("start") == 2
    assert "was ended by SIGKILL; starting it again" in world.progress.said
    # The slice of the first phase before the death counts; that of the second does not.
    assert world.driven().count((1, 1)) == 2
    assert all(not piece.failures for pieces in world.store.slices.values() for piece in pieces)


def test_a_server_that_is_lost_while_requests_are_made_costs_no_row(world: World) -> None:
    world.encoder.unfit[1] = "no shape"
    world.encoder.lost = 1
    world.run([group([1, 2], [1])])
    # The phase that was finished before the server was lost is not finished again.
    assert world.statuses() == {(1, 1): "failed", (2, 1): "ok"}
    assert len(world.store.measurements) == 2
    assert world.server.events.count("start") == 2


def test_a_phase_in_which_the_server_dies_twice_fails_and_the_rest_is_measured(world: World) -> None:
    # The 4th order is the second try of (1, 8): (1, 1) has its slice of that round already.
    dying(world, at=[2, 3])
    world.run([group([1], [1, 8, 16])])
    assert world.statuses() == {(1, 8): "failed", (1, 1): "ok", (1, 16): "ok"}
    failed = next(m for m in world.store.measurements if m.status == "failed")
    assert failed.notes[0] == "the server died in mid-phase, twice: was ended by SIGKILL"
    assert world.server.events.count("start") == 3


def test_a_model_that_always_kills_the_server_is_tried_twice_a_phase(world: World) -> None:
    dying(world, at=range(1, 100))
    world.run([group([1], [1, 8, 16])])
    assert world.statuses() == {(1, 1): "failed", (1, 8): "failed", (1, 16): "failed"}
    assert world.driven() == [(1, 1), (1, 1), (1, 8), (1, 8), (1, 16), (1, 16)]


def test_a_model_that_kills_the_server_at_load_fails_its_phases_and_the_next_model_is_measured(world: World) -> None:
    world.server.deadly.add("bad")
    measured = world.run([group([1, 2], model="bad"), group()])
    assert [(m.phase.variant.model, m.status) for m in measured] == [("bad", "failed")] * 2 + [("m", "ok")]
    assert "the server died: was ended by SIGSEGV" in measured[0].notes[0]
    assert world.server.events.count("start") == 3  # for the second try, and for the next model


@pytest.mark.parametrize("ours", [True, False])
def test_a_server_that_is_back_before_anybody_asks_loads_the_model_once_more(world: World, ours: bool) -> None:
    """A container is restarted within a second: only the lost connection tells."""
    world.server.ours = ours
    world.server.lost_while_loading = 1
    measured = world.run([group([1, 2])])
    assert [m.status for m in measured] == ["ok", "ok"]


def test_a_load_that_is_lost_twice_is_the_models_fault(world: World) -> None:
    world.server.lost_while_loading = 2
    measured = world.run([group([1, 2]), group(model="next")])
    assert [m.status for m in measured] == ["failed", "failed", "ok"]


def test_a_server_found_dead_before_a_load_is_started_again_and_no_row_is_lost(world: World) -> None:
    world.server.lost_at_load = 1
    measured = world.run([group([1, 2])])
    assert [m.status for m in measured] == ["ok", "ok"]
    assert world.server.events.count("start") == 2


def test_a_server_that_is_lost_again_and_again_ends_the_run(world: World) -> None:
    world.server.lost_at_load = 100
    with pytest.raises(ServerError, match="lost again and again") as caught:
        world.run([group()])
    assert caught.value.exit_code == 3
    assert world.server.events.count("start") == 2
    assert world.server.events[-1] == "stop"


def test_a_server_that_comes_back_without_the_model_is_a_server_lost(world: World) -> None:
    def script(order: LoadOrder) -> Replies:
        if len(world.generator.orders) == 1:
            world.server.loaded.clear()
            return Replies(0, failures={"unknown model": 1000})
        return Replies()

    world.generator.script = script
    world.server.ours = False
    world.run([group([1], [1, 8])])
    assert world.statuses() == {(1, 1): "ok", (1, 8): "ok"}
    assert any("no longer loaded" in line for line in world.progress.said)


def test_a_server_that_cannot_be_started_ends_the_run_and_is_stopped(world: World) -> None:
    world.server.start_error = "exited with code 1"
    with pytest.raises(ServerError):
        world.run([group()])
    assert world.server.events == ["stop"]


def test_failures_of_the_model_do_not_restart_a_server_that_answers(world: World) -> None:
    world.generator.script = lambda _order: Replies(0, failures={"model says no": 1000})
    world.run([group([1], [1, 8])])
    assert set(world.statuses().values()) == {"failed"}
    assert world.server.events.count("start") == 1


def test_an_interruption_passes_through_with_everything_finished_kept(world: World) -> None:
    def script(_order: LoadOrder) -> Replies:
        if len(world.generator.orders) == 6:
            raise Interrupted(15)
        return Replies()

    world.generator.script = script
    with pytest.raises(Interrupted) as caught:
        world.run([group([1, 2, 4], [1])], baseline="b")
    assert caught.value.exit_code == 143
    # Two rounds of three: the first two phases were finished, the third has its first slice.
    assert world.statuses() == {(1, 1): "ok", (2, 1): "ok"}
    assert {phase: len(pieces) for phase, pieces in world.store.slices.items()} == {"m-4-1": 1}
    assert world.server.events[-1] == "stop"


def test_an_interrupted_run_goes_straight_to_stop(world: World) -> None:
    def script(_order: LoadOrder) -> Replies:
        raise Interrupted(2)

    world.generator.script = script
    with pytest.raises(Interrupted):
        world.run([group()])
    assert world.server.events == ["start", "load m_config_default", "stop"]
    assert world.encoder.released == [False], "requests may be under way"


@pytest.mark.parametrize("records", range(5))
def test_an_export_path_that_is_full_ends_the_run_and_stops_the_server(world: World, records: int) -> None:
    world.store.full_after = records
    with pytest.raises(ExportPathError):
        world.run([group([1, 2])], baseline="b")
    assert len(world.store.baselines) == min(records, 1)
    assert world.server.events[-1] == "stop"
    assert world.store.measurements == world.progress.done


def test_a_generator_that_broke_with_the_server_is_the_servers_death(world: World) -> None:
    def script(_order: LoadOrder) -> Replies:
        if len(world.generator.orders) == 1:
            world.server.dead = "was ended by SIGKILL"
            raise LoadGeneratorError("load generator", "no connection", "see the log")
        return Replies()

    world.generator.script = script
    world.run([group([1], [1, 8])])
    assert world.statuses() == {(1, 1): "ok", (1, 8): "ok"}
    assert world.server.events.count("start") == 2


@dataclass
class Doubling:
    """A search that doubles the concurrency while the throughput grows by a tenth: no plan, only ask and tell."""

    load: int = 1
    best: float = 0.0
    over: bool = False
    told: list[Sequence[Measurement]] = field(default_factory=list)

    def ask(self) -> Group | None:
        return None if self.over else group(loads=[self.load])

    def tell(self, measurements: Sequence[Measurement]) -> None:
        self.told.append(measurements)
        throughput = measurements[0].values["perf_throughput"] or 0.0
        self.over = throughput < 1.1 * self.best
        self.best, self.load = max(self.best, throughput), self.load * 2


def test_another_search_drives_the_same_engine(world: World) -> None:
    world.generator.script = lambda order: Replies(rate=min(100 * order.load.value, 400))
    search = Doubling()
    world.run(search)
    assert [int(m.phase.load.value) for m in world.store.measurements] == [1, 2, 4, 8]
    assert [len(told) for told in search.told] == [1] * 4
    assert search.best == pytest.approx(400)


# -- other shards of the run --------------------------------------------------------------------------


def test_a_gpu_that_another_shard_holds_is_waited_for_before_anything_is_measured(world: World) -> None:
    world.sampler.gpu, world.claims = "GPU-a", FakeClaims({"GPU-a": 3})
    began_ns, loads = world.clock.now_ns(), world.generator.orders
    world.run([group()], baseline="b")
    (baseline,) = world.store.baselines
    assert world.claims.asked == ["GPU-a"] * 4
    said = "waiting for GPU-a: another shard measures on it (process 7 on node-1)"
    assert [line for line in world.progress.said if "waiting" in line] == [said]
    assert world.progress.said.index(said) < world.progress.said.index("server-only baseline: 1 s")
    assert world.clock.now_ns() - began_ns >= 3e9
    assert list(baseline.gpus) == ["GPU-a"]
    assert loads


def test_a_server_that_is_started_again_claims_its_gpus_again(world: World) -> None:
    world.sampler.gpu, world.claims = "GPU-a", FakeClaims()
    dying(world, at=[2])
    world.run([group([1], [1, 8])])
    assert world.claims.asked == ["GPU-a"] * world.server.events.count("start")
    assert world.server.events.count("start") == 2


def test_gpus_that_show_late_are_claimed_before_the_next_group(world: World) -> None:
    world.claims = FakeClaims()

    def script(_order: LoadOrder) -> Replies:
        world.sampler.gpu = "GPU-a"
        return Replies()

    world.generator.script = script
    world.run([group(model=name) for name in "abc"])
    assert world.claims.asked == ["GPU-a"], "once, and not before it is seen"


def test_without_a_gpu_there_is_nothing_to_claim(world: World) -> None:
    world.claims = FakeClaims()
    world.run([group()], baseline="b")
    assert world.claims.asked == []
    assert list(world.statuses().values()) == ["ok"]


def test_an_interruption_ends_the_wait_for_a_gpu(world: World) -> None:
    class Interrupting(FakeClaims):
        def claim(self, gpu: str) -> str | None:
            super().claim(gpu)
            if len(self.asked) == 3:
                raise Interrupted(15)
            return "process 7 on node-1"

    world.sampler.gpu, world.claims = "GPU-a", Interrupting()
    with pytest.raises(Interrupted):
        world.run([group()], baseline="b")
    assert (world.store.baselines, world.store.measurements) == ([], [])
    assert world.server.events == ["start", "stop"]


def test_a_measurement_names_only_the_gpus_that_count(world: World) -> None:
    world.sampler.gpu = "GPU-ours"
    original = world.sampler.sample

    def with_a_neighbour() -> Page:
        page = original()
        return replace(page, source="dcgm", gpus={**page.gpus, "GPU-theirs": Gpu("L4", "1")})

    world.sampler.sample = with_a_neighbour  # type: ignore[method-assign]
    world.choice = GpuChoice(("GPU-ours",))
    (row,) = world.run([group()])
    assert list(row.environment.gpus) == ["GPU-ours"]
