"""The gRPC driver against a server that is scripted frame by frame, over real sockets."""

from __future__ import annotations

import hashlib
import socket
import struct
import threading
import time
from collections.abc import Callable

import pytest
from h2_server import (
    MESSAGE,
    OK,
    OPENING,
    STATUS_200,
    H2Peer,
    always,
    credit,
    data,
    go_away,
    good,
    grpc_order,
    headers,
    literal,
    message,
    refusal,
    reset,
    settings,
    trailers,
    triton,
)
from scripted_server import (
    Peer,
    ScriptedServer,
    Seen,
    enough,
    follows_schedule,
    larger_than_buffers,
    least_s,
    run,
)

from model_analyzer.loadgen import driver, grpc, session
from model_analyzer.loadgen import frames as h2
from model_analyzer.loadgen.frames import frame
from model_analyzer.loadgen.schedule import send_times_ns
from model_analyzer.loadgen.session import INITIAL_WINDOW_SIZE, MAX_CONCURRENT_STREAMS, MAX_FRAME_SIZE

MS = 1_000_000
# outputs: [{ name: "y", datatype: "FP32", shape: [2] }]
TWO_FP32 = b"\x2a\x0c\x0a\x01y\x12\x04FP32\x1a\x01\x02"
Answer = Callable[[int], bytes]


def test_every_reply_is_counted_once_with_its_latency() -> None:
    with ScriptedServer(always()) as server:
        seen = run(grpc_order(server.port, value=4), enough(200))
    assert not seen.failures
    assert server.accepted == 4
    assert 200 <= len(seen.done_ns) <= len(server.bodies)
    assert set(server.bodies) == {b"request"}
    assert all(0 < latency <= seen.took_s * 1e9 for latency in seen.latency_ns)


def test_requests_are_rotated_in_order() -> None:
    bodies = (b"first", b"second", b"third")
    with ScriptedServer(always()) as server:
        run(grpc_order(server.port, bodies), enough(20))
    assert all(body == bodies[n % 3] for n, body in enumerate(server.bodies))


def test_the_server_is_told_to_keep_no_table_and_to_push_nothing_and_is_acknowledged() -> None:
    peers: list[H2Peer] = []

    def script(peer: Peer) -> None:
        peers.append(H2Peer(peer, (INITIAL_WINDOW_SIZE, 1 << 20)))
        peers[-1].serve()

    with ScriptedServer(script) as server:
        run(grpc_order(server.port), enough(20))
    assert peers[0].theirs[session.HEADER_TABLE_SIZE] == 0
    assert peers[0].theirs[session.ENABLE_PUSH] == 0
    assert peers[0].acks == 1


def test_the_headers_of_a_request_are_those_of_model_infer_without_a_table() -> None:
    from hpack import Decoder

    blocks: list[bytes] = []

    def script(peer: Peer) -> None:
        end = H2Peer(peer)
        while (block := end.until(h2.HEADERS)) is not None:
            blocks.append(block)
            end.until(h2.DATA)
            end.send(good(end.stream))

    with ScriptedServer(script) as server:
        run(grpc_order(server.port), enough(3))
    strict = Decoder()
    strict.max_allowed_table_size = strict.header_table_size = 0
    assert len(set(blocks)) == 1
    assert dict(strict.decode(blocks[0])) == {
        ":method": "POST",
        ":scheme": "http",
        ":path": "/inference.GRPCInferenceService/ModelInfer",
        ":authority": f"127.0.0.1:{server.port}",
        "te": "trailers",
        "content-type": "application/grpc",
        "user-agent": "model-analyzer",
    }


# -- replies of any form ---------------------------------------------------------------------------


def test_replies_split_at_every_byte_are_whole() -> None:
    size = len(good(1))

    def script(peer: Peer) -> None:
        end, at = H2Peer(peer), 0
        while (stream := end.request()) is not None:
            at = at % (size - 1) + 1
            end.send(good(stream)[:at], good(stream)[at:])

    with ScriptedServer(script) as server:
        seen = run(grpc_order(server.port), enough(size))
    assert not seen.failures
    assert len(seen.done_ns) >= size


def body(stream: int) -> bytes:
    return data(stream, message())


def padded(kind: int, flags: int, stream: int, payload: bytes, padding: int) -> bytes:
    return frame(kind, flags | h2.PADDED, stream, bytes([padding]) + payload + bytes(padding))


# Its contents are 2^20 bytes.
LARGE = message(MESSAGE + b"\x32\x80\x80\x40" + bytes(1 << 20))

