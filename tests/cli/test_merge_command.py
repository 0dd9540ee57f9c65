"""merge: shards and releases as one set of tables, and what GPU types cost."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from adapters.measured import baseline, measured, phase
from cli.conftest import Command

from model_analyzer.adapters.store import JsonlStore
from model_analyzer.core.load import SharedMemory
from model_analyzer.core.measurement import Environment, Measurement
from model_analyzer.core.plan import Phase
from model_analyzer.core.reduce import failed
from model_analyzer.core.spec import JobSpec
from model_analyzer.core.telemetry import Gpu
from model_analyzer.wire import layout_of

L4, A100, H100 = "NVIDIA L4", "NVIDIA A100-SXM4-80GB", "NVIDIA H100 80GB HBM3"
PLAN = [phase(model, batch, load) for model in "ab" for batch in (1, 4) for load in (1, 8)]
INFERENCE, GPU, SERVER = "metrics-model-inference.csv", "metrics-model-gpu.csv", "metrics-server-only.csv"
COMPARISON = "metrics-comparison.csv"


def fill(
    folder: Path,
    rows: Sequence[Measurement],
    own: Sequence[Phase] = PLAN,
    at: str = "2026-01-01T10:00:00+00:00",
    gpu_types: Sequence[str] = (),
    server: Any = None,
    plan: Sequence[Phase] | None = PLAN,
    **keys: Any,
) -> None:
    """A finished run's store with its tables as `profile` would leave it."""
    spec = JobSpec.model_validate({"model_repository": "/m", "profile_models": ["a", "b"], **keys})
    run = {"at": at, "phases": [p.id for p in own], "baseline": "b", "layout": asdict(layout_of(spec))}
    with JsonlStore(folder) as opened:
        opened.add_run(run | {"gpu_types": list(gpu_types)} | ({"plan": [p.id for p in plan]} if plan else {}))
        opened.add_baseline(server or baseline())
        for row in rows:
            opened.add_measurement(row)


def on(gpu_type: str, of: Phase, rate: int = 100, at: str = "10:00", uuid: str = "GPU-a") -> Measurement:
    row = measured(of, rate, gpu=uuid)
    return replace(row, finished_at=at, environment=Environment(gpus={uuid: Gpu(gpu_type)}))


