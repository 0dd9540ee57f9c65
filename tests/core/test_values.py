"""The many ways in which a value may be written, as one."""

from __future__ import annotations

from typing import Any

import pytest

from model_analyzer.core.load import InputSource, Protocol, SharedMemory, Tls
from model_analyzer.core.values import (
    call_asked,
    gpus,
    input_source,
    models_of,
    numbers,
    objectives,
    perf_flags,
    server_flags,
    shown,
    texts,
    tls_of,
)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (4, (4,)),
        ("4", (4,)),
        ([8, 1, 4, 1], (1, 4, 8)),
        ("1,4, 8", (1, 4, 8)),
        ("1:8:2", (1, 3, 5, 7)),
        ("2:4", (2, 3, 4)),
        ({"start": 2, "stop": 8, "step": 3}, (2, 5, 8)),
        ({"start": 1, "stop": 3}, (1, 2, 3)),
        (["1,2", "8:10", 16, {"start": 20, "stop": 21}], (1, 2, 8, 9, 10, 16, 20, 21)),
        ({"start": 5, "stop": 5}, (5,)),
        (None, None),
    ],
)
def test_numbers_are_an_ascending_tuple_without_doubles(written: Any, expected: tuple[int, ...] | None) -> None:
    assert numbers(written) == expected


@pytest.mark.parametrize(
    "written",
    [
        [],
        "9:1",
        {"start": 1},
        {"start": 1, "stop": 2, "stride": 1},
        {"start": 1, "stop": 2, "step": 0},
        {"start": True, "stop": 2},
        {"start": 1.5, "stop": 2},
        "1:20001",
        "1:" + "9" * 5000,
        True,
        [1, False],
    ],
)
def test_what_is_no_list_of_numbers_is_refused(written: Any) -> None:
    with pytest.raises(ValueError, match=r".+; .+"):
        numbers(written)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("a", ("a",)),
        ("a, b,", ("a", "b")),
        (["a", "b"], ("a", "b")),
        ("", ()),
        ("[]", ()),
        ([], ()),
        (0, ("0",)),
        ([0, 1], ("0", "1")),
    ],
)
def test_texts(written: Any, expected: tuple[str, ...]) -> None:
    assert texts(written) == expected


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("all", ("all",)),
        (["all"], ("all",)),
        (["GPU-1", "all"], ("all",)),
        ("GPU-1,GPU-2", ("GPU-1", "GPU-2")),
        (["GPU-1"], ("GPU-1",)),
        ([], ()),
        ("[]", ()),
        (0, ("0",)),
    ],
)
def test_gpus_are_all_or_some_or_none(written: Any, expected: tuple[str, ...]) -> None:
    assert gpus(written) == expected


@pytest.mark.parametrize("written", [["perf_throughput", "gpu_used_memory"], "perf_throughput,gpu_used_memory"])
def test_objectives_without_weights_weigh_ten(written: Any) -> None:
    assert objectives(written) == {"perf_throughput": 10.0, "gpu_used_memory": 10.0}


def test_objectives_keep_their_weights() -> None:
    assert objectives({"perf_throughput": 2, "perf_latency_p99": 1}) == {"perf_throughput": 2, "perf_latency_p99": 1}


@pytest.mark.parametrize(
    ("written", "names"),
    [
        ("a,b", ["a", "b"]),
        (["a", "b,c"], ["a", "b", "c"]),
        ({"a": None, "b": {"cpu_only": True}}, ["a", "b"]),
        (["a", {"b": {}, "c": None}], ["a", "b", "c"]),
    ],
)
def test_models_have_many_forms(written: Any, names: list[str]) -> None:
    assert [model["name"] for model in models_of(written)] == names


def test_flags_of_the_server_may_be_written_as_on_its_command_line() -> None:
    written = {"--log-verbose": 1, "strict_readiness": True, "model-control-mode": "explicit"}
    assert server_flags(written) == {"log-verbose": 1, "strict-readiness": True, "model-control-mode": "explicit"}
    assert server_flags([{"a": 1}, {"b": 2}]) == {"a": 1, "b": 2}
    with pytest.raises(ValueError, match="is no flag"):
        server_flags({"log verbose": 1})


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({}, InputSource()),
        ({"input-data": "zero"}, InputSource("zero")),
        ({"input-data": ["data.json"]}, InputSource("file", "data.json")),
        ({"shape": "IN:3,224,224"}, InputSource(shapes=(("IN", (3, 224, 224)),))),
        ({"shape": ["A:1", "B:2,2"]}, InputSource(shapes=(("A", (1,)), ("B", (2, 2))))),
        # A name may have colons: the last one parts it from the dims.
        ({"shape": "in:0:4"}, InputSource(shapes=(("in:0", (4,)),))),
        ({"string-length": "16", "string-data": 7}, InputSource(string_length=16, string_data="7")),
        ({"shared-memory": "none", "output-shared-memory-size": 5}, InputSource()),
        ({"shared-memory": "system"}, InputSource(shared_memory=SharedMemory(102_400))),
        ({"shared-memory": "system", "output-shared-memory-size": "5"}, InputSource(shared_memory=SharedMemory(5))),
    ],
)
def test_inputs_come_from_perf_analyzers_flags(flags: dict[str, Any], expected: InputSource) -> None:
    assert input_source(perf_flags(flags), output_bytes=102_400) == expected


