"""Which exporters a job reads, and what is known of its GPUs beforehand."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from model_analyzer.adapters import jobfile
from model_analyzer.adapters.telemetry.dcgm import DcgmSampler
from model_analyzer.adapters.telemetry.discovered import DiscoveredSampler
from model_analyzer.adapters.telemetry.here import is_here
from model_analyzer.adapters.telemetry.sources import discovers, exporters, gpu_choice
from model_analyzer.core.gpus import GpuChoice, Visible
from model_analyzer.core.spec import JobSpec

POD = {"NODE_NAME": "node-1", "POD_NAME": "ours", "POD_NAMESPACE": "bench", "TRITON_CONTAINER": "triton"}
URL = "http://somewhere:9400/metrics"


def job(**values: Any) -> JobSpec:
    spec, _ = jobfile.load(None, {"profile_models": ["m"], "model_repository": "/m", **values}, {}, {})
    return spec


@pytest.mark.parametrize(
    ("values", "environ", "kinds"),
    [
        ({}, {}, []),
        ({}, POD, [DiscoveredSampler]),
        ({"dcgm_discovery": "auto"}, POD, [DiscoveredSampler]),
        ({"dcgm_discovery": "off"}, POD, []),
        ({"dcgm_disable": True}, POD, []),
        ({"dcgm_exporter_url": [URL]}, POD, [DcgmSampler]),
        ({"dcgm_exporter_url": [URL, URL]}, {}, [DcgmSampler, DcgmSampler]),
        ({"dcgm_exporter_url": [URL], "dcgm_disable": True}, POD, []),
        ({}, {"NODE_NAME": ""}, []),
    ],
)
def test_an_exporter_is_looked_for_only_in_a_pod_where_none_is_named(
    values: dict[str, Any], environ: dict[str, str], kinds: list[type]
) -> None:
    spec = job(**values)
    assert [type(each) for each in exporters(spec, environ, print)] == kinds
    assert discovers(spec, environ) == (kinds == [DiscoveredSampler])


REMOTE = {"triton_launch_mode": "remote"}
FAR, HERE = "triton.models.svc:8000", "localhost:8001"


@pytest.mark.parametrize(
    ("values", "mode", "elsewhere", "own_node"),
    [
        ({**REMOTE, "triton_grpc_endpoint": "localhost:8001"}, "remote", False, True),
        ({**REMOTE, "triton_grpc_endpoint": "127.0.0.1:8001"}, "remote", False, True),
        ({**REMOTE, "triton_grpc_endpoint": "grpcs://[::1]:8001"}, "remote", False, True),
        ({**REMOTE, "triton_grpc_endpoint": FAR}, "remote", True, True),
        # The endpoint of the protocol that is used decides.
        ({**REMOTE, "triton_grpc_endpoint": HERE, "triton_http_endpoint": FAR}, "remote", False, True),
        ({**REMOTE, "triton_http_endpoint": FAR, "client_protocol": "http"}, "remote", True, True),
        ({**REMOTE, "triton_grpc_endpoint": FAR, "dcgm_exporter_url": [URL]}, "remote", True, False),
        ({}, "embedded", False, True),
    ],
)
def test_where_triton_and_the_exporter_are(values: dict[str, Any], mode: str, elsewhere: bool, own_node: bool) -> None:
    choice = gpu_choice(job(**values), mode, POD)
    assert (choice.elsewhere, choice.own_node) == (elsewhere, own_node)
    assert (choice.pod, choice.namespace, choice.container, choice.wanted) == ("ours", "bench", "triton", None)


def test_outside_a_pod_nothing_is_known_but_what_the_job_says() -> None:
    assert gpu_choice(job(gpus=["1"]), "docker", {}) == GpuChoice(wanted=("1",))


@pytest.mark.parametrize(
    ("mode", "shared"), [("embedded", True), ("local", True), ("docker", False), ("remote", False)]
)
def test_the_environment_is_tritons_only_where_it_is_a_process_of_ours(mode: str, shared: bool) -> None:
    environ = {"CUDA_VISIBLE_DEVICES": "1", "NVIDIA_VISIBLE_DEVICES": "all"}
    spec = job(triton_server_environment={"CUDA_VISIBLE_DEVICES": "2"}, triton_launch_mode="local")
    assert gpu_choice(spec, mode, environ).visible == Visible("2" if shared else "1", "all", shared)


@pytest.mark.parametrize(
    ("endpoint", "here"),
    [
        ("localhost:8000", True),
        ("LOCALHOST:8000", True),
        ("127.1.2.3:8001", True),
        ("[::1]:8001", True),
        ("http://localhost:8000/v2", True),
        (f"{os.uname().nodename}:8000", True),
        ("192.0.2.1:8000", False),
        ("triton:8000", False),
        ("localhost.example.org:8000", False),
        ("", False),
    ],
)
def test_an_endpoint_here(endpoint: str, here: bool) -> None:
    assert is_here(endpoint) == here


def test_an_endpoint_at_an_address_of_this_host_is_here() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing; chooses the address that would be sent from
        except OSError:
            pytest.skip("this host has no address but loopback's")
        own = probe.getsockname()[0]
    assert is_here(f"{own}:8000")


def test_outside_a_pod_the_kubernetes_client_is_not_imported(tmp_path: Path) -> None:
    check = (
        "import sys\n"
        "from model_analyzer.adapters import jobfile\n"
        "from model_analyzer.adapters.telemetry.sources import exporters, gpu_choice\n"
        "spec, _ = jobfile.load(None, {'profile_models': ['m'], 'model_repository': '/m'}, {}, {})\n"
        "assert exporters(spec, {}, print) == []\n"
        "gpu_choice(spec, 'embedded', {})\n"
        "exporters(spec, {'NODE_NAME': 'n'}, print)\n"
        "assert 'kubernetes' not in sys.modules, 'nor in a pod, until the first look'\n"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
