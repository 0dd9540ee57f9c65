"""metrics_port: where the run stands, on a page that Prometheus reads."""

from __future__ import annotations

import socket
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import replace

import pytest
from measured import measured, outlook, phase
from prometheus_client.parser import text_string_to_metric_families

from model_analyzer.adapters.own_metrics import OwnMetrics
from model_analyzer.core.reduce import failed
from model_analyzer.errors import SpecError
from model_analyzer.ports import Live


@pytest.fixture
def metrics() -> Iterator[OwnMetrics]:
    served = OwnMetrics(free_port(), outlook(60.0))
    yield served
    served.end()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def scrape(metrics: OwnMetrics) -> dict[str, tuple[float, dict[str, str]]]:
    with urllib.request.urlopen(f"http://127.0.0.1:{metrics.port}/metrics", timeout=10) as page:
        families = list(text_string_to_metric_families(page.read().decode()))
    return {sample.name: (sample.value, sample.labels) for family in families for sample in family.samples}


def test_a_run_in_its_middle(metrics: OwnMetrics) -> None:
    began = time.time()
    done = measured(phase())
    metrics.begin(5, 1)
    metrics.finished(replace(done, values={**done.values, "requests_failed": 3.0}))
    metrics.finished(failed(phase("bad"), "weights.bin is missing"))
    metrics.live(phase("big", batch=8), Live("measuring", 1234.0, 5.5, 1.0))
    page = scrape(metrics)
    assert {name: value for name, (value, _) in page.items() if name.startswith("model_analyzer_phases")} == {
        "model_analyzer_phases": 5,
        "model_analyzer_phases_done": 3,
        "model_analyzer_phases_failed": 1,
    }
    assert page["model_analyzer_errors_total"][0] == 3
    # The row of a phase holds the failures of all its repeats so far: each is counted once.
    metrics.finished(replace(done, repeats=2, values={**done.values, "requests_failed": 5.0}))
    assert scrape(metrics)["model_analyzer_errors_total"][0] == 5
    assert page["model_analyzer_phase_info"] == (
        1, {"phase": "big_config_default batch 8 concurrency 1", "model": "big", "batch_size": "8"}
    )  # fmt: skip
    assert page["model_analyzer_throughput_infer_per_second"][0] == 1234
    assert page["model_analyzer_latency_p99_seconds"][0] == pytest.approx(0.0055)
    assert began <= page["model_analyzer_last_phase_finished_timestamp_seconds"][0] <= time.time()
    assert page["model_analyzer_eta_seconds"][0] > 0


def test_what_is_not_known_is_not_there(metrics: OwnMetrics) -> None:
    metrics.begin(5, 0)
    names = set(scrape(metrics))
    metrics.live(phase(), Live("warm-up", None, None, 0.0))
    assert set(scrape(metrics)) - names == {"model_analyzer_phase_info"}
    metrics.finished(measured(phase()))
    assert set(scrape(metrics)) - names == {"model_analyzer_last_phase_finished_timestamp_seconds"}


def test_only_the_runs_own_figures_are_there(metrics: OwnMetrics) -> None:
    assert all(name.startswith("model_analyzer_") for name in scrape(metrics))


def test_a_port_that_is_taken_is_told_before_anything_is_measured(metrics: OwnMetrics) -> None:
    with pytest.raises(SpecError) as caught:
        OwnMetrics(metrics.port, outlook(60.0))
    assert str(caught.value) == (
        f"metrics_port: port {metrics.port} cannot be had (Address already in use); choose another port, or 0 for no metrics"
    )


def test_the_port_is_free_after_the_end(metrics: OwnMetrics) -> None:
    metrics.end()
    metrics.end()
    again = OwnMetrics(metrics.port, outlook(60.0))
    again.end()
