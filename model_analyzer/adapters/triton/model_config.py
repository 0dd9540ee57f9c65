"""What a Triton model config says: overrides merged into it, and the description that the engine needs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from model_analyzer.adapters.triton.messages import model_config_pb2
from model_analyzer.core.variant import ModelInfo, TensorInfo

# Of these fields a message has one at most: the override's takes the place of whichever the model had.
_ONE_OF = {"version_policy": {"latest", "all", "specific"}, "sequence_batching": {"direct", "oldest"}}


def merge(base: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The model's own config with the overrides in it: mappings field by field, all else replaced whole.

    Source: Triton Model Analyzer does so, so a job that sets `max_queue_delay_microseconds` keeps the model's own
    preferred sizes. Triton completes `dynamic_batching` with preferred sizes; those above an overridden
    max_batch_size would make the load fail, so they are dropped.
    """
    config = _merged(base, overrides)
    batching = config.get("dynamic_batching")
    chosen = (overrides.get("dynamic_batching") or {}).get("preferred_batch_size")
    if "max_batch_size" in overrides and batching and chosen is None:
        largest = int(overrides["max_batch_size"])
        preferred = [size for size in batching.get("preferred_batch_size", []) if int(size) <= largest]
        config["dynamic_batching"] = {**batching, "preferred_batch_size": preferred}
    return config


def _merged(base: Mapping[str, Any], overrides: Mapping[str, Any], name: str = "") -> dict[str, Any]:
    exclusive = _ONE_OF.get(name, set())
    merged = {key: value for key, value in base.items() if key not in exclusive or not exclusive & overrides.keys()}
    for key, value in overrides.items():
        own = merged.get(key)
        both = isinstance(own, Mapping) and isinstance(value, Mapping)
        merged[key] = _merged(own or {}, value, key) if both else value
    return merged


def read_written(model_directory: Path) -> dict[str, Any] | None:
    """The config as its owner wrote it, not completed by Triton; None where there is none or it cannot be read."""
    try:
        text = (model_directory / "config.pbtxt").read_text()
    except (OSError, ValueError):
        return None
    # After the file: without one nothing heavy is imported.
    from google.protobuf import json_format, text_format  # type: ignore[import-untyped]

    try:
        message = text_format.Parse(text, model_config_pb2().ModelConfig())
    except (ValueError, text_format.ParseError):
        return None
    config: dict[str, Any] = json_format.MessageToDict(message, preserving_proto_field_name=True)
    return {"name": model_directory.name, **config}


def describe(config: Mapping[str, Any], version: str) -> ModelInfo:
    """The model as the engine sees it; `config` is the served one, so Triton has completed it."""
    return ModelInfo(
        name=config["name"],
        version=version,
        max_batch_size=int(config.get("max_batch_size", 0)),
        inputs=tuple(_tensor(item) for item in config.get("input", ())),
        outputs=tuple(_tensor(item) for item in config.get("output", ())),
        instance_group=instance_group_text(config.get("instance_group", ())),
        decoupled=bool(config.get("model_transaction_policy", {}).get("decoupled", False)),
        # A message that may be empty: it is there or not.
        stateful="sequence_batching" in config,
    )


def instance_group_text(groups: Any) -> str:
    """Instances by kind, such as "2:GPU + 1:CPU"; "" for a model without instances (an ensemble).

    A GPU group counts once for each of its GPUs. Source: Triton Model Analyzer,
    triton/model/model_config.py, instance_group_string.
    """
    totals: dict[str, int] = {}
    for group in groups:
        kind = group.get("kind", "KIND_AUTO").removeprefix("KIND_")
        gpus = len(group.get("gpus", ())) or 1 if kind == "GPU" else 1
        totals[kind] = totals.get(kind, 0) + int(group.get("count", 1)) * gpus
    return " + ".join(f"{count}:{kind}" for kind, count in totals.items())


def _tensor(item: Mapping[str, Any]) -> TensorInfo:
    datatype = item["data_type"].removeprefix("TYPE_")
    return TensorInfo(
        name=item["name"],
        datatype="BYTES" if datatype == "STRING" else datatype,
        shape=tuple(int(size) for size in item.get("dims", ())),
        optional=bool(item.get("optional", False)),
    )
