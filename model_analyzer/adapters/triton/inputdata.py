"""Input tensors: random, zero, or what a JSON data file or a directory in perf_analyzer's formats holds.

Random: floats in [0, 1), integers small and not negative (0..127: valid as token
ids and class numbers of most models), BYTES printable. Zero: BYTES are empty.

The formats are those of perf_analyzer's docs/input_data.md; `validation_data` is
not looked at. Where perf_analyzer wants a shape we are content if it follows from
the number of values, and an element of BYTES may be {"b64": ...} by itself.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_analyzer.core.load import InputSource
from model_analyzer.core.variant import ModelInfo, TensorInfo
from model_analyzer.errors import InputError

# Triton datatype -> numpy; BF16 is float32 here, and made 16 bits by the encoder.
DTYPES: Mapping[str, Any] = {
    "BOOL": np.bool_, "UINT8": np.uint8, "UINT16": np.uint16, "UINT32": np.uint32, "UINT64": np.uint64,
    "INT8": np.int8, "INT16": np.int16, "INT32": np.int32, "INT64": np.int64,
    "FP16": np.float16, "FP32": np.float32, "FP64": np.float64, "BF16": np.float32, "BYTES": np.object_,
}  # fmt: skip
PRINTABLE = np.frombuffer(b"abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789", np.uint8)
DATA_FILE = '{"data": [{"INPUT": [...]}, ...]} is needed'

# One entry of a data file: tensor -> array without batch dimension.
Entry = Mapping[str, NDArray[Any]]


def check_shapes(inputs: Sequence[TensorInfo], source: InputSource, where: str) -> None:
    """Raises InputError where a shape was given that no input has."""
    tensors = {tensor.name: tensor for tensor in inputs}
    for name, dims in source.shapes:
        if name not in tensors:
            raise InputError(where, f"shape is given for unknown input {name}", f"the inputs are {', '.join(tensors)}")
        if not _fits(dims, tensors[name]):
            what = f"shape {list(dims)} does not fit input {name} {list(tensors[name].shape)}"
            raise InputError(where, what, "give the dims without the batch dimension, -1 replaced by a number")


def _fits(dims: Sequence[int], tensor: TensorInfo) -> bool:
    """Whether `dims`, all of them numbers, are a shape that the input takes."""
    return len(dims) == len(tensor.shape) and all(
        given >= 0 and asked in (given, -1) for given, asked in zip(dims, tensor.shape, strict=True)
    )


def shapes_of(inputs: Sequence[TensorInfo], source: InputSource, where: str) -> dict[str, tuple[int, ...]]:
    """Every input's dims without the batch dimension, none dynamic; optional inputs are left out. Raises InputError."""
    check_shapes(inputs, source, where)
    given = dict(source.shapes)
    return {tensor.name: _shape(tensor, given.get(tensor.name), where) for tensor in inputs if not tensor.optional}


def _shape(tensor: TensorInfo, given: tuple[int, ...] | None, where: str) -> tuple[int, ...]:
    if given is not None:
        return given
    if any(dim < 0 for dim in tensor.shape):
        example = ",".join("8" if dim < 0 else str(dim) for dim in tensor.shape)
        what = f"input {tensor.name} has dynamic dims {list(tensor.shape)}"
        raise InputError(where, what, f'set perf_analyzer_flags: {{shape: "{tensor.name}:{example}"}}')
    return tensor.shape


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


def recorded(path: Path, model: ModelInfo, shapes: Mapping[str, tuple[int, ...]]) -> list[Entry]:
    """The entries of a data file or of a directory; at least one. Raises InputError with file, entry and input."""
    return _from_directory(path, model, shapes) if path.is_dir() else _from_file(path, model, shapes)


# -- a directory: a file for each input, named as it ----------------------------------------------


def _from_directory(path: Path, model: ModelInfo, shapes: Mapping[str, tuple[int, ...]]) -> list[Entry]:
    """One entry. Raw little-endian values in row-major order; of BYTES each line is an element."""
    names = {tensor.name for tensor in model.inputs}
    # Files of outputs are for perf_analyzer's validation.
    unknown = sorted({file.name for file in path.iterdir()} - names - {tensor.name for tensor in model.outputs})
    if unknown:
        raise InputError(
            str(path), f"has a file for unknown input {', '.join(unknown)}", f"the inputs are {_list(names)}"
        )
    entry = {}
    for tensor in model.inputs:
        file = path / tensor.name
        if tensor.optional and not file.exists():
            continue
        try:
            values = _from_raw_file(file.read_bytes(), tensor.datatype)
            entry[tensor.name] = _shaped(values, shapes.get(tensor.name, tensor.shape))
        except OSError as error:
            fix = f"put a file for each of {_list(names)} there"
            raise InputError(str(file), f"cannot be read ({error.strerror})", fix) from error
        except ValueError as error:
            fix = "give the raw values of one inference, little-endian; of BYTES one element a line"
            raise InputError(str(file), _misfit(tensor, error), fix) from error
    return [entry]


