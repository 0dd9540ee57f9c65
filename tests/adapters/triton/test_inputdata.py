"""Input tensors: made by datatype and shape, or read from perf_analyzer's files."""

from __future__ import annotations

import base64
import json
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model_analyzer.adapters.triton.inputdata import DTYPES, check_shapes, generated, recorded, shapes_of
from model_analyzer.core.load import InputSource
from model_analyzer.core.variant import ModelInfo, TensorInfo
from model_analyzer.errors import InputError


def model(*inputs: TensorInfo, outputs: tuple[TensorInfo, ...] = ()) -> ModelInfo:
    return ModelInfo("m", "1", 8, inputs, outputs, "1:CPU")


def one(datatype: str, *shape: int, optional: bool = False) -> TensorInfo:
    return TensorInfo("INPUT", datatype, shape, optional)


def b64(raw: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(raw).decode()}


def read(tmp_path: Path, data: Any, *inputs: TensorInfo, shapes: dict[str, tuple[int, ...]] | None = None) -> list[Any]:
    """The entries of a data file."""
    path = tmp_path / "data.json"
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    return recorded(path, model(*inputs), shapes or {})


def fault(tmp_path: Path, data: Any, *inputs: TensorInfo, **options: Any) -> str:
    """The error of a data file, without its folder."""
    with pytest.raises(InputError) as caught:
        read(tmp_path, data, *inputs, **options)
    text = str(caught.value).replace(f"{tmp_path}/", "")
    assert "\n" not in text
    return text


# -- generated -------------------------------------------------------------------------------------


@pytest.mark.parametrize("datatype", DTYPES)
@pytest.mark.parametrize("mode", ["random", "zero"])
def test_generated_values_have_the_datatypes_dtype_and_the_shape(datatype: str, mode: Any) -> None:
    source = InputSource(mode)
    info = (one(datatype, 3, 100),)
    first, second = islice(generated(info, shapes_of(info, source, "m"), source, seed=1), 2)
    value = first["INPUT"]
    assert value.shape == (3, 100)
    assert value.dtype == DTYPES[datatype]
    if mode == "zero":
        assert all(item in (0, b"") for item in value.ravel().tolist())
    else:
        assert len(set(value.ravel().tolist())) > 1
        assert (value != second["INPUT"]).any()


def test_random_values_stay_in_their_ranges() -> None:
    for datatype in DTYPES:
        source = InputSource("random")
        info = (one(datatype, 2000),)
        value = next(generated(info, shapes_of(info, source, "m"), source, seed=1))["INPUT"]
        if datatype == "BYTES":
            assert {len(item) for item in value} == {128}
            assert all(item.decode("ascii").isprintable() for item in value)
        else:
            assert value.min() >= 0
            assert value.max() <= (127 if np.dtype(DTYPES[datatype]).kind in "iu" else 1)


def test_equal_seeds_give_equal_entries() -> None:
    source = InputSource("random")
    info = (one("FP32", 8),)
    values = [next(generated(info, {"INPUT": (8,)}, source, seed))["INPUT"].tolist() for seed in (1, 1, 2)]
    assert values[0] == values[1] != values[2]


@pytest.mark.parametrize(
    ("source", "element"),
    [
        (InputSource("random", string_data="grüß"), "grüß".encode()),
        (InputSource("zero", string_data="x"), b"x"),
        (InputSource("random", string_data=""), b""),
        (InputSource("random", string_length=0), b""),
    ],
)
def test_strings_are_as_asked(source: InputSource, element: bytes) -> None:
    info = (one("BYTES", 2),)
    assert next(generated(info, {"INPUT": (2,)}, source, 1))["INPUT"].tolist() == [element, element]


def test_string_length_is_in_bytes() -> None:
    info = (one("BYTES", 2),)
    value = next(generated(info, {"INPUT": (2,)}, InputSource("random", string_length=5), 1))["INPUT"]
    assert [len(item) for item in value] == [5, 5]


def test_optional_inputs_are_left_out_and_need_no_shape() -> None:
    extra = TensorInfo("EXTRA", "FP32", (-1,), optional=True)
    source = InputSource("random")
    info = (one("FP32", 2), extra)
    assert list(next(generated(info, shapes_of(info, source, "m"), source, 1))) == ["INPUT"]


# -- shapes ----------------------------------------------------------------------------------------