@pytest.mark.parametrize(
    "flags",
    [
        {"input-data": ["a", "b"]},
        {"input-data": []},
        {"shape": "IN"},
        {"shape": "IN:"},
        {"shape": "IN:-1"},
        {"shape": ":1"},
        {"shape": ["IN:1", {}]},
        {"string-length": -1},
        {"string-length": "long"},
        {"request-distribution": "uniform"},
        {"ssl-https-client-certificate-type": "DER"},
        {"ssl-https-private-key-type": "der"},
        {"ssl-https-verify-peer": "maybe"},
        {"ssl-https-verify-host": 3},
        {"ssl-grpc-use-ssl": "maybe"},
        {"ssl-https-ca-certificates-file": 3},
        {"ssl-https-client-certificate-file": "c.pem"},
        {"ssl-grpc-private-key-file": "k.pem"},
    ],
)
def test_a_value_that_a_flag_cannot_have_is_refused(flags: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r".+; .+"):
        perf_flags(flags)


@pytest.mark.parametrize(
    ("protocol", "endpoint", "flags", "expected"),
    [
        ("http", "h:1", {}, None),
        ("http", "https://h:1", {}, Tls()),
        ("http", "h:1", {"ssl-https-verify-peer": 0}, Tls(verify_peer=False)),
        ("http", "h:1", {"ssl-https-verify-host": 2}, Tls()),
        ("http", "h:1", {"ssl-https-verify-host": 0}, Tls(verify_host=False)),
        ("http", "h:1", {"ssl-grpc-use-ssl": True}, None),
        (
            "http",
            "h:1",
            {"ssl-https-client-certificate-type": "PEM", "ssl-https-ca-certificates-file": "ca"},
            Tls("ca"),
        ),
        ("grpc", "h:1", {}, None),
        ("grpc", "grpcs://h:1", {}, Tls()),
        ("grpc", "https://h:1", {}, Tls()),
        ("grpc", "grpcs://h:1", {"ssl-grpc-use-ssl": 0}, None),
        ("grpc", "grpcs://h:1", {"ssl-grpc-root-certifications-file": "ca"}, Tls("ca")),
        ("grpc", "h:1", {"ssl-grpc-use-ssl": "True"}, Tls()),
        ("grpc", "h:1", {"ssl-grpc-use-ssl": False, "ssl-grpc-root-certifications-file": "ca"}, None),
        ("grpc", "h:1", {"ssl-grpc-root-certifications-file": "ca"}, Tls("ca")),
        (
            "grpc",
            "h:1",
            {"ssl-grpc-use-ssl": 1, "ssl-grpc-certificate-chain-file": "c", "ssl-grpc-private-key-file": "k"},
            Tls(None, "c", "k"),
        ),
    ],
)
def test_tls_of_the_client(protocol: Any, endpoint: str, flags: dict[str, Any], expected: Tls | None) -> None:
    assert tls_of(perf_flags(flags), protocol, endpoint) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [(1, "1"), ("a", "'a'"), ({}, "a mapping"), ([1], "a list"), (10**500, "a huge integer"), ("x" * 99, "'" + "x" * 56 + "...")],
)  # fmt: skip
def test_a_value_in_a_message_is_short(value: Any, expected: str) -> None:
    assert shown(value) == expected


@pytest.mark.parametrize(
    ("flags", "protocol", "call"),
    [
        ({}, "grpc", None),
        ({"streaming": "false"}, "grpc", None),
        ({"endpoint": "infer"}, "http", None),
        ({"streaming": True}, "grpc", "stream_infer"),
        ({"streaming": "true"}, "http", "generate_stream"),
        ({"endpoint": "generate"}, "http", "generate"),
        ({"endpoint": "generate", "streaming": True}, "http", "generate_stream"),
        ({"endpoint": "generate_stream"}, "http", "generate_stream"),
    ],
)
def test_how_a_model_is_called(flags: dict[str, Any], protocol: Protocol, call: str | None) -> None:
    assert call_asked(flags, protocol) == call
