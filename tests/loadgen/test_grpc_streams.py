"""Several streams on a connection: what one of them meets with stays its own, and all of them go on."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable

import pytest
from h2_server import (
    MESSAGE,
    H2Peer,
    always,
    credit,
    data,
    go_away,
    good,
    grpc_order,
    headers,
    message,
    refusal,
    reset,
    settings,
    triton,
)
from scripted_server import Peer, ScriptedServer, Seen, enough, least_s, released_by_the_stop, run

from model_analyzer.loadgen import frames as h2
from model_analyzer.loadgen import session
from model_analyzer.loadgen.grpc import SHARED_FROM, SHARED_SIZE, STREAMS, GrpcDriver
from model_analyzer.loadgen.session import INITIAL_WINDOW_SIZE, MAX_CONCURRENT_STREAMS

MS = 1_000_000
FEW = SHARED_FROM  # two connections


def serve_by_four(answer: Callable[[H2Peer, list[int]], None], *ours: tuple[int, int]) -> Callable[[Peer], None]:
    """Answer when as many requests as share a connection are there."""

    def script(peer: Peer) -> None:
        end = H2Peer(peer, *ours)
        while len(streams := end.requests(STREAMS)) == STREAMS:
            answer(end, streams)

    return script


def test_64_requests_are_in_flight_on_16_connections_and_none_starves() -> None:
    everyone = threading.Barrier(16)  # of connections, with four requests each: no reply before
    ends: list[H2Peer] = []

    def script(peer: Peer) -> None:
        end = H2Peer(peer)
        ends.append(end)
        try:
            while len(streams := end.requests(STREAMS)) == STREAMS:
                everyone.wait(20)
                end.answer(*streams)
        except threading.BrokenBarrierError:
            return

    with ScriptedServer(script) as server:
        seen = run(grpc_order(server.port, value=64), enough(64 * 10))
        everyone.abort()
    assert not seen.failures
    assert server.accepted == 16
    assert {end.most for end in ends} == {STREAMS}
    assert max(server.served.values()) - min(server.served.values()) <= STREAMS
    assert len(seen.done_ns) <= len(server.bodies)


@pytest.mark.parametrize(("value", "connections"), [(1, 1), (FEW - 1, FEW - 1), (FEW, 2), (FEW + 1, 3), (64, 16)])
def test_few_requests_have_a_connection_each_and_many_share_them(value: int, connections: int) -> None:
    with ScriptedServer(always()) as server:
        seen = run(
            grpc_order(server.port, value=value), lambda s: len(s.done_ns) >= 100 and len(server.served) >= connections
        )
        assert server.accepted == connections
    assert not seen.failures


def test_large_requests_and_an_open_loop_share_no_connection() -> None:
    bodies = (b"small", b"x" * SHARED_SIZE)
    with ScriptedServer(always()) as server:
        seen = run(grpc_order(server.port, bodies, value=FEW), enough(20))
        assert server.accepted == FEW
        assert not seen.failures
    mosts: list[int] = []

    def script(peer: Peer) -> None:
        end = H2Peer(peer)
        while (stream := end.request()) is not None:
            time.sleep(0.02)
            end.answer(stream)
        mosts.append(end.most)

    with ScriptedServer(script) as server:
        seen = run(grpc_order(server.port, kind="request_rate", value=200.0), enough(20))
    assert not seen.failures
    # A connection in reserve may have had no request yet.
    assert max(mosts) == 1


def test_requests_with_large_replies_part_and_nothing_is_lost() -> None:
    content = MESSAGE + b"\x32\x80\x80\x08" + bytes(1 << 17)
    ends: list[H2Peer] = []

    def script(peer: Peer) -> None:
        end = H2Peer(peer)
        ends.append(end)
        while streams := end.arrived():
            end.open.difference_update(streams)
            end.send(b"".join(good(stream, content) for stream in streams))

    with ScriptedServer(script) as server:
        seen = run(grpc_order(server.port, value=FEW), lambda s: len(s.done_ns) >= 100 and len(ends) == FEW)
        assert server.accepted == FEW
        assert 0 < len(seen.done_ns) <= len(server.bodies)
    assert not seen.failures


def test_replies_of_one_read_are_answered_by_one_write(monkeypatch: pytest.MonkeyPatch) -> None:
    written = Counter[int]()
    put = GrpcDriver._put

    def counted(self: GrpcDriver, conn: object, wire: bytes) -> bool:
        written[wire.count(b"request")] += 1
        return put(self, conn, wire)  # type: ignore[arg-type]

    monkeypatch.setattr(GrpcDriver, "_put", counted)
    with ScriptedServer(serve_by_four(lambda end, streams: end.answer(*streams))) as server:
        seen = run(grpc_order(server.port, value=FEW), enough(400))
    assert not seen.failures
    # The first replies are not known yet; a segment may come in two reads.
    assert written[STREAMS] > 40
    assert written[STREAMS] * STREAMS > 0.8 * sum(count * times for count, times in written.items())


@pytest.mark.parametrize("pieces", [1, 2, 7])
def test_replies_in_any_order_and_cut_anywhere_count_once_each(pieces: int) -> None:
    draw = random.Random(pieces)
    assert data(1, message()) + good(1)[-24:] == good(1)[len(headers(1)) :]

    def answer(end: H2Peer, streams: list[int]) -> None:
        if streams[0] > 2 * 200:
            return  # 200 are answered, no more
        draw.shuffle(streams)
        whole = b"".join(headers(s) for s in streams[:2])
        whole += b"".join(data(s, message()) + good(s)[-24:] for s in reversed(streams[:2]))
        whole += credit(7) + b"".join(triton(s) for s in streams[2:])
        cuts = sorted(draw.randrange(len(whole)) for _ in range(pieces - 1))
        end.open.difference_update(streams)
        end.send(*(whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)))

    with ScriptedServer(serve_by_four(answer)) as server:
        seen = run(grpc_order(server.port, value=FEW), lambda s: len(s.done_ns) >= 400 and s.reports[-1]["n"] == 0)
        assert server.accepted == 2
    assert not seen.failures
    assert len(seen.done_ns) == 400
    assert len(server.bodies) == 400 + FEW
    assert seen.reports[-1]["inflight"] == FEW


def test_a_bad_reply_among_good_ones_costs_its_own_request_only() -> None:
    counts = Counter[str]()
    lock = threading.Lock()

    def answer(end: H2Peer, streams: list[int]) -> None:
        with lock:
            counts["bad"] += 1
            counts["good"] += len(streams) - 1
        end.open.difference_update(streams)
        end.send(b"".join(refusal(s, 13, "no") * 3 if n == 1 else triton(s) for n, s in enumerate(streams)))

    with ScriptedServer(serve_by_four(answer)) as server:
        seen = run(grpc_order(server.port, value=FEW), enough(30, failures=8))
        assert server.accepted == 2
    assert set(seen.failures) == {"gRPC INTERNAL: no"}
    assert counts["bad"] - 2 <= seen.failed <= counts["bad"]
    assert counts["good"] - FEW <= len(seen.done_ns) <= counts["good"]


def test_a_request_that_times_out_is_cancelled_and_its_neighbours_go_on() -> None:
    ends: list[H2Peer] = []
    swallowed = Counter[int]()

    def script(peer: Peer) -> None:
        end = H2Peer(peer)
        ends.append(end)
        while (stream := end.request()) is not None:
            # Of each connection the first one, and the one that comes when that has timed out.
            if stream == 1 or (end.cancelled and swallowed[peer.number] < 2):
                swallowed[peer.number] += 1
                continue
            end.answer(stream)
            time.sleep(0.002)

    with ScriptedServer(script) as server:
        # A server that is held up so long itself would cost its neighbours their replies, too.
        seen = run(grpc_order(server.port, value=FEW, timeout_ns=1_000 * MS), enough(200, failures=4))
        assert server.accepted == 2
    assert seen.failures == {"timeout: no reply within 1 s": 4}
    assert [set(end.cancelled.values()) for end in ends] == [{h2.CANCEL}] * 2
    assert all(end.cancelled.keys() >= {1} for end in ends)
    # What was timed out is counted once, even where the server answers it after all.
    assert len(seen.done_ns) <= len(server.bodies) - 4


def test_a_reply_to_a_cancelled_request_is_nobodys() -> None:
    late = [0]

    def script(peer: Peer) -> None:
        end = H2Peer(peer)
        while (stream := end.request()) is not None:
            if stream != 1:
                end.answer(stream)
                time.sleep(0.002)
            if 1 in end.cancelled and not late[0]:
                late[0] = stream
                end.answer(1, 1)

    with ScriptedServer(script) as server:
        seen = run(
            grpc_order(server.port, value=FEW, timeout_ns=1_000 * MS),
            lambda s: bool(late[0]) and s.failed >= 2 and len(s.done_ns) >= 200,
        )
        assert server.accepted == 2
    assert seen.failures == {"timeout: no reply within 1 s": 2}
    assert len(seen.done_ns) <= len(server.bodies) - 2


def replaced(server: ScriptedServer) -> Callable[[Seen], bool]:
    """For `until`: both connections were lost, each with its requests, and others are there."""
    return lambda seen: len(seen.done_ns) >= 100 and seen.failed >= FEW and server.accepted >= 4


def test_a_connection_that_fell_silent_is_left_for_a_new_one() -> None:
    def script(peer: Peer) -> None:
        end = H2Peer(peer, credits=peer.number >= 2)
        if peer.number < 2:
            end.answer(*end.requests(STREAMS))
            while end.frame() is not None:
                pass
        end.serve()

    with ScriptedServer(script) as server:
        seen = run(grpc_order(server.port, value=FEW, timeout_ns=1_000 * MS), replaced(server))
        assert server.accepted == 4
    assert seen.failures == {"timeout: no reply within 1 s": FEW}


@pytest.mark.parametrize("how", ["close", "reset", "garbage"])
def test_a_connection_that_breaks_costs_each_of_its_requests_once(how: str) -> None:
    begun: list[int] = []

    def script(peer: Peer) -> None:
        end = H2Peer(peer)
        if peer.number < 2:
            end.answer(*end.requests(STREAMS))
            begun.extend(end.requests(STREAMS))
            if how == "reset":
                peer.reset()
            elif how == "garbage":
                end.send(bytes(9) + b"\xff" * 20)
            return
        end.serve()

    with ScriptedServer(script) as server:
        seen = run(grpc_order(server.port, value=FEW), replaced(server))
        assert server.accepted == 4
    assert len(begun) == FEW
    assert seen.failed == FEW
    assert all("connection" in text or "malformed" in text for text in seen.failures)
    assert {report["inflight"] for report in seen.reports} <= set(range(FEW + 1))


def test_good_replies_in_the_read_that_breaks_the_connection_are_not_trusted() -> None:
    def answer(end: H2Peer, streams: list[int]) -> None:
        if streams[0] == 1:
            end.answer(*streams)
        else:
            end.send(b"".join(map(triton, streams[:3])) + b"HTTP/1.1 400 Bad")

    with ScriptedServer(serve_by_four(answer)) as server:
        seen = run(grpc_order(server.port, value=FEW), enough(failures=FEW))
    # Each of the four, once.
    assert seen.failed % STREAMS == 0
    assert all(text.startswith("malformed reply: frame of kind") for text in seen.failures), seen.failures
    assert len(seen.done_ns) % STREAMS == 0


def test_a_connection_that_goes_away_ends_with_the_replies_it_owes_and_the_rest_is_sent_again() -> None:
    left = [0]

    def script(peer: Peer) -> None:
        end, answered = H2Peer(peer), 0
        while answered < 6 and (streams := end.arrived()):
            end.answer(*streams)
            answered += len(streams)
        streams = end.arrived()
        if not streams:
            return
        end.send(go_away(streams[0]))
        assert end.ping()
        # The reply comes late, and nothing new comes meanwhile.
        time.sleep(0.01)
        end.answer(streams[0])
        assert end.until(h2.HEADERS) is None
        left[0] += 1

    with ScriptedServer(script) as server:
        seen = run(grpc_order(server.port, value=FEW), enough(80))
        assert server.accepted >= 8
    assert not seen.failures
    assert left[0] >= 6
    assert len(seen.done_ns) <= len(server.bodies)


def test_a_stream_that_is_refused_is_sent_over_another_connection() -> None:
    def script(peer: Peer) -> None:
        end = H2Peer(peer)
        if peer.number >= 2:
            end.serve(triton)
            return
        first, *others = end.requests(STREAMS)
        end.open.discard(first)
        end.send(reset(first, h2.REFUSED_STREAM))
        end.answer(*others)
        end.serve(triton)

    with ScriptedServer(script) as server:
        seen = run(grpc_order(server.port, value=FEW), enough(200))
        assert 3 <= server.accepted <= 4
        assert all(server.served[number] > 10 for number in range(3))
    assert not seen.failures


def test_requests_that_are_sent_again_keep_to_what_the_next_server_allows() -> None:
    ends: list[H2Peer] = []
    # A connection that is greeted after the new ones would keep to their limit already.
    all_there = threading.Barrier(2)

    def script(peer: Peer) -> None:
        end = H2Peer(peer, *([(MAX_CONCURRENT_STREAMS, 1)] if peer.number >= 2 else []))
        if peer.number < 2:
            assert len(end.requests(STREAMS)) == STREAMS
            all_there.wait(10)
            end.send(go_away(0))
            end.frame()
            return
        ends.append(end)
        while streams := end.arrived():
            end.answer(*streams)

    with ScriptedServer(script) as server:
        seen = run(grpc_order(server.port, value=FEW), enough(100))
    assert not seen.failures
    assert len(seen.done_ns) >= 100
    assert max(end.most for end in ends) == 1


@pytest.mark.parametrize("most", [1, 2, 3])
def test_no_more_streams_are_opened_than_the_server_allows(most: int) -> None:
    ends: list[H2Peer] = []

    def script(peer: Peer) -> None:
        end = H2Peer(peer, (MAX_CONCURRENT_STREAMS, most))
        ends.append(end)
        while streams := end.arrived():
            end.answer(*streams)

    def all_there(seen: Seen) -> bool:
        return len(seen.done_ns) >= 200 and seen.reports[-1]["inflight"] == FEW

    with ScriptedServer(script) as server:
        seen = run(grpc_order(server.port, value=FEW), all_there)
        assert -(-FEW // most) <= server.accepted <= FEW
    assert not seen.failures
    assert max(end.most for end in ends) == most


def test_a_limit_that_is_lowered_later_is_kept() -> None:
    # By the number of the connection: the end, and the requests since it allows one.
    lowered: dict[int, H2Peer] = {}
    since: Counter[int] = Counter()

    def script(peer: Peer) -> None:
        end = H2Peer(peer)
        if peer.number < 2:
            streams = end.requests(STREAMS)
            end.send(settings((MAX_CONCURRENT_STREAMS, 1)))
            assert end.until(h2.SETTINGS, h2.ACK) is not None
            end.answer(*streams)
            end.most = 0
            lowered[peer.number] = end
        while streams := end.arrived():
            since[peer.number] += len(streams)
            end.answer(*streams)

    with ScriptedServer(script) as server:
        seen = run(grpc_order(server.port, value=FEW), lambda _: min(since[0], since[1]) >= 50)
    assert not seen.failures
    assert [lowered[number].most for number in range(2)] == [1, 1]


def test_all_of_a_connection_wait_while_no_stream_is_allowed() -> None:
    def script(peer: Peer) -> None:
        end = H2Peer(peer, (MAX_CONCURRENT_STREAMS, 0))
        time.sleep(0.1)
        assert end.stream == 0
        end.tell((MAX_CONCURRENT_STREAMS, 10))
        end.serve()

    with ScriptedServer(script) as server:
        seen = run(
            grpc_order(server.port, value=FEW), lambda s: len(s.done_ns) >= 50 and s.reports[-1]["inflight"] == FEW
        )
    assert not seen.failures


@pytest.mark.parametrize("ours", [(), ((INITIAL_WINDOW_SIZE, 1000),)])
def test_streams_that_share_the_connections_window_arrive_whole(ours: tuple[tuple[int, int], ...]) -> None:
    bodies = tuple(bytes([n]) * 8000 for n in range(4))
    # Without a credit four rounds of four fill the connection's window twice over.
    with ScriptedServer(always(good, *ours)) as server:
        seen = run(grpc_order(server.port, bodies, value=FEW), enough(100))
        assert server.accepted == 2
        assert set(server.bodies) == set(bodies)
    assert not seen.failures


def test_a_full_window_stops_nobody_for_longer_than_it_is_full() -> None:
    bodies = tuple(bytes([n]) * 8000 for n in range(4))
    held = []

    def script(peer: Peer) -> None:
        end = H2Peer(peer, (INITIAL_WINDOW_SIZE, 1 << 20), credits=False)
        while (stream := end.request()) is not None:
            end.answer(stream)
            if end.window < 8005:
                held.append(end.window)
                time.sleep(0.005)
                end.give(60_000 - end.window, None)

    with ScriptedServer(script) as server:
        # `triton` credits 100 bytes with each reply, which the server's end does not count: it has more room than it says.
        seen = run(grpc_order(server.port, bodies, value=FEW), enough(100))
    assert held
    assert not seen.failures


def test_stream_ids_that_are_used_up_roll_the_connection_without_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "FIRST_STREAM", session.LAST_STREAM - 20)
    with ScriptedServer(always()) as server:
        seen = run(grpc_order(server.port, value=FEW), enough(100))
        assert server.accepted >= 8
        assert max(server.served.values()) <= 11
    assert not seen.failures
    assert len(seen.done_ns) <= len(server.bodies)


def test_a_dead_server_fails_each_request_and_backs_off() -> None:
    server = ScriptedServer(always())
    server.close()
    seen = run(grpc_order(server.port, value=FEW), enough(failures=FEW * 7))
    assert set(seen.failures) == {"cannot connect: Connection refused"}
    assert seen.took_s >= least_s(seen.failed, FEW) >= 0.6
    assert {report["inflight"] for report in seen.reports} == {0}


def test_what_is_in_flight_at_the_end_is_drained(monkeypatch: pytest.MonkeyPatch) -> None:
    release = released_by_the_stop(monkeypatch)
    answered: list[int] = []

    def answer(end: H2Peer, streams: list[int]) -> None:
        if release.wait(20):
            answered.extend(streams)
        end.answer(*streams)

    with ScriptedServer(serve_by_four(answer)) as server:
        seen = run(grpc_order(server.port, value=FEW), lambda s: len(server.bodies) >= FEW)
        assert len(answered) == FEW
        assert len(server.bodies) == FEW
    assert not seen.failures
