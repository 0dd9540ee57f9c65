"""Encoded requests: what a real Triton understands by them, and which ones are rotated."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model_analyzer.adapters.triton import requests
from model_analyzer.adapters.triton.requests import DISTINCT, TritonEncoder
from model_analyzer.adapters.triton.shared_memory import Place, Places
from model_analyzer.core.load import InputSource, Protocol, RequestSet
from model_analyzer.core.variant import ModelInfo, TensorInfo
from model_analyzer.errors import InputError

PROTOCOLS: tuple[Protocol, ...] = ("http", "grpc")


def described(*inputs: TensorInfo, max_batch_size: int = 8) -> ModelInfo:
    return ModelInfo("m", "1", max_batch_size, inputs, (), "1:CPU")


def encode(model: ModelInfo, batch_size: int, source: InputSource, protocol: Protocol = "grpc") -> RequestSet:
    return TritonEncoder().encode(model, batch_size, source, protocol, "127.0.0.1:8000")


def tensors(body: bytes) -> dict[str, Any]:
    """Input -> shape and raw bytes of a gRPC request."""
    from tritonclient.grpc import service_pb2

    request = service_pb2.ModelInferRequest.FromString(body)
    pairs = zip(request.inputs, request.raw_input_contents, strict=True)
    return {tensor.name: (list(tensor.shape), raw) for tensor, raw in pairs}


def data_file(folder: Path, *entries: dict[str, Any]) -> InputSource:
    path = folder / "data.json"
    path.write_text(json.dumps({"data": list(entries)}))
    return InputSource("file", str(path))


INPUT = TensorInfo("INPUT", "INT32", (2,))


# -- which requests --------------------------------------------------------------------------------


def test_generated_requests_are_distinct_and_the_same_every_time() -> None:
    first, again = (encode(described(INPUT), 4, InputSource()) for _ in range(2))
    assert first == again
    assert len({request.body for request in first.requests}) == DISTINCT
    assert first.inferences == 4


def test_every_entry_of_a_data_file_is_sent_in_order(tmp_path: Path) -> None:
    source = data_file(tmp_path, *({"INPUT": [n, n]} for n in range(100)))
    made = encode(described(INPUT), 1, source).requests
    assert [np.frombuffer(tensors(r.body)["INPUT"][1], "<i4")[0] for r in made] == list(range(100))


@pytest.mark.parametrize(
    ("batch_size", "batches"),
    [(2, [[0, 1], [2, 0], [1, 2]]), (3, [[0, 1, 2]]), (4, [[0, 1, 2, 0], [1, 2, 0, 1], [2, 0, 1, 2]])],
)
def test_a_batch_takes_the_next_entries_of_the_ring(tmp_path: Path, batch_size: int, batches: list[list[int]]) -> None:
    source = data_file(tmp_path, *({"INPUT": [n, n]} for n in range(3)))
    made = encode(described(INPUT), batch_size, source).requests
    values = [np.frombuffer(tensors(r.body)["INPUT"][1], "<i4")[::2].tolist() for r in made]
    assert values == batches


def test_requests_are_fewer_when_they_are_large(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(requests, "TOTAL_BYTES", 1000)
    large = described(TensorInfo("INPUT", "INT32", (100,)))
    assert len(encode(large, 1, InputSource()).requests) == 3
    # What a user recorded is not cut at that.
    source = data_file(tmp_path, *({"INPUT": [n] * 100} for n in range(10)))
    assert len(encode(large, 1, source).requests) == 10


def test_a_non_batching_model_gets_no_batch_dimension() -> None:
    model = described(INPUT, max_batch_size=0)
    assert tensors(encode(model, 1, InputSource()).requests[0].body)["INPUT"][0] == [2]
    assert tensors(encode(described(INPUT), 1, InputSource()).requests[0].body)["INPUT"][0] == [1, 2]


@pytest.mark.parametrize(
    "entries",
    [
        ({"INPUT": [1]}, {"INPUT": [1, 2]}),
        ({"INPUT": [1], "EXTRA": [1]}, {"INPUT": [1]}),
        ({"INPUT": [1]}, {"INPUT": [1], "EXTRA": [1]}),
    ],
)
def test_entries_that_do_not_stack_are_an_error_of_the_batch_only(
    tmp_path: Path, entries: tuple[dict[str, Any], ...]
) -> None:
    model = described(TensorInfo("INPUT", "INT32", (-1,)), TensorInfo("EXTRA", "INT32", (1,), optional=True))
    source = data_file(tmp_path, *entries)
    assert len(encode(model, 1, source).requests) == 2
    with pytest.raises(
        InputError, match=r"model m: entries of one batch differ in input (INPUT|EXTRA); use batch size 1"
    ):
        encode(model, 2, source)


def test_a_shape_that_no_input_has_is_an_error_beside_a_data_file_too(tmp_path: Path) -> None:
    source = data_file(tmp_path, {"INPUT": [1, 2]})
    with pytest.raises(InputError, match="shape is given for unknown input OTHER"):
        encode(described(INPUT), 1, InputSource("file", source.path, shapes=(("OTHER", (2,)),)))


def test_an_unknown_datatype_is_an_error() -> None:
    with pytest.raises(InputError, match="model m: has inputs of datatype FP4"):
        encode(described(TensorInfo("INPUT", "FP4", (2,))), 1, InputSource())


def test_a_model_that_takes_sequences_only_is_an_error_and_not_left_to_its_replies() -> None:
    model = ModelInfo("m", "1", 0, (INPUT,), (), "1:CPU", stateful=True)
    with pytest.raises(InputError, match=r"model m: takes sequences of requests .* not supported yet"):
        TritonEncoder().encode(model, 1, InputSource(), "grpc", "host:1")


def test_an_http_request_is_whole_and_names_its_host_and_model() -> None:
    model = ModelInfo("a model/x", "1", 0, (INPUT,), (), "1:CPU")
    (request, *_) = encode(model, 1, InputSource(), "http").requests
    lines = request.head.decode().split("\r\n")
    assert lines[0] == "POST /v2/models/a%20model%2Fx/infer HTTP/1.1"
    fields = dict(line.split(": ") for line in lines[1:-2])
    assert lines[-2:] == ["", ""]
    assert fields["Host"] == "127.0.0.1:8000"
    assert int(fields["Content-Length"]) == len(request.body)
    document = json.loads(request.body[: int(fields["Inference-Header-Content-Length"])])
    assert document["inputs"][0]["name"] == "INPUT"


def test_a_request_of_the_generate_extension_is_a_json_object_without_a_batch_dimension() -> None:
    inputs = (TensorInfo("N", "INT32", (1,)), TensorInfo("TEXT", "BYTES", (1,)), TensorInfo("V", "FP32", (2, 2)))
    source = InputSource("zero", string_data="caf\u00e9")
    made = TritonEncoder().encode(described(*inputs), 1, source, "http", "127.0.0.1:8000", "generate_stream")
    head = made.requests[0].head.decode()
    assert made.call == "generate_stream"
    assert head.startswith("POST /v2/models/m/generate_stream HTTP/1.1\r\n")
    assert "Content-Type: application/json\r\n" in head
    assert f"Content-Length: {len(made.requests[0].body)}\r\n\r\n" in head
    assert json.loads(made.requests[0].body) == {"N": 0, "TEXT": "caf\u00e9", "V": [0.0] * 4}


@pytest.mark.parametrize(
    ("tensor", "value", "problem"),
    [
        (TensorInfo("T", "BYTES", (1,)), [{"b64": "/w=="}], "BYTES that are no UTF-8 text"),
        (TensorInfo("V", "FP32", (1,)), [float("nan")], "values that JSON has not"),
    ],
)
def test_what_the_generate_extension_cannot_say_is_an_error(
    tmp_path: Path, tensor: TensorInfo, value: Any, problem: str
) -> None:
    source = data_file(tmp_path, {tensor.name: value})
    with pytest.raises(InputError, match=problem):
        TritonEncoder().encode(described(tensor), 1, source, "http", "127.0.0.1:8000", "generate")


# -- beside tritonclient -----------------------------------------------------------------------------


def parsed(body: bytes, json_size: int) -> tuple[Any, bytes]:
    """Of the body of an HTTP request: its JSON, and the bytes after it."""
    return json.loads(body[:json_size]), body[json_size:]


def tensors_of(
    client: Any, model: ModelInfo, values: dict[str, Any], places: Places | None
) -> tuple[list[Any], list[Any]]:
    """Inputs and requested outputs as one of tritonclient's halves has them."""
    inputs, outputs = [], []
    for info in model.inputs:
        value = requests._as_sent(info, values[info.name])
        inputs.append(client.InferInput(info.name, list(value.shape), info.datatype))
        if places is None:
            inputs[-1].set_data_from_numpy(value)
        else:
            place = places.inputs[info.name]
            inputs[-1].set_shared_memory(places.region, place.size, place.offset)
    for name, place in places.outputs.items() if places is not None else ():
        outputs.append(client.InferRequestedOutput(name))
        outputs[-1].set_shared_memory(places.region, place.size, place.offset)
    return inputs, outputs


