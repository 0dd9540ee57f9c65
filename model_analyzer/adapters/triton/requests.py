"""Requests as they go over the wire, encoded once by tritonclient."""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator, Mapping
from itertools import cycle, islice
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from model_analyzer.adapters.triton.inputdata import DTYPES, Entry, check_shapes, generated, recorded, shapes_of
from model_analyzer.core.load import EncodedRequest, InputSource, Protocol, RequestSet
from model_analyzer.core.variant import ModelInfo
from model_analyzer.errors import InputError

# So many generated requests are rotated, so that no cache or branch predictor learns one by heart; fewer large ones.
DISTINCT = 8
TOTAL_BYTES = 64 << 20
# Of a data file every entry is sent, up to so many requests of so many bytes: they are held in memory.
MOST = 4096
RECORDED_BYTES = 512 << 20


class TritonEncoder:
    """A ports.Encoder."""

    def encode(
        self, model: ModelInfo, batch_size: int, source: InputSource, protocol: Protocol, address: str
    ) -> RequestSet:
        """Distinct requests of `batch_size` inferences each, the same ones in every run. Raises InputError."""
        requests: list[EncodedRequest] = []
        total = 0
        for tensors in _batches(model, batch_size, source):
            requests.append(_encode(model, tensors, protocol, address))
            total += len(requests[-1].body)
            if total >= (RECORDED_BYTES if source.mode == "file" else TOTAL_BYTES):
                break
        return RequestSet(protocol, tuple(requests), batch_size)


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


def _encode(model: ModelInfo, tensors: Mapping[str, NDArray[Any]], protocol: Protocol, address: str) -> EncodedRequest:
    if protocol == "grpc":
        body = _grpc_body(model, tensors)
        # The prefix of a gRPC message: not compressed, and its length.
        return EncodedRequest(struct.pack(">BI", 0, len(body)), body)
    body, json_size = _http_body(model, tensors)
    lines = [
        f"POST /v2/models/{quote(model.name, safe='')}/infer HTTP/1.1",
        f"Host: {address}",
        "Content-Type: application/octet-stream",
        f"Inference-Header-Content-Length: {json_size}",
        f"Content-Length: {len(body)}",
    ]
    return EncodedRequest(("\r\n".join(lines) + "\r\n\r\n").encode(), body)


def _inputs(module: Any, model: ModelInfo, tensors: Mapping[str, NDArray[Any]]) -> list[Any]:
    from tritonclient.utils import triton_to_np_dtype

    made = []
    for info in model.inputs:
        if info.name in tensors:
            # BF16: float32 for older tritonclients, a dtype of its own for newer ones.
            dtype = triton_to_np_dtype(info.datatype) if info.datatype == "BF16" else None
            value = np.asarray(tensors[info.name], dtype, order="C")
            tensor = module.InferInput(info.name, list(value.shape), info.datatype)
            tensor.set_data_from_numpy(value)
            made.append(tensor)
    return made


def _http_body(model: ModelInfo, tensors: Mapping[str, NDArray[Any]]) -> tuple[bytes, int]:
    import tritonclient.http as client

    body, json_size = client.InferenceServerClient.generate_request_body(_inputs(client, model, tensors))
    return body, len(body) if json_size is None else json_size


def _grpc_body(model: ModelInfo, tensors: Mapping[str, NDArray[Any]]) -> bytes:
    import tritonclient.grpc as client
    from tritonclient.grpc import service_pb2

    request = service_pb2.ModelInferRequest(model_name=model.name)
    for tensor in _inputs(client, model, tensors):
        # The two accessors that tritonclient's own InferenceServerClient builds its requests from.
        request.inputs.append(tensor._get_tensor())
        if (content := tensor._get_content()) is not None:
            request.raw_input_contents.append(content)
    body: bytes = request.SerializeToString()
    return body
