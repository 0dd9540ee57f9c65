"""HTTP/2 without I/O: any split of the bytes means the same, garbage is never a reply and never hangs, a known reply is a good one."""

from __future__ import annotations

from itertools import pairwise

import pytest
from h2_server import (
    MESSAGE,
    OK,
    OPENING,
    credit,
    data,
    go_away,
    good,
    headers,
    literal,
    message,
    refusal,
    reset,
    settings,
    triton,
)
from hypothesis import example, given
from hypothesis import strategies as st

from model_analyzer.loadgen import frames as h2
from model_analyzer.loadgen.frames import FrameReader, frame
from model_analyzer.loadgen.grpc_reply import message_problem
from model_analyzer.loadgen.header_blocks import HeaderBlocks, request_block
from model_analyzer.loadgen.known_replies import KnownReplies
from model_analyzer.loadgen.reply import KEEP, Malformed
from model_analyzer.loadgen.session import FIRST_STREAM, INITIAL_WINDOW_SIZE, Outcome, Request, Session, Stream

BLOCK = request_block("host:8001", secure=False)
REQUEST = Request(BLOCK, memoryview(message(b"request")))
STREAM = FIRST_STREAM


def waiting(requests: int = 1) -> Session[Stream]:
    """A session with requests in flight."""
    session: Session[Stream] = Session(HeaderBlocks())
    session.feed(memoryview(settings()))
    session.more()
    for _ in range(requests):
        assert session.begin(REQUEST, Stream()) is not None
    return session


def verdict(pieces: list[bytes], session: Session[Stream] | None = None) -> tuple[object, ...]:
    """What becomes of the request when these bytes come in: its outcomes, what is answered; or "malformed"."""
    session = waiting() if session is None else session
    outcomes: list[Outcome] = []
    answered = b""
    try:
        for piece in pieces:
            outcomes += [outcome for _, outcome in session.feed(memoryview(piece))]
            answered += b"".join(session.more())
    except Malformed:
        return ("malformed",)
    assert len(outcomes) <= 1
    return (outcomes, answered, session.midway, session.window, session.closing)


def cut(whole: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted({place % (len(whole) + 1) for place in places}), len(whole)]
    return [whole[a:b] for a, b in pairwise(edges)]


SOUND = [
    good(STREAM),
    triton(STREAM),
    refusal(STREAM, 5, "no%20model") * 3,
    headers(STREAM) + data(STREAM, message()[:7]) + reset(STREAM, 2),
    settings((INITIAL_WINDOW_SIZE, 5)) + frame(h2.PING, 0, 0, b"12345678") + good(STREAM),
    frame(h2.HEADERS, 0, STREAM, OPENING[:4])
    + frame(h2.CONTINUATION, h2.END_HEADERS, STREAM, OPENING[4:])
    + frame(h2.DATA, h2.PADDED, STREAM, b"\x04" + message() + bytes(4))
    + frame(h2.HEADERS, h2.PADDED | h2.END_HEADERS | h2.END_STREAM, STREAM, b"\x02" + OK + bytes(2)),
    headers(STREAM, literal(":status", "502")) + data(STREAM, b"a page of a proxy", h2.END_STREAM),
    go_away(STREAM, 0, b"bye") + good(STREAM),
    go_away(0, 7),
]
PLACES = st.lists(st.integers(0, 500), max_size=8)


@pytest.mark.parametrize("whole", SOUND)
def test_a_sound_reply_ends_its_request_once(whole: bytes) -> None:
    outcomes = verdict([whole])[0]
    assert isinstance(outcomes, list)
    assert len(outcomes) == 1


@given(st.sampled_from(SOUND), st.binary(max_size=30), PLACES)
def test_pieces_mean_the_same_as_the_whole(whole: bytes, extra: bytes, places: list[int]) -> None:
    assert verdict(cut(whole + extra, places)) == verdict([whole + extra])


