"""The gRPC driver, in its process, against grpcio's own server."""

from __future__ import annotations

import re
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import grpc
import pytest
from grpc_server import GOOD, InferenceServer, load
from h2_server import grpc_order
from scripted_server import PATIENCE_S, Seen, follows_schedule, least_s, released_by_the_stop, run

from model_analyzer.adapters.triton.requests import TritonEncoder
from model_analyzer.core.load import InputSource, Load, LoadOrder, Protocol
from model_analyzer.core.variant import Variant
from model_analyzer.loadgen.client import ProcessLoadGenerator
from model_analyzer.loadgen.schedule import send_times_ns

MS = 1_000_000
DYNAMIC = Variant("dynamic_dims", "dynamic_dims_config_default")


@pytest.fixture(scope="module")
def generator() -> Iterator[ProcessLoadGenerator]:
    generator = ProcessLoadGenerator()
    yield generator
    generator.close()


def refuse(code: grpc.StatusCode, text: str) -> Any:
    def answer(request: bytes, context: Any) -> bytes:
        context.abort(code, text)
        raise AssertionError

    return answer


def test_replies_are_counted_requests_rotated_and_cpu_told(generator: ProcessLoadGenerator) -> None:
    bodies = (b"first", b"second", b"third")
    with InferenceServer(workers=1) as server:
        seen = server.load(generator, load=Load("concurrency", 1), bodies=bodies, successes=30, reports=3)
    assert not seen.failures
    assert 30 <= len(seen.done_ns) <= len(server.requests)
    assert all(request == bodies[n % 3] for n, request in enumerate(server.requests))
    assert all(0 < latency <= seen.took_s * 1e9 for latency in seen.latency_ns)
    cpu = [report["cpu_ns"] for report in seen.reports]
    assert 0 < cpu[0] < cpu[-1]


@pytest.mark.parametrize("asked", [5, 14])
def test_so_many_requests_are_in_flight_as_asked(generator: ProcessLoadGenerator, asked: int) -> None:
    inside, most, lock = [0], [0], threading.Lock()
    everyone = threading.Barrier(asked)  # of requests: no reply before so many are there

    def answer(request: bytes, context: Any) -> bytes:
        with lock:
            inside[0] += 1
            most[0] = max(most[0], inside[0])
        with suppress(threading.BrokenBarrierError):  # too few came
            everyone.wait(20)
        with lock:
            inside[0] -= 1
        return GOOD

    def told(seen: Seen) -> bool:
        return max(report["inflight"] for report in seen.reports) == asked

    with InferenceServer(answer, workers=16) as server:
        seen = server.load(generator, load=Load("concurrency", asked), successes=8 * asked, until=told)
        everyone.abort()
    assert not seen.failures
    assert most[0] == asked
    assert told(seen)


def test_an_error_status_is_a_failure_with_its_text_and_never_timed(generator: ProcessLoadGenerator) -> None:
    answer = refuse(grpc.StatusCode.INVALID_ARGUMENT, "unexpected shape\nfor input INPUT")
    with InferenceServer(answer) as server:
        seen = server.load(generator, load=Load("concurrency", 4), failures=4 * 7)
        received = len(server.requests)
    assert not seen.done_ns
    assert set(seen.failures) == {"gRPC INVALID_ARGUMENT: unexpected shape for input INPUT"}
    assert seen.took_s >= least_s(received, 4) >= 0.6


def test_good_replies_go_on_between_errors(generator: ProcessLoadGenerator) -> None:
    count = [0]

    def answer(request: bytes, context: Any) -> bytes:
        count[0] += 1
        if count[0] % 3 == 0:
            context.abort(grpc.StatusCode.INTERNAL, "every third fails")
        return GOOD

    with InferenceServer(answer, workers=1) as server:
        seen = server.load(generator, load=Load("concurrency", 1), successes=20, failures=8)
    assert set(seen.failures) == {"gRPC INTERNAL: every third fails"}
    assert abs(len(seen.done_ns) - 2 * seen.failed) <= 2


