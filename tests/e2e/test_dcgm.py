"""Jobs on the real server with DCGM exporters that replay real pages, their values moving."""

from __future__ import annotations

import re
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from e2e_tools import PATIENCE_S, Job

pytestmark = pytest.mark.triton

DATA = Path(__file__).parent.parent / "data" / "dcgm"
T4 = "GPU-6d5c0ac5-74d7-3130-46f1-e93ed57f469a"
L4 = "GPU-c2f76b33-7953-256e-8f33-1343419b1a1c"
H100_3 = "GPU-a65a773d-52bb-bcc1-a8ee-f78c3faa2e2d"
REFRESH_S = 0.2
WATTS = 70.0
SEED = ("Throughput (infer/sec)", "Max Memory Utilization (%)", "Max GPU Utilization (%)", "Max GPU Memory (MB)")
GPU_COLUMNS = (
    "GPU Memory Usage (MB)", "GPU Utilization (%)", "GPU Power Usage (W)", "Max Memory Utilization (%)",
    "Max GPU Utilization (%)", "Max GPU Memory (MB)", "GPU Temperature (C)", "GPU SM Clock (MHz)", "GPU Energy (J)",
    "GPU Samples", "GPU Refresh (s)",
)  # fmt: skip
# Slices hold several refreshes of the exporter and several scrapes of each. They are so long that half a second in which
# neither runs puts a rate off by less than the tests ask for, and go on until they have seen some.
SLICES = {
    "min_seconds": 2.0,
    "max_seconds": 2.0,
    "slice_seconds": 2.0,
    "min_gpu_samples": 4,
    "monitoring_interval": 0.05,
    "duration_seconds": 1.0,
}
DEAD = "http://127.0.0.1:1/metrics"


@contextmanager
def exporter(page: str) -> Iterator[str]:
    """The URL of an exporter that shows this page, refreshed every REFRESH_S: busier by a percent, WATTS x time later."""
    text = (DATA / page).read_text()

    def now() -> bytes:
        refresh = int(time.monotonic() / REFRESH_S)
        moving = {
            "DCGM_FI_DEV_GPU_UTIL": 60 + refresh % 20,
            "DCGM_FI_DEV_MEM_COPY_UTIL": 30 + refresh % 20,
            "DCGM_FI_DEV_FB_USED": 5000 + refresh % 2,
            "DCGM_FI_DEV_POWER_USAGE": WATTS,
            "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION": round(refresh * REFRESH_S * WATTS * 1000),
        }
        moved = text
        for name, value in moving.items():
            moved = re.sub(rf"^({name}{{.*}}) \S+$", rf"\1 {value}", moved, flags=re.MULTILINE)
        return moved.encode()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            body = now()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Be quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/metrics"
        server.shutdown()
        thread.join()


def test_gpu_columns_come_from_the_exporter(make_job: Callable[..., Job], remote: dict[str, str]) -> None:
    with exporter("t4_under_load_no_help_type.prom") as url:
        job = make_job(["add_sub"], gpus=[T4], dcgm_exporter_url=url, **remote, **SLICES)
        done = job.profile()
    assert done.returncode == 0, done.stderr

    (gpu,) = job.rows("metrics-model-gpu.csv")
    assert (gpu["GPU UUID"], gpu["GPU Model"], gpu["GPU Source"]) == (T4, "Tesla T4", "dcgm")
    assert all(gpu[column] for column in GPU_COLUMNS), gpu
    assert 60 <= float(gpu["GPU Utilization (%)"]) <= float(gpu["Max GPU Utilization (%)"]) <= 79
    assert 30 <= float(gpu["Max Memory Utilization (%)"]) <= 49
    assert float(gpu["Max GPU Memory (MB)"]) in (round(5000 * 1.048576, 1), round(5001 * 1.048576, 1))
    assert float(gpu["GPU Power Usage (W)"]) == WATTS
    assert (gpu["GPU Temperature (C)"], gpu["GPU SM Clock (MHz)"]) == ("74", "660")
    (row,) = job.rows()
    refreshes = float(row["Measured (s)"]) / REFRESH_S
    assert 4 <= int(gpu["GPU Samples"]) <= refreshes + 2, (
        "refreshes, not scrapes: of those there were four times as many"
    )
    assert REFRESH_S / 2 <= float(gpu["GPU Refresh (s)"]) <= 10 * REFRESH_S
    assert all(float(row[column]) > 0 for column in SEED)
    # Watts are joules an inference x inferences a second.
    watts = float(row["Energy per Inference (J)"]) * float(row["Throughput (infer/sec)"])
    assert watts == pytest.approx(WATTS, rel=0.4)
    assert "average power" not in row["Notes"], "the energy is the counter's"
    assert "Energy per Inference Interval (+-J): no interval: only 1 slice with" in row["Notes"]

    (server,) = job.rows("metrics-server-only.csv")
    assert server["GPU UUID"] == T4
    assert all(server[column] for column in GPU_COLUMNS[:6])


