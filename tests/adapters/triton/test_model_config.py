"""A config as Triton serves it, merged with overrides and described."""

import pytest

from model_analyzer.adapters.triton.model_config import describe, instance_group_text, merge, read_written

CONFIG = {
    "name": "add_sub",
    "max_batch_size": 64,
    "input": [{"name": "IN", "data_type": "TYPE_STRING", "dims": ["-1", "3"], "optional": True}],
    "output": [{"name": "OUT", "data_type": "TYPE_FP16", "dims": [2]}],
    "instance_group": [{"kind": "KIND_CPU", "count": 1}],
}


@pytest.mark.parametrize(
    ("groups", "text"),
    [
        ([], ""),
        ([{"kind": "KIND_CPU", "count": 1}], "1:CPU"),
        ([{"kind": "KIND_CPU"}], "1:CPU"),
        ([{"kind": "KIND_GPU", "count": 2, "gpus": [0]}], "2:GPU"),
        ([{"kind": "KIND_GPU", "count": 2, "gpus": [0, 1, 3]}], "6:GPU"),
        ([{"kind": "KIND_GPU", "count": 2, "gpus": []}], "2:GPU"),
        ([{"kind": "KIND_GPU", "count": 2, "gpus": [0]}, {"kind": "KIND_CPU", "count": 1}], "2:GPU + 1:CPU"),
        ([{"kind": "KIND_CPU", "count": 1}, {"kind": "KIND_CPU", "count": 3}], "4:CPU"),
        ([{"kind": "KIND_MODEL", "count": 1}], "1:MODEL"),
    ],
)
def test_instance_group_is_written_as_triton_model_analyzer_does(groups, text):
    assert instance_group_text(groups) == text


def test_describes_tensors_without_batch_dimension_and_in_protocol_datatypes():
    info = describe(CONFIG, "3")
    assert (info.name, info.version, info.max_batch_size, info.decoupled) == ("add_sub", "3", 64, False)
    assert [(t.name, t.datatype, t.shape, t.optional) for t in info.inputs] == [("IN", "BYTES", (-1, 3), True)]
    assert [(t.name, t.datatype, t.shape, t.optional) for t in info.outputs] == [("OUT", "FP16", (2,), False)]


def test_a_config_from_grpc_leaves_defaults_out():
    info = describe({"name": "m", "model_transaction_policy": {"decoupled": True}}, "1")
    assert (info.max_batch_size, info.inputs, info.instance_group, info.decoupled) == (0, (), "", True)


def test_a_model_with_state_is_known_by_a_message_that_may_be_empty():
    assert [describe({"name": "m", **more}, "1").stateful for more in ({}, {"sequence_batching": {}})] == [False, True]


def test_overrides_go_into_mappings_field_by_field_and_replace_all_else():
    base = {
        **CONFIG,
        "parameters": {"a": {"string_value": "1"}, "b": {"string_value": "2"}},
        "dynamic_batching": {"preferred_batch_size": [4, 8], "max_queue_delay_microseconds": "100"},
    }
    overrides = {
        "parameters": {"a": {"string_value": "3"}},
        "dynamic_batching": {"max_queue_delay_microseconds": 500},
        "instance_group": [{"kind": "KIND_CPU", "count": 3}],
    }
    assert merge(base, overrides) == {
        **base,
        "parameters": {"a": {"string_value": "3"}, "b": {"string_value": "2"}},
        "dynamic_batching": {"preferred_batch_size": [4, 8], "max_queue_delay_microseconds": 500},
        "instance_group": [{"kind": "KIND_CPU", "count": 3}],
    }
    assert base["dynamic_batching"]["max_queue_delay_microseconds"] == "100"


def test_of_fields_that_exclude_each_other_the_overridden_one_stays():
    base = {"version_policy": {"latest": {"num_versions": 1}}, "sequence_batching": {"direct": {}, "state": []}}
    assert merge(base, {"version_policy": {"all": {}}, "sequence_batching": {"oldest": {}}}) == {
        "version_policy": {"all": {}},
        "sequence_batching": {"oldest": {}, "state": []},
    }
    assert merge(base, {"sequence_batching": {"max_sequence_idle_microseconds": 5}})["sequence_batching"] == {
        "direct": {},
        "state": [],
        "max_sequence_idle_microseconds": 5,
    }


def test_a_smaller_max_batch_size_drops_the_preferred_sizes_that_triton_had_added():
    base = {**CONFIG, "dynamic_batching": {"preferred_batch_size": [4, 64], "preserve_ordering": True}}
    assert merge(base, {"max_batch_size": 8})["dynamic_batching"] == {
        "preferred_batch_size": [4],
        "preserve_ordering": True,
    }
    delay = {"max_queue_delay_microseconds": 5}
    assert merge(base, {"max_batch_size": 8, "dynamic_batching": delay})["dynamic_batching"] == {
        "preferred_batch_size": [4],
        "preserve_ordering": True,
        "max_queue_delay_microseconds": 5,
    }
    chosen = {"preferred_batch_size": [64], "preserve_ordering": True}
    assert merge(base, {"max_batch_size": 8, "dynamic_batching": chosen})["dynamic_batching"] == chosen


def test_a_config_is_read_as_its_owner_wrote_it(tmp_path):
    model = tmp_path / "m"
    model.mkdir()
    text = 'backend: "python" max_batch_size: 4 input { name: "IN" data_type: TYPE_FP32 dims: [ 2 ] } instance_group { kind: KIND_GPU }'
    (model / "config.pbtxt").write_text(text)
    config = read_written(model)
    assert config["instance_group"] == [{"kind": "KIND_GPU"}]
    assert describe(config, "1").inputs[0].shape == (2,)
    assert (config["name"], config["max_batch_size"]) == ("m", 4)


@pytest.mark.parametrize("text", [None, "max_batch_size: {", "nonsense: 1"])
def test_a_config_that_cannot_be_read_is_none(tmp_path, text):
    if text is not None:
        (tmp_path / "config.pbtxt").write_text(text)
    assert read_written(tmp_path) is None
