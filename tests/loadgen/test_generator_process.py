"""The load generator's process: it takes orders, tells about itself, and breaks in one line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import psutil
import pytest
from scripted_server import Peer, ScriptedServer, always, refusal, reply, wire

from model_analyzer.adapters.triton.requests import MOST
from model_analyzer.core.load import EncodedRequest, Load, LoadOrder, Protocol, RequestSet, Tls
from model_analyzer.errors import LoadGeneratorError
from model_analyzer.loadgen.client import ProcessLoadGenerator
from model_analyzer.ports import LoadBatch

GOOD = reply()


@pytest.fixture
def generator() -> Iterator[ProcessLoadGenerator]:
    generator = ProcessLoadGenerator()
    yield generator
    generator.close()


def to(address: str, concurrency: int = 1, tls: Tls | None = None, protocol: Protocol = "http") -> LoadOrder:
    head, _, body = wire(b"request").partition(b"\r\n\r\n")
    requests = RequestSet(protocol, (EncodedRequest(head + b"\r\n\r\n", body),), 1)
    return LoadOrder(address, Load("concurrency", concurrency), requests, timeout_s=120.0, tls=tls)


def children() -> list[psutil.Process]:
    """The load generators that this process has started."""
    return [child for child in psutil.Process().children() if "model_analyzer.loadgen" in child.cmdline()]


def take(batches: Iterator[LoadBatch], count: int = 1) -> list[LoadBatch]:
    """Batches until so many replies have come."""
    taken = []
    for batch in batches:
        taken.append(batch)
        if sum(len(each.done_ns) for each in taken) >= count:
            break
    return taken


def test_batches_tell_replies_cpu_and_lag(generator: ProcessLoadGenerator) -> None:
    with ScriptedServer(always(GOOD)) as server, generator.run(to(f"127.0.0.1:{server.port}", 2)) as batches:
        before = time.monotonic_ns()
        taken = [next(batches) for _ in range(5)]
    assert all(batch.cpu_ns > 0 for batch in taken)
    assert [batch.cpu_ns for batch in taken] == sorted(batch.cpu_ns for batch in taken)
    # A process cannot burn more than its cores did; the reports are 50 ms apart.
    assert taken[-1].cpu_ns < (taken[-1].end_ns - before + 5_000_000_000)
    assert any(batch.lag_ns > 0 for batch in taken)
    assert all(end <= batch.end_ns for batch in taken for end in batch.done_ns)
    assert sum(len(batch.done_ns) for batch in taken) <= len(server.bodies)


def test_a_stalled_child_shows_in_its_lag_or_its_latencies(generator: ProcessLoadGenerator) -> None:
    with ScriptedServer(always(GOOD)) as server, generator.run(to(f"127.0.0.1:{server.port}", 8)) as batches:
        take(batches, 10)
        (child,) = children()
        child.suspend()
        time.sleep(0.3)
        resumed_ns = time.monotonic_ns()
        child.resume()
        taken = [next(batches)]
        while taken[-1].end_ns < resumed_ns + 100_000_000:
            taken.append(next(batches))
    longest = max([batch.lag_ns for batch in taken] + [int(x) for batch in taken for x in batch.latency_ns])
    assert longest >= 250_000_000


def test_one_process_serves_order_after_order(generator: ProcessLoadGenerator) -> None:
    with ScriptedServer(always(GOOD)) as first, ScriptedServer(always(GOOD)) as second:
        pids = []
        for server in (first, second, first):
            with generator.run(to(f"127.0.0.1:{server.port}")) as batches:
                assert len(take(batches)[-1].done_ns)
            pids += [child.pid for child in children()]
            sent = len(first.bodies) + len(second.bodies)
            time.sleep(0.05)
            assert len(first.bodies) + len(second.bodies) == sent, "sends though it was told to stop"
    assert len(set(pids)) == 1
    assert len(pids) == 3


def test_as_many_requests_as_a_data_file_may_have_are_all_sent(generator: ProcessLoadGenerator) -> None:
    bodies = [b"%d" % number * 100 for number in range(MOST)]
    heads_and_bodies = (wire(body).partition(b"\r\n\r\n") for body in bodies)
    encoded = tuple(EncodedRequest(head + blank, body) for head, blank, body in heads_and_bodies)
    with ScriptedServer(always(GOOD)) as server:
        address = f"127.0.0.1:{server.port}"
        work = LoadOrder(address, Load("concurrency", 4), RequestSet("http", encoded, 1), timeout_s=5.0)
        with generator.run(work) as batches:
            take(batches, MOST + 4)
        assert set(server.bodies) == set(bodies)


@pytest.mark.parametrize("silent", [0, 2])
def test_after_its_end_a_load_tells_how_many_requests_had_no_reply(
    generator: ProcessLoadGenerator, silent: int
) -> None:
    def script(peer: Peer) -> None:
        while peer.request() is not None:
            if peer.number >= silent:
                peer.send(GOOD)

    with ScriptedServer(script) as server:
        with generator.run(to(f"127.0.0.1:{server.port}", 3)) as batches:
            for batch in batches:
                if batch.inflight == 3 and len(server.bodies) > 50:
                    break
        left = list(batches)
    assert not any(batch.failures for batch in left)
    assert (left[-1].inflight if left else 0) == silent


def test_failures_arrive_with_their_message(generator: ProcessLoadGenerator) -> None:
    script = always(refusal("400 Bad Request", "unexpected shape\nfor INPUT"))
    with ScriptedServer(script) as server, generator.run(to(f"127.0.0.1:{server.port}")) as batches:
        failures = next(batch.failures for batch in batches if batch.failures)
    assert list(failures) == ["HTTP 400: unexpected shape for INPUT"]


def test_a_child_killed_in_mid_slice_is_an_error_of_one_line_and_is_replaced(generator: ProcessLoadGenerator) -> None:
    with ScriptedServer(always(GOOD)) as server:
        work = to(f"127.0.0.1:{server.port}", 4)
        with pytest.raises(LoadGeneratorError) as caught, generator.run(work) as batches:  # noqa: PT012
            take(batches, 10)
            children()[0].kill()
            take(batches, 1_000_000)
        assert str(caught.value) == "load generator: died (signal SIGKILL); run again; if it persists, report it"
        assert not children()
        with generator.run(work) as batches:
            assert take(batches, 10)


def test_a_child_that_died_between_orders_is_replaced(generator: ProcessLoadGenerator) -> None:
    with ScriptedServer(always(GOOD)) as server:
        work = to(f"127.0.0.1:{server.port}")
        with generator.run(work) as batches:
            take(batches)
        (child,) = children()
        child.kill()
        while child.status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.005)
        with generator.run(work) as batches:
            assert take(batches)


@pytest.mark.parametrize(
    ("work", "what"),
    [
        (to("no-such-host.invalid:8000"), "gaierror"),
        (to("127.0.0.1:1", tls=Tls(ca_file="/nowhere/ca.pem")), "FileNotFoundError"),
        (to("127.0.0.1:1", tls=Tls(ca_file="/nowhere/ca.pem"), protocol="grpc"), "FileNotFoundError"),
    ],
)
def test_what_cannot_even_begin_is_an_error_of_one_line(
    generator: ProcessLoadGenerator, work: LoadOrder, what: str
) -> None:
    with pytest.raises(LoadGeneratorError) as caught, generator.run(work) as batches:
        take(batches)
    assert what in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_error_of_the_caller_ends_the_child_at_once(generator: ProcessLoadGenerator) -> None:
    def never(peer: Peer) -> None:
        while peer.request() is not None:
            pass

    with ScriptedServer(never) as server:
        with pytest.raises(KeyboardInterrupt), generator.run(to(f"127.0.0.1:{server.port}")) as batches:  # noqa: PT012
            next(batches)
            began = time.monotonic()
            raise KeyboardInterrupt
    # It ends by itself within two seconds, or is killed. The reply that it waits for would be given up after two minutes.
    assert time.monotonic() - began < 20
    assert not children()


def test_close_twice_ends_the_process_once(generator: ProcessLoadGenerator) -> None:
    generator.close()
    with ScriptedServer(always(GOOD)) as server, generator.run(to(f"127.0.0.1:{server.port}")) as batches:
        take(batches)
    assert len(children()) == 1
    generator.close()
    assert not children()
    generator.close()


ANALYZER = """
import sys, psutil
from model_analyzer.adapters.triton.requests import MOST
from model_analyzer.core.load import EncodedRequest, Load, LoadOrder, RequestSet
from model_analyzer.loadgen.client import ProcessLoadGenerator
head = b"POST / HTTP/1.1\\r\\nContent-Length: 1\\r\\n\\r\\n"
order = LoadOrder(sys.argv[1], Load("concurrency", 2), RequestSet("http", (EncodedRequest(head, b"x"),), 1), 5.0)
with ProcessLoadGenerator().run(order) as batches:
    for batch in batches:
        if len(batch.done_ns):
            print(psutil.Process().children()[0].pid, flush=True)
