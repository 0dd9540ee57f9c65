"""Triton Model Analyzer's keys, and perf_analyzer's flags, that do not do here what they do there.

Each is answered by name, none is ignored in silence. A key that changes WHAT is
measured is refused: to go on without it would be to measure something else. A
key that is plumbing, or belongs to reports, is accepted with a warning. Every
key of 1.58 stands here or is a field of JobSpec.
"""

from __future__ import annotations

from typing import Literal, NamedTuple


class Key(NamedTuple):
    """A key that is answered by name.

    effect: "none": a warning; "refused": a fault; "search": a fault unless run_config_search_disable is true.
    why: what it stands for, or why it does nothing. instead: how to get what one wanted from it.
    agrees: values (as lower-case text) that ask for what happens anyway; they are accepted without a word.
    """

    name: str
    effect: Literal["none", "refused", "search"]
    why: str
    instead: str
    agrees: tuple[str, ...] = ()

    def answer(self, value: object, search_disabled: bool) -> Literal["fault", "warning"] | None:
        """How the key is to be answered where it has this value."""
        if str(value).strip().lower() in self.agrees:
            return None
        return "fault" if self.effect == "refused" or (self.effect == "search" and not search_disabled) else "warning"


_NONE_GIVEN = ("[]", "")
_SEARCH = "automatic search"
_OPTUNA = "optuna search"
_VALUES = "list the values: batch_sizes, concurrency, model_config_parameters"
_COMPOSING = "search over the parts of an ensemble"
_PROMPTS = "prompts made by GenAI-Perf"
_API = "variants are loaded through the server's API; no files are written"
_REPORTS = "no report files are written"
_TABLES = "read the tables in export_path"
_OWN_CLIENT = "the load generator is built in"
_STOP = "a phase is measured until its interval is narrow enough"
_STOP_KEYS = "set precision, latency_precision, min_seconds, max_seconds"
_C_API = "it belongs to the c_api launch mode"
_LOOP = "one event loop keeps every request in flight"
# (why, instead) of families of flags.
_SEQUENCES = ("sequences of requests", "measure models without state")
_TRACES = ("it belongs to trace-level", "leave it out")

# fmt: off
KEYS: dict[str, Key] = {key.name: key for key in (
    # what is measured
    Key("run_config_search_mode", "search", _SEARCH, _VALUES, ("brute",)),
    *(Key(f"run_config_search_{end}_{what}", "search", f"bound of the {_SEARCH}", _VALUES)
      for what in ("concurrency", "request_rate", "instance_count", "model_batch_size") for end in ("min", "max")),
    Key("run_config_search_max_binary_search_steps", "search", f"bound of the {_SEARCH}", _VALUES),
    Key("run_config_search_disable", "none", "there is no automatic search: the values given are measured", "remove it", ("true",)),
    Key("request_rate_search_enable", "refused", "search over request rates", "list the values: request_rate", ("false",)),
    Key("min_percentage_of_search_space", "search", _OPTUNA, _VALUES),
    Key("max_percentage_of_search_space", "search", _OPTUNA, _VALUES),
    Key("optuna_min_trials", "search", _OPTUNA, _VALUES),
    Key("optuna_max_trials", "search", _OPTUNA, _VALUES),
    Key("optuna_early_exit_threshold", "search", _OPTUNA, _VALUES),
    Key("use_concurrency_formula", "search", "concurrency from instances and batch size", "list the values: concurrency", ("false",)),
    Key("run_config_profile_models_concurrently_enable", "refused", "several models under load at once",
        "leave it out: models are measured one after the other", ("false",)),
    Key("bls_composing_models", "refused", _COMPOSING, "name the BLS model, or its parts, in profile_models", _NONE_GIVEN),
    Key("ensemble_composing_models", "refused", _COMPOSING, "name the ensemble, or its parts, in profile_models", _NONE_GIVEN),
    Key("cpu_only_composing_models", "refused", _COMPOSING, "name the parts in profile_models, with cpu_only", _NONE_GIVEN),
    Key("model_type", "none", "a model that streams is timed response by response whatever it is called", "remove it",
        ("generic", "llm")),
    Key("genai_perf_flags", "refused", _PROMPTS, "give the prompts as input-data in perf_analyzer_flags, and streaming there"),
    Key("early_exit_enable", "none", "every phase asked for is measured", "shorten the lists of values", ("false",)),
    Key("concurrency_sweep_disable", "none", "it belongs to an automatic search, and there is none", "remove it"),
    # how it is measured
    Key("perf_analyzer_timeout", "none", _OWN_CLIENT, "max_seconds bounds a phase, request_timeout_seconds a request"),
    Key("perf_analyzer_cpu_util", "none", "the load generator watches its own CPU use", "see the Client Limited column"),
    Key("perf_analyzer_path", "none", _OWN_CLIENT, "remove it"),
    Key("perf_analyzer_max_auto_adjusts", "none", _STOP, _STOP_KEYS),
    Key("perf_output", "none", _OWN_CLIENT, "every slice is in the store in export_path", ("false",)),
    Key("perf_output_path", "none", _OWN_CLIENT, "every slice is in the store in export_path"),
    Key("collect_cpu_metrics", "none", "CPU and RAM figures are always collected", "remove it", ("true",)),
    Key("always_report_gpu_metrics", "none", "the GPU table always has a row for each phase", "remove it", ("true",)),
    Key("triton_install_path", "none", _C_API, "remove it"),
    # where results go
    Key("checkpoint_directory", "none", "the store in export_path is the checkpoint", "keep export_path: a rerun resumes from it"),
    Key("output_model_repository_path", "none", _API, "remove it"),
    Key("override_output_model_repository", "none", _API, "remove it"),
    Key("config_file", "none", "the job spec is the file given with -f", "remove it"),
    Key("skip_summary_reports", "none", _REPORTS, _TABLES, ("true",)),
    Key("skip_detailed_reports", "none", _REPORTS, _TABLES, ("true",)),
    Key("num_configs_per_model", "none", _REPORTS, _TABLES),
    Key("num_top_model_configs", "none", _REPORTS, _TABLES, ("0",)),
    Key("plots", "none", _REPORTS, _TABLES),
    Key("report_model_configs", "none", _REPORTS, _TABLES),
    Key("output_formats", "none", _REPORTS, _TABLES),
)}

