"""Drive one slice: warm up, measure between two scrapes of the server's counters, stop."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from model_analyzer.core.client_limit import is_lagging, more_workers
from model_analyzer.core.forecast import Forecast
from model_analyzer.core.gpus import GpuChoice, select_gpus
from model_analyzer.core.histogram import Histogram
from model_analyzer.core.load import Load, LoadOrder
from model_analyzer.core.measurement import Slice, WorkerShare
from model_analyzer.core.plan import Phase
from model_analyzer.core.stats import SliceStats, shared_edges, window_counts
from model_analyzer.core.steal import CpuTime, cpu_between
from model_analyzer.core.stopping import fitted, refresh_patience_s, slice_seconds, whole_rounds
from model_analyzer.core.streams import StreamStats
from model_analyzer.core.telemetry import Page, cadences, counter_deltas, preferred, refreshed_at, summarise
from model_analyzer.core.warmup import start_offset, warmed_up
from model_analyzer.engine.recorder import Recorder
from model_analyzer.ports import Clock, Live, LoadBatch, LoadGenerator, Progress, Streamed

WINDOW_NS = 50_000_000
WARMUP_MAX_S = 3.0
# A model may be made ready by its first request: what it is like shows after it.
AFTER_COLD_S = 0.5
# Every source is scraped at both ends of a slice: what it refreshed in between shows in the difference, and only there.
# A slow source is waited for so long.
EDGE_S = 0.05
# The source of the server's own counters; a slice begins and ends with a scrape of it.
COUNTERS = "triton"
# Give up on a load that has brought failures only, for this long and this often.
HOPELESS_S = 1.0
HOPELESS_FAILURES = 5
# With so many replies for each place of a closed loop, a request more or less at the ends makes no difference.
WHOLE_REPLIES = 100
# To wait so long for what is in flight is worth a word.
DRAIN_SAID_S = 2.0
# Batches come about every 50 ms; a person reads no faster than this.
LIVE_EVERY = 5


@dataclass(frozen=True, slots=True)
class SlicePlan:
    """One slice to drive.

    measure_s: seconds between the scrapes, more where the model is found to be slow. patience_s: give up without a
    single reply after it. warmup_s: warm up for at least so long. before_s: measured seconds of the phase in this repeat.
    most_workers: up to how many processes of the load generator may be tried until it is not the limit; the order says
    with how many to begin. requests: end as soon as so many are measured. refreshes: go on until the GPU telemetry has
    refreshed so often in the slice, as long as it does: of an exporter that refreshes every 30 s a short slice sees nothing.
    """

    phase: Phase
    order: LoadOrder
    round: int
    measure_s: float
    patience_s: float
    gpus: GpuChoice
    warmup_s: float = 0.0
    repeat: int = 0
    before_s: float = 0.0
    most_workers: int = 1
    requests: int | None = None
    refreshes: int = 0


@dataclass(slots=True)
class Seen:
    """What has come from the load generator so far."""

    done: list[NDArray[np.int64]] = field(default_factory=list)
    latency: list[NDArray[np.int64]] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)
    streamed: list[Streamed] = field(default_factory=list)
    last: LoadBatch | None = None
    send_lags: list[NDArray[np.int64]] = field(default_factory=list)
    delayed: int = 0
    lag_ns: int = 0
    backlog: int = 0
    inflight: int = 0
    replies: int = 0
    batches: int = 0

    def take(self, batch: LoadBatch, until_ns: int | None = None) -> None:
        """Add a batch.

        Failures and sends carry no time: those of a batch count where its report falls. One beyond `until_ns` brings
        none, so that of the two reports that overlap the ends of a slice one counts whole and one not at all.
        """
        self.done.append(batch.done_ns)
        self.latency.append(batch.latency_ns)
        if batch.streamed is not None:
            self.streamed.append(batch.streamed)
        if until_ns is None or batch.end_ns <= until_ns:
            self.failures.update(batch.failures)
            self.send_lags.append(batch.send_lags_ns)
            self.delayed += batch.delayed
        self.lag_ns = max(self.lag_ns, batch.lag_ns)
        self.backlog += batch.backlog
        self.inflight += batch.inflight
        self.replies += len(batch.done_ns)
        self.batches += 1
        self.last = batch

    @property
    def now_ns(self) -> int:
        """Up to when completions are known."""
        return self.last.end_ns if self.last else 0

    @property
    def latency_s(self) -> float | None:
        """Mean latency of the replies; None without any."""
        return float(np.concatenate(self.latency).mean()) / 1e9 if self.replies else None

    @property
    def cpu_ns(self) -> int:
        """CPU of the load generator since the order began."""
        return self.last.cpu_ns if self.last else 0

    @property
    def failed(self) -> int:
        """Failures so far."""
        return sum(self.failures.values())


class SliceFailed(Exception):  # noqa: N818 -- an outcome, handled one level up
    """The slice brought no figure; the text is the reason for the phase's row."""