"""


def test_when_the_analyzer_is_killed_its_child_ends() -> None:
    with ScriptedServer(always(GOOD)) as server:
        command = [sys.executable, "-c", ANALYZER, f"127.0.0.1:{server.port}"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as analyzer:
            assert analyzer.stdout is not None
            child = psutil.Process(int(analyzer.stdout.readline()))
            os.kill(analyzer.pid, signal.SIGKILL)
            analyzer.wait(30)
        try:
            child.wait(30)
        finally:
            if child.is_running():
                child.kill()


def test_more_connections_than_the_soft_limit_of_descriptors(generator: ProcessLoadGenerator) -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 1024:
        pytest.skip(f"this system allows {hard} descriptors only")
    with ScriptedServer(always(GOOD)) as server:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
        try:
            with generator.run(to(f"127.0.0.1:{server.port}", 40)) as batches:
                take(batches, 40)
                limits = psutil.Process(children()[0].pid).rlimit(psutil.RLIMIT_NOFILE)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert limits[0] == hard


def test_what_an_order_leaves_is_freed_before_the_next_and_modules_are_not_looked_through_again() -> None:
    code = """
import gc, weakref
from model_analyzer.loadgen.__main__ import _collect
class Node: pass
def left_behind():
    one = Node(); one.self = one
    return weakref.ref(one)
_collect()
looked_through = len(gc.get_objects())
node = left_behind()
assert node() is not None
_collect()
print(node(), looked_through < 100, gc.isenabled())
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert ran.stdout == "None True False\n"
