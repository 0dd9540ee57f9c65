from __future__ import annotations

import re

import pytest

from model_analyzer.core.metric import (
    COLUMNS,
    DEFAULT_GPU_FIELDS,
    DEFAULT_INFERENCE_FIELDS,
    DEFAULT_SERVER_FIELDS,
    METRICS,
    OWN_GPU_FIELDS,
    OWN_INFERENCE_FIELDS,
    OWN_SERVER_FIELDS,
    STREAM_FIELDS,
    gpu_metrics,
    header,
    host_metrics,
    known_tags,
    nearest,
)
from model_analyzer.core.streams import stream_tags

# Triton Model Analyzer 1.58: `tag` and `header()` of record/types/*.py.
QUANTILES = ("avg", "min", "max", "p99", "p95", "p90", "p75", "p50", "p25")


def _quantile_headers(tag: str, name: str) -> dict[str, str]:
    return {f"{tag}_{q}": f"{q if q.startswith('p') else q.title()} {name} (ms)" for q in QUANTILES}


UPSTREAM_METRICS = {
    "perf_throughput": "Throughput (infer/sec)",
    "perf_latency": "p99 Latency (ms)",
    "perf_latency_avg": "Avg Latency (ms)",
    "perf_latency_p90": "p90 Latency (ms)",
    "perf_latency_p95": "p95 Latency (ms)",
    "perf_latency_p99": "p99 Latency (ms)",
    "perf_client_response_wait": "Response Wait Time (ms)",
    "perf_client_send_recv": "Client Send/Recv (ms)",
    "perf_server_queue": "Server Queue time (ms)",
    "perf_server_compute_input": "Server Compute Input time (ms)",
    "perf_server_compute_infer": "Server Compute Infer time (ms)",
    "perf_server_compute_output": "Server Compute Output time (ms)",
    "gpu_used_memory": "GPU Memory Usage (MB)",
    "gpu_free_memory": "GPU Memory Available (MB)",
    "gpu_utilization": "GPU Utilization (%)",
    "gpu_power_usage": "GPU Power Usage (W)",
    "cpu_used_ram": "RAM Usage (MB)",
    "cpu_available_ram": "RAM Available (MB)",
    "output_token_throughput": "Output Token Throughput (infer/sec)",
    **_quantile_headers("time_to_first_token", "Time To First Token"),
    **_quantile_headers("inter_token_latency", "Inter Token Latency"),
}
# result/result_table_manager.py, `headers`.
UPSTREAM_COLUMNS = {
    "model_name": "Model",
    "batch_size": "Batch",
    "concurrency": "Concurrency",
    "request_rate": "Request Rate",
    "model_config_path": "Model Config Path",
    "instance_group": "Instance Group",
    "max_batch_size": "Max Batch Size",
    "satisfies_constraints": "Satisfies Constraints",
    "gpu_uuid": "GPU UUID",
}
# config/input/config_defaults.py.
UPSTREAM_FIELDS = {
    "inference": "model_name batch_size concurrency model_config_path instance_group max_batch_size"
    " satisfies_constraints perf_throughput perf_latency_p99",
    "gpu": "model_name gpu_uuid batch_size concurrency model_config_path instance_group satisfies_constraints"
    " gpu_used_memory gpu_utilization gpu_power_usage",
    "server": "model_name gpu_uuid gpu_used_memory gpu_utilization gpu_power_usage",
}
TABLES = {
    "inference": (*DEFAULT_INFERENCE_FIELDS, *STREAM_FIELDS, *OWN_INFERENCE_FIELDS),
    "gpu": (*DEFAULT_GPU_FIELDS, *OWN_GPU_FIELDS),
    "server": (*DEFAULT_SERVER_FIELDS, *OWN_SERVER_FIELDS),
}


@pytest.mark.parametrize(("tag", "text"), [*UPSTREAM_METRICS.items(), *UPSTREAM_COLUMNS.items()])
def test_headers_are_those_of_triton_model_analyzer(tag: str, text: str) -> None:
    assert header(tag) == text


def test_total_and_free_memory_have_headers_of_their_own() -> None:
    # In Triton Model Analyzer 1.58 both are "GPU Memory Available (MB)", so that a table with both is ambiguous.
    assert header("gpu_total_memory") == "GPU Memory Total (MB)"


