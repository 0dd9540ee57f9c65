"""What is right in a job, and yet worth a word: above all, keys that do nothing beside the others. Pure.

The one place for it: a key that is known, valid and without effect is told, so that nobody believes in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import ceil
from typing import Any

from model_analyzer.core.keys import MODE_KEYS, NOT_REMOTE_KEYS
from model_analyzer.core.spec import JobSpec, ModelSpec, ResolvedModel
from model_analyzer.core.stopping import INTERVAL_SLICES, PERF_ANALYZER_WINDOWS
from model_analyzer.core.values import is_true
from model_analyzer.core.wording import counted

# Path of the key in the spec, what is the matter, and why or what to do.
Advice = tuple[tuple[Any, ...], str, str]
Idle = tuple[str, str]
_Models = Sequence[tuple[ModelSpec, ResolvedModel]]


def advice(spec: JobSpec) -> Iterator[Advice]:
    """All of it, each with the place that it is about."""
    models = tuple(zip(spec.profile_models, spec.models(), strict=True))
    for idle in (_of_the_server(spec), _of_telemetry(spec), _of_the_rule(spec), _overruled(spec, models)):
        yield from (((key,), f"{key} has no effect", why) for key, why in idle if key in spec.model_fields_set)
    for path, flags, those in _flags(spec, models):
        yield from (((*path, name), f"{name} has no effect", why) for name, why in _idle_flags(spec, flags, those))
    yield from _words(spec)


def _of_the_server(spec: JobSpec) -> Iterator[Idle]:
    mode = spec.triton_launch_mode
    for belongs_to, keys in MODE_KEYS.items():
        if mode != belongs_to:
            yield from ((key, f"it belongs to triton_launch_mode: {belongs_to}") for key in keys)
    if mode not in (None, "local"):
        yield "triton_server_path", "it belongs to triton_launch_mode: local"
    if mode == "remote":
        yield from ((key, "a remote server is started by others: start it so") for key in NOT_REMOTE_KEYS)


def _of_telemetry(spec: JobSpec) -> Iterator[Idle]:
    if spec.dcgm_disable:
        yield from (
            (key, "with dcgm_disable no exporter is read") for key in ("dcgm_exporter_url", "dcgm_exporter_namespaces")
        )
    elif spec.dcgm_exporter_url:
        yield "dcgm_exporter_namespaces", "dcgm_exporter_url names the exporters, and none is looked for"
    elif spec.dcgm_discovery == "off":
        yield "dcgm_exporter_namespaces", "with dcgm_discovery off no exporter is looked for"
    if not spec.gpus and spec.min_gpu_samples:
        yield "min_gpu_samples", "gpus is an empty list: none is looked at"


def _of_the_rule(spec: JobSpec) -> Iterator[Idle]:
    if spec.stop_rule != "interval" and not spec.request_count:
        yield from ((key, "it belongs to stop_rule: interval") for key in ("precision", "latency_precision"))
    # Only fresh GPU samples that are missing prolong such a phase.
    if spec.stop_rule == "fixed" and not spec.request_count and not spec.min_gpu_samples:
        yield "max_seconds", "with stop_rule fixed min_seconds ends a phase"


def _overruled(spec: JobSpec, models: _Models) -> Iterator[Idle]:
    """Keys for all models, where each has its own."""
    own = "every model has its own, which take their place"
    if all(model.parameters.batch_sizes for model, _ in models):
        yield "batch_sizes", own
    if all(_own_load(model) for model, _ in models):
        yield from ((key, own) for key in ("concurrency", "request_rate", "request_intervals"))
    if spec.perf_analyzer_flags and all(model.perf_analyzer_flags for model, _ in models):
        yield "perf_analyzer_flags", own
    if all(resolved.input_source.shared_memory is None for _, resolved in models):
        yield "output_shared_memory_size", "no model has shared_memory: system"


def _own_load(model: ModelSpec) -> bool:
    own = model.parameters
    return bool(own.concurrency or own.request_rate or "request-intervals" in model.perf_analyzer_flags)


def _flags(spec: JobSpec, models: _Models) -> Iterator[tuple[tuple[Any, ...], Mapping[str, Any], list[ResolvedModel]]]:
    """Each perf_analyzer_flags: its path, its flags, and the models that they hold for."""
    if those := [resolved for model, resolved in models if not model.perf_analyzer_flags]:
        yield ("perf_analyzer_flags",), spec.perf_analyzer_flags, those
    for n, (model, resolved) in enumerate(models):
        yield ("profile_models", n, "perf_analyzer_flags"), model.perf_analyzer_flags, [resolved]


def _idle_flags(spec: JobSpec, flags: Mapping[str, Any], models: Sequence[ResolvedModel]) -> Iterator[Idle]:
    other = {"http": "ssl-grpc-", "grpc": "ssl-https-"}[spec.client_protocol]
    off = "ssl-grpc-use-ssl" in flags and not is_true(flags["ssl-grpc-use-ssl"])
    rated = any(load.kind == "request_rate" for model in models for load in model.loads)
    for name in flags:
        if name.startswith(other):
            yield name, f"client_protocol is {spec.client_protocol}"
        elif off and name.startswith("ssl-grpc-") and name != "ssl-grpc-use-ssl":
            yield name, "ssl-grpc-use-ssl turns TLS off"
        elif name == "request-distribution" and not rated:
            yield name, "it spreads the requests of a request_rate, and there is none"
        elif name == "request-intervals" and not any(model.request_intervals for model in models):
            yield name, "every model has a load of its own"
        elif name == "output-shared-memory-size" and all(model.input_source.shared_memory is None for model in models):
            yield name, "shared-memory is not system"
        elif name in ("string-length", "string-data") and (why := _no_strings(name, flags, models[0])):
            yield name, why


def _no_strings(name: str, flags: Mapping[str, Any], model: ResolvedModel) -> str | None:
    """Why no text is made by this flag; None where one is."""
    mode = model.input_source.mode
    if mode == "file":
        return "the inputs are those of input-data"
    if name == "string-length" and "string-data" in flags:
        return "string-data is what is sent"
    return "with input-data zero texts are empty" if name == "string-length" and mode == "zero" else None


def _words(spec: JobSpec) -> Iterator[Advice]:
    """What has an effect, but another than one would think."""
    yield from _no_load(spec)
    yield from _too_short(spec)
    if any(model.request_count for model in spec.models()):
        ignored = ("stop_rule", "min_seconds", "max_seconds", "precision", "latency_precision")
        why = "with a request_count, that alone ends a phase"
        yield from (((key,), f"{key} ends no phase", why) for key in ignored if key in spec.model_fields_set)
    workers, cpus = spec.client_workers, len(spec.client_cpus)
    if workers != "auto" and 0 < cpus < workers:
        what = f"{workers} client_workers share {counted(cpus, 'CPU')} of client_cpus"
        yield ("client_cpus",), what, "name as many CPUs as there are workers, or use fewer"
    if spec.repeats > 1 and spec.triton_launch_mode == "remote" and spec.reload_model_disable:
        what = "with reload_model_disable no repeat loads the model anew: repeats hold what changes over time only"
        yield ("repeats",), what, "leave reload_model_disable out, or restart the server between runs"


def _no_load(spec: JobSpec) -> Iterator[Advice]:
    own = (model.parameters for model in spec.profile_models)
    given = any(each.concurrency or each.request_rate for each in own)
    if not (given or spec.concurrency or spec.request_rate or any(model.request_intervals for model in spec.models())):
        what = "no concurrency is given, so 1 is measured (Triton Model Analyzer would search)"
        yield (), what, "list the values: concurrency: [1, 4, 16]"


def _too_short(spec: JobSpec) -> Iterator[Advice]:
    """A max_seconds that holds fewer slices than the stop rule judges by: no phase would be stable."""
    needed = {"interval": INTERVAL_SLICES, "perf_analyzer": PERF_ANALYZER_WINDOWS, "fixed": 0}[spec.stop_rule]
    # As `judge` ends a phase: a slice may be a hair short.
    slices = ceil(spec.max_seconds * 0.999 / spec.slice_seconds)
    if slices < needed and not all(model.request_count for model in spec.models()):
        key = "max_seconds" if "max_seconds" in spec.model_fields_set else "slice_seconds"
        what = (
            f"max_seconds {spec.max_seconds:g} holds {counted(slices, 'slice')} of"
            f" slice_seconds {spec.slice_seconds:g}, and stop_rule {spec.stop_rule} needs {needed}:"
            " every row will be unstable"
        )
        yield (key,), what, f"set max_seconds to {needed * spec.slice_seconds:g} or more"
