"""The reply parser: any split of the bytes gives the same reply, and garbage is never one."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_analyzer.loadgen.reply import (
    HEAD_LIMIT,
    KEEP,
    LINE_LIMIT,
    Malformed,
    Reply,
    parse_head,
    problem_of,
)

BODY = json.dumps({"outputs": [{"name": "y"}]}).encode()


def framed(*lines: str, body: bytes = b"", status: str = "HTTP/1.1 200 OK") -> bytes:
    return "\r\n".join([status, *lines]).encode() + b"\r\n\r\n" + body


def verdict(pieces: list[bytes]) -> tuple[object, ...]:
    """How a reply ends that comes in these pieces, then EOF: what was parsed, or "malformed", or "unfinished"."""
    reply = Reply()
    fed = 0
    try:
        for piece in pieces:
            fed += len(piece)
            if reply.feed(piece):
                total = sum(map(len, pieces))
                return ("whole", reply.head, bytes(reply.body), reply.extra or fed < total)
        return ("closed", reply.head, bytes(reply.body)) if reply.end() else ("unfinished",)
    except Malformed:
        return ("malformed",)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted({place % (len(data) + 1) for place in places}), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


SOUND = [
    framed(f"Content-Length: {len(BODY)}", body=BODY),
    framed("Content-Length: 5", body=b"12345", status="HTTP/1.1 500 Internal Server Error"),
    framed("Transfer-Encoding: chunked", body=b"3\r\nabc\r\nA;ext=1\r\n0123456789\r\n0\r\n\r\n"),
    framed("Transfer-Encoding: chunked", body=b"2\r\n\r\n\r\n0\r\nTrailer: x\r\nOther: y\r\n\r\n"),
    framed("Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
    framed(body=b"until the connection closes"),
    framed(status="HTTP/1.1 204 No Content"),
    framed("Connection: close", "Content-Length: 0"),
    b"HTTP/1.1 100 Continue\r\n\r\n" + framed("Content-Length: 2", body=b"ok"),
]


@pytest.mark.parametrize("data", SOUND)
def test_a_sound_reply_is_whole_or_ended_by_the_close(data: bytes) -> None:
    assert verdict([data])[0] in ("whole", "closed")


@given(st.sampled_from(SOUND), st.binary(max_size=20), st.lists(st.integers(0, 500), max_size=8))
def test_pieces_give_the_same_reply_as_the_whole(data: bytes, extra: bytes, places: list[int]) -> None:
    assert verdict(cut(data + extra, places)) == verdict([data + extra])


@given(st.sampled_from(SOUND), st.integers(0, 500), st.integers(0, 255), st.lists(st.integers(0, 500), max_size=8))
def test_a_reply_with_a_broken_byte_gives_the_same_verdict_in_pieces(
    data: bytes, at: int, value: int, places: list[int]
) -> None:
    broken = bytearray(data)
    broken[at % len(broken)] = value
    assert verdict(cut(bytes(broken), places)) == verdict([bytes(broken)])


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=5))
def test_garbage_is_never_an_inference_and_never_raises_anything_else(data: bytes, places: list[int]) -> None:
    found = verdict(cut(data, places))
    assert found[0] in ("malformed", "unfinished")


@given(st.binary(max_size=200))
def test_a_body_of_garbage_is_never_an_inference(body: bytes) -> None:
    head = parse_head(framed(f"Content-Length: {len(body)}"))
    assert problem_of(head, body, len(body)) is not None


NAMES = st.sampled_from(["outputs", "error", "model_name"])


@given(st.none() | st.integers() | st.text() | st.lists(NAMES) | st.dictionaries(NAMES, NAMES))
def test_other_json_is_never_an_inference(value: object) -> None:
    body = json.dumps(value).encode()
    head = parse_head(framed(f"Content-Length: {len(body)}"))
    assert problem_of(head, body, len(body)) is not None


@pytest.mark.parametrize(
    "data",
    [
        b"\r\n\r\n",
        b"HTTP/2 200 OK\r\n\r\n",
        b"HTTP/1.1 OK\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 099 No\r\n\r\n",
        b"HTTP/1.1 +20 OK\r\n\r\n",
        framed("no colon"),
        framed(": nameless"),
        framed("Content-Length: -1"),
        framed("Content-Length: 1_0"),
        framed("Content-Length: 1e3"),
        framed("Content-Length: 9999999999999999"),
        framed("Content-Length: 1", "Content-Length: 2"),
        framed("Transfer-Encoding: gzip, chunked"),
        framed("Transfer-Encoding: chunked", body=b"-1\r\n"),
        framed("Transfer-Encoding: chunked", body=b"0x10\r\n"),
        framed("Transfer-Encoding: chunked", body=b"1_0\r\n"),
        framed("Transfer-Encoding: chunked", body=b"\r\n"),
        framed("Transfer-Encoding: chunked", body=b"fffffffffffff\r\n"),
        framed("Transfer-Encoding: chunked", body=b"1\r\nab\r\n"),
    ],
)
def test_what_is_no_reply_is_malformed(data: bytes) -> None:
    assert verdict([data]) == ("malformed",)
    assert verdict([data[n : n + 1] for n in range(len(data))]) == ("malformed",)


@pytest.mark.parametrize("step", [1 << 20, 1000])
@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * (HEAD_LIMIT // 6 + 10) + b"\r\n",
        framed("Transfer-Encoding: chunked", body=b"1;" + b"x" * LINE_LIMIT + b"\r\na\r\n0\r\n\r\n"),
    ],
)
def test_a_head_or_line_beyond_its_limit_is_malformed(data: bytes, step: int) -> None:
    assert verdict([data[n : n + step] for n in range(0, len(data), step)]) == ("malformed",)


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
def test_of_a_long_body_the_beginning_is_kept(framing: str) -> None:
    body = bytes(range(256)) * 1000
    line = {"length": [f"Content-Length: {len(body)}"], "chunked": ["Transfer-Encoding: chunked"], "close": []}[framing]
    sent = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body) if framing == "chunked" else body
    data = framed(*line, body=sent)
    reply = Reply()
    whole = [reply.feed(data[n : n + 5000]) for n in range(0, len(data), 5000)]
    assert whole[-1] or reply.end()
    assert not any(whole[:-1])
    assert bytes(reply.body) == body[:KEEP]


@pytest.mark.parametrize(
    ("version", "connection", "close"),
    [
        ("HTTP/1.1", None, False),
        ("HTTP/1.1", "close", True),
        ("HTTP/1.1", "Keep-Alive, Close", True),
        ("HTTP/1.0", None, True),
        ("HTTP/1.0", "Keep-Alive", False),
    ],
)
def test_whether_the_connection_may_be_used_again(version: str, connection: str | None, close: bool) -> None:
    lines = [] if connection is None else [f"Connection: {connection}"]
    assert parse_head(framed("Content-Length: 1", *lines, status=f"{version} 200 OK")).close is close


@pytest.mark.parametrize(
    ("status", "body", "problem"),
    [
        (200, BODY, None),
        (200, b'{"outputs": []}', "malformed reply: no outputs in it"),
        (200, b'{"outputs": null}', "malformed reply: no outputs in it"),
        (200, b'{"outputs": []', "malformed reply: its JSON part does not parse"),
        (200, b"[" * 60_000, "malformed reply: its JSON part does not parse"),
        (200, b'{"outputs": [], "error": "late"}', "HTTP 200: late"),
        (200, b"\xff" * KEEP, "malformed reply: no JSON in it"),
        (200, b'{ "error": "' + b"x" * KEEP, 'HTTP 200: { "error": "' + "x" * 188),
        (404, b'{"error": "unknown model"}', "HTTP 404: unknown model"),
        (404, b'{"detail": 1}', 'HTTP 404: {"detail": 1}'),
        (500, b"", "HTTP 500"),
        (500, b"[" * 60_000, "HTTP 500: " + "[" * 200),
    ],
)
def test_the_problem_of_a_whole_reply(status: int, body: bytes, problem: str | None) -> None:
    head = parse_head(framed(f"Content-Length: {len(body)}", status=f"HTTP/1.1 {status} x"))
    assert problem_of(head, body, len(body)) == problem


def test_only_the_json_part_is_read_as_json() -> None:
    text = b'{"outputs": [{"parameters": {"binary_data_size": 4}}]}'
    head = parse_head(framed(f"Inference-Header-Content-Length: {len(text)}", f"Content-Length: {len(text) + 4}"))
    assert problem_of(head, text + b"\xff\xfe\x00\x01", len(text) + 4) is None


def test_the_text_of_an_error_beside_tensors_is_told() -> None:
    text = b'{"outputs": [], "error": "late"}'
    head = parse_head(framed(f"Inference-Header-Content-Length: {len(text)}", f"Content-Length: {len(text) + 4}"))
    assert problem_of(head, text + b"\xff\xfe\x00\x01", len(text) + 4) == "HTTP 200: late"


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
@pytest.mark.parametrize("there", [3, 4, 5, KEEP])
def test_tensors_are_as_long_as_the_json_part_tells_however_the_reply_ends(framing: str, there: int) -> None:
    text = b'{"outputs": [{"parameters": {"binary_data_size": 4}}]}'
    body = text + bytes(there)
    line = {"length": f"Content-Length: {len(body)}", "chunked": "Transfer-Encoding: chunked", "close": "X: y"}[framing]
    sent = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body) if framing == "chunked" else body
    reply = Reply()
    data = framed(f"Inference-Header-Content-Length: {len(text)}", line, body=sent)
    assert reply.feed(data[:90]) or reply.feed(data[90:]) or reply.end()
    assert reply.head is not None
    told = None if there == 4 else f"malformed reply: {there} bytes of tensors, and its JSON part tells of 4"
    assert problem_of(reply.head, reply.body, reply.size) == told


@pytest.mark.parametrize(
    ("datatype", "shape", "size", "told"),
    [
        ("FP32", [1, 4], 16, None),
        ("BOOL", [2, 0], 0, None),
        ("BYTES", [4], 7, None),
        ("FP32", [-1], 7, None),
        ("FP32", "4", 7, None),
        (None, None, 7, None),
        ("FP32", [1, 999], 16, 3996),
        ("INT64", [3], 0, 24),
    ],
)
def test_a_tensor_is_as_long_as_its_shape_tells(datatype: object, shape: object, size: int, told: int | None) -> None:
    output = {"name": "y", "datatype": datatype, "shape": shape, "parameters": {"binary_data_size": size}}
    text = json.dumps({"outputs": [output]}).encode()
    head = parse_head(framed(f"Inference-Header-Content-Length: {len(text)}", f"Content-Length: {len(text) + size}"))
    problem = None if told is None else f"malformed reply: {size} bytes of output y, and its shape tells of {told}"
    assert problem_of(head, text + bytes(size), len(text) + size) == problem


@pytest.mark.parametrize("outputs", ["[null]", '[{"parameters": 1}]', '[{"parameters": {"binary_data_size": "4"}}]'])
def test_outputs_of_any_form_are_judged(outputs: str) -> None:
    text = b'{"outputs": %s}' % outputs.encode()
    head = parse_head(framed(f"Inference-Header-Content-Length: {len(text)}", f"Content-Length: {len(text) + 4}"))
    assert problem_of(head, text, len(text) + 4) == "malformed reply: 4 bytes of tensors, and its JSON part tells of 0"