def test_a_dead_exporter_stops_nothing_and_leaves_its_reason(
    make_job: Callable[..., Job], remote: dict[str, str]
) -> None:
    job = make_job(["add_sub"], dcgm_exporter_url=DEAD, **remote)
    done = job.profile()
    assert done.returncode == 0, done.stderr
    for name in ("model-inference", "model-gpu", "server-only"):
        (row,) = job.rows(f"metrics-{name}.csv")
        assert row["Max Memory Utilization (%)"] == ""
        assert re.search(rf"Max Memory Utilization \(%\)[^|]*: dcgm: {DEAD}: connection refused", row["Notes"]), name
    assert float(job.rows()[0]["Throughput (infer/sec)"]) > 0


def test_two_exporters_have_their_gpus_side_by_side_and_a_dead_third_is_told(
    make_job: Callable[..., Job], remote: dict[str, str]
) -> None:
    with exporter("t4_under_load_no_help_type.prom") as one, exporter("l4_gpu-operator_full.prom") as two:
        four = {**SLICES, "min_seconds": 4.0, "max_seconds": 4.0}
        job = make_job(["add_sub"], gpus=[T4, L4], dcgm_exporter_url=[one, DEAD, two], **remote, **four)
        assert job.profile().returncode == 0
    rows = {row["GPU UUID"]: row for row in job.rows("metrics-model-gpu.csv")}
    assert {uuid: row["GPU Model"] for uuid, row in rows.items()} == {T4: "Tesla T4", L4: "NVIDIA L4"}
    assert all(row[column] for row in rows.values() for column in GPU_COLUMNS)
    (row,) = job.rows()
    watts = float(row["Energy per Inference (J)"]) * float(row["Throughput (infer/sec)"])
    # One GPU alone, or one of them twice, would be half as much, or half as much again.
    assert watts == pytest.approx(2 * WATTS, rel=0.4)
    assert f"dcgm: {DEAD}: connection refused" in row["Notes"]


def test_one_of_eight_gpus_is_chosen_by_its_index(make_job: Callable[..., Job], remote: dict[str, str]) -> None:
    with exporter("h100x8_pod_mapped.prom") as url:
        job = make_job(["add_sub"], gpus=["3"], dcgm_exporter_url=url, **remote)
        assert job.profile().returncode == 0
    for name in ("model-gpu", "server-only"):
        assert [row["GPU UUID"] for row in job.rows(f"metrics-{name}.csv")] == [H100_3]


def test_one_of_eight_gpus_is_chosen_by_the_pod_we_are(make_job: Callable[..., Job], remote: dict[str, str]) -> None:
    if "GPU" in _gpus_of_triton(remote["triton_metrics_url"]):
        pytest.skip("the server here reports GPUs of its own, which come first")
    with exporter("h100x8_pod_mapped.prom") as url:
        job = make_job(["add_sub"], dcgm_exporter_url=url, **remote)
        pod = {"POD_NAME": "vllm-agg-0-vllmdecodeworker-s65j5", "POD_NAMESPACE": "dynamo-workload"}
        started = job.start(**pod)
        _, said = started.communicate(timeout=PATIENCE_S)
    assert started.returncode == 0, said
    (gpu,) = job.rows("metrics-model-gpu.csv")
    assert gpu["GPU UUID"] == "GPU-c4529c8d-69c4-b61d-e0bc-7b2460096005"
    assert "some may work for others" not in gpu["Notes"]


def _gpus_of_triton(metrics_url: str) -> str:
    with urllib.request.urlopen(metrics_url, timeout=60) as page:
        return "".join(line for line in page.read().decode().splitlines() if line.startswith("nv_gpu_"))
