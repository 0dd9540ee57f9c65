"""Requests as they go over the wire, encoded once."""

from __future__ import annotations

import json
import math
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_analyzer.adapters.triton.inputdata import DTYPES, Entry, check_shapes, generated, recorded, shapes_of
from model_analyzer.adapters.triton.messages import service_pb2
from model_analyzer.adapters.triton.shared_memory import Layout, Place, Places, Region, register, unregister
from model_analyzer.adapters.triton.wire_api import WireApi, in_path
from model_analyzer.core.load import Call, EncodedRequest, InputSource, Protocol, RequestSet, SharedMemory
from model_analyzer.core.variant import ModelInfo, TensorInfo
from model_analyzer.errors import InputError

# So many generated requests are rotated, so that no cache or branch predictor learns one by heart; fewer large ones.
DISTINCT = 8
TOTAL_BYTES = 64 << 20
# Of a data file every entry is sent, up to so many requests of so many bytes: they are held in memory.
MOST = 4096
RECORDED_BYTES = 512 << 20


class TritonEncoder:
    """A ports.Encoder.

    control: of the server, which is told of shared memory; None: there is none to be told. say: receives a line for people.
    """

    def __init__(
        self, control: Callable[[], WireApi] | None = None, say: Callable[[str], None] = lambda _line: None
    ) -> None:
        self._control = control
        self._say = say
        self._shared: list[tuple[Region, WireApi]] = []

    def encode(
        self,
        model: ModelInfo,
        batch_size: int,
        source: InputSource,
        protocol: Protocol,
        address: str,
        call: Call = "infer",
    ) -> RequestSet:
        """Distinct requests of `batch_size` inferences each, the same ones in every run.

        Raises InputError; ServerError where the server is gone that is to be told of their shared memory.
        """
        refuse_sequences(model)
        if source.shared_memory is not None:
            refuse_shared_memory(model, call)
            return RequestSet(protocol, self._share(model, batch_size, source, protocol, address), batch_size)
        requests: list[EncodedRequest] = []
        total = 0
        for tensors in _batches(model, batch_size, source):
            requests.append(_encode(model, tensors, protocol, address, call=call))
            total += len(requests[-1].body)
            if total >= _most_bytes(source):
                break
        return RequestSet(protocol, tuple(requests), batch_size, call)

    def release(self, idle: bool = True) -> None:
        """Give shared memory back. Never raises.

        idle: no request of ours is under way. Otherwise the server is left to know the regions: before 2.50 Triton
        crashes where one is taken from it that a request still uses.
        """
        for region, api in self._shared:
            if idle:
                unregister([region.name], api, self._say)
            region.remove()
        self._shared.clear()

    def _share(
        self, model: ModelInfo, batch_size: int, source: InputSource, protocol: Protocol, address: str
    ) -> tuple[EncodedRequest, ...]:
        """Requests whose tensors lie in one new region that the server knows, each in places of its own."""
        assert source.shared_memory is not None
        assert self._control is not None
        layout = Layout()
        outputs = {output.name: _room(output, batch_size, source.shared_memory) for output in model.outputs}
        planned = []
        for tensors in _batches(model, batch_size, source):
            content = _contents(model, tensors)
            inputs = {name: layout.place(len(data)) for name, data in content.items()}
            planned.append((tensors, content, inputs, {name: layout.place(size) for name, size in outputs.items()}))
            if layout.size >= _most_bytes(source):
                break
        region = Region(layout.size)
        api = self._control()
        self._shared.append((region, api))
        for _, content, inputs, _ in planned:
            for name, place in inputs.items():
                region.write(place.offset, content[name])
        register(region, api)
        return tuple(
            _encode(model, tensors, protocol, address, Places(region.name, inputs, outputs))
            for tensors, _, inputs, outputs in planned
        )


def refuse_sequences(model: ModelInfo) -> None:
    """Raises InputError for a model that refuses each request without a correlation ID: what it says then helps nobody."""
    if model.stateful:
        what = "takes sequences of requests (sequence_batching), which are not supported yet"
        raise InputError(f"model {model.name}", what, "measure models without state")


def refuse_shared_memory(model: ModelInfo, call: Call) -> None:
    """Raises InputError where the replies have no one place each."""
    if model.decoupled:
        what = "answers a request several times, and each reply would overwrite the one before in shared memory"
    elif call != "infer":
        what = f"is called by {call} (streaming or endpoint in perf_analyzer_flags), which is measured without shared memory"
    else:
        return
    fix = "set shared_memory: none, or for this model alone perf_analyzer_flags: {shared-memory: none}"
    raise InputError(f"model {model.name}", what, fix)


