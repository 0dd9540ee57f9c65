"""Triton's ModelConfig: its fields, what is wrong with values for them, and the combinations of swept values.

Triton Model Analyzer tells a swept list from a list value by the field: where
ModelConfig has one value, a list is a sweep; where it has a list, a list of
lists is. So the fields must be known.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

from model_analyzer.core.metric import nearest
from model_analyzer.core.values import Wrong, shown

# Message = its fields. `name*` is a list, `name{}` a map from texts; `:Message` and `=CHOICES` say what of, else it is a
# plain value. Source: model_config.proto of Triton's core; a test holds it against tritonclient's copy.
_TYPES = "BOOL UINT8 UINT16 UINT32 UINT64 INT8 INT16 INT32 INT64 FP16 FP32 FP64 STRING BF16"
_SHAPE = """
ModelConfig = name platform backend runtime version_policy:ModelVersionPolicy max_batch_size input:ModelInput*
    output:ModelOutput* batch_input:BatchInput* batch_output:BatchOutput* optimization:ModelOptimizationPolicy
    dynamic_batching:ModelDynamicBatching sequence_batching:ModelSequenceBatching
    ensemble_scheduling:ModelEnsembling instance_group:ModelInstanceGroup* default_model_filename
    cc_model_filenames{} metric_tags{} parameters:ModelParameter{} model_warmup:ModelWarmup*
    model_operations:ModelOperations model_transaction_policy:ModelTransactionPolicy
    model_repository_agents:ModelRepositoryAgents response_cache:ModelResponseCache model_metrics:ModelMetrics
ModelVersionPolicy = latest:ModelVersionPolicy.Latest all:ModelVersionPolicy.All
    specific:ModelVersionPolicy.Specific
ModelVersionPolicy.Latest = num_versions
ModelVersionPolicy.All =
ModelVersionPolicy.Specific = versions*
ModelInput = name data_type=DataType format=FORMAT_NONE|FORMAT_NHWC|FORMAT_NCHW dims* reshape:ModelTensorReshape
    is_shape_tensor allow_ragged_batch optional is_non_linear_format_io
ModelTensorReshape = shape*
ModelOutput = name data_type=DataType dims* reshape:ModelTensorReshape label_filename is_shape_tensor
    is_non_linear_format_io
BatchInput =
    kind=BATCH_ELEMENT_COUNT|BATCH_ACCUMULATED_ELEMENT_COUNT|BATCH_ACCUMULATED_ELEMENT_COUNT_WITH_ZERO|BATCH_MAX_ELEMENT_COUNT_AS_SHAPE|BATCH_ITEM_SHAPE|BATCH_ITEM_SHAPE_FLATTEN
    target_name* data_type=DataType source_input*
BatchOutput = target_name* kind=BATCH_SCATTER_WITH_INPUT_SHAPE source_input*
ModelOptimizationPolicy = graph:ModelOptimizationPolicy.Graph priority=PRIORITY_DEFAULT|PRIORITY_MAX|PRIORITY_MIN
    cuda:ModelOptimizationPolicy.Cuda execution_accelerators:ModelOptimizationPolicy.ExecutionAccelerators
    input_pinned_memory:ModelOptimizationPolicy.PinnedMemoryBuffer
    output_pinned_memory:ModelOptimizationPolicy.PinnedMemoryBuffer gather_kernel_buffer_threshold eager_batching
ModelOptimizationPolicy.Graph = level
ModelOptimizationPolicy.Cuda = graphs busy_wait_events graph_spec:ModelOptimizationPolicy.Cuda.GraphSpec*
    output_copy_stream
ModelOptimizationPolicy.Cuda.GraphSpec = batch_size input:ModelOptimizationPolicy.Cuda.GraphSpec.Shape{}
    graph_lower_bound:ModelOptimizationPolicy.Cuda.GraphSpec.LowerBound
ModelOptimizationPolicy.Cuda.GraphSpec.Shape = dim*
ModelOptimizationPolicy.Cuda.GraphSpec.LowerBound = batch_size input:ModelOptimizationPolicy.Cuda.GraphSpec.Shape{}
ModelOptimizationPolicy.ExecutionAccelerators =
    gpu_execution_accelerator:ModelOptimizationPolicy.ExecutionAccelerators.Accelerator*
    cpu_execution_accelerator:ModelOptimizationPolicy.ExecutionAccelerators.Accelerator*
ModelOptimizationPolicy.ExecutionAccelerators.Accelerator = name parameters{}
ModelOptimizationPolicy.PinnedMemoryBuffer = enable
ModelDynamicBatching = preferred_batch_size* max_queue_delay_microseconds preserve_ordering priority_levels
    default_priority_level default_queue_policy:ModelQueuePolicy priority_queue_policy:ModelQueuePolicy{}
