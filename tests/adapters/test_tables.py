"""The tables: what stands in which column, and why a cell is empty."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from measured import NO_GPU, baseline, measured, phase
from rich.console import Console

from model_analyzer.adapters.tables import Layout, gpu_rows, inference_rows, server_rows, summary, to_csv, write_csvs
from model_analyzer.core.measurement import Measurement
from model_analyzer.core.metric import (
    COLUMNS,
    DEFAULT_GPU_FIELDS,
    DEFAULT_INFERENCE_FIELDS,
    DEFAULT_SERVER_FIELDS,
    METRICS,
    OWN_INFERENCE_FIELDS,
    header,
    known_tags,
)
from model_analyzer.core.reduce import failed, skipped
from model_analyzer.core.telemetry import Reading

LAYOUT = Layout(
    DEFAULT_INFERENCE_FIELDS,
    DEFAULT_GPU_FIELDS,
    DEFAULT_SERVER_FIELDS,
    "metrics-model-inference.csv",
    "metrics-model-gpu.csv",
    "metrics-server-only.csv",
    {},
)
EVERY = tuple(sorted(known_tags()))
ALL_FIELDS = replace(LAYOUT, inference_fields=EVERY, gpu_fields=EVERY, server_fields=EVERY)
GPU = "GPU-5d5ba0d6"

INFERENCE = "Model,Batch,Concurrency,Model Config Path,Instance Group,Max Batch Size,Satisfies Constraints,Throughput (infer/sec),p99 Latency (ms)"
GPU_HEAD = (
    "Model,GPU UUID,Batch,Concurrency,Model Config Path,Instance Group,Satisfies Constraints,GPU Memory Usage (MB),"
    "GPU Utilization (%),GPU Power Usage (W)"
)
SERVER = "Model,GPU UUID,GPU Memory Usage (MB),GPU Utilization (%),GPU Power Usage (W)"


def written(
    export_path: Path,
    measurements: Sequence[Measurement],
    layout: Layout = LAYOUT,
    gpus: dict[str, float] | None = None,
) -> list[list[dict[str, str]]]:
    """The rows of the three files, inference, GPU, server, as csv reads them."""
    write_csvs(export_path, layout, measurements, [baseline(gpus or {})])
    names = (layout.filename_inference, layout.filename_gpu, layout.filename_server)
    return [list(csv.DictReader(io.StringIO((export_path / name).read_text()))) for name in names]


@pytest.mark.parametrize("measurements", [[], [measured(phase())]])
def test_headers_are_triton_model_analyzers_and_ours_follow(tmp_path: Path, measurements: list[Measurement]) -> None:
    write_csvs(tmp_path, LAYOUT, measurements, [])
    heads = {path.name: path.read_text().splitlines()[0] for path in tmp_path.iterdir()}
    for name, head in (("model-inference", INFERENCE), ("model-gpu", GPU_HEAD), ("server-only", SERVER)):
        assert heads[f"metrics-{name}.csv"].startswith(head + ",")
        assert heads[f"metrics-{name}.csv"].endswith(",Notes")
    for column in ("Max Memory Utilization (%)", "Max GPU Utilization (%)", "Max GPU Memory (MB)"):
        assert all(f",{column}," in head for head in heads.values())


def test_values_stand_in_the_unit_of_their_header(tmp_path: Path) -> None:
    ((row,), (gpu,), (server,)) = written(tmp_path, [measured(phase(batch=4), gpu=GPU)], gpus={GPU: 5e8})
    shown = {
        "Model": "m",
        "Batch": "4",
        "Concurrency": "1",
        "Model Config Path": "m_config_default",
        "Instance Group": "1:CPU",
        "Max Batch Size": "8",
        "Satisfies Constraints": "Yes",
        "Throughput (infer/sec)": "400.0",
        "p99 Latency (ms)": "10.000",
        "Server Queue time (ms)": "1.000",
        "Max GPU Utilization (%)": "60.0",
        "Max GPU Memory (MB)": "2000.0",
        "RAM Usage (MB)": "200.0",
        "Client CPU (%)": "25.0",
        "Requests Succeeded": "400",
        "Measured (s)": "4.00",
        "Status": "ok",
    }
    assert {column: row[column] for column in shown} == shown
    assert (gpu["GPU UUID"], gpu["GPU Memory Usage (MB)"], gpu["GPU Utilization (%)"]) == (GPU, "2000.0", "50.0")
    assert (gpu["GPU Power Usage (W)"], gpu["GPU Model"], gpu["GPU Source"]) == ("200.0", "NVIDIA H100", "triton")
    assert (server["Model"], server["GPU UUID"], server["GPU Memory Usage (MB)"]) == ("triton-server", GPU, "500.0")
    assert (server["RAM Usage (MB)"], server["CPU Utilization (%)"]) == ("500.0", "12.5")


@pytest.mark.parametrize("gpu", [None, GPU])
def test_every_empty_metric_has_its_reason_in_the_notes(tmp_path: Path, gpu: str | None) -> None:
    tables = written(tmp_path, [measured(phase(), gpu=gpu)], ALL_FIELDS, {gpu: 1e9} if gpu else {})
    metrics = {metric.header for metric in METRICS.values()}
    empty = 0
    for row in (row for rows in tables for row in rows):
        for column in metrics & {column for column, cell in row.items() if not cell}:
            empty += 1
            told = [note.split(": ", 1) for note in row["Notes"].split(" | ") if ": " in note]
            assert any(column in columns.split(", ") and why for columns, why in told), (column, row["Notes"])
    assert empty > 20


def streamed() -> Measurement:
    """A phase with streams."""
    figures = {"time_to_first_token_p99": 12e6, "inter_token_latency_p99": 2e6, "output_token_throughput": 340.0}
    plain = measured(phase("s"))
    return replace(plain, values={**plain.values, **figures}, reasons={"time_to_first_token_avg": "gone"})


def test_columns_of_streams_are_there_where_a_phase_was_streamed(tmp_path: Path) -> None:
    ((row, plain), _, _) = written(tmp_path, [streamed(), measured(phase())])
    assert list(row)[len(LAYOUT.inference_fields) :][:3] == [
        "p99 Inter Token Latency (ms)", "p99 Time To First Token (ms)", "Output Token Throughput (infer/sec)",
    ]  # fmt: skip
    assert list(row.values())[len(LAYOUT.inference_fields) :][:3] == ["2.000", "12.000", "340.0"]
    assert plain["Output Token Throughput (infer/sec)"] == ""
    assert "each request has one reply: nothing is streamed" in plain["Notes"]
    ((none,), _, _) = written(tmp_path, [measured(phase())])
    assert not [column for column in none if "Token" in column]
    asked = replace(LAYOUT, inference_fields=("model_name", "time_to_first_token_p90"))
    ((row,), _, _) = written(tmp_path, [measured(phase())], asked)
    assert [column for column in row if "Token" in column] == ["p90 Time To First Token (ms)"]


def test_absent_is_empty_and_zero_is_zero() -> None:
    none = replace(measured(phase()), values={"perf_throughput": 0.0, "requests_failed": None}, reasons={})
    (row,) = inference_rows([none], LAYOUT)
    assert row["perf_throughput"] == "0.0"
    assert row["requests_failed"] == ""
    assert "Requests Failed" in row["notes"]


def test_equal_reasons_stand_together(tmp_path: Path) -> None:
    ((row,), _, _) = written(tmp_path, [measured(phase())])
    assert row["Notes"].count(NO_GPU) == 1
    headers = "Max Memory Utilization (%), Max GPU Utilization (%), Max GPU Memory (MB)"
    energy = "Energy per Inference (J), Energy per Inference Interval (+-J)"
    assert f"{headers}, {energy}: {NO_GPU}" in row["Notes"]


@pytest.mark.parametrize(("make", "status"), [(failed, "failed"), (skipped, "skipped")])
def test_a_phase_without_figures_has_a_row_in_both_tables_that_begins_with_why(tmp_path: Path, make, status) -> None:
    reason = 'the model says: "shape [2, 3]",\nand then some'
    inference, gpu, _ = written(tmp_path, [make(phase(batch=2), reason)])
    for (row,) in (inference, gpu):
        assert (row["Model"], row["Batch"], row["Status"], row["Notes"]) == ("m", "2", status, reason)
        assert row["Satisfies Constraints"] == ""
        assert {cell for column, cell in row.items() if column in {m.header for m in METRICS.values()}} == {""}


def test_cells_are_quoted_as_rfc_4180_asks() -> None:
    (row,) = inference_rows(
        [failed(phase(), 'a "quoted", word')], replace(LAYOUT, inference_fields=("notes", "model_name"))
    )
    assert to_csv(("notes", "model_name"), [row]) == 'Notes,Model\n"a ""quoted"", word",m\n'


def test_the_users_fields_keep_their_order_and_ours_follow(tmp_path: Path) -> None:
    mine = ("perf_latency_p99", "notes", "model_name", "perf_latency_avg")
    write_csvs(tmp_path, replace(LAYOUT, inference_fields=mine), [measured(phase())], [])
    head, row = csv.reader((tmp_path / LAYOUT.filename_inference).read_text().splitlines())
    rest = [tag for tag in OWN_INFERENCE_FIELDS if tag not in mine]
    assert head == [header(tag) for tag in (*mine, *rest)]
    assert (row[0], row[2], row[3]) == ("10.000", "m", "10.000")
    assert NO_GPU in row[1]


def test_every_name_of_a_metric_or_column_may_be_a_field(tmp_path: Path) -> None:
    for rows in written(tmp_path, [measured(phase(), gpu=GPU)], ALL_FIELDS, {GPU: 1e9}):
        # Two names of one metric (perf_latency is perf_latency_p99) have one header.
        assert set(rows[0]) == {header(tag) for tag in (*METRICS, *COLUMNS)}


def test_without_a_gpu_the_server_only_row_has_cpu_and_ram_and_says_why_the_rest_is_empty() -> None:
    (row,) = server_rows([baseline()], LAYOUT)
    assert (row["model_name"], row["gpu_uuid"], row["gpu_used_memory"]) == ("triton-server", "", "")
    assert (row["cpu_used_ram"], row["cpu_available_ram"], row["cpu_utilization"]) == ("500.0", "7000.0", "12.5")
    assert row["notes"].endswith(f": {NO_GPU}")


def test_a_server_only_row_of_a_gpu_tells_the_reason_of_its_own_empty_cells() -> None:
    (row,) = server_rows([baseline({GPU: 1e9})], replace(LAYOUT, server_fields=("gpu_utilization", "perf_throughput")))
    assert "GPU Utilization (%): stale: dcgm did not refresh" in row["notes"]
    assert "Throughput (infer/sec): the server-only row has no phase" in row["notes"]


def test_before_the_baseline_there_is_no_server_only_row() -> None:
    assert server_rows([], LAYOUT) == []


def test_a_phase_on_several_gpus_has_a_row_for_each() -> None:
    one = measured(phase(), gpu="GPU-a")
    both = replace(one, gpus={**one.gpus, "GPU-b": {**one.gpus["GPU-a"], "gpu_utilization": Reading(0.75, "dcgm")}})
    rows = gpu_rows([both], LAYOUT)
    assert [(row["gpu_uuid"], row["gpu_utilization"]) for row in rows] == [("GPU-a", "50.0"), ("GPU-b", "75.0")]
    (row,) = inference_rows([both], ALL_FIELDS)
    assert (row["gpu_uuid"], row["gpu_source"]) == ("GPU-a GPU-b", "triton, dcgm")


def test_a_gpus_empty_cell_has_the_reason_of_that_gpu() -> None:
    one = measured(phase(), gpu="GPU-a")
    stale = {**one.gpus["GPU-a"], "gpu_power_usage": Reading(None, reason="stale: dcgm did not refresh")}
    good, bad = gpu_rows([replace(one, gpus={**one.gpus, "GPU-b": stale})], LAYOUT)
    assert (good["gpu_power_usage"], bad["gpu_power_usage"]) == ("200.0", "")
    assert "GPU Power Usage (W): stale: dcgm did not refresh" in bad["notes"]
    assert "stale" not in good["notes"]


def test_phase_and_host_metrics_may_stand_in_the_gpu_table() -> None:
    (row,) = gpu_rows([measured(phase(), gpu=GPU)], replace(LAYOUT, gpu_fields=("perf_throughput", "cpu_used_ram")))
    assert (row["perf_throughput"], row["cpu_used_ram"]) == ("100.0", "200.0")


@pytest.mark.parametrize(
    ("kind", "value", "cell"),
    [
        ("concurrency", 16, "16"),
        ("request_rate", 250, "250"),
        ("request_rate", 2.5, "2.5"),
        ("request_rate", 2e6, "2000000"),
    ],
)
def test_a_load_stands_in_the_column_of_its_kind_in_full(kind: str, value: float, cell: str) -> None:
    (row,) = inference_rows([measured(phase(load=value, kind=kind))], ALL_FIELDS)
    assert row[kind] == cell
    assert row["request_rate" if kind == "concurrency" else "concurrency"] == ""


@pytest.mark.parametrize(("bound_ms", "answer"), [(20.0, "Yes"), (5.0, "No")])
def test_constraints_are_held_against_the_tables_unit(bound_ms: float, answer: str) -> None:
    layout = replace(LAYOUT, constraints={"m": {"perf_latency_p99": {"max": bound_ms}}})
    (row,) = inference_rows([measured(phase())], layout)
    assert row["satisfies_constraints"] == answer


def test_files_have_the_names_of_the_job(tmp_path: Path) -> None:
    layout = replace(LAYOUT, filename_inference="sub/i.csv", filename_gpu="g.csv", filename_server="s.csv")
    written(tmp_path, [measured(phase())], layout)
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.csv")) == [
        "g.csv",
        "s.csv",
        "sub/i.csv",
    ]


def printed(measurements: Sequence[Measurement], layout: Layout = LAYOUT, width: int = 120) -> str:
    console = Console(file=io.StringIO(), width=width)
    summary(console, measurements, layout)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_the_summary_shows_what_a_person_wants_first() -> None:
    text = printed([measured(phase(batch=4)), failed(phase("broken"), "weights.bin is missing")])
    good, bad = text.splitlines()[-3:-1]
    assert all(part in good for part in ("m_config_default", "4", "400.0 ±0%", "10.000", "ok"))
    assert all(part in bad for part in ("broken_config_default", "-", "failed: weights.bin is missing"))
    assert "GPU %" not in text
    assert "Fits" not in text


@pytest.mark.parametrize(("limited", "told"), [(True, True), (False, False), (None, False)])
def test_the_summary_says_where_the_load_generator_was_the_limit(limited: bool | None, told: bool) -> None:
    text = printed([replace(measured(phase()), client_limited=limited)], width=200)
    assert ("client limited" in text) is told


def test_the_summary_shows_the_beginning_of_a_long_reason() -> None:
    text = printed([failed(phase("broken"), "ModuleNotFoundError: " + "a frame of the traceback " * 200)], width=400)
    (bad,) = text.splitlines()[-2:-1]
    assert "failed: ModuleNotFoundError: a frame of the traceback" in bad
    assert bad.rstrip(" │").endswith(" ...")


def test_the_summary_has_gpu_and_constraint_columns_where_there_is_something_to_say() -> None:
    layout = replace(LAYOUT, constraints={"m": {"perf_latency_p99": {"max": 1.0}}})
    text = printed([measured(phase(), gpu=GPU)], layout)
    assert all(column in text for column in ("GPU %", "Mem %", "GPU MB", "Fits", "2000.0", "No"))


def test_the_summary_reads_each_row_of_a_store_once() -> None:
    rows = [measured(phase(), gpu=GPU), failed(phase("broken"), "weights.bin is missing")]
    console = Console(file=io.StringIO(), width=120)
    summary(console, iter(rows), LAYOUT)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert all(part in text for part in ("GPU %", "m_config_default", "broken_config_default"))


def test_the_summary_of_an_open_loop_shows_the_rate() -> None:
    assert " 250/s " in printed([measured(phase(load=250, kind="request_rate"))])


def test_the_layout_survives_the_store() -> None:
    import msgspec

    layout = replace(LAYOUT, constraints={"m": {"perf_latency_p99": {"max": 1.0}}})
    assert msgspec.convert(asdict(layout), Layout) == layout
