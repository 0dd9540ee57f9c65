"""The job spec: Triton Model Analyzer's flat keys, checked, and resolved model by model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from model_analyzer.core.keys import MODEL_CONFIG_FIELDS
from model_analyzer.core.load import InputSource, Load, Tls
from model_analyzer.core.metric import (
    COLUMNS,
    DEFAULT_GPU_FIELDS,
    DEFAULT_INFERENCE_FIELDS,
    DEFAULT_SERVER_FIELDS,
    METRICS,
    nearest,
)
from model_analyzer.core.values import (
    NUMBERS_SCHEMA,
    OBJECTIVES_SCHEMA,
    TEXTS_SCHEMA,
    flag_values,
    input_source,
    models_of,
    numbers,
    objectives,
    texts,
    tls_of,
    urls,
)
from model_analyzer.core.variant import ServerSettings

Numbers = Annotated[
    tuple[Annotated[int, Field(ge=1)], ...], BeforeValidator(numbers), Field(json_schema_extra=NUMBERS_SCHEMA)
]
Texts = Annotated[tuple[str, ...], BeforeValidator(texts), Field(json_schema_extra=TEXTS_SCHEMA)]
Urls = Annotated[tuple[str, ...], BeforeValidator(urls), Field(json_schema_extra=TEXTS_SCHEMA)]
Flags = Annotated[dict[str, Any], BeforeValidator(flag_values)]
Objectives = Annotated[dict[str, float], BeforeValidator(objectives), Field(json_schema_extra=OBJECTIVES_SCHEMA)]
Positive = Annotated[float, Field(gt=0)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Bound(_Strict):
    """A constraint on one metric, in the unit of the tables."""

    min: float | None = None
    max: float | None = None


def _check_tags(names: Sequence[str], known: Sequence[str] | frozenset[str], what: str) -> None:
    unknown = [name for name in names if name not in known]
    if unknown:
        near = nearest(unknown[0], frozenset(known))
        raise ValueError(
            f"{what} {unknown[0]!r} is unknown" + (f"; did you mean {near!r}?" if near else "; see docs/job-spec.md")
        )


Constraints = dict[str, Bound]


class Parameters(_Strict):
    """A model's own sweep values; each replaces the global one."""

    batch_sizes: Numbers | None = None
    concurrency: Numbers | None = None
    request_rate: Numbers | None = None


class ModelSpec(_Strict):
    """One model of profile_models."""

    name: str
    cpu_only: bool = False
    parameters: Parameters = Parameters()
    model_config_parameters: dict[str, Any] = {}
    perf_analyzer_flags: Flags = {}
    objectives: Objectives | None = None
    constraints: Constraints | None = None
    weighting: float | None = None
    triton_server_flags: Flags = {}
    triton_server_environment: Flags = {}
    triton_docker_args: dict[str, Any] = {}

    @model_validator(mode="after")
    def _known(self) -> ModelSpec:
        _check_tags([*(self.constraints or {}), *(self.objectives or {})], frozenset(METRICS), "metric")
        _check_tags(list(self.model_config_parameters), MODEL_CONFIG_FIELDS, "field of Triton's ModelConfig")
        return self


Models = Annotated[
    tuple[ModelSpec, ...],
    BeforeValidator(models_of),
    Field(
        min_length=1,
        json_schema_extra={"description": "The models to measure: names, or a mapping from name to its own settings."},
    ),
]


