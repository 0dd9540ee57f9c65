"""The job spec: Triton Model Analyzer's flat keys, checked, and resolved model by model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, model_validator

from model_analyzer.core import model_config
from model_analyzer.core.load import Call, InputSource, Load, SharedMemory, Tls
from model_analyzer.core.metric import (
    COLUMNS,
    DEFAULT_GPU_FIELDS,
    DEFAULT_INFERENCE_FIELDS,
    DEFAULT_SERVER_FIELDS,
    METRICS,
    nearest,
)
from model_analyzer.core.values import (
    CPUS_SCHEMA,
    LARGEST,
    NUMBERS_SCHEMA,
    OBJECTIVES_SCHEMA,
    TEXTS_SCHEMA,
    Wrong,
    call_asked,
    cpu_list,
    endpoint,
    environment,
    file_name,
    finite,
    gpus,
    host_port,
    input_source,
    models_of,
    number,
    numbers,
    objectives,
    path_text,
    perf_flags,
    server_flags,
    shared_memory,
    shown,
    text,
    texts,
    tls_of,
    url,
    urls,
    workers,
    wrong,
)
from model_analyzer.core.variant import ServerSettings, canonical_json

# More is a slip of the pen: at some seconds a phase, days.
MOST_VARIANTS, MOST_PHASES, MOST_WORKERS = 10_000, 100_000, 256


def _metric_faults(tags: Iterable[Any]) -> Iterator[Wrong]:
    """Only metrics that are measured can be preferred or bounded."""
    known = frozenset(tag for tag, metric in METRICS.items() if metric.measured)
    for tag in tags:
        if tag in METRICS and tag not in known:
            yield (tag,), f"not supported yet: {tag} ({METRICS[tag].header})", "leave it out"
        elif tag not in known:
            near = nearest(str(tag), known)
            yield (tag,), f"metric {tag!r} is unknown", f"did you mean {near!r}?" if near else "see docs/metrics.md"


def _known_metrics(values: Any) -> Any:
    if isinstance(values, Mapping) and (faults := list(_metric_faults(values))):
        raise wrong(faults)
    return values


def _known_columns(names: tuple[str, ...]) -> tuple[str, ...]:
    known = frozenset(METRICS) | frozenset(COLUMNS)
    faults = []
    for n, name in enumerate(names):
        if name not in known:
            near = nearest(name, known)
            fix = f"did you mean {near!r}?" if near else "see docs/metrics.md"
            faults.append(((n,), f"output field {name!r} is unknown", fix))
    if faults:
        raise wrong(faults)
    return names


def _bounds(value: Any) -> Any:
    """Bounds on metrics that are known; one given as a bare number says which it could be."""
    if not isinstance(value, Mapping):
        return value
    faults = list(_metric_faults(value))
    for tag, bound in value.items():
        if isinstance(bound, int | float | str) and not isinstance(bound, bool) and tag in METRICS:
            way = "min" if METRICS[tag].better == "higher" else "max"
            faults.append(((tag,), f"constraint {tag} is {shown(bound)}", f"write {{{way}: {bound}}}"))
    if faults:
        raise wrong(faults)
    return value


def _model_config(values: dict[str, Any]) -> dict[str, Any]:
    faults = list(model_config.faults(values))
    if not faults and (many := model_config.count(values)) > MOST_VARIANTS:
        faults = [((), f"model_config_parameters makes {many} variants", f"sweep less: {MOST_VARIANTS} are the most")]
    if faults:
        raise wrong(faults)
    return values


Numbers = Annotated[
    tuple[Annotated[int, Field(ge=1, le=LARGEST)], ...],
    BeforeValidator(numbers),
    Field(json_schema_extra=NUMBERS_SCHEMA),
]
Texts = Annotated[tuple[str, ...], BeforeValidator(texts), Field(json_schema_extra=TEXTS_SCHEMA)]
Columns = Annotated[Texts, AfterValidator(_known_columns)]
Gpus = Annotated[tuple[str, ...], BeforeValidator(gpus), Field(json_schema_extra=TEXTS_SCHEMA)]
Urls = Annotated[tuple[str, ...], BeforeValidator(urls), Field(json_schema_extra=TEXTS_SCHEMA)]
Url = Annotated[str, BeforeValidator(url)]
Endpoint = Annotated[str, BeforeValidator(endpoint)]
FileName = Annotated[str, BeforeValidator(file_name)]
PathText = Annotated[str, BeforeValidator(path_text)]
Text = Annotated[str, BeforeValidator(text)]
PerfFlags = Annotated[dict[str, Any], BeforeValidator(perf_flags)]
ServerFlags = Annotated[dict[str, Any], BeforeValidator(server_flags)]
Environment = Annotated[dict[str, Any], BeforeValidator(environment)]
Number = Annotated[float, BeforeValidator(number), AfterValidator(finite)]
Integer = Annotated[int, Field(le=LARGEST), BeforeValidator(number)]
Positive = Annotated[float, Field(gt=0), BeforeValidator(number), AfterValidator(finite)]
SharedMemoryKind = Annotated[Literal["none", "system"], BeforeValidator(shared_memory)]
# YAML's bare off is false, for an editor and for helm too.
Switch = Annotated[
    Literal["auto", "off"],
    BeforeValidator(lambda value: "off" if value is False else value),
    Field(json_schema_extra={"enum": ["auto", "off", False], "type": ["string", "boolean"]}),
]
Workers = Annotated[
    Literal["auto"] | Annotated[int, Field(ge=1, le=MOST_WORKERS)],
    BeforeValidator(workers),
    Field(json_schema_extra={"type": ["string", "integer"]}),
]
Cpus = Annotated[
    tuple[Annotated[int, Field(ge=0, le=LARGEST)], ...],
    BeforeValidator(cpu_list),
    Field(json_schema_extra=CPUS_SCHEMA),
]
Objectives = Annotated[
    dict[str, Number],
    BeforeValidator(_known_metrics),
    BeforeValidator(objectives),
    Field(json_schema_extra=OBJECTIVES_SCHEMA),
]
ModelConfig = Annotated[dict[str, Any], AfterValidator(_model_config)]


class _Strict(BaseModel):
    # Deferred: pydantic would build each nested model's schema for itself, and again as a part of the job's.
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class Bound(_Strict):
    """A constraint on one metric, in the unit of the tables."""

    min: Number | None = None
    max: Number | None = None

    @model_validator(mode="after")
    def _order(self) -> Bound:
        if self.min is not None and self.max is not None and self.min > self.max:
            raise wrong([((), f"min {self.min:g} is above max {self.max:g}", "lower the one or raise the other")])
        return self


Constraints = Annotated[dict[str, Bound], BeforeValidator(_bounds)]
_BOTH_LOADS = "concurrency and request_rate are both given"
_ONE_LOAD = "a load is the one or the other"


class Parameters(_Strict):
    """A model's own sweep values; each replaces the global one."""

    batch_sizes: Numbers | None = None
    concurrency: Numbers | None = None
    request_rate: Numbers | None = None

    @model_validator(mode="after")
    def _one_load(self) -> Parameters:
        if self.concurrency and self.request_rate:
            raise wrong([(("request_rate",), _BOTH_LOADS, _ONE_LOAD)])
        return self


