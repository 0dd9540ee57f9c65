"""METRICS: the one place where a metric, and a column, is described.

A new metric is one row here and the code that produces its value. Headers,
units of the tables, the reduction over a phase, the docs page and the names a
job spec may use in objectives, constraints and output fields all come from it.
Tags and headers are Triton Model Analyzer's wherever it has one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

Reduce = Literal["max", "avg", "min", "sum"]
Scope = Literal["phase", "gpu", "host"]

MS = 1e-6  # from ns
MB = 1e-6  # from bytes: 1 MB = 10^6 bytes, as in Triton Model Analyzer
PERCENT = 100.0
MIB = 2**20


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric.

    scale: from the project's unit (ratio, bytes, ns, W, J, Hz, infer/s) to the table's. better: which direction a
    search prefers. reduce: how samples of a phase become one value (phase metrics: how the value is formed is in
    `meaning`). sources: Prometheus names in order of preference, or what it is computed from. first_round: taken from
    the first, ascending round only, before a larger load has grown the server's memory for good.
    """

    tag: str
    header: str
    unit: str
    scale: float
    better: Literal["higher", "lower", ""]
    scope: Scope
    meaning: str
    sources: tuple[str, ...] = ()
    reduce: Reduce = "avg"
    digits: int = 3
    first_round: bool = False
    measured: bool = True


@dataclass(frozen=True, slots=True)
class Column:
    """A column that is no metric: what the row is about, or what to know of it."""

    tag: str
    header: str
    meaning: str


def _latency(tag: str, name: str, what: str) -> Metric:
    return Metric(tag, f"{name} Latency (ms)", "ms", MS, "lower", "phase", what, ("client",))


def _server_time(tag: str, name: str, counter: str) -> Metric:
    meaning = f"Server time a request spent in {name}: delta {counter} / delta nv_inference_request_success."
    header = f"Server {name.title()} time (ms)"
    return Metric(tag, header, "ms", MS, "lower", "phase", meaning, (counter,))


def _llm(tag: str, header: str, what: str) -> Metric:
    return Metric(tag, header, "ms", MS, "lower", "phase", what, ("client",))


_ENDS = {"avg": "Mean", "min": "Smallest", "max": "Largest"}


def _end(name: str) -> str:
    return _ENDS.get(name) or f"{name[1:]}th percentile of the"


def _llm_interval(tag: str, name: str, q: str) -> Metric:
    end = q if q[0] == "p" else q.title()
    of = f"{'mean' if q == 'avg' else q} {name.lower()}"
    meaning = f"Half-width of the 95 % confidence interval of the {of}, streams only."
    return _llm(f"{tag}_{q}_ci", f"{end} {name} Interval (+-ms)", meaning)


_QUANTILES = ("avg", "min", "max", "p99", "p95", "p90", "p75", "p50", "p25")

