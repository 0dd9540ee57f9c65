"""A model plus config overrides: what is loaded for a group of phases."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """What a server of ours is started with beyond its defaults; part of a group because models may differ.

    docker_arguments_json: a model's own keywords of docker-py's containers.run; "{}": those of the job.
    """

    flags: tuple[tuple[str, str], ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    docker_arguments_json: str = "{}"

    @property
    def docker_arguments(self) -> dict[str, Any]:
        """The keywords as a fresh dict."""
        value: dict[str, Any] = json.loads(self.docker_arguments_json)
        return value


@dataclass(frozen=True, slots=True)
class Variant:
    """A model and the overrides of its config.

    name: as Triton Model Analyzer calls it, `<model>_config_default` without overrides, else `<model>_config_<n>`.
    overrides_json: canonical JSON of the keys that replace those of the model's own config ("{}": none).
    """

    model: str
    name: str
    overrides_json: str = "{}"
    server: ServerSettings = ServerSettings()

    @property
    def overrides(self) -> dict[str, Any]:
        """The overrides as a fresh dict."""
        value: dict[str, Any] = json.loads(self.overrides_json)
        return value


def canonical_json(value: Mapping[str, Any]) -> str:
    """One spelling for equal values, so that hashes agree."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """An input or output tensor; shape without the batch dimension, -1 where dynamic."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    optional: bool = False


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A loaded model as the server describes it.

    max_batch_size 0: the model does not batch, a request carries no batch dimension.
    instance_group: Triton Model Analyzer's text, such as "1:CPU" or "2:GPU + 1:CPU".
    stateful: it takes requests only as parts of a sequence (sequence_batching).
    """

    name: str
    version: str
    max_batch_size: int
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    instance_group: str
    decoupled: bool = False
    stateful: bool = False


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """A running server: version, and where it answers (host:port, host:port, URL).

    ours: we started it, so every model on it is ours. pids: its process ids where they are on this host.
    """

    version: str
    http_endpoint: str
    grpc_endpoint: str
    metrics_url: str
    ours: bool
    pids: tuple[int, ...] = ()
    image: str | None = None
