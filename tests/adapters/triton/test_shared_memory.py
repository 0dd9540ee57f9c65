"""Tensors in shared memory: what a real Triton reads and writes there, and what is left after a kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from model_analyzer.adapters.triton import shared_memory
from model_analyzer.adapters.triton.requests import TritonEncoder, _batches, _contents, _encode, _room
from model_analyzer.adapters.triton.shared_memory import (
    FOLDER,
    PAGE,
    Layout,
    Place,
    Places,
    Region,
    forget_leftovers,
    prefix,
    register,
    remove_leftovers,
)
from model_analyzer.adapters.triton.wire_api import GrpcApi, HttpApi, Refused, WireApi
from model_analyzer.core.load import EncodedRequest, InputSource, Protocol, RequestSet, SharedMemory
from model_analyzer.core.variant import ModelInfo, TensorInfo, Variant
from model_analyzer.errors import InputError, ServerError

PROTOCOLS: tuple[Protocol, ...] = ("http", "grpc")
SHARED = InputSource(shared_memory=SharedMemory())
# Makes a region of its own and waits to be killed.
OWNER = """
import sys, time
from model_analyzer.adapters.triton import shared_memory
shared_memory.prefix = lambda: sys.argv[1]
print(shared_memory.Region(100).name, flush=True)
time.sleep(600)
"""


def ours() -> set[str]:
    """Regions in /dev/shm that this process has made."""
    return {path.name for path in FOLDER.glob(f"{prefix()}{os.getpid()}-*")}


@pytest.fixture
def owner(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Another process and its region. Both have names of this test: any run beside it cleans up after killed ones, too."""
    own = f"test{os.getpid()}-{prefix()}"
    monkeypatch.setattr(shared_memory, "prefix", lambda: own)
    command = [sys.executable, "-c", OWNER, own]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        name = process.stdout.readline().strip()
        try:
            yield process, name
        finally:
            process.kill()
            (FOLDER / name).unlink(missing_ok=True)


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait(60)


# -- regions ---------------------------------------------------------------------------------------


def test_a_region_holds_what_is_written_and_is_gone_when_removed() -> None:
    region = Region(3 * PAGE)
    path = FOLDER / region.name
    region.write(PAGE, b"abc")
    assert path.read_bytes()[PAGE : PAGE + 3] == b"abc" == region.read(PAGE, 3)
    assert path.stat().st_size == 3 * PAGE
    assert path.stat().st_mode & 0o077 == 0, "nobody else's to read"
    region.remove()
    region.remove()
    assert not path.exists()


def test_no_room_is_said_and_leaves_nothing() -> None:
    before = ours()
    with pytest.raises(InputError, match=r"/dev/shm: has no room for 1,125,899,906\.8 MB of tensors \(.+\); free some"):
        Region(1 << 50)
    assert ours() == before


def test_tensors_begin_on_pages_of_their_own() -> None:
    layout = Layout()
    assert [layout.place(size).offset for size in (1, PAGE, PAGE + 1, 0, 5)] == [0, PAGE, 2 * PAGE, 4 * PAGE, 4 * PAGE]
    assert layout.size == 5 * PAGE


def test_leftovers_of_a_killed_process_are_removed_and_nothing_else(owner: tuple[Any, str]) -> None:
    process, name = owner
    mine, other = Region(10), FOLDER / f"other-program-{os.getpid()}"
    elsewhere = FOLDER / f"{shared_memory.PREFIX}-00000000-1-{os.getpid()}"  # as a run on another host names its own
    other.touch()
    elsewhere.touch()
    said: list[str] = []
    try:
        remove_leftovers(said.append)
        assert (FOLDER / name).exists(), "its owner lives"
        kill(process)
        remove_leftovers(said.append)
        assert not (FOLDER / name).exists()
        assert {path.exists() for path in (FOLDER / mine.name, other, elsewhere)} == {True}
    finally:
        other.unlink()
        elsewhere.unlink()
        mine.remove()
    assert said[-1] == "removed 1 shared memory region of a run that was killed"


# -- requests --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("datatype", "shape", "size"),
    [
        ("FP32", (3, 4), 2 * 4 * 12),
        ("BF16", (5,), 2 * 2 * 5),
        ("BOOL", (), 2),
        ("FP32", (-1, 4), 2 * 100),
        ("BYTES", (1,), 2 * 100),
        ("NEW", (1,), 2 * 100),
    ],
)
def test_room_for_an_output_follows_from_the_model_or_from_the_job(
    datatype: str, shape: tuple[int, ...], size: int
) -> None:
    assert _room(TensorInfo("OUTPUT", datatype, shape), 2, SharedMemory(100)) == size