_ALL: tuple[Metric, ...] = (
    Metric("perf_throughput", "Throughput (infer/sec)", "infer/s", 1, "higher", "phase",
           "Requests served x batch size / measured seconds; those across an end of a slice count by their share.", ("client",), digits=1),
    Metric("perf_throughput_ci", "Throughput Interval (+-infer/sec)", "infer/s", 1, "lower", "phase",
           "Half-width of the 95 % confidence interval of the throughput.", ("client",), digits=1),
    _latency("perf_latency_avg", "Avg", "Mean time from just before a request's first byte is sent to its reply's last byte."),
    _latency("perf_latency_p50", "p50", "50th percentile of latency."),
    _latency("perf_latency_p90", "p90", "90th percentile of latency."),
    _latency("perf_latency_p95", "p95", "95th percentile of latency."),
    _latency("perf_latency_p99", "p99", "99th percentile of latency."),
    _latency("perf_latency", "p99", "Triton Model Analyzer's older name of perf_latency_p99."),
    _latency("perf_latency_max", "Max", "The largest latency."),
    Metric("perf_latency_p99_ci", "p99 Latency Interval (+-ms)", "ms", MS, "lower", "phase",
           "Half-width of the 95 % confidence interval of the p99 latency.", ("client",)),
    Metric("repeats", "Repeats", "repeats", 1, "", "phase",
           "How often the phase was measured, each time with the model loaded anew; the row is of all together.", ("client",),
           digits=0),
    Metric("perf_throughput_repeats_cv", "Throughput CV over Repeats (%)", "%", PERCENT, "lower", "phase",
           "Coefficient of variation of the repeats' throughput: standard deviation / mean.", ("client",), digits=1),
    Metric("perf_latency_p99_repeats_cv", "p99 CV over Repeats (%)", "%", PERCENT, "lower", "phase",
           "Coefficient of variation of the repeats' p99 latency: standard deviation / mean.", ("client",), digits=1),
    Metric("perf_client_response_wait", "Response Wait Time (ms)", "ms", MS, "lower", "phase",
           "perf_analyzer's split of client time; not measured: replies are timed whole.", measured=False),
    Metric("perf_client_send_recv", "Client Send/Recv (ms)", "ms", MS, "lower", "phase",
           "perf_analyzer's split of client time; not measured: replies are timed whole.", measured=False),
    _server_time("perf_server_queue", "queue", "nv_inference_queue_duration_us"),
    _server_time("perf_server_compute_input", "compute input", "nv_inference_compute_input_duration_us"),
    _server_time("perf_server_compute_infer", "compute infer", "nv_inference_compute_infer_duration_us"),
    _server_time("perf_server_compute_output", "compute output", "nv_inference_compute_output_duration_us"),
    Metric("server_average_batch", "Server Average Batch", "inferences", 1, "higher", "phase",
           "delta nv_inference_count / delta nv_inference_exec_count: how far dynamic batching filled a batch.",
           ("nv_inference_count", "nv_inference_exec_count"), digits=2),
    Metric("cache_hit_ratio", "Cache Hit Ratio (%)", "%", PERCENT, "higher", "phase",
           "delta nv_cache_num_hits_per_model / (hits + misses).",
           ("nv_cache_num_hits_per_model", "nv_cache_num_misses_per_model"), digits=1),
    Metric("requests_succeeded", "Requests Succeeded", "requests", 1, "higher", "phase",
           "Requests answered well inside the measured time, counted by the client.", ("client",), digits=0),
    Metric("requests_failed", "Requests Failed", "requests", 1, "lower", "phase",
           "Requests that failed inside the measured time, counted by the client.", ("client",), digits=0),
    Metric("server_requests_succeeded", "Server Requests Succeeded", "requests", 1, "higher", "phase",
           "delta nv_inference_request_success over the same time.", ("nv_inference_request_success",), digits=0),
    Metric("server_requests_failed", "Server Requests Failed", "requests", 1, "lower", "phase",
           "delta nv_inference_request_failure over the same time, all reasons.", ("nv_inference_request_failure",), digits=0),
    Metric("energy_per_inference", "Energy per Inference (J)", "J", 1, "lower", "phase",
           "Energy of the GPUs / inferences: sum of the differences of their energy counters within slices / sum of"
           " (infer/s x seconds between the refreshes that they lie between). Where no counter refreshed twice within a"
           " slice: average power x time (then a note says so). Not of MIG instances: the counter is of the whole GPU.",
           ("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", "nv_energy_consumption", "DCGM_FI_DEV_POWER_USAGE",
            "nv_gpu_power_usage"), digits=6),
    Metric("energy_per_inference_ci", "Energy per Inference Interval (+-J)", "J", 1, "lower", "phase",
           "Half-width of the 95 % confidence interval of the energy per inference: spread of the slices, and of the"
           " repeats, and a refresh of the counter at both ends of each difference.",
           ("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", "nv_energy_consumption"), digits=6),
    Metric("gpu_used_memory", "GPU Memory Usage (MB)", "MB", MB, "lower", "gpu",
           "Largest GPU memory in use while the phase ran.",
           ("DCGM_FI_DEV_FB_USED", "nv_gpu_memory_used_bytes"), "max", 1, first_round=True),
    Metric("gpu_utilization", "GPU Utilization (%)", "%", PERCENT, "higher", "gpu",
           "Average share of time in which a kernel ran on the GPU. On a MIG instance, where DCGM has no GPU_UTIL, the"
           " graphics engine's activity (then a note says so).",
           ("DCGM_FI_DEV_GPU_UTIL", "nv_gpu_utilization", "DCGM_FI_PROF_GR_ENGINE_ACTIVE"), "avg", 1),
    Metric("gpu_power_usage", "GPU Power Usage (W)", "W", 1, "lower", "gpu", "Average power draw.",
           ("DCGM_FI_DEV_POWER_USAGE", "nv_gpu_power_usage"), "avg", 1),
    Metric("gpu_memory_utilization_max", "Max Memory Utilization (%)", "%", PERCENT, "lower", "gpu",
           "Largest share of time in which device memory was read or written. On a MIG instance the DRAM activity (then a"
           " note says so).",
           ("DCGM_FI_DEV_MEM_COPY_UTIL", "DCGM_FI_PROF_DRAM_ACTIVE"), "max", 1),
    Metric("gpu_utilization_max", "Max GPU Utilization (%)", "%", PERCENT, "higher", "gpu",
           "Largest share of time in which a kernel ran on the GPU.",
           ("DCGM_FI_DEV_GPU_UTIL", "nv_gpu_utilization", "DCGM_FI_PROF_GR_ENGINE_ACTIVE"), "max", 1),
    Metric("gpu_used_memory_max", "Max GPU Memory (MB)", "MB", MB, "lower", "gpu",
           "Largest GPU memory in use while the phase ran; the same figure as GPU Memory Usage.",
           ("DCGM_FI_DEV_FB_USED", "nv_gpu_memory_used_bytes"), "max", 1, first_round=True),
    Metric("gpu_free_memory", "GPU Memory Available (MB)", "MB", MB, "higher", "gpu",
           "Smallest free GPU memory while the phase ran.", ("DCGM_FI_DEV_FB_FREE",), "min", 1, first_round=True),
    Metric("gpu_total_memory", "GPU Memory Total (MB)", "MB", MB, "", "gpu", "Memory of the GPU.",
           ("DCGM_FI_DEV_FB_TOTAL", "nv_gpu_memory_total_bytes"), "max", 1),
    Metric("gpu_reserved_memory", "GPU Memory Reserved (MB)", "MB", MB, "lower", "gpu",
           "Memory that the driver keeps for itself.", ("DCGM_FI_DEV_FB_RESERVED",), "max", 1),
    Metric("gpu_temperature", "GPU Temperature (C)", "C", 1, "lower", "gpu", "Highest temperature.",
           ("DCGM_FI_DEV_GPU_TEMP",), "max", 0),
    Metric("gpu_sm_clock", "GPU SM Clock (MHz)", "MHz", 1e-6, "higher", "gpu", "Average SM clock.",
           ("DCGM_FI_DEV_SM_CLOCK",), "avg", 0),
    Metric("gpu_engine_active", "GPU Engine Active (%)", "%", PERCENT, "higher", "gpu",
           "Average activity of the graphics and compute engine.", ("DCGM_FI_PROF_GR_ENGINE_ACTIVE",), "avg", 1),
    Metric("gpu_tensor_active", "GPU Tensor Active (%)", "%", PERCENT, "higher", "gpu",
           "Average activity of the tensor cores.", ("DCGM_FI_PROF_PIPE_TENSOR_ACTIVE",), "avg", 1),
    Metric("gpu_dram_active", "GPU DRAM Active (%)", "%", PERCENT, "", "gpu",
           "Average activity of the memory interface.", ("DCGM_FI_PROF_DRAM_ACTIVE",), "avg", 1),
    Metric("gpu_xid_errors", "GPU XID Error", "code", 1, "lower", "gpu",
           "The last XID error code that the driver reported; 0: none.", ("DCGM_FI_DEV_XID_ERRORS",), "max", 0),
    Metric("gpu_energy", "GPU Energy (J)", "J", 1, "lower", "gpu",
           "Energy of the GPU in the measured time. Not of a MIG instance: the counter is of the whole GPU.",
           ("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", "nv_energy_consumption"), "sum", 2),
    Metric("gpu_fresh_samples", "GPU Samples", "refreshes", 1, "higher", "gpu",
           "Distinct refreshes inside the measured time, of the source of GPU Utilization: how many readings it stands on.",
           (), "sum", 0),
    Metric("gpu_refresh_interval", "GPU Refresh (s)", "s", 1, "lower", "gpu",
           "Seconds between refreshes of the source of GPU Utilization, as its pages showed them (a DCGM exporter: 30 by"
           " default); no finer than monitoring_interval.", (), "max", 1),
    Metric("cpu_used_ram", "RAM Usage (MB)", "MB", MB, "lower", "host",
           "Largest memory in use: private pages (USS) of all the server's processes where they are ours, else all of its host.",
           ("server processes (USS)", "nv_cpu_memory_used_bytes"), "max", 1, first_round=True),
    Metric("cpu_available_ram", "RAM Available (MB)", "MB", MB, "higher", "host",
           "Smallest memory left on the server's host.",
           ("host memory available", "nv_cpu_memory_total_bytes - nv_cpu_memory_used_bytes"), "min", 1, first_round=True),
    Metric("cpu_utilization", "CPU Utilization (%)", "%", PERCENT, "", "host",
           "Average CPU utilization of the server's host, all processes.", ("nv_cpu_utilization",), "avg", 1),
    Metric("server_cpu", "Server CPU (cores)", "cores", 1, "lower", "host",
           "Average CPU of the server's processes, where they are ours.", ("server processes",), "avg", 2),
    Metric("client_cpu", "Client CPU (%)", "%", PERCENT, "lower", "phase",
           "CPU of the load generator's processes together, as a share of one core.", ("client",), digits=1),
    Metric("send_lag_p99", "p99 Send Lag (ms)", "ms", MS, "lower", "phase",
           "Open loop: 99th percentile of how late the load generator was with a send. Waits for a place are not in it.",
           ("client",)),
    Metric("send_lag_max", "Max Send Lag (ms)", "ms", MS, "lower", "phase", "Open loop: the latest send.", ("client",)),
    Metric("requests_delayed", "Requests Delayed", "requests", 1, "lower", "phase",
           "Open loop: requests that were due while max_concurrency others were in flight, and waited.", ("client",), digits=0),
    Metric("measured_seconds", "Measured (s)", "s", 1, "", "phase", "Measured time, warm-up excluded.", ("client",), digits=2),
    *(_llm(f"time_to_first_token_{q}", f"{q if q[0] == 'p' else q.title()} Time To First Token (ms)",
           f"{_end(q)} time from just before a request's first byte is sent to its first response, streams only.")
      for q in _QUANTILES),
    *(_llm(f"inter_token_latency_{q}", f"{q if q[0] == 'p' else q.title()} Inter Token Latency (ms)",
           f"{_end(q)} time between two responses that follow each other in a stream.")
      for q in _QUANTILES),
    Metric("output_token_throughput", "Output Token Throughput (infer/sec)", "responses/s", 1, "higher", "phase",
           "Responses that came inside the measured time / measured seconds, streams only: a response is a token.",
           ("client",), digits=1),
    Metric("output_token_throughput_per_request", "Output Token Throughput per Request (tokens/sec)", "responses/s", 1,
           "higher", "phase", "Mean over the successful requests of responses / latency, streams only.", ("client",), digits=1),
    Metric("responses_per_request", "Responses per Request", "responses", 1, "", "phase",
           "Mean number of responses of a successful request, streams only.", ("client",), digits=2),
    Metric("output_token_throughput_ci", "Output Token Throughput Interval (+-infer/sec)", "responses/s", 1, "lower", "phase",
           "Half-width of the 95 % confidence interval of the output token throughput, streams only.", ("client",), digits=1),
    *(_llm_interval(tag, name, q)
      for tag, name in (
          ("time_to_first_token", "Time To First Token"), ("inter_token_latency", "Inter Token Latency"),
      )
      for q in ("avg", "p99")),
)  # fmt: skip

