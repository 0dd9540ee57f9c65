"""How a server is controlled: by which protocol, and what both say of one server."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any
from urllib.parse import quote

import pytest

from model_analyzer.adapters.triton.control import TritonControl
from model_analyzer.adapters.triton.launch import opens_http, why_closed
from model_analyzer.adapters.triton.model_config import describe, merge
from model_analyzer.adapters.triton.wire_api import GrpcApi, HttpApi, WireApi, has_path
from model_analyzer.core.load import Protocol, Tls
from model_analyzer.errors import ModelError

HTTP, GRPC = "127.0.0.1:8000", "127.0.0.1:8001"
# As Triton 2.51 puts it.
RESTRICTED = """{"error": "This API is restricted, expecting header 'key'"}"""
UNKNOWN = """{"error": "Request for unknown model: '-' is not found"}"""


# -- which way ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("protocol", "one_server", "tls", "expected"),
    [
        ("http", False, None, [(HttpApi, HTTP)]),
        ("http", True, None, [(HttpApi, HTTP)]),
        ("grpc", True, None, [(HttpApi, HTTP), (GrpcApi, GRPC)]),
        ("grpc", False, None, [(GrpcApi, GRPC)]),
        ("grpc", True, Tls(), [(GrpcApi, GRPC)]),
    ],
)
def test_grpc_s_server_is_controlled_over_http_only_where_that_is_known_to_be_its_own(
    protocol: Protocol, one_server: bool, tls: Tls | None, expected: list[tuple[type, str]]
) -> None:
    ways = TritonControl.ways(protocol, HTTP, GRPC, tls, one_server=one_server)
    assert [(type(way.api), way.endpoint) for way in ways] == expected


@pytest.mark.parametrize(
    ("flags", "opens"),
    [
        ({}, True),
        ({"http-port": "8000", "allow-http": "True"}, True),
        ({"allow-http": "false"}, False),
        ({"allow-http": "0"}, False),
        ({"http-restricted-api": "model-repository:key=value"}, False),
    ],
)
def test_a_server_of_ours_may_be_told_to_take_no_control_over_http(flags: dict[str, str], opens: bool) -> None:
    assert opens_http(flags) is opens


def test_a_name_that_http_cannot_carry_is_told_from_a_model_that_is_not_there() -> None:
    for model, fix in (("50%", "set client_protocol: grpc"), ("half", "check that the model is a directory")):
        said = json.dumps({"error": f"failed to load '{quote(model)}', failed to poll from model repository"})
        with answering(500, said) as http, pytest.raises(ModelError, match=fix):
            TritonControl(HttpApi(http)).load(model)


@contextmanager
def answering(status: int, body: str, restricted: str = "nothing") -> Iterator[str]:
    """An HTTP server that says this to everything but what is restricted, and knows no model: host:port."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer = (403, RESTRICTED) if self.path.endswith(restricted) else (status, body)
            if answer == (200, "[]") and "/models/" in self.path:
                answer = 400, UNKNOWN
            self.send_response(answer[0])
            self.send_header("Content-Length", str(len(answer[1])))
            self.end_headers()
            self.wfile.write(answer[1].encode())

        def do_POST(self) -> None:
            self.do_GET()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def nobody() -> str:
    """A port at which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return f"127.0.0.1:{probe.getsockname()[1]}"


@pytest.fixture
def listener() -> Iterator[str]:
    """A port at which something listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize(("status", "body"), [(403, RESTRICTED), (404, UNKNOWN), (200, "<html>")])
def test_a_way_is_closed_where_something_else_or_no_live_server_answers(listener: str, status: int, body: str) -> None:
    with answering(status, body) as http:
        assert not TritonControl.ways("grpc", http, listener, one_server=True)[0].is_open()


@pytest.mark.parametrize(
    ("restricted", "is_open"),
    [
        ("nothing", True),
        ("/health/live", False),
        ("/v2", False),
        ("/repository/index", False),
        ("/systemsharedmemory/status", False),
        ("/config", False),
        ("/stats", False),
    ],
)
def test_a_way_is_open_where_nothing_that_control_needs_is_restricted(
    listener: str, restricted: str, is_open: bool
) -> None:
    with answering(200, "[]", restricted) as http:
        assert TritonControl.ways("grpc", http, listener, one_server=True)[0].is_open() is is_open


@pytest.mark.triton
def test_what_no_model_has_is_refused_otherwise_than_what_is_restricted(embedded_server: Any) -> None:
    info = embedded_server.info
    assert TritonControl.ways("grpc", info.http_endpoint, info.grpc_endpoint, one_server=True)[0].is_open()


@pytest.mark.parametrize(
    ("model", "has"),
    [("resnet50_v1.5-fp16", True), ("llama:8b@int8+lora,r=4", True), ("50%", False), ("a b", False), ("größe", False)],
)
def test_a_name_that_an_url_must_escape_is_none_that_triton_finds_over_http(model: str, has: bool) -> None:
    assert has_path(model) is has


