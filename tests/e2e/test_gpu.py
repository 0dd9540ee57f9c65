"""Real telemetry of a real GPU (`make gpu-check`): a model that keeps it busy, read through the embedded Triton.

Skipped, with the reason, where nvidia-smi does not work. DCGM_EXPORTER_URL names an exporter to read as well.
"""

from __future__ import annotations

import os
import subprocess
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from e2e_tools import Job

pytestmark = pytest.mark.triton

MODEL = "gpu_busy"
HELD_MB = 536870912 / 1e6  # the model's parameter
# Triton's DCGM reads the utilization of the last second: several such seconds a phase.
PHASE = {"min_seconds": 4, "max_seconds": 4, "slice_seconds": 2, "duration_seconds": 2, "monitoring_interval": 0.25}
EXPORTER = os.environ.get("DCGM_EXPORTER_URL", "http://localhost:9400/metrics")


@dataclass(frozen=True)
class Device:
    """A line of nvidia-smi."""

    uuid: str
    total_mb: float


@pytest.fixture(scope="session")
def devices() -> list[Device]:
    """The GPUs of this machine, in nvidia-smi's order."""
    command = ["nvidia-smi", "--query-gpu=uuid,memory.total", "--format=csv,noheader,nounits"]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except OSError as error:
        pytest.skip(f"NO GPU TELEMETRY WAS CHECKED: nvidia-smi does not run here ({error.strerror})")
    if listed.returncode != 0:
        said = (listed.stdout + listed.stderr).strip().partition("\n")[0]
        pytest.skip(f"NO GPU TELEMETRY WAS CHECKED: nvidia-smi fails here ({said})")
    rows = [line.split(", ") for line in listed.stdout.splitlines()]
    return [Device(uuid, float(mib) * 2**20 / 1e6) for uuid, mib in rows]


def busiest(rows: list[dict[str, str]]) -> dict[str, str]:
    return max(rows, key=lambda row: float(row["Max GPU Utilization (%)"] or 0))


def test_a_busy_gpu_is_seen_through_triton(make_job: Callable[..., Job], devices: list[Device]) -> None:
    job = make_job([MODEL], dcgm_disable=True, **PHASE)
    done = job.profile()
    assert done.returncode == 0, done.stderr

    rows = job.rows("metrics-model-gpu.csv")
    assert {row["GPU UUID"] for row in rows} <= {device.uuid for device in devices}
    gpu = busiest(rows)
    total_mb = next(device.total_mb for device in devices if device.uuid == gpu["GPU UUID"])
    assert gpu["GPU Source"] == "triton"
    assert 50 < float(gpu["GPU Utilization (%)"]) <= float(gpu["Max GPU Utilization (%)"]) <= 100
    assert HELD_MB < float(gpu["GPU Memory Usage (MB)"]) <= total_mb
    assert 5 < float(gpu["GPU Power Usage (W)"]) < 2000
    assert float(gpu["GPU Energy (J)"]) == pytest.approx(4 * float(gpu["GPU Power Usage (W)"]), rel=0.5)
    assert int(gpu["GPU Samples"]) >= 4
    assert float(gpu["GPU Refresh (s)"]) < 2
    # Triton does not report it; an exporter does.
    assert gpu["Max Memory Utilization (%)"] == ""
    assert "DCGM_FI_DEV_MEM_COPY_UTIL" in gpu["Notes"]

    (row,) = job.rows()
    assert float(row["Max GPU Utilization (%)"]) > 50
    assert float(row["Energy per Inference (J)"]) > 0

    idle = {row["GPU UUID"]: row for row in job.rows("metrics-server-only.csv")}[gpu["GPU UUID"]]
    assert float(gpu["GPU Memory Usage (MB)"]) - float(idle["GPU Memory Usage (MB)"]) > 0.9 * HELD_MB


def test_one_gpu_is_chosen_by_its_index(make_job: Callable[..., Job], devices: list[Device]) -> None:
    job = make_job([MODEL], gpus=["0"], dcgm_disable=True)
    done = job.profile()
    assert done.returncode == 0, done.stderr
    (row,) = job.rows("metrics-model-gpu.csv")
    assert row["GPU UUID"] in {device.uuid for device in devices}


def test_a_busy_gpu_is_seen_through_an_exporter(make_job: Callable[..., Job], devices: list[Device]) -> None:
    try:
        with urllib.request.urlopen(EXPORTER, timeout=5) as page:
            page.read()
    except OSError as error:
        pytest.skip(f"NO DCGM EXPORTER WAS CHECKED: none answers at {EXPORTER} ({error}); set DCGM_EXPORTER_URL")
    # An exporter refreshes every 30 s by default; the phase goes on until it has twice.
    job = make_job([MODEL], dcgm_exporter_url=EXPORTER, min_gpu_samples=2, **PHASE)
    done = job.profile(timeout=280)
    assert done.returncode == 0, done.stderr
    gpu = busiest(job.rows("metrics-model-gpu.csv"))
    assert gpu["GPU UUID"].partition("/")[0] in {device.uuid for device in devices}
    assert gpu["GPU Source"].startswith("dcgm")  # Triton's gauges fill what the exporter does not show
    assert float(gpu["Max GPU Utilization (%)"]) > 50
    assert float(gpu["GPU Memory Usage (MB)"]) > HELD_MB
    assert gpu["Max Memory Utilization (%)"]
    assert int(gpu["GPU Samples"]) >= 2
