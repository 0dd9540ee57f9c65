"""What the child counts arrives at the analyzer, frame by frame."""

from __future__ import annotations

import os
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_analyzer.loadgen.client import Frames, _batch, _drain
from model_analyzer.loadgen.tally import MAX_MESSAGES, MESSAGE_LENGTH, Tally, run_queue, writer
from model_analyzer.ports import LoadBatch, WorkerUse


def received(*, write: bytes) -> list[tuple[dict[str, object], bytes] | None]:
    """All frames of a pipe into which `write` went."""
    reading, writing = os.pipe()
    frames = Frames()
    thread = threading.Thread(target=_drain, args=(reading, 3, frames))
    thread.start()
    writer(writing)(write)
    os.close(writing)
    thread.join(5)
    told = [frames.get_nowait() for _ in range(frames.qsize())]
    assert {worker for worker, _ in told} == {3}
    return [frame for _, frame in told]


def report(tally_of: list[bytes]) -> list[LoadBatch]:
    return [_batch(*item) for item in received(write=b"".join(tally_of)) if item is not None]


TIMES = st.lists(st.integers(-(2**63), 2**63 - 1), max_size=20)


@given(
    TIMES,
    st.dictionaries(st.text(min_size=1, max_size=5).map(lambda s: "x" + s.strip()), st.integers(1, 3), max_size=3),
)
def test_a_report_arrives_as_it_was_counted(times: list[int], failures: dict[str, int]) -> None:
    sent: list[bytes] = []
    tally = Tally(sent.append, 7)
    tally.done.extend(times)
    tally.latency.extend(reversed(times))
    for message, count in failures.items():
        for _ in range(count):
            tally.failed(message)
    tally.send_lags.extend(times[:3])
    tally.lag_ns, tally.delayed = 5, 6
    tally.report(123, 4, 2)
    (batch,) = report(sent)
    assert batch.done_ns.tolist() == times
    assert batch.latency_ns.tolist() == times[::-1]
    assert sum(batch.failures.values()) == sum(failures.values())
    assert batch.send_lags_ns.tolist() == times[:3]
    assert (batch.end_ns, batch.inflight, batch.lag_ns, batch.delayed) == (123, 4, 5, 6)
    assert batch.backlog == 2
    assert batch.cpu_ns > 0
    assert batch.workers == (WorkerUse(batch.cpu_ns, None, len(times)),)


def test_a_report_starts_anew_after_the_one_before() -> None:
    sent: list[bytes] = []
    tally = Tally(sent.append, 1)
    tally.done.append(1)
    tally.latency.append(2)
    tally.failed("x")
    tally.send_lags.append(3)
    tally.lag_ns = tally.delayed = 9
    tally.report(1, 0)
    tally.report(2, 0)
    first, second = report(sent)
    assert (len(first.done_ns), dict(first.failures)) == (1, {"x": 1})
    assert (len(second.done_ns), dict(second.failures), second.lag_ns, second.delayed) == (0, {}, 0, 0)
    assert (len(first.send_lags_ns), len(second.send_lags_ns)) == (1, 0)
    assert second.cpu_ns >= first.cpu_ns


def test_messages_are_one_line_bounded_and_none_is_lost() -> None:
    sent: list[bytes] = []
    tally = Tally(sent.append, 1)
    for number in range(1000):
        tally.failed(f"error {number}\n  at " + "x" * 1000)
    tally.report(1, 0)
    (batch,) = report(sent)
    assert sum(batch.failures.values()) == 1000
    assert len(batch.failures) == MAX_MESSAGES + 1
    assert batch.failures["other failures"] == 1000 - MAX_MESSAGES
    assert all("\n" not in text and len(text) <= MESSAGE_LENGTH for text in batch.failures)


def test_a_frame_larger_than_the_pipe_is_written_whole() -> None:
    sent: list[bytes] = []
    tally = Tally(sent.append, 1)
    tally.done.extend(range(100_000))
    tally.latency.extend(range(100_000))
    tally.report(1, 0)
    (batch,) = report(sent)
    assert batch.done_ns.tolist() == list(range(100_000))


def test_a_torn_last_frame_ends_the_stream() -> None:
    sent: list[bytes] = []
    tally = Tally(sent.append, 1)
    tally.done.extend([1, 2])
    tally.latency.extend([3, 4])
    tally.report(1, 0)
    whole = sent[0]
    for size in range(1, len(whole)):
        *frames, last = received(write=whole + whole[:size])
        assert last is None
        assert len(frames) == 1


def test_the_end_of_an_order_is_a_frame_with_its_error() -> None:
    sent: list[bytes] = []
    Tally(sent.append, 3).end("OSError: no such host")
    (item, last) = received(write=sent[0])
    assert last is None
    assert item is not None
    assert item[0] == {"ended": True, "error": "OSError: no such host", "order": 3, "n": 0, "sent": 0}


def test_what_was_not_reported_yet_goes_before_the_end() -> None:
    sent: list[bytes] = []
    tally = Tally(sent.append, 1)
    tally.done.append(1)
    tally.latency.append(2)
    tally.failed("x")
    tally.end()
    (batch,) = report(sent[:1])
    assert (batch.done_ns.tolist(), dict(batch.failures)) == ([1], {"x": 1})
    (item, _) = received(write=sent[1])
    assert item is not None
    assert item[0]["ended"] is True


def test_the_wait_for_a_cpu_counts_from_the_orders_begin() -> None:
    waits = iter([1000, 1500, 1700])
    sent: list[bytes] = []
    tally = Tally(sent.append, 1, lambda: next(waits))
    tally.report(1, 0)
    tally.report(2, 0)
    assert [batch.workers[0].wait_ns for batch in report(sent)] == [500, 700]


def test_the_kernels_wait_never_falls() -> None:
    waited_ns = run_queue()
    first, second = waited_ns(), waited_ns()
    if first is None:
        pytest.skip("this kernel has no schedstat")
    assert second is not None
    assert 0 <= first <= second