@pytest.mark.parametrize("answered", [b"", b"\x12\x01m", b"garbage"])
def test_what_is_no_inference_reply_is_a_failure(generator: ProcessLoadGenerator, answered: bytes) -> None:
    with InferenceServer(lambda *_: answered) as server:
        seen = server.load(generator, failures=2)
    assert not seen.done_ns
    assert set(seen.failures) == {"malformed reply: no ModelInferResponse"}


def test_a_silent_server_fails_by_timeout(generator: ProcessLoadGenerator) -> None:
    release = threading.Event()

    def answer(request: bytes, context: Any) -> bytes:
        release.wait(20)
        return GOOD

    with InferenceServer(answer) as server:
        seen = server.load(generator, timeout_s=0.2, failures=2)
        release.set()
    assert not seen.done_ns
    assert set(seen.failures) == {"timeout: no reply within 0.2 s"}


def test_a_dead_server_is_failures_without_a_storm_and_used_again_when_it_returns(
    generator: ProcessLoadGenerator,
) -> None:
    server = InferenceServer()
    port = server.port
    server.stop()
    seen = load(generator, port, load=Load("concurrency", 4), failures=4 * 7)
    assert not seen.done_ns
    assert seen.took_s >= least_s(seen.failed, 4) >= 0.6
    assert set(seen.failures) == {"cannot connect: Connection refused"}

    back: list[InferenceServer] = []

    def returned(seen: Seen) -> bool:
        if not back:
            back.append(InferenceServer(port=port))
        return len(seen.done_ns) >= 10

    try:
        load(generator, port, failures=2, until=returned)
    finally:
        for each in back:
            each.stop()


def test_after_stop_nothing_is_sent_and_what_is_in_flight_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    answered = []
    release = released_by_the_stop(monkeypatch)

    def answer(request: bytes, context: Any) -> bytes:
        if release.wait(20):
            answered.append(request)
        return GOOD

    with InferenceServer(answer) as server:
        # In this process: there the stop can be seen.
        seen = run(grpc_order(server.port, value=3), lambda _: len(server.requests) >= 3)
        assert len(answered) == 3
        assert len(server.requests) == 3
    assert not seen.failures


@pytest.mark.parametrize("distribution", ["constant", "poisson"])
def test_an_open_loop_sends_by_its_schedule(generator: ProcessLoadGenerator, distribution: Any) -> None:
    with InferenceServer() as server:
        seen = server.load(generator, load=Load("request_rate", 200.0, distribution), successes=80)
    assert not seen.failures
    assert follows_schedule(seen, send_times_ns(200.0, distribution, 0))
    assert len(seen.send_lags_ns) >= len(seen.done_ns)
    assert all(lag >= 0 for lag in seen.send_lags_ns)


def test_open_loop_latency_counts_from_the_scheduled_time_whatever_the_server_does(
    generator: ProcessLoadGenerator,
) -> None:
    def answer(request: bytes, context: Any) -> bytes:
        time.sleep(0.04)
        return GOOD

    with InferenceServer(answer, workers=1) as server:
        seen = server.load(generator, load=Load("request_rate", 100.0), successes=10)
    # The server takes 40 ms each and one is due every 10 ms: the n-th is 30 ms later than the one before.
    assert all(latency >= 40 * MS + n * 29 * MS for n, latency in enumerate(seen.latency_ns))


def test_an_open_loop_stops_though_nothing_comes_back(generator: ProcessLoadGenerator) -> None:
    release = threading.Event()

    def answer(request: bytes, context: Any) -> bytes:
        release.wait(40)
        return GOOD

    with InferenceServer(answer) as server:
        began = time.monotonic()
        server.load(generator, load=Load("request_rate", 5000.0), reports=10)
        took = time.monotonic() - began
        release.set()
    assert took < 30, "else as long as a request may take, which is two minutes"


