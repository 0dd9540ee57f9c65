"""The HTTP driver against a server that is scripted byte by byte, over real sockets."""

from __future__ import annotations

import hashlib
import json
import socket
import struct
import threading
import time
from typing import Any

import h2_server
import pytest
from scripted_server import (
    Peer,
    Script,
    ScriptedServer,
    Seen,
    always,
    enough,
    follows_schedule,
    in_turn,
    larger_than_buffers,
    least_s,
    order,
    refusal,
    released_by_the_stop,
    reply,
    run,
    scheduled,
)

from model_analyzer.loadgen import driver
from model_analyzer.loadgen.http import HttpDriver
from model_analyzer.loadgen.order import Order
from model_analyzer.loadgen.schedule import send_times_ns

MS = 1_000_000
GOOD = reply()


def test_every_reply_is_counted_once_with_its_latency() -> None:
    with ScriptedServer(always(GOOD)) as server:
        seen = run(order(server.port, value=4), enough(200))
    assert not seen.failures
    assert server.accepted == 4
    # The last ones come in while it drains and are not reported.
    assert 200 <= len(seen.done_ns) <= len(server.bodies)
    assert seen.done_ns == sorted(seen.done_ns)
    assert all(0 < latency <= seen.took_s * 1e9 for latency in seen.latency_ns)


def test_replies_split_at_every_byte_are_whole() -> None:
    def script(peer: Peer) -> None:
        at = 0
        while peer.request() is not None:
            at = at % (len(GOOD) - 1) + 1
            peer.send(GOOD[:at], GOOD[at:])

    with ScriptedServer(script) as server:
        seen = run(order(server.port), enough(len(GOOD)))
    assert not seen.failures
    assert len(seen.done_ns) >= len(GOOD)


@pytest.mark.parametrize(
    "parts",
    [
        pytest.param((b"HTTP/1.1 100 Continue\r\n\r\n", GOOD), id="interim-apart"),
        pytest.param(
            (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + GOOD,), id="interim"
        ),
        pytest.param((reply(b"x" * 700_000),), id="larger-than-a-read"),
        pytest.param((reply(b""),), id="no-tensor-bytes"),
        pytest.param((reply(document={"outputs": ["x" * 100_000]}),), id="long-json"),
    ],
)
def test_proper_replies_of_any_form_succeed(parts: tuple[bytes, ...]) -> None:
    with ScriptedServer(always(*parts)) as server:
        seen = run(order(server.port, value=2), enough(20))
    assert not seen.failures
    assert len(seen.done_ns) >= 20
    assert server.accepted == 2


@pytest.mark.parametrize(
    "last",
    [
        pytest.param(reply(length=False), id="until-close"),
        pytest.param(reply(b"", "Connection: close"), id="connection-close"),
        pytest.param(GOOD.replace(b"HTTP/1.1", b"HTTP/1.0"), id="http-1.0"),
    ],
)
def test_a_connection_that_ends_with_its_reply_is_replaced_without_a_failure(last: bytes) -> None:
    def script(peer: Peer) -> None:
        if peer.request() is not None:
            peer.send(last)

    with ScriptedServer(script) as server:
        seen = run(order(server.port, value=2), enough(20))
    assert not seen.failures
    assert len(seen.done_ns) >= 20
    assert server.accepted >= 20


def test_chunked_replies_succeed_in_any_pieces() -> None:
    head, _, body = reply(length=False, data=b"0123456789").partition(b"\r\n\r\n")
    head += b"\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunks = b"".join(b"%x;x=y\r\n%s\r\n" % (len(piece), piece) for piece in (body[:1], body[1:30], body[30:]))
    whole = head + chunks + b"0\r\nTrailer: x\r\n\r\n"

    def script(peer: Peer) -> None:
        at = 0
        while peer.request() is not None:
            at = (at + 7) % len(whole)
            peer.send(whole[:at], whole[at:])

    with ScriptedServer(script) as server:
        seen = run(order(server.port), enough(60))
    assert not seen.failures
    assert server.accepted == 1


