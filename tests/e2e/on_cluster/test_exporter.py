"""GPU figures from a DCGM exporter on the node: found by its labels, only the pod's own GPUs, each failure with its reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from cluster_tools import QUICK, Cluster, Namespace, wait_for

# One exporter on the node at a time, where discovery looks in all namespaces.
pytestmark = pytest.mark.xdist_group("exporter")
PAGES = Path(__file__).parents[2] / "data" / "dcgm"
H100, L4 = (PAGES / name for name in ("h100x8_pod_mapped.prom", "l4_gpu-operator_full.prom"))
# The labels of NVIDIA's chart, and those of the GPU Operator.
CHART = {"app.kubernetes.io/name": "dcgm-exporter", "app.kubernetes.io/component": "dcgm-exporter"}
OPERATOR = {"app": "nvidia-dcgm-exporter"}
# A refresh a second falls inside, where the exporter has a core to itself; other tests run beside it. So the phase is
# one that goes on until it has its samples.
JOB = {
    **QUICK,
    "profile_models": ["add_sub"],
    "slice_seconds": 4,
    "min_seconds": 4,
    "max_seconds": 4,
    "min_gpu_samples": 3,
}


def expose(namespace: Namespace, labels: dict[str, str], page: str, ready: bool = True, listens: int = 9400) -> None:
    """Run the exporter on every node; ready: whether it says so; listens: on this port, whatever its pod declares."""
    program = (Path(__file__).parent / "exporter.py").read_text()
    subject = {"kind": "ServiceAccount", "name": "exporter", "namespace": namespace.name}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "exporter"}
    namespace.apply(
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "exporter"}},
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "Role",
            "metadata": {"name": "exporter"},
            "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}],
        },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": {"name": "exporter"},
            "roleRef": role,
            "subjects": [subject],
        },
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "exporter"},
            "data": {"exporter.py": program, "page.prom": page},
        },
        {
            "apiVersion": "apps/v1",
            "kind": "DaemonSet",
            "metadata": {"name": "exporter", "labels": labels},
            "spec": {
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": _pod(namespace.cluster, ready, listens)},
            },
        },
    )

    def runs() -> bool:
        selector = ",".join(f"{key}={value}" for key, value in labels.items())
        pods = namespace.items("pods", "-l", selector)
        states = [status for pod in pods for status in pod["status"].get("containerStatuses", [])]
        return bool(states) and all(state["ready"] if ready else state["started"] for state in states)

    wait_for(runs, "the exporter to run", explain=namespace.explain)


def _pod(cluster: Cluster, ready: bool, listens: int) -> dict[str, Any]:
    probe = {"tcpSocket": {"port": listens}} if ready else {"exec": {"command": ["false"]}}
    container = {
        "name": "exporter",
        "image": cluster.images.analyzer,
        "imagePullPolicy": cluster.images.pull_policy,
        "command": ["python", "/exporter/exporter.py"],
        "ports": [{"name": "metrics", "containerPort": 9400}],
        "readinessProbe": {**probe, "periodSeconds": 1},
        "env": [
            {"name": "NAMESPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}},
            {"name": "PORT", "value": str(listens)},
        ],
        "volumeMounts": [{"name": "exporter", "mountPath": "/exporter"}],
    }
    volume = {"name": "exporter", "configMap": {"name": "exporter"}}
    return {
        "serviceAccountName": "exporter",
        "containers": [container],
        "volumes": [volume],
        "terminationGracePeriodSeconds": 1,
    }


@pytest.mark.parametrize(("labels", "page"), [(CHART, H100), (OPERATOR, L4)], ids=["chart", "operator"])
def test_it_is_found_and_only_the_pods_own_gpu_is_shown(
    labels: dict[str, str], page: Path, namespace: Namespace, tmp_path: Path
) -> None:
    text = page.read_text()
    expose(namespace, labels, text)
    namespace.install("gpu", job=JOB, dcgm={"discovery": "auto"})
    namespace.completes("gpu")
    log = namespace.log_of("gpu")
    assert f"DCGM exporter {namespace.name}/exporter-" in log, log

    (row,) = namespace.results_of("gpu", tmp_path / "results").rows("metrics-model-gpu.csv")
    mine = next(line for line in text.splitlines() if '{gpu="0"' in line)
    assert f'UUID="{row["GPU UUID"]}"' in mine
    assert f'modelName="{row["GPU Model"]}"' in mine
    assert row["GPU Source"] == "dcgm"
    assert float(row["GPU Power Usage (W)"]) > 0
    assert int(row["GPU Samples"]) >= 3
    assert 0.5 <= float(row["GPU Refresh (s)"]) <= 10


# What the exporter is like (None: there is none), the chart's values, the reason that log and row give.
FAILURES: dict[str, tuple[dict[str, Any] | None, dict[str, Any], str]] = {
    "unready": ({"ready": False, "listens": 9401}, {}, "is not ready"),
    "closed": ({"listens": 9401}, {}, "connection refused"),
    "without": ({"labels": OPERATOR, "page": "# no GPU here\nDCGM_FI_DEV_NVSWITCH_POWER_USAGE 1\n"}, {}, "no GPU rows"),
    "nothing": (None, {}, "no DCGM exporter: no pod on it"),
    # Somebody who may not make Roles: the account is there, its right is not.
    "forbidden": (None, {"rbac": {"create": False}}, "may not list pods"),
}


@pytest.mark.parametrize("release", FAILURES)
def test_each_way_that_discovery_can_fail_gives_its_reason(
    release: str, make_namespace: Any, namespace: Namespace, tmp_path: Path
) -> None:
    """The exporter is looked for in a namespace of its own."""
    exporter, values, reason = FAILURES[release]
    where = make_namespace()
    if exporter is not None:
        expose(where, **{"labels": CHART, "page": H100.read_text(), **exporter})
    namespace.install(release, job=_short(), dcgm={"discovery": "auto", "namespaces": [where.name]}, **values)
    namespace.completes(release)
    assert reason in namespace.log_of(release), namespace.log_of(release)
    (row,) = namespace.results_of(release, tmp_path / release).rows("metrics-model-gpu.csv")
    assert reason in row["Notes"], row
    assert row["GPU UUID"] == row["GPU Power Usage (W)"] == ""


def _short() -> dict[str, Any]:
    return {**QUICK, "profile_models": ["add_sub"]}