class ModelSpec(_Strict):
    """One model of profile_models."""

    name: str = Field(min_length=1)
    cpu_only: bool = False
    parameters: Parameters = Parameters()
    model_config_parameters: ModelConfig = {}
    perf_analyzer_flags: PerfFlags = {}
    objectives: Objectives | None = None
    constraints: Constraints | None = None
    weighting: Number | None = None
    triton_server_flags: ServerFlags = {}
    triton_server_environment: Environment = {}
    triton_docker_args: dict[str, Any] = {}

    @model_validator(mode="after")
    def _one_load(self) -> ModelSpec:
        own = [key for key in ("concurrency", "request_rate") if getattr(self.parameters, key)]
        if own and "request-intervals" in self.perf_analyzer_flags:
            what = f"{own[0]} and request-intervals are both given"
            raise wrong([(("perf_analyzer_flags", "request-intervals"), what, _ONE_LOAD)])
        return self


Models = Annotated[
    tuple[ModelSpec, ...],
    BeforeValidator(models_of),
    Field(
        min_length=1,
        json_schema_extra={"description": "The models to measure: names, or a mapping from name to its own settings."},
    ),
]


def _uses_request_rate(data: Mapping[str, Any]) -> tuple[bool, bool]:
    """Whether any model has a closed loop, and whether any has an open one."""
    flags = data.get("perf_analyzer_flags", {})
    everywhere = bool(data.get("request_rate") or data.get("request_intervals"))
    opened = [
        bool(model.parameters.request_rate)
        # A model's own flags take the place of those for all.
        or (
            (everywhere or "request-intervals" in (model.perf_analyzer_flags or flags))
            and not model.parameters.concurrency
        )
        for model in data.get("profile_models", ())
    ] or [everywhere or "request-intervals" in flags]
    return not all(opened), any(opened)