@given(st.sampled_from(SOUND), st.integers(0, 500), st.integers(0, 255), PLACES)
def test_a_broken_byte_means_the_same_in_pieces(whole: bytes, at: int, value: int, places: list[int]) -> None:
    broken = bytearray(whole)
    broken[at % len(broken)] = value
    assert verdict(cut(bytes(broken), places)) == verdict([bytes(broken)])


@given(st.binary(max_size=300), PLACES)
def test_garbage_is_never_a_success_and_raises_nothing_else(garbage: bytes, places: list[int]) -> None:
    found = verdict(cut(garbage, places))
    assert found[0] == "malformed" or all(outcome.problem for outcome in found[0])  # type: ignore[attr-defined]


@given(st.binary(min_size=9, max_size=100))
def test_garbage_for_a_greeting_is_malformed_at_once(garbage: bytes) -> None:
    session: Session[Stream] = Session(HeaderBlocks())
    if garbage[3:9] == b"\x04\x00\x00\x00\x00\x00":
        return
    with pytest.raises(Malformed):
        session.feed(memoryview(garbage))
    assert not session.greeted


FRAMES = st.builds(
    frame,
    st.integers(0, 11),
    st.sampled_from([0, 1, 4, 5, 8, 0x20, 0x2D]) | st.integers(0, 255),
    st.sampled_from([0, 0, STREAM, STREAM, STREAM, 2, STREAM + 2]),
    st.sampled_from([b"", OPENING, OK, OPENING + OK, message(), message()[:8], bytes(4), b"\0\0\0\1", bytes(8)])
    | st.binary(max_size=40),
)


@given(st.lists(FRAMES | st.sampled_from(SOUND), max_size=8), PLACES)
def test_frames_in_any_order_mean_the_same_in_pieces(sent: list[bytes], places: list[int]) -> None:
    whole = b"".join(sent)
    assert verdict(cut(whole, places)) == verdict([whole])


@given(st.lists(FRAMES, max_size=8))
def test_frames_in_any_order_are_a_success_only_with_a_whole_message_and_status_0(sent: list[bytes]) -> None:
    found = verdict([b"".join(sent)])
    if found[0] != "malformed" and any(outcome.problem is None for outcome in found[0]):  # type: ignore[attr-defined]
        whole = b"".join(sent)
        assert b"grpc-status" in whole
        assert MESSAGE in whole or b"\x0a" in whole


@given(st.lists(FRAMES, max_size=6))
def test_a_reader_gives_back_the_frames_that_were_written(sent: list[bytes]) -> None:
    reader = FrameReader()
    list(reader.feed(memoryview(settings())))
    try:
        got = list(reader.feed(memoryview(b"".join(sent))))
    except Malformed:
        assert any(each[3] == h2.DATA and each[4] & h2.PADDED for each in sent)
        return
    assert [(kind, stream) for kind, _, stream, _, _ in got] == [
        (each[3], int.from_bytes(each[5:9], "big")) for each in sent
    ]
    assert not reader.midway


# -- known replies ---------------------------------------------------------------------------------


def known(*whole: bytes) -> KnownReplies:
    replies = KnownReplies()
    for each in whole:
        replies.learn(each, STREAM.to_bytes(4, "big"))
    return replies


@pytest.mark.parametrize("form", [good, triton])
def test_a_reply_that_was_learned_is_known_on_any_stream_with_any_tensors(form: object) -> None:
    session = waiting()
    session.feed(memoryview(form(STREAM)))  # type: ignore[operator]
    stream = Stream()
    session.begin(REQUEST, stream)
    before = session.window
    other = form(stream.number, MESSAGE[:-16] + bytes(range(100, 116)))  # type: ignore[operator]
    taken = known(form(STREAM)).take(bytearray(other + b"old bytes"), len(other), session)  # type: ignore[operator]
    assert taken == ([stream], len(other))
    assert session.window - before == (100 if form is triton else 0)
    assert session.received == 2 * len(message())
    assert not session.streams


LEARNED = [good(STREAM), triton(STREAM), triton(STREAM, MESSAGE[:-18])]


