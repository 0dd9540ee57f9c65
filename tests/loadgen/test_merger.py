"""What several processes tell arrives as one stream: ordered, complete, and only up to when all of them have told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_analyzer.loadgen.merge import SILENCE_NS, Merger
from model_analyzer.ports import LoadBatch, Streamed, WorkerUse

MS = 1_000_000


def told(
    end_ms: float, done_ms: Iterable[float] = (), failures: dict[str, int] | None = None, **values: int
) -> LoadBatch:
    """A worker's report; a reply's latency is its time, so that a pair that is torn apart shows."""
    done = np.array([int(at * MS) for at in done_ms], np.int64)
    cpu_ns, replies = values.pop("cpu_ns", 0), values.pop("replies", len(done))
    use = WorkerUse(cpu_ns, values.pop("wait_ns", None), replies)
    return LoadBatch(int(end_ms * MS), done, done.copy(), failures or {}, cpu_ns, workers=(use,), **values)


def merged(merger: Merger, *reports: tuple[int, LoadBatch]) -> list[LoadBatch]:
    return [batch for worker, report in reports if (batch := merger.take(worker, report)) is not None]


def begun() -> Merger:
    """Of two workers that have told of their beginning."""
    merger = Merger(2)
    assert not merged(merger, (0, told(1)), (1, told(1)))
    return merger


def done_ms(batch: LoadBatch) -> list[float]:
    return (batch.done_ns / MS).tolist()


def test_one_workers_reports_pass_as_they_are() -> None:
    reports = [told(50, [10, 20], {"busy": 2}, lag_ns=3), told(100, [60], lag_ns=1)]
    found = merged(Merger(1), *((0, report) for report in reports))
    assert [done_ms(batch) for batch in found] == [[10, 20], [60]]
    assert [(batch.end_ns, dict(batch.failures), batch.lag_ns) for batch in found] == [
        (50 * MS, {"busy": 2}, 3),
        (100 * MS, {}, 1),
    ]


def test_a_batch_reaches_up_to_when_all_have_told_and_holds_the_rest_over() -> None:
    merger = begun()
    (first,) = merged(merger, (1, told(75, [5, 30, 60, 70], {"late": 1})), (0, told(50, [10, 40], {"early": 1})))
    assert (first.end_ns, done_ms(first)) == (50 * MS, [5, 10, 30, 40])
    assert first.failures == {"early": 1}, "failures count where their report falls"
    (second,) = merged(merger, (0, told(100, [80])), (1, told(125, [90, 110])))
    assert (second.end_ns, done_ms(second)) == (100 * MS, [60, 70, 80, 90])
    assert second.failures == {"late": 1}
    assert (second.latency_ns == second.done_ns).all()


def test_counts_are_added_up_and_lags_are_the_largest() -> None:
    (batch,) = merged(
        Merger(2),
        (
            0,
            told(
                50, [1], cpu_ns=10, wait_ns=3, lag_ns=5, send_lags_ns=np.array([1, 7]), delayed=1, inflight=4, backlog=2
            ),
        ),
        (1, told(50, [2, 3], cpu_ns=20, lag_ns=2, send_lags_ns=np.array([9]), delayed=3, inflight=3, backlog=1)),
    )
    assert (batch.cpu_ns, batch.lag_ns, batch.delayed, batch.inflight, batch.backlog) == (30, 5, 4, 7, 3)
    assert batch.send_lags_ns.tolist() == [1, 7, 9]
    assert batch.workers == (WorkerUse(10, 3, 1), WorkerUse(20, None, 2))


def test_batches_come_as_often_as_one_workers_reports() -> None:
    merger = Merger(4)
    reports = sorted((at + 10 * worker, worker) for at in range(50, 1050, 50) for worker in range(4))
    found = merged(merger, *((worker, told(at)) for at, worker in reports))
    ends = np.diff([batch.end_ns / MS for batch in found])
    assert len(found) in range(19, 21)
    assert ((ends >= 45) & (ends <= 60)).all()


def test_every_batch_tells_of_every_worker_even_where_one_begins_late() -> None:
    merger = Merger(2)
    late = (1, told(240, [60], cpu_ns=7))
    first, second = merged(merger, (0, told(50)), late, (0, told(100)), (0, told(240)), (0, told(290)), (1, told(290)))
    assert [len(batch.workers) for batch in (first, second)] == [2, 2]
    assert (first.end_ns, first.cpu_ns, done_ms(first)) == (240 * MS, 7, [60])


def test_what_is_left_comes_when_the_last_worker_has_ended() -> None:
    merger = begun()
    merged(merger, (0, told(50, [10])), (1, told(60, [55])))
    assert merger.take(0, told(70, [65], {"x": 1})) is None
    assert merger.ended(0) is None
    last = merger.ended(1)
    assert last is not None
    assert (last.end_ns, done_ms(last), dict(last.failures)) == (70 * MS, [55, 65], {"x": 1})


def test_a_worker_that_ended_holds_nobody_up() -> None:
    merger = Merger(2)
    merged(merger, (0, told(50)), (1, told(50)))
    merger.ended(0)
    (batch,) = merged(merger, (1, told(100, [80])))
    assert done_ms(batch) == [80]


@pytest.mark.parametrize("has_told", [True, False])
def test_a_worker_that_says_nothing_while_the_other_goes_on_is_found(has_told: bool) -> None:
    merger = Merger(2)
    if has_told:
        merged(merger, (1, told(40)))
    merged(merger, (0, told(50)))
    assert merger.silent() is None
    merged(merger, (0, told(51 + SILENCE_NS / MS)))
    assert merger.silent() == 1


TIMES = st.lists(st.integers(0, 500), max_size=30)


@given(st.lists(TIMES, min_size=1, max_size=5), st.randoms(use_true_random=False))
def test_nothing_is_lost_doubled_or_out_of_order(each: Sequence[list[int]], random: object) -> None:
    """Whatever the workers see and in whatever order their reports arrive."""
    merger, found = Merger(len(each)), []
    left = []
    for worker, times in enumerate(each):
        ends = [at + 3 * worker for at in range(50, 600, 50)]
        starts = [-1, *ends[:-1]]
        left.append(
            [
                told(end, sorted(time for time in times if start < time <= end), {"f": 1})
                for start, end in zip(starts, ends, strict=True)
            ]
        )
    while any(left):
        worker = random.choice([n for n, reports in enumerate(left) if reports])  # type: ignore[attr-defined]
        if (batch := merger.take(worker, left[worker].pop(0))) is not None:
            found.append(batch)
    found += [batch for worker in range(len(each)) if (batch := merger.ended(worker)) is not None]
    done = [time for batch in found for time in done_ms(batch)]
    assert done == sorted(time for times in each for time in times)
    assert sum(Counter(batch.failures)["f"] for batch in found) == 11 * len(each)
    assert all(time * MS <= batch.end_ns for batch in found for time in done_ms(batch))


def test_responses_are_cut_by_their_own_times_and_counts_stay_with_their_replies() -> None:
    def streamed(responses: list[int], first_ms: list[int], gap_ms: list[int]) -> Streamed:
        first, gap = np.array(first_ms, np.int64) * MS, np.array(gap_ms, np.int64) * MS
        return Streamed(np.array(responses, np.int64), first, first + 1, gap, gap + 2)

    merger = begun()
    ahead = replace(told(200, [90, 180]), streamed=streamed([3, 4], [70], [150]))
    behind = replace(told(100, [80]), streamed=streamed([5], [60], [61]))
    (first,) = merged(merger, (0, ahead), (1, behind))
    assert done_ms(first) == [80, 90]
    assert first.streamed is not None
    assert first.streamed.responses.tolist() == [5, 3]
    assert sorted(first.streamed.first_at_ns.tolist()) == [60 * MS, 70 * MS]
    assert sorted(first.streamed.first_ns.tolist()) == [60 * MS + 1, 70 * MS + 1]
    assert first.streamed.gap_at_ns.tolist() == [61 * MS]
    assert merger.ended(1) is None
    rest = merger.ended(0)
    assert rest is not None
    assert rest.streamed is not None
    assert (rest.streamed.responses.tolist(), rest.streamed.first_ns.tolist()) == ([4], [])
    assert rest.streamed.gap_ns.tolist() == [150 * MS + 2]