def of_tritonclient(model: ModelInfo, values: dict[str, Any], places: Places | None = None) -> tuple[Any, bytes]:
    """What `parsed` finds in the body that tritonclient.http makes."""
    import tritonclient.http as client

    inputs, outputs = tensors_of(client, model, values, places)
    body, json_size = client.InferenceServerClient.generate_request_body(inputs, outputs=outputs or None)
    return parsed(body, len(body) if json_size is None else json_size)


@pytest.mark.parametrize("datatype", sorted(requests.DTYPES))
@pytest.mark.parametrize("mode", ["random", "zero"])
def test_an_http_request_says_what_tritonclients_does(datatype: str, mode: Any) -> None:
    model = described(TensorInfo("A", datatype, (3, 2)), TensorInfo("B", datatype, (1,)))
    for values in requests._batches(model, 4, InputSource(mode, string_length=5)):
        assert parsed(*requests._http_body(model, values, None)) == of_tritonclient(model, values)


def test_an_http_request_by_shared_memory_says_what_tritonclients_does() -> None:
    model = described(TensorInfo("A", "FP32", (3,)), TensorInfo("B", "BYTES", (1,)))
    values = sent(model, 2, InputSource())
    inputs = {"A": Place(0, 24), "B": Place(64, 40)}
    for outputs in ({"OUT": Place(128, 16), "OUT2": Place(192, 8)}, {}):
        places = Places("region", inputs, outputs)
        assert parsed(*requests._http_body(model, values, places)) == of_tritonclient(model, values, places)