def test_replies_whose_length_and_headers_change_succeed() -> None:
    replies = [reply(b"x" * size, f"X-Request-Id: {size * 7}") for size in range(400)]
    with ScriptedServer(in_turn(*replies, GOOD, GOOD)) as server:
        seen = run(order(server.port), enough(900))
    assert not seen.failures
    assert len(seen.done_ns) >= 900


SIXTEEN = b'{"outputs": [{"name": "OUTPUT", "parameters": {"binary_data_size": 16}}]}'
BAD = {
    "status": (refusal("400 Bad Request"), "HTTP 400: model is not ready"),
    "status-without-body": (b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n", "HTTP 503"),
    "status-text": (b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 9\r\n\r\n<h1>\nno\n\n", "HTTP 502: <h1> no"),
    "error-with-200": (refusal("200 OK"), "HTTP 200: model is not ready"),
    "spaced-error-with-200": (
        b'HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n { "error" : "bad" }',
        "HTTP 200: bad",
    ),
    "garbage": (b"SSH-2.0-OpenSSH_9.2\r\n", "malformed reply: starts with b'SSH-2.0-OpenSSH_9.2"),
    "head-garbage": (b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n", "malformed reply: header line b'no colon'"),
    "page": (b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>", "malformed reply: its JSON part does not parse"),
    "other-json": (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", "malformed reply: no outputs in it"),
    "tensors-cut-off": (
        reply(b"0123", document={"outputs": [{"name": "OUTPUT", "parameters": {"binary_data_size": 16}}]}),
        "malformed reply: 4 bytes of tensors, and its JSON part tells of 16",
    ),
    "chunks-cut-off": (
        b"HTTP/1.1 200 OK\r\nInference-Header-Content-Length: %d\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n"
        % (len(SIXTEEN), len(SIXTEEN), SIXTEEN),
        "malformed reply: 0 bytes of tensors, and its JSON part tells of 16",
    ),
    "extra": (GOOD + b"x", "malformed reply: bytes after its end"),
    "two": (GOOD + GOOD, "malformed reply: bytes after its end"),
    "no-content": (b"HTTP/1.1 204 No Content\r\n\r\n", "HTTP 204"),
    "chunk": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "malformed reply: chunk size b'zz'"),
    "chunk-longer-than-told": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}}\r\n", "malformed reply: chunk without its end",
    ),
    "length-too-small": (
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n" + b'{"outputs": []}', "malformed reply: bytes after its end",
    ),
    "two-lengths": (GOOD.replace(b"Content-Length: ", b"Content-Length: 1\r\nContent-Length: ", 1), "malformed reply: header line b'"),
    "negative-length": (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "malformed reply: content-length: b'-1'"),
    "endless-head": (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000, "malformed reply: no end of head in 65536 bytes"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_reply_is_a_failure_with_its_reason_and_never_timed(kind: str) -> None:
    bad, message = BAD[kind]
    with ScriptedServer(in_turn(bad)) as server:
        seen = run(order(server.port), enough(failures=2))
    assert not seen.done_ns
    assert not seen.latency_ns
    assert all(text.startswith(message) for text in seen.failures), seen.failures
    assert all("\n" not in text for text in seen.failures)


@pytest.mark.parametrize("kind", BAD)
def test_good_replies_go_on_between_bad_ones(kind: str) -> None:
    bad, _ = BAD[kind]
    good = 0

    def script(peer: Peer) -> None:
        nonlocal good
        while peer.request() is not None:
            turn = len(server.bodies)
            good += turn % 5 != 3
            peer.send(bad if turn % 5 == 3 else GOOD)

    with ScriptedServer(script) as server:
        seen = run(order(server.port), enough(30, failures=3))
        assert len(seen.done_ns) <= good
    assert seen.failed >= 3


def test_the_rest_of_a_malformed_reply_is_not_taken_for_the_next_one() -> None:
    text = SIXTEEN
    bad = b"HTTP/1.1 200 OK\r\nInference-Header-Content-Length: %d\r\nContent-Length: %d\r\n\r\n" % (
        len(text),
        len(text) + 9,
    )

    def script(peer: Peer) -> None:
        while peer.request() is not None:
            if peer.number:
                peer.send(GOOD)
                continue
            # So far it looks whole, and wrong. The rest of it comes with the next request.
            peer.send(bad + text + b"012345678")
            if peer.request() is not None:
                peer.send(b"9abcdef" + GOOD)
            return

    with ScriptedServer(script) as server:
        seen = run(order(server.port), enough(5, failures=1))
    assert dict(seen.failures) == {"malformed reply: 9 bytes of tensors, and its JSON part tells of 16": 1}


def json_alone(document: Any) -> bytes:
    """A reply whose tensors lie in shared memory, as Triton writes it."""
    text = json.dumps(document).encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(text)}\r\n\r\n"
    return head.encode() + text


@pytest.mark.parametrize("good", [GOOD, json_alone({"outputs": [1]})], ids=["tensors", "shared memory"])
def test_a_reply_is_parsed_once_and_then_known(good: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[bytes] = []
    feed = HttpDriver._feed
    monkeypatch.setattr(HttpDriver, "_feed", lambda *given: parsed.append(bytes(given[2])) or feed(*given))
    with ScriptedServer(always(good)) as server:
        seen = run(order(server.port), enough(50))
    assert not seen.failures
    assert parsed == [good]


@pytest.mark.parametrize(
    "good", [reply(b"", document={"outputs": [1]}), json_alone({"outputs": [1]})], ids=["tensors", "shared memory"]
)
def test_an_error_as_long_as_a_good_reply_and_with_the_same_head_is_an_error(good: bytes) -> None:
    bad = good.replace(b'{"outputs": [1]}', b'{"error": "bad"}')
    assert len(good) == len(bad)
    with ScriptedServer(in_turn(good, good, good, bad)) as server:
        seen = run(order(server.port), enough(9, failures=3))
    assert set(seen.failures) == {"HTTP 200: bad"}
    assert abs(len(seen.done_ns) - 3 * seen.failed) <= 3


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("reset", "connection broke: Connection reset by peer"),
        ("close", "connection closed in mid-reply"),
        ("close-early", "connection closed without a reply"),
    ],
)
def test_a_connection_that_breaks_is_a_failure_and_is_replaced(how: str, message: str) -> None:
    def script(peer: Peer) -> None:
        while peer.request() is not None:
            if peer.number != 0:
                peer.send(GOOD)
                continue
            if how != "close-early":
                peer.send(GOOD[:-3])
                time.sleep(0.02)
            if how == "reset":
                peer.reset()
            return

    with ScriptedServer(script) as server:
        seen = run(order(server.port), enough(3, failures=1))
    assert dict(seen.failures) == {message: 1}
    assert server.accepted == 2
    assert len(seen.done_ns) < len(server.bodies)


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_one_request_in_flight_is_awaited_by_the_read_itself(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    polls: list[float] = []
    poll = driver.Driver._poll
    monkeypatch.setattr(driver.Driver, "_poll", lambda self, wait_s: polls.append(wait_s) or poll(self, wait_s))
    monkeypatch.setattr(driver, "CONVERSE_NS", 400_000_000)
    monkeypatch.setattr(driver, "CONVERSE_LIMIT", struct.pack("@ll", 0, 400_000))
    with ScriptedServer(h2_server.always() if protocol == "grpc" else always(reply())) as server:
        work = h2_server.grpc_order(server.port) if protocol == "grpc" else order(server.port)
        seen = run(work, enough(300))
    assert not seen.failures
    assert len(polls) < len(seen.done_ns) / 2


def test_a_silent_server_fails_by_timeout_and_gets_a_new_connection() -> None:
    def script(peer: Peer) -> None:
        peer.request()
        if peer.number:
            peer.send(GOOD)
            always(GOOD)(peer)
        else:
            peer.request()  # returns when the client has given up

    with ScriptedServer(script) as server:
        seen = run(order(server.port, timeout_ns=200 * MS), enough(5))
    assert set(seen.failures) == {"timeout: no reply within 0.2 s"}
    # The last request may have had its time after the stop: no connection is made any more.
    assert server.accepted in (seen.failed, 1 + seen.failed)


@pytest.mark.parametrize(
    ("begin", "more"),
    [
        pytest.param(b"", b"HTTP/1.1 100 Continue\r\n\r\n", id="interim"),
        pytest.param(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n", id="chunks"),
        pytest.param(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"x: y\r\n", id="trailers"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 999999999\r\n\r\n", b"x", id="length-too-large"),
        pytest.param(b"HTTP/1.1 200 OK\r\n\r\n", b"x", id="until-close"),
    ],
)
def test_a_reply_that_trickles_forever_fails_by_timeout(begin: bytes, more: bytes) -> None:
    def script(peer: Peer) -> None:
        peer.request()
        peer.send(begin)
        while True:
            peer.send(more)
            time.sleep(0.01)

    with ScriptedServer(script) as server:
        seen = run(order(server.port, timeout_ns=100 * MS), enough(failures=2))
    assert set(seen.failures) == {"timeout: no reply within 0.1 s"}


def test_a_server_that_dies_and_returns_is_used_again() -> None:
    servers = [ScriptedServer(always(GOOD))]
    refused = "cannot connect: Connection refused"

    def returned(seen: Seen) -> bool:
        if len(servers) == 2:
            return len(servers[1].bodies) >= 20
        if seen.failures[refused]:
            servers.append(ScriptedServer(always(GOOD), servers[0].port))
        elif len(seen.done_ns) >= 20:
            servers[0].close()
        return False

    try:
        seen = run(order(servers[0].port, value=2), returned)
        assert seen.took_s >= least_s(seen.failures[refused], 2)
    finally:
        for server in servers:
            server.close()


def failing_close(peer: Peer) -> None:
    """Refuse, then close without saying so."""
    if peer.request() is not None:
        peer.send(refusal("503 Service Unavailable"))


def accept_close(peer: Peer) -> None:
    """Close at once."""


@pytest.mark.parametrize("script", [always(refusal("503 Service Unavailable")), failing_close, accept_close])
def test_failures_back_off(script: Script) -> None:
    with ScriptedServer(script) as server:
        seen = run(order(server.port, value=4), enough(failures=4 * 7))
    assert seen.took_s >= least_s(max(seen.failed, len(server.bodies), server.accepted), 4) >= 0.6


def test_refused_connections_back_off() -> None:
    with ScriptedServer(always(GOOD)) as server:
        port = server.port
    seen = run(order(port, value=4), enough(failures=4 * 7))
    assert set(seen.failures) == {"cannot connect: Connection refused"}
    assert seen.took_s >= least_s(seen.failed, 4) >= 0.6


def test_a_large_body_reaches_a_slow_reader_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    bodies = [bytes([n]) * larger_than_buffers() for n in range(3)]
    waits = threading.Event()
    watch = driver.Driver._watch
    monkeypatch.setattr(driver.Driver, "_watch", lambda *given, room: (waits.set(), watch(*given, room=room)))

    def script(peer: Peer) -> None:
        # Not read before the kernel's buffers are full and a rest is left, however late the client's thread comes.
        waits.wait(20)
        while peer.request() is not None:
            peer.send(GOOD)

    with ScriptedServer(script, receive_buffer=65536) as server:
        seen = run(order(server.port, bodies, value=2), enough(3))
    assert not seen.failures
    assert waits.is_set(), "every body went out in one piece"
    got = {hashlib.sha256(body).hexdigest() for body in server.bodies}
    assert got == {hashlib.sha256(body).hexdigest() for body in bodies}


def test_an_answer_before_the_request_is_sent_whole_is_taken() -> None:
    taken = threading.Event()

    def script(peer: Peer) -> None:
        peer.sock.recv(1000)
        peer.send(refusal("413 Content Too Large", "too large"))
        taken.wait(20)  # a server that closes before the answer is read may reset it

    def told(seen: Seen) -> bool:
        if seen.failed:
            taken.set()
        return taken.is_set()

    with ScriptedServer(script, receive_buffer=4096) as server:
        seen = run(order(server.port, [b"x" * larger_than_buffers()]), told)
    assert "HTTP 413: too large" in seen.failures


def test_64_connections_take_turns() -> None:
    everyone = threading.Barrier(64)  # of requests: no reply before each connection has its own

    def script(peer: Peer) -> None:
        while peer.request() is not None:
            try:
                everyone.wait(20)
            except threading.BrokenBarrierError:
                return
            peer.send(GOOD)

    with ScriptedServer(script) as server:
        seen = run(order(server.port, value=64), enough(64 * 20))
        everyone.abort()
    assert not seen.failures
    assert len(seen.done_ns) >= 64 * 20
    assert max(server.served.values()) - min(server.served.values()) <= 1


def test_requests_are_rotated_in_order() -> None:
    bodies = [b"first", b"second", b"third"]
    with ScriptedServer(always(GOOD)) as server:
        run(order(server.port, bodies), enough(20))
    assert all(body == bodies[n % 3] for n, body in enumerate(server.bodies))


def test_after_stop_nothing_is_sent_and_what_is_in_flight_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    release = released_by_the_stop(monkeypatch)
    answered: list[int] = []

    def script(peer: Peer) -> None:
        while peer.request() is not None:
            if release.wait(20):
                answered.append(peer.number)
            peer.send(GOOD)

    with ScriptedServer(script) as server:
        seen = run(order(server.port, value=3), lambda _: len(server.bodies) >= 3)
        assert len(answered) == 3
        assert len(server.bodies) == 3
    assert not seen.failures


def never(peer: Peer) -> None:
    """Read, and say nothing."""
    while peer.request() is not None:
        pass


def test_a_reply_that_does_not_come_holds_the_stop_up_for_a_second_only() -> None:
    with ScriptedServer(never) as server:
        seen = run(order(server.port), lambda _: bool(server.bodies))
    # Else for as long as a request may take, which is a hundred times as long.
    assert 0.9 < seen.drained_s < 20
    assert not seen.done_ns


def test_the_report_tells_what_is_in_flight() -> None:
    with ScriptedServer(never) as server:
        run(order(server.port, value=3), lambda s: bool(s.reports) and s.reports[-1]["inflight"] == 3)


def test_localhost_is_tried_at_each_of_its_addresses() -> None:
    with ScriptedServer(always(GOOD)) as server:
        seen = run(order(server.port, host="localhost", value=2), enough(10))
    assert not seen.failures


# -- open loop ---------------------------------------------------------------------------------


@pytest.mark.parametrize("distribution", ["constant", "poisson"])
def test_an_open_loop_sends_when_it_is_due(distribution: str) -> None:
    with ScriptedServer(always(GOOD)) as server:
        work = order(server.port, kind="request_rate", value=200.0, distribution=distribution, seed=7)
        seen = run(work, enough(80))
    assert not seen.failures
    assert follows_schedule(seen, send_times_ns(200.0, distribution, 7))
    sent = scheduled(seen)
    # Nothing arrived before it was due.
    assert all(arrived >= due for arrived, due in zip(sorted(server.times_ns), sent, strict=False))
    assert len(seen.send_lags_ns) >= len(sent)
    assert all(lag >= 0 for lag in seen.send_lags_ns)
    assert not sum(report["delayed"] for report in seen.reports)


def test_open_loop_latency_counts_from_the_scheduled_time() -> None:
    def script(peer: Peer) -> None:
        while peer.request() is not None:
            time.sleep(0.04)
            peer.send(GOOD)

    with ScriptedServer(script) as server:
        seen = run(order(server.port, kind="request_rate", value=100.0, max_concurrency=1), enough(10))
    # Each takes 40 ms and one is due every 10 ms: the n-th is 30 ms later than the one before.
    assert all(latency >= 40 * MS + n * 29 * MS for n, latency in enumerate(seen.latency_ns))
    assert sum(report["delayed"] for report in seen.reports) >= 10


def test_no_more_requests_of_an_open_loop_are_in_flight_than_it_may_have() -> None:
    flying, most, lock = 0, 0, threading.Lock()

    def script(peer: Peer) -> None:
        nonlocal flying, most
        while peer.request() is not None:
            with lock:
                flying += 1
                most = max(most, flying)
            time.sleep(0.05)
            with lock:
                flying -= 1
            peer.send(GOOD)

    with ScriptedServer(script) as server:
        seen = run(order(server.port, kind="request_rate", value=200.0, max_concurrency=3), enough(30))
        assert server.accepted == 3
    assert most <= 3
    # The schedule goes on: what waits is late, and the wait is in its latency.
    assert sum(report["delayed"] for report in seen.reports) >= 20
    assert max(seen.latency_ns) >= 150 * MS
    assert follows_schedule(seen, send_times_ns(200.0, "constant", 1))


def test_one_connection_is_in_reserve_so_that_no_latency_holds_a_connect() -> None:
    with ScriptedServer(always(GOOD)) as server:
        seen = run(order(server.port, kind="request_rate", value=20.0), enough(5))
        assert server.accepted >= 2
    assert not seen.failures


def test_intervals_are_sent_round_and_round() -> None:
    intervals_ns = (10 * MS, 0, 30 * MS)
    with ScriptedServer(always(GOOD)) as server:
        work = order(
            server.port, kind="request_rate", value=75.0, distribution="intervals", seed=0, intervals_ns=intervals_ns
        )
        seen = run(work, enough(20))
    assert follows_schedule(seen, send_times_ns(75.0, "intervals", 0, intervals_ns))


def test_a_closed_loop_begins_over_its_ramp() -> None:
    with ScriptedServer(always(GOOD)) as server:
        began = time.monotonic_ns()
        run(order(server.port, value=4, ramp_ns=800 * MS), lambda _: server.accepted >= 4)
        took = time.monotonic_ns() - began
        assert server.accepted == 4
    assert took >= 600 * MS, "the fourth place begins at three quarters of the ramp"


def test_an_open_loop_opens_connections_as_it_needs_them() -> None:
    def script(peer: Peer) -> None:
        while peer.request() is not None:
            time.sleep(0.1)
            peer.send(GOOD)

    with ScriptedServer(script) as server:
        seen = run(order(server.port, kind="request_rate", value=100.0), enough(30))
        assert server.accepted >= 5
    assert not seen.failures


def test_an_idle_connection_that_the_server_closes_costs_no_request() -> None:
    def script(peer: Peer) -> None:
        if peer.request() is not None:
            # And close, without saying so. In one segment with the end of the reply, and a second before the next request
            # is due: one that is sent before the client can know of it is lost, as HTTP/1.1 has it.
            peer.sock.send(GOOD, socket.MSG_MORE)
            peer.sock.shutdown(socket.SHUT_WR)
            peer.request()

    with ScriptedServer(script) as server:
        seen = run(order(server.port, kind="request_rate", value=1.0), enough(3))
        assert 3 <= server.accepted <= len(server.bodies) + 1
    assert not seen.failures


def test_an_open_loop_on_a_dead_server_makes_no_storm_and_loses_no_request() -> None:
    with ScriptedServer(always(GOOD)) as server:
        port = server.port
    work = order(port, kind="request_rate", value=500.0, timeout_ns=300 * MS)
    timeout = "timeout: no free connection within 0.3 s"
    seen = run(work, lambda s: s.failures[timeout] >= 300)
    # A storm would be a try for each request.
    assert 1 <= seen.failures["cannot connect: Connection refused"] <= seen.failures[timeout] / 4
    assert not seen.done_ns


def served(protocol: str) -> Script:
    return h2_server.always() if protocol == "grpc" else always(GOOD)


def rated(protocol: str, port: int, rate: float) -> Order:
    make = h2_server.grpc_order if protocol == "grpc" else order
    return make(port, kind="request_rate", value=rate)


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_a_connection_in_reserve_that_does_not_come_about_costs_no_request(
    protocol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused: list[int] = []
    failure = driver._connect_failure
    monkeypatch.setattr(driver, "_connect_failure", lambda code: refused.append(code) or failure(code))

    def script(peer: Peer) -> None:
        server.refuse()
        served(protocol)(peer)

    # The second one is begun when the second request is due, a second after the first has closed the door.
    with ScriptedServer(script) as server:
        seen = run(rated(protocol, server.port, 1.0), enough(3))
        assert server.accepted == 1
    assert refused
    assert not seen.failures


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_a_request_whose_connect_fails_is_a_failure_and_counted_once(protocol: str) -> None:
    with ScriptedServer(served(protocol)) as gone:
        port = gone.port
    servers: list[ScriptedServer] = []

    def came_up(seen: Seen) -> bool:
        if not servers and seen.failed >= 4:
            servers.append(ScriptedServer(served(protocol), port))
        return len(seen.done_ns) >= 30

    try:
        seen = run(rated(protocol, port, 50.0), came_up)
    finally:
        for server in servers:
            server.close()
    assert set(seen.failures) == {"cannot connect: Connection refused"}
    assert seen.failed >= 4
    assert len(seen.done_ns) >= 30
    # Each that was due either failed or was sent, the few in flight at the end aside.
    assert seen.failed + len(seen.done_ns) <= len(seen.send_lags_ns)


def test_an_open_loop_keeps_its_rate_when_every_reply_is_an_error() -> None:
    with ScriptedServer(always(refusal("500 Internal Server Error"))) as server:
        began = time.monotonic()
        # Half as many as are due, at some time: with pauses it would fall behind for good.
        kept = lambda _: len(server.bodies) >= max(30, 50 * (time.monotonic() - began))  # noqa: E731
        seen = run(order(server.port, kind="request_rate", value=100.0), kept)
        # It does not back off: a connection is used again at once.
        assert server.accepted <= len(server.bodies) // 2
    assert not seen.done_ns


def test_a_server_that_stands_still_holds_up_every_request_that_is_due_meanwhile() -> None:
    stall_s, rate = 0.3, 100
    woke_ns: list[int] = []
    lock = threading.Lock()

    def script(peer: Peer) -> None:
        while peer.request() is not None:
            with lock:
                # Once, at the fiftieth request, and for all connections alike.
                if not woke_ns and len(server.bodies) >= 50:
                    time.sleep(stall_s)
                    woke_ns.append(time.monotonic_ns())
            peer.send(GOOD)

    def over(seen: Seen) -> bool:
        return bool(woke_ns and seen.done_ns) and scheduled(seen)[-1] > woke_ns[0] + 100 * MS

    with ScriptedServer(script) as server:
        seen = run(order(server.port, kind="request_rate", value=float(rate)), over)
    # A closed loop of one would have seen one slow reply. Here those due in the first two thirds wait 100 ms or more.
    slow = sum(latency >= 100 * MS for latency in seen.latency_ns)
    assert slow >= int(rate * (stall_s - 0.1)) - 2
    assert max(seen.latency_ns) >= 0.9 * stall_s * 1000 * MS