FORMS: dict[str, Answer] = {
    "triton": triton,
    "triton-first": lambda s: credit(100) + good(s),
    "table-size-update": lambda s: headers(s, b"\x20" + OPENING) + body(s) + trailers(s),
    "incremental-indexing": lambda s: headers(s) + body(s) + trailers(s, literal("grpc-status", "0", 0x40)),
    "server-headers": lambda s: headers(s, OPENING + literal("x-id", str(s))) + body(s) + trailers(s),
    "continuation": lambda s: frame(h2.HEADERS, 0, s, OPENING[:5])
    + frame(h2.CONTINUATION, 0, s, OPENING[5:9])
    + frame(h2.CONTINUATION, h2.END_HEADERS, s, OPENING[9:])
    + body(s)
    + frame(h2.HEADERS, h2.END_STREAM, s, b"")
    + frame(h2.CONTINUATION, h2.END_HEADERS, s, OK),
    "padded": lambda s: padded(h2.HEADERS, h2.END_HEADERS, s, OPENING, 3)
    + padded(h2.DATA, 0, s, message(), 255)
    + padded(h2.DATA, 0, s, b"", 7)
    + padded(h2.HEADERS, h2.END_HEADERS | h2.END_STREAM, s, OK, 0),
    "priority": lambda s: frame(h2.PRIORITY, 0, s, bytes(5))
    + frame(h2.HEADERS, h2.END_HEADERS | h2.HAS_PRIORITY, s, bytes(5) + OPENING)
    + body(s)
    + trailers(s),
    "many-data-frames": lambda s: headers(s) + b"".join(data(s, message()[n : n + 3]) for n in range(0, 60, 3)) + trailers(s),
    "empty-data-frames": lambda s: headers(s) + data(s, b"") + body(s) + data(s, b"") + trailers(s),
    "interim": lambda s: headers(s, literal(":status", "103")) + good(s),
    "unknown-frames": lambda s: frame(0xBE, 0xFF, s, b"x" * 50) + good(s) + frame(0x0A, 0, 0, b"alt-svc"),
    "ping-between": lambda s: headers(s) + frame(h2.PING, 0, 0, bytes(8)) + body(s) + trailers(s),
    "settings-between": lambda s: headers(s) + settings((0x99, 7), (MAX_FRAME_SIZE, 1 << 20)) + body(s) + trailers(s),
    "stream-credit": lambda s: credit(5, s) + headers(s) + credit(7, s) + body(s) + trailers(s),
    "credit-before": lambda s: credit(5) + good(s),
    "reset-after-the-end": lambda s: good(s) + reset(s, 0),
    "trailers-again": lambda s: good(s) + trailers(s) + trailers(s, literal("grpc-status", "13")),
    "reserved-bits": lambda s: (good(s)[:5] + bytes([good(s)[5] | 0x80]) + good(s)[6:]),
    "larger-than-a-read": lambda s: headers(s) + b"".join(data(s, LARGE[n : n + 16384]) for n in range(0, len(LARGE), 16384)) + trailers(s),
    "no-contents": lambda s: headers(s) + data(s, message(b"\x0a\x01m\x2a\x00")) + trailers(s),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_proper_replies_of_any_form_succeed(form: str) -> None:
    with ScriptedServer(always(FORMS[form])) as server:
        seen = run(grpc_order(server.port, value=2), enough(20))
    assert not seen.failures
    assert len(seen.done_ns) >= 20
    assert server.accepted == 2


def test_replies_whose_tensors_and_lengths_change_succeed() -> None:
    def answer(stream: int) -> bytes:
        size = stream % 97
        return triton(stream, b"\x0a\x01m\x2a\x00\x32" + bytes([size]) + bytes([stream % 251]) * size)

    with ScriptedServer(always(answer)) as server:
        seen = run(grpc_order(server.port), enough(900))
    assert not seen.failures
    assert len(seen.done_ns) >= 900


# -- replies that are none -------------------------------------------------------------------------

MANY = h2.CONTROL_LIMIT // 2 + 1
# What to answer; the message of the failure; whether the connection is of more use.
BAD: dict[str, tuple[Answer, str, bool]] = {
    "trailers-only": (lambda s: refusal(s, 5, "unknown model"), "gRPC NOT_FOUND: unknown model", True),
    "percent": (lambda s: refusal(s, 3, "bad%0Ashape %C3%A9 100%25 %zz"), "gRPC INVALID_ARGUMENT: bad shape é 100% %zz", True),
    "bare-status": (lambda s: refusal(s, 14), "gRPC UNAVAILABLE", True),
    "new-status": (lambda s: refusal(s, 99, "x"), "gRPC status 99: x", True),
    "after-a-message": (
        lambda s: headers(s) + body(s) + trailers(s, literal("grpc-status", "13") + literal("grpc-message", "late")),
        "gRPC INTERNAL: late", True),
    "status-in-headers": (
        lambda s: headers(s, OPENING + literal("grpc-status", "14") + literal("grpc-message", "no%20upstream"))
        + data(s, b"", h2.END_STREAM),
        "gRPC UNAVAILABLE: no upstream", True),
    "two-statuses": (lambda s: headers(s) + body(s) + trailers(s, OK + literal("grpc-status", "13")), "gRPC INTERNAL", True),
    "no-message": (lambda s: refusal(s, 0), "malformed reply: no message in it", True),
    "no-message-2": (lambda s: headers(s) + trailers(s), "malformed reply: no message in it", True),
    "no-status": (lambda s: headers(s) + body(s) + trailers(s, literal("x", "y")), "malformed reply: no grpc-status", True),
    "end-in-data": (lambda s: headers(s) + data(s, message(), h2.END_STREAM), "malformed reply: no grpc-status", True),
    "cut-off": (lambda s: headers(s) + data(s, message()[:-1]) + trailers(s), "malformed reply: 30 of 31 bytes", True),
    "cut-off-prefix": (lambda s: headers(s) + data(s, bytes(3)) + trailers(s), "malformed reply: no message in it", True),
    "two-messages": (lambda s: headers(s) + body(s) * 2 + trailers(s), "malformed reply: more than one message", True),
    "empty-message": (lambda s: good(s, b""), "malformed reply: no ModelInferResponse", True),
    "no-outputs": (lambda s: good(s, b"\x0a\x01m"), "malformed reply: no outputs in it", True),
    "tensor-too-short": (
        lambda s: good(s, b"\x0a\x01m" + TWO_FP32 + b"\x32\x040123"),
        "malformed reply: 4 bytes of output y, and its shape tells of 8", True),
    "no-tensor": (
        lambda s: good(s, b"\x0a\x01m" + TWO_FP32), "malformed reply: 0 bytes of output y, and its shape tells of 8", True),
    "other-message": (lambda s: good(s, b"\x12\x01m\x2a\x00"), "malformed reply: no ModelInferResponse", True),
    "garbage-message": (lambda s: good(s, b"garbage!"), "malformed reply: no ModelInferResponse", True),
    "field-too-long": (lambda s: good(s, b"\x0a\x01m\x2a\x00\x32\x09x"), "malformed reply: no ModelInferResponse", True),
    "compressed": (
        lambda s: headers(s, OPENING + literal("grpc-encoding", "gzip")) + data(s, message(flag=1)) + trailers(s),
        "compressed reply (gzip): none was asked for", True),
    "http-status": (
        lambda s: headers(s, literal(":status", "502") + literal("content-type", "text/html")) + data(s, b"<h1>\nno", h2.END_STREAM),
        "HTTP 502: <h1> no", True),
    "http-status-alone": (lambda s: trailers(s, literal(":status", "503")), "HTTP 503", True),
    "page": (
        lambda s: headers(s, STATUS_200 + literal("content-type", "text/html")) + data(s, b"<html>", h2.END_STREAM),
        "malformed reply: content-type 'text/html'", True),
    "reset": (lambda s: reset(s, 2), "stream reset by the server: INTERNAL_ERROR", True),
    "reset-in-mid-reply": (lambda s: headers(s) + reset(s, 0xEE), "stream reset by the server: error 238", True),
    "refused-stream": (lambda s: reset(s, 7), "stream reset by the server: REFUSED_STREAM", False),
    "go-away": (lambda s: go_away(max(0, s - 2), 11, b"too_many_pings"),
                "the server did not take it: GOAWAY ENHANCE_YOUR_CALM: too_many_pings", False),
    "no-http-status": (lambda s: trailers(s, OK), "malformed reply: no :status", False),
    "data-first": (body, "malformed reply: DATA before HEADERS", False),
    "headers-in-mid-reply": (lambda s: headers(s) * 2, "malformed reply: headers in mid-reply", False),
    "prefix-flag": (lambda s: headers(s) + data(s, message(flag=2)), "malformed reply: message prefix", False),
    "stream-never-opened": (lambda s: headers(s + 2), "malformed reply: HEADERS of stream", False),
    "stream-0": (lambda s: data(0, b"x"), "malformed reply: DATA of stream 0", False),
    "even-stream": (lambda s: headers(2), "malformed reply: HEADERS of stream 2", False),
    "push": (lambda s: frame(h2.PUSH_PROMISE, 4, s, bytes(9)), "malformed reply: PUSH_PROMISE, which was declined", False),
    "table-index": (lambda s: headers(s, b"\xbe"), "malformed reply: header block: Invalid table index 62", False),
    "table-size": (lambda s: headers(s, b"\x3f\x10"), "malformed reply: header block: ", False),
    "hpack": (lambda s: headers(s, b"\x00\x7f"), "malformed reply: header block: ", False),
    "huge-header": (lambda s: headers(s, literal("x", "y" * 120) * 800), "malformed reply: HEADERS of", False),
    "status-text": (lambda s: trailers(s, OPENING + literal("grpc-status", "ok")), "malformed reply: grpc-status: b'ok'", False),
    "too-long-a-frame": (lambda s: h2.frame_head(h2.MAX_FRAME + 1, h2.DATA, 0, s), "malformed reply: DATA of 4194305 bytes", False),
    "ping-size": (lambda s: frame(h2.PING, 0, 0, b"1"), "malformed reply: PING of stream 0, 1 bytes", False),
    "settings-size": (lambda s: frame(h2.SETTINGS, 0, 0, b"1"), "malformed reply: SETTINGS of stream 0, 1 bytes", False),
    "settings-window": (lambda s: settings((INITIAL_WINDOW_SIZE, 1 << 31)), "malformed reply: INITIAL_WINDOW_SIZE", False),
    "settings-frame": (lambda s: settings((MAX_FRAME_SIZE, 100)), "malformed reply: MAX_FRAME_SIZE 100", False),
    "credit-0": (lambda s: credit(0), "malformed reply: WINDOW_UPDATE", False),
    "credit-overflow": (lambda s: credit((1 << 31) - 1), "malformed reply: WINDOW_UPDATE beyond 2^31-1 bytes", False),
    "reset-size": (lambda s: frame(h2.RST_STREAM, 0, s, b"1"), "malformed reply: RST_STREAM of 1 bytes", False),
    "go-away-size": (lambda s: frame(h2.GOAWAY, 0, 0, b"1"), "malformed reply: GOAWAY of stream 0, 1 bytes", False),
    "padding": (lambda s: frame(h2.DATA, h2.PADDED, s, b"\x05abc"), "malformed reply: padding longer than its frame", False),
    "no-padding": (lambda s: frame(h2.DATA, h2.PADDED, s), "malformed reply: padding longer than its frame", False),
    "header-padding": (lambda s: frame(h2.HEADERS, h2.PADDED | 4, s, b"\x05abc"), "malformed reply: padding longer", False),
    "no-priority": (lambda s: frame(h2.HEADERS, 0x24, s, b"1"), "malformed reply: HEADERS too short", False),
    "continuation": (lambda s: frame(h2.CONTINUATION, 4, s, OK), "malformed reply: CONTINUATION of no header block", False),
    "inside-a-block": (lambda s: frame(h2.HEADERS, 0, s, OPENING) + body(s), "malformed reply: DATA inside a header block", False),
    "endless-block": (
        lambda s: frame(h2.HEADERS, 0, s, bytes(MANY)) + frame(h2.CONTINUATION, 0, s, bytes(MANY)),
        "malformed reply: header block of more than 65536 bytes", False),
    "garbage-after": (lambda s: good(s) + b"HTTP/1.1 400 Bad", "malformed reply: frame of kind", False),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_reply_is_a_failure_with_its_reason_and_never_timed(kind: str) -> None:
    bad, text, usable = BAD[kind]
    with ScriptedServer(always(bad)) as server:
        seen = run(grpc_order(server.port), enough(failures=2))
        assert (server.accepted == 1) is usable
    assert not seen.done_ns
    assert not seen.latency_ns
    assert all(found.startswith(text) for found in seen.failures), seen.failures


@pytest.mark.parametrize("kind", BAD)
def test_good_replies_go_on_between_bad_ones(kind: str) -> None:
    bad, _, _ = BAD[kind]
    good_ones, turns = [0], [0]

    def answer(stream: int) -> bytes:
        turns[0] += 1
        if turns[0] % 5 == 3:
            return bad(stream)
        good_ones[0] += 1
        return good(stream)

    with ScriptedServer(always(answer)) as server:
        seen = run(grpc_order(server.port), lambda s: len(s.done_ns) >= 12 and turns[0] >= 15)
    assert 12 <= len(seen.done_ns) <= good_ones[0]
    # What the server did not take is sent again; every other bad reply costs its request.
    assert bool(seen.failures) is (kind not in ("refused-stream", "go-away"))


def test_an_error_as_long_as_a_good_reply_is_an_error() -> None:
    def bad(stream: int) -> bytes:
        return good(stream).replace(OK, literal("grpc-status", "9"))

    with ScriptedServer(always(lambda s: bad(s) if s % 8 == 7 else good(s))) as server:
        seen = run(grpc_order(server.port), enough(9, failures=3))
    assert set(seen.failures) == {"gRPC FAILED_PRECONDITION"}
    assert abs(len(seen.done_ns) - 3 * seen.failed) <= 3


def test_a_reply_of_a_known_shape_on_another_stream_is_none() -> None:
    with ScriptedServer(always(lambda s: good(s) if s < 9 else good(s - 2))) as server:
        seen = run(grpc_order(server.port, timeout_ns=1_000 * MS), enough(failures=1))
    assert set(seen.failures) == {"timeout: no reply within 1 s"}
    assert len(seen.done_ns) == 4


@pytest.mark.parametrize("late", [False, True])
def test_errors_that_are_told_several_times_count_once(late: bool) -> None:
    """Triton tells some 4 to 6 times."""
    answered = [0, 0]

    def script(peer: Peer) -> None:
        end, again = H2Peer(peer), b""
        while (stream := end.request()) is not None:
            failed = stream % 6 == 1
            error = refusal(stream, 13, "cannot parse") + reset(stream, 0)
            answered[failed] += 1
            end.send((again if late else b"") + (error * (1 if late else 5) if failed else good(stream)))
            again = error * 4 if failed else b""

    with ScriptedServer(script) as server:
        seen = run(grpc_order(server.port), enough(12, failures=5))
        assert server.accepted == 1
    assert set(seen.failures) == {"gRPC INTERNAL: cannot parse"}
    assert seen.failed <= answered[1]
    assert len(seen.done_ns) <= answered[0]
    assert abs(len(seen.done_ns) - 2 * seen.failed) <= 2


# -- flow control ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "ours",
    [
        pytest.param((), id="defaults"),
        pytest.param(((INITIAL_WINDOW_SIZE, 1000),), id="small-stream-window"),
        pytest.param(((INITIAL_WINDOW_SIZE, 1 << 24),), id="connection-window-is-the-limit"),
        pytest.param(((INITIAL_WINDOW_SIZE, 1 << 20), (MAX_FRAME_SIZE, 1 << 20)), id="long-frames"),
        pytest.param(((INITIAL_WINDOW_SIZE, 0),), id="no-window"),
    ],
)
def test_requests_larger_than_the_windows_arrive_whole(ours: tuple[tuple[int, int], ...]) -> None:
    bodies = tuple(bytes([n]) * 200_000 for n in range(3))
    frames: list[int] = []

    def script(peer: Peer) -> None:
        end = H2Peer(peer, *ours)
        if ours == ((INITIAL_WINDOW_SIZE, 0),):
            end.until(h2.HEADERS)
            end.until(h2.SETTINGS, h2.ACK) if not end.acks else None
            end.tell((INITIAL_WINDOW_SIZE, 70_000))
        end.serve()
        frames.extend(end.data_frames)

    # The server's end asserts that no window is overrun.
    with ScriptedServer(script) as server:
        seen = run(grpc_order(server.port, bodies), enough(6))
    assert not seen.failures
    assert len(seen.done_ns) >= 6
    assert set(server.bodies) == set(bodies)
    assert max(frames) <= dict(ours).get(MAX_FRAME_SIZE, 16384)


def test_a_stream_window_that_shrinks_below_zero_is_waited_for() -> None:
    steps: list[str] = []

    def script(peer: Peer) -> None:
        end = H2Peer(peer, (INITIAL_WINDOW_SIZE, 30_000), credits=False)
        while sum(end.data_frames) < 30_000:
            end.frame()
        end.tell((INITIAL_WINDOW_SIZE, 10_000))
        assert end.until(h2.SETTINGS, h2.ACK) is not None
        assert end.stream_window == -20_000
        end.give(20_000, end.stream)
        # Still nothing to send with: a PING is answered, no DATA comes before.
        before = sum(end.data_frames)
        assert end.ping()
        assert sum(end.data_frames) == before
        steps.append("held")
        end._credits = True
        end.give(5_000, end.stream)
        while (found := end.frame()) is not None:
            if found[0] == h2.DATA and found[1] & h2.END_STREAM:
                end.send(good(found[2]))

    with ScriptedServer(script) as server:
        seen = run(grpc_order(server.port, (b"x" * 100_000,)), enough(1))
    assert steps == ["held"]
    assert not seen.failures
    assert seen.done_ns


def test_no_stream_is_opened_while_none_is_allowed() -> None:
    allowed: list[float] = []

    def script(peer: Peer) -> None:
        end = H2Peer(peer, (MAX_CONCURRENT_STREAMS, 0))
        assert end.ping()
        time.sleep(0.1)
        assert end.ping()
        assert end.stream == 0
        allowed.append(time.monotonic_ns())
        end.tell((MAX_CONCURRENT_STREAMS, 10))
        end.serve()

    with ScriptedServer(script) as server:
        seen = run(grpc_order(server.port), enough(5))
    assert not seen.failures
    assert min(seen.done_ns) > allowed[0]
    # The wait is part of the request's latency.
    assert max(seen.latency_ns) > 90 * MS


@pytest.mark.parametrize("size", [1000, 300_000])
def test_what_is_received_is_credited(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grpc, "WINDOW", 50_000)
    content = (
        MESSAGE[: MESSAGE.index(b"\x32")]
        + b"\x32"
        + bytes([size & 0x7F | 0x80, size >> 7 & 0x7F | 0x80, size >> 14])
        + bytes(size)
    )

    def script(peer: Peer) -> None:
        end = H2Peer(peer)
        while (stream := end.request()) is not None:
            end.send_large(stream, content, 10_000)

    with ScriptedServer(script) as server:
        seen = run(grpc_order(server.port, value=2), enough(5 * 65535 // size + 5))
    assert not seen.failures
    assert len(seen.done_ns) * size > 5 * 65535


def test_a_large_request_reaches_a_slow_reader_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    bodies = tuple(bytes([n]) * larger_than_buffers() for n in range(3))
    waits = threading.Event()
    watch = driver.Driver._watch
    monkeypatch.setattr(driver.Driver, "_watch", lambda *a, **k: (k["room"] and waits.set(), watch(*a, **k)))

    def script(peer: Peer) -> None:
        end = H2Peer(peer, (INITIAL_WINDOW_SIZE, 1 << 30), (MAX_FRAME_SIZE, 1 << 20))
        end.give(1 << 30, None)
        # Not read before the kernel's buffers are full and a rest is left, however late the client's thread comes.
        waits.wait(20)
        end.serve()

    with ScriptedServer(script, receive_buffer=65536) as server:
        seen = run(grpc_order(server.port, bodies, value=2), enough(3))
    assert not seen.failures
    assert waits.is_set(), "every request went out in one piece"
    assert {hashlib.sha256(body).digest() for body in server.bodies} == {
        hashlib.sha256(body).digest() for body in bodies
    }


@pytest.mark.parametrize("answer", [good, lambda s: refusal(s, 8, "too large") + reset(s, 0)])
def test_an_answer_before_the_request_is_sent_whole_is_taken(answer: Answer) -> None:
    def script(peer: Peer) -> None:
        end = H2Peer(peer, credits=False)
        if end.until(h2.HEADERS) is not None:
            end.send(answer(end.stream))
        while end.frame() is not None:
            pass

    with ScriptedServer(script) as server:
        seen = run(grpc_order(server.port, (b"x" * 1_000_000,)), lambda s: len(s.done_ns) + s.failed >= 3)
        # The rest of a request would be in the way of the next one.
        assert server.accepted >= 3
    assert set(seen.failures) <= {"gRPC RESOURCE_EXHAUSTED: too large"}
    assert bool(seen.done_ns) is (answer is good)


# -- the connection --------------------------------------------------------------------------------


def test_a_ping_is_answered_at_any_time() -> None:
    answered: list[bool] = []

    def script(peer: Peer) -> None:
        end = H2Peer(peer)
        while (stream := end.request()) is not None:
            answered.append(end.ping(struct.pack(">Q", stream)))
            end.send(good(stream) + frame(h2.PING, 0, 0, b"together") + frame(h2.PING, h2.ACK, 0, b"not ours"))

    with ScriptedServer(script) as server:
        seen = run(grpc_order(server.port), enough(20))
    assert not seen.failures
    assert answered.count(True) >= 20


def test_answers_that_the_socket_does_not_take_at_once_go_out_while_a_reply_is_awaited() -> None:
    pings, answered = 500_000, [0]
    flood = frame(h2.PING, 0, 0, bytes(8)) * 1000

    def script(peer: Peer) -> None:
        end = H2Peer(peer)
        stream = end.request()
        # 8.5 MB of answers: more than the buffers of both sockets take.
        for _ in range(pings // 1000):
            peer.send(flood)
        while stream is not None and answered[0] < pings and (found := end.frame()) is not None:
            answered[0] += found[0] == h2.PING
        if stream is not None:
            end.send(good(stream))
        end.serve()

    with ScriptedServer(script, receive_buffer=4096) as server:
        seen = run(grpc_order(server.port, timeout_ns=60_000 * MS), enough(3))
    assert answered == [pings]
    assert not seen.failures
    assert len(seen.done_ns) >= 3


def test_a_connection_that_goes_away_ends_with_its_reply_without_a_failure() -> None:
    def script(peer: Peer) -> None:
        end = H2Peer(peer)
        stream = end.request()
        if stream is not None:
            # As a server does that closes in an orderly way: first anything goes, then what it has seen.
            end.send(go_away(h2.STREAM_ID) + frame(h2.PING, 0, 0, bytes(8)), go_away(stream), good(stream))
        assert end.until(h2.HEADERS) is None

    with ScriptedServer(script) as server:
        seen = run(grpc_order(server.port, value=2), enough(20))
        assert server.accepted >= 20
    assert not seen.failures
    assert len(seen.done_ns) >= 20


@pytest.mark.parametrize(
    "refuse", [lambda s: go_away(max(0, s - 2)), lambda s: go_away(0, 2, b"x"), lambda s: reset(s, 7)]
)
def test_a_request_that_was_not_begun_with_is_sent_again_and_its_latency_counts_on(refuse: Answer) -> None:
    bodies = tuple(b"%d" % n for n in range(50))

    def script(peer: Peer) -> None:
        end = H2Peer(peer)
        if peer.number % 2 == 0:
            for _ in range(3):
                stream = end.request()
                if stream is None:
                    return
                end.send(good(stream))
            stream = end.request()
            if stream is not None:
                time.sleep(0.05)
                end.send(refuse(stream))
                end.until(h2.HEADERS)
        else:
            end.serve(lambda s: good(s) if s < 7 else go_away(s) + good(s))

    with ScriptedServer(script) as server:
        seen = run(grpc_order(server.port, bodies), enough(40))
    assert not seen.failures
    # Each body that was refused came twice in a row; none was left out.
    firsts = [a for a, b in zip(server.bodies, server.bodies[1:], strict=False) if a != b]
    assert firsts == [bodies[n % 50] for n in range(len(firsts))]
    assert len(server.bodies) > len(firsts) + 2
    assert sum(latency > 50 * MS for latency in seen.latency_ns) >= 3


def test_a_server_that_never_takes_a_request_is_failures_that_back_off() -> None:
    with ScriptedServer(always(lambda s: go_away(0))) as server:
        seen = run(grpc_order(server.port, value=4), enough(failures=4 * 7))
    assert set(seen.failures) == {"the server did not take it: GOAWAY NO_ERROR"}
    assert seen.took_s >= least_s(seen.failed, 4) >= 0.6
    # Two attempts each time.
    assert server.accepted <= 2 * (seen.failed + 4)


def test_a_connection_that_closes_after_going_away_says_why() -> None:
    def script(peer: Peer) -> None:
        end = H2Peer(peer)
        if (stream := end.request()) is not None:
            end.send(headers(stream) + go_away(stream, 11, b"too_many_pings"))

    with ScriptedServer(script) as server:
        seen = run(grpc_order(server.port), enough(failures=2))
    # Or "connection broke", where the server had something left to read.
    assert all(text.startswith("connection ") for text in seen.failures), seen.failures
    assert all(text.endswith(" (GOAWAY ENHANCE_YOUR_CALM: too_many_pings)") for text in seen.failures), seen.failures


@pytest.mark.parametrize("farewell", [b"", go_away(h2.STREAM_ID), go_away(1)])
def test_an_idle_connection_that_the_server_ends_costs_no_request(farewell: bytes) -> None:
    def script(peer: Peer) -> None:
        end = H2Peer(peer)
        if (stream := end.request()) is not None:
            # In one segment with the end of the reply, and a second before the next request is due.
            peer.sock.send(good(stream) + farewell, socket.MSG_MORE)
            peer.sock.shutdown(socket.SHUT_WR)
            while end.frame() is not None:
                pass

    with ScriptedServer(script) as server:
        seen = run(grpc_order(server.port, kind="request_rate", value=1.0), enough(3))
        # One that is not there yet when a request is due costs another connection, no more.
        assert 3 <= server.accepted <= 2 * len(server.bodies) + 1
    assert not seen.failures


def test_stream_ids_that_are_used_up_roll_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "FIRST_STREAM", session.LAST_STREAM - 8)
    streams: list[int] = []

    def answer(stream: int) -> bytes:
        streams.append(stream)
        return good(stream)

    with ScriptedServer(always(answer)) as server:
        seen = run(grpc_order(server.port), enough(23))
        assert server.accepted >= 5
    assert not seen.failures
    assert streams[:6] == [session.LAST_STREAM - 8 + 2 * n for n in range(5)] + [session.LAST_STREAM - 8]


def test_a_silent_server_fails_by_timeout_and_gets_a_new_connection() -> None:
    def script(peer: Peer) -> None:
        end = H2Peer(peer)
        if peer.number:
            end.serve()
        while end.frame() is not None:
            pass

    with ScriptedServer(script) as server:
        seen = run(grpc_order(server.port, timeout_ns=200 * MS), enough(5))
    assert set(seen.failures) == {"timeout: no reply within 0.2 s"}
    # The last request may have had its time after the stop: no connection is made any more.
    assert server.accepted in (seen.failed, 1 + seen.failed)


ENDLESS: dict[str, tuple[Answer, Answer]] = {
    "empty-data": (headers, lambda s: data(s, b"")),
    "empty-continuation": (lambda s: frame(h2.HEADERS, 0, s, OPENING), lambda s: frame(h2.CONTINUATION, 0, s, b"")),
    "headers-again": (lambda _: b"", lambda s: headers(s, literal(":status", "103"))),
    "ping": (lambda _: b"", lambda _: frame(h2.PING, 0, 0, bytes(8))),
    "settings": (lambda _: b"", lambda _: settings((MAX_FRAME_SIZE, 1 << 20))),
    "settings-window": (headers, lambda _: settings((INITIAL_WINDOW_SIZE, 0))),
    "credit": (lambda _: b"", lambda _: credit(1)),
    "stream-credit": (lambda _: b"", lambda s: credit(1, s)),
    "unknown-frames": (lambda _: b"", lambda _: frame(0xBE, 0, 0, b"x")),
    "a-byte-less": (lambda s: headers(s) + data(s, message()[:-1]), lambda _: frame(h2.PRIORITY, 0, 1, bytes(5))),
}  # fmt: skip


@pytest.mark.parametrize("kind", ENDLESS)
def test_frames_without_end_that_end_no_reply_fail_by_timeout(kind: str) -> None:
    begin, more = ENDLESS[kind]

    def script(peer: Peer) -> None:
        end = H2Peer(peer)
        stream = end.request()
        assert stream is not None
        end.send(begin(stream))
        while True:
            end.send(more(stream) * 20)
            time.sleep(0.01)

    with ScriptedServer(script) as server:
        seen = run(
            grpc_order(server.port, timeout_ns=100 * MS), lambda s: s.failures["timeout: no reply within 0.1 s"] >= 2
        )
    assert not seen.done_ns
    # On a busy machine the greeting may take as long.
    assert set(seen.failures) <= {"timeout: no reply within 0.1 s", "timeout: no connection within 0.1 s"}


def test_a_server_that_never_makes_room_fails_by_timeout() -> None:
    def script(peer: Peer) -> None:
        end = H2Peer(peer, (INITIAL_WINDOW_SIZE, 10), credits=False)
        while end.frame() is not None:
            pass

    with ScriptedServer(script) as server:
        seen = run(grpc_order(server.port, timeout_ns=200 * MS), enough(failures=2))
    assert set(seen.failures) == {"timeout: no reply within 0.2 s"}


@pytest.mark.parametrize(
    ("greeting", "text"),
    [
        (b"", "timeout: no connection within 0.2 s"),
        (settings()[:5], "timeout: no connection within 0.2 s"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "malformed reply: not HTTP/2: starts with b'HTTP/1.1 400 Bad Req"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "malformed reply: not HTTP/2: starts with b'SSH-2.0-OpenSSH_9.2"),
        (good(1), "malformed reply: not HTTP/2: starts with"),
        (frame(h2.SETTINGS, h2.ACK, 0), "malformed reply: not HTTP/2: starts with"),
        (settings() + go_away(0, 12), "GOAWAY INADEQUATE_SECURITY"),
        (settings() + headers(1), "malformed reply: HEADERS of stream 1, which was not opened"),
    ],
)
def test_what_does_not_greet_as_http2_does_is_a_failure(greeting: bytes, text: str) -> None:
    def script(peer: Peer) -> None:
        end = H2Peer(peer, greet=False)
        end.send(greeting)
        while end.frame() is not None:
            pass

    with ScriptedServer(script) as server:
        patience = {"timeout_ns": 200 * MS} if text.startswith("timeout") else {}
        seen = run(grpc_order(server.port, **patience), enough(failures=2))
    assert not seen.done_ns
    assert all(found.startswith(text) for found in seen.failures), seen.failures


def close_at_once(peer: Peer) -> None:
    """Before a word."""


def close_after_the_request(peer: Peer) -> None:
    """Without a word about it."""
    H2Peer(peer).request()


def reset_after_the_request(peer: Peer) -> None:
    """With RST."""
    H2Peer(peer).request()
    peer.reset()


@pytest.mark.parametrize(
    ("script", "texts"),
    [
        (
            close_at_once,
            {"connection closed before the server's SETTINGS", "connection broke: Connection reset by peer"},
        ),
        (close_after_the_request, {"connection closed without a reply", "connection broke: Connection reset by peer"}),
        (reset_after_the_request, {"connection broke: Connection reset by peer"}),
        (always(lambda s: refusal(s, 14, "down")), {"gRPC UNAVAILABLE: down"}),
    ],
)
def test_failures_back_off(script: Callable[[Peer], None], texts: set[str]) -> None:
    with ScriptedServer(script) as server:
        seen = run(grpc_order(server.port, value=4), enough(failures=4 * 7))
    assert seen.took_s >= least_s(max(seen.failed, len(server.bodies), server.accepted), 4) >= 0.6
    assert set(seen.failures) <= texts


def test_a_server_that_dies_and_returns_is_used_again() -> None:
    servers = [ScriptedServer(always())]

    def returned(seen: Seen) -> bool:
        if len(servers) == 2:
            return len(servers[1].bodies) >= 20
        if seen.failures["cannot connect: Connection refused"]:
            servers.append(ScriptedServer(always(), servers[0].port))
        elif len(seen.done_ns) >= 20:
            servers[0].close()
        return False

    try:
        run(grpc_order(servers[0].port, value=2), returned)
        assert len(servers[1].bodies) >= 20
    finally:
        for server in servers:
            server.close()


@pytest.mark.parametrize("distribution", ["constant", "poisson"])
def test_an_open_loop_sends_when_it_is_due(distribution: str) -> None:
    with ScriptedServer(always()) as server:
        work = grpc_order(server.port, kind="request_rate", value=200.0, distribution=distribution, seed=7)
        seen = run(work, enough(80))
    assert not seen.failures
    assert follows_schedule(seen, send_times_ns(200.0, distribution, 7))


def test_an_open_loop_keeps_its_rate_when_every_reply_is_an_error() -> None:
    with ScriptedServer(always(lambda s: refusal(s, 13, "no") * 5)) as server:
        began = time.monotonic()
        # Half as many as are due, at some time: with pauses it would fall behind for good.
        kept = lambda _: len(server.bodies) >= max(30, 50 * (time.monotonic() - began))  # noqa: E731
        seen = run(grpc_order(server.port, kind="request_rate", value=100.0), kept)
        assert server.accepted <= len(server.bodies) // 2
    assert not seen.done_ns
    assert seen.failed <= len(server.bodies)