METRICS: dict[str, Metric] = {metric.tag: metric for metric in _ALL}

COLUMNS: dict[str, Column] = {
    column.tag: column
    for column in (
        Column("model_name", "Model", "The model's name; `triton-server` in the server-only table."),
        Column("batch_size", "Batch", "Inferences in one request."),
        Column("concurrency", "Concurrency", "Requests in flight; empty for an open loop."),
        Column(
            "request_rate",
            "Request Rate",
            "Requests a second of an open loop, of custom intervals their mean; empty for a closed one.",
        ),
        Column("client_protocol", "Protocol", "http or grpc."),
        Column(
            "call",
            "Call",
            "How the model was asked to be called: infer, stream_infer, generate or generate_stream; default: as its kind needs"
            " it, so that a decoupled model is streamed.",
        ),
        Column("shared_memory", "Shared Memory", "none or system."),
        Column("input_data", "Input Data", "random, zero, or the data file."),
        Column(
            "request_distribution", "Request Distribution", "constant, poisson or intervals; empty for a closed loop."
        ),
        Column(
            "max_concurrency",
            "Max Concurrency",
            "Most requests of an open loop in flight; empty where the job has none.",
        ),
        Column("ramp_seconds", "Ramp (s)", "So long the load grew before each slice."),
        Column(
            "model_config_path", "Model Config Path", "The variant: `<model>_config_default`, `<model>_config_0`, ..."
        ),
        Column("instance_group", "Instance Group", "Instances and their kind, such as `1:GPU`."),
        Column("max_batch_size", "Max Batch Size", "max_batch_size of the variant as loaded."),
        Column("satisfies_constraints", "Satisfies Constraints", "Yes or No; empty where the phase has no figures."),
        Column("gpu_uuid", "GPU UUID", "The GPU, or `<uuid>/<GPU_I_ID>` of a MIG instance."),
        Column("gpu_model", "GPU Model", "Product name of the GPU."),
        Column("gpu_source", "GPU Source", "Where the GPU figures come from: dcgm or triton."),
        Column(
            "client_limited",
            "Client Limited",
            "Yes: the load generator shaped the figures: throughput is a lower bound, latency an upper one; Notes says why.",
        ),
        Column("status", "Status", "ok, unstable (measured, not as precise as asked), failed, or skipped."),
        Column("notes", "Notes", "Why a cell is empty, and what else to know of the row."),
    )
}

