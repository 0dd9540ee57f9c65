"""Several processes drive one order: what they send and tell is what one would have."""

from __future__ import annotations

import itertools
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import psutil
import pytest
from scripted_server import ScriptedServer, always, refusal, reply, wire
from test_generator_process import children, take
from test_grpc_driver import DYNAMIC, _inferences

from model_analyzer.adapters.triton.requests import TritonEncoder
from model_analyzer.core.load import EncodedRequest, InputSource, Load, LoadOrder, Protocol, RequestSet
from model_analyzer.errors import LoadGeneratorError
from model_analyzer.loadgen.client import ProcessLoadGenerator
from model_analyzer.loadgen.schedule import send_times_ns
from model_analyzer.ports import LoadBatch


@pytest.fixture
def generator() -> Iterator[ProcessLoadGenerator]:
    generator = ProcessLoadGenerator()
    yield generator
    generator.close()


def to(server: ScriptedServer, load: Load, workers: int, bodies: Sequence[bytes] = (b"request",)) -> LoadOrder:
    parts = (wire(body).partition(b"\r\n\r\n") for body in bodies)
    requests = tuple(EncodedRequest(head + blank, body) for head, blank, body in parts)
    return LoadOrder(
        f"127.0.0.1:{server.port}", load, RequestSet("http", requests, 1), timeout_s=120.0, seed=3, workers=workers
    )


def drive(
    generator: ProcessLoadGenerator, order: LoadOrder, replies: int = 100, until: Callable[[], bool] = lambda: True
) -> list[LoadBatch]:
    """Every batch of an order that ends after so many replies, and not before `until` is so; up to its last reply."""
    with generator.run(order) as batches:
        taken = take(batches, replies)
        while not until():
            taken.append(next(batches))
    return [*taken, *batches]


def count(batches: Sequence[LoadBatch]) -> int:
    return sum(len(batch.done_ns) for batch in batches)


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_every_request_in_flight_has_a_connection_and_every_reply_is_told(
    generator: ProcessLoadGenerator, workers: int
) -> None:
    with ScriptedServer(always(reply())) as server:
        # One worker may have answered all of them before another has connected.
        batches = drive(generator, to(server, Load("concurrency", 7), workers), 300, lambda: server.accepted >= 7)
        assert len(children()) == workers
        assert server.accepted == 7
        assert count(batches) == len(server.bodies), "client and server do not count alike"
    assert sum(use.replies for use in batches[-1].workers) == count(batches)
    done = [int(time) for batch in batches for time in batch.done_ns]
    assert done == sorted(done)


def test_the_rest_comes_once_the_load_is_stopped_and_then_no_more(generator: ProcessLoadGenerator) -> None:
    with ScriptedServer(always(reply())) as server:
        with generator.run(to(server, Load("concurrency", 2), 1)) as batches:
            taken = take(batches, 10)
        rest = list(batches)
        assert rest
        assert next(batches, None) is None
        assert count(taken) + count(rest) == len(server.bodies)


def test_failures_of_all_are_added_up(generator: ProcessLoadGenerator) -> None:
    with ScriptedServer(always(refusal("400 Bad Request", "no"))) as server:
        with generator.run(to(server, Load("concurrency", 4), 2)) as batches:
            taken = list(itertools.islice(batches, 6))
        taken += batches
        told = sum((Counter(batch.failures) for batch in taken), Counter())
        assert told == {"HTTP 400: no": len(server.bodies)}


@pytest.mark.parametrize("distribution", ["constant", "poisson"])
def test_an_open_loop_sends_the_one_schedule(generator: ProcessLoadGenerator, distribution: str) -> None:
    """Each time of it once, with the request that one process would have sent then."""
    bodies = [b"%d" % number for number in range(5)]
    with ScriptedServer(always(reply())) as server:
        load = Load("request_rate", 400, distribution)  # type: ignore[arg-type]
        batches = drive(generator, to(server, load, 3, bodies), 300)
        sent = Counter(server.bodies)
        assert count(batches) == len(server.bodies)
    due = sorted(int(time) for batch in batches for time in batch.done_ns - batch.latency_ns)
    assert len(children()) == 3
    # Each worker stops at a moment of its own: what comes before the first of these is whole.
    expected = list(itertools.islice(send_times_ns(400, distribution, 3), len(due) + 100))
    offsets = [time - due[0] + expected[0] for time in due]
    assert set(offsets) <= set(expected), "a time that is not in the schedule"
    assert len(set(offsets)) == len(offsets), "a time of the schedule was used twice"
    first_missing = next(n for n, time in enumerate(expected) if time not in set(offsets))
    assert first_missing > 250, "a time of the schedule was left out"
    assert max(sent.values()) - min(sent.values()) <= 3