@given(st.sampled_from(LEARNED), st.lists(st.tuples(st.integers(0, 300), st.integers(0, 255)), max_size=3))
@example(triton(STREAM), [(len(triton(STREAM)) - 1, 0)])
def test_what_is_taken_for_a_known_reply_is_a_good_one(whole: bytes, changes: list[tuple[int, int]]) -> None:
    changed = bytearray(whole)
    for at, value in changes:
        changed[at % len(changed)] = value
    quick, slow = waiting(), waiting()
    ended, at = known(*LEARNED).take(changed, len(changed), quick)
    outcomes = slow.feed(memoryview(bytes(changed[:at])))
    assert [outcome for _, outcome in outcomes] == [Outcome(None)] * len(ended)
    assert not slow.inside
    assert (quick.window, quick.received, len(quick.streams)) == (slow.window, slow.received, len(slow.streams))


@pytest.mark.parametrize(
    "whole",
    [
        headers(STREAM) + data(STREAM, message()[:5]) + data(STREAM, message()[5:]) + good(STREAM)[-25:],
        headers(STREAM) + frame(h2.PING, 0, 0, bytes(8)) + good(STREAM)[-60:],
        good(STREAM + 2),
        good(STREAM)[:-1],
        b"",
    ],
)
def test_replies_of_other_forms_are_not_learned(whole: bytes) -> None:
    replies = known(whole)
    for each in (whole, good(STREAM)):
        assert replies.take(bytearray(each), len(each), waiting()) == ([], 0)


REPLIES = st.permutations([good(1), triton(3), good(5), triton(7, MESSAGE[:-18])]).map(b"".join)


@given(REPLIES, st.integers(0, 400), st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=2))
def test_what_is_known_of_several_replies_means_the_same_to_the_session(
    whole: bytes, size: int, changes: list[tuple[int, int]]
) -> None:
    changed = bytearray(whole)
    for at, value in changes:
        changed[at % len(changed)] = value
    size = min(size, len(changed))
    quick, slow = waiting(4), waiting(4)
    ended, at = known(*LEARNED).take(changed, size, quick)
    assert at <= size
    # `changed` goes on behind `size`, as a buffer does with what it held before.
    assert [
        stream.number for stream, outcome in slow.feed(memoryview(bytes(changed[:at]))) if outcome == Outcome(None)
    ] == [stream.number for stream in ended]
    assert (quick.window, quick.received, set(quick.streams)) == (slow.window, slow.received, set(slow.streams))


def test_all_replies_of_a_read_are_known_with_the_credits_between_them() -> None:
    session = waiting(4)
    whole = triton(5) + triton(1) + credit(9) + good(7) + good(3)[:-1]
    before = session.window
    ended, at = known(triton(STREAM)).take(bytearray(whole), len(whole), session)
    assert [stream.number for stream in ended] == [5, 1, 7]
    assert whole[at:] == good(3)[:-1]
    assert session.window - before == 209


@given(st.permutations([1, 3, 5, 7]), PLACES, st.data())
def test_replies_whose_frames_alternate_are_each_their_own(
    order: list[int], places: list[int], draw: st.DataObject
) -> None:
    parts = {n: [headers(n), data(n, message()[:9]), data(n, message()[9:]), good(n)[-len(OK) - 9 :]] for n in order}
    sent = b""
    while left := [n for n in order if parts[n]]:
        sent += parts[draw.draw(st.sampled_from(left))].pop(0)
    session, ended = waiting(4), []
    for piece in cut(sent, places):
        ended += session.feed(memoryview(piece))
    assert sorted(stream.number for stream, _ in ended) == sorted(order)
    assert all(outcome == Outcome(None) for _, outcome in ended)
    assert not session.streams


def test_a_cancelled_stream_is_told_of_and_may_still_be_answered() -> None:
    session = waiting(2)
    first, second = session.streams.values()
    session.feed(memoryview(headers(1) + data(1, message()[:3])))
    session.cancel(first)
    assert b"".join(session.more()) == frame(h2.RST_STREAM, 0, 1, (8).to_bytes(4, "big"))
    assert session.feed(memoryview(data(1, message()[3:]) + good(1)[-len(OK) - 9 :])) == []
    assert session.feed(memoryview(good(3))) == [(second, Outcome(None))]


