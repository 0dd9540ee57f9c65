"""A run as the chart starts it: JSON lines, its own metrics, a termination message; all at once, with a real server."""

from __future__ import annotations

import json
import os
import socket
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from e2e_tools import PATIENCE_S, Job
from fault_tools import wait_for

pytestmark = pytest.mark.triton


def test_what_a_pod_tells_of_its_run(make_job: Callable[..., Job], remote: dict[str, str], tmp_path: Path) -> None:
    message = tmp_path / "termination-log"
    message.touch()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    job = make_job(["add_sub", "fails_to_load"], min_seconds=5, max_seconds=5, slice_seconds=1, **remote)
    flags = ["--log-format", "json", "--metrics-port", str(port), "--annotate-job", "demo"]
    environment = {"TERMINATION_LOG": str(message), "KUBECONFIG": "/nonexistent", "KUBERNETES_SERVICE_HOST": ""}
    process = job.start(*flags, **{**os.environ, **environment})

    def running() -> Any:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as page:
                text = page.read().decode()
        except OSError:
            return None
        return text if "model_analyzer_throughput_infer_per_second" in text else None

    page = wait_for(running)
    out, err = process.communicate(timeout=PATIENCE_S)
    assert "model_analyzer_phases 2.0" in page
    assert 'phase="add_sub_config_default batch 1 concurrency 1"' in page
    records = [json.loads(line) for line in err.splitlines()]
    events = [record["event"] for record in records if record["event"] not in ("warning", "say", "live")]
    assert events == ["begin", "finished", "finished", "end"]
    assert [record["message"] for record in records if "no annotations on the Job: " in record["message"]] != []
    assert process.returncode == 4
    assert message.read_text().startswith("1 of 2 phases failed, the first one fails_to_load_config_default batch 1")
    assert "Results" in out, "the table at the end of the log is for people"
    assert max(len(line) for line in out.splitlines()) <= 200
