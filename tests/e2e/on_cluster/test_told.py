"""What a run tells while it goes on: log lines for machines, annotations of its Job, metrics of its own."""

from __future__ import annotations

import json
import re
from typing import Any

from cluster_tools import QUICK, Namespace, wait_for

JOB = {**QUICK, "profile_models": ["add_sub"], "batch_sizes": [1, 2, 4], "min_seconds": 5, "max_seconds": 5}


def test_a_run_tells_how_far_it_is(namespace: Namespace) -> None:
    namespace.install("told", job=JOB, annotateJob=True, logFormat="json", metrics={"port": 9100})
    page = wait_for(lambda: _page(namespace), "the run's own metrics", explain=namespace.explain)
    assert re.search(r"^model_analyzer_phases 3\.0$", page, re.M), page
    annotations = wait_for(lambda: _annotations(namespace), "the Job's annotations", explain=namespace.explain)
    assert annotations["model-analyzer.io/progress"].endswith("/3")
    namespace.completes("told")
    assert _annotations(namespace)["model-analyzer.io/progress"] == "3/3"

    lines = [json.loads(line) for line in namespace.log_of("told").splitlines() if line.startswith("{")]
    finished = [line for line in lines if line["event"] == "finished"]
    assert [line["done"] for line in finished] == [1, 2, 3]
    assert all(line["throughput"] > 0 and line["status"] == "ok" for line in finished)


def _page(namespace: Namespace) -> str:
    """Through the API server, as somebody without a way into the pod network reads it."""
    pods = [pod for pod in namespace.pods_of("told") if pod["status"]["phase"] == "Running"]
    if not pods:
        return ""
    path = f"/api/v1/namespaces/{namespace.name}/pods/{pods[0]['metadata']['name']}:9100/proxy/metrics"
    page = namespace.kubectl("get", "--raw", path, check=False)
    return page if "model_analyzer_phases " in page else ""


def _annotations(namespace: Namespace) -> Any:
    found = namespace.job_of("told")["metadata"].get("annotations", {})
    return found if "model-analyzer.io/progress" in found else None
