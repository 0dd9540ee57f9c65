"""What the three tools write is read as they wrote it: recorded files of the rivals, our own store's lines."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.versus import ours, perf_analyzer, rival_analyzer

DATA = Path(__file__).resolve().parents[1] / "data" / "rivals"


def test_perf_analyzers_report_is_read() -> None:
    said = perf_analyzer.read_report((DATA / "perf_analyzer_2.60_http_c8.csv").read_text())
    assert said == {"throughput": 1198.59, "p50_us": 3560.0, "p99_us": 25145.0}
    assert perf_analyzer.read_report((DATA / "perf_analyzer_2.60_grpc_async_c64.csv").read_text())["throughput"] > 0


def test_a_report_without_a_row_is_an_error() -> None:
    header = (DATA / "perf_analyzer_2.60_http_c8.csv").read_text().splitlines()[0]
    with pytest.raises(ValueError, match="has 0 rows"):
        perf_analyzer.read_report(header + "\n")


def test_perf_analyzer_measures_three_windows_that_are_as_long_as_asked_together() -> None:
    command = perf_analyzer.command(Path("pa"), "m", "grpc", "localhost:1", 8, 6.0, Path("r.csv"), True)
    text = " ".join(command)
    assert "--measurement-interval 2000 --max-trials 3 " in text
    assert "-i grpc" in text
    assert command[-1] == "--async"


def test_model_analyzers_table_is_read() -> None:
    rows = rival_analyzer.read_table((DATA / "model_analyzer_1.58_inference.csv").read_text())
    assert rows == {"add_sub, batch 1, concurrency 4": 673.7, "add_sub, batch 1, concurrency 1": 337.0}


def test_our_store_is_read_in_the_same_names_and_units() -> None:
    measurement = {
        "phase": {"variant": {"model": "add_sub"}, "batch_size": 1, "load": {"kind": "concurrency", "value": 4.0}},
        "values": {
            "perf_throughput": 700.0,
            "perf_latency_p50": 5.6e6,
            "perf_latency_p99": None,
            "measured_seconds": 0.5,
        },
        "status": "unstable",
    }
    lines = [{"kind": "run", "data": {}}, {"kind": "measurement", "data": measurement}]
    rows = ours.read_store("\n".join(json.dumps(line) for line in lines))
    assert rows == {
        "add_sub, batch 1, concurrency 4": {
            "throughput": 700.0, "p50_us": 5600.0, "p99_us": None, "measured_s": 0.5, "status": "unstable",
        }
    }  # fmt: skip