def _from_raw_file(data: bytes, datatype: str) -> NDArray[Any]:
    if datatype == "BYTES":
        return _objects(data.removesuffix(b"\n").split(b"\n"))
    return _from_raw(data, datatype)


# -- a JSON data file -----------------------------------------------------------------------------


def _from_file(path: Path, model: ModelInfo, shapes: Mapping[str, tuple[int, ...]]) -> list[Entry]:
    """The entries, streams one after the other."""
    tensors = {tensor.name: tensor for tensor in model.inputs}
    return [_entry(step, f"{path}: {place}", tensors, shapes) for step, place in _steps(path, _streams(path))]


def check_form(path: Path) -> None:
    """Whether a data file or a directory can be read and has entries, of whichever model. Raises InputError."""
    if not path.is_dir():
        for step, place in _steps(path, _streams(path)):
            _check_mapping(step, f"{path}: {place}")


def _streams(path: Path) -> list[Any]:
    """What stands in the file's `data`, at least one. Raises InputError."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        fix = "set input-data to random, zero, a JSON data file or a directory"
        raise InputError(str(path), f"cannot be read ({error.strerror})", fix) from error
    except (ValueError, RecursionError) as error:
        raise InputError(str(path), f"is no JSON ({error})", DATA_FILE) from error
    streams = data.get("data") if isinstance(data, dict) else None
    if not isinstance(streams, list) or not streams:
        raise InputError(str(path), "has no entries in data", DATA_FILE)
    return streams


def _steps(path: Path, streams: list[Any]) -> Iterator[tuple[Any, str]]:
    """Each entry and where it stands: a list of mappings, or of lists (streams) of mappings."""
    if len({isinstance(stream, list) for stream in streams}) > 1:
        raise InputError(str(path), "mixes entries and streams in data", "use entries only, or lists of entries only")
    for n, stream in enumerate(streams):
        if not isinstance(stream, list):
            yield stream, f"data[{n}]"
            continue
        if not stream:
            raise InputError(f"{path}: data[{n}]", "is a stream without an entry", "add one, or remove the stream")
        for k, step in enumerate(stream):
            yield step, f"data[{n}][{k}]"


def _entry(step: Any, where: str, tensors: Mapping[str, TensorInfo], shapes: Mapping[str, tuple[int, ...]]) -> Entry:
    _check_mapping(step, where)
    # perf_analyzer lets an entry name its model.
    step = {name: value for name, value in step.items() if name != "model" or name in tensors}
    unknown = sorted(set(step) - set(tensors))
    missing = sorted(name for name, tensor in tensors.items() if not tensor.optional and name not in step)
    if unknown or missing:
        problem = f"unknown input {', '.join(unknown)}" if unknown else f"input {', '.join(missing)} is missing"
        raise InputError(where, problem, f"the inputs are {', '.join(tensors)}")
    return {name: _given(value, f"{where}.{name}", tensors[name], shapes.get(name)) for name, value in step.items()}


def _check_mapping(step: Any, where: str) -> None:
    if not isinstance(step, dict):
        raise InputError(where, "is not a mapping of inputs", DATA_FILE)


def _given(value: Any, where: str, tensor: TensorInfo, shape: tuple[int, ...] | None) -> NDArray[Any]:
    try:
        own_shape = _own_shape(value, tensor)
        return _shaped(_decode(_content(value), tensor.datatype), own_shape or shape or tensor.shape)
    except ValueError as error:  # binascii.Error is one
        raise InputError(
            where, _misfit(tensor, error), 'give its values, or {"content": [...], "shape": [...]}'
        ) from error


def _content(value: Any) -> Any:
    if isinstance(value, dict):
        if "b64" not in value and "content" not in value:
            raise ValueError("neither content nor b64 in it")
        return {"b64": value["b64"]} if "b64" in value else value["content"]
    return value


def _own_shape(value: Any, tensor: TensorInfo) -> tuple[int, ...] | None:
    if not isinstance(value, dict) or "shape" not in value:
        return None
    dims = value["shape"]
    if not isinstance(dims, list) or not all(isinstance(dim, int) and not isinstance(dim, bool) for dim in dims):
        raise ValueError(f"shape {dims!r} is no list of integers")
    if not _fits(dims, tensor):
        raise ValueError(f"shape {dims} is another one")
    return tuple(dims)


def _decode(content: Any, datatype: str) -> NDArray[Any]:
    """The values, flat. Raises ValueError."""
    if isinstance(content, dict):
        raw = _base64(content)
        return _objects(_elements(raw)) if datatype == "BYTES" else _from_raw(raw, datatype)
    if not isinstance(content, list):
        raise ValueError(f"{content!r} is no list of values")
    if datatype == "BYTES":
        return _objects([_bytes(item) for item in _flat(content)])
    return _numbers(content, datatype)


def _flat(content: list[Any]) -> Iterator[Any]:
    for item in content:
        if isinstance(item, list):
            yield from _flat(item)
        else:
            yield item


def _numbers(content: list[Any], datatype: str) -> NDArray[Any]:
    """Values that the datatype holds as they are: nothing is cut, wrapped or taken for a number."""
    dtype = np.dtype(DTYPES[datatype])
    # As objects: numpy would make floats of a number that only uint64 holds beside one that int64 holds.
    values = np.array(content, np.object_ if datatype == "UINT64" else None)
    if not values.size:
        return np.empty(0, dtype)
    if datatype == "BOOL":
        sound = values.dtype.kind == "b" or (values.dtype.kind in "iu" and bool(np.isin(values, (0, 1)).all()))
    elif dtype.kind in "iu":
        limits = np.iinfo(dtype)
        integers = values.dtype.kind in "iu" or all(type(item) is int for item in values.flat)
        sound = integers and limits.min <= int(values.min()) and int(values.max()) <= limits.max
    else:
        sound = values.dtype.kind in "iuf"
    if not sound:
        raise ValueError(f"not every value is {'an' if datatype.startswith('INT') else 'a'} {datatype}")
    with np.errstate(over="ignore"):
        cast = values.astype(dtype).ravel()
    if dtype.kind == "f" and bool((np.isinf(cast) & np.isfinite(values.ravel())).any()):
        raise ValueError(f"a value is too large for {datatype}")
    return cast


def _bytes(item: Any) -> bytes:
    if isinstance(item, dict):
        return _base64(item)
    if not isinstance(item, str):
        raise ValueError(f"{item!r} is no string")
    return item.encode()


def _base64(value: dict[str, Any]) -> bytes:
    if set(value) != {"b64"} or not isinstance(value["b64"], str):
        raise ValueError('{"b64": "..."} is needed')
    return base64.b64decode(value["b64"], validate=True)


# -- both -----------------------------------------------------------------------------------------


def _from_raw(raw: bytes, datatype: str) -> NDArray[Any]:
    if datatype == "BF16":
        return (np.frombuffer(raw, "<u2").astype(np.uint32) << 16).view(np.float32)
    return np.frombuffer(raw, np.dtype(DTYPES[datatype]).newbyteorder("<"))


def _elements(raw: bytes) -> list[bytes]:
    """BYTES as Triton serialises them: each element behind its length, 4 bytes, little-endian."""
    elements, at = [], 0
    while at < len(raw):
        end = at + 4 + int.from_bytes(raw[at : at + 4], "little")
        if at + 4 > len(raw) or end > len(raw):
            raise ValueError("its b64 must hold each element behind its length, 4 bytes little-endian")
        elements.append(raw[at + 4 : end])
        at = end
    return elements


def _objects(elements: list[bytes]) -> NDArray[Any]:
    values = np.empty(len(elements), np.object_)
    values[:] = elements
    return values


def _shaped(flat: NDArray[Any], dims: tuple[int, ...]) -> NDArray[Any]:
    """In the shape `dims`; one dynamic dim follows from the number of values, more need a shape. Raises ValueError."""
    if sum(dim < 0 for dim in dims) > 1:
        raise ValueError("more than one dim is dynamic: give a shape")
    fixed = math.prod(dim for dim in dims if dim >= 0)
    if -1 in dims:
        dims = tuple(flat.size // max(fixed, 1) if dim < 0 else dim for dim in dims)
    if math.prod(dims) != flat.size:
        raise ValueError(f"{flat.size} values")
    return flat.reshape(dims)


def _misfit(tensor: TensorInfo, error: ValueError) -> str:
    return f"does not fit {tensor.datatype} {list(tensor.shape)}: {' '.join(str(error).split())}"


def _list(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))
