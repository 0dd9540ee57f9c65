"""The flags of the commands that take a job spec: Triton Model Analyzer's names and short forms.

One row a flag: the key of the job spec that it sets, and its help. The values
are taken as text and judged by the same rules as the YAML's.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any

import typer

from model_analyzer.cli import said


@dataclass(frozen=True, slots=True)
class Flag:
    """A flag of `profile`, `plan` and `validate`. kind: "text", "list" (comma or repeated) or "switch".

    hidden: not in --help; the flag is Triton Model Analyzer's, and its key is answered by name (core/keys.py).
    """

    key: str
    names: tuple[str, ...]
    help: str
    kind: str = "text"
    hidden: bool = False


FLAGS = (
    Flag("model_repository", ("-m", "--model-repository"), "Folder of the models, as Triton reads it."),
    Flag("profile_models", ("-n", "--profile-models"), "Models to measure.", "list"),
    Flag("batch_sizes", ("-b", "--batch-sizes"), "Batch sizes: 1,4,8 or start:stop:step.", "list"),
    Flag("concurrency", ("-c", "--concurrency"), "Requests kept in flight: 1,8 or start:stop:step.", "list"),
    Flag("request_rate", ("--request-rate",), "Requests a second (open loop) instead of a concurrency.", "list"),
    Flag("request_intervals", ("--request-intervals",), "File of microseconds between requests (open loop)."),
    Flag("max_concurrency", ("--max-concurrency",), "Open loop: requests in flight at most."),
    Flag("ramp_seconds", ("--ramp-seconds",), "Let the load grow for so long before it is measured."),
    Flag("request_count", ("--request-count",), "Measure a phase until it has so many requests."),
    Flag("export_path", ("-e", "--export-path"), "Folder for the store, the tables and the server's log."),
    Flag("duration_seconds", ("-d", "--duration-seconds"), "How long the server is watched with no model loaded."),
    Flag("monitoring_interval", ("-i", "--monitoring-interval"), "Seconds between scrapes of the metrics."),
    Flag("client_max_retries", ("-r", "--client-max-retries"), "Tries, a second apart, to reach the server."),
    Flag("client_protocol", ("--client-protocol",), "grpc or http."),
    Flag("shared_memory", ("--shared-memory",), "none, or system: tensors lie in shared memory and are not sent."),
    Flag(
        "output_shared_memory_size",
        ("--output-shared-memory-size",),
        "Bytes of shared memory for an output whose size the model leaves open.",
    ),
    Flag("client_workers", ("--client-workers",), "Processes of the load generator: auto, or how many."),
    Flag("client_cpus", ("--client-cpus",), "Pin them to these CPUs: 2-3 or 2,3.", "list"),
    Flag("triton_launch_mode", ("--triton-launch-mode",), "remote, local, embedded or docker."),
    Flag("triton_http_endpoint", ("--triton-http-endpoint",), "host:port of a running server, HTTP."),
    Flag("triton_grpc_endpoint", ("--triton-grpc-endpoint",), "host:port of a running server, gRPC."),
    Flag("triton_metrics_url", ("--triton-metrics-url",), "URL of a running server's metrics page."),
    Flag("triton_server_path", ("--triton-server-path",), "The tritonserver program for the local launch mode."),
    Flag("triton_docker_image", ("--triton-docker-image",), "Image for the docker launch mode."),
    Flag("triton_docker_mounts", ("--triton-docker-mounts",), "Extra mounts, host:container:mode.", "list"),
    Flag("triton_docker_shm_size", ("--triton-docker-shm-size",), "Size of /dev/shm in the container, such as 1G."),
    Flag("triton_output_path", ("--triton-output-path",), "File for the server's output instead of the export path's."),
    Flag("gpus", ("--gpus",), "GPUs that count: all, or UUIDs or indices.", "list"),
    Flag("dcgm_exporter_url", ("--dcgm-exporter-url",), "Metrics page of a DCGM exporter; may be repeated.", "list"),
    Flag("dcgm_discovery", ("--dcgm-discovery",), "In a pod: find the own node's DCGM exporter; auto or off."),
    Flag("dcgm_exporter_namespaces", ("--dcgm-exporter-namespaces",), "Look for it in these namespaces only.", "list"),
    Flag("triton_server_identity", ("--triton-server-identity",), "Tells this server from others at its address."),
    Flag("export_path_wait_seconds", ("--export-path-wait-seconds",), "Wait for another run in the export path."),
    Flag("shards", ("--shards",), "Spread the variants over so many runs."),
    Flag("shard_index", ("--shard-index",), "Which of them this is, from 0 (default: JOB_COMPLETION_INDEX)."),
    Flag("log_format", ("--log-format",), "Progress as text or json."),
    Flag("metrics_port", ("--metrics-port",), "Serve this run's own metrics on this port."),
    Flag("annotate_job", ("--annotate-job",), "In a pod: show progress as annotations of this Job."),
    Flag("min_gpu_samples", ("--min-gpu-samples",), "Extend a phase until so many fresh GPU samples fell inside."),
    Flag("repeats", ("--repeats",), "Measure every phase so often, each time with its model loaded anew."),
    Flag("min_seconds", ("--min-seconds",), "Measure a phase for at least so long."),
    Flag("max_seconds", ("--max-seconds",), "Measure a phase for at most so long."),
    Flag("precision", ("--precision",), "Stop when throughput is known to this share (0.05 is 5 %)."),
    Flag("filename_model_inference", ("--filename-model-inference",), "Name of the inference table's file."),
    Flag("filename_model_gpu", ("--filename-model-gpu",), "Name of the GPU table's file."),
    Flag("filename_server_only", ("--filename-server-only",), "Name of the server-only table's file."),
    Flag("inference_output_fields", ("--inference-output-fields",), "Columns of the inference table.", "list"),
    Flag("gpu_output_fields", ("--gpu-output-fields",), "Columns of the GPU table.", "list"),
    Flag("server_output_fields", ("--server-output-fields",), "Columns of the server-only table.", "list"),
    Flag("latency_budget", ("--latency-budget",), "Constraint: p99 latency of at most so many ms."),
    Flag("min_throughput", ("--min-throughput",), "Constraint: at least so many infer/s."),
    Flag("dcgm_disable", ("--dcgm-disable",), "Do not read DCGM exporters.", "switch"),
    Flag("collect_cpu_metrics", ("--collect-cpu-metrics",), "Accepted; CPU figures are always collected.", "switch"),
    Flag(
        "reload_model_disable", ("--reload-model-disable",), "Use what a remote server has loaded, as it is.", "switch"
    ),
    Flag(
        "touch_models_in_use",
        ("--touch-models-in-use",),
        "Reload a remote server's model even if it has traffic.",
        "switch",
    ),
)


def _answered(key: str, *short: str, kind: str = "text") -> Flag:
    return Flag(
        key, (*short, f"--{key.replace('_', '-')}"), "Answered by name; see docs/job-spec.md.", kind, hidden=True
    )


# Triton Model Analyzer's flags for keys that are answered by name: on the command line, too, by name and not as unknown.
ANSWERED = (
    _answered("checkpoint_directory", "-s"),
    *(
        _answered(key, kind="switch")
        for key in (
            "always_report_gpu_metrics",
            "skip_summary_reports",
            "skip_detailed_reports",
            "override_output_model_repository",
            "perf_output",
            "early_exit_enable",
            "use_concurrency_formula",
            "run_config_search_disable",
            "run_config_profile_models_concurrently_enable",
            "request_rate_search_enable",
            "concurrency_sweep_disable",
        )
    ),
    *(
        _answered(key)
        for key in (
            "model_type",
            "output_model_repository_path",
            "bls_composing_models",
            "ensemble_composing_models",
            "cpu_only_composing_models",
            "perf_analyzer_timeout",
            "perf_analyzer_cpu_util",
            "perf_analyzer_path",
            "perf_output_path",
            "perf_analyzer_max_auto_adjusts",
            "triton_install_path",
            "run_config_search_max_concurrency",
            "run_config_search_min_concurrency",
            "run_config_search_max_request_rate",
            "run_config_search_min_request_rate",
            "run_config_search_max_instance_count",
            "run_config_search_min_instance_count",
            "run_config_search_max_model_batch_size",
            "run_config_search_min_model_batch_size",
            "run_config_search_max_binary_search_steps",
            "min_percentage_of_search_space",
            "max_percentage_of_search_space",
            "optuna_min_trials",
            "optuna_max_trials",
            "optuna_early_exit_threshold",
            "run_config_search_mode",
            "num_configs_per_model",
            "num_top_model_configs",
        )
    ),
)
# Key -> how the flag is spelled where a fault points at it.
FLAG_NAMES = {flag.key: flag.names[-1] for flag in (*FLAGS, *ANSWERED)}
# Triton Model Analyzer's flags for how much it prints; they are no keys of a job.
_TALK = {"verbose": ("-v", "--verbose"), "quiet": ("-q", "--quiet")}


def with_spec_flags(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command `-f` and every flag of FLAGS; it is called with `config_file` and `values` (key -> given value)."""

    def run(**given: Any) -> None:
        extra = {name: given.pop(name) for name in list(given) if name in own}
        config_file = given.pop("config_file")
        for talk, names in _TALK.items():
            if given.pop(talk):
                said.warning(f"{names[-1]} has no effect; redirect the output instead")
        command(config_file=config_file, values=_given(given), **extra)

    own = {p.name: p for p in inspect.signature(command, eval_str=True).parameters.values()}
    own.pop("config_file")
    own.pop("values")
    parameters = [*_parameters(), *own.values()]
    run.__name__, run.__doc__ = command.__name__, command.__doc__
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    return run


