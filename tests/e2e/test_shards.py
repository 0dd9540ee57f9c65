"""Shards of one run as processes of their own, and a run that comes back on another GPU type."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from e2e_tools import PATIENCE_S, Job, command, read_csv

pytestmark = pytest.mark.triton

DATA = Path(__file__).parent.parent / "data" / "dcgm"
L4_UUID = "GPU-c2f76b33-7953-256e-8f33-1343419b1a1c"
TWO_MODELS = {"models": ["add_sub", "identity"], "batch_sizes": [1, 2], "concurrency": [1, 2]}


@contextmanager
def node(page: str) -> Iterator[tuple[str, Callable[[str], None]]]:
    """The URL of an exporter that shows this page, and a way to put the node's pod on another node."""
    shown = [(DATA / page).read_bytes()]

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(shown[0])))
            self.end_headers()
            self.wfile.write(shown[0])

        def log_message(self, format: str, *args: object) -> None:
            """Be quiet."""

    def move(other: str) -> None:
        shown[0] = (DATA / other).read_bytes()

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/metrics", move
        server.shutdown()
        thread.join()


def times(export_path: Path) -> tuple[str, str]:
    """When the first slice of a store began and its last phase was finished (UTC, whole seconds)."""
    records = [json.loads(line) for line in (export_path / "measurements.jsonl").read_text().splitlines()]
    began = min(record["data"]["started_at"] for record in records if record["kind"] == "slice")
    return began[:19], max(r["data"]["finished_at"] for r in records if r["kind"] == "measurement")[:19]


def test_shards_on_one_gpu_take_turns_and_merge_into_the_rows_of_a_single_run(make_job: Callable[..., Job]) -> None:
    with node("l4_gpu-operator_full.prom") as (url, _):
        job = make_job(**TWO_MODELS, dcgm_exporter_url=[url], gpu_prices={"L4": 0.72}, shards=2)
        runs = [job.start(JOB_COMPLETION_INDEX=str(index)) for index in (0, 1)]
        ended = [run.communicate(timeout=PATIENCE_S) for run in runs]
        assert [run.returncode for run in runs] == [0, 0], ended
        single = make_job(**TWO_MODELS, name="single", dcgm_exporter_url=[url])
        assert single.profile().returncode == 0
    waited = [f"waiting for {L4_UUID}: another shard measures on it (process " in err for _, err in ended]
    assert sorted(waited) == [False, True]
    first, second = sorted(times(job.export_path / f"shard-{index}") for index in (0, 1))
    assert first[1] <= second[0], "the one had finished when the other began"
    out = job.export_path.parent / "merged"
    merged = command("merge", str(job.export_path), "-o", str(out))
    assert merged.returncode == 0, merged.stderr
    columns = ("Model", "Batch", "Concurrency", "Model Config Path", "Status", "GPU UUID")
    for name in ("metrics-model-inference.csv", "metrics-model-gpu.csv", "metrics-server-only.csv"):
        rows = [
            [{c: row.get(c) for c in columns} for row in each] for each in (read_csv(out / name), single.rows(name))
        ]
        assert rows[0] == rows[1], name
    for row in read_csv(out / "metrics-comparison.csv"):
        cost = 0.72 / 3600 / float(row["Throughput (infer/sec)"]) * 1e6
        assert float(row["Cost per Million Inferences"]) == pytest.approx(cost, rel=0.01)
        assert row["GPU Type"] == "NVIDIA L4"


def test_another_number_of_shards_measures_nothing_twice(make_job: Callable[..., Job], remote: dict[str, str]) -> None:
    def sharded(shards: int, index: int) -> tuple[int, list[dict[str, str]], str]:
        done = job.profile("--shards", str(shards), "--shard-index", str(index))
        return (
            done.returncode,
            read_csv(job.export_path / f"shard-{index}" / "metrics-model-inference.csv"),
            done.stderr,
        )

    job = make_job(**TWO_MODELS, **remote)
    code, rows, _ = sharded(2, 1)
    assert (code, {row["Model"] for row in rows}) == (0, {"identity"})
    done = job.profile()
    assert done.returncode == 0
    assert "8 phases, 4 of them measured in an earlier run" in done.stderr
    assert [row["Throughput (infer/sec)"] for row in job.rows()[4:]] == [row["Throughput (infer/sec)"] for row in rows]
    code, rows, said = sharded(3, 0)
    assert (code, {row["Model"] for row in rows}) == (0, {"add_sub"})
    assert "4 phases, 4 of them measured in an earlier run" in said
    assert "loading" not in said


def test_a_spot_node_of_another_type_measures_anew_and_the_first_types_rows_come_back_with_it(
    make_job: Callable[..., Job], remote: dict[str, Any]
) -> None:
    with node("l4_gpu-operator_full.prom") as (url, move):
        job = make_job(["add_sub"], concurrency=[1, 2], dcgm_exporter_url=[url], **remote)
        assert job.profile().returncode == 0
        on_l4 = job.rows()
        move("t4_under_load_no_help_type.prom")
        done = job.profile()
        said = (
            "2 phases were measured on NVIDIA L4; this is Tesla T4: measured again here; the others stay in the store"
        )
        assert (done.returncode, done.stderr.count(said)) == (0, 1)
        assert len(set(job.finished())) == 2
        assert len(job.finished()) == 4
        assert command("status", "-e", str(job.export_path)).returncode == 0
        move("l4_gpu-operator_full.prom")
        done = job.profile()
        assert "2 phases, 2 of them measured in an earlier run" in done.stderr
        assert job.rows() == on_l4
        assert len(job.finished()) == 4
    out = job.export_path.parent / "merged"
    assert command("merge", str(job.export_path), "-o", str(out)).returncode == 0
    types = [row["GPU Type"] for row in read_csv(out / "metrics-comparison.csv")]
    assert types == ["NVIDIA L4", "Tesla T4"] * 2