def of_tritonclients_grpc(model: ModelInfo, values: dict[str, Any], places: Places | None = None) -> bytes:
    """The request that tritonclient.grpc's own InferenceServerClient makes."""
    import tritonclient.grpc as client
    from tritonclient.grpc._utils import _get_inference_request

    inputs, outputs = tensors_of(client, model, values, places)
    request = _get_inference_request(model.name, inputs, "", "", outputs, 0, False, False, 0, None, None)
    made: bytes = request.SerializeToString(deterministic=True)
    return made


@pytest.mark.parametrize("datatype", sorted(requests.DTYPES))
@pytest.mark.parametrize("mode", ["random", "zero"])
def test_a_grpc_request_is_byte_for_byte_tritonclients(datatype: str, mode: Any) -> None:
    model = described(TensorInfo("A", datatype, (3, 2)), TensorInfo("B", datatype, (1,)))
    for values in requests._batches(model, 4, InputSource(mode, string_length=5)):
        assert requests._grpc_body(model, values, None) == of_tritonclients_grpc(model, values)


def test_a_grpc_request_by_shared_memory_is_byte_for_byte_tritonclients() -> None:
    model = described(TensorInfo("A", "FP32", (3,)), TensorInfo("B", "BYTES", (1,)))
    values = sent(model, 2, InputSource())
    inputs = {"A": Place(0, 24), "B": Place(64, 40)}
    for outputs in ({"OUT": Place(128, 16), "OUT2": Place(192, 8)}, {}):
        places = Places("region", inputs, outputs)
        assert requests._grpc_body(model, values, places) == of_tritonclients_grpc(model, values, places)


def test_a_grpc_request_of_empty_tensors_is_byte_for_byte_tritonclients() -> None:
    model = described(*(TensorInfo(datatype, datatype, (0,)) for datatype in sorted(requests.DTYPES)))
    values = sent(model, 1, InputSource())
    assert all(value.size == 0 for value in values.values())
    assert requests._grpc_body(model, values, None) == of_tritonclients_grpc(model, values)


# -- on the real Triton ----------------------------------------------------------------------------


