from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Callable

import pytest
from telemetry_pages import Replay, page

from model_analyzer.adapters.telemetry.triton import TritonSampler
from model_analyzer.core.telemetry import Page, Series, counter_deltas
from model_analyzer.core.variant import Variant

SUCCEEDED = Series("nv_inference_request_success", "add_sub")
GPU = """\
nv_gpu_utilization{gpu_uuid="GPU-a"} 0.42
nv_gpu_memory_total_bytes{gpu_uuid="GPU-a"} 150000000000
nv_gpu_memory_used_bytes{gpu_uuid="GPU-a"} 2000000000
nv_gpu_power_usage{gpu_uuid="GPU-a"} 120.5
# TYPE nv_energy_consumption counter
nv_energy_consumption{gpu_uuid="GPU-a"} 1234.5
"""


def scrape(replay: Replay, text: str) -> Page:
    replay.serve(text)
    scraped = TritonSampler(replay.url).sample()
    assert scraped.problem is None
    return scraped


def counters(success: float, queue_us: float = 0.0, version: int = 1) -> str:
    labels = f'{{model="m",version="{version}"}}'
    return (
        "# TYPE nv_inference_request_success counter\n"
        f"nv_inference_request_success{labels} {success}\n"
        f"nv_inference_queue_duration_us{labels} {queue_us}\n"
    )


def test_the_page_of_a_real_cpu_triton(replay: Replay) -> None:
    values = scrape(replay, page("triton_2.51_cpu.prom")).values
    assert values[Series("nv_inference_request_success", "add_sub")] == 7
    assert values[Series("nv_inference_compute_infer_duration_us", "add_sub")] == 22169
    assert values[Series("nv_cpu_utilization", "")] == 1
    left = values[Series("nv_cpu_memory_total_bytes - nv_cpu_memory_used_bytes", "")]
    assert left == 25276502016 - 442953728


def test_a_cpu_triton_reports_no_gpu(replay: Replay) -> None:
    assert scrape(replay, page("triton_2.51_cpu.prom")).gpus == {}


def test_gpu_gauges_are_keyed_by_uuid(replay: Replay) -> None:
    scraped = scrape(replay, GPU)
    assert list(scraped.gpus) == ["GPU-a"]
    assert scraped.values[Series("nv_gpu_utilization", "GPU-a")] == 0.42
    assert scraped.values[Series("nv_energy_consumption", "GPU-a")] == 1234.5


def test_versions_of_a_model_are_summed(replay: Replay) -> None:
    scraped = scrape(replay, counters(3, version=1) + counters(4, version=2))
    assert scraped.values[Series("nv_inference_request_success", "m")] == 7


def test_failures_of_all_reasons_are_summed(replay: Replay) -> None:
    text = "".join(
        f'nv_inference_request_failure{{model="m",reason="{reason}",version="1"}} {count}\n'
        for reason, count in (("OTHER", 1), ("BACKEND", 2), ("REJECTED", 4))
    )
    assert scrape(replay, text).values[Series("nv_inference_request_failure", "m")] == 7


def test_cache_counters_are_a_models(replay: Replay) -> None:
    scraped = scrape(replay, 'nv_cache_num_hits_per_model{model="m",version="1"} 9\n')
    assert scraped.values[Series("nv_cache_num_hits_per_model", "m")] == 9


def test_requests_alone_are_no_refresh_of_the_gauges(replay: Replay) -> None:
    first = scrape(replay, GPU + counters(1)).fingerprint
    assert first is not None
    assert scrape(replay, GPU + counters(2)).fingerprint == first
    assert scrape(replay, GPU.replace("0.42", "0.43") + counters(2)).fingerprint != first


def test_deltas_of_two_scrapes(replay: Replay) -> None:
    before, after = scrape(replay, counters(10, 500)), scrape(replay, counters(30, 900))
    deltas, problem = counter_deltas(before, after, "m")
    assert problem is None
    assert deltas == {"nv_inference_request_success": 20, "nv_inference_queue_duration_us": 400}


def test_a_restart_between_scrapes_is_seen(replay: Replay) -> None:
    before, after = scrape(replay, counters(30)), scrape(replay, counters(10))
    assert counter_deltas(before, after, "m") == (None, "the server's counters fell: it was restarted")


def test_a_page_of_something_else_is_a_problem(replay: Replay) -> None:
    replay.serve("go_goroutines 7\n")
    assert "no nv_* rows" in str(TritonSampler(replay.url).sample().problem)


def test_a_server_that_is_gone_is_a_problem() -> None:
    scraped = TritonSampler("http://127.0.0.1:1/metrics").sample()
    assert scraped.problem
    assert not scraped.values