def drive_slice(
    plan: SlicePlan, generator: LoadGenerator, recorder: Recorder, clock: Clock, progress: Progress
) -> Slice:
    """Warm up, measure, reduce. Raises SliceFailed where no reply can be had, LoadGeneratorError where the client broke."""
    while True:
        found = _drive(plan, generator, recorder, clock, progress)
        if isinstance(found, Slice):
            return found
        plan = replace(plan, order=replace(plan.order, workers=found))


def _drive(
    plan: SlicePlan, generator: LoadGenerator, recorder: Recorder, clock: Clock, progress: Progress
) -> Slice | int:
    """The slice; where the warm-up shows that the load generator is the limit, with how many processes to drive it instead."""
    started_at = clock.utc().isoformat(timespec="milliseconds")
    began_ns = clock.now_ns()
    with generator.run(plan.order) as batches:
        warm, notes, enough = _warm_up(plan, batches, began_ns, progress)
        if enough > plan.order.workers:
            return enough
        period_s = _period_s(plan.order.load, warm)
        clock.sleep(start_offset(plan.round) * min(period_s, WARMUP_MAX_S))
        recorder.nudge(EDGE_S, but=COUNTERS)
        before, cpu_before = recorder.scrape_now(COUNTERS), clock.cpu_time()
        seconds = slice_seconds(period_s, plan.measure_s, plan.patience_s)
        if plan.requests is None:
            seconds = fitted(seconds, plan.patience_s - plan.before_s)
        seconds = whole_rounds(seconds, sum(plan.order.intervals_ns) / 1e9, plan.patience_s)
        end_ns = before.time_ns + int(seconds * 1e9)
        seen, end_ns = _measure(plan, batches, (before.time_ns, end_ns), progress)
        if plan.refreshes:
            notes = (*notes, *_go_on(plan, batches, seen, before.time_ns, recorder, progress))
            end_ns = max(end_ns, seen.now_ns)
        # To the end and not to the next report: a slice must not end at a fixed point of the loop's period.
        clock.sleep(max(0.0, (end_ns - clock.now_ns()) / 1e9 - EDGE_S))
        recorder.nudge(EDGE_S, but=COUNTERS)
        clock.sleep(max(0, end_ns - clock.now_ns()) / 1e9)
        after, cpu_after = recorder.scrape_now(COUNTERS), clock.cpu_time()
        _receive_until(batches, seen, after.time_ns)
        edges = _edges(plan, batches, seen, (before.time_ns, after.time_ns))
        _say_that_it_drains(plan, seen, (after.time_ns - before.time_ns) / 1e9, progress)
    timing = _Timing(started_at, began_ns, cpu_between(cpu_before, cpu_after))
    piece = _reduce(plan, seen, warm, (before, after), recorder, timing, notes, edges)
    return replace(piece, unanswered=_unanswered(plan, batches, warm.replies + seen.replies))


def _unanswered(plan: SlicePlan, batches: Iterator[LoadBatch], replies: int) -> int:
    """How many requests were still in flight when the load generator waited no longer.

    Streams are not waited for; where nothing is ever answered, the phase fails by that.
    """
    last, streamed = None, plan.order.requests.call in ("stream_infer", "generate_stream")
    for batch in batches:
        last = batch
        replies += len(batch.done_ns)
    return last.inflight if last is not None and replies and not streamed else 0


