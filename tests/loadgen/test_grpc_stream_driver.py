"""ModelStreamInfer: responses are counted as they come, whatever the frames and reads they come in."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from h2_server import (
    MESSAGE,
    OK,
    OPENING,
    H2Peer,
    credit,
    data,
    go_away,
    grpc_order,
    headers,
    literal,
    message,
    refusal,
    reset,
    trailers,
)
from hypothesis import given
from hypothesis import strategies as st
from scripted_server import Peer, ScriptedServer, Seen, enough, run

from model_analyzer.loadgen.frames import END_STREAM
from model_analyzer.loadgen.grpc_stream import KnownResponses, ResponseStream, StreamSlot
from model_analyzer.loadgen.header_blocks import STREAM_METHOD, HeaderBlocks, request_block
from model_analyzer.loadgen.order import Order
from model_analyzer.loadgen.reply import Malformed
from model_analyzer.loadgen.responses import Arrivals
from model_analyzer.loadgen.session import Request, Session
from model_analyzer.loadgen.tally import Tally

MS = 1_000_000
# As Triton 2.51 sends them. ModelStreamInferResponse { infer_response: { model_name, model_version, parameters, outputs, contents } }
GIVEN = b"\x22\x1b\x0a\x15triton_final_response\x12\x02\x08"


def response(text: bytes = b"t0", final: int = 0) -> bytes:
    content = (
        b"\x0a\x02ts\x12\x011" + GIVEN + bytes([final])
        + b"\x2a\x18\x0a\x0btext_output\x12\x05BYTES\x1a\x02\x01\x01"
        + b"\x32" + bytes([len(text) + 4]) + len(text).to_bytes(4, "little") + text
    )  # fmt: skip
    return b"\x12" + bytes([len(content)]) + content


def error(text: bytes) -> bytes:
    inner = b"\x0a\x02ts" + GIVEN + b"\x00"
    return b"\x0a" + bytes([len(text)]) + text + b"\x12" + bytes([len(inner)]) + inner


EMPTY_FINAL = b"\x12\x21\x0a\x02ts" + GIVEN + b"\x01"
END = OK  # the trailers


def stream(number: int, *messages: bytes, end: bytes = END) -> bytes:
    """A whole reply: each message in a DATA frame of its own."""
    return headers(number) + b"".join(data(number, message(each)) for each in messages) + trailers(number, end)


def stream_order(port: int, **values: Any) -> Order:
    return grpc_order(port, call="stream_infer", **values)


def answered(answer: Callable[[H2Peer, int], None], until: Callable[[Seen], bool], **values: Any) -> Seen:
    """Drive against a server that answers each request so."""

    def script(peer: Peer) -> None:
        end = H2Peer(peer)
        while (number := end.request()) is not None:
            end.open.discard(number)
            answer(end, number)

    with ScriptedServer(script) as server:
        return run(stream_order(server.port, **values), until)


def only(count: int) -> Callable[[H2Peer, int], None]:
    """So many responses at once."""
    messages = [response(b"t%d" % n) for n in range(count)]
    return lambda end, number: end.send(stream(number, *messages) + credit(20))


@pytest.mark.parametrize("count", [1, 2, 7])
def test_each_message_is_a_response_and_each_stream_a_request(count: int) -> None:
    seen = answered(only(count), enough(20))
    assert not seen.failures
    assert set(seen.responses) == {count}
    assert len(seen.responses) == len(seen.done_ns)
    # The last stream may have been cut off by the end.
    assert len(seen.first_ns) - len(seen.done_ns) in (0, 1)
    assert len(seen.gap_ns) >= (count - 1) * len(seen.done_ns)


def test_first_responses_count_from_the_request_later_ones_from_the_one_before_and_latency_to_the_last() -> None:
    def answer(end: H2Peer, number: int) -> None:
        time.sleep(0.03)
        end.send(headers(number) + data(number, message(response())))
        for _ in range(2):
            time.sleep(0.05)
            end.send(data(number, message(response())))
        time.sleep(0.02)
        end.send(trailers(number))

    seen = answered(answer, enough(3))
    assert min(seen.first_ns) >= 30 * MS
    for n, latency_ns in enumerate(seen.latency_ns):
        began_ns = seen.first_at_ns[n] - seen.first_ns[n]
        # A read may come late, and the next one in time: what is certain is the time since the request.
        assert seen.gap_at_ns[2 * n] - began_ns >= 80 * MS
        assert latency_ns == seen.first_ns[n] + seen.gap_ns[2 * n] + seen.gap_ns[2 * n + 1] >= 130 * MS
        # It ends with the last response, not with the trailers.
        assert seen.done_ns[n] - began_ns >= 150 * MS
    assert all(before < after for before, after in pairwise(seen.first_at_ns))


def test_an_empty_final_response_is_no_response() -> None:
    seen = answered(lambda end, number: end.send(stream(number, response(), response(), EMPTY_FINAL)), enough(5))
    assert not seen.failures
    assert set(seen.responses) == {2}
    seen = answered(lambda end, number: end.send(stream(number, response(final=1))), enough(5))
    assert set(seen.responses) == {1}


FAULTS: dict[str, tuple[Callable[[int], bytes], str, int]] = {
    "an error message": (lambda n: stream(n, response(), error(b"broke in mid-stream")), "broke in mid-stream", 1),
    "an error, and responses behind it": (
        lambda n: stream(n, error(b"no"), response(), response()), "no", 0,
    ),
    "trailers with an error after three": (
        lambda n: stream(n, *[response()] * 3, end=literal("grpc-status", "13") + literal("grpc-message", "lost")),
        "gRPC INTERNAL: lost", 3,
    ),
    "trailers only": (lambda n: refusal(n, 5, "no model"), "gRPC NOT_FOUND: no model", 0),
    "no response": (lambda n: stream(n), "no response in the stream", 0),
    "an empty final response alone": (lambda n: stream(n, EMPTY_FINAL), "no response in the stream", 0),
    "RST_STREAM": (
        lambda n: headers(n) + data(n, message(response())) + reset(n, 8), "stream reset by the server: CANCEL", 1,
    ),
    "the end in mid-message": (
        lambda n: headers(n) + data(n, message(response()) + message(response())[:9]) + trailers(n),
        "malformed reply: the stream ends in mid-message, after 1 responses", 1,
    ),
    "the end without trailers": (
        lambda n: headers(n) + data(n, message(response()), END_STREAM), "malformed reply: no grpc-status at its end", 1,
    ),
    "a message of a unary call": (
        lambda n: stream(n, MESSAGE), "malformed reply: no ModelStreamInferResponse", 0,
    ),
    "no message at all in a message": (lambda n: stream(n, b""), "malformed reply: no ModelInferResponse", 0),
    "a response without outputs": (
        lambda n: stream(n, b"\x12\x04\x0a\x02ts"), "malformed reply: no outputs in it", 0,
    ),
    "garbage": (lambda n: stream(n, b"\xff\xff\xff"), "malformed reply: no ModelStreamInferResponse", 0),
    "a compressed one": (
        lambda n: headers(n) + data(n, message(response(), flag=1)) + trailers(n),
        "compressed reply (no grpc-encoding): none was asked for", 0,
    ),
    "a page of a proxy": (
        lambda n: headers(n, literal(":status", "502")) + data(n, b"bad gateway", END_STREAM), "HTTP 502: bad gateway", 0,
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", FAULTS)
def test_a_stream_that_fails_is_a_failed_request_and_the_connection_goes_on(what: str) -> None:
    fault, text, responses = FAULTS[what]
    turn = [0]

    def answer(end: H2Peer, number: int) -> None:
        turn[0] += 1
        end.send(fault(number) if turn[0] % 2 else stream(number, response()))

    seen = answered(answer, enough(2, 2))
    assert set(seen.failures) == {text}
    assert set(seen.responses) == {1}
    # What came of it before came, and nothing behind it counts.
    assert len(seen.first_ns) + len(seen.gap_ns) >= len(seen.done_ns) + responses * (seen.failed - 1)
    if not responses:
        assert len(seen.first_ns) <= len(seen.done_ns) + 1


def test_a_server_that_closes_in_mid_stream_fails_the_request() -> None:
    def script(peer: Peer) -> None:
        end = H2Peer(peer)
        number = end.request()
        if number is not None:
            end.send(headers(number) + data(number, message(response())))

    with ScriptedServer(script) as server:
        seen = run(stream_order(server.port), enough(0, 2))
    assert set(seen.failures) == {"connection closed in mid-reply"}
    assert not seen.done_ns


def test_a_stream_that_the_server_did_not_begin_with_is_sent_once_more() -> None:
    def script(peer: Peer) -> None:
        end = H2Peer(peer)
        number = end.request()
        if number is not None and peer.number == 0:
            end.send(go_away(0))
            end.request()
        elif number is not None:
            end.send(stream(number, response(), response()))
            end.serve(lambda n: stream(n, response(), response()))

    with ScriptedServer(script) as server:
        seen = run(stream_order(server.port), enough(3))
    assert not seen.failures
    assert set(seen.responses) == {2}


def test_a_stream_times_out_when_its_messages_stop_and_not_before() -> None:
    def answer(end: H2Peer, number: int) -> None:
        end.send(headers(number))
        # Longer than the timeout, and never silent so long, even where the machine holds this thread up for a second.
        for _ in range(17 if number == 1 else 2):
            time.sleep(0.1)
            end.send(data(number, message(response())))
        if number > 1:
            end.frame()  # RST_STREAM
            return
        end.send(trailers(number))

    seen = answered(answer, enough(1, 1), timeout_ns=1_600 * MS)
    assert set(seen.failures) == {"timeout: no further response within 1.6 s"}
    assert set(seen.responses) == {17}
    assert seen.latency_ns[0] >= 1_700 * MS


def test_a_stream_that_never_begins_times_out() -> None:
    seen = answered(lambda *_: None, enough(0, 1), timeout_ns=200 * MS)
    assert set(seen.failures) == {"timeout: no reply within 0.2 s"}


def test_empty_final_responses_without_end_are_no_responses_and_time_out() -> None:
    def answer(end: H2Peer, number: int) -> None:
        end.send(headers(number))
        while not end.cancelled and end.ping():
            end.send(data(number, message(EMPTY_FINAL)))

    seen = answered(answer, lambda s: s.failures["timeout: no reply within 0.2 s"] > 0, timeout_ns=200 * MS)
    # On a busy machine the greeting may take as long.
    assert set(seen.failures) <= {"timeout: no reply within 0.2 s", "timeout: no connection within 0.2 s"}
    assert not seen.first_ns


def test_streams_on_one_connection_keep_their_responses_apart() -> None:
    def script(peer: Peer) -> None:
        end = H2Peer(peer)
        while len(numbers := end.requests(4)) == 4:
            end.open.difference_update(numbers)
            end.send(b"".join(map(headers, numbers)))
            for turn in range(4):
                # Stream k has k + 1 responses, in turns.
                end.send(b"".join(data(n, message(response())) for k, n in enumerate(numbers) if turn <= k))
            end.send(b"".join(map(trailers, reversed(numbers))))

    with ScriptedServer(script) as server:
        seen = run(stream_order(server.port, value=8), enough(40))
        assert server.accepted == 2
    assert not seen.failures
    counts = [seen.responses.count(n) for n in (1, 2, 3, 4)]
    assert sum(counts) == len(seen.responses)
    assert max(counts) - min(counts) <= 2


def test_one_that_stalls_is_cancelled_and_its_neighbours_go_on() -> None:
    ends: list[H2Peer] = []

    def script(peer: Peer) -> None:
        end = H2Peer(peer)
        ends.append(end)
        stalled = 0
        while (number := end.request()) is not None:
            if not stalled:
                stalled = number
                end.send(headers(number) + data(number, message(response())))
            else:
                time.sleep(0.02)
                end.send(stream(number, response()))

    with ScriptedServer(script) as server:
        seen = run(stream_order(server.port, value=8, timeout_ns=1_600 * MS), enough(20, 2))
    assert set(seen.failures) == {"timeout: no further response within 1.6 s"}
    assert any(end.cancelled for end in ends)


def test_an_open_loop_counts_from_when_a_request_was_due() -> None:
    def answer(end: H2Peer, number: int) -> None:
        time.sleep(0.05)
        end.send(stream(number, response(), response()))

    seen = answered(answer, enough(10), kind="request_rate", value=50.0)
    assert min(seen.first_ns) >= 50 * MS
    assert set(seen.responses) == {2}


# -- without I/O -----------------------------------------------------------------------------------

SENT = Request(request_block("host:8001", False, STREAM_METHOD), memoryview(message(b"request")))


def outcome(pieces: list[bytes]) -> tuple[object, ...]:
    """What becomes of a stream when these bytes come in."""
    tally = Tally(lambda _: None, 1)
    known = KnownResponses()
    slot = StreamSlot(known, Arrivals(tally))
    session: Session[Any] = Session(HeaderBlocks())
    session.feed(memoryview(b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"))
    session.more()
    session.begin(SENT, slot.stream)
    ended: list[Any] = []
    try:
        for piece in pieces:
            ended += [found for _, found in session.feed(memoryview(piece))]
    except Malformed:
        return ("malformed",)
    return slot.responses.count, len(tally.first), len(tally.gap), ended


def cut(whole: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted({place % (len(whole) + 1) for place in places}), len(whole)]
    return [whole[a:b] for a, b in pairwise(edges)]


def packed(*messages: bytes, size: int) -> bytes:
    """Messages in DATA frames of so many bytes, whatever begins or ends in them."""
    body = b"".join(map(message, messages))
    return b"".join(data(1, body[at : at + size]) for at in range(0, len(body), size))


WHOLE = [
    stream(1, *[response(b"x" * n) for n in (0, 1, 5, 5, 40)]),
    headers(1) + packed(*[response(b"y" * n) for n in range(6)], EMPTY_FINAL, size=7) + trailers(1),
    headers(1) + packed(*[response()] * 9, size=1000) + trailers(1),
    stream(1, response(), error(b"broke"), response()),
    *[fault(1) for fault, _, _ in FAULTS.values()],
]


@given(st.sampled_from(WHOLE), st.lists(st.integers(0, 2000), max_size=12))
def test_any_split_of_a_stream_means_the_same(whole: bytes, places: list[int]) -> None:
    assert outcome(cut(whole, places)) == outcome([whole])


@given(st.lists(st.binary(max_size=60), max_size=4), st.integers(1, 30))
def test_garbage_in_messages_is_a_failure_and_never_a_success(messages: list[bytes], size: int) -> None:
    *_, ended = outcome([headers(1) + packed(*messages, size=size) + trailers(1)])
    assert isinstance(ended, list)
    assert [found.problem is not None for found in ended] == [True]


@given(st.integers(0, 200), st.integers(0, 255))
def test_a_known_beginning_does_not_hide_another_reply(at: int, value: int) -> None:
    known = KnownResponses()
    good = response(b"abcdef")
    assert known.judge(bytearray(good), len(good)) == ""
    other = bytearray(good)
    other[at % len(good)] = value
    assert known.judge(bytearray(other), len(other)) == KnownResponses().judge(bytearray(other), len(other))


def test_a_stream_of_another_call_is_no_streams_reply() -> None:
    assert isinstance(StreamSlot(KnownResponses(), Arrivals(Tally(lambda _: None, 1))).stream, ResponseStream)
    assert outcome([headers(1, OPENING) + data(1, message(MESSAGE)) + trailers(1)])[0] == 0