def test_a_way_is_closed_where_either_port_is(listener: str, nobody: str) -> None:
    assert not TritonControl.ways("grpc", nobody, listener, one_server=True)[0].is_open()
    with answering(200, "[]") as http:
        assert not TritonControl.ways("grpc", http, nobody, one_server=True)[0].is_open()


@pytest.mark.parametrize("address", ["127.0.0.1:99999", f"{'x' * 70}.example:1", "[::1]:0"])
def test_what_is_no_address_is_closed_and_says_why(address: str) -> None:
    assert why_closed(address, 1.0)


def test_a_server_that_takes_no_requests_any_more_is_silent_though_its_control_answers(
    listener: str, nobody: str
) -> None:
    with answering(200, "") as http:
        dead, alive = (TritonControl.ways("grpc", http, grpc, one_server=True)[0] for grpc in (nobody, listener))
        assert (dead.silence(), dead.is_ready()) == (f"{nobody}: Connection refused", False)
        assert (alive.silence(), alive.is_ready()) == (None, True)


def test_a_traceback_that_the_server_answers_a_load_with_is_one_line_without_escapes() -> None:
    said = "load failed for model 'm': version 1 is at UNAVAILABLE state: Internal: no weights\n\nAt:\n  /m/1/model.py(7)\n;\n"
    with answering(400, json.dumps({"error": said})) as http, pytest.raises(ModelError) as raised:
        TritonControl(HttpApi(http)).load("m")
    what = "version 1 is at UNAVAILABLE state: Internal: no weights At: /m/1/model.py(7)"
    assert str(raised.value) == f"m: cannot be loaded: {what}; see the server's log"


# -- the same over both, on the real Triton ----------------------------------------------------------


def loaded_over(api: WireApi, model: str, overrides: dict[str, Any]) -> Any:
    """Load it so, and all that the run makes of what it says then."""
    api.load(model, None, 60)
    api.load(model, merge(api.model_config(model), overrides), 60)
    (version,) = api.model_metadata(model)["versions"]
    states = {(item["name"], item.get("version"), item.get("state")) for item in api.index() if "state" in item}
    return describe(api.model_config(model), version), states, api.metadata()


def unloaded_over(api: WireApi, model: str) -> None:
    api.unload(model, 30)
    deadline = time.monotonic() + 60
    while any(item.get("state") == "UNLOADING" for item in api.index()):
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.triton
@pytest.mark.parametrize("model", ["add_sub", "identity", "dynamic_dims", "decoupled", "no_batching"])
def test_both_say_the_same_of_a_model(embedded_server: Any, model: str) -> None:
    overrides = {
        "instance_group": [{"kind": "KIND_CPU", "count": 2}],
        "dynamic_batching": {"max_queue_delay_microseconds": 50},
    }
    overrides = {**overrides, "parameters": {"key": {"string_value": "value"}}}
    if model == "no_batching":
        del overrides["dynamic_batching"]
    info = embedded_server.info
    said, configs = [], []
    for api in (HttpApi(info.http_endpoint), GrpcApi(info.grpc_endpoint)):
        said.append(loaded_over(api, model, overrides))
        configs.append([one.model_config(model) for one in (HttpApi(info.http_endpoint), GrpcApi(info.grpc_endpoint))])
        unloaded_over(api, model)
    assert said[0] == said[1]
    # The config as it is served, whichever way it was loaded, and read.
    assert configs[0] == configs[1]
    over_http, over_grpc = (as_messages(config) for config in configs[0])
    assert over_http == over_grpc


@pytest.mark.triton
def test_triton_says_of_a_model_with_state_that_it_has_some(embedded_server: Any) -> None:
    for kind in (HttpApi, GrpcApi):
        info = embedded_server.info
        api = kind(info.http_endpoint if kind is HttpApi else info.grpc_endpoint)
        described, *_ = loaded_over(api, "no_batching", {"sequence_batching": {}})
        unloaded_over(api, "no_batching")
        assert described.stateful


def as_messages(config: dict[str, Any]) -> Any:
    """Integers as texts or not, defaults written or not: the same message."""
    from google.protobuf import json_format

    from model_analyzer.adapters.triton.messages import model_config_pb2

    return json_format.Parse(json.dumps(config), model_config_pb2().ModelConfig())


@pytest.mark.triton
def test_both_count_the_same_requests(embedded_server: Any) -> None:
    from urllib.request import Request, urlopen

    info = embedded_server.info
    with embedded_server.loaded("no_batching"):
        row = {"name": "INPUT", "datatype": "FP32", "shape": [4], "data": [0.0] * 4}
        for _ in range(3):
            body = json.dumps({"inputs": [row]}).encode()
            urlopen(Request(f"http://{info.http_endpoint}/v2/models/no_batching/infer", body), timeout=60).close()
        counts = {
            TritonControl(api).request_count("no_batching")
            for api in (HttpApi(info.http_endpoint), GrpcApi(info.grpc_endpoint))
        }
    assert len(counts) == 1
    assert counts.pop() >= 3