@cache
def _parameters() -> tuple[inspect.Parameter, ...]:
    """`-f` and every flag; the same ones for each command."""
    file_flag = Annotated[
        str | None, typer.Option("-f", "--config-file", help="Job spec (YAML).", show_default=False, metavar="FILE")
    ]
    return (
        _parameter("config_file", file_flag, None),
        *map(_flag_parameter, (*FLAGS, *ANSWERED)),
        *(_flag_parameter(Flag(key, names, "Accepted.", "switch", hidden=True)) for key, names in _TALK.items()),
    )


def _flag_parameter(flag: Flag) -> inspect.Parameter:
    kinds: Mapping[str, Any] = {"text": str | None, "list": list[str] | None, "switch": bool}
    metavar = {"text": "VALUE", "list": "LIST", "switch": None}[flag.kind]
    option = typer.Option(*flag.names, help=flag.help, show_default=False, hidden=flag.hidden, metavar=metavar)
    return _parameter(flag.key, Annotated[kinds[flag.kind], option], False if flag.kind == "switch" else None)


def _parameter(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    """What was given, lists flattened at their commas."""
    given = {key: value for key, value in values.items() if value not in (None, False, [])}
    return {key: split(value) if isinstance(value, list) else value for key, value in given.items()}


def split(items: list[str]) -> list[str]:
    """`-b 1,4 -b 8` as 1, 4, 8."""
    return [part.strip() for item in items for part in item.split(",") if part.strip()]