def test_a_decoupled_model_is_refused_before_anything_is_made() -> None:
    model = ModelInfo("m", "1", 1, (TensorInfo("INPUT", "FP32", (1,)),), (), "1:CPU", decoupled=True)
    before = ours()
    with pytest.raises(InputError, match=r"model m: answers a request several times.*; set shared_memory: none"):
        TritonEncoder().encode(model, 1, SHARED, "http", "127.0.0.1:1")
    assert ours() == before


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_server_that_is_gone_is_an_error_of_the_server(protocol: Protocol) -> None:
    model = ModelInfo("m", "1", 1, (TensorInfo("INPUT", "FP32", (1,)),), (), "1:CPU")
    before = ours()
    encoder = TritonEncoder(lambda: HttpApi("127.0.0.1:1") if protocol == "http" else GrpcApi("127.0.0.1:1"))
    with pytest.raises(ServerError, match="does not answer"):
        encoder.encode(model, 1, SHARED, protocol, "127.0.0.1:1")
    encoder.release()
    assert ours() == before


# -- on the real Triton ----------------------------------------------------------------------------


def api_of(embedded_server: Any, protocol: Protocol) -> WireApi:
    info = embedded_server.info
    return HttpApi(info.http_endpoint) if protocol == "http" else GrpcApi(info.grpc_endpoint)


@contextmanager
def encoded(
    embedded_server: Any, name: str, batch_size: int, protocol: Protocol, source: InputSource = SHARED
) -> Iterator[tuple[ModelInfo, RequestSet, Region]]:
    """Requests whose tensors lie in shared memory; released afterwards."""
    variant, api = Variant(name, f"{name}_config_default"), api_of(embedded_server, protocol)
    encoder = TritonEncoder(lambda: api)
    model = embedded_server.server.load(variant)
    try:
        info = embedded_server.info
        address = info.http_endpoint if protocol == "http" else info.grpc_endpoint
        requests = encoder.encode(model, batch_size, source, protocol, address)
        yield model, requests, encoder._shared[0][0]
    finally:
        encoder.release()
        embedded_server.server.unload(variant)


def places(request: EncodedRequest, protocol: Protocol) -> dict[str, tuple[int, int]]:
    """Where a request wants its outputs: name -> offset and size."""
    from tritonclient.grpc import service_pb2

    if protocol == "http":
        given = {output["name"]: output["parameters"] for output in json.loads(request.body)["outputs"]}
    else:
        outputs = service_pb2.ModelInferRequest.FromString(request.body).outputs
        given = {o.name: {key: value.int64_param for key, value in o.parameters.items()} for o in outputs}
    return {n: (p.get("shared_memory_offset", 0), p["shared_memory_byte_size"]) for n, p in given.items()}


def received(embedded_server: Any, request: EncodedRequest, protocol: Protocol, region: Region) -> dict[str, bytes]:
    """Send it; the bytes of each output, from where it was to be put. Nothing of them is in the reply."""
    from test_requests import _over_grpc, _over_http

    info = embedded_server.info
    found = places(request, protocol)
    if protocol == "http":
        reply = _over_http(info.http_endpoint, request).get_response()
        assert {output["name"] for output in reply["outputs"]} == set(found)
        assert all("data" not in output for output in reply["outputs"])
    else:
        reply = _over_grpc(info.grpc_endpoint, request).get_response()
        assert {output.name for output in reply.outputs} == set(found)
        assert not any(reply.raw_output_contents)
    return {name: region.read(*place) for name, place in found.items()}


@pytest.mark.triton
@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("batch_size", [1, 4])
def test_the_model_reads_its_inputs_there_and_writes_its_outputs_there(
    embedded_server: Any, protocol: Protocol, batch_size: int
) -> None:
    with encoded(embedded_server, "add_sub", batch_size, protocol) as (model, requests, region):
        assert api_of(embedded_server, protocol).regions() == [region.name]
        given = list(_batches(model, batch_size, SHARED))
        assert len(requests.requests) == len(given) > 1
        assert all(len(request.body) < 1000 for request in requests.requests)
        sums = [received(embedded_server, request, protocol, region) for request in requests.requests]
        for tensors, outputs in zip(given, sums, strict=True):
            first, second = (tensors[tensor.name] for tensor in model.inputs)
            added, subtracted = (np.frombuffer(outputs[o.name], np.float32) for o in model.outputs)
            assert added.tolist() == (first + second).ravel().tolist()
            assert subtracted.tolist() == (first - second).ravel().tolist()
    assert api_of(embedded_server, protocol).regions() == []
    assert not (FOLDER / region.name).exists()


@pytest.mark.triton
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_datatype_goes_through_shared_memory(embedded_server: Any, protocol: Protocol) -> None:
    with encoded(embedded_server, "identity", 2, protocol) as (model, requests, region):
        outputs = received(embedded_server, requests.requests[0], protocol, region)
        inputs = _contents(model, next(_batches(model, 2, SHARED)))
        assert len(inputs) == len(model.inputs) == len(outputs)
        for name, content in inputs.items():
            # The room for BYTES is larger than they are.
            assert outputs[name.replace("INPUT", "OUTPUT")][: len(content)] == content, name