def _default_columns(fields: tuple[str, ...]) -> Any:
    """Concurrency gives way to Request Rate where every load is one, as in Triton Model Analyzer; a mix has both."""

    def columns(data: Mapping[str, Any]) -> tuple[str, ...]:
        closed, opened = _uses_request_rate(data)
        loads = (*(["concurrency"] if closed else []), *(["request_rate"] if opened else []))
        at = fields.index("concurrency")
        return (*fields[:at], *loads, *fields[at + 1 :])

    return columns


class JobSpec(_Strict):
    """One job. Every key may stand in the YAML file; most have a flag."""

    profile_models: Models
    model_repository: PathText | None = Field(
        None,
        description="Folder of the models, as Triton reads it (also s3:// or gs://). Needed unless the launch mode is remote.",
    )
    batch_sizes: Numbers = Field((1,), description="Inferences in one request.")
    concurrency: Numbers | None = Field(None, description="Requests kept in flight (closed loop). Default: 1.")
    request_rate: Numbers | None = Field(None, description="Requests a second (open loop), instead of concurrency.")
    request_intervals: PathText | None = Field(
        None,
        description="File of the microseconds between requests (open loop), one a line, sent round and round; instead of"
        " concurrency and request_rate.",
    )
    max_concurrency: Annotated[int, Field(ge=1, le=LARGEST), BeforeValidator(number)] | None = Field(
        None, description="Open loop: requests in flight at most; what is due meanwhile waits. Default: 1024."
    )
    ramp_seconds: Number = Field(
        0.0, ge=0, description="Let the load grow from nothing for so long, linearly, before each slice is measured."
    )
    request_count: Integer = Field(
        0,
        ge=0,
        description="Measure a phase until it has so many requests, instead of by the stop rule; 0: by the rule.",
    )
    perf_analyzer_flags: PerfFlags = Field(
        {}, description="perf_analyzer's flags for input data, shapes, TLS, send times and counts."
    )
    export_path: PathText = Field(
        ".", description="Folder for the store, the tables and the server's log; relative to the current directory."
    )
    export_path_wait_seconds: Number = Field(
        0.0, ge=0, description="How long to wait for another run that uses the export path, seconds."
    )
    filename_model_inference: FileName = Field(
        "metrics-model-inference.csv", description="The inference table, below export_path."
    )
    filename_model_gpu: FileName = Field("metrics-model-gpu.csv", description="The GPU table, below export_path.")
    filename_server_only: FileName = Field(
        "metrics-server-only.csv", description="The server-only table, below export_path."
    )
    inference_output_fields: Columns = Field(
        default_factory=_default_columns(DEFAULT_INFERENCE_FIELDS),
        description="First columns of the inference table; see docs/metrics.md.",
    )
    gpu_output_fields: Columns = Field(
        default_factory=_default_columns(DEFAULT_GPU_FIELDS), description="First columns of the GPU table."
    )
    server_output_fields: Columns = Field(DEFAULT_SERVER_FIELDS, description="First columns of the server-only table.")
    duration_seconds: Number = Field(
        3.0, gt=0, description="How long the server is watched with no model loaded, seconds."
    )
    monitoring_interval: Number = Field(
        0.25, ge=0.01, description="Seconds between scrapes of the metrics (Triton Model Analyzer: 1)."
    )
    client_protocol: Literal["http", "grpc"] = Field("grpc", description="How requests are sent: grpc or http.")
    shared_memory: SharedMemoryKind = Field(
        "none",
        description="system: inputs and outputs lie in shared memory and are not sent; the server must share this "
        "host's /dev/shm (docs/measurement.md).",
    )
    output_shared_memory_size: Integer = Field(
        SharedMemory().output_bytes,
        ge=1,
        description="shared_memory: bytes for one inference's output of datatype BYTES or with dynamic dims.",
    )
    triton_launch_mode: Literal["remote", "local", "embedded", "docker"] | None = Field(
        None, description="Where Triton comes from. Default: local where a tritonserver is found, else embedded."
    )
    triton_http_endpoint: Endpoint = Field(
        "localhost:8000",
        description="remote: host:port, or https://host:port. Given beside triton_grpc_endpoint, on one host and without TLS,"
        " models are loaded over it also where requests go over gRPC.",
    )
    triton_grpc_endpoint: Endpoint = Field(
        "localhost:8001", description="remote: host:port of gRPC, or grpcs://host:port."
    )
    triton_metrics_url: Url = Field("http://localhost:8002/metrics", description="remote: URL of the metrics page.")
    triton_server_path: PathText = Field("tritonserver", description="local: the program, on PATH or as a path.")
    triton_docker_image: str = Field("nvcr.io/nvidia/tritonserver:26.09-py3", description="docker: the image.")
    triton_docker_mounts: Texts = Field((), description="docker: extra mounts, host:container:mode.")
    triton_docker_labels: dict[str, Text] = Field({}, description="docker: labels of the container.")
    triton_docker_shm_size: Text | None = Field(None, description="docker: size of /dev/shm, such as 1G.")
    triton_docker_args: dict[str, Any] = Field({}, description="docker: more arguments of docker-py's containers.run.")
    triton_server_flags: ServerFlags = Field({}, description="Flags of a server that we start; they win over ours.")
    triton_server_environment: Environment = Field({}, description="Environment of a server that we start.")
    triton_output_path: PathText | None = Field(
        None, description="File for the server's output. Default: triton.log below export_path."
    )
    triton_server_identity: Text = Field(
        "", description="remote: what tells this server from another at the same address, such as its image."
    )
    client_workers: Workers = Field(
        "auto",
        description="Processes of the load generator: auto (one; more where it would be the limit, up to the CPUs that it may use) or a number.",
    )
    client_cpus: Cpus = Field(
        (),
        description="Pin the load generator's processes to these CPUs, one each in turn: [2, 3] or 2-3. Default: none.",
    )
    client_max_retries: Integer = Field(50, ge=1, description="Tries, a second apart, to reach a remote server.")
    server_start_timeout_seconds: Positive = Field(
        120.0, description="How long a server of ours may take until it is ready."
    )
    gpus: Gpus = Field(("all",), description="GPUs that count: all, or UUIDs or indices; an empty list: none.")
    dcgm_disable: bool = Field(False, description="Do not read DCGM exporters.")
    dcgm_exporter_url: Urls = Field((), description="Metrics pages of DCGM exporters, one or many.")
    dcgm_discovery: Switch = Field(
        "auto", description="In a Kubernetes pod: find the DCGM exporter of the own node through the API. auto or off."
    )
    dcgm_exporter_namespaces: Texts = Field(
        (), description="Discovery: look for the exporter in these namespaces only. Default: in all."
    )
    min_gpu_samples: Integer = Field(0, ge=0, description="Extend a phase until so many fresh GPU samples fell inside.")
    reload_model_disable: bool = Field(False, description="remote: use what is loaded, as it is.")
    touch_models_in_use: bool = Field(False, description="remote: reload a model even while it serves others.")
    shards: Integer = Field(
        1, ge=1, description="Spread the variants over so many runs; each writes to shard-<index> below export_path."
    )
    shard_index: Annotated[int, Field(ge=0, le=LARGEST), BeforeValidator(number)] | None = Field(
        None, description="Which shard this run is, from 0. Default: the JOB_COMPLETION_INDEX of an Indexed Job."
    )
    gpu_prices: dict[str, Positive] = Field(
        {}, description="Price of an hour of a GPU by its type, {L4: 0.7}: for the cost column of a comparison."
    )
    log_format: Literal["text", "json"] = Field("text", description="Progress as text, or as one JSON object a line.")
    metrics_port: Integer = Field(0, ge=0, le=65535, description="Serve this run's own metrics here; 0: do not.")
    annotate_job: Text = Field(
        "", description="In a Kubernetes pod: show progress as annotations of the Job of this name."
    )
    objectives: Objectives = Field(
        {"perf_throughput": 10.0}, description="What a search prefers: metrics and their weights. Kept for later use."
    )
    constraints: Constraints = Field(
        {}, description="Bounds on metrics, in the unit of the tables: {perf_latency_p99: {max: 50}}."
    )
    weighting: Number | None = Field(None, description="Belongs to a model, in profile_models; refused here.")
    latency_budget: Positive | None = Field(
        None, description="Short for constraints: {perf_latency_p99: {max: ...}}, ms."
    )
    min_throughput: Positive | None = Field(None, description="Short for constraints: {perf_throughput: {min: ...}}.")
    stop_rule: Literal["interval", "perf_analyzer", "fixed"] = Field(
        "interval", description="When a phase is done: see docs/measurement.md."
    )
    repeats: Integer = Field(
        1,
        ge=1,
        le=1000,
        description="Measure every phase so often, each time with its model loaded anew; its row is of all together.",
    )
    slice_seconds: Number = Field(0.5, ge=0.1, description="Length of one contiguous piece of a phase.")
    min_seconds: Positive = Field(2.0, description="Measure a phase for at least so long.")
    max_seconds: Positive = Field(
        10.0,
        description="Measured seconds of a phase at most, warm-ups not among them; then it is marked unstable."
        " min_gpu_samples, and whole rounds of request_intervals, may take more.",
    )
    precision: Number = Field(
        0.05, gt=0, lt=1, description="Throughput: half-width of the 95 % interval to reach, as a share."
    )
    latency_precision: Number = Field(
        0.10, gt=0, lt=1, description="p99 latency: half-width of the 95 % interval to reach, as a share."
    )
    request_timeout_seconds: Positive = Field(30.0, description="A request without a reply for so long has failed.")

    @model_validator(mode="after")
    def _relations(self, info: ValidationInfo) -> JobSpec:
        """What holds between keys. context: the keys that are wrong in themselves, of which nothing follows."""
        wrong_keys = frozenset(info.context or ())
        faults = [((key,), what, fix) for keys, key, what, fix in _relation_faults(self) if not wrong_keys & {*keys}]
        if faults:
            raise wrong(faults)
        return self

    @property
    def endpoint(self) -> str:
        """Of a remote server, where requests go to; with a scheme, if that was given."""
        return self.triton_grpc_endpoint if self.client_protocol == "grpc" else self.triton_http_endpoint

    @property
    def one_server(self) -> bool:
        """Whether both endpoints of a remote server are known to be of one: both are given, on one host, without TLS.

        Then it is controlled over HTTP also where requests go over gRPC. At a default that nobody wrote, and on another
        host that one flag alone names, another server may listen.
        """
        endpoints = self.triton_http_endpoint, self.triton_grpc_endpoint
        given = {"triton_http_endpoint", "triton_grpc_endpoint"} <= self.model_fields_set
        plain = not any(endpoint.startswith(("https://", "grpcs://")) for endpoint in endpoints)
        return given and plain and len({host_port(endpoint).rpartition(":")[0] for endpoint in endpoints}) == 1

    def models(self) -> tuple[ResolvedModel, ...]:
        """Every model with all that holds for it."""
        return tuple(self._resolve(model) for model in self.profile_models)

    def _resolve(self, model: ModelSpec) -> ResolvedModel:
        flags = model.perf_analyzer_flags or self.perf_analyzer_flags
        own_load = model.parameters.concurrency or model.parameters.request_rate
        intervals = None if own_load else flags.get("request-intervals", self.request_intervals)
        return ResolvedModel(
            name=model.name,
            batch_sizes=model.parameters.batch_sizes or self.batch_sizes,
            loads=()
            if intervals
            else self._loads(model.parameters, str(flags.get("request-distribution", "constant"))),
            request_intervals=intervals,
            request_count=int(flags.get("request-count", self.request_count)) or None,
            input_source=input_source(flags, self.shared_memory, self.output_shared_memory_size),
            call=call_asked(flags, self.client_protocol),
            tls=tls_of(flags, self.client_protocol, self.endpoint),
            model_config_parameters=model.model_config_parameters,
            cpu_only=model.cpu_only,
            objectives=model.objectives or self.objectives,
            constraints=self._constraints(model),
            weighting=model.weighting,
            server=ServerSettings(
                pairs(model.triton_server_flags or self.triton_server_flags),
                pairs(model.triton_server_environment or self.triton_server_environment),
                canonical_json(model.triton_docker_args),
            ),
        )

    def _loads(self, own: Parameters, distribution: str) -> tuple[Load, ...]:
        rates = own.request_rate or (None if own.concurrency else self.request_rate)
        if rates:
            poisson = distribution == "poisson"
            sent: Literal["poisson", "constant"] = "poisson" if poisson else "constant"
            most, ramp_s = self.max_concurrency, self.ramp_seconds
            return tuple(Load("request_rate", rate, sent, "", most, ramp_s) for rate in rates)
        values = own.concurrency or self.concurrency or (1,)
        return tuple(Load("concurrency", value, ramp_s=self.ramp_seconds) for value in values)

    def _constraints(self, model: ModelSpec) -> dict[str, dict[str, float]]:
        bounds = dict(model.constraints if model.constraints is not None else self.constraints)
        if self.latency_budget is not None:
            bounds["perf_latency_p99"] = Bound(max=self.latency_budget)
        if self.min_throughput is not None:
            bounds["perf_throughput"] = Bound(min=self.min_throughput)
        return {tag: bound.model_dump(exclude_none=True) for tag, bound in bounds.items()}