class JobSpec(_Strict):
    """One job. Every key may stand in the YAML file; most have a flag."""

    profile_models: Models
    model_repository: str | None = Field(
        None,
        description="Folder of the models, as Triton reads it (also s3:// or gs://). Needed unless the launch mode is remote.",
    )
    batch_sizes: Numbers = Field((1,), description="Inferences in one request.")
    concurrency: Numbers | None = Field(None, description="Requests kept in flight (closed loop). Default: 1.")
    request_rate: Numbers | None = Field(None, description="Requests a second (open loop), instead of concurrency.")
    export_path: str = Field(
        ".", description="Folder for the store, the tables and the server's log; relative to the current directory."
    )
    filename_model_inference: str = Field(
        "metrics-model-inference.csv", description="The inference table, below export_path."
    )
    filename_model_gpu: str = Field("metrics-model-gpu.csv", description="The GPU table, below export_path.")
    filename_server_only: str = Field(
        "metrics-server-only.csv", description="The server-only table, below export_path."
    )
    inference_output_fields: Texts = Field(
        DEFAULT_INFERENCE_FIELDS, description="First columns of the inference table; see docs/metrics.md."
    )
    gpu_output_fields: Texts = Field(DEFAULT_GPU_FIELDS, description="First columns of the GPU table.")
    server_output_fields: Texts = Field(DEFAULT_SERVER_FIELDS, description="First columns of the server-only table.")
    duration_seconds: float = Field(
        3.0, gt=0, description="How long the server is watched with no model loaded, seconds."
    )
    monitoring_interval: float = Field(
        0.25, ge=0.01, description="Seconds between scrapes of the metrics (Triton Model Analyzer: 1)."
    )
    client_protocol: Literal["http", "grpc"] = Field("http", description="How requests are sent.")
    triton_launch_mode: Literal["remote", "local", "embedded", "docker"] | None = Field(
        None, description="Where Triton comes from. Default: local where a tritonserver is found, else embedded."
    )
    triton_http_endpoint: str = Field("localhost:8000", description="remote: host:port, or https://host:port.")
    triton_grpc_endpoint: str = Field("localhost:8001", description="remote: host:port of gRPC.")
    triton_metrics_url: str = Field("http://localhost:8002/metrics", description="remote: URL of the metrics page.")
    triton_server_path: str = Field("tritonserver", description="local: the program, on PATH or as a path.")
    triton_docker_image: str = Field("nvcr.io/nvidia/tritonserver:26.09-py3", description="docker: the image.")
    triton_docker_mounts: Texts = Field((), description="docker: extra mounts, host:container:mode.")
    triton_docker_labels: dict[str, str] = Field({}, description="docker: labels of the container.")
    triton_docker_shm_size: str | None = Field(None, description="docker: size of /dev/shm, such as 1G.")
    triton_docker_args: dict[str, Any] = Field({}, description="docker: more arguments of docker-py's containers.run.")
    triton_server_flags: Flags = Field({}, description="Flags of a server that we start; they win over ours.")
    triton_server_environment: Flags = Field({}, description="Environment of a server that we start.")
    triton_output_path: str | None = Field(
        None, description="File for the server's output. Default: triton.log below export_path."
    )
    client_max_retries: int = Field(50, ge=1, description="Tries, a second apart, to reach a remote server.")
    server_start_timeout_seconds: Positive = Field(
        120.0, description="How long a server of ours may take until it is ready."
    )
    gpus: Texts = Field(("all",), description="GPUs that count: all, or UUIDs or indices; an empty list: none.")
    dcgm_disable: bool = Field(False, description="Do not read DCGM exporters.")
    dcgm_exporter_url: Urls = Field((), description="Metrics pages of DCGM exporters, one or many.")
    min_gpu_samples: int = Field(0, ge=0, description="Extend a phase until so many fresh GPU samples fell inside.")
    reload_model_disable: bool = Field(False, description="remote: use what is loaded, as it is.")
    touch_models_in_use: bool = Field(False, description="remote: reload a model even while it serves others.")
    perf_analyzer_flags: Flags = Field({}, description="perf_analyzer's flags for input data, shapes and TLS.")
    objectives: Objectives = Field(
        {"perf_throughput": 10.0}, description="What a search prefers: metrics and their weights. Kept for later use."
    )
    constraints: Constraints = Field(
        {}, description="Bounds on metrics, in the unit of the tables: {perf_latency_p99: {max: 50}}."
    )
    weighting: float | None = Field(None, description="Weight of a model against others. Kept for later use.")
    latency_budget: Positive | None = Field(
        None, description="Short for constraints: {perf_latency_p99: {max: ...}}, ms."
    )
    min_throughput: Positive | None = Field(None, description="Short for constraints: {perf_throughput: {min: ...}}.")
    stop_rule: Literal["interval", "perf_analyzer", "fixed"] = Field(
        "interval", description="When a phase is done: see docs/measurement.md."
    )
    slice_seconds: float = Field(0.5, ge=0.1, description="Length of one contiguous piece of a phase.")
    min_seconds: Positive = Field(2.0, description="Measure a phase for at least so long.")
    max_seconds: Positive = Field(10.0, description="Measure a phase for at most so long; then it is marked unstable.")
    precision: float = Field(
        0.05, gt=0, lt=1, description="Throughput: half-width of the 95 % interval to reach, as a share."
    )
    latency_precision: float = Field(
        0.10, gt=0, lt=1, description="p99 latency: half-width of the 95 % interval to reach, as a share."
    )
    request_timeout_seconds: Positive = Field(30.0, description="A request without a reply for so long has failed.")

    @model_validator(mode="after")
    def _relations(self) -> JobSpec:
        if self.min_seconds > self.max_seconds:
            raise ValueError(
                f"min_seconds {self.min_seconds:g} is above max_seconds {self.max_seconds:g}; lower the one or raise the other"
            )
        if self.slice_seconds > self.max_seconds:
            raise ValueError(
                f"slice_seconds {self.slice_seconds:g} is above max_seconds {self.max_seconds:g}; lower it"
            )
        if self.concurrency and self.request_rate:
            raise ValueError("concurrency and request_rate are both given; a load is the one or the other")
        if self.model_repository is None and self.triton_launch_mode != "remote":
            raise ValueError(
                "model_repository is missing; name the folder of the models (only the remote launch mode can do without)"
            )
        twice = sorted({m.name for m in self.profile_models if [o.name for o in self.profile_models].count(m.name) > 1})
        if twice:
            raise ValueError(f"profile_models names {', '.join(twice)} twice; name a model once")
        return self

    @model_validator(mode="after")
    def _known(self) -> JobSpec:
        _check_tags([*self.constraints, *self.objectives], frozenset(METRICS), "metric")
        columns = frozenset(METRICS) | frozenset(COLUMNS)
        _check_tags(
            [*self.inference_output_fields, *self.gpu_output_fields, *self.server_output_fields],
            columns,
            "output field",
        )
        return self

    def models(self) -> tuple[ResolvedModel, ...]:
        """Every model with all that holds for it."""
        return tuple(self._resolve(model) for model in self.profile_models)

    def _resolve(self, model: ModelSpec) -> ResolvedModel:
        flags = {**self.perf_analyzer_flags, **model.perf_analyzer_flags}
        return ResolvedModel(
            name=model.name,
            batch_sizes=model.parameters.batch_sizes or self.batch_sizes,
            loads=self._loads(model.parameters, str(flags.get("request-distribution", "constant"))),
            input_source=input_source(flags),
            tls=tls_of(flags, self.client_protocol, self.triton_http_endpoint),
            model_config_parameters=model.model_config_parameters,
            cpu_only=model.cpu_only,
            objectives=model.objectives or self.objectives,
            constraints=self._constraints(model),
            weighting=model.weighting or self.weighting,
            server=ServerSettings(
                pairs({**self.triton_server_flags, **model.triton_server_flags}),
                pairs({**self.triton_server_environment, **model.triton_server_environment}),
            ),
        )

    def _loads(self, own: Parameters, distribution: str) -> tuple[Load, ...]:
        rates = own.request_rate or (None if own.concurrency else self.request_rate)
        if rates:
            poisson = distribution == "poisson"
            return tuple(Load("request_rate", rate, "poisson" if poisson else "constant") for rate in rates)
        return tuple(Load("concurrency", value) for value in own.concurrency or self.concurrency or (1,))

    def _constraints(self, model: ModelSpec) -> dict[str, dict[str, float]]:
        bounds = dict(model.constraints if model.constraints is not None else self.constraints)
        if self.latency_budget is not None:
            bounds.setdefault("perf_latency_p99", Bound(max=self.latency_budget))
        if self.min_throughput is not None:
            bounds.setdefault("perf_throughput", Bound(min=self.min_throughput))
        return {tag: bound.model_dump(exclude_none=True) for tag, bound in bounds.items()}


def pairs(values: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Flags or environment as texts, in order."""
    return tuple((name, _text(value)) for name, value in values.items())


def _text(value: Any) -> str:
    """As a command line has it: YAML's true is `true` there."""
    return str(value).lower() if isinstance(value, bool) else str(value)


@dataclass(frozen=True, slots=True)
class ResolvedModel:
    """A model of the job with global and own settings put together. constraints: in the tables' units."""

    name: str
    batch_sizes: tuple[int, ...]
    loads: tuple[Load, ...]
    input_source: InputSource
    tls: Tls | None
    model_config_parameters: Mapping[str, Any]
    cpu_only: bool
    objectives: Mapping[str, float]
    constraints: Mapping[str, Mapping[str, float]]
    weighting: float | None
    server: ServerSettings = field(default_factory=ServerSettings)