ModelQueuePolicy = timeout_action=REJECT|DELAY default_timeout_microseconds allow_timeout_override max_queue_size
ModelSequenceBatching = direct:ModelSequenceBatching.StrategyDirect oldest:ModelSequenceBatching.StrategyOldest
    max_sequence_idle_microseconds control_input:ModelSequenceBatching.ControlInput*
    state:ModelSequenceBatching.State* iterative_sequence
ModelSequenceBatching.StrategyDirect = max_queue_delay_microseconds minimum_slot_utilization
ModelSequenceBatching.StrategyOldest = max_candidate_sequences preferred_batch_size* max_queue_delay_microseconds
    preserve_ordering
ModelSequenceBatching.ControlInput = name control:ModelSequenceBatching.Control*
ModelSequenceBatching.Control =
    kind=CONTROL_SEQUENCE_START|CONTROL_SEQUENCE_READY|CONTROL_SEQUENCE_END|CONTROL_SEQUENCE_CORRID
    int32_false_true* fp32_false_true* bool_false_true* data_type=DataType
ModelSequenceBatching.State = input_name output_name data_type=DataType dims*
    initial_state:ModelSequenceBatching.InitialState* use_same_buffer_for_input_output use_growable_memory
ModelSequenceBatching.InitialState = data_type=DataType dims* zero_data data_file name
ModelEnsembling = step:ModelEnsembling.Step* max_inflight_requests
ModelEnsembling.Step = model_name model_version input_map{} output_map{} model_namespace
ModelInstanceGroup = name kind=KIND_AUTO|KIND_GPU|KIND_CPU|KIND_MODEL count rate_limiter:ModelRateLimiter gpus*
    secondary_devices:ModelInstanceGroup.SecondaryDevice* profile* passive host_policy
ModelRateLimiter = resources:ModelRateLimiter.Resource* priority
ModelRateLimiter.Resource = name global count
ModelInstanceGroup.SecondaryDevice = kind=KIND_NVDLA device_id
ModelParameter = string_value
ModelWarmup = name batch_size inputs:ModelWarmup.Input{} count
ModelWarmup.Input = data_type=DataType dims* zero_data random_data input_data_file
ModelOperations = op_library_filename*
ModelTransactionPolicy = decoupled
ModelRepositoryAgents = agents:ModelRepositoryAgents.Agent*
ModelRepositoryAgents.Agent = name parameters{}
ModelResponseCache = enable
ModelMetrics = metric_control:ModelMetrics.MetricControl*
ModelMetrics.MetricControl = metric_identifier:ModelMetrics.MetricControl.MetricIdentifier
    histogram_options:ModelMetrics.MetricControl.HistogramOptions
