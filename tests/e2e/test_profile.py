"""The main job on the real server."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from e2e_tools import Job, command

pytestmark = pytest.mark.triton

INFERENCE = "Model,Batch,Concurrency,Model Config Path,Instance Group,Max Batch Size,Satisfies Constraints,Throughput (infer/sec),p99 Latency (ms)"
GPU = (
    "Model,GPU UUID,Batch,Concurrency,Model Config Path,Instance Group,Satisfies Constraints,GPU Memory Usage (MB),"
    "GPU Utilization (%),GPU Power Usage (W)"
)
SERVER = "Model,GPU UUID,GPU Memory Usage (MB),GPU Utilization (%),GPU Power Usage (W)"
SEED = ("Throughput (infer/sec)", "Max Memory Utilization (%)", "Max GPU Utilization (%)", "Max GPU Memory (MB)")


def test_a_sweep_writes_a_row_for_each_phase_and_the_baseline(make_job: Callable[..., Job]) -> None:
    job = make_job(["add_sub", "magika"], batch_sizes=[1, 4], concurrency=[1, 2])
    done = job.profile()
    assert done.returncode == 0, done.stderr
    rows = job.rows()
    asked = [(m, str(b), str(c)) for m in ("add_sub", "magika") for b in (1, 4) for c in (1, 2)]
    assert [(row["Model"], row["Batch"], row["Concurrency"]) for row in rows] == asked
    assert all(float(row["Throughput (infer/sec)"]) > 0 for row in rows)
    assert all(column in rows[0] for column in SEED)
    assert [row["Model"] for row in job.rows("metrics-server-only.csv")] == ["triton-server"]
    assert "embedded Triton 2." in done.stderr
    for name, head in (("model-inference", INFERENCE), ("model-gpu", GPU), ("server-only", SERVER)):
        assert (job.export_path / f"metrics-{name}.csv").read_text().startswith(head)


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_a_run_imports_only_what_it_needs(make_job: Callable[..., Job], remote: dict[str, str], protocol: str) -> None:
    """Of a run's CPU beside its load, most is start-up: what is not named here must not come back unseen."""
    job = make_job(["add_sub"], client_protocol=protocol, **remote)
    code = """
import sys
from model_analyzer.cli.main import main
try:
    main(["profile", "-f", sys.argv[1]])
finally:
    print(*sys.modules, file=sys.stderr)
"""
    ran = subprocess.run(
        [sys.executable, "-c", code, str(job.file)], capture_output=True, text=True, check=True, timeout=120
    )
    modules = set(ran.stderr.splitlines()[-1].split())
    assert "model_analyzer.adapters.telemetry.triton" in modules
    dear = (*(("tritonclient", "google.protobuf") if protocol == "http" else ()), "grpc", "gevent", "asyncio", "prometheus_client", "psutil", "kubernetes", "docker",
            "rich.live", "rich.progress", "rich._emoji_codes", "http.server")  # fmt: skip
    assert [name for name in dear if name in modules] == []


@pytest.mark.parametrize(("protocol", "model"), [("http", "v2@int8+lora"), ("grpc", "50%")])
def test_a_models_name_may_have_what_means_something_in_urls(
    make_job: Callable[..., Job], tmp_path: Path, protocol: str, model: str
) -> None:
    source = Path(__file__).parent.parent / "models" / "no_batching"
    shutil.copytree(source, tmp_path / "models" / model)
    config = (source / "config.pbtxt").read_text().replace('name: "no_batching"', f'name: "{model}"')
    (tmp_path / "models" / model / "config.pbtxt").write_text(config)
    job = make_job([model], model_repository=str(tmp_path / "models"), client_protocol=protocol)
    done = job.profile()
    assert done.returncode == 0, done.stderr
    assert [(row["Model"], row["Status"]) for row in job.rows()] == [(model, "ok")]


def test_every_empty_cell_of_a_measured_row_has_its_reason(make_job: Callable[..., Job]) -> None:
    job = make_job(["add_sub"])
    job.profile()
    tables = ("metrics-model-inference.csv", "metrics-model-gpu.csv", "metrics-server-only.csv")
    for row in (row for name in tables for row in job.rows(name)):
        empty = [
            column for column, cell in row.items() if not cell and column not in ("GPU UUID", "GPU Model", "GPU Source")
        ]
        assert all(column in row["Notes"] for column in empty), (empty, row["Notes"])


def test_client_and_server_counts_agree(make_job: Callable[..., Job], remote: dict[str, str]) -> None:
    # A scrape at either end takes milliseconds on a busy machine, and may be held up, in which both go on counting. That
    # each request is counted once is tested where nothing is cut off: tests/loadgen/test_workers.py.
    job = make_job(["add_sub"], concurrency=[1, 8], slice_seconds=2, max_seconds=4, min_seconds=4, **remote)
    job.profile()
    for row in job.rows():
        client, server = int(row["Requests Succeeded"]), int(row["Server Requests Succeeded"])
        assert abs(client - server) <= 0.25 * server + 5 * int(row["Concurrency"])
        assert row["Requests Failed"] == row["Server Requests Failed"] == "0"