_Relation = tuple[tuple[str, ...], str, str, str]


def _relation_faults(spec: JobSpec) -> Iterator[_Relation]:
    """Keys that a fault stands between, the one to point at, what is wrong, how to mend it."""
    less, more = "lower the one or raise the other", ("min_seconds", "max_seconds", "slice_seconds")
    for key in ("min_seconds", "slice_seconds"):
        if getattr(spec, key) > spec.max_seconds:
            default = "" if key in spec.model_fields_set else " (its default)"
            what = f"{key} {getattr(spec, key):g}{default} is above max_seconds {spec.max_seconds:g}"
            yield more, key, what, less
    yield from _load_faults(spec)
    if spec.model_repository is None and spec.triton_launch_mode != "remote":
        fix = "name the folder of the models (only the remote launch mode can do without)"
        yield ("model_repository", "triton_launch_mode"), "model_repository", "model_repository is missing", fix
    yield from _endpoint_faults(spec)
    for model in spec.models():
        if spec.client_protocol == "grpc" and model.call is not None and model.call.startswith("generate"):
            what = f"endpoint /{model.call} of {model.name} is HTTP's, and client_protocol is grpc"
            fix = "set client_protocol: http, or leave endpoint out: streaming works over gRPC, too"
            yield ("perf_analyzer_flags", "client_protocol", "profile_models"), "perf_analyzer_flags", what, fix
            break
    yield from _shared_memory_faults(spec)
    if spec.weighting is not None:
        what = "weighting stands for all models, and it weighs them against each other"
        yield ("weighting",), "weighting", what, "give it to a model, in profile_models"
    names = [model.name for model in spec.profile_models]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        what = f"profile_models names {', '.join(twice)} twice"
        yield ("profile_models",), "profile_models", what, "name a model once"
    if (phases := _count_phases(spec)) > MOST_PHASES:
        keys = ("profile_models", "batch_sizes", "concurrency", "request_rate")
        yield keys, "profile_models", f"the job has {phases} phases", f"sweep less: {MOST_PHASES} are the most"
    yield from _file_faults(spec)