def _say_that_it_drains(plan: SlicePlan, seen: Seen, measured_s: float, progress: Progress) -> None:
    """The load generator now waits for what is in flight; a queue may take the server long."""
    inflight = seen.last.inflight if seen.last else 0
    if inflight * measured_s > DRAIN_SAID_S * seen.replies:
        progress.live(plan.phase, Live(f"waiting for {inflight} replies", None, None, measured_s, plan.before_s))


def _period_s(load: Load, warm: Seen) -> float:
    """After how many seconds the load repeats itself: a request's latency.

    Of an open loop the time between two requests; where the server does not keep up, which says nothing of latency, between
    two replies.
    """
    if load.kind == "concurrency":
        return warm.latency_s or 0.0
    done_ns = np.concatenate(warm.done)
    apart_s = float(np.ptp(done_ns)) / 1e9 / (len(done_ns) - 1) if len(done_ns) > 1 else 0.0
    return max(apart_s, 1 / load.value)


@dataclass(frozen=True, slots=True)
class _Timing:
    started_at: str
    began_ns: int
    cpu_time: CpuTime | None


def _reduce(
    plan: SlicePlan,
    seen: Seen,
    warm: Seen,
    scrapes: tuple[Page, Page],
    recorder: Recorder,
    timing: _Timing,
    notes: tuple[str, ...],
    edges: float,
) -> Slice:
    before, after = scrapes
    start_ns, end_ns = before.time_ns, after.time_ns
    pages = recorder.pages()
    chosen = select_gpus(pages, plan.gpus)
    server, server_problem = counter_deltas(before, after, plan.phase.variant.model)
    return Slice(
        phase_id=plan.phase.id,
        round=plan.round,
        started_at=timing.started_at,
        warmup_s=(start_ns - timing.began_ns) / 1e9,
        stats=_stats(seen, start_ns, end_ns, edges),
        failures=dict(seen.failures),
        server=server,
        server_problem=server_problem,
        client_cpu_ratio=(seen.cpu_ns - warm.cpu_ns) / max(seen.now_ns - warm.now_ns, 1),
        client_lag_s=seen.lag_ns / 1e9,
        send_lag=Histogram.of(np.concatenate(seen.send_lags)) if plan.order.load.kind == "request_rate" else None,
        delayed=seen.delayed,
        client_backlog_ratio=seen.backlog / max(seen.inflight, 1),
        workers=_shares(warm.last, seen.last),
        gpus=chosen.gpus,
        telemetry=summarise(pages, start_ns, end_ns, chosen.gpus),
        cadences=cadences(pages),
        problems=chosen.problems(recorder.problems()),
        notes=(*notes, *chosen.of_figures),
        repeat=plan.repeat,
        scrapes_s=(before.took_ns + after.took_ns) / 1e9,
        cpu_time=timing.cpu_time,
    )


def _shares(before: LoadBatch | None, after: LoadBatch | None) -> tuple[WorkerShare, ...]:
    """What each process of the load generator used and missed between two reports."""
    if before is None or after is None or after.end_ns <= before.end_ns:
        return ()
    elapsed_ns = after.end_ns - before.end_ns
    return tuple(
        WorkerShare(
            (now.cpu_ns - then.cpu_ns) / elapsed_ns,
            None if now.wait_ns is None or then.wait_ns is None else (now.wait_ns - then.wait_ns) / elapsed_ns,
        )
        for then, now in zip(before.workers, after.workers, strict=True)
    )