ModelMetrics.MetricControl.MetricIdentifier = family
ModelMetrics.MetricControl.HistogramOptions = buckets*
"""
ROOT = "ModelConfig"
DATA_TYPES = ("TYPE_INVALID", *(f"TYPE_{name}" for name in _TYPES.split()))


@dataclass(frozen=True, slots=True)
class Field:
    """A field of ModelConfig. message: its message, "" for a plain value. choices: of an enum, else empty."""

    many: bool = False
    map: bool = False
    message: str = ""
    choices: tuple[str, ...] = ()


def _field(text: str) -> tuple[str, Field]:
    many, is_map = text.endswith("*"), text.endswith("{}")
    plain = text.removesuffix("*").removesuffix("{}")
    name, _, message = plain.partition(":")
    name, _, choices = name.partition("=")
    found = DATA_TYPES if choices == "DataType" else tuple(choices.split("|")) if choices else ()
    return name, Field(many, is_map, message, found)


def _messages() -> dict[str, dict[str, Field]]:
    messages: dict[str, dict[str, Field]] = {}
    name = ""
    for line in _SHAPE.strip().splitlines():
        head, equals, rest = line.partition(" =")
        if equals and not line.startswith(" "):
            name, line = head, rest
        messages.setdefault(name, {}).update(_field(text) for text in line.split())
    return messages


MESSAGES = _messages()


# -- what is wrong ---------------------------------------------------------------------------------------


def faults(parameters: Mapping[str, Any]) -> Iterator[Wrong]:
    """Path of keys and indices, what is wrong there, how to mend it; nothing where Triton can read the values."""
    yield from _message_faults((), parameters, ROOT)


def _message_faults(path: tuple[Any, ...], values: Mapping[Any, Any], message: str) -> Iterator[Wrong]:
    fields = MESSAGES[message]
    for name, value in values.items():
        if name not in fields:
            near = nearest(str(name), frozenset(fields))
            fix = f"did you mean {near!r}?" if near else f"use one of {', '.join(fields)}"
            yield (*path, name), f"field {name!r} is unknown to Triton's {message}", fix
        elif fields[name].map:
            yield from _map_faults((*path, name), value, fields[name])
        elif fields[name].many:
            yield from _list_faults((*path, name), value, fields[name])
        else:
            yield from _swept_faults((*path, name), value, fields[name])


def _map_faults(path: tuple[Any, ...], value: Any, field: Field) -> Iterator[Wrong]:
    for where, one in _alternatives(path, value):
        if isinstance(one, Mapping):
            for key, item in one.items():
                yield from _swept_faults((*where, key), item, field)
        elif one is not None:
            yield where, f"{path[-1]} is {shown(one)}", "use a mapping"


def _list_faults(path: tuple[Any, ...], value: Any, field: Field) -> Iterator[Wrong]:
    if value is None:
        return
    if not isinstance(value, list):
        yield path, f"{path[-1]} is no list", "start each of its values with a dash"
    elif _is_sweep_of_lists(value):
        for n, one in enumerate(value):
            for m, item in enumerate(one):
                yield from _item_faults((*path, n, m), item, field)
    else:
        for n, item in enumerate(value):
            yield from _item_faults((*path, n), item, field)


def _swept_faults(path: tuple[Any, ...], value: Any, field: Field) -> Iterator[Wrong]:
    if isinstance(value, list) and not value:
        yield path, f"{path[-1]} is empty", "give a value, or several to sweep over"
    for where, one in _alternatives(path, value):
        yield from _item_faults(where, one, field)


def _item_faults(path: tuple[Any, ...], value: Any, field: Field) -> Iterator[Wrong]:
    name = next(part for part in reversed(path) if isinstance(part, str))
    if value is None:
        return
    if field.message:
        if isinstance(value, Mapping):
            yield from _message_faults(path, value, field.message)
        else:
            yield path, f"{name} is {shown(value)}", f"use a mapping with any of {', '.join(MESSAGES[field.message])}"
    elif not isinstance(value, str | int | float) or (isinstance(value, float) and not math.isfinite(value)):
        yield path, f"{name} is {shown(value)}", "use one plain value"
    elif field.choices and isinstance(value, str) and value not in field.choices:
        near = nearest(value, frozenset(field.choices))
        fix = f"did you mean {near}?" if near else f"use {', '.join(field.choices)}"
        yield path, f"{name} is {value!r}", fix


def _alternatives(path: tuple[Any, ...], value: Any) -> Iterator[tuple[tuple[Any, ...], Any]]:
    if isinstance(value, list):
        yield from (((*path, n), one) for n, one in enumerate(value))
    else:
        yield path, value


def _is_sweep_of_lists(value: list[Any]) -> bool:
    return bool(value) and all(isinstance(item, list) for item in value)


# -- combinations ----------------------------------------------------------------------------------------


def combinations(parameters: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield every combination of swept values: the last key varies fastest, and max_batch_size faster than all.

    A key without a value (null) leaves the model's own config as it is. parameters: without faults.
    Source: Triton Model Analyzer docs, "Manual Configuration Search"; its order, so that its variants' names hold.
    """
    last = {key: value for key, value in parameters.items() if key == "max_batch_size"}
    yield from _of_message({**{key: value for key, value in parameters.items() if key not in last}, **last}, ROOT)


def count(parameters: Mapping[str, Any]) -> int:
    """How many combinations there are, without making them."""
    return _count_message(parameters, ROOT)


def _count_message(values: Mapping[str, Any], message: str) -> int:
    return math.prod(_count_field(value, MESSAGES[message][name]) for name, value in values.items())


def _count_field(value: Any, field: Field) -> int:
    if field.many and isinstance(value, list):
        lists = value if _is_sweep_of_lists(value) else [value]
        return sum(math.prod(_count_item(item, field) for item in one) for one in lists)
    return sum(_count_item(one, field) for one in (value if isinstance(value, list) else [value]))


def _count_item(value: Any, field: Field) -> int:
    if not isinstance(value, Mapping):
        return 1
    if field.map:
        plain = Field(message=field.message)
        return math.prod(_count_field(item, plain) for item in value.values())
    return _count_message(value, field.message) if field.message else 1


def _of_message(values: Mapping[str, Any], message: str) -> Iterator[dict[str, Any]]:
    yield from _product({name: list(_of_field(value, MESSAGES[message][name])) for name, value in values.items()})


def _product(choices: Mapping[str, list[Any]]) -> Iterator[dict[str, Any]]:
    for values in product(*choices.values()):
        yield {name: value for name, value in zip(choices, values, strict=True) if value is not None}


def _of_field(value: Any, field: Field) -> Iterator[Any]:
    if field.many and isinstance(value, list):
        for one in value if _is_sweep_of_lists(value) else [value]:
            yield from (list(items) for items in product(*(list(_of_item(item, field)) for item in one)))
    else:
        for one in value if isinstance(value, list) else [value]:
            if field.map and isinstance(one, Mapping):
                plain = Field(message=field.message)
                yield from _product({key: list(_of_field(item, plain)) for key, item in one.items()})
            else:
                yield from _of_item(one, field)


def _of_item(value: Any, field: Field) -> Iterator[Any]:
    if field.message and isinstance(value, Mapping):
        yield from _of_message(value, field.message)
    else:
        yield value
