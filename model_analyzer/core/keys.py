"""Keys of Triton Model Analyzer that do not do here what they do there: each is answered by name, none ignored."""

from __future__ import annotations

# Harmless: the job goes on without them, with a warning that says why.
WITHOUT_EFFECT: dict[str, str] = {
    "checkpoint_directory": "the store is in export_path; a rerun resumes from it",
    "output_model_repository_path": "variants are loaded through the server's API; nothing is copied",
    "override_output_model_repository": "variants are loaded through the server's API; nothing is copied",
    "always_report_gpu_metrics": "the GPU table always has a row for each phase",
    "collect_cpu_metrics": "CPU and RAM figures are always collected",
    "perf_analyzer_path": "the load generator is built in",
    "perf_analyzer_cpu_util": "the load generator watches its own CPU use and says so on the row",
    "perf_analyzer_max_auto_adjusts": "a phase is extended until its interval is narrow enough: see precision, max_seconds",
    "perf_output": "slices are in the store: see export_path",
    "perf_output_path": "slices are in the store: see export_path",
    "triton_install_path": "it belongs to the c_api launch mode, which does not exist here",
    "skip_summary_reports": "reports are not written yet; the tables always are",
    "skip_detailed_reports": "reports are not written yet; the tables always are",
    "num_configs_per_model": "reports are not written yet; the tables show every row",
    "num_top_model_configs": "reports are not written yet; the tables show every row",
    "plots": "reports are not written yet; the tables hold every figure",
    "early_exit_enable": "every phase asked for is measured",
    "run_config_search_disable": "there is no automatic search: the values given are measured",
    "concurrency_sweep_disable": "there is no automatic search: the values given are measured",
}

_GIVE_VALUES = "instead list the values: concurrency, batch_sizes, model_config_parameters"
# They change what is measured: to go on without them would be to measure something else.
NOT_SUPPORTED: dict[str, str] = {
    **{
        f"run_config_search_{bound}_{what}": f"automatic search; {_GIVE_VALUES}"
        for bound in ("min", "max")
        for what in ("concurrency", "request_rate", "instance_count", "model_batch_size")
    },
    "run_config_search_max_binary_search_steps": f"automatic search; {_GIVE_VALUES}",
    "run_config_search_mode": f"automatic search; {_GIVE_VALUES}",
    "run_config_profile_models_concurrently_enable": "several models under load at once; instead measure one after the other",
    "request_rate_search_enable": "automatic search; instead list the values: request_rate",
    "min_percentage_of_search_space": f"optuna search; {_GIVE_VALUES}",
    "max_percentage_of_search_space": f"optuna search; {_GIVE_VALUES}",
    "optuna_min_trials": f"optuna search; {_GIVE_VALUES}",
    "optuna_max_trials": f"optuna search; {_GIVE_VALUES}",
    "optuna_early_exit_threshold": f"optuna search; {_GIVE_VALUES}",
    "use_concurrency_formula": "concurrency from instances and batch size; instead list the values: concurrency",
    "bls_composing_models": "composing models; instead profile the models one by one",
    "ensemble_composing_models": "composing models; instead profile the ensemble as a model, or its parts one by one",
    "cpu_only_composing_models": "composing models; instead profile the models one by one, with cpu_only",
    "genai_perf_flags": "LLM metrics; instead measure the model's requests as they are",
    "model_type": "LLM metrics; instead measure the model's requests as they are (model_type: generic)",
    "perf_analyzer_timeout": "a limit for perf_analyzer's process; instead set max_seconds and request_timeout_seconds",
}
# Values with which such a key asks for nothing that we do not do.
NO_DEMAND: dict[str, tuple[object, ...]] = {
    "run_config_profile_models_concurrently_enable": (False,),
    "request_rate_search_enable": (False,),
    "use_concurrency_formula": (False,),
    "bls_composing_models": ([], None, ""),
    "ensemble_composing_models": ([], None, ""),
    "cpu_only_composing_models": ([], None, ""),
    "model_type": ("generic",),
}

# perf_analyzer's flags: what works, and what each other one is answered with.
PERF_FLAGS_WORK: dict[str, str] = {
    "input-data": "random, zero, or a JSON data file",
    "shape": "dims of an input without the batch dimension: NAME:3,224,224; several as a list",
    "string-length": "bytes of a random string",
    "string-data": "one fixed string for every BYTES input",
    "request-distribution": "constant or poisson, of an open loop",
    "ssl-https-ca-certificates-file": "CA certificates for https",
    "ssl-https-client-certificate-file": "client certificate for https",
    "ssl-https-private-key-file": "client key for https",
    "ssl-https-verify-peer": "0: accept any certificate",
    "ssl-https-verify-host": "0: accept a certificate of another host",
    "ssl-grpc-use-ssl": "gRPC over TLS",
    "ssl-grpc-root-certifications-file": "CA certificates for gRPC",
    "ssl-grpc-certificate-chain-file": "client certificate for gRPC",
    "ssl-grpc-private-key-file": "client key for gRPC",
}
_STOP = "the stop rule; see precision, min_seconds, max_seconds"
PERF_FLAGS_WITHOUT_EFFECT: dict[str, str] = {
    "measurement-interval": _STOP, "measurement-mode": _STOP, "measurement-request-count": _STOP,
    "stability-percentage": _STOP, "max-trials": _STOP, "async": "the load is always asynchronous",
    "sync": "the load is always asynchronous", "max-threads": "one event loop drives the load",
    "percentile": "p50, p90, p95 and p99 are always measured", "verbose": "see the store", "extra-verbose": "see the store",
    "verbose-csv": "the tables have every figure", "latency-report-file": "see filename_model_inference",
    "collect-metrics": "metrics are always collected", "metrics-url": "see triton_metrics_url",
    "metrics-interval": "see monitoring_interval", "triton-server-directory": "see triton_server_path",
    "model-repository": "see model_repository", "ssl-https-client-certificate-type": "PEM is read",
    "ssl-https-private-key-type": "PEM is read",
}  # fmt: skip
PERF_FLAGS_NOT_SUPPORTED: dict[str, str] = {
    "service-kind": "servers other than Triton; leave it out",
    "model-signature-name": "servers other than Triton; leave it out",
    "model-version": "a chosen version; instead set version_policy in model_config_parameters",
    "concurrency-range": "instead set concurrency", "request-rate-range": "instead set request_rate",
    "request-intervals": "custom intervals; instead set request_rate", "binary-search": "instead list the values: concurrency",
    "latency-threshold": "instead set constraints: {perf_latency_p99: {max: ...}}", "batch-size": "instead set batch_sizes",
    "num-of-sequences": "sequences; instead profile without them", "sequence-length": "sequences; instead profile without them",
    "sequence-id-range": "sequences; instead profile without them", "shared-memory": "shared memory; instead send tensors",
    "output-shared-memory-size": "shared memory; instead send tensors", "streaming": "streaming; instead profile request by request",
    "grpc-compression-algorithm": "compression; leave it out", "bls-composing-models": "composing models; leave it out",
    "url": "instead set triton_http_endpoint or triton_grpc_endpoint", "protocol": "instead set client_protocol",
    "model-name": "instead set profile_models", "http-header": "extra headers; leave it out",
}  # fmt: skip
