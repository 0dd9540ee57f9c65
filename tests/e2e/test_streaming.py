"""Streams of a real decoupled model: what is measured is what the model does."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from e2e_tools import Job
from fault_tools import remote_keys, write_job

from model_analyzer.adapters.triton.requests import TritonEncoder
from model_analyzer.core.load import Call, InputSource, Load, LoadOrder, Protocol, call_of
from model_analyzer.core.variant import ModelInfo
from model_analyzer.loadgen.client import ProcessLoadGenerator

pytestmark = pytest.mark.triton

TOKENS, DELAY_MS, MS = 5, 30.0, 1_000_000


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    file = tmp_path / "inputs.json"
    file.write_text(json.dumps({"data": [{"TOKENS": [TOKENS], "DELAY_MS": [DELAY_MS]}]}))
    return file


def drive(
    embedded_server: Any,
    model: ModelInfo,
    source: InputSource,
    protocol: Protocol,
    *,
    call: Call | None = None,
    concurrency: int = 2,
    timeout_s: float = 20.0,
    successes: int = 0,
    failures: int = 0,
    batch_size: int = 1,
) -> dict[str, Any]:
    """Every response and failure until so many have come."""
    info = embedded_server.info
    address = info.grpc_endpoint if protocol == "grpc" else info.http_endpoint
    called = call_of(call, protocol, model.decoupled)
    requests = TritonEncoder().encode(model, batch_size, source, protocol, address, called)
    seen: dict[str, Any] = {
        "failures": {}, "latency_ns": [], "responses": [], "first_ns": [], "gap_ns": [], "count": 0,
    }  # fmt: skip
    generator = ProcessLoadGenerator()
    try:
        with generator.run(LoadOrder(address, Load("concurrency", concurrency), requests, timeout_s)) as batches:
            for number, batch in enumerate(batches):
                _add(seen, batch)
                enough = len(seen["latency_ns"]) >= successes and seen["count"] >= failures
                if enough or number > 600:
                    break
    finally:
        generator.close()
    return seen


def _add(seen: dict[str, Any], batch: Any) -> None:
    seen["latency_ns"] += batch.latency_ns.tolist()
    for message, count in batch.failures.items():
        seen["failures"][message] = seen["failures"].get(message, 0) + count
        seen["count"] += count
    if batch.streamed is not None:
        for name in ("responses", "first_ns", "gap_ns"):
            seen[name] += getattr(batch.streamed, name).tolist()


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_responses_are_timed_as_the_model_pauses(embedded_server: Any, inputs: Path, protocol: Protocol) -> None:
    with embedded_server.loaded("token_stream") as model:
        seen = drive(embedded_server, model, InputSource("file", str(inputs)), protocol, successes=10)
    assert not seen["failures"]
    assert set(seen["responses"]) == {TOKENS}
    # A sleep never returns early, and a busy machine only makes it longer.
    assert min(seen["first_ns"]) >= DELAY_MS * MS
    assert min(seen["latency_ns"]) >= TOKENS * DELAY_MS * MS
    # Of a gap only the mean is that certain: a read that comes late makes one longer and the next one shorter.
    gaps = sorted(seen["gap_ns"])
    assert sum(gaps) / len(gaps) >= 0.8 * DELAY_MS * MS
    assert gaps[len(gaps) // 2] <= 10 * DELAY_MS * MS


def test_many_streams_share_connections_and_keep_their_counts(embedded_server: Any, inputs: Path) -> None:
    with embedded_server.loaded("token_stream") as model:
        source = InputSource("file", str(inputs))
        seen = drive(embedded_server, model, source, "grpc", concurrency=16, successes=64, batch_size=4)
    assert not seen["failures"]
    assert set(seen["responses"]) == {TOKENS}


@pytest.mark.parametrize(
    ("protocol", "text"), [("grpc", "broke in mid-stream"), ("http", "HTTP 200: broke in mid-stream")]
)
def test_an_error_in_mid_stream_fails_its_request(embedded_server: Any, protocol: Protocol, text: str) -> None:
    with embedded_server.loaded("breaks_mid_stream") as model:
        seen = drive(embedded_server, model, InputSource(), protocol, successes=5, failures=5, concurrency=1)
    assert set(seen["failures"]) == {text}
    assert set(seen["responses"]) == {2}


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_a_stream_that_stops_is_given_up_and_the_server_goes_on(
    embedded_server: Any, tmp_path: Path, protocol: Protocol
) -> None:
    slow = tmp_path / "slow.json"
    slow.write_text(json.dumps({"data": [{"TOKENS": [2], "DELAY_MS": [1200.0]}]}))
    quick = tmp_path / "quick.json"
    quick.write_text(json.dumps({"data": [{"TOKENS": [3], "DELAY_MS": [1.0]}]}))
    with embedded_server.loaded("token_stream") as model:
        source = InputSource("file", str(slow))
        seen = drive(embedded_server, model, source, protocol, timeout_s=0.4, failures=2)
        assert set(seen["failures"]) == {"timeout: no reply within 0.4 s"}
        assert not seen["latency_ns"]
        # The streams that were cancelled cost the next ones nothing.
        seen = drive(embedded_server, model, InputSource("file", str(quick)), protocol, successes=5)
        assert not seen["failures"]
        assert set(seen["responses"]) == {3}


@pytest.mark.parametrize(
    ("protocol", "call", "responses"),
    [("grpc", "stream_infer", {1}), ("http", "generate_stream", {1}), ("http", "generate", set())],
)
def test_a_model_with_one_reply_can_be_streamed(
    embedded_server: Any, protocol: Protocol, call: Call, responses: set[int]
) -> None:
    with embedded_server.loaded("add_sub") as model:
        seen = drive(embedded_server, model, InputSource(), protocol, call=call, successes=20)
    assert not seen["failures"]
    assert set(seen["responses"]) == responses


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_a_job_has_the_columns_of_streams(
    embedded_server: Any, model_repository: Path, inputs: Path, tmp_path: Path, protocol: Protocol
) -> None:
    flags = {"perf_analyzer_flags": {"input-data": str(inputs)}, "parameters": {"concurrency": [2]}}
    models: Mapping[str, Any] = {"token_stream": flags, "add_sub": {}}
    keys = {**remote_keys(embedded_server.info), "client_protocol": protocol, "min_seconds": 2.5, "max_seconds": 2.5}
    job: Job = write_job(tmp_path, model_repository, dict(models), **keys)
    done = job.profile()
    assert done.returncode == 0, done.stderr
    rows = {row["Model"]: row for row in job.rows()}
    stream, plain = rows["token_stream"], rows["add_sub"]
    assert float(stream["Responses per Request"]) == TOKENS
    assert float(stream["p99 Time To First Token (ms)"]) >= DELAY_MS
    # What piled up before the slice, while nobody read, comes at once within it.
    assert float(stream["Avg Inter Token Latency (ms)"]) >= 0.5 * DELAY_MS
    assert float(stream["p99 Latency (ms)"]) >= TOKENS * DELAY_MS
    # Two streams, each of a response every DELAY_MS at most; and as many as may have piled up.
    assert 0 < float(stream["Output Token Throughput (infer/sec)"]) <= 2 * 1000 / DELAY_MS * 2
    assert 0 < float(stream["Output Token Throughput per Request (tokens/sec)"]) <= 1000 / DELAY_MS
    assert float(stream["Output Token Throughput Interval (+-infer/sec)"]) > 0
    # Of the few first responses of so short a time.
    assert stream["p99 Time To First Token Interval (+-ms)"] == ""
    assert "responses, 299 are needed" in stream["Notes"]
    assert plain["Output Token Throughput (infer/sec)"] == plain["Output Token Throughput Interval (+-infer/sec)"] == ""
    assert "each request has one reply: nothing is streamed" in plain["Notes"]


def test_a_decoupled_model_takes_batches_over_grpc_only(make_job: Callable[..., Job], remote: dict[str, str]) -> None:
    job = make_job({"decoupled": {"parameters": {"batch_sizes": [1, 4]}}}, **remote, client_protocol="http")
    assert job.profile().returncode == 0
    rows = job.rows()
    assert [row["Status"] for row in rows] == ["ok", "skipped"]
    assert float(rows[0]["Responses per Request"]) == 2
    assert "the generate extension takes one inference a request" in rows[1]["Notes"]
