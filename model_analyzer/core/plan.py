"""From resolved models to groups of phases: what a fixed sweep measures, in which order."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from model_analyzer.core.load import Call, InputSource, Load, Tls
from model_analyzer.core.load import Protocol as WireProtocol
from model_analyzer.core.model_config import combinations
from model_analyzer.core.variant import ServerSettings, Variant, canonical_json


class ModelPlan(Protocol):
    """What planning needs to know of a model of the job spec."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def batch_sizes(self) -> tuple[int, ...]: ...  # noqa: D102
    @property
    def loads(self) -> tuple[Load, ...]: ...  # noqa: D102
    @property
    def input_source(self) -> InputSource: ...  # noqa: D102
    @property
    def call(self) -> Call | None: ...  # noqa: D102
    @property
    def tls(self) -> Tls | None: ...  # noqa: D102
    @property
    def model_config_parameters(self) -> Mapping[str, Any]: ...  # noqa: D102
    @property
    def request_count(self) -> int | None: ...  # noqa: D102
    @property
    def cpu_only(self) -> bool: ...  # noqa: D102
    @property
    def server(self) -> ServerSettings: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class Phase:
    """One model variant x batch size x load: one row. `id` is the content hash of all that affects its result.

    call: how the model is to be called; None: as its kind needs it.
    """

    id: str
    variant: Variant
    batch_size: int
    load: Load
    source: InputSource
    protocol: WireProtocol
    call: Call | None = None

    def __str__(self) -> str:
        return f"{self.variant.name} batch {self.batch_size} {self.load}"

    def terms(self, request_count: int | None = None) -> str:
        """What is particular about it, for a plan: empty, or ` (evenly spaced, ramp 2 s)`. request_count: what ends it."""
        parts = [
            *self.load.terms(),
            *([] if self.call is None else [self.call]),
            *([] if self.source.shared_memory is None else ["shared memory"]),
            *([] if request_count is None else [f"{request_count} requests"]),
        ]
        return f" ({', '.join(parts)})" if parts else ""


@dataclass(frozen=True, slots=True)
class Group:
    """Phases that share one loaded variant, ascending in batch size, then load. repeat: which repeat of them, from 0."""

    variant: Variant
    phases: tuple[Phase, ...]
    repeat: int = 0


def plan(
    models: Sequence[ModelPlan], protocol: WireProtocol, conditions: Mapping[str, Any], fingerprints: Mapping[str, str]
) -> tuple[Group, ...]:
    """Lay out every phase of a fixed sweep.

    conditions: everything else that affects a result (measurement rule, server identity); part of each phase's id.
    fingerprints: model name -> digest of its files and data file, "" where they cannot be seen.
    """
    return tuple(
        Group(variant, tuple(_phases(model, variant, protocol, own)))
        for model in models
        for own in ({**conditions, "files": fingerprints.get(model.name), "request_count": model.request_count},)
        for variant in variants(model)
    )


def variants(model: ModelPlan) -> Iterator[Variant]:
    """Yield the model's own config first, then each combination of its model_config_parameters."""
    base = {"instance_group": [{"kind": "KIND_CPU"}]} if model.cpu_only else {}
    yield _variant(model, "config_default", base)
    if model.model_config_parameters:
        for n, overrides in enumerate(combinations(model.model_config_parameters)):
            yield _variant(model, f"config_{n}", _cpu_only(overrides) if model.cpu_only else overrides)


def _cpu_only(overrides: dict[str, Any]) -> dict[str, Any]:
    groups = overrides.get("instance_group") or [{}]
    return {**overrides, "instance_group": [{**group, "kind": "KIND_CPU"} for group in groups]}


def _variant(model: ModelPlan, suffix: str, overrides: Mapping[str, Any]) -> Variant:
    return Variant(model.name, f"{model.name}_{suffix}", canonical_json(overrides), model.server)


def _phases(model: ModelPlan, variant: Variant, protocol: WireProtocol, conditions: dict[str, Any]) -> Iterator[Phase]:
    # Written out once: of thousands of phases this is most of the time that a plan takes.
    server, source, loads = asdict(variant.server), asdict(model.input_source), [asdict(load) for load in model.loads]
    for batch_size in model.batch_sizes:
        for load, load_fields in zip(model.loads, loads, strict=True):
            content = {
                "model": variant.model,
                "overrides": variant.overrides,
                "server": server,
                "batch_size": batch_size,
                "load": load_fields,
                "source": source,
                "protocol": protocol,
                "conditions": conditions,
                **({} if model.call is None else {"call": model.call}),
                # Whether, not how: which certificates are trusted costs nothing.
                **({} if model.tls is None else {"tls": True}),
            }
            yield Phase(content_id(content), variant, batch_size, load, model.input_source, protocol, model.call)


def content_id(content: Mapping[str, Any]) -> str:
    """16 hex digits that change when anything in `content` does."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