def test_a_stream_never_overtakes_one_that_is_not_open_yet() -> None:
    session: Session[Stream] = Session(HeaderBlocks())
    session.feed(memoryview(settings((INITIAL_WINDOW_SIZE, 50))))
    session.more()
    large, small = Request(BLOCK, memoryview(bytes(60))), Request(BLOCK, memoryview(bytes(40)))
    assert session.begin(large, Stream()) is None
    assert session.begin(small, Stream()) is None
    sent = b"".join(session.more())
    assert sent.index(frame(h2.HEADERS, h2.END_HEADERS, 1, BLOCK)) < sent.index(
        frame(h2.HEADERS, h2.END_HEADERS, 3, BLOCK)
    )
    # What the first waits for does not hold the second up.
    assert sent.endswith(frame(h2.DATA, h2.END_STREAM, 3, bytes(40)))


def test_going_away_leaves_out_the_streams_behind_the_last() -> None:
    session = waiting(4)
    ended = session.feed(memoryview(go_away(3) + good(1) + good(3)))
    assert [(stream.number, outcome.again) for stream, outcome in ended] == [
        (5, True),
        (7, True),
        (1, False),
        (3, False),
    ]


def test_what_is_known_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("model_analyzer.loadgen.known.MOST", 3)
    replies, blocks = KnownReplies(), HeaderBlocks()
    for size in range(10):
        replies.learn(good(STREAM, MESSAGE + b"\x32\x7f" + bytes(size)), STREAM.to_bytes(4, "big"))
        assert blocks.fields(OPENING + literal("x", "y" * size)).http_status == 200
        assert len(replies._shapes) <= 3
        assert len(blocks._known) <= 3


# -- the message -----------------------------------------------------------------------------------


@given(st.binary(max_size=60), st.integers(0, 60))
def test_a_message_of_garbage_raises_nothing(garbage: bytes, more: int) -> None:
    problem = message_problem(garbage, len(garbage) + more)
    assert problem is None or problem.startswith("malformed reply: ")
    if not garbage.startswith(b"\x0a"):
        assert problem == "malformed reply: no ModelInferResponse" or b"\x0a" in garbage


@pytest.mark.parametrize("size", [0, 1, 127, 128, 70_000])
def test_a_message_of_any_length_is_judged_by_its_beginning(size: int) -> None:
    from tritonclient.grpc import service_pb2

    made = service_pb2.ModelInferResponse(model_name="m", model_version="1", id="x" * (size % 100))
    made.parameters["p"].int64_param = size
    made.outputs.add(name="OUTPUT", datatype="FP32", shape=[size])
    made.raw_output_contents.append(bytes(4 * size))
    whole = made.SerializeToString()
    assert message_problem(whole[:KEEP], len(whole)) is None
    for length in range(1, min(len(whole), 200)):
        assert message_problem(whole[:length], length) in (
            None,
            "malformed reply: no ModelInferResponse",
            "malformed reply: no outputs in it",
            f"malformed reply: 0 bytes of output OUTPUT, and its shape tells of {4 * size}",
        )
    made.ClearField("outputs")
    if 4 * size < KEEP:
        without = made.SerializeToString()
        assert message_problem(without, len(without)) == "malformed reply: no outputs in it"


