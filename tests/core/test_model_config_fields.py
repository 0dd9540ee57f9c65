"""Fields of Triton's ModelConfig: which lists are sweeps, what combinations they make, and what is no ModelConfig."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tritonclient.grpc import model_config_pb2

from model_analyzer.core.model_config import DATA_TYPES, MESSAGES, ROOT, Field, combinations, count, faults

REFERENCE = json.loads((Path(__file__).parent.parent / "data" / "manual_search_1.58.json").read_text())
SWEPT = {case["name"]: case for case in REFERENCE["swept"]}


def fields_of(descriptor: Any, found: dict[str, dict[str, Field]]) -> dict[str, dict[str, Field]]:
    """A message of the protocol and all below it, as the table has them."""
    name = descriptor.full_name.removeprefix("inference.")
    if name in found:
        return found
    found[name] = {}
    for field in descriptor.fields:
        entry = field.message_type
        is_map = entry is not None and entry.GetOptions().map_entry
        value = entry.fields_by_name["value"] if is_map else field
        message = value.message_type.full_name.removeprefix("inference.") if value.message_type is not None else ""
        choices = tuple(one.name for one in value.enum_type.values) if value.enum_type is not None else ()
        repeated = field.is_repeated if hasattr(field, "is_repeated") else field.label == field.LABEL_REPEATED
        found[name][field.name] = Field(repeated and not is_map, is_map, message, choices)
        if value.message_type is not None:
            fields_of(value.message_type, found)
    return found


def test_the_table_is_tritons_own_protocol() -> None:
    theirs = fields_of(model_config_pb2.ModelConfig.DESCRIPTOR, {})
    assert theirs == MESSAGES
    assert theirs[ROOT]["input"].many
    assert tuple(model_config_pb2.DataType.keys()) == DATA_TYPES


@pytest.mark.parametrize("name", SWEPT)
def test_variants_are_those_of_triton_model_analyzer_in_its_order(name: str) -> None:
    parameters = SWEPT[name]["model_config_parameters"]
    assert list(faults(parameters)) == []
    assert list(combinations(parameters)) == SWEPT[name]["variants"]
    assert count(parameters) == len(SWEPT[name]["variants"])


@pytest.mark.parametrize("case", REFERENCE["refused"], ids=lambda case: case["name"])
def test_what_it_refuses_is_a_fault_here(case: dict[str, Any]) -> None:
    assert list(faults(case["model_config_parameters"]))


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"dynamic_batching": None}, [{}]),
        ({"dynamic_batching": [None, {}]}, [{}, {"dynamic_batching": {}}]),
        (
            {"dynamic_batching": {"preferred_batch_size": None, "max_queue_delay_microseconds": 1}},
            [{"dynamic_batching": {"max_queue_delay_microseconds": 1}}],
        ),
    ],
)
def test_null_leaves_the_models_own_value(parameters: dict[str, Any], expected: list[dict[str, Any]]) -> None:
    assert list(combinations(parameters)) == expected


@pytest.mark.parametrize(
    ("parameters", "path", "what"),
    [
        ({"instance_groups": []}, ("instance_groups",), "field 'instance_groups' is unknown to Triton's ModelConfig"),
        ({"max_batch_size": []}, ("max_batch_size",), "max_batch_size is empty"),
        ({"max_batch_size": {"a": 1}}, ("max_batch_size",), "max_batch_size is a mapping"),
        ({"instance_group": [{"kind": "CPU"}]}, ("instance_group", 0, "kind"), "kind is 'CPU'"),
        ({"instance_group": [[{"count": float("inf")}]]}, ("instance_group", 0, 0, "count"), "count is inf"),
        ({"parameters": [1]}, ("parameters", 0), "parameters is 1"),
        ({"parameters": {"x": "1"}}, ("parameters", "x"), "x is '1'"),
        ({"dynamic_batching": True}, ("dynamic_batching",), "dynamic_batching is True"),
    ],
)
def test_a_fault_has_its_path(parameters: dict[str, Any], path: tuple[Any, ...], what: str) -> None:
    ((where, said, fix),) = list(faults(parameters))
    assert (where, said) == (path, what)
    assert fix
