"""The generate extension: one JSON object, or server-sent events, split anywhere."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted_server import Peer, ScriptedServer, Seen, enough, order, run

from model_analyzer.loadgen.events import EventReader, judge
from model_analyzer.loadgen.http_generate import EventReply
from model_analyzer.loadgen.reply import Malformed
from model_analyzer.loadgen.responses import Arrivals, Responses
from model_analyzer.loadgen.tally import Tally

MS = 1_000_000
# As Triton 2.51 sends it.
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"


def chunk(body: bytes) -> bytes:
    return f"{len(body):x}\r\n".encode() + body + b"\r\n"


def event(text: str = "t0", **more: Any) -> bytes:
    document = {"model_name": "ts", "model_version": "1", "text_output": text, **more}
    return f"data: {json.dumps(document)}\n\n".encode()


def failed(text: str) -> bytes:
    return f"data: {json.dumps({'error': text})}\n\n".encode()


def stream(*events: bytes) -> bytes:
    return HEAD + b"".join(map(chunk, events)) + END


def answered(answer: Callable[[Peer], None], until: Callable[[Seen], bool], call: str, **values: Any) -> Seen:
    def script(peer: Peer) -> None:
        while peer.request() is not None:
            answer(peer)

    with ScriptedServer(script) as server:
        return run(order(server.port, call=call, **values), until)


@pytest.mark.parametrize("count", [1, 3])
def test_each_event_is_a_response(count: int) -> None:
    events = [event(f"t{n}") for n in range(count)]
    seen = answered(lambda peer: peer.send(stream(*events)), enough(10), "generate_stream")
    assert not seen.failures
    assert set(seen.responses) == {count}
    assert len(seen.gap_ns) >= (count - 1) * len(seen.done_ns)


def test_a_stream_whose_length_is_told_has_its_responses_counted_each_time() -> None:
    body = event() + event()
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: %d\r\n\r\n" % len(body)
    seen = answered(lambda peer: peer.send(head + body), enough(10), "generate_stream")
    assert not seen.failures
    assert set(seen.responses) == {2}


def test_responses_are_timed_as_they_come() -> None:
    def answer(peer: Peer) -> None:
        time.sleep(0.03)
        peer.send(HEAD + chunk(event()))
        time.sleep(0.05)
        peer.send(chunk(event()) + END)

    seen = answered(answer, enough(3), "generate_stream")
    assert min(seen.first_ns) >= 30 * MS
    assert min(seen.latency_ns) >= 80 * MS
    assert [a + b for a, b in zip(seen.first_ns, seen.gap_ns, strict=False)][: len(seen.latency_ns)] == seen.latency_ns


JSON_HEAD = b"HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"


def plain(body: bytes, status: bytes = b"200 OK") -> bytes:
    return JSON_HEAD % (status, len(body)) + body


FAULTS = {
    "an error event": (stream(event(), failed("broke in mid-stream")), "HTTP 200: broke in mid-stream"),
    "an error first": (
        HEAD.replace(b"200 OK", b"400 Bad Request") + chunk(failed("broke")) + END,
        "HTTP 400: broke",
    ),
    "an error before inference": (plain(b'{"error":"no model"}', b"404 Not Found"), "HTTP 404: no model"),
    "no event": (stream(), "no response in the stream"),
    "events without outputs": (stream(b'data: {"model_name":"ts"}\n\n'), "no response in the stream"),
    "no JSON": (stream(event(), b"data: oops\n\n"), "HTTP 200: malformed reply: an event that is no JSON object"),
    "no event stream": (
        plain(b'{"model_name":"m","text_output":"x"}'),
        "malformed reply: content-type 'application/json', no event stream",
    ),
    "the end in mid-event": (
        stream(event(), b'data: {"a"'),
        "malformed reply: the stream ends in mid-event, after 1 responses",
    ),
}


@pytest.mark.parametrize("what", FAULTS)
def test_a_stream_that_fails_is_a_failed_request_and_the_connection_goes_on(what: str) -> None:
    reply, text = FAULTS[what]
    turn = [0]

    def answer(peer: Peer) -> None:
        turn[0] += 1
        peer.send(reply if turn[0] % 2 else stream(event()))

    seen = answered(answer, enough(2, 2), "generate_stream")
    assert set(seen.failures) == {text}
    assert set(seen.responses) == {1}


def test_a_server_that_closes_in_mid_stream_fails_the_request() -> None:
    def script(peer: Peer) -> None:
        peer.request()
        peer.send(HEAD + chunk(event()) + chunk(event()))

    with ScriptedServer(script) as server:
        seen = run(order(server.port, call="generate_stream"), enough(0, 2))
    assert set(seen.failures) == {"connection closed in mid-reply"}
    assert len(seen.first_ns) >= 2
    assert not seen.done_ns


def test_a_stream_times_out_when_its_events_stop_and_not_before() -> None:
    def answer(peer: Peer) -> None:
        peer.send(HEAD)
        # Longer than the timeout, and never silent so long, even where the machine holds this thread up for a second.
        for _ in range(17 if whole else 2):
            time.sleep(0.1)
            peer.send(chunk(event()))
        if not whole:
            peer.request()
        whole.clear()
        peer.send(END)

    whole = [True]
    seen = answered(answer, enough(1, 1), "generate_stream", timeout_ns=1_600 * MS)
    assert set(seen.failures) == {"timeout: no further response within 1.6 s"}
    assert set(seen.responses) == {17}
    assert seen.latency_ns[0] >= 1_700 * MS


GENERATE_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b'{"model_name":"ts","text_output":"t0"}', None),
        (
            b'{"error":"generate expects model to produce exactly 1 response"}',
            "HTTP 200: generate expects model to produce exactly 1 response",
        ),
        (b'{"model_name":"ts","model_version":"1"}', "malformed reply: no outputs in it"),
        (b"[1]", "HTTP 200: malformed reply: an event that is no JSON object"),
        (b'{"model_name":"ts","text_output":"' + b"x" * 100_000 + b'"}', None),
    ],
)
def test_generate_answers_with_one_object(body: bytes, problem: str | None) -> None:
    # Triton sends the head by itself.
    seen = answered(
        lambda peer: peer.send(GENERATE_HEAD, chunk(body) + END), enough(*((0, 2) if problem else (3, 0))), "generate"
    )
    assert set(seen.failures) == ({problem} if problem else set())
    assert not seen.responses
    assert bool(seen.done_ns) == (problem is None)


# -- without I/O -----------------------------------------------------------------------------------


def cut(whole: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted({place % (len(whole) + 1) for place in places}), len(whole)]
    return [whole[a:b] for a, b in pairwise(edges)]


EVENTS = (
    b"data: one\n\n"
    b": a comment\r\nevent: token\r\ndata: two\r\n\r\n"
    b"id: 3\rdata:three\rdata: and more\r\r"
    b"\n\ndata\n\ndata: \n\n"
)
MEANT = [b"one", b"two", b"three\nand more", b"", b""]


@given(st.lists(st.integers(0, 200), max_size=12))
def test_events_mean_the_same_however_they_are_split(places: list[int]) -> None:
    reader = EventReader()
    assert [found for piece in cut(EVENTS, places) for found in reader.feed(piece)] == MEANT
    assert not reader.midway


def test_a_line_end_that_came_in_two_reads_swallows_no_other() -> None:
    reader = EventReader()
    assert [found for piece in (b"data: one\r", b"\n", b"\n") for found in reader.feed(piece)] == [b"one"]


def outcome(pieces: list[bytes]) -> tuple[object, ...]:
    tally = Tally(lambda _: None, 1)
    responses = Responses(Arrivals(tally))
    reply, whole = EventReply(responses), False
    try:
        for piece in pieces:
            whole = reply.feed(piece) if piece else whole
    except Malformed:
        return ("malformed",)
    return responses.count, len(tally.first), len(tally.gap), whole, reply.head and reply.problem(reply.head)


@given(
    st.sampled_from([stream(*[event("x" * n) for n in (0, 3, 50)]), *[reply for reply, _ in FAULTS.values()]]),
    st.lists(st.integers(0, 1000), max_size=12),
)
def test_any_split_of_a_stream_means_the_same(whole: bytes, places: list[int]) -> None:
    assert outcome(cut(whole, places)) == outcome([whole])


@given(st.binary(max_size=200))
def test_garbage_is_no_response(garbage: bytes) -> None:
    count, *_, problem = outcome([HEAD + chunk(b"data: " + garbage + b"\n\n") + END])
    assert count == 0
    assert problem is not None


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        (b'{"text_output":"x"}', ""),
        (b'{"model_name":"m","model_version":"1"}', None),
        (b'{"error":"no"}', "no"),
        (b'{"error":""}', "an error without a text"),
    ],
)
def test_what_an_event_says(text: bytes, verdict: str | None) -> None:
    assert judge(text) == verdict