DEFAULT_INFERENCE_FIELDS = (
    "model_name", "batch_size", "concurrency", "model_config_path", "instance_group", "max_batch_size",
    "satisfies_constraints", "perf_throughput", "perf_latency_p99",
)  # fmt: skip
DEFAULT_GPU_FIELDS = (
    "model_name", "gpu_uuid", "batch_size", "concurrency", "model_config_path", "instance_group",
    "satisfies_constraints", "gpu_used_memory", "gpu_utilization", "gpu_power_usage",
)  # fmt: skip
DEFAULT_SERVER_FIELDS = ("model_name", "gpu_uuid", "gpu_used_memory", "gpu_utilization", "gpu_power_usage")
# Ours, after Triton Model Analyzer's, so that a script that reads by position goes on working.
OWN_INFERENCE_FIELDS = (
    "perf_throughput_ci", "perf_latency_avg", "perf_latency_p50", "perf_latency_p90", "perf_latency_p95",
    "perf_latency_max", "perf_latency_p99_ci",
    "gpu_memory_utilization_max", "gpu_utilization_max", "gpu_used_memory_max", "energy_per_inference", "energy_per_inference_ci",
    "perf_server_queue", "perf_server_compute_input", "perf_server_compute_infer", "perf_server_compute_output",
    "requests_succeeded", "requests_failed", "server_requests_succeeded", "server_requests_failed",
    "cpu_used_ram", "client_cpu", "client_limited", "measured_seconds", "status", "notes",
)  # fmt: skip
# Of a job with repeats, after its own fields.
REPEAT_FIELDS = ("repeats", "perf_throughput_repeats_cv", "perf_latency_p99_repeats_cv")
# Before the last two of these, status and notes, where a load of the job is open.
OPEN_LOOP_FIELDS = ("send_lag_p99", "send_lag_max", "requests_delayed")
# Of a table with a phase whose replies are streamed, behind the columns that the job names.
STREAM_FIELDS = (
    "inter_token_latency_p99", "time_to_first_token_p99", "output_token_throughput",
    "time_to_first_token_avg", "time_to_first_token_p50", "inter_token_latency_avg", "inter_token_latency_p50",
    "output_token_throughput_per_request", "responses_per_request",
    "output_token_throughput_ci", "time_to_first_token_avg_ci", "time_to_first_token_p99_ci",
    "inter_token_latency_avg_ci", "inter_token_latency_p99_ci",
)  # fmt: skip
OWN_GPU_FIELDS = (
    "gpu_memory_utilization_max", "gpu_utilization_max", "gpu_used_memory_max", "gpu_temperature", "gpu_sm_clock",
    "gpu_energy", "gpu_fresh_samples", "gpu_refresh_interval", "gpu_model", "gpu_source", "status", "notes",
)  # fmt: skip
OWN_SERVER_FIELDS = (
    "gpu_memory_utilization_max", "gpu_utilization_max", "gpu_used_memory_max", "cpu_used_ram", "cpu_available_ram",
    "cpu_utilization", "gpu_fresh_samples", "notes",
)  # fmt: skip


def known_tags() -> frozenset[str]:
    """Every name that a job spec may use as an output field."""
    return frozenset(METRICS) | frozenset(COLUMNS)


def nearest(tag: str, among: Sequence[str] | frozenset[str] | None = None) -> str | None:
    """The known name most like `tag`, if any is like it at all."""
    found = get_close_matches(tag, sorted(among if among is not None else known_tags()), n=1, cutoff=0.6)
    return found[0] if found else None


def header(tag: str) -> str:
    """The column header of a metric or column tag."""
    return METRICS[tag].header if tag in METRICS else COLUMNS[tag].header


def gpu_metrics() -> tuple[Metric, ...]:
    """The metrics that are scraped a GPU at a time."""
    return tuple(metric for metric in _ALL if metric.scope == "gpu")


def host_metrics() -> tuple[Metric, ...]:
    """The metrics of the server's host."""
    return tuple(metric for metric in _ALL if metric.scope == "host")