def _most_bytes(source: InputSource) -> int:
    return RECORDED_BYTES if source.mode == "file" else TOTAL_BYTES


def _room(output: TensorInfo, batch_size: int, shared: SharedMemory) -> int:
    """Bytes for an output; as perf_analyzer: what the job says where the model leaves its size open."""
    if output.datatype not in DTYPES or output.datatype == "BYTES" or any(dim < 0 for dim in output.shape):
        return batch_size * shared.output_bytes
    each = 2 if output.datatype == "BF16" else np.dtype(DTYPES[output.datatype]).itemsize
    return batch_size * each * math.prod(output.shape)


def _contents(model: ModelInfo, tensors: Mapping[str, NDArray[Any]]) -> dict[str, bytes]:
    """The bytes of each input as Triton reads them."""
    given = [info for info in model.inputs if info.name in tensors]
    return {info.name: _bytes_of(info, _as_sent(info, tensors[info.name])) for info in given}


def _batches(model: ModelInfo, batch_size: int, source: InputSource) -> Iterator[dict[str, NDArray[Any]]]:
    """The tensors of each request, batch dimension included where the model has one."""
    where = f"model {model.name}"
    unknown = sorted({tensor.datatype for tensor in model.inputs} - set(DTYPES))
    if unknown:
        raise InputError(where, f"has inputs of datatype {', '.join(unknown)}", "give another model")
    if source.mode == "file" and source.path is not None:
        check_shapes(model.inputs, source, where)
        given = recorded(Path(source.path), model, dict(source.shapes))
        # As perf_analyzer: a request takes the next `batch_size` entries, the file is a ring.
        entries: Iterator[Entry] = cycle(given)
        count = min(len(given) // math.gcd(len(given), batch_size), MOST)
    else:
        shapes = shapes_of(model.inputs, source, where)
        # zlib.crc32 and not hash(): the same in every process.
        seed = zlib.crc32(f"{model.name} {batch_size}".encode())
        entries, count = generated(model.inputs, shapes, source, seed), DISTINCT
    for _ in range(count):
        batch = list(islice(entries, batch_size))
        yield batch[0] if model.max_batch_size == 0 else _stack(batch, where)  # type: ignore[misc]


def _stack(batch: list[Entry], where: str) -> dict[str, NDArray[Any]]:
    stacked = {}
    for name in sorted({name for entry in batch for name in entry}):
        if not all(name in entry and name in batch[0] and entry[name].shape == batch[0][name].shape for entry in batch):
            what = f"entries of one batch differ in input {name}"
            raise InputError(where, what, "use batch size 1, or entries of one shape")
        stacked[name] = np.stack([entry[name] for entry in batch])
    return stacked


def _encode(
    model: ModelInfo,
    tensors: Mapping[str, NDArray[Any]],
    protocol: Protocol,
    address: str,
    places: Places | None = None,
    call: Call = "infer",
) -> EncodedRequest:
    """places: of its tensors in shared memory; None: they are part of the request and of its reply."""
    if protocol == "grpc":
        body = _grpc_body(model, tensors, places)
        # The prefix of a gRPC message: not compressed, and its length.
        return EncodedRequest(struct.pack(">BI", 0, len(body)), body)
    if call != "infer":
        return _http(model, address, call, ["Content-Type: application/json"], _generate_body(model, tensors))
    body, json_size = _http_body(model, tensors, places)
    about = ["Content-Type: application/octet-stream", f"Inference-Header-Content-Length: {json_size}"]
    return _http(model, address, call, about, body)


def _http(model: ModelInfo, address: str, call: Call, about: list[str], body: bytes) -> EncodedRequest:
    lines = [
        f"POST /v2/models/{in_path(model.name)}/{call} HTTP/1.1",
        f"Host: {address}",
        *about,
        f"Content-Length: {len(body)}",
    ]
    return EncodedRequest(("\r\n".join(lines) + "\r\n\r\n").encode(), body)


def _generate_body(model: ModelInfo, tensors: Mapping[str, NDArray[Any]]) -> bytes:
    """The generate extension's JSON: an input is its values as one list, without the batch dimension. Raises InputError."""
    where = f"model {model.name}"
    try:
        values = {name: _listed(array) for name, array in tensors.items()}
        return json.dumps(values, allow_nan=False, separators=(",", ":")).encode()
    except UnicodeDecodeError:
        raise InputError(where, "has BYTES that are no UTF-8 text", "/generate takes texts; use gRPC") from None
    except ValueError:
        raise InputError(where, "has values that JSON has not (NaN, infinity)", "use others, or gRPC") from None


def _listed(array: NDArray[Any]) -> Any:
    """One value as it is: models that take one text or number want no list."""
    flat = [item.decode() if isinstance(item, bytes) else item for item in array.ravel().tolist()]
    return flat[0] if len(flat) == 1 else flat


def _http_body(model: ModelInfo, tensors: Mapping[str, NDArray[Any]], places: Places | None) -> tuple[bytes, int]:
    """The JSON with the tensors' bytes after it, and the length of the JSON.

    Source: Triton's protocol/extension_binary_data.md. The same as tritonclient.http says (a test compares them), without
    importing it: with gevent, that took 8 % of the CPU of our own start-up.
    """
    inputs = []
    contents = []
    for info in model.inputs:
        if info.name in tensors:
            value = _as_sent(info, tensors[info.name])
            about = {"name": info.name, "shape": list(value.shape), "datatype": info.datatype}
            if places is None:
                contents.append(_bytes_of(info, value))
                inputs.append({**about, "parameters": {"binary_data_size": len(contents[-1])}})
            else:
                inputs.append({**about, "parameters": _in_region(places.region, places.inputs[info.name])})
    asked: dict[str, Any] = {"parameters": {"binary_data_output": True}}
    if places is not None and places.outputs:
        outputs = [
            {"name": name, "parameters": {"binary_data": False, **_in_region(places.region, place)}}
            for name, place in places.outputs.items()
        ]
        asked = {"outputs": outputs}
    header = json.dumps({"inputs": inputs, **asked}, separators=(",", ":")).encode()
    return b"".join([header, *contents]), len(header)


def _as_sent(info: TensorInfo, value: NDArray[Any]) -> NDArray[Any]:
    """In C order; BF16 as tritonclient has it: float32 in older ones, a dtype of its own in newer ones."""
    if info.datatype != "BF16":
        return np.asarray(value, order="C")
    from tritonclient.utils import triton_to_np_dtype

    return np.asarray(value, triton_to_np_dtype("BF16"), order="C")


def _bytes_of(info: TensorInfo, value: NDArray[Any]) -> bytes:
    """As Triton reads them: little-endian numbers; of BYTES each value after its length."""
    if info.datatype == "BYTES" or (info.datatype == "BF16" and value.dtype == np.float32):
        from tritonclient import utils

        write = utils.serialize_byte_tensor if info.datatype == "BYTES" else utils.serialize_bf16_tensor
        return write(value).item() if value.size else b""
    return value.tobytes()


def _in_region(region: str, place: Place) -> dict[str, Any]:
    """Where a tensor lies in shared memory."""
    offset = {"shared_memory_offset": place.offset} if place.offset else {}
    return {"shared_memory_region": region, "shared_memory_byte_size": place.size, **offset}


def _grpc_body(model: ModelInfo, tensors: Mapping[str, NDArray[Any]], places: Places | None) -> bytes:
    """The message ModelInferRequest, serialized. The same as tritonclient.grpc makes (a test compares them)."""
    request = service_pb2().ModelInferRequest(model_name=model.name)
    for info in model.inputs:
        if info.name in tensors:
            value = _as_sent(info, tensors[info.name])
            tensor = request.inputs.add(name=info.name, datatype=info.datatype, shape=value.shape)
            if places is None:
                request.raw_input_contents.append(_bytes_of(info, value))
            else:
                _put_in_region(tensor, places.region, places.inputs[info.name])
    if places is not None:
        for name, place in places.outputs.items():
            _put_in_region(request.outputs.add(name=name), places.region, place)
    # Else the order of a mapping's entries, the parameters', is left open.
    body: bytes = request.SerializeToString(deterministic=True)
    return body


def _put_in_region(tensor: Any, region: str, place: Place) -> None:
    for key, value in _in_region(region, place).items():
        parameter = tensor.parameters[key]
        if isinstance(value, str):
            parameter.string_param = value
        else:
            parameter.int64_param = value