def test_dynamic_dims_need_a_shape_and_the_message_says_how() -> None:
    with pytest.raises(InputError) as caught:
        shapes_of((one("FP32", 3, -1, -1),), InputSource(), "model m")
    assert str(caught.value) == (
        "model m: input INPUT has dynamic dims [3, -1, -1]; "
        'set perf_analyzer_flags: {shape: "INPUT:3,8,8"}'
    )  # fmt: skip


def test_a_given_shape_replaces_dynamic_dims() -> None:
    source = InputSource(shapes=(("INPUT", (3, 224, 7)),))
    assert shapes_of((one("FP32", 3, -1, -1),), source, "m") == {"INPUT": (3, 224, 7)}


@pytest.mark.parametrize("given", [(4, 224), (3,), (3, 224, 1), (3, -1)])
def test_a_shape_that_does_not_fit_is_an_error(given: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"m: shape \[.*\] does not fit input INPUT \[3, -1\]; give the dims"):
        check_shapes((one("FP32", 3, -1),), InputSource(shapes=(("INPUT", given),)), "m")


def test_a_shape_for_an_unknown_input_is_an_error() -> None:
    with pytest.raises(InputError, match="shape is given for unknown input OTHER; the inputs are INPUT"):
        check_shapes((one("FP32", 3),), InputSource(shapes=(("OTHER", (3,)),)), "m")


# -- a data file -----------------------------------------------------------------------------------


VALUES: dict[str, list[Any]] = {
    "BOOL": [True, False], "UINT8": [0, 255], "UINT16": [0, 65535], "UINT32": [0, 2**32 - 1], "UINT64": [0, 2**64 - 1],
    "INT8": [-128, 127], "INT16": [-32768, 32767], "INT32": [-(2**31), 2**31 - 1], "INT64": [-(2**63), 2**63 - 1],
    "FP16": [0.5, -2], "FP32": [1.5, 3e38], "FP64": [0.1, 1e300], "BF16": [1.5, -2.0], "BYTES": ["a", "grüß"],
}  # fmt: skip


def expected(datatype: str) -> list[Any]:
    return [item.encode() for item in VALUES["BYTES"]] if datatype == "BYTES" else VALUES[datatype]


@pytest.mark.parametrize("datatype", DTYPES)
def test_explicit_values_of_every_datatype(tmp_path: Path, datatype: str) -> None:
    (entry,) = read(tmp_path, {"data": [{"INPUT": VALUES[datatype]}]}, one(datatype, 2))
    wanted = np.array(expected(datatype), DTYPES[datatype])
    assert entry["INPUT"].dtype == DTYPES[datatype]
    assert entry["INPUT"].tolist() == wanted.tolist()


@pytest.mark.parametrize("wrapped", [True, False])
@pytest.mark.parametrize("datatype", DTYPES)
def test_base64_of_every_datatype(tmp_path: Path, datatype: str, wrapped: bool) -> None:
    if datatype == "BYTES":
        raw = b"".join(len(item).to_bytes(4, "little") + item for item in expected(datatype))
    elif datatype == "BF16":
        raw = (np.array(VALUES["BF16"], "<f4").view("<u4") >> 16).astype("<u2").tobytes()
    else:
        raw = np.array(VALUES[datatype], np.dtype(DTYPES[datatype]).newbyteorder("<")).tobytes()
    value = {"content": b64(raw), "shape": [2]} if wrapped else b64(raw)
    (entry,) = read(tmp_path, {"data": [{"INPUT": value}]}, one(datatype, 2))
    assert entry["INPUT"].tolist() == np.array(expected(datatype), DTYPES[datatype]).tolist()


def test_values_may_be_nested_and_an_element_of_bytes_base64(tmp_path: Path) -> None:
    (entry,) = read(tmp_path, {"data": [{"INPUT": [[1, 2], [3, 4]]}]}, one("INT32", 4, 1))
    assert entry["INPUT"].tolist() == [[1], [2], [3], [4]]
    (entry,) = read(tmp_path, {"data": [{"INPUT": [["a"], [b64(b"\xff\x00")]]}]}, one("BYTES", 2))
    assert entry["INPUT"].tolist() == [b"a", b"\xff\x00"]


def test_streams_follow_one_another(tmp_path: Path) -> None:
    data = {"data": [[{"INPUT": [1]}, {"INPUT": [2]}], [{"INPUT": [3]}]]}
    assert [entry["INPUT"].tolist() for entry in read(tmp_path, data, one("INT32", 1))] == [[1], [2], [3]]