@pytest.mark.triton
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_large_tensor_is_not_sent(embedded_server: Any, protocol: Protocol) -> None:
    with encoded(embedded_server, "large_identity", 1, protocol) as (model, requests, region):
        size = 4 * 3 * 224 * 224
        assert len(requests.requests[0].body) < 1000 < size == 602_112
        given = next(_batches(model, 1, SHARED))["INPUT"].tobytes()
        assert received(embedded_server, requests.requests[0], protocol, region)["OUTPUT"] == given


@pytest.mark.triton
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_output_of_open_size_has_the_room_that_the_job_gives_it(embedded_server: Any, protocol: Protocol) -> None:
    shapes = (("INPUT", (5,)),)
    enough = InputSource(shapes=shapes, shared_memory=SharedMemory(20))
    with encoded(embedded_server, "dynamic_dims", 2, protocol, enough) as (model, requests, region):
        given = next(_batches(model, 2, enough))["INPUT"]
        output = received(embedded_server, requests.requests[0], protocol, region)["OUTPUT"]
        assert np.frombuffer(output, np.float32).tolist() == (2 * given).ravel().tolist()
    less = InputSource(shapes=shapes, shared_memory=SharedMemory(19))
    with encoded(embedded_server, "dynamic_dims", 2, protocol, less) as (_, requests, region):
        with pytest.raises(Exception, match="should be at least 40 bytes"):
            received(embedded_server, requests.requests[0], protocol, region)
    assert api_of(embedded_server, protocol).regions() == [], "a failed request keeps no region"


@pytest.mark.triton
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_server_that_does_not_see_the_region_is_one_line(embedded_server: Any, protocol: Protocol) -> None:
    region, api = Region(10), api_of(embedded_server, protocol)
    region.remove()  # as if the server had another /dev/shm
    with pytest.raises(InputError) as caught:
        register(region, api)
    assert str(caught.value).startswith(f"{api.endpoint}: does not take shared memory: ")
    assert "Unable to open shared memory region" in str(caught.value)
    assert str(caught.value).endswith(
        "; it must share this host's /dev/shm (a container: --ipc=host), or set shared_memory: none"
    )


@pytest.mark.triton
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_server_forgets_the_regions_of_killed_processes_only(
    embedded_server: Any, protocol: Protocol, owner: tuple[Any, str]
) -> None:
    process, name = owner
    api, mine, another, said = api_of(embedded_server, protocol), Region(10), Region(10), list[str]()
    try:
        api.register_region(name, f"/{name}", 10)
        api.register_region(mine.name, mine.key, 10)
        api.register_region("others", another.key, 10)
        forget_leftovers(api, said.append)
        assert set(api.regions()) == {name, mine.name, "others"}
        kill(process)
        forget_leftovers(api, said.append)
        assert set(api.regions()) == {mine.name, "others"}
    finally:
        for one in api.regions():
            api.unregister_region(one)
        mine.remove()
        another.remove()
    assert said == []


def test_a_server_without_shared_memory_is_left_alone() -> None:
    class NoSharedMemory:
        endpoint = "host:8000"

        def regions(self, timeout_s: float = 1.0) -> list[str]:
            raise Refused("shared memory is off")

    said: list[str] = []
    forget_leftovers(NoSharedMemory(), said.append)  # type: ignore[arg-type]
    assert said == []


def test_a_region_in_use_is_tried_again_and_then_said(monkeypatch: pytest.MonkeyPatch) -> None:
    class Busy:
        endpoint, tries = "host:8000", 0

        def unregister_region(self, name: str) -> None:
            self.tries += 1
            if name == "busy" or self.tries < 3:
                raise Refused("it is currently in use")

    monkeypatch.setattr(shared_memory, "TRY_EVERY_S", 0.001)
    server, said = Busy(), list[str]()
    shared_memory.unregister(["soon"], server, said.append)  # type: ignore[arg-type]
    assert (server.tries, said) == (3, [])
    shared_memory.unregister(["busy"], server, said.append, patience_s=0.01)  # type: ignore[arg-type]
    assert said == ["host:8000 keeps the shared memory region busy: it is currently in use; the next run tries again"]


def test_nothing_of_a_request_but_places_is_in_its_body() -> None:
    model = ModelInfo("m", "1", 0, (TensorInfo("INPUT", "FP32", (2,)),), (), "1:CPU")
    places = Places("region", {"INPUT": Place(0, 8)}, {"OUTPUT": Place(PAGE, 16)})
    request = _encode(model, {"INPUT": np.ones(2, np.float32)}, "http", "host:8000", places)
    said = json.loads(request.body)
    (given,), (wanted,) = said["inputs"], said["outputs"]
    assert given["parameters"] == {"shared_memory_region": "region", "shared_memory_byte_size": 8}
    asked = {"shared_memory_region": "region", "shared_memory_byte_size": 16, "shared_memory_offset": PAGE}
    assert asked.items() <= wanted["parameters"].items()
    assert "data" not in given
    assert f"Inference-Header-Content-Length: {len(request.body)}" in request.head.decode()
