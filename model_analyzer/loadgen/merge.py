"""The batches of several processes as one stream, as one process would have told it."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_analyzer.loadgen.tally import REPORT_EVERY_NS
from model_analyzer.ports import LoadBatch, Streamed

# What a batch has for each reply, in order of done_ns: cut, joined and put in order alike.
PER_REPLY = ("done_ns", "latency_ns")
# A worker reports no more often than every REPORT_EVERY_NS, each at a point of its own: together they would move the end
# in small steps, and the engine looks at windows of about that length.
EVERY_NS = 0.9 * REPORT_EVERY_NS
# A worker that says nothing while another goes on for so long hangs.
SILENCE_NS = 10_000_000_000
_FOR_EVER = 2**63 - 1


class Merger:
    """Puts the batches of `workers` processes together.

    A merged batch reaches up to `end_ns`, the time up to when ALL workers have told. Completions after it are held over
    for the next one; so are failures, sends, lags and CPU, which count where their report falls. Counts are added up,
    lags are the largest.
    """

    def __init__(self, workers: int) -> None:
        self._waiting: list[deque[LoadBatch]] = [deque() for _ in range(workers)]
        self._told_ns = [0] * workers
        self._latest: list[LoadBatch | None] = [None] * workers
        self._end_ns = self._first_ns = 0

    def take(self, worker: int, batch: LoadBatch) -> LoadBatch | None:
        """Add what a worker told; the next merged batch, if that completes one."""
        if len(self._waiting) == 1 and not self._waiting[0] and batch.end_ns - self._end_ns >= EVERY_NS:
            # The only worker's: it is as it should be. To put it together anew would be a tenth of what a slice costs us.
            self._latest[0], self._end_ns = batch, batch.end_ns
            self._told_ns[0], self._first_ns = batch.end_ns, self._first_ns or batch.end_ns
            return batch
        self._waiting[worker].append(batch)
        self._told_ns[worker] = batch.end_ns
        self._first_ns = self._first_ns or batch.end_ns
        end_ns = min(self._told_ns)
        return self._merged(end_ns) if end_ns - self._end_ns >= EVERY_NS and self._all_told_by(end_ns) else None

    def _all_told_by(self, end_ns: int) -> bool:
        """Whether a whole report of every worker is there: without one its CPU and its requests in flight are not known."""
        return all(
            latest is not None or (waiting and waiting[0].end_ns <= end_ns)
            for latest, waiting in zip(self._latest, self._waiting, strict=True)
        )

    def ended(self, worker: int) -> LoadBatch | None:
        """The worker tells no more; with the last of them all that is left."""
        self._told_ns[worker] = _FOR_EVER
        if min(self._told_ns) < _FOR_EVER or not any(self._waiting):
            return None
        return self._merged(max(waiting[-1].end_ns for waiting in self._waiting if waiting))

    def silent(self) -> int | None:
        """The worker that has told nothing for long while another one did; None where there is none."""
        told = [time_ns or self._first_ns for time_ns in self._told_ns]
        last_ns = max(time_ns for time_ns in told if time_ns != _FOR_EVER)
        return told.index(min(told)) if last_ns - min(told) > SILENCE_NS else None

    def _merged(self, end_ns: int) -> LoadBatch:
        whole: list[LoadBatch] = []
        pieces: list[LoadBatch] = []
        for worker, waiting in enumerate(self._waiting):
            while waiting and waiting[0].end_ns <= end_ns:
                self._latest[worker] = waiting[0]
                whole.append(waiting.popleft())
            if waiting:
                piece, waiting[0] = _cut(waiting[0], end_ns)
                pieces.append(piece)
        self._end_ns = end_ns
        latest = [batch for batch in self._latest if batch is not None]
        failures: Counter[str] = Counter()
        for batch in whole:
            failures.update(batch.failures)
        return LoadBatch(
            end_ns=end_ns,
            failures=dict(failures),
            cpu_ns=sum(batch.cpu_ns for batch in latest),
            lag_ns=max((batch.lag_ns for batch in whole), default=0),
            send_lags_ns=np.concatenate([np.empty(0, np.int64), *(batch.send_lags_ns for batch in whole)]),
            delayed=sum(batch.delayed for batch in whole),
            inflight=sum(batch.inflight for batch in latest),
            backlog=sum(batch.backlog for batch in latest),
            workers=tuple(use for batch in latest for use in batch.workers),
            **_joined([*whole, *pieces]),
        )


def _cut(batch: LoadBatch, end_ns: int) -> tuple[LoadBatch, LoadBatch]:
    """The replies of a batch up to `end_ns`, and the batch with those after it."""
    early = batch.done_ns <= end_ns
    columns = {name: getattr(batch, name) for name in PER_REPLY}
    streams = (None, None) if batch.streamed is None else _cut_streams(batch.streamed, early, end_ns)
    before = replace(batch, **{name: column[early] for name, column in columns.items()}, streamed=streams[0])
    after = replace(batch, **{name: column[~early] for name, column in columns.items()}, streamed=streams[1])
    return before, after


def _cut_streams(streamed: Streamed, early: NDArray[np.bool_], end_ns: int) -> tuple[Streamed, Streamed]:
    """The responses up to `end_ns`, and those after it. early: which of the replies are."""
    first, gap = streamed.first_at_ns <= end_ns, streamed.gap_at_ns <= end_ns
    before, after = (
        Streamed(
            streamed.responses[replies],
            streamed.first_at_ns[firsts],
            streamed.first_ns[firsts],
            streamed.gap_at_ns[gaps],
            streamed.gap_ns[gaps],
        )
        for replies, firsts, gaps in ((early, first, gap), (~early, ~first, ~gap))
    )
    return before, after


def _joined(batches: Sequence[LoadBatch]) -> dict[str, Any]:
    """Every reply of these batches, in order of done_ns, and every response of their streams."""
    columns = {name: np.concatenate([getattr(batch, name) for batch in batches]) for name in PER_REPLY}
    order = np.argsort(columns["done_ns"], kind="stable")
    streams = [batch.streamed for batch in batches if batch.streamed is not None]
    return {
        **{name: column[order] for name, column in columns.items()},
        "streamed": _joined_streams(streams, order) if streams else None,
    }


def _joined_streams(streams: Sequence[Streamed], order: NDArray[np.int64]) -> Streamed:
    """order: of the replies, whose numbers of responses are put in it."""
    whole = {each.name: np.concatenate([getattr(one, each.name) for one in streams]) for each in fields(Streamed)}
    return Streamed(**{**whole, "responses": whole["responses"][order]})
