"""A job: global settings, a model's own, and what follows from the two."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from model_analyzer.core.load import Load, SharedMemory
from model_analyzer.core.metric import DEFAULT_GPU_FIELDS, DEFAULT_INFERENCE_FIELDS
from model_analyzer.core.spec import JobSpec, ResolvedModel, pairs


def job(**keys: Any) -> JobSpec:
    return JobSpec.model_validate({"model_repository": "/models", "profile_models": ["a"], **keys})


def model(settings: dict[str, Any] | None = None, **keys: Any) -> ResolvedModel:
    return job(profile_models={"a": settings}, **keys).models()[0]


def loads(resolved: ResolvedModel) -> list[str]:
    return [str(load) for load in resolved.loads]


# -- loads ---------------------------------------------------------------------------------------------


def test_without_any_load_one_request_is_kept_in_flight() -> None:
    assert model().loads == (Load("concurrency", 1),)
    assert model().batch_sizes == (1,)


def test_a_models_own_values_replace_the_global_ones() -> None:
    own = {"parameters": {"batch_sizes": [2, 4], "concurrency": {"start": 1, "stop": 3}}}
    resolved = model(own, batch_sizes=1, concurrency=8)
    assert resolved.batch_sizes == (2, 4)
    assert loads(resolved) == ["concurrency 1", "concurrency 2", "concurrency 3"]


def test_a_models_own_kind_of_load_replaces_the_global_one_whatever_its_kind() -> None:
    assert loads(model({"parameters": {"request_rate": 50}}, concurrency=8)) == ["request_rate 50"]
    assert loads(model({"parameters": {"concurrency": 2}}, request_rate=50)) == ["concurrency 2"]


def test_send_times_are_constant_or_poisson() -> None:
    assert model(request_rate=50).loads == (Load("request_rate", 50),)
    poisson = {"request-distribution": "poisson"}
    assert model(request_rate=50, perf_analyzer_flags=poisson).loads == (Load("request_rate", 50, "poisson"),)


# -- how models are called -----------------------------------------------------------------------------


def test_the_generate_extension_is_https_alone() -> None:
    flags = {"a": {"perf_analyzer_flags": {"endpoint": "generate_stream"}}, "b": None}
    assert [one.call for one in job(profile_models=flags, client_protocol="http").models()] == ["generate_stream", None]
    with pytest.raises(ValidationError, match="endpoint /generate_stream of a is HTTP's, and client_protocol is grpc"):
        job(profile_models=flags, client_protocol="grpc")


def test_an_endpoint_that_is_unknown_is_named() -> None:
    with pytest.raises(ValidationError, match="use infer, generate or generate_stream"):
        job(perf_analyzer_flags={"endpoint": "v1/chat"})


# -- what a model has of the globals -------------------------------------------------------------------


def test_a_models_own_flags_stand_instead_of_the_global_ones_and_are_not_mixed() -> None:
    everything: dict[str, Any] = {
        "perf_analyzer_flags": {"input-data": "zero"},
        "triton_server_flags": {"log-verbose": 1},
        "triton_server_environment": {"A": "1"},
    }
    assert model(None, **everything).input_source.mode == "zero"
    own = {
        "perf_analyzer_flags": {"shape": "IN:3"},
        "triton_server_flags": {"exit-on-error": False},
        "triton_server_environment": {"B": 2},
    }
    resolved = model(own, **everything)
    assert (resolved.input_source.mode, resolved.input_source.shapes) == ("random", (("IN", (3,)),))
    assert resolved.server.flags == (("exit-on-error", "false"),)
    assert resolved.server.environment == (("B", "2"),)


def test_shared_memory_is_the_jobs_unless_a_models_flags_say_otherwise() -> None:
    flags = {"shared-memory": "none"}, {"output-shared-memory-size": 7}
    models = {"plain": {}, "sent": {"perf_analyzer_flags": flags[0]}, "small": {"perf_analyzer_flags": flags[1]}}
    spec = job(profile_models=models, shared_memory="system", output_shared_memory_size=9)
    sources = {model.name: model.input_source.shared_memory for model in spec.models()}
    assert sources == {"plain": SharedMemory(9), "sent": None, "small": SharedMemory(7)}


def test_a_models_own_objectives_constraints_and_weighting_are_its_own() -> None:
    own = {"objectives": {"perf_latency_p99": 3}, "constraints": {"gpu_used_memory": {"max": 200}}, "weighting": 3}
    first, second = job(
        profile_models=[{"a": own}, "b"],
        objectives=["perf_throughput"],
        constraints={"perf_throughput": {"min": 5}},
    ).models()
    assert (dict(first.objectives), first.weighting) == ({"perf_latency_p99": 3}, 3)
    assert first.constraints == {"gpu_used_memory": {"max": 200}}
    assert (dict(second.objectives), second.weighting) == ({"perf_throughput": 10}, None)
    assert second.constraints == {"perf_throughput": {"min": 5}}


def test_the_short_forms_win_over_the_constraints_that_they_stand_for() -> None:
    own = {"constraints": {"perf_latency_p99": {"max": 100}, "gpu_used_memory": {"max": 200}}}
    resolved = model(own, latency_budget=10, min_throughput=50)
    assert resolved.constraints == {
        "perf_latency_p99": {"max": 10},
        "gpu_used_memory": {"max": 200},
        "perf_throughput": {"min": 50},
    }


def test_flags_are_texts_as_a_command_line_has_them() -> None:
    assert pairs({"a": True, "b": False, "c": 3, "d": 1.5, "e": "x"}) == (
        ("a", "true"),
        ("b", "false"),
        ("c", "3"),
        ("d", "1.5"),
        ("e", "x"),
    )


# -- columns -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "columns"),
    [
        ({}, ["concurrency"]),
        ({"concurrency": 4}, ["concurrency"]),
        ({"request_rate": 4}, ["request_rate"]),
        ({"profile_models": {"a": {"parameters": {"request_rate": 4}}}}, ["request_rate"]),
        ({"profile_models": {"a": {"parameters": {"request_rate": 4}}, "b": None}}, ["concurrency", "request_rate"]),
        ({"perf_analyzer_flags": {"request-intervals": "f"}}, ["request_rate"]),
        ({"profile_models": {"a": {"perf_analyzer_flags": {"request-intervals": "f"}}}}, ["request_rate"]),
        (
            {
                "perf_analyzer_flags": {"request-intervals": "f"},
                "profile_models": {"a": {"perf_analyzer_flags": {"streaming": True}}},
            },
            ["concurrency"],
        ),
    ],
)
def test_the_default_columns_follow_the_load(keys: dict[str, Any], columns: list[str]) -> None:
    spec = job(**keys)
    for fields, default in (
        (spec.inference_output_fields, DEFAULT_INFERENCE_FIELDS),
        (spec.gpu_output_fields, DEFAULT_GPU_FIELDS),
    ):
        at = default.index("concurrency")
        assert list(fields) == [*default[:at], *columns, *default[at + 1 :]]


def test_columns_that_were_asked_for_stay_as_they_are() -> None:
    spec = job(request_rate=4, inference_output_fields="model_name,concurrency")
    assert spec.inference_output_fields == ("model_name", "concurrency")


# -- what is refused -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "where"),
    [
        ({"concurrency": 1, "request_rate": 1}, "request_rate"),
        ({"model_repository": None}, "model_repository"),
        ({"min_seconds": 5, "max_seconds": 4}, "min_seconds"),
        ({"slice_seconds": 5, "max_seconds": 4}, "slice_seconds"),
        ({"weighting": 1}, "weighting"),
        ({"profile_models": ["a", "a"]}, "profile_models"),
        ({"filename_server_only": "metrics-model-gpu.csv"}, "filename_server_only"),
        ({"client_max_retries": True}, "client_max_retries"),
        ({"monitoring_interval": "nan"}, "monitoring_interval"),
        ({"triton_docker_labels": {"a": [1]}}, "triton_docker_labels"),
        ({"triton_server_environment": {"A=B": 1}}, "triton_server_environment"),
    ],
)
def test_what_cannot_be_is_refused_at_its_key(keys: dict[str, Any], where: str) -> None:
    with pytest.raises(ValidationError) as caught:
        job(**keys)
    assert {error["loc"][0] for error in caught.value.errors()} == {where}


def test_a_remote_job_needs_no_repository() -> None:
    assert job(model_repository=None, triton_launch_mode="remote").model_repository is None


@pytest.mark.parametrize("value", ["h:1", "10.0.0.1:8000", "[::1]:8000", "http://h:1", "https://h:1/"])
def test_endpoints(value: str) -> None:
    assert job(triton_http_endpoint=value).triton_http_endpoint == value


ELSEWHERE = {"triton_launch_mode": "remote", "triton_http_endpoint": "t:8000"}


@pytest.mark.parametrize(
    "more",
    [
        {"client_protocol": "http"},
        {"triton_grpc_endpoint": "localhost:8001"},
        {"triton_http_endpoint": "localhost:8000"},
        {"triton_launch_mode": None},
    ],
)
def test_the_endpoint_that_is_used_is_given_or_both_are_the_defaults(more: dict[str, Any]) -> None:
    job(**{**ELSEWHERE, "model_repository": "/m", **more})


def test_a_server_that_is_named_by_its_other_endpoint_alone_is_not_guessed() -> None:
    line = "requests go over grpc, and only triton_http_endpoint is given; give triton_grpc_endpoint, too, or set client_protocol: http"
    with pytest.raises(ValidationError, match=line):
        job(**ELSEWHERE)
    line = "requests go over http, and only triton_grpc_endpoint is given; give triton_http_endpoint"
    with pytest.raises(ValidationError, match=line):
        job(triton_launch_mode="remote", triton_grpc_endpoint="t:8001", client_protocol="http")


def test_requests_go_to_the_endpoint_of_their_protocol() -> None:
    both = {**ELSEWHERE, "triton_grpc_endpoint": "grpcs://t:8001"}
    assert (job(**both).endpoint, job(**both, client_protocol="http").endpoint) == ("grpcs://t:8001", "t:8000")


@pytest.mark.parametrize(
    ("http", "grpc", "known"),
    [
        ("t:8000", "t:8001", True),
        ("http://t:8000/", "t:8001", True),
        ("[::1]:8000", "[::1]:8001", True),
        ("localhost:8000", "localhost:8001", True),
        (None, None, False),
        (None, "localhost:8001", False),
        ("t:8000", "u:8001", False),
        ("https://t:8000", "t:8001", False),
        ("t:8000", "grpcs://t:8001", False),
    ],
)
def test_endpoints_are_one_server_s_where_both_are_given_for_one_host(
    http: str | None, grpc: str | None, known: bool
) -> None:
    given = {"triton_http_endpoint": http, "triton_grpc_endpoint": grpc}
    keys = {key: value for key, value in given.items() if value is not None}
    assert job(triton_launch_mode="remote", **keys).one_server is known


@pytest.mark.parametrize("value", ["h", "h:", ":8000", "http://h", "h:1/path", "h 1:1", "", 8000])
def test_what_is_no_endpoint(value: Any) -> None:
    with pytest.raises(ValidationError):
        job(triton_http_endpoint=value)


def test_plain_integers_are_texts_where_docker_wants_texts() -> None:
    spec = job(triton_docker_shm_size=1073741824, triton_docker_labels={"team": 7})
    assert (spec.triton_docker_shm_size, spec.triton_docker_labels) == ("1073741824", {"team": "7"})


# -- the load generator's processes --------------------------------------------------------------------


@pytest.mark.parametrize(("value", "is_"), [("auto", "auto"), (3, 3), ("3", 3)])
def test_client_workers_are_auto_or_a_number(value: Any, is_: Any) -> None:
    assert job().client_workers == "auto"
    assert job(client_workers=value).client_workers == is_


@pytest.mark.parametrize("value", [0, -1, 257, True, 1.5, "many", [1], None])
def test_what_are_no_client_workers(value: Any) -> None:
    with pytest.raises(ValidationError):
        job(client_workers=value)


@pytest.mark.parametrize(
    ("value", "cpus"),
    [
        ([2, 3], (2, 3)),
        ("2-3", (2, 3)),
        ("6,2-3, 6", (6, 2, 3)),
        (["2-3", 0], (2, 3, 0)),
        (5, (5,)),
        ("5", (5,)),
        ([], ()),
        (None, ()),
    ],
)
def test_client_cpus_are_numbers_or_ranges_as_taskset_has_them(value: Any, cpus: tuple[int, ...]) -> None:
    assert job(client_cpus=value).client_cpus == cpus


@pytest.mark.parametrize("value", ["3-2", "a", "1:3", -1, "-1", True, [1.5], "0-99999", "1-"])
def test_what_are_no_client_cpus(value: Any) -> None:
    with pytest.raises(ValidationError):
        job(client_cpus=value)


@pytest.mark.parametrize(
    ("flags", "shared"),
    [({"streaming": 1}, "system"), ({"streaming": 1, "shared-memory": "system"}, "none")],
)
def test_shared_memory_and_streaming_exclude_each_other(flags: dict[str, Any], shared: str) -> None:
    values = {"profile_models": ["a"], "model_repository": "/m", "shared_memory": shared, "perf_analyzer_flags": flags}
    with pytest.raises(ValidationError, match=r"shared_memory: system, and streaming .*\(a: stream_infer\)"):
        JobSpec.model_validate(values)
    JobSpec.model_validate({**values, "perf_analyzer_flags": {**flags, "shared-memory": "none"}})