def test_workers_are_kept_for_the_orders_that_need_them(generator: ProcessLoadGenerator) -> None:
    with ScriptedServer(always(reply())) as server:
        pids = []
        for workers in (1, 2, 1, 2):
            batches = drive(generator, to(server, Load("concurrency", 4), workers), 50)
            assert len(batches[-1].workers) == workers
            pids.append([child.pid for child in sorted(children(), key=lambda child: child.create_time())])
    assert pids[1] == pids[2] == pids[3]
    assert pids[0] == pids[1][:1]


def test_one_that_dies_ends_the_order_in_one_line_and_all_are_replaced(generator: ProcessLoadGenerator) -> None:
    with ScriptedServer(always(reply())) as server:
        order = to(server, Load("concurrency", 4), 2)
        with pytest.raises(LoadGeneratorError) as caught, generator.run(order) as batches:  # noqa: PT012
            take(batches, 10)
            children()[1].kill()
            take(batches, 10_000_000)
        assert str(caught.value) == "load generator: died (signal SIGKILL); run again; if it persists, report it"
        assert not children()
        assert count(drive(generator, order, 10)) >= 10


def test_an_idle_one_that_died_is_replaced(generator: ProcessLoadGenerator) -> None:
    with ScriptedServer(always(reply())) as server:
        drive(generator, to(server, Load("concurrency", 2), 2), 10)
        youngest = max(children(), key=lambda child: child.create_time())
        youngest.kill()
        while youngest.status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.005)
        assert count(drive(generator, to(server, Load("concurrency", 2), 1), 10)) >= 10
        assert count(drive(generator, to(server, Load("concurrency", 2), 2), 10)) >= 10


def test_workers_are_pinned_to_the_cpus_in_turn() -> None:
    cpus = sorted(os.sched_getaffinity(0))[:2]
    generator = ProcessLoadGenerator(cpus)
    try:
        with ScriptedServer(always(reply())) as server:
            drive(generator, to(server, Load("concurrency", 3), 3), 10)
            pinned = Counter(cpu for child in children() for cpu in child.cpu_affinity())
            assert all(len(child.cpu_affinity()) == 1 for child in children())
    finally:
        generator.close()
    assert pinned == Counter(itertools.islice(itertools.cycle(cpus), 3))


def test_a_cpu_that_is_not_there_is_an_error_of_one_line() -> None:
    generator = ProcessLoadGenerator([4095])
    with ScriptedServer(always(reply())) as server:
        with pytest.raises(LoadGeneratorError) as caught, generator.run(to(server, Load("concurrency", 1), 1)):
            pass
    assert "\n" not in str(caught.value)
    assert "Invalid argument" in str(caught.value)


@pytest.mark.triton
@pytest.mark.parametrize("protocol", ["http", "grpc"])
@pytest.mark.parametrize("load", [Load("concurrency", 9), Load("request_rate", 100.0)], ids=str)
def test_a_real_triton_counts_as_many_as_all_workers_together(
    embedded_server: Any, generator: ProcessLoadGenerator, protocol: Protocol, load: Load
) -> None:
    info = embedded_server.info
    address = info.grpc_endpoint if protocol == "grpc" else info.http_endpoint
    model = embedded_server.server.load(DYNAMIC)
    try:
        requests = TritonEncoder().encode(model, 1, InputSource(shapes=(("INPUT", (3,)),)), protocol, address)
        before = _inferences(embedded_server)
        batches = drive(generator, LoadOrder(address, load, requests, 120.0, workers=2), 100)
        # The server counts a request a moment after its reply.
        end = time.monotonic() + 60
        while (served := _inferences(embedded_server) - before) < count(batches) and time.monotonic() < end:
            time.sleep(0.05)
    finally:
        embedded_server.server.unload(DYNAMIC)
    assert not any(batch.failures for batch in batches)
    assert count(batches) == served