@pytest.mark.parametrize("size", [70_000, 20_000_000])
def test_large_requests_and_replies_pass_whole(generator: ProcessLoadGenerator, size: int) -> None:
    """Larger than the windows of either side, and than a frame."""
    bodies = tuple(bytes([n]) * size for n in range(2))
    contents = b"\x32" + bytes([size & 0x7F | 0x80, size >> 7 & 0x7F | 0x80, size >> 14 & 0x7F | 0x80, size >> 21])

    with InferenceServer(lambda request, _: GOOD + contents + request) as server:
        seen = server.load(generator, load=Load("concurrency", 3), bodies=bodies, successes=6)
        assert set(server.requests) == set(bodies)
    assert not seen.failures
    assert len(seen.done_ns) >= 6


def test_a_request_beyond_the_servers_limit_is_its_refusal(generator: ProcessLoadGenerator) -> None:
    with InferenceServer(options=(("grpc.max_receive_message_length", 1000),)) as server:
        seen = server.load(generator, bodies=(b"x" * 500_000,), failures=3)
        small = server.load(generator, bodies=(b"x" * 1000,), successes=3)
    assert not seen.done_ns
    assert all(text.startswith("gRPC RESOURCE_EXHAUSTED: ") for text in seen.failures), seen.failures
    assert not small.failures


def test_connections_that_a_server_retires_cost_no_request(generator: ProcessLoadGenerator) -> None:
    """It sends GOAWAY, twice, and closes when the last reply has gone."""
    retiring = (("grpc.max_connection_age_ms", 100), ("grpc.max_connection_age_grace_ms", 20_000))
    with InferenceServer(options=retiring) as server:
        seen = server.load(generator, load=Load("concurrency", 4), successes=100, reports=20)
        many = server.load(generator, load=Load("concurrency", 32), successes=100, reports=20)
        paced = server.load(generator, load=Load("request_rate", 100.0), successes=50, reports=20)
    assert not seen.failures
    assert not many.failures
    assert not paced.failures


def test_a_server_that_compresses_without_being_asked_is_a_failure_that_says_so(
    generator: ProcessLoadGenerator,
) -> None:
    content = GOOD + b"\x32\x7f" + bytes(127)
    with InferenceServer(lambda *_: content, compression=grpc.Compression.Gzip) as server:
        seen = server.load(generator, failures=2)
    assert not seen.done_ns
    assert set(seen.failures) == {"compressed reply (gzip): none was asked for"}


@pytest.mark.triton
def test_a_real_triton_counts_as_many_as_both_drivers_do(embedded_server: Any, generator: ProcessLoadGenerator) -> None:
    source = InputSource(shapes=(("INPUT", (3,)),))
    address: dict[Protocol, str] = {
        "http": embedded_server.info.http_endpoint,
        "grpc": embedded_server.info.grpc_endpoint,
    }
    model = embedded_server.server.load(DYNAMIC)
    try:
        for protocol in address:
            requests = TritonEncoder().encode(model, 2, source, protocol, address[protocol])
            for asked in (Load("concurrency", 4), Load("concurrency", 64), Load("request_rate", 100.0)):
                before = _inferences(embedded_server)
                count = failed = 0
                with generator.run(LoadOrder(address[protocol], asked, requests, 120.0)) as batches:
                    for batch in batches:
                        count += len(batch.done_ns)
                        failed += sum(batch.failures.values())
                        if count >= 50 or failed:
                            break
                assert not failed
                # A request is two inferences. Those that came back while it drained are the server's only.
                assert _served(embedded_server, before, 2 * count) % 2 == 0
    finally:
        embedded_server.server.unload(DYNAMIC)


