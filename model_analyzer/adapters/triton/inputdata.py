"""Input tensors: random, zero, or from a JSON data file in perf_analyzer's format.

Random values follow perf_analyzer where it says anything: floats in [0, 1),
integers small and not negative (0..127: valid as token ids and class numbers of
most models), BYTES printable.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_analyzer.core.load import InputSource
from model_analyzer.core.variant import TensorInfo
from model_analyzer.errors import InputError

# Triton datatype -> numpy; BF16 travels as float32 and is cut to 16 bits by the encoder.
DTYPES: Mapping[str, Any] = {
    "BOOL": np.bool_, "UINT8": np.uint8, "UINT16": np.uint16, "UINT32": np.uint32, "UINT64": np.uint64,
    "INT8": np.int8, "INT16": np.int16, "INT32": np.int32, "INT64": np.int64,
    "FP16": np.float16, "FP32": np.float32, "FP64": np.float64, "BF16": np.float32, "BYTES": np.object_,
}  # fmt: skip
PRINTABLE = np.frombuffer(b"abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789", np.uint8)

Tensors = dict[str, NDArray[Any]]
# One entry of a data file: tensor -> array without batch dimension.
Entry = Mapping[str, NDArray[Any]]


def shapes_of(inputs: Sequence[TensorInfo], source: InputSource, where: str) -> dict[str, tuple[int, ...]]:
    """Every input's dims without the batch dimension, none dynamic. Raises InputError."""
    given = dict(source.shapes)
    unknown = sorted(set(given) - {tensor.name for tensor in inputs})
    if unknown:
        names = ", ".join(tensor.name for tensor in inputs)
        raise InputError(where, f"shape is given for unknown input {', '.join(unknown)}", f"the inputs are {names}")
    return {tensor.name: _shape(tensor, given.get(tensor.name), where) for tensor in inputs}


def _shape(tensor: TensorInfo, given: tuple[int, ...] | None, where: str) -> tuple[int, ...]:
    if given is None:
        if any(dim < 0 for dim in tensor.shape):
            example = ",".join("8" if dim < 0 else str(dim) for dim in tensor.shape)
            what = f"input {tensor.name} has dynamic dims {list(tensor.shape)}"
            raise InputError(where, what, f'set perf_analyzer_flags: {{shape: "{tensor.name}:{example}"}}')
        return tensor.shape
    fits = len(given) == len(tensor.shape) and all(d in (g, -1) for g, d in zip(given, tensor.shape, strict=True))
    if not fits:
        what = f"shape {list(given)} does not fit input {tensor.name} {list(tensor.shape)}"
        raise InputError(where, what, "give the dims without the batch dimension, -1 replaced by a number")
    return given


def generated(
    inputs: Sequence[TensorInfo], shapes: Mapping[str, tuple[int, ...]], source: InputSource, seed: int
) -> Iterator[Entry]:
    """Entries without end, equal for equal seeds. Optional inputs are left out."""
    random = np.random.default_rng(seed)
    needed = [tensor for tensor in inputs if not tensor.optional]
    while True:
        yield {tensor.name: _values(tensor.datatype, shapes[tensor.name], source, random) for tensor in needed}


def _values(datatype: str, shape: tuple[int, ...], source: InputSource, random: np.random.Generator) -> NDArray[Any]:
    dtype = DTYPES[datatype]
    if datatype == "BYTES":
        return _strings(shape, source, random)
    if source.mode == "zero":
        return np.zeros(shape, dtype)
    if datatype == "BOOL":
        return random.integers(0, 2, shape).astype(dtype)
    if np.issubdtype(dtype, np.integer):
        return random.integers(0, 128, shape).astype(dtype)
    return random.random(shape).astype(dtype)


def _strings(shape: tuple[int, ...], source: InputSource, random: np.random.Generator) -> NDArray[Any]:
    values = np.empty(shape, np.object_)
    for index in np.ndindex(shape):
        if source.string_data is not None:
            values[index] = source.string_data.encode()
        elif source.mode == "zero":
            values[index] = b""
        else:
            values[index] = PRINTABLE[random.integers(0, len(PRINTABLE), source.string_length)].tobytes()
    return values