@pytest.mark.parametrize(
    ("datatype", "shape", "raw", "problem"),
    [
        pytest.param("FP32", (1, 4), (16, 16), None, id="whole"),
        pytest.param("INT64", (2, 0), (0, 0), None, id="no-element"),
        pytest.param("BYTES", (1, 4), (7, 0), None, id="of-no-fixed-size"),
        pytest.param("FP32", (-1,), (7, 7), None, id="no-shape"),
        pytest.param("FP32", (1, 4), (0, 0), None, id="in-shared-memory"),
        pytest.param("FP32", (1, 4), (16, 12), "12 bytes of output y1, and its shape tells of 16", id="short"),
        pytest.param(
            "FP32", (1, 999), (16, 16), "16 bytes of output y0, and its shape tells of 3996", id="another-shape"
        ),
        pytest.param("FP32", (1, 4), (16,), "0 bytes of output y1, and its shape tells of 16", id="one-is-missing"),
        pytest.param("FP32", (1, 4), (), "0 bytes of output y0, and its shape tells of 16", id="none-there"),
        pytest.param("FP32", (1, 4), (16, 16, 16), "3 tensors, and it tells of 2", id="one-too-many"),
    ],
)
def test_tensors_are_held_against_what_the_message_tells_of_them(
    datatype: str, shape: tuple[int, ...], raw: tuple[int, ...], problem: str | None
) -> None:
    from tritonclient.grpc import service_pb2

    made = service_pb2.ModelInferResponse(model_name="m")
    for n in range(2):
        made.outputs.add(name=f"y{n}", datatype=datatype, shape=shape).parameters["p"].int64_param = 1
    made.raw_output_contents.extend(map(bytes, raw))
    whole = made.SerializeToString()
    told = None if problem is None else f"malformed reply: {problem}"
    assert message_problem(whole, len(whole)) == told


def test_tensors_in_the_outputs_themselves_are_not_missed() -> None:
    from tritonclient.grpc import service_pb2

    made = service_pb2.ModelInferResponse(model_name="m")
    made.outputs.add(name="y", datatype="FP32", shape=[2]).contents.fp32_contents.extend([1.0, 2.0])
    whole = made.SerializeToString()
    assert message_problem(whole, len(whole)) is None


@pytest.mark.parametrize("more", range(8))
def test_a_tensor_whose_length_lies_beyond_what_is_kept_is_not_judged(more: int) -> None:
    from tritonclient.grpc import service_pb2

    size = KEEP - 45 + more
    made = service_pb2.ModelInferResponse(model_name="m")
    for _ in range(2):
        made.outputs.add(name="y", datatype="UINT8", shape=[size])
        made.raw_output_contents.append(bytes(size))
    whole = made.SerializeToString()
    assert len(whole) - size - 4 == KEEP - 4 + more  # where the second one begins
    assert message_problem(whole[:KEEP], len(whole)) is None


def test_a_request_is_framed_as_the_limits_allow() -> None:
    session: Session[Stream] = Session(HeaderBlocks())
    session.feed(memoryview(settings((INITIAL_WINDOW_SIZE, 100))))
    session.more()
    stream = Stream()
    small, large = Request(BLOCK, memoryview(bytes(100))), Request(BLOCK, memoryview(bytes(101)))
    whole = session.begin(small, stream)
    assert whole == frame(h2.HEADERS, h2.END_HEADERS, 1, BLOCK) + frame(h2.DATA, h2.END_STREAM, 1, bytes(100))
    session.feed(memoryview(good(1)))
    assert session.begin(large, stream) is None
    assert stream.uploading
    sent = b"".join(session.more())
    assert sent == frame(h2.HEADERS, h2.END_HEADERS, 3, BLOCK) + frame(h2.DATA, 0, 3, bytes(100))
    assert not session.more()
    session.feed(memoryview(credit(1, 3)))
    assert b"".join(session.more()) == frame(h2.DATA, h2.END_STREAM, 3, bytes(1))
    assert not stream.uploading


def test_what_only_answers_us_is_not_answered() -> None:
    session = waiting()
    session.feed(memoryview(frame(h2.PING, h2.ACK, 0, bytes(8)) + frame(h2.SETTINGS, h2.ACK, 0)))
    assert not session.more()
    session.feed(memoryview(frame(h2.PING, 0, 0, b"a ping 1")))
    assert [bytes(piece) for piece in session.more()] == [frame(h2.PING, h2.ACK, 0, b"a ping 1")]