@pytest.mark.parametrize("most", [1, 3])
def test_a_server_of_few_streams_a_connection_gets_more_connections(generator: ProcessLoadGenerator, most: int) -> None:
    inside, top, lock = [0], [0], threading.Lock()
    everyone = threading.Barrier(16)  # of requests: no reply before so many are there

    def answer(request: bytes, context: Any) -> bytes:
        with lock:
            inside[0] += 1
            top[0] = max(top[0], inside[0])
        with suppress(threading.BrokenBarrierError):  # too few came
            everyone.wait(20)
        with lock:
            inside[0] -= 1
        return GOOD

    with InferenceServer(answer, workers=16, options=(("grpc.max_concurrent_streams", most),)) as server:
        seen = server.load(generator, load=Load("concurrency", 16), successes=160)
        everyone.abort()
    assert not seen.failures
    assert top[0] == 16


def test_a_timeout_among_many_is_told_to_the_server_and_costs_no_other_request(generator: ProcessLoadGenerator) -> None:
    lock, count, cancelled = threading.Lock(), [0], threading.Event()

    def answer(request: bytes, context: Any) -> bytes:
        with lock:
            count[0] += 1
            stuck = count[0] == 5
        if stuck:
            context.add_callback(cancelled.set)
            cancelled.wait(20)
        else:
            time.sleep(0.002)
        return GOOD

    with InferenceServer(answer, workers=16) as server:
        # A server that is held up so long itself would cost the others their replies, too.
        seen = server.load(generator, load=Load("concurrency", 8), timeout_s=2.0, successes=500, failures=1)
        assert cancelled.wait(10)
        assert len(seen.done_ns) <= len(server.requests) - 1
    assert seen.failures == {"timeout: no reply within 2 s": 1}


@pytest.mark.triton
@pytest.mark.parametrize("size", [2_500, 10_000, 25_000, 6_000_000])
def test_a_real_triton_takes_and_gives_large_tensors(
    embedded_server: Any, generator: ProcessLoadGenerator, size: int
) -> None:
    """From less than the frames that HTTP/2 begins with to 24 MB each way: six times its windows, and longer than any frame."""
    model = embedded_server.server.load(DYNAMIC)
    address = embedded_server.info.grpc_endpoint
    try:
        requests = TritonEncoder().encode(model, 1, InputSource(shapes=(("INPUT", (size,)),)), "grpc", address)
        before = _inferences(embedded_server)
        count = failures = 0
        with generator.run(LoadOrder(address, Load("concurrency", 3), requests, 120.0)) as batches:
            for batch in batches:
                count += len(batch.done_ns)
                failures += sum(batch.failures.values())
                if count >= 6 or failures:
                    break
        _served(embedded_server, before, count)
    finally:
        embedded_server.server.unload(DYNAMIC)
    assert not failures
    assert count >= 6


@pytest.mark.triton
@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"\x0a\x07nothing", "gRPC NOT_FOUND: Request for unknown model: 'nothing' is not found"),
        # Told several times by the server for one request.
        (b"no message at all", "gRPC INTERNAL"),
    ],
)
def test_a_real_triton_refuses_once_a_request(
    embedded_server: Any, generator: ProcessLoadGenerator, body: bytes, text: str
) -> None:
    port = int(embedded_server.info.grpc_endpoint.rpartition(":")[2])
    seen = load(generator, port, load=Load("concurrency", 4), bodies=(body,), failures=4 * 7)
    assert not seen.done_ns
    assert all(found.startswith(text) for found in seen.failures), seen.failures
    assert seen.took_s >= least_s(seen.failed, 4) >= 0.6


def _served(embedded_server: Any, before: int, least: int) -> int:
    """How many the server has counted since, so many at least: it counts a request a moment after its reply."""
    deadline = time.monotonic() + PATIENCE_S
    while (served := _inferences(embedded_server) - before) < least:
        assert time.monotonic() < deadline, f"the server counted {served} of {least}"
        time.sleep(0.05)
    return served


def _inferences(embedded_server: Any) -> int:
    with urllib.request.urlopen(embedded_server.info.metrics_url, timeout=10) as page:
        text = page.read().decode()
    found = re.findall(r'nv_inference_count\{model="dynamic_dims".*?\} (\S+)', text)
    return sum(int(float(value)) for value in found)
