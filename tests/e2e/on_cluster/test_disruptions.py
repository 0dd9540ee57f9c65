"""Pods go away in mid-run, as they do on spot nodes; nothing measured is lost or measured twice."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cluster_tools import QUICK, Namespace, Results, wait_for

RELEASE = "spot"
# Three variants, one after the other: while the second is measured the first is finished.
VARIANTS = {
    "add_sub": {
        "parameters": {"batch_sizes": [1], "concurrency": [1, 2]},
        "model_config_parameters": {"instance_group": [{"kind": "KIND_CPU", "count": [1, 2]}]},
    }
}
JOB = {**QUICK, "min_seconds": 2, "max_seconds": 2, "profile_models": VARIANTS}
PHASES = 6


def evict(namespace: Namespace, pod: str) -> None:
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": namespace.name}}
    path = f"/api/v1/namespaces/{namespace.name}/pods/{pod}/eviction"
    namespace.kubectl("create", "--raw", path, "-f", "-", given=json.dumps(eviction))


def delete(namespace: Namespace, pod: str) -> None:
    namespace.kubectl("delete", "pod", pod, "--wait=false")


def drain(namespace: Namespace, pod: str) -> None:
    given = namespace.get("pod", pod)
    node = given["spec"]["nodeName"]
    # A drain looks at all namespaces: other tests run there beside this one, with releases of the same name.
    label = "batch.kubernetes.io/controller-uid"
    only = f"--pod-selector={label}={given['metadata']['labels'][label]}"
    try:
        namespace.kubectl("drain", node, "--ignore-daemonsets", "--delete-emptydir-data", only, "--timeout=240s")
    finally:
        namespace.kubectl("uncordon", node)


def kill_triton(namespace: Namespace, pod: Any) -> None:
    """SIGKILL, from a pod that sees the node's processes: from inside a container its first process cannot be killed."""
    program = f"""
import contextlib, os, pathlib, signal

def is_it(process):
    with contextlib.suppress(OSError):  # it has ended meanwhile
        return process.joinpath("comm").read_text() == "tritonserver\\n" and "{pod["metadata"]["uid"]}" in process.joinpath("cgroup").read_text()

for process in filter(is_it, pathlib.Path("/proc").glob("[0-9]*")):
    os.kill(int(process.name), signal.SIGKILL)
    print("killed")
"""
    images = namespace.cluster.images
    container = {
        "name": "killer",
        "image": images.analyzer,
        "imagePullPolicy": images.pull_policy,
        "command": ["python", "-c", program],
        "securityContext": {"runAsUser": 0},
    }
    namespace.apply(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "killer"},
            "spec": {
                "hostPID": True,
                "restartPolicy": "Never",
                "nodeName": pod["spec"]["nodeName"],
                "containers": [container],
            },
        }
    )
    wait_for(
        lambda: namespace.get("pod", "killer")["status"]["phase"] in ("Succeeded", "Failed"),
        "Triton to be killed",
        explain=namespace.explain,
    )
    assert namespace.kubectl("logs", "killer").split() == ["killed"]


@pytest.mark.parametrize("disrupt", [evict, delete, drain])
def test_the_next_pod_resumes(disrupt: Callable[[Namespace, str], None], namespace: Namespace, tmp_path: Path) -> None:
    namespace.install(RELEASE, job=JOB, backoffLimit=0)
    pod = _in_mid_run(namespace)
    disrupt(namespace, pod["metadata"]["name"])
    namespace.completes(RELEASE)

    status = namespace.job_of(RELEASE)["status"]
    assert status["succeeded"] == 1
    # backoffLimit is 0: one counted failure would have failed the Job.
    assert not status.get("failed")
    last = namespace.pods_of(RELEASE)[-1]["metadata"]
    assert last["uid"] != pod["metadata"]["uid"]
    log = namespace.log_of(RELEASE)
    assert f"{PHASES} phases, " in log
    assert "of them measured in an earlier run" in log
    _is_whole(namespace.results_of(RELEASE, tmp_path / "results"))


def test_a_triton_that_is_killed_is_started_again_and_the_sweep_goes_on(namespace: Namespace, tmp_path: Path) -> None:
    # Longer than the pod that kills takes to start.
    namespace.install(RELEASE, job={**JOB, "min_seconds": 5, "max_seconds": 5}, backoffLimit=0)
    pod = _in_mid_run(namespace)
    kill_triton(namespace, pod)
    namespace.completes(RELEASE)
    (after,) = namespace.pods_of(RELEASE)
    assert after["metadata"]["name"] == pod["metadata"]["name"]
    (triton,) = after["status"]["initContainerStatuses"]
    assert triton["restartCount"] == 1
    _is_whole(namespace.results_of(RELEASE, tmp_path / "results"))


def _in_mid_run(namespace: Namespace) -> Any:
    """The pod, once it has finished a variant and begun the next."""

    def begun() -> Any:
        pods = namespace.pods_of(RELEASE)
        log = namespace.kubectl("logs", pods[0]["metadata"]["name"], "-c", "analyzer", check=False) if pods else ""
        return pods and f"[2/{PHASES}]" in log and pods[0]

    return wait_for(begun, "the first variant to be finished", explain=namespace.explain)


def _is_whole(results: Results) -> None:
    """Every phase of the plan once, in the table and in the store."""
    rows = results.rows()
    variants = [(row["Model Config Path"], row["Concurrency"]) for row in rows]
    assert len(set(variants)) == len(variants) == PHASES
    assert {row["Status"] for row in rows} <= {"ok", "unstable"}
    records = [json.loads(line) for line in (results.folder / "measurements.jsonl").read_text().splitlines()]
    measured = Counter(each["data"]["phase"]["id"] for each in records if each["kind"] == "measurement")
    assert set(measured.values()) == {1}
    assert len(measured) == PHASES