def _shared_memory_faults(spec: JobSpec) -> Iterator[_Relation]:
    for model in spec.models():
        if model.input_source.shared_memory is not None and model.call not in (None, "infer"):
            what = (
                f"shared_memory: system, and streaming or endpoint in perf_analyzer_flags ({model.name}: {model.call})"
            )
            fix = "set shared_memory: none, or leave streaming and endpoint out: one place cannot hold several replies"
            yield ("shared_memory", "perf_analyzer_flags", "profile_models"), "perf_analyzer_flags", what, fix
            break


def _endpoint_faults(spec: JobSpec) -> Iterator[_Relation]:
    """A server is named by the endpoint that is not used: what listens at the other one's default may be another server."""
    protocol, other = spec.client_protocol, "http" if spec.client_protocol == "grpc" else "grpc"
    used, unused = f"triton_{protocol}_endpoint", f"triton_{other}_endpoint"
    moved = getattr(spec, unused) != JobSpec.model_fields[unused].default
    if spec.triton_launch_mode == "remote" and moved and used not in spec.model_fields_set:
        what = f"requests go over {protocol}, and only {unused} is given"
        fix = f"give {used}, too, or set client_protocol: {other}"
        yield ("triton_launch_mode", "client_protocol", used, unused), unused, what, fix


