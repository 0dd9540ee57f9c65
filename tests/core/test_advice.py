"""Keys that are right and do nothing beside the others: each is told with the reason, and none that does something."""

from __future__ import annotations

from typing import Any

import pytest

from model_analyzer.core.advice import advice
from model_analyzer.core.spec import JobSpec

REMOTE = {"triton_launch_mode": "remote"}
POISSON = {"request-distribution": "poisson"}
ROOM = {"output-shared-memory-size": 4096}


def said(**values: Any) -> list[str]:
    """`path: what; why`."""
    job = {"profile_models": ["a"], "model_repository": "/m", "concurrency": [1], **values}
    spec = JobSpec.model_validate({key: value for key, value in job.items() if value is not None})
    return [f"{'.'.join(map(str, path))}: {what}; {why}" for path, what, why in advice(spec)]


def model(**settings: Any) -> dict[str, Any]:
    return {"a": settings}


@pytest.mark.parametrize(
    ("values", "line"),
    [
        # the server
        ({"triton_docker_image": "x"}, "triton_docker_image: triton_docker_image has no effect; it belongs to triton_launch_mode: docker"),
        ({"client_max_retries": 3}, "client_max_retries: client_max_retries has no effect; it belongs to triton_launch_mode: remote"),
        ({"triton_launch_mode": "docker", "triton_server_path": "/t"}, "triton_server_path: triton_server_path has no effect; it belongs"),
        ({**REMOTE, "triton_server_flags": {"log-verbose": 1}}, "triton_server_flags: triton_server_flags has no effect; a remote server"),
        ({**REMOTE, "reload_model_disable": True, "repeats": 3}, "repeats: with reload_model_disable no repeat loads the model anew"),
        # telemetry
        ({"dcgm_disable": True, "dcgm_exporter_url": "http://h:9400/metrics"}, "dcgm_exporter_url: dcgm_exporter_url has no effect; with"),
        ({"dcgm_discovery": "off", "dcgm_exporter_namespaces": "gpu"}, "dcgm_exporter_namespaces: dcgm_exporter_namespaces has no effect"),
        ({"gpus": [], "min_gpu_samples": 2}, "min_gpu_samples: min_gpu_samples has no effect; gpus is an empty list"),
        # the rule
        ({"stop_rule": "fixed", "precision": 0.1}, "precision: precision has no effect; it belongs to stop_rule: interval"),
        ({"stop_rule": "fixed", "max_seconds": 9}, "max_seconds: max_seconds has no effect; with stop_rule fixed min_seconds ends a phase"),
        ({"min_seconds": 1, "max_seconds": 1.5}, "max_seconds: max_seconds 1.5 holds 3 slices of slice_seconds 0.5, and stop_rule interval"
         " needs 4: every row will be unstable; set max_seconds to 2 or more"),
        ({"stop_rule": "perf_analyzer", "slice_seconds": 6}, "slice_seconds: max_seconds 10 holds 2 slices of slice_seconds 6, and stop_rule"),
        ({"concurrency": None}, ": no concurrency is given, so 1 is measured (Triton Model Analyzer would search); list the values"),
        ({"request_count": 5, "max_seconds": 9}, "max_seconds: max_seconds ends no phase; with a request_count"),
        # the load
        ({"client_workers": 4, "client_cpus": "2-3"}, "client_cpus: 4 client_workers share 2 CPUs of client_cpus; name as many"),
        ({"perf_analyzer_flags": POISSON}, "perf_analyzer_flags.request-distribution: request-distribution has no effect; it spreads"),
        ({"profile_models": model(perf_analyzer_flags=POISSON)}, "profile_models.0.perf_analyzer_flags.request-distribution: request-d"),
        ({"profile_models": model(parameters={"concurrency": 2})}, "concurrency: concurrency has no effect; every model has its own"),
        ({"profile_models": model(parameters={"batch_sizes": 2}), "batch_sizes": 4}, "batch_sizes: batch_sizes has no effect; every model"),
        ({"perf_analyzer_flags": {"request-intervals": "f"}, "concurrency": None,
          "profile_models": model(parameters={"concurrency": 2})}, "perf_analyzer_flags.request-intervals: request-intervals has no effect"),
        ({"perf_analyzer_flags": {"streaming": 1}, "profile_models": model(perf_analyzer_flags={"string-length": 3})},
         "perf_analyzer_flags: perf_analyzer_flags has no effect; every model has its own"),
        # the inputs
        ({"output_shared_memory_size": 4096}, "output_shared_memory_size: output_shared_memory_size has no effect; no model has shared_memory"),
        ({"perf_analyzer_flags": ROOM}, "perf_analyzer_flags.output-shared-memory-size: output-shared-memory-size has no effect; shared-memory"),
        ({"shared_memory": "system", "profile_models": model(perf_analyzer_flags={**ROOM, "shared-memory": "none"})},
         "profile_models.0.perf_analyzer_flags.output-shared-memory-size: output-shared-memory-size has no effect"),
        ({"perf_analyzer_flags": {"string-length": 3, "string-data": "x"}}, "perf_analyzer_flags.string-length: string-length has no effect"),
        ({"perf_analyzer_flags": {"string-length": 3, "input-data": "zero"}}, "perf_analyzer_flags.string-length: string-length has no effect"),
        ({"perf_analyzer_flags": {"string-data": "x", "input-data": "f.json"}}, "perf_analyzer_flags.string-data: string-data has no effect"),
        # TLS
        ({"perf_analyzer_flags": {"ssl-https-verify-peer": 0}}, "perf_analyzer_flags.ssl-https-verify-peer: ssl-https-verify-peer has no"),
        ({"perf_analyzer_flags": {"ssl-grpc-use-ssl": 0, "ssl-grpc-root-certifications-file": "ca"}},
         "perf_analyzer_flags.ssl-grpc-root-certifications-file: ssl-grpc-root-certifications-file has no effect; ssl-grpc-use-ssl"),
    ],
    ids=lambda value: value.partition(":")[0] if isinstance(value, str) else "",
)  # fmt: skip
def test_a_key_without_effect_is_told(values: dict[str, Any], line: str) -> None:
    (found,) = said(**values)
    assert found.startswith(line)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"perf_analyzer_flags": POISSON, "concurrency": None, "request_rate": [10]},
        {"perf_analyzer_flags": POISSON, "profile_models": {"a": None, "b": {"parameters": {"request_rate": 5}}}},
        {"perf_analyzer_flags": {**ROOM, "shared-memory": "system"}},
        {"perf_analyzer_flags": ROOM, "shared_memory": "system"},
        {"output_shared_memory_size": 4096, "perf_analyzer_flags": {"shared-memory": "system"}},
        {"profile_models": {"a": {"parameters": {"concurrency": 2, "batch_sizes": 2}}, "b": None}, "batch_sizes": 4},
        {"perf_analyzer_flags": {"string-data": "x", "input-data": "zero"}},
        {"perf_analyzer_flags": {"ssl-grpc-use-ssl": 1, "ssl-grpc-root-certifications-file": "ca"}},
        {"client_workers": 2, "client_cpus": "2-3"},
        {"client_workers": "auto", "client_cpus": "2"},
        {"triton_launch_mode": "local", "triton_server_path": "/t", "triton_server_flags": {"log-verbose": 1}},
        {**REMOTE, "client_max_retries": 3, "touch_models_in_use": True},
        # A model in use is not even measured as it is, unless told to; and any server's identity is part of its rows'.
        {**REMOTE, "reload_model_disable": True, "touch_models_in_use": True},
        {"triton_server_identity": "x"},
        {"dcgm_exporter_url": "http://h:9400/metrics", "min_gpu_samples": 2},
        {"dcgm_exporter_namespaces": "gpu"},
        {"precision": 0.1},
        {"min_seconds": 1, "max_seconds": 2},
        {"min_seconds": 1, "max_seconds": 1.5, "stop_rule": "perf_analyzer"},
        {"stop_rule": "fixed", "max_seconds": 90, "min_gpu_samples": 2},
        {"slice_seconds": 3, "request_count": 5},
    ],
)  # fmt: skip
def test_of_a_key_that_does_something_nothing_is_said(values: dict[str, Any]) -> None:
    assert said(**values) == []