def from_file(path: Path, inputs: Sequence[TensorInfo], shapes_given: Mapping[str, tuple[int, ...]]) -> list[Entry]:
    """The entries of a data file, streams one after the other. Raises InputError with file, entry and input."""
    tensors = {tensor.name: tensor for tensor in inputs}
    try:
        data = json.loads(path.read_text(encoding="utf-8"))["data"]
    except OSError as error:
        raise InputError(str(path), f"cannot be read ({error.strerror})", "see input-data") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            str(path), f"is no data file ({error})", '{"data": [{"INPUT": [...]}, ...]} is needed'
        ) from error
    steps = [step for item in data for step in (item if isinstance(item, list) else [item])]
    if not steps:
        raise InputError(str(path), "has no entry in data", "add at least one")
    return [_entry(step, f"{path}: data[{n}]", tensors, shapes_given) for n, step in enumerate(steps)]


def _entry(step: Any, where: str, tensors: Mapping[str, TensorInfo], shapes: Mapping[str, tuple[int, ...]]) -> Entry:
    if not isinstance(step, dict):
        raise InputError(where, "is not a mapping of inputs", '{"INPUT": [...]} is needed')
    unknown = sorted(set(step) - set(tensors))
    missing = sorted(name for name, tensor in tensors.items() if not tensor.optional and name not in step)
    if unknown or missing:
        problem = f"unknown input {', '.join(unknown)}" if unknown else f"input {', '.join(missing)} is missing"
        raise InputError(where, problem, f"the inputs are {', '.join(tensors)}")
    return {name: _given(value, f"{where}.{name}", tensors[name], shapes.get(name)) for name, value in step.items()}


def _given(value: Any, where: str, tensor: TensorInfo, shape: tuple[int, ...] | None) -> NDArray[Any]:
    content, own_shape = value, None
    if isinstance(value, dict):
        own_shape = value.get("shape")
        content = value.get("content", value if "b64" in value else None)
    dims = tuple(own_shape) if own_shape is not None else shape if shape is not None else tensor.shape
    try:
        flat = _decode(content, tensor.datatype)
        if any(dim < 0 for dim in dims):
            dims = _only_dynamic(dims, flat.size)
        return flat.reshape(dims)
    except (ValueError, TypeError, OverflowError, binascii.Error) as error:
        what = f"does not fit {tensor.datatype} {list(tensor.shape)} ({error})"
        raise InputError(where, what, 'give its values, or {"content": [...], "shape": [...]}') from error


def _only_dynamic(dims: tuple[int, ...], size: int) -> tuple[int, ...]:
    """One dynamic dim follows from the number of values; more need a shape."""
    if sum(dim < 0 for dim in dims) > 1:
        raise ValueError("more than one dim is dynamic: give a shape")
    fixed = int(np.prod([dim for dim in dims if dim >= 0]))
    return tuple(size // max(fixed, 1) if dim < 0 else dim for dim in dims)


def _decode(content: Any, datatype: str) -> NDArray[Any]:
    if isinstance(content, dict) and set(content) == {"b64"}:
        raw = base64.b64decode(content["b64"], validate=True)
        if datatype == "BYTES":
            return np.array([raw], np.object_)
        if datatype == "BF16":
            return (np.frombuffer(raw, "<u2").astype(np.uint32) << 16).view(np.float32)
        return np.frombuffer(raw, DTYPES[datatype])
    if datatype == "BYTES":
        items = np.array(content if isinstance(content, list) else [content], np.object_).ravel()
        return np.array([_bytes(item) for item in items], np.object_)
    return np.array(content, DTYPES[datatype]).ravel()


def _bytes(item: Any) -> bytes:
    if isinstance(item, dict) and set(item) == {"b64"}:
        return base64.b64decode(item["b64"], validate=True)
    if not isinstance(item, str):
        raise ValueError(f"{item!r} is no string")
    return item.encode()