def infer(embedded_server: Any, model: ModelInfo, batch_size: int, source: InputSource, protocol: Protocol) -> Any:
    """Send the first request byte for byte; the outputs as numpy arrays by name."""
    info = embedded_server.info
    address = info.http_endpoint if protocol == "http" else info.grpc_endpoint
    request = TritonEncoder().encode(model, batch_size, source, protocol, address).requests[0]
    result = _over_http(address, request) if protocol == "http" else _over_grpc(address, request)
    return {output.name: result.as_numpy(output.name) for output in model.outputs}


def _over_http(address: str, request: Any) -> Any:
    import socket
    from http.client import HTTPResponse

    import tritonclient.http as client

    host, port = address.split(":")
    with socket.create_connection((host, int(port)), timeout=20) as sock:
        sock.sendall(request.head + request.body)
        response = HTTPResponse(sock)
        response.begin()
        body = response.read()
        assert response.status == 200, body
        size = response.getheader("Inference-Header-Content-Length")
        response.close()
    return client.InferenceServerClient.parse_response_body(body, header_length=int(size or len(body)))


def _over_grpc(address: str, request: Any) -> Any:
    import grpc
    import tritonclient.grpc as client
    from tritonclient.grpc import service_pb2

    with grpc.insecure_channel(address) as channel:
        call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer", None, None)
        return client.InferResult(service_pb2.ModelInferResponse.FromString(call(request.body, timeout=20)))


def sent(model: ModelInfo, batch_size: int, source: InputSource) -> dict[str, Any]:
    return next(requests._batches(model, batch_size, source))


@pytest.mark.triton
def test_triton_echoes_every_datatype(embedded_server: Any, tmp_path: Path) -> None:
    from test_inputdata import VALUES

    with embedded_server.loaded("identity") as model:
        assert {tensor.datatype for tensor in model.inputs} == set(requests.DTYPES)
        entry = {tensor.name: VALUES[tensor.datatype] * 2 for tensor in model.inputs}
        for source in (InputSource("random", string_length=9), InputSource("zero"), data_file(tmp_path, entry)):
            for protocol in PROTOCOLS:
                for batch_size in (1, 3):
                    outputs = infer(embedded_server, model, batch_size, source, protocol)
                    for name, value in sent(model, batch_size, source).items():
                        echo = outputs[name.replace("INPUT", "OUTPUT")]
                        assert echo.shape == (batch_size, 4), name
                        if name == "INPUT_BF16":  # 8 bits of it are the fraction
                            assert echo.astype(np.float32) == pytest.approx(value, rel=2**-7)
                        else:
                            assert echo.tolist() == value.tolist(), (protocol, batch_size, name)


@pytest.mark.triton
def test_triton_takes_a_model_without_batching(embedded_server: Any) -> None:
    with embedded_server.loaded("no_batching") as model:
        assert model.max_batch_size == 0
        for protocol in PROTOCOLS:
            outputs = infer(embedded_server, model, 1, InputSource(), protocol)
            assert outputs["OUTPUT"].tolist() == (2 * sent(model, 1, InputSource())["INPUT"]).tolist()


@pytest.mark.triton
def test_triton_takes_dynamic_dims_by_shape_or_by_data(embedded_server: Any, tmp_path: Path) -> None:
    with embedded_server.loaded("dynamic_dims") as model:
        with pytest.raises(InputError, match="dynamic dims"):
            encode(model, 1, InputSource())
        for protocol in PROTOCOLS:
            outputs = infer(embedded_server, model, 2, InputSource(shapes=(("INPUT", (5,)),)), protocol)
            assert outputs["OUTPUT"].shape == (2, 5)
            outputs = infer(embedded_server, model, 1, data_file(tmp_path, {"INPUT": [1, 2, 3]}), protocol)
            assert outputs["OUTPUT"].tolist() == [[2, 4, 6]]


@pytest.mark.triton
def test_triton_takes_an_optional_input_or_does_without(embedded_server: Any, tmp_path: Path) -> None:
    with embedded_server.loaded("optional_input") as model:
        for protocol in PROTOCOLS:
            assert infer(embedded_server, model, 2, InputSource(), protocol)["OUTPUT"].shape == (2, 4)
            more = data_file(tmp_path, {"INPUT": [1, 2, 3, 4], "EXTRA": [10, 10]})
            assert infer(embedded_server, model, 1, more, protocol)["OUTPUT"].tolist() == [[21, 22, 23, 24]]
