"""A store that was filled on one GPU type, opened on another: spot nodes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from measured import baseline, measured, phase, piece

from model_analyzer.adapters.resume import elsewhere, take_over
from model_analyzer.adapters.store import JsonlStore, read, stores_of
from model_analyzer.core.measurement import Baseline, Environment, Measurement
from model_analyzer.core.plan import Phase
from model_analyzer.core.reduce import failed
from model_analyzer.core.telemetry import Gpu

L4, A100 = "NVIDIA L4", "NVIDIA A100-SXM4-80GB"
ONE, TWO, THREE = phase(load=1), phase(load=2), phase(load=4)
IDS = [ONE.id, TWO.id, THREE.id]


def on(gpu_type: str, of: Phase, rate: int = 100) -> Measurement:
    return replace(measured(of, rate, gpu="GPU-a"), environment=Environment(gpus={"GPU-a": Gpu(gpu_type)}))


def empty_server(gpu_type: str) -> Baseline:
    return replace(baseline({"GPU-a": 1e9}), environment=Environment(gpus={"GPU-a": Gpu(gpu_type)}))


def run_on(*gpu_types: str) -> dict[str, object]:
    return {"phases": IDS, "gpu_types": list(gpu_types)}


def filled_on_l4(export_path: Path) -> None:
    with JsonlStore(export_path) as opened:
        opened.add_run(run_on(L4))
        opened.add_baseline(empty_server(L4))
        opened.add_measurement(on(L4, ONE))
        opened.add_slice(piece(TWO, gpu="GPU-a"))


def test_rows_of_another_type_are_set_aside_and_come_back_with_it(tmp_path: Path) -> None:
    filled_on_l4(tmp_path)
    with JsonlStore(tmp_path) as opened:
        opened.add_run(run_on(A100))
        assert opened.contents.measurements == {}
        assert opened.contents.baselines == {}
        opened.add_measurement(on(A100, ONE, rate=300))
        assert opened.contents.measurements == {ONE.id: on(A100, ONE, rate=300)}
    with JsonlStore(tmp_path) as opened:
        opened.add_run(run_on(L4))
        assert opened.contents.measurements == {ONE.id: on(L4, ONE)}
        assert opened.contents.baselines == {"b": empty_server(L4)}


def test_status_and_tables_see_what_the_last_run_saw(tmp_path: Path) -> None:
    filled_on_l4(tmp_path)
    with JsonlStore(tmp_path) as opened:
        opened.add_run(run_on(A100))
    assert read(tmp_path).measurements == {}


def test_what_was_begun_on_another_type_begins_anew(tmp_path: Path) -> None:
    filled_on_l4(tmp_path)
    with JsonlStore(tmp_path) as opened:
        opened.add_run(run_on(A100))
        assert opened.slices_of(TWO.id) == []
        opened.add_slice(piece(TWO, 5, gpu="GPU-b"))
    assert [each.round for each in read(tmp_path).slices[TWO.id]] == [5]


def test_the_same_type_goes_on_where_it_stopped(tmp_path: Path) -> None:
    filled_on_l4(tmp_path)
    with JsonlStore(tmp_path) as opened:
        opened.add_run(run_on(L4))
        assert list(opened.contents.measurements) == [ONE.id]
        assert len(opened.slices_of(TWO.id)) == 1


def test_an_unknown_type_is_taken_for_any(tmp_path: Path) -> None:
    filled_on_l4(tmp_path)
    with JsonlStore(tmp_path) as opened:
        for run in (run_on(), {"phases": IDS}):
            opened.add_run(run)
            assert list(opened.contents.measurements) == [ONE.id]
            assert list(opened.contents.baselines) == ["b"]
            assert len(opened.slices_of(TWO.id)) == 1


def test_what_was_measured_where_nobody_knew_counts_everywhere(tmp_path: Path) -> None:
    with JsonlStore(tmp_path) as opened:
        opened.add_run({"phases": IDS})
        opened.add_measurement(measured(ONE))
        opened.add_slice(piece(TWO))
        opened.add_run(run_on(A100))
        assert list(opened.contents.measurements) == [ONE.id]
        assert len(opened.slices_of(TWO.id)) == 1


def test_one_line_says_what_is_measured_again(tmp_path: Path) -> None:
    filled_on_l4(tmp_path)
    with JsonlStore(tmp_path) as opened:
        opened.add_measurement(on(L4, THREE))
        opened.add_run(run_on(A100))
        assert elsewhere(opened.contents, IDS) == [
            f"2 phases were measured on {L4}; this is {A100}: measured again here; the others stay in the store"
        ]
        opened.add_measurement(on(A100, ONE))
        assert elsewhere(opened.contents, [ONE.id]) == []
        opened.add_run(run_on(L4))
        assert elsewhere(opened.contents, IDS) == []


# -- other stores of the same run -------------------------------------------------------------------------


def shard(base: Path, index: int) -> Path:
    return base / f"shard-{index}"


def fill(folder: Path, *rows: Measurement) -> None:
    with JsonlStore(folder) as opened:
        opened.add_run(run_on())
        for row in rows:
            opened.add_measurement(row)


def take(folder: Path, base: Path, *ids: str, here: tuple[str, ...] = ()) -> tuple[list[str], list[str]]:
    """The phases that the store in `folder` has then, and what was said."""
    with JsonlStore(folder) as opened:
        opened.add_run(run_on(*here))
        said = take_over(opened, stores_of(base), ids, "b")
        return list(opened.contents.measurements), said


def test_stores_of_a_run_are_its_own_and_its_shards_by_number(tmp_path: Path) -> None:
    for index in (10, 2, 0):
        fill(shard(tmp_path, index))
    (tmp_path / "shard-1").mkdir()
    fill(tmp_path / "shard-x")
    assert stores_of(tmp_path) == [shard(tmp_path, index) for index in (0, 2, 10)]
    fill(tmp_path)
    assert stores_of(tmp_path)[0] == tmp_path


def test_what_siblings_and_the_unsharded_run_finished_is_not_measured_twice(tmp_path: Path) -> None:
    fill(tmp_path, measured(ONE))
    fill(shard(tmp_path, 0), measured(TWO), failed(THREE, "it died"))
    ids, said = take(shard(tmp_path, 1), tmp_path, *IDS)
    assert ids == [ONE.id, TWO.id]
    assert said == ["2 phases were measured by other shards of this run, or by a run with another number of them"]
    assert take(shard(tmp_path, 1), tmp_path, *IDS) == (ids, []), "once"
    assert take(tmp_path, tmp_path, *IDS)[0] == [ONE.id, TWO.id], "and the unsharded run of theirs"


def test_only_what_is_asked_of_this_shard_is_taken(tmp_path: Path) -> None:
    fill(shard(tmp_path, 0), measured(ONE), measured(TWO))
    assert take(shard(tmp_path, 1), tmp_path, TWO.id)[0] == [TWO.id]


def test_a_siblings_row_replaces_a_failed_one_and_no_other(tmp_path: Path) -> None:
    fill(shard(tmp_path, 0), measured(ONE, rate=300), measured(TWO, rate=300))
    fill(shard(tmp_path, 1), failed(ONE, "it died"), measured(TWO))
    take(shard(tmp_path, 1), tmp_path, *IDS)
    assert read(shard(tmp_path, 1)).measurements == {ONE.id: measured(ONE, rate=300), TWO.id: measured(TWO)}


def test_a_siblings_row_of_another_type_is_not_taken(tmp_path: Path) -> None:
    fill(shard(tmp_path, 0), on(L4, ONE), on(A100, TWO))
    assert take(shard(tmp_path, 1), tmp_path, *IDS, here=(A100,))[0] == [TWO.id]
    assert [phase_id for phase_id, _ in read(shard(tmp_path, 1)).rows] == [TWO.id]


def test_the_baseline_is_taken_where_there_is_something_to_measure(tmp_path: Path) -> None:
    with JsonlStore(shard(tmp_path, 0)) as opened:
        opened.add_run(run_on())
        opened.add_baseline(baseline())
    take(shard(tmp_path, 1), tmp_path, ONE.id)
    take(shard(tmp_path, 2), tmp_path)
    assert (list(read(shard(tmp_path, 1)).baselines), list(read(shard(tmp_path, 2)).baselines)) == (["b"], [])


def test_a_sibling_that_cannot_be_read_costs_only_what_it_holds(tmp_path: Path) -> None:
    fill(shard(tmp_path, 0), measured(ONE))
    fill(shard(tmp_path, 2), measured(TWO))
    with (shard(tmp_path, 0) / "measurements.jsonl").open("ab") as file:
        file.write(b"garbage\n")
    ids, said = take(shard(tmp_path, 1), tmp_path, *IDS)
    assert ids == [TWO.id]
    assert "shard-0/measurements.jsonl:3: not a record of this version" in said[0]
    assert said[0].endswith("; what it holds is measured again")


def test_a_row_of_another_shard_with_too_few_repeats_is_not_taken_over(tmp_path: Path) -> None:
    fill(shard(tmp_path, 0), replace(measured(ONE), repeats=1), replace(measured(TWO), repeats=3))
    with JsonlStore(shard(tmp_path, 1), asked=3) as opened:
        opened.add_run(run_on())
        take_over(opened, stores_of(tmp_path), [ONE.id, TWO.id], "b")
        assert list(opened.contents.measurements) == [TWO.id]
