"""A run in several pods, and a Triton that runs elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cluster_tools import QUICK, Images, Namespace

VARIANTS = {
    "add_sub": {
        "parameters": {"batch_sizes": [1, 4]},
        "model_config_parameters": {"instance_group": [{"kind": "KIND_CPU", "count": [1, 2]}]},
    },
    "magika": {"parameters": {"batch_sizes": [1, 2]}},
}
JOB = {**QUICK, "profile_models": VARIANTS}


def test_three_shards_measure_what_one_pod_does(namespace: Namespace, tmp_path: Path) -> None:
    namespace.install("spread", job=JOB, shards=3)
    namespace.completes("spread")
    pods = namespace.pods_of("spread")
    assert sorted(pod["metadata"]["annotations"]["batch.kubernetes.io/job-completion-index"] for pod in pods) == [
        "0",
        "1",
        "2",
    ]
    spread = namespace.results_of("spread", tmp_path / "spread")
    parts = [tmp_path / "spread" / f"shard-{index}" for index in range(3)]
    assert all((part / "metrics-model-inference.csv").exists() for part in parts)

    namespace.install("single", job=JOB)
    namespace.completes("single")
    single = namespace.results_of("single", tmp_path / "single")
    assert _identities(spread.rows()) == _identities(single.rows())
    assert len(single.rows()) == 8

    merged = tmp_path / "merged"
    namespace.cluster.run("model-analyzer", "merge", *map(str, parts), "-o", str(merged))
    assert (merged / "metrics-model-inference.csv").read_text() == (
        spread.folder / "metrics-model-inference.csv"
    ).read_text()


def _identities(rows: list[dict[str, str]]) -> list[tuple[str, ...]]:
    """What a row is of, in the order of the table."""
    return [tuple(row[name] for name in ("Model", "Model Config Path", "Batch", "Concurrency")) for row in rows]


def test_a_triton_elsewhere_is_measured_over_its_service(namespace: Namespace, tmp_path: Path) -> None:
    namespace.apply(*triton(namespace.cluster.images))
    namespace.kubectl("rollout", "status", "deployment/triton", "--timeout=240s")
    # By address: the test cluster has no DNS.
    address = namespace.get("service", "triton")["spec"]["clusterIP"]
    endpoints = {
        "http": f"{address}:8000",
        "grpc": f"{address}:8001",
        "metrics": f"http://{address}:8002/metrics",
    }
    job = {**QUICK, "profile_models": ["add_sub"], "client_protocol": "grpc"}
    namespace.install("elsewhere", job=job, triton={"enabled": False, "endpoints": endpoints})
    namespace.completes("elsewhere")
    (pod,) = namespace.pods_of("elsewhere")
    assert [container["name"] for container in pod["spec"]["containers"]] == ["analyzer"]
    assert not pod["spec"].get("initContainers")
    results = namespace.results_of("elsewhere", tmp_path / "results")
    assert results.phases() == [("add_sub", "1", "1")]
    assert float(results.rows()[0]["Throughput (infer/sec)"]) > 0


def triton(images: Images) -> list[dict[str, Any]]:
    """A Deployment of Triton and its Service."""
    labels = {"app": "triton"}
    ports = {"http": 8000, "grpc": 8001, "metrics": 8002}
    container = {
        "name": "triton",
        "image": images.triton,
        "imagePullPolicy": images.pull_policy,
        "args": ["tritonserver", "--model-repository=/models", "--model-control-mode=explicit"],
        "ports": [{"name": name, "containerPort": port} for name, port in ports.items()],
        "readinessProbe": {"httpGet": {"path": "/v2/health/ready", "port": "http"}, "periodSeconds": 1},
        "volumeMounts": [{"name": "shm", "mountPath": "/dev/shm"}],
    }
    pod = {"containers": [container], "volumes": [{"name": "shm", "emptyDir": {"medium": "Memory"}}]}
    return [
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "triton"},
            "spec": {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": pod}},
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "triton"},
            "spec": {
                "selector": labels,
                "ports": [{"name": name, "port": port, "targetPort": name} for name, port in ports.items()],
            },
        },
    ]