def _warm_up(
    plan: SlicePlan, batches: Iterator[LoadBatch], began_ns: int, progress: Progress
) -> tuple[Seen, tuple[str, ...], int]:
    """Receive until consecutive windows agree, or the cap is reached with at least one reply; after the load's ramp.

    After first replies that came later than the cap it goes on for a moment, and takes what came then for the model's.

    With what was seen of the whole load, and notes, comes how many processes of the load generator it takes.
    """
    seen, warm, cold = Seen(), Seen(), Seen()
    counts: list[int] = []
    reports: list[LoadBatch] = []
    most_s = WARMUP_MAX_S
    ramp_s = plan.order.load.ramp_s
    full_ns = began_ns
    inflight = int(plan.order.load.value) if plan.order.load.kind == "concurrency" else 1
    for batch in batches:
        if ramp_s and not seen.batches:
            # The ramp began with the order, less than a report before its first.
            full_ns = batch.end_ns + int(ramp_s * 1e9)
        seen.take(batch)
        # However short the phase: a model's first reply may be slow, and a busy host is.
        patience_s = max(plan.patience_s, plan.order.timeout_s, WARMUP_MAX_S)
        _give_up_if_hopeless(seen, (batch.end_ns - began_ns) / 1e9, patience_s + ramp_s)
        elapsed_s = (batch.end_ns - full_ns) / 1e9
        if elapsed_s < 0:
            progress.live(plan.phase, Live("ramp", None, None, 0.0, plan.before_s))
            continue
        warm.take(batch)
        counts.append(len(batch.done_ns))
        reports.append(batch)
        if elapsed_s >= min(plan.warmup_s, WARMUP_MAX_S) and warmed_up(counts, inflight):
            return warm, (), _enough_workers(plan, reports, warm)
        if seen.replies and elapsed_s > most_s:
            if seen.replies == len(batch.done_ns):
                cold, warm, most_s = warm, Seen(), elapsed_s + AFTER_COLD_S
                continue
            warm = warm if warm.replies else cold
            notes = (f"warm-up had not settled after {elapsed_s:.1f} s",) if seen.replies > inflight else ()
            return warm, notes, _enough_workers(plan, reports, warm)
        progress.live(plan.phase, Live("warm-up", None, None, 0.0, plan.before_s))
    raise SliceFailed("the load generator ended early")


def _enough_workers(plan: SlicePlan, reports: Sequence[LoadBatch], seen: Seen) -> int:
    """By the second half of the warm-up: before it connections are made and replies are seen for the first time."""
    half = len(reports) // 2
    late = reports[half:]
    lagging = sum(is_lagging(batch.lag_ns / 1e9, seen.latency_s) for batch in late) > len(late) / 2
    shares = _shares(reports[max(half - 1, 0)], reports[-1])
    return more_workers(plan.order.workers, plan.most_workers, shares, lagging)


def _give_up_if_hopeless(seen: Seen, elapsed_s: float, patience_s: float) -> None:
    if seen.replies:
        return
    if seen.failed >= HOPELESS_FAILURES and elapsed_s >= HOPELESS_S:
        message, count = seen.failures.most_common(1)[0]
        raise SliceFailed(f"every request failed ({seen.failed} in {elapsed_s:.1f} s): {message} ({count}x)")
    if elapsed_s >= patience_s:
        why = f"; {seen.failures.most_common(1)[0][0]}" if seen.failures else ""
        raise SliceFailed(f"no reply within {patience_s:g} s{why}")


def _measure(
    plan: SlicePlan, batches: Iterator[LoadBatch], span_ns: tuple[int, int], progress: Progress
) -> tuple[Seen, int]:
    """Receive what falls between two times, up to the last report before the end; and the end, which a count may bring forward."""
    seen = Seen()
    start_ns, end_ns = span_ns
    inside = 0
    for batch in batches:
        if batch.end_ns <= start_ns:
            continue
        seen.take(batch)
        measured_s = (batch.end_ns - start_ns) / 1e9
        _give_up_if_hopeless(seen, measured_s, float("inf"))
        if seen.batches % LIVE_EVERY == 0:
            progress.live(plan.phase, _live(seen, plan, measured_s))
        inside += int((batch.done_ns >= start_ns).sum()) + sum(batch.failures.values())
        if plan.requests is not None and inside >= plan.requests:
            return seen, batch.end_ns
        if batch.end_ns + WINDOW_NS >= end_ns:
            break
    return seen, end_ns


def _go_on(
    plan: SlicePlan, batches: Iterator[LoadBatch], seen: Seen, start_ns: int, recorder: Recorder, progress: Progress
) -> tuple[str, ...]:
    """Receive until the GPU telemetry has refreshed often enough, or does not any more; then a note that says so."""
    while True:
        recorder.nudge(EDGE_S)
        pages = recorder.pages()
        times = refreshed_at(pages, start_ns, select_gpus(pages, plan.gpus).gpus)
        if len(times) >= plan.refreshes:
            return ()
        last_ns = max([start_ns, *times])
        waited_s = (seen.now_ns - last_ns) / 1e9
        cadence_s = preferred(cadences(pages))
        patience_s = refresh_patience_s(cadence_s)
        if waited_s >= patience_s:
            return (
                f"GPU telemetry refreshed {len(times)} times of {plan.refreshes} and then not for {waited_s:.0f} s: not"
                " waited for any longer",
            )
        known_ns = seen.now_ns
        for batch in islice(batches, LIVE_EVERY):
            seen.take(batch)
        if seen.now_ns == known_ns:
            raise SliceFailed("the load generator ended early")
        told = _live(seen, plan, (seen.now_ns - start_ns) / 1e9)
        if cadence_s is not None:
            waits_s = (last_ns - start_ns) / 1e9 + (plan.refreshes - len(times)) * cadence_s
            told = replace(told, forecast=Forecast(plan.before_s, max(waits_s, told.measured_s)))
        progress.live(plan.phase, told)