def test_an_entrys_shape_goes_before_the_jobs_and_both_before_the_models(tmp_path: Path) -> None:
    data = {"data": [{"INPUT": {"content": list(range(6)), "shape": [3, 2]}}, {"INPUT": list(range(6))}]}
    entries = read(tmp_path, data, one("INT32", -1, -1), shapes={"INPUT": (6, 1)})
    assert [entry["INPUT"].shape for entry in entries] == [(3, 2), (6, 1)]


def test_one_dynamic_dim_follows_from_the_number_of_values(tmp_path: Path) -> None:
    data = {"data": [{"INPUT": [1, 2, 3, 4]}, {"INPUT": [1, 2]}, {"INPUT": []}]}
    entries = read(tmp_path, data, one("INT32", 2, -1))
    assert [entry["INPUT"].shape for entry in entries] == [(2, 2), (2, 1), (2, 0)]


def test_optional_inputs_model_names_and_validation_data_are_taken_as_perf_analyzer_does(tmp_path: Path) -> None:
    data = {"data": [{"INPUT": [1], "model": "m"}, {"INPUT": [1], "EXTRA": [2]}], "validation_data": [{}, {}]}
    entries = read(tmp_path, data, one("INT32", 1), TensorInfo("EXTRA", "INT32", (1,), optional=True))
    assert [sorted(entry) for entry in entries] == [["INPUT"], ["EXTRA", "INPUT"]]


def test_nan_and_infinity_are_floats(tmp_path: Path) -> None:
    (entry,) = read(tmp_path, '{"data": [{"INPUT": [NaN, Infinity, -Infinity]}]}', one("FP16", 3))
    assert np.isnan(entry["INPUT"][0])
    assert entry["INPUT"][1:].tolist() == [float("inf"), float("-inf")]


@pytest.mark.parametrize(
    ("datatype", "values", "why"),
    [
        ("UINT8", [256, 0], "not every value is a UINT8"),
        ("UINT8", [-1, 0], "not every value is a UINT8"),
        ("INT8", [128, 0], "not every value is an INT8"),
        ("INT32", [1.5, 0], "not every value is an INT32"),
        ("INT64", [2**63, 0], "not every value is an INT64"),
        ("UINT64", [2**64, 0], "not every value is a UINT64"),
        ("INT32", ["1", "2"], "not every value is an INT32"),
        ("INT32", [None, 1], "not every value is an INT32"),
        ("FP32", ["1", "2"], "not every value is a FP32"),
        ("FP32", [None, 1.0], "not every value is a FP32"),
        ("FP32", [True, False], "not every value is a FP32"),
        ("FP16", [1e6, 0], "a value is too large for FP16"),
        ("FP32", [1e300, 0], "a value is too large for FP32"),
        ("BOOL", [2, 0], "not every value is a BOOL"),
        ("BOOL", ["true", "false"], "not every value is a BOOL"),
        ("BYTES", [1, 2], "1 is no string"),
        ("INT32", [1], "1 values"),
        ("INT32", [1, 2, 3], "3 values"),
        ("INT32", 5, "5 is no list of values"),
        ("INT32", "AAAA", "'AAAA' is no list of values"),
        ("INT32", {"values": [1, 2]}, "neither content nor b64 in it"),
        ("INT32", {"content": [1, 2], "shape": [1, 2]}, "shape [1, 2] is another one"),
        ("INT32", {"content": [1, 2, 3], "shape": [3]}, "shape [3] is another one"),
        ("INT32", {"content": [1, 2], "shape": 2}, "shape 2 is no list of integers"),
        ("INT32", {"content": [1, 2], "shape": ["2"]}, "shape ['2'] is no list of integers"),
        ("INT32", {"b64": 5}, '{"b64": "..."} is needed'),
        ("INT32", {"b64": "!!"}, "Only base64 data is allowed"),
        ("INT32", {"b64": "AAA="}, "buffer size must be a multiple of element size"),
        ("BYTES", {"b64": "AAAA"}, "its b64 must hold each element behind its length"),
        ("BYTES", b64(b"\x05\0\0\0abc"), "its b64 must hold each element behind its length"),
    ],
)
def test_values_that_do_not_fit_are_an_error_and_never_bent(
    tmp_path: Path, datatype: str, values: Any, why: str
) -> None:
    good = {"INPUT": ["a", "b"] if datatype == "BYTES" else [0, 1]}
    if datatype in ("FP16", "FP32"):
        good = {"INPUT": [0.5, 1]}
    text = fault(tmp_path, {"data": [good, {"INPUT": values}]}, one(datatype, 2))
    assert text.startswith(f"data.json: data[1].INPUT: does not fit {datatype} [2]: {why}"), text
    assert text.endswith('; give its values, or {"content": [...], "shape": [...]}')


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("{", "data.json: is no JSON (Expecting property name enclosed in double quotes: line 1 column 2 (char 1)); "),
        ("[" * 100_000, "data.json: is no JSON ("),
        ("[]", "data.json: has no entries in data; "),
        ({"dat": []}, "data.json: has no entries in data; "),
        ({"data": []}, "data.json: has no entries in data; "),
        ({"data": {"INPUT": [1]}}, "data.json: has no entries in data; "),
        ({"data": [5]}, "data.json: data[0]: is not a mapping of inputs; "),
        ({"data": [[]]}, "data.json: data[0]: is a stream without an entry; "),
        ({"data": [{"INPUT": [1]}, [{"INPUT": [1]}]]}, "data.json: mixes entries and streams in data; "),
        ({"data": [{"INPUT": [1]}, {}]}, "data.json: data[1]: input INPUT is missing; the inputs are INPUT"),
        ({"data": [[{"INPUT": [1]}, {"INPUT": ["x"]}]]}, "data.json: data[0][1].INPUT: does not fit INT32 [1]: "),
        ({"data": [{"INPUT": [1], "INPUTT": [1]}]}, "data.json: data[0]: unknown input INPUTT; the inputs are INPUT"),
    ],
)
def test_an_error_names_file_entry_and_input(tmp_path: Path, data: Any, message: str) -> None:
    assert fault(tmp_path, data, one("INT32", 1)).startswith(message)