def table(folder: Path, name: str) -> list[dict[str, str]]:
    with (folder / name).open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Model a in shard 0, model b in shard 1, nothing in shard 2."""
    for index in (0, 1, 2):
        own = [each for each in PLAN if each.variant.model == "abc"[index]]
        fill(tmp_path / "results" / f"shard-{index}", [measured(each) for each in reversed(own)], own)
    return tmp_path / "results"


@pytest.mark.parametrize("named", ["results", "results/shard-2 results/shard-1 results/shard-0"])
def test_shards_make_the_tables_of_a_single_run(command: Command, shards: Path, tmp_path: Path, named: str) -> None:
    fill(tmp_path / "single", [measured(each) for each in PLAN])
    assert command("tables", "-e", "single").code == 0
    ended = command("merge", *named.split(), "-o", "out")
    assert (ended.code, ended.err) == (0, "")
    for name in (INFERENCE, GPU, SERVER):
        assert (tmp_path / "out" / name).read_text() == (tmp_path / "single" / name).read_text()
    assert ended.out.splitlines()[-1] == "8 rows of 8 phases; failed: 0, missing: 0"
    assert "out/metrics-comparison.csv" in ended.out.splitlines()


def test_what_was_merged_is_a_store_for_status_tables_and_merge(command: Command, shards: Path, tmp_path: Path) -> None:
    command("merge", "results", "-o", "out")
    names = (INFERENCE, GPU, SERVER, COMPARISON)
    first = {name: (tmp_path / "out" / name).read_text() for name in names}
    status = command("status", "-e", "out")
    assert (status.code, status.out.splitlines()[2:]) == (
        0,
        ["  not measured yet: 0", "  server-only baseline: measured"],
    )
    for name in names:
        (tmp_path / "out" / name).unlink()
    assert "Comparison" in command("tables", "-e", "out").out
    assert {name: (tmp_path / "out" / name).read_text() for name in names} == first
    assert command("merge", "out", "-o", "again").code == 0
    assert {name: (tmp_path / "again" / name).read_text() for name in names} == first
    assert command("merge", "results", "-o", "out").code == 0, "and may be made again"
    assert {name: (tmp_path / "out" / name).read_text() for name in names} == first


def test_missing_and_failed_phases_are_told_with_4(command: Command, shards: Path, tmp_path: Path) -> None:
    ended = command("merge", "results/shard-0", "-o", "out")
    assert (ended.code, ended.out.splitlines()[-1]) == (4, "4 rows of 8 phases; failed: 0, missing: 4")
    assert command("status", "-e", "out").code == 4
    ended = command("merge", "out", "results/shard-1", "-o", "whole")
    assert (ended.code, ended.out.splitlines()[-1]) == (0, "8 rows of 8 phases; failed: 0, missing: 0")
    with JsonlStore(shards / "shard-1") as opened:
        opened.add_measurement(replace(failed(PLAN[-1], "it died"), finished_at="9"))
        opened.add_measurement(replace(failed(PLAN[-2], "it died"), environment=Environment(gpus={"g": Gpu(L4)})))
    ended = command("merge", "results", "-o", "out")
    assert (ended.code, ended.out.splitlines()[-1]) == (4, "9 rows of 8 phases; failed: 2, missing: 0")


def test_the_constraints_of_a_sharded_run_are_judged_where_all_rows_are(command: Command, tmp_path: Path) -> None:
    for name, bound, code in (("good", 20, 0), ("bad", 5, 5)):
        fill(tmp_path / name, [measured(each) for each in PLAN], constraints={"perf_latency_p99": {"max": bound}})
        assert command("merge", name, "-o", f"{name}-out").code == code


def test_shards_of_another_number_leave_no_rows_behind(command: Command, tmp_path: Path) -> None:
    """Three shards once, then two with a smaller plan: shard-2 is of before."""
    base, smaller = tmp_path / "results", PLAN[:6]
    for index in (0, 1, 2):
        own = PLAN[index::3]
        fill(base / f"shard-{index}", [measured(each) for each in own], own)
    for index in (0, 1):
        own = smaller[index::2]
        fill(
            base / f"shard-{index}",
            [measured(each) for each in own],
            own,
            at="2026-01-02T10:00:00+00:00",
            plan=smaller,
        )
    ended = command("merge", "results", "-o", "out")
    assert (ended.code, ended.out.splitlines()[-1]) == (0, "6 rows of 6 phases; failed: 0, missing: 0")


def releases(tmp_path: Path, prices: dict[str, float]) -> None:
    """The same plan on three GPU types; in the cluster of the H100 the server had another identity."""
    for name, gpu_type, rate in (("l4", L4, 100), ("a100", A100, 200), ("h100", H100, 400)):
        plan = [replace(each, id=f"h-{each.id}") for each in PLAN] if name == "h100" else PLAN
        rows = [on(gpu_type, each, rate, uuid=f"GPU-{name}") for each in plan]
        server = replace(baseline({f"GPU-{name}": 1e9}), environment=Environment(gpus={f"GPU-{name}": Gpu(gpu_type)}))
        fill(tmp_path / name, rows, plan, gpu_types=[gpu_type], server=server, plan=None, gpu_prices=prices)


def test_gpu_types_stand_side_by_side_with_what_a_million_inferences_cost(command: Command, tmp_path: Path) -> None:
    releases(tmp_path, {"L4": 0.72, "A100": 3.6})
    ended = command("merge", "l4", "a100", "h100", "-o", "all")
    assert (ended.code, ended.err) == (0, "")
    rows = table(tmp_path / "all", COMPARISON)
    assert [row["GPU Type"] for row in rows] == [L4, A100, H100] * 8
    assert [(row["Model"], row["Batch"], row["Concurrency"]) for row in rows[::3]] == [
        (each.variant.model, str(each.batch_size), f"{each.load.value:g}") for each in PLAN
    ]
    # 0.72 / 3600 / 100 x 1e6 = 2; 3.60 / 3600 / 200 x 1e6 = 5.
    assert [row["Cost per Million Inferences"] for row in rows[:3]] == ["2.000000", "5.000000", ""]
    assert [row["Throughput (infer/sec)"] for row in rows[:3]] == ["100.0", "200.0", "400.0"]
    assert [(row["p99 Latency (ms)"], row["Max GPU Memory (MB)"], row["GPUs"]) for row in rows[:1]] == [
        ("10.000", "2000.0", "1")
    ]
    # 200 W for a second / 100 inferences.
    assert (rows[0]["GPU Utilization (%)"], rows[0]["Energy per Inference (J)"]) == ("50.0", "2.000000")
    energy = list(rows[0]).index("Energy per Inference (J)")
    assert list(rows[0])[energy + 1] == "Energy per Inference Interval (+-J)"
    assert bool(rows[0]["Energy per Inference Interval (+-J)"]) is not (
        "Energy per Inference Interval" in rows[0]["Notes"]
    )
    assert f"Cost per Million Inferences: no price of {H100} in gpu_prices" in rows[2]["Notes"]
    assert "Cost" not in rows[0]["Notes"]
    shown = [line for line in ended.out.splitlines() if A100 in line]
    assert len(shown) == 8
    assert "5.000000" in shown[0]


def test_rows_of_several_types_are_told_apart_in_every_table(command: Command, tmp_path: Path) -> None:
    releases(tmp_path, {})
    command("merge", "l4", "a100", "h100", "-o", "all")
    inference, server = table(tmp_path / "all", INFERENCE), table(tmp_path / "all", SERVER)
    assert len(inference) == len(table(tmp_path / "all", GPU)) == 24
    assert {row["GPU Model"] for row in inference} == {L4, A100, H100}
    assert [row["GPU Model"] for row in server] == [L4, A100, H100]
    assert len({tuple(row[c] for c in ("Model", "Batch", "Concurrency", "GPU Model")) for row in inference}) == 24


def test_streams_stand_side_by_side_with_their_intervals(command: Command, tmp_path: Path) -> None:
    figures = {
        "time_to_first_token_avg": 11e6, "time_to_first_token_avg_ci": 1e6,
        "time_to_first_token_p99": 12e6, "time_to_first_token_p99_ci": 2e6,
        "inter_token_latency_avg": 3e6, "inter_token_latency_avg_ci": 5e5,
        "inter_token_latency_p99": 4e6, "output_token_throughput": 340.0, "output_token_throughput_ci": 17.0,
    }  # fmt: skip
    why = "no interval: 120 responses, 299 are needed"
    for name, gpu_type in (("l4", L4), ("a100", A100)):
        row, plain = on(gpu_type, PLAN[0]), on(gpu_type, PLAN[-1])
        reasons = {**row.reasons, "inter_token_latency_p99_ci": why}
        row = replace(row, values={**row.values, **figures, "inter_token_latency_p99_ci": None}, reasons=reasons)
        fill(tmp_path / name, [row, plain], [PLAN[0], PLAN[-1]], plan=None, gpu_types=[gpu_type])
    ended = command("merge", "l4", "a100", "-o", "all")
    rows = table(tmp_path / "all", COMPARISON)
    cells = {
        "Avg Time To First Token (ms)": "11.000", "Avg Time To First Token Interval (+-ms)": "1.000",
        "p99 Time To First Token (ms)": "12.000", "p99 Time To First Token Interval (+-ms)": "2.000",
        "Avg Inter Token Latency (ms)": "3.000", "Avg Inter Token Latency Interval (+-ms)": "0.500",
        "p99 Inter Token Latency (ms)": "4.000", "p99 Inter Token Latency Interval (+-ms)": "",
        "Output Token Throughput (infer/sec)": "340.0", "Output Token Throughput Interval (+-infer/sec)": "17.0",
    }  # fmt: skip
    for row in rows[:2]:
        assert {column: row[column] for column in cells} == cells
        assert f"p99 Inter Token Latency Interval (+-ms): {why}" in row["Notes"].split(" | ")
    assert {rows[2][column] for column in cells} == {""}
    assert "each request has one reply: nothing is streamed" in rows[2]["Notes"]
    (shown,) = [line for line in ended.out.splitlines() if L4 in line and "340.0" in line]
    assert "11.000" in shown
    assert "12.000" not in shown, "the file has more than fits a terminal"


def test_without_streams_their_columns_are_not_there(command: Command, shards: Path, tmp_path: Path) -> None:
    command("merge", "results", "-o", "out")
    assert not [column for column in table(tmp_path / "out", COMPARISON)[0] if "Token" in column]


OPEN = phase("a", kind="request_rate", load=50)


@pytest.mark.parametrize(
    ("one", "other", "column", "cells"),
    [
        (PLAN[0], replace(PLAN[0], protocol="grpc"), "Protocol", ["http", "grpc"]),
        (PLAN[0], replace(PLAN[0], call="generate_stream"), "Call", ["default", "generate_stream"]),
        (
            PLAN[0],
            replace(PLAN[0], source=replace(PLAN[0].source, shared_memory=SharedMemory())),
            "Shared Memory",
            ["none", "system"],
        ),
        (PLAN[0], replace(PLAN[0], load=replace(PLAN[0].load, ramp_s=2.5)), "Ramp (s)", ["0", "2.5"]),
        (OPEN, replace(OPEN, load=replace(OPEN.load, max_concurrency=8)), "Max Concurrency", ["", "8"]),
        (
            OPEN,
            replace(OPEN, load=replace(OPEN.load, distribution="poisson")),
            "Request Distribution",
            ["constant", "poisson"],
        ),
        (PLAN[0], replace(PLAN[0], source=replace(PLAN[0].source, mode="zero")), "Input Data", ["random", "zero"]),
    ],
)
def test_rows_that_are_named_alike_are_told_apart_in_every_table(
    command: Command, tmp_path: Path, one: Phase, other: Phase, column: str, cells: list[str]
) -> None:
    other = replace(other, id=f"other-{other.id}")
    for name, own, rate in (("one", one, 100), ("other", other, 200)):
        fill(tmp_path / name, [measured(own, rate)], [own], plan=None)
    ended = command("merge", "one", "other", "-o", "out")
    assert (ended.code, ended.err) == (0, "")
    columns = {"Protocol", "Call", "Shared Memory", "Ramp (s)", "Max Concurrency", "Request Distribution", "Input Data"}
    for name in (INFERENCE, GPU, COMPARISON):
        rows = table(tmp_path / "out", name)
        assert [row[column] for row in rows] == cells
        assert columns & set(rows[0]) == {column}
    assert [row["Throughput (infer/sec)"] for row in table(tmp_path / "out", COMPARISON)] == ["100.0", "200.0"]
    assert column in ended.out
    assert command("merge", "out", "-o", "again").code == 0
    assert (tmp_path / "again" / INFERENCE).read_text() == (tmp_path / "out" / INFERENCE).read_text()


def test_rows_that_have_another_name_anyway_need_no_further_column(command: Command, tmp_path: Path) -> None:
    """One model that is streamed, another that is not: nothing would look alike."""
    other = replace(PLAN[-1], call="stream_infer")
    fill(tmp_path / "one", [measured(PLAN[0])], PLAN[:1], plan=None)
    fill(tmp_path / "two", [measured(other)], [other], plan=None)
    assert command("merge", "one", "two", "-o", "out").code == 0
    for name in (INFERENCE, GPU, COMPARISON):
        assert not {"Protocol", "Call"} & set(table(tmp_path / "out", name)[0])


def test_a_type_on_which_phases_are_missing_is_told_although_another_has_them(command: Command, tmp_path: Path) -> None:
    fill(tmp_path / "l4", [on(L4, each) for each in PLAN], gpu_types=[L4])
    fill(tmp_path / "a100", [on(A100, each) for each in PLAN[:5]], gpu_types=[A100])
    ended = command("merge", "l4", "a100", "-o", "all")
    assert (ended.code, ended.out.splitlines()[-1]) == (4, "13 rows of 8 phases; failed: 0, missing: 3")
    assert command("merge", "all", "-o", "again").code == 4


def test_what_a_spot_node_left_on_another_type_is_a_row_of_its_own(command: Command, tmp_path: Path) -> None:
    fill(tmp_path / "spot", [on(L4, PLAN[0]), *(on(A100, each) for each in PLAN)], gpu_types=[A100])
    command("merge", "spot", "-o", "out")
    assert [row["GPU Type"] for row in table(tmp_path / "out", COMPARISON)][:3] == [L4, A100, A100]


def test_stores_of_different_jobs_have_the_columns_of_both_and_a_warning(command: Command, tmp_path: Path) -> None:
    fill(tmp_path / "one", [measured(PLAN[0])], PLAN[:1], plan=None, inference_output_fields=["model_name", "notes"])
    fill(tmp_path / "two", [measured(PLAN[1])], PLAN[1:2], plan=None, inference_output_fields=["cpu_used_ram"])
    ended = command("merge", "one", "two", "-o", "out")
    assert ended.code == 0
    assert ended.err.startswith(f"warning: {tmp_path}/two: output fields differ from those of {tmp_path}/one; ")
    head = (tmp_path / "out" / INFERENCE).read_text().splitlines()[0]
    assert head.startswith("Model,Notes,RAM Usage (MB),")
    assert len(table(tmp_path / "out", INFERENCE)) == 2


def test_prices_of_the_first_run_hold(command: Command, tmp_path: Path) -> None:
    for name, price in (("one", 0.72), ("two", 7.2)):
        fill(tmp_path / name, [on(L4, each) for each in PLAN], gpu_types=[L4], gpu_prices={"L4": price})
    ended = command("merge", "one", "two", "-o", "out")
    assert "gpu_prices differ" in ended.err
    assert table(tmp_path / "out", COMPARISON)[0]["Cost per Million Inferences"] == "2.000000"


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ("nowhere -o out", "nowhere: holds no measurements; name the export path of a run"),
        ("empty -o out", "empty: holds no measurements; name the export path of a run"),
        ("results -o single", "single: holds a run of its own, which a merge would replace; name another folder with -o"),
        ("single -o single", "single: is to be merged into itself; name another folder with -o"),
    ],
)  # fmt: skip
def test_folders_that_cannot_be_merged_are_one_line(
    command: Command, shards: Path, tmp_path: Path, arguments: str, error: str
) -> None:
    (tmp_path / "empty").mkdir()
    fill(tmp_path / "single", [measured(each) for each in PLAN])
    before = (tmp_path / "single" / "measurements.jsonl").read_bytes()
    ended = command("merge", *arguments.split())
    assert (ended.code, ended.errors) == (2, [f"error: {error}"])
    assert (tmp_path / "single" / "measurements.jsonl").read_bytes() == before


def test_the_status_of_an_export_path_with_shards_says_what_to_do(command: Command, shards: Path) -> None:
    ended = command("status", "-e", "results")
    assert ended.errors == [
        "error: results: holds the shards of a run; make one of them: model-analyzer merge results -o FOLDER"
    ]


def test_a_comparison_without_gpus_says_why(command: Command, shards: Path, tmp_path: Path) -> None:
    assert "unknown" in command("merge", "results", "-o", "out").out
    notes = table(tmp_path / "out", COMPARISON)[0]["Notes"]
    assert "GPU Type: no DCGM exporter said which GPU it was" in notes
    assert "Cost per Million Inferences: it is not known which GPUs were used" in notes


def test_shards_on_gpus_of_their_own_have_a_server_only_row_each(command: Command, tmp_path: Path) -> None:
    for index, uuid in enumerate(("GPU-a", "GPU-b")):
        rows = [on(L4, each, uuid=uuid) for each in PLAN[index::2]]
        server = replace(baseline({uuid: 1e9}), environment=Environment(gpus={uuid: Gpu(L4)}))
        fill(tmp_path / "results" / f"shard-{index}", rows, PLAN[index::2], gpu_types=[L4], server=server)
    assert command("merge", "results", "-o", "out").code == 0
    assert command("tables", "-e", "out").code == 0
    assert [row["GPU UUID"] for row in table(tmp_path / "out", SERVER)] == ["GPU-a", "GPU-b"]


def test_the_baseline_of_a_job_of_before_is_no_row(command: Command, tmp_path: Path) -> None:
    fill(tmp_path / "results", [measured(each) for each in PLAN], server=replace(baseline({"GPU-old": 1e9}), id="old"))
    fill(tmp_path / "results", [])
    command("merge", "results", "-o", "out")
    assert [row["GPU UUID"] for row in table(tmp_path / "out", SERVER)] == [""]


def test_what_was_merged_beside_its_shards_does_not_outlive_what_they_hold_now(
    command: Command, tmp_path: Path
) -> None:
    shard = tmp_path / "results" / "shard-0"
    fill(shard, [measured(each) for each in PLAN[:3]])
    assert command("merge", "results", "-o", "results").code == 4
    with JsonlStore(shard) as opened:
        for each in PLAN[3:]:
            opened.add_measurement(measured(each))
    assert command("merge", "results", "-o", "out").code == 0


def test_the_gpu_type_of_a_shard_that_is_no_more_is_not_that_of_the_run(command: Command, tmp_path: Path) -> None:
    """Three shards once on an L4; then one on an A100 that has not measured all yet."""
    fill(tmp_path / "results/shard-2", [on(L4, PLAN[0])], PLAN[:1], plan=[*PLAN, phase("c")], gpu_types=[L4])
    rows = [on(A100, each) for each in PLAN[1:]]
    fill(tmp_path / "results/shard-0", rows, at="2026-01-02T10:00:00+00:00", gpu_types=[A100])
    ended = command("merge", "results", "-o", "out")
    assert (ended.code, ended.out.splitlines()[-1]) == (4, "8 rows of 8 phases; failed: 0, missing: 1")


def test_constraints_of_the_first_run_hold_and_models_of_the_others_keep_theirs(
    command: Command, tmp_path: Path
) -> None:
    tight, loose = ({"perf_latency_p99": {"max": bound}} for bound in (5, 20))
    own, others = (
        [each for each in PLAN if each.variant.model == "a"],
        [each for each in PLAN if each.variant.model == "b"],
    )
    fill(
        tmp_path / "one", [measured(each) for each in own], own, plan=None, profile_models={"a": {"constraints": loose}}
    )
    models = {"a": {"constraints": tight}, "b": {"constraints": tight}}
    fill(tmp_path / "two", [measured(each) for each in others], others, plan=None, profile_models=models)
    assert command("merge", "one", "two", "-o", "out").code == 0
    fits = {(row["Model"], row["Satisfies Constraints"]) for row in table(tmp_path / "out", INFERENCE)}
    assert fits == {("a", "Yes"), ("b", "No")}


def test_the_comparison_says_where_the_load_generator_was_the_limit(command: Command, tmp_path: Path) -> None:
    note = "the load generator used 95% of a core: its own work was the limit"
    free = replace(measured(PLAN[0]), client_limited=False)
    bound = replace(measured(PLAN[1]), client_limited=True, notes=(note,))
    fill(tmp_path / "results", [free, bound], PLAN[:2], plan=None)
    ended = command("merge", "results", "-o", "out")
    one, other = table(tmp_path / "out", COMPARISON)
    assert (one["Client Limited"], other["Client Limited"]) == ("No", "Yes")
    assert note not in one["Notes"]
    assert other["Notes"].startswith(note)
    assert "ok, client limited" in ended.out


def test_a_failed_phase_says_why_in_the_comparison(command: Command, tmp_path: Path) -> None:
    fill(tmp_path / "results", [replace(failed(each, "out of memory"), finished_at="9") for each in PLAN])
    assert command("merge", "results", "-o", "out").code == 4
    row = table(tmp_path / "out", COMPARISON)[0]
    assert (row["Status"], row["Notes"].split(" | ")[0]) == ("failed", "out of memory")
    assert (row["Throughput (infer/sec)"], row["Cost per Million Inferences"]) == ("", "")