# perf_analyzer's flags that work ...
PERF_FLAGS_WORK: dict[str, str] = {
    "input-data": "`random`, `zero`, a JSON data file, or a directory with a raw file for each input; `validation_data` is not compared",
    "shape": "dims of an input without the batch dimension: `NAME:3,224,224`; several as a list",
    "string-length": "bytes of a random BYTES element; default 128",
    "string-data": "one fixed text for every BYTES element",
    "request-distribution": "`constant` (default) or `poisson`: the send times of an open loop",
    "shared-memory": "`none` or `system`, instead of the key `shared_memory`; `cuda` is not supported yet",
    "output-shared-memory-size": "bytes for one inference's output of datatype BYTES or with dynamic dims; default 102400",
    "request-intervals": "the key `request_intervals`",
    "request-count": "the key `request_count`",
    "streaming": "gRPC: ModelStreamInfer also for a model that is not decoupled; HTTP: /generate_stream",
    "endpoint": "HTTP: `infer` (default), `generate` or `generate_stream`, the generate extension; decoupled models need none of this",
    "ssl-https-ca-certificates-file": "HTTP: CA certificates. Any ssl-https-* flag, or https:// in the endpoint, turns TLS on",
    "ssl-https-client-certificate-file": "HTTP: client certificate, PEM",
    "ssl-https-client-certificate-type": "HTTP: `PEM`; DER is not supported yet",
    "ssl-https-private-key-file": "HTTP: client key, PEM",
    "ssl-https-private-key-type": "HTTP: `PEM`; DER is not supported yet",
    "ssl-https-verify-peer": "HTTP: 0 accepts any certificate",
    "ssl-https-verify-host": "HTTP: 0 accepts a certificate of another host; 1 or 2 does not",
    "ssl-grpc-use-ssl": "gRPC over TLS; grpcs:// in the endpoint turns it on, too",
    "ssl-grpc-root-certifications-file": "gRPC: CA certificates. Naming a file turns TLS on, too",
    "ssl-grpc-certificate-chain-file": "gRPC: client certificate",
    "ssl-grpc-private-key-file": "gRPC: client key",
}
# ... and those that are answered by name.
PERF_FLAGS: dict[str, Key] = {key.name: key for key in (
    # what is measured
    Key("service-kind", "refused", "servers other than Triton", "leave it out", ("triton",)),
    Key("model-signature-name", "refused", "servers other than Triton", "leave it out"),
    Key("model-name", "refused", "another model than the one measured", "set profile_models"),
    Key("model-version", "refused", "a chosen version", "set version_policy in model_config_parameters"),
    Key("batch-size", "refused", "a batch size of its own", "set batch_sizes"),
    Key("concurrency-range", "refused", "a sweep of its own", "set concurrency"),
    Key("request-rate-range", "refused", "a sweep of its own", "set request_rate"),
    Key("binary-search", "refused", "a search of its own", "list the values: concurrency", ("false",)),
    Key("latency-threshold", "refused", "a bound of a search of its own", "set latency_budget"),
    Key("num-of-sequences", "refused", *_SEQUENCES),
    Key("sequence-length", "refused", *_SEQUENCES),
    Key("sequence-length-variation", "refused", *_SEQUENCES),
    Key("sequence-id-range", "refused", *_SEQUENCES),
    Key("serial-sequences", "refused", *_SEQUENCES, ("false",)),
    Key("session-concurrency", "refused", "sessions of chat requests", "set concurrency"),
    Key("periodic-concurrency-range", "refused", "a concurrency that grows within one measurement", "list the values: concurrency"),
    Key("request-period", "refused", "it belongs to periodic-concurrency-range", "leave it out"),
    Key("fixed-schedule", "refused", "send times in the input data", "give the times between requests as a file: request_intervals", ("false",)),
    Key("request-parameter", "refused", "parameters beside a request's inputs", "leave it out, or give the value as an input, in input-data"),
    Key("input-tensor-format", "refused", "tensors as JSON", "leave it out: tensors are sent as bytes", ("binary",)),
    Key("output-tensor-format", "refused", "tensors as JSON", "leave it out: tensors are answered as bytes", ("binary",)),
    Key("data-directory", "refused", "the old name of input-data", "set input-data"),
    Key("trace-level", "refused", "traces that the server writes", "set them on the server itself (its flag trace-config)", ("off",)),
    Key("trace-rate", "refused", *_TRACES),
    Key("trace-count", "refused", *_TRACES),
    Key("log-frequency", "refused", *_TRACES),
    Key("grpc-compression-algorithm", "refused", "compressed requests", "leave it out", ("none",)),
    Key("grpc-method", "refused", "gRPC methods of one's own", "leave it out"),
    Key("enable-mpi", "refused", "several clients in step through MPI", "leave it out: client_workers are the processes of one client",
        ("false",)),
    Key("http-header", "refused", "headers of one's own", "leave it out"),
    Key("bls-composing-models", "refused", _COMPOSING, "leave it out"),
    Key("url", "refused", "an endpoint of its own", "set triton_http_endpoint or triton_grpc_endpoint"),
    Key("protocol", "refused", "a protocol of its own", "set client_protocol"),
    Key("metrics-url", "refused", "a metrics page of its own", "set triton_metrics_url"),
    # how it is measured
    Key("measurement-interval", "none", _STOP, "set min_seconds (in seconds)"),
    Key("measurement-mode", "none", _STOP, _STOP_KEYS),
    Key("measurement-request-count", "none", _STOP, _STOP_KEYS),
    Key("warmup-request-count", "none", "each slice warms up until its load has settled", "remove it", ("0",)),
    Key("stability-percentage", "none", _STOP, _STOP_KEYS),
    Key("max-trials", "none", _STOP, _STOP_KEYS),
    Key("percentile", "none", "p50, p90, p95 and p99 are always measured", "name them in inference_output_fields"),
    Key("async", "none", _LOOP, "remove it", ("true",)),
    Key("sync", "none", _LOOP, "remove it", ("false",)),
    Key("max-threads", "none", _LOOP, "remove it"),
    Key("collect-metrics", "none", "metrics are always collected", "remove it", ("true",)),
    Key("metrics-interval", "none", "metrics are scraped by ourselves", "set monitoring_interval (in seconds)"),
    Key("triton-server-directory", "none", _C_API, "remove it"),
    Key("model-repository", "none", _C_API, "set model_repository"),
    Key("latency-report-file", "none", _OWN_CLIENT, _TABLES),
    Key("profile-export-file", "none", _OWN_CLIENT, "every slice is in the store in export_path"),
    Key("verbose", "none", _OWN_CLIENT, "remove it"),
    Key("version", "none", _OWN_CLIENT, "remove it"),
    Key("extra-verbose", "none", _OWN_CLIENT, "remove it"),
    Key("verbose-csv", "none", _OWN_CLIENT, _TABLES),
)}
# fmt: on

# Without effect unless triton_launch_mode is the one that they belong to.
MODE_KEYS: dict[str, tuple[str, ...]] = {
    "remote": (
        "triton_http_endpoint",
        "triton_grpc_endpoint",
        "triton_metrics_url",
        "client_max_retries",
        "reload_model_disable",
        "touch_models_in_use",
    ),
    "docker": (
        "triton_docker_image",
        "triton_docker_mounts",
        "triton_docker_labels",
        "triton_docker_shm_size",
        "triton_docker_args",
    ),
}
# Of a server that we start, in whichever launch mode.
NOT_REMOTE_KEYS = (
    "triton_server_flags",
    "triton_server_environment",
    "triton_output_path",
    "server_start_timeout_seconds",
)