def _load_faults(spec: JobSpec) -> Iterator[_Relation]:
    given = [key for key in ("concurrency", "request_rate", "request_intervals") if getattr(spec, key)]
    for first, second in pairwise(given):
        yield (first, second), second, f"{first} and {second} are both given", _ONE_LOAD
    if given and "request-intervals" in spec.perf_analyzer_flags:
        what = f"{given[0]} and request-intervals are both given"
        yield (given[0], "perf_analyzer_flags"), "perf_analyzer_flags", what, _ONE_LOAD
    if spec.max_concurrency is not None and not _uses_request_rate(dict(spec))[1]:
        what = "max_concurrency has no effect: a closed loop has as many requests in flight as its concurrency says"
        keys = ("max_concurrency", "concurrency", "request_rate", "request_intervals", "perf_analyzer_flags")
        yield keys, "max_concurrency", what, "remove it, or give a request_rate"


def _count_phases(spec: JobSpec) -> int:
    swept = ((model, model_config.count(model.model_config_parameters)) for model in spec.models())
    return sum(
        len(model.batch_sizes) * max(len(model.loads), 1) * (1 + (variants if model.model_config_parameters else 0))
        for model, variants in swept
    )


def _file_faults(spec: JobSpec) -> Iterator[_Relation]:
    keys = ("filename_model_inference", "filename_model_gpu", "filename_server_only")
    for n, key in enumerate(keys):
        if any(getattr(spec, key) == getattr(spec, other) for other in keys[:n]):
            yield keys, key, f"{key} is the name of another table, too", "give each table a name of its own"


def pairs(values: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Flags or environment as texts, in order."""
    return tuple((name, _text(value)) for name, value in values.items())


def _text(value: Any) -> str:
    """As a command line has it: YAML's true is `true` there."""
    return str(value).lower() if isinstance(value, bool) else str(value)


@dataclass(frozen=True, slots=True)
class ResolvedModel:
    """A model of the job with global and own settings put together. constraints: in the tables' units.

    request_intervals: the file that the one load comes from; `loads` is empty until it is read. request_count: how many
    requests a phase measures; None: as the stop rule says.
    """

    name: str
    batch_sizes: tuple[int, ...]
    loads: tuple[Load, ...]
    input_source: InputSource
    call: Call | None
    tls: Tls | None
    model_config_parameters: Mapping[str, Any]
    cpu_only: bool
    objectives: Mapping[str, float]
    constraints: Mapping[str, Mapping[str, float]]
    weighting: float | None
    server: ServerSettings = field(default_factory=ServerSettings)
    request_intervals: str | None = None
    request_count: int | None = None