def test_a_second_run_measures_only_what_is_new(make_job: Callable[..., Job], remote: dict[str, str]) -> None:
    first = make_job(["add_sub"], batch_sizes=[1], **remote)
    first.profile()
    more = make_job(["add_sub"], batch_sizes=[1, 2], **remote)
    done = more.profile()
    assert "2 phases, 1 of them measured in an earlier run" in done.stderr
    assert len(more.finished()) == len(set(more.finished())) == 2
    assert [row["Batch"] for row in more.rows()] == ["1", "2"]


def test_variants_of_a_model_are_loaded_with_their_overrides(
    make_job: Callable[..., Job], remote: dict[str, str]
) -> None:
    parameters = {"instance_group": [{"kind": "KIND_CPU", "count": [1, 2]}], "max_batch_size": 16}
    job = make_job({"add_sub": {"model_config_parameters": parameters}}, batch_sizes=[1, 32], **remote)
    assert job.profile().returncode == 0
    rows = [
        (r["Model Config Path"], r["Batch"], r["Instance Group"], r["Max Batch Size"], r["Status"]) for r in job.rows()
    ]
    assert rows == [
        ("add_sub_config_default", "1", "1:CPU", "64", "ok"),
        ("add_sub_config_default", "32", "1:CPU", "64", "ok"),
        ("add_sub_config_0", "1", "1:CPU", "16", "ok"),
        ("add_sub_config_0", "32", "1:CPU", "16", "skipped"),
        ("add_sub_config_1", "1", "2:CPU", "16", "ok"),
        ("add_sub_config_1", "32", "2:CPU", "16", "skipped"),
    ]
    assert "above the model's max_batch_size 16" in job.rows()[3]["Notes"]


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_both_protocols_and_an_open_loop(make_job: Callable[..., Job], remote: dict[str, str], protocol: str) -> None:
    keys: dict[str, Any] = {
        **remote,
        "client_protocol": protocol,
        "request_rate": [100],
        "min_seconds": 1,
        "max_seconds": 3,
    }
    job = make_job(["add_sub"], **keys)
    done = job.profile()
    assert done.returncode == 0, done.stderr
    (row,) = job.rows()
    # A second in which the machine does other things holds replies up, or adds those that were due before.
    assert 30 <= float(row["Throughput (infer/sec)"]) <= 300
    assert row["Request Rate"] == "100"
    assert "Concurrency" not in row


@pytest.mark.parametrize("keys", [{"min_seconds": 2, "max_seconds": 2}, {"request_count": 15}])
@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_a_rate_above_what_the_server_can_do_has_a_row_with_figures(
    make_job: Callable[..., Job], model_repository: Path, tmp_path: Path, keys: dict[str, float], protocol: str
) -> None:
    shutil.copytree(model_repository / "slow", tmp_path / "models" / "slow")
    config = tmp_path / "models" / "slow" / "config.pbtxt"
    config.write_text(config.read_text().replace('string_value: "5"', 'string_value: "0.2"'))
    job = make_job(
        ["slow"], model_repository=str(tmp_path / "models"), request_rate=[20], client_protocol=protocol, **keys
    )
    done = job.profile()
    assert done.returncode == 0, done.stderr
    (row,) = job.rows()
    assert row["Status"] == "unstable"
    assert row["Notes"].startswith("the server does not keep up: 20 requests a second offered, ")
    assert 0 < float(row["Throughput (infer/sec)"]) <= 6


def test_unsatisfied_constraints_end_with_code_5(make_job: Callable[..., Job], remote: dict[str, str]) -> None:
    job = make_job(["add_sub"], constraints={"perf_latency_p99": {"max": 0.000001}}, **remote)
    assert job.profile().returncode == 5
    assert job.rows()[0]["Satisfies Constraints"] == "No"


def test_tables_and_status_come_from_the_store_alone(make_job: Callable[..., Job], remote: dict[str, str]) -> None:
    job = make_job(["add_sub"], concurrency=[1, 2], **remote)
    job.profile()
    before = {path.name: path.read_bytes() for path in job.export_path.glob("*.csv")}
    for path in job.export_path.glob("*.csv"):
        path.unlink()
    done = command("tables", "-e", str(job.export_path))
    assert done.returncode == 0
    assert {path.name: path.read_bytes() for path in job.export_path.glob("*.csv")} == before
    shown = command("status", "-e", str(job.export_path))
    assert shown.returncode == 0
    assert "ok: 2" in shown.stdout


def test_an_original_command_line_measures(model_repository: Any, tmp_path: Any) -> None:
    export = tmp_path / "original"
    done = command(
        "-m", "add_sub", "--model-folder", str(model_repository), "-e", str(export), "--export", "-b", "1", "-c", "1"
    )
    assert done.returncode == 0, done.stderr
    assert "add_sub_config_default" in done.stdout
    assert len((export / "metrics-model-inference.csv").read_text().splitlines()) == 2