def test_two_dynamic_dims_of_an_entry_need_a_shape(tmp_path: Path) -> None:
    text = fault(tmp_path, {"data": [{"INPUT": [1, 2]}]}, one("INT32", -1, -1))
    assert "more than one dim is dynamic: give a shape" in text


def test_a_file_that_is_not_there_or_no_text(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere.json: cannot be read \(No such file or directory\); set input-data"):
        recorded(tmp_path / "nowhere.json", model(one("INT32", 1)), {})
    binary = tmp_path / "data.json"
    binary.write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="is no JSON"):
        recorded(binary, model(one("INT32", 1)), {})


# -- a directory -----------------------------------------------------------------------------------


def test_a_directory_holds_a_raw_file_for_each_input(tmp_path: Path) -> None:
    (tmp_path / "INPUT").write_bytes(np.array([1.5, 2.5, 3.5], "<f4").tobytes())
    (tmp_path / "TEXT").write_bytes(b"one\ntwo words\n")
    (tmp_path / "OUTPUT").write_bytes(b"for validation")
    text = TensorInfo("TEXT", "BYTES", (2,))
    extra = TensorInfo("EXTRA", "INT32", (1,), optional=True)
    described = model(one("FP32", -1), text, extra, outputs=(TensorInfo("OUTPUT", "FP32", (3,)),))
    (entry,) = recorded(tmp_path, described, {})
    assert entry["INPUT"].tolist() == [1.5, 2.5, 3.5]
    assert entry["TEXT"].tolist() == [b"one", b"two words"]
    assert "EXTRA" not in entry


@pytest.mark.parametrize("datatype", [name for name in DTYPES if name != "BYTES"])
def test_a_raw_file_of_every_datatype(tmp_path: Path, datatype: str) -> None:
    if datatype == "BF16":
        raw = (np.array(VALUES["BF16"], "<f4").view("<u4") >> 16).astype("<u2").tobytes()
    else:
        raw = np.array(VALUES[datatype], np.dtype(DTYPES[datatype]).newbyteorder("<")).tobytes()
    (tmp_path / "INPUT").write_bytes(raw)
    (entry,) = recorded(tmp_path, model(one(datatype, 2)), {})
    assert entry["INPUT"].tolist() == np.array(VALUES[datatype], DTYPES[datatype]).tolist()


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "INPUT: cannot be read (No such file or directory); put a file for each of INPUT there"),
        ({"INPUT": b"123"}, "INPUT: does not fit FP32 [2]: buffer size must be a multiple of element size"),
        ({"INPUT": b"1234"}, "INPUT: does not fit FP32 [2]: 1 values; give the raw values of one inference"),
        ({"INPUT": bytes(8), "INPT": b""}, "has a file for unknown input INPT; the inputs are INPUT"),
    ],
)
def test_a_fault_in_a_directory_names_the_file(tmp_path: Path, files: dict[str, bytes], message: str) -> None:
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError) as caught:
        recorded(tmp_path, model(one("FP32", 2)), {})
    assert str(caught.value).removeprefix(str(tmp_path)).lstrip("/: ").startswith(message)
