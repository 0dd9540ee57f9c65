"""Jobs on the real server as in a pod: the exporter of the node is found through an API server that is played."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from e2e_tools import PATIENCE_S, Job

from tests.adapters.kubernetes.node_api import (
    NODE,
    Pods,
    exporter_pod,
    forbidden,
    listening,
    real_page,
    write_kubeconfig,
)
from tests.e2e.test_dcgm import GPU_COLUMNS, REFRESH_S, SLICES, exporter

pytestmark = pytest.mark.triton

OURS = {"POD_NAME": "vllm-agg-0-vllmdecodeworker-s65j5", "POD_NAMESPACE": "dynamo-workload"}
H100_0 = "GPU-c4529c8d-69c4-b61d-e0bc-7b2460096005"


@pytest.fixture
def pods(tmp_path: Path) -> Iterator[Pods]:
    state = Pods()
    with listening(lambda path: state.answer(path)) as port:
        write_kubeconfig(tmp_path / "kubeconfig", f"http://127.0.0.1:{port}")
        yield state


def run(job: Job, folder: Path) -> str:
    """What it said. The environment is that of a pod."""
    started = job.start(NODE_NAME=NODE, KUBECONFIG=str(folder / "kubeconfig"), **OURS)
    _, said = started.communicate(timeout=PATIENCE_S)
    assert started.returncode == 0, said
    return str(said)


def test_the_nodes_exporter_is_found_and_only_our_pods_gpu_counts(
    make_job: Callable[..., Job], remote: dict[str, str], pods: Pods, tmp_path: Path
) -> None:
    with exporter("h100x8_pod_mapped.prom") as url:
        pods.items = [exporter_pod(int(url.split(":")[2].partition("/")[0]))]
        job = make_job(["add_sub"], **remote, **SLICES)
        said = run(job, tmp_path)
    assert f"DCGM exporter gpu-operator/nvidia-dcgm-exporter-x at {url}; GPUs: 8" in said
    (gpu,) = job.rows("metrics-model-gpu.csv")
    assert (gpu["GPU UUID"], gpu["GPU Source"]) == (H100_0, "dcgm")
    shown = [column for column in GPU_COLUMNS if gpu[column]]
    assert {"GPU Utilization (%)", "Max Memory Utilization (%)", "GPU Samples"} <= set(shown)
    assert REFRESH_S / 2 <= float(gpu["GPU Refresh (s)"]) <= 10 * REFRESH_S
    (server,) = job.rows("metrics-server-only.csv")
    assert server["GPU UUID"] == H100_0


def test_a_cadence_that_is_longer_than_the_phase_is_told_in_notes(
    make_job: Callable[..., Job], remote: dict[str, str], pods: Pods, tmp_path: Path
) -> None:
    page = real_page("h100x8_pod_mapped.prom")
    with listening(lambda _: (200, page.encode())) as port:
        pods.items = [exporter_pod(port)]
        job = make_job(["add_sub"], **remote, min_seconds=3.0, max_seconds=3.0)
        run(job, tmp_path)
    (row,) = job.rows()
    assert row["Max GPU Utilization (%)"] == ""
    assert "stale: dcgm did not refresh within the measured" in row["Notes"]


def test_a_refusal_stops_nothing_and_is_in_the_log_and_in_every_table(
    make_job: Callable[..., Job], remote: dict[str, str], pods: Pods, tmp_path: Path
) -> None:
    pods.refuse[""] = forbidden()
    job = make_job(["add_sub"], **remote)
    said = run(job, tmp_path)
    why = "service account bench/analyzer may not list pods in all namespaces (HTTP 403)"
    assert said.count(why) == 1
    for name in ("model-inference", "model-gpu", "server-only"):
        (row,) = job.rows(f"metrics-{name}.csv")
        assert row["Max Memory Utilization (%)"] == ""
        assert why in row["Notes"], name


def test_a_server_elsewhere_is_not_measured_by_our_nodes_gpus(
    make_job: Callable[..., Job], remote: dict[str, str], pods: Pods, tmp_path: Path
) -> None:
    # A spelling that leads to this host and is not known for its own, as a Service's name is not.
    far = {key: value.replace("127.0.0.1", "127.1") for key, value in remote.items()}
    with exporter("h100x8_pod_mapped.prom") as url:
        pods.items = [exporter_pod(int(url.split(":")[2].partition("/")[0]))]
        # gRPC's resolver knows no such spelling.
        job = make_job(["add_sub"], **far, client_protocol="http")
        run(job, tmp_path)
    (gpu,) = job.rows("metrics-model-gpu.csv")
    assert gpu["GPU UUID"] == ""
    assert ": gpus: Triton runs elsewhere and names no GPU" in gpu["Notes"], "the reason of each empty cell"
    assert "no DCGM exporter does" not in gpu["Notes"]