def _live(seen: Seen, plan: SlicePlan, measured_s: float) -> Live:
    if measured_s <= 0 or not seen.replies:
        return Live("measuring", None, None, max(measured_s, 0.0), plan.before_s)
    p99_ms = float(np.percentile(np.concatenate(seen.latency), 99)) / 1e6
    throughput = seen.replies * plan.order.requests.inferences / measured_s
    return Live("measuring", throughput, p99_ms, measured_s, plan.before_s)


def _receive_until(batches: Iterator[LoadBatch], seen: Seen, time_ns: int) -> None:
    """Take batches until they reach `time_ns`, so that every completion before it is known."""
    while seen.now_ns < time_ns:
        batch = next(batches, None)
        if batch is None:
            return
        seen.take(batch, time_ns)


def _edges(plan: SlicePlan, batches: Iterator[LoadBatch], seen: Seen, span_ns: tuple[int, int]) -> float:
    """What the requests across the ends of a slice add to its count, where that is worth knowing and can be known.

    For it those in flight at the end are waited for, no longer than the slowest took, nor than the slice. A slice that ends with a count, one with
    failures, and an open loop, whose count is that of its schedule, stay with whole requests.
    """
    load = plan.order.load
    if load.kind != "concurrency" or plan.requests is not None or seen.failures:
        return 0.0
    while True:
        done, latency = np.concatenate(seen.done), np.concatenate(seen.latency)
        inside = int(((done >= span_ns[0]) & (done < span_ns[1])).sum())
        if not inside or inside >= WHOLE_REPLIES * load.value:
            return 0.0
        edges = shared_edges(done, latency, span_ns, int(load.value))
        patience_ns = min(int(latency.max()), span_ns[1] - span_ns[0])
        if edges is not None or seen.now_ns >= span_ns[1] + patience_ns:
            return edges or 0.0
        batch = next(batches, None)
        if batch is None:
            return 0.0
        seen.take(batch, span_ns[1])


def _stats(seen: Seen, start_ns: int, end_ns: int, edges: float = 0.0) -> SliceStats:
    done, latency = np.concatenate(seen.done), np.concatenate(seen.latency)
    inside = (done >= start_ns) & (done < end_ns)
    stream = _stream_stats(seen.streamed, latency[inside], inside, (start_ns, end_ns)) if seen.streamed else None
    return SliceStats.of(done[inside], latency[inside], start_ns, end_ns, WINDOW_NS, stream, edges)


def _stream_stats(
    streamed: list[Streamed], latency_ns: NDArray[np.int64], inside: NDArray[np.bool_], span_ns: tuple[int, int]
) -> StreamStats:
    """A response belongs to the slice in which it came, as a reply does, whichever its stream is."""

    def within(
        at_ns: list[NDArray[np.int64]], waits_ns: list[NDArray[np.int64]]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        at, waits = np.concatenate(at_ns), np.concatenate(waits_ns)
        came = (at >= span_ns[0]) & (at < span_ns[1])
        return at[came], waits[came]

    first_at_ns, first_ns = within([each.first_at_ns for each in streamed], [each.first_ns for each in streamed])
    gap_at_ns, gap_ns = within([each.gap_at_ns for each in streamed], [each.gap_ns for each in streamed])
    return StreamStats.of(
        first_ns,
        gap_ns,
        np.concatenate([each.responses for each in streamed])[inside],
        latency_ns,
        window_counts(np.concatenate([first_at_ns, gap_at_ns]), *span_ns, WINDOW_NS),
    )