def test_default_fields_are_those_of_triton_model_analyzer() -> None:
    ours = {"inference": DEFAULT_INFERENCE_FIELDS, "gpu": DEFAULT_GPU_FIELDS, "server": DEFAULT_SERVER_FIELDS}
    assert {table: " ".join(fields) for table, fields in ours.items()} == UPSTREAM_FIELDS


@pytest.mark.parametrize(
    ("tag", "text", "source"),
    [
        ("gpu_memory_utilization_max", "Max Memory Utilization (%)", "DCGM_FI_DEV_MEM_COPY_UTIL"),
        ("gpu_utilization_max", "Max GPU Utilization (%)", "DCGM_FI_DEV_GPU_UTIL"),
        ("gpu_used_memory_max", "Max GPU Memory (MB)", "DCGM_FI_DEV_FB_USED"),
    ],
)
def test_the_seeds_columns(tag: str, text: str, source: str) -> None:
    metric = METRICS[tag]
    assert (metric.header, metric.sources[0], metric.reduce) == (text, source, "max")


def test_a_megabyte_is_a_million_bytes() -> None:
    assert {metric.scale for metric in METRICS.values() if metric.unit == "MB"} == {1e-6}


def test_memory_is_taken_from_the_first_round() -> None:
    wanted = {"gpu_used_memory", "gpu_used_memory_max", "gpu_free_memory", "cpu_used_ram", "cpu_available_ram"}
    assert {tag for tag, metric in METRICS.items() if metric.first_round} == wanted


@pytest.mark.parametrize("table", TABLES)
def test_a_table_names_each_known_column_once(table: str) -> None:
    fields = TABLES[table]
    assert set(fields) <= known_tags()
    assert len({header(tag) for tag in fields}) == len(fields)


def test_tags_are_snake_case_and_name_one_thing() -> None:
    assert all(re.fullmatch("[a-z][a-z0-9_]*", tag) for tag in known_tags())
    assert not set(METRICS) & set(COLUMNS)


def test_the_unit_stands_in_the_header() -> None:
    symbols = {"ms": "ms", "MB": "MB", "%": "%", "W": "W", "J": "J", "MHz": "MHz", "C": "C", "s": "s", "cores": "cores"}
    for metric in METRICS.values():
        if metric.unit in symbols:
            assert re.search(rf"\(.*{symbols[metric.unit]}\)$", metric.header), metric.tag


def test_what_is_scraped_says_from_where() -> None:
    derived = {"gpu_fresh_samples", "gpu_refresh_interval"}
    assert all(metric.sources for metric in (*gpu_metrics(), *host_metrics()) if metric.tag not in derived)


def test_what_is_known_but_not_measured_says_so() -> None:
    unmeasured = {tag for tag, metric in METRICS.items() if not metric.measured}
    assert unmeasured == {"perf_client_response_wait", "perf_client_send_recv"}
    assert all("not measured" in METRICS[tag].meaning for tag in unmeasured)


def test_the_first_columns_of_streams_are_those_of_triton_model_analyzers_language_models() -> None:
    # config/input/config_defaults.py, DEFAULT_LLM_INFERENCE_OUTPUT_FIELDS: behind the default fields.
    assert STREAM_FIELDS[:3] == ("inter_token_latency_p99", "time_to_first_token_p99", "output_token_throughput")
    assert set(STREAM_FIELDS) <= set(stream_tags()) <= set(METRICS)


@pytest.mark.parametrize(
    ("typed", "meant"), [("perf_troughput", "perf_throughput"), ("gpu_utilisation", "gpu_utilization")]
)
def test_the_nearest_tag_is_offered(typed: str, meant: str) -> None:
    assert nearest(typed) == meant


def test_nothing_is_offered_for_what_is_like_nothing() -> None:
    assert nearest("xyzzy") is None


def test_one_source_has_one_unit() -> None:
    units: dict[str, set[str]] = {}
    for metric in (*gpu_metrics(), *host_metrics()):
        for source in metric.sources:
            units.setdefault(source, set()).add(metric.unit)
    assert {source: found for source, found in units.items() if len(found) > 1} == {}