SUMMARY = 'nv_inference_request_summary_us{{model="m",version="1",quantile="{}"}} {}\n'


def test_summaries_of_latency_are_no_counters(replay: Replay) -> None:
    # --metrics-config summary_latencies=true
    before = scrape(replay, counters(10) + SUMMARY.format(0.5, 300) + SUMMARY.format(0.99, 9000))
    after = scrape(replay, counters(30) + SUMMARY.format(0.5, 290) + SUMMARY.format(0.99, 1000))
    deltas, problem = counter_deltas(before, after, "m")
    assert problem is None
    assert deltas is not None
    assert deltas["nv_inference_request_success"] == 20


def test_counters_that_name_the_gpu_are_the_models(replay: Replay) -> None:
    # Of models that are loaded on a GPU after the server's start.
    text = "".join(
        f'nv_inference_request_success{{gpu_uuid="{gpu}",model="m",version="1"}} 5\n' for gpu in ("GPU-a", "GPU-b")
    )
    scraped = scrape(replay, text)
    assert scraped.values[Series("nv_inference_request_success", "m")] == 10
    assert scraped.gpus == {}, "a GPU that Triton has no gauges of, as under MIG, is no GPU that it reports"


def test_buckets_of_a_histogram_are_no_counters(replay: Replay) -> None:
    name = "nv_inference_first_response_histogram_ms"
    text = "".join(f'{name}_bucket{{model="m",version="1",le="{le}"}} {n}\n' for le, n in (("100", 3), ("+Inf", 4)))
    scraped = scrape(replay, text + f'{name}_count{{model="m",version="1"}} 4\n')
    assert {series.name: value for series, value in scraped.values.items()} == {f"{name}_count": 4}


def test_what_triton_shows_as_0_because_it_could_not_be_read_is_absent(replay: Replay) -> None:
    unread = GPU
    for value in ("150000000000", "2000000000", "120.5"):
        unread = unread.replace(f"}} {value}\n", "} 0\n")
    scraped = scrape(replay, unread + "nv_cpu_memory_total_bytes 0\nnv_cpu_memory_used_bytes 0\n")
    assert {series.name for series in scraped.values} == {"nv_gpu_utilization", "nv_energy_consumption"}
    assert list(scraped.gpus) == ["GPU-a"]


def test_a_gpu_without_load_and_models_uses_0_bytes(replay: Replay) -> None:
    values = scrape(replay, GPU.replace("2000000000", "0").replace("0.42", "0")).values
    assert values[Series("nv_gpu_memory_used_bytes", "GPU-a")] == 0
    assert values[Series("nv_gpu_utilization", "GPU-a")] == 0


@pytest.mark.triton
def test_a_real_triton_counts_what_is_sent(embedded_server) -> None:  # type: ignore[no-untyped-def]
    server, info = embedded_server.server, embedded_server.info
    variant = Variant("add_sub", "add_sub_config_default")
    server.load(variant)
    try:
        sampler = TritonSampler(info.metrics_url)
        before = sampler.sample()
        assert before.problem is None
        _infer(info.http_endpoint, times=5)
        after = _scrape_until(sampler, lambda page: page.values[SUCCEEDED] - before.values[SUCCEEDED] >= 5)
        deltas, problem = counter_deltas(before, after, "add_sub")
        assert problem is None
        assert deltas is not None
        assert deltas["nv_inference_request_success"] == 5
        assert deltas["nv_inference_compute_infer_duration_us"] > 0
        assert deltas["nv_inference_request_failure"] == 0
        assert after.values[Series("nv_cpu_memory_used_bytes", "")] > 0
        assert 0 <= after.values[Series("nv_cpu_utilization", "")] <= 1
    finally:
        server.unload(variant)


@pytest.mark.triton
def test_the_gauges_of_a_real_triton_refresh_by_themselves(embedded_server) -> None:  # type: ignore[no-untyped-def]
    sampler = TritonSampler(embedded_server.info.metrics_url)
    first = sampler.sample().fingerprint
    _scrape_until(sampler, lambda page: page.fingerprint != first)


def _scrape_until(sampler: TritonSampler, enough: Callable[[Page], bool]) -> Page:
    """Triton counts a request after it has sent the reply."""
    deadline = time.monotonic() + 60
    while not enough(scraped := sampler.sample()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return scraped


def _infer(endpoint: str, times: int) -> None:
    tensor = {"shape": [1, 16], "datatype": "FP32", "data": [1.0] * 16}
    body = json.dumps({"inputs": [{"name": name, **tensor} for name in ("INPUT0", "INPUT1")]}).encode()
    for _ in range(times):
        with urllib.request.urlopen(f"http://{endpoint}/v2/models/add_sub/infer", data=body, timeout=10) as reply:
            reply.read()
