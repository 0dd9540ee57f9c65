"""Measure the phases of one loaded variant: slices in rounds, ascending, until each phase's rule is met."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from model_analyzer.core.forecast import forecast, worth_a_look
from model_analyzer.core.gpus import GpuChoice
from model_analyzer.core.histogram import Histogram
from model_analyzer.core.load import Load, LoadOrder, RequestSet, Tls, call_of
from model_analyzer.core.measurement import Environment, Measurement, Slice
from model_analyzer.core.open_loop import is_behind, most_inflight
from model_analyzer.core.plan import Group, Phase
from model_analyzer.core.reduce import failed, gpu_refreshes, reduce_phase, skipped
from model_analyzer.core.repeats import by_repeat, judge_repeats
from model_analyzer.core.stopping import StopRule, Verdict, judge, may_be_done, requests_left
from model_analyzer.core.variant import ModelInfo, ServerInfo, Variant
from model_analyzer.core.warmup import least_warmup_s
from model_analyzer.engine.recorder import Recorder
from model_analyzer.engine.slice import SliceFailed, SlicePlan, drive_slice
from model_analyzer.errors import InputError, LoadGeneratorError, ModelError, ServerError, ServerLostError
from model_analyzer.ports import Clock, Encoder, GpuClaims, Live, LoadGenerator, Outputs, Progress, Server, Store

# A phase whose requests fail more often than this has no figures worth the name.
MAX_FAILURE_RATIO = 0.01
# No two slices of a phase have one seed.
SEEDS_A_REPEAT = 1_000_003


@dataclass(frozen=True, slots=True)
class Settings:
    """How a run measures; from the job spec.

    workers: processes of the load generator; None: as many as are needed, up to `cpus`, the CPUs that we may use.
    """

    rule: StopRule
    slice_s: float
    request_timeout_s: float
    min_gpu_samples: int
    tls: Mapping[str, Tls | None]  # model name -> TLS
    gpus: GpuChoice
    baseline_s: float
    workers: int | None = None
    cpus: int = 1
    request_counts: Mapping[str, int] = field(default_factory=dict)  # model name -> requests a phase measures
    intervals_ns: Mapping[str, tuple[int, ...]] = field(default_factory=dict)  # Load.intervals -> them


@dataclass(frozen=True, slots=True)
class Parts:
    """The ports a run works with."""

    server: Server
    generator: LoadGenerator
    encoder: Encoder
    watch: Callable[[ServerInfo], Recorder]
    store: Store
    outputs: Outputs
    progress: Progress
    clock: Clock
    claims: GpuClaims | None = None  # None: no other shard is about


@dataclass(slots=True)
class Running:
    """A phase being measured. earlier: slices of its whole repeats; slices: those of the one that runs.

    judged: the last verdict, and on how many slices.
    """

    phase: Phase
    requests: RequestSet
    earlier: list[Slice] = field(default_factory=list)
    slices: list[Slice] = field(default_factory=list)
    gave_up: bool = False
    judged: tuple[int, Verdict] | None = None

    @property
    def latency(self) -> Histogram:
        """Every latency of this repeat so far."""
        return Histogram.merge(piece.stats.latency for piece in self.slices)


class ServerDied(Exception):  # noqa: N818 -- handled by the run loop, which restarts the server
    """The server stopped answering, or lost the model; `left` are the phases that can still be measured.

    suspect: the id of the phase, or the name of the variant, in whose measurement or load it died for the first time.
    It may have been killed by somebody, so that is tried once more.
    """

    def __init__(self, reason: str, left: Sequence[Phase], suspect: str | None = None) -> None:
        super().__init__(reason)
        self.left = tuple(left)
        self.suspect = suspect


class GroupDriver:
    """Drives one group on a running server.

    environment: where a phase was measured, asked when it is final: the first scrape, which names the GPUs, may come
    after the driver is made. done: receives each measurement as soon as it is final.
    suspects: phases and variants during which the server has died before: if it does again, they fail.
    """

    def __init__(
        self,
        parts: Parts,
        settings: Settings,
        server: ServerInfo,
        recorder: Recorder,
        environment: Callable[[], Environment],
        done: Callable[[Measurement], None],
        suspects: Collection[str] = (),
    ) -> None:
        self._parts = parts
        self._settings = settings
        self._server = server
        self._recorder = recorder
        self._environment = environment
        self._done = done
        self._suspects = suspects
        self._repeat = 0

    def measure(self, group: Group) -> None:
        """Load the variant, measure every phase, unload. Raises ServerDied, ExportPathError, Interrupted."""
        self._repeat = group.repeat
        self._parts.progress.say(f"loading {group.variant.name}{self._which()}")
        try:
            info = self._parts.server.load(group.variant)
        except ModelError as error:
            self._fail_all(group, error)
            return
        except ServerError as error:
            raise ServerDied(str(error), group.phases) from error
        try:
            self._rounds(info, self._prepare(group.phases, info))
        except BaseException:
            self._parts.encoder.release(idle=False)
            raise
        self._parts.encoder.release()
        # Not on the way out of an error: then the server is stopped, which also restores what was touched, and no
        # interruption waits for a slow model to unload first.
        self._unload(group.variant)

    def _unload(self, variant: Variant) -> None:
        try:
            self._parts.server.unload(variant)
        except ModelError as error:
            if self._server.ours:
                # A dead Python stub is never gone (seen with 2.51); the next variant is to find its memory free.
                raise ServerDied(str(error), ()) from error
            self._parts.progress.say(str(error))

    def _fail_all(self, group: Group, error: ModelError) -> None:
        """Raises ServerDied where the server is gone: the first time with nothing failed yet."""
        problem, reason = self._parts.server.problem(), str(error)
        name = group.variant.name
        if (problem is not None or isinstance(error, ServerLostError)) and name not in self._suspects:
            raise ServerDied(problem or reason, group.phases, suspect=name)
        if problem is not None:
            # A model that takes the server down with it at load fails its own phases, not the rest of the run.
            reason = f"{reason}; the server died: {problem}"
        for phase in group.phases:
            self._finish(self._failed(phase, reason))
        if problem is not None:
            raise ServerDied(problem, ())

    def _prepare(self, phases: Sequence[Phase], info: ModelInfo) -> list[Running]:
        """Encode requests once per batch size; a phase that cannot be sent is finished at once.

        Slices that an interrupted run left in the store count.
        """
        running: list[Running] = []
        encoded: dict[int, RequestSet | InputError] = {}
        for n, phase in enumerate(phases):
            reason = _unfit(phase, info)
            if reason is not None:
                self._finish(_described(skipped(phase, reason), info))
                continue
            if phase.batch_size not in encoded:
                try:
                    encoded[phase.batch_size] = self._encode(phase, info)
                except ServerError as error:
                    raise ServerDied(str(error), [*(item.phase for item in running), *phases[n:]]) from error
            requests = encoded[phase.batch_size]
            if isinstance(requests, InputError):
                self._finish(_described(self._failed(phase, str(requests)), info))
            else:
                slices = [piece for piece in self._parts.store.slices_of(phase.id) if piece.repeat == self._repeat]
                running.append(Running(phase, requests, self._earlier(phase), slices))
        return running

    def _earlier(self, phase: Phase) -> list[Slice]:
        """The slices of the phase's whole repeats."""
        return [piece for piece in self._parts.store.slices_of(phase.id) if piece.repeat < self._repeat]

    def _failed(self, phase: Phase, reason: str) -> Measurement:
        """A phase that brought no figures, or none of this repeat: then those of the repeats before stay in its row."""
        earlier = self._earlier(phase)
        if not earlier:
            return failed(phase, reason)
        repeats = [[piece.stats for piece in each] for each in by_repeat(earlier)]
        measurement = reduce_phase(phase, earlier, judge_repeats(repeats, self._rule(phase)), phase.batch_size)
        notes = (f"repeat {self._repeat + 1} failed: {reason}", *measurement.notes)
        return replace(measurement, status="failed", notes=notes)

    def _which(self) -> str:
        return f", repeat {self._repeat + 1}" if self._repeat else ""

    def _encode(self, phase: Phase, info: ModelInfo) -> RequestSet | InputError:
        try:
            return self._parts.encoder.encode(
                info,
                phase.batch_size,
                phase.source,
                phase.protocol,
                self._address(phase),
                call_of(phase.call, phase.protocol, info.decoupled),
            )
        except InputError as error:
            return error

    def _rounds(self, info: ModelInfo, running: list[Running]) -> None:
        """One slice of each open phase a round, ascending.

        The first round decides the memory figures: a larger load grows the
        allocator's high-water mark for good. Coming back in later rounds
        spreads a phase over time, because throughput drifts between seconds.
        """
        while running:
            # The phase with the fewest slices sets the round, so that a resumed group catches up in order first.
            number = min(len(item.slices) for item in running)
            for item in [item for item in running if len(item.slices) == number]:
                measurement = self._advance(item, info, number, running)
                if measurement is not None:
                    running.remove(item)
                    self._finish(measurement)

    def _advance(self, item: Running, info: ModelInfo, number: int, running: Sequence[Running]) -> Measurement | None:
        """Add a slice to a phase; its measurement when that was the last one it needs."""
        if number == 0 or not self._judge(item).done:
            piece = self._drive(item, number)
            if isinstance(piece, str) or piece.failures:
                self._see_to_the_server(item, info, running)
            if isinstance(piece, str):
                return self._cut_short(item, info, piece)
            self._parts.store.add_slice(piece)
            item.slices.append(piece)
        verdict = self._judge(item)
        if verdict.done:
            return self._reduce(item, info, verdict)
        self._foretell(item, verdict)
        return None

    def _cut_short(self, item: Running, info: ModelInfo, reason: str) -> Measurement:
        """The row of a phase whose next slice brought nothing: with the figures of those before it."""
        if not item.slices or item.earlier:
            return _described(self._failed(item.phase, reason), info)
        found = self._reduce(
            item, info, judge_repeats([[piece.stats for piece in item.slices]], self._rule(item.phase))
        )
        note = f"slice {len(item.slices) + 1} brought nothing, the figures are of those before it: {reason}"
        if is_behind(item.phase.load, item.slices):
            return replace(found, notes=(note, *found.notes))
        return replace(found, status="failed", notes=(note, *found.notes), repeats=0)

    def _foretell(self, item: Running, verdict: Verdict) -> None:
        """Tell how long the phase will take: of all that is told, the time left knows it best."""
        refreshes = 0 if item.gave_up else self._settings.min_gpu_samples
        expected = forecast(item.slices, self._rule(item.phase), verdict, refreshes)
        measured_s = sum(piece.seconds for piece in item.slices)
        self._parts.progress.live(item.phase, Live("slice done", None, None, 0.0, measured_s, expected))

    def _see_to_the_server(self, item: Running, info: ModelInfo, running: Sequence[Running]) -> None:
        """Raises ServerDied where the failures of a slice are not the model's own: the slice does not count."""
        problem = self._server_problem(item.phase.variant)
        if problem is None:
            return
        if item.phase.id not in self._suspects:
            raise ServerDied(problem, [each.phase for each in running], suspect=item.phase.id)
        lost = self._failed(item.phase, f"the server died in mid-phase, twice: {problem}")
        self._finish(_described(lost, info))
        raise ServerDied(problem, [other.phase for other in running if other is not item])

    def _server_problem(self, variant: Variant) -> str | None:
        """Why the server cannot go on with this variant; None where the failures are the model's own."""
        problem = self._parts.server.problem()
        if problem is not None:
            return problem
        try:
            loaded = variant.model in self._parts.server.loaded_models()
        except ServerError as error:
            return str(error)
        return None if loaded else f"it answers again, but {variant.model} is no longer loaded: it was restarted"

    def _drive(self, item: Running, number: int) -> Slice | str:
        """One slice; the reason where it brought nothing."""
        rule, phase = self._rule(item.phase), item.phase
        workers, most_workers = self._workers(item)
        order = LoadOrder(
            address=self._address(phase),
            load=self._bounded(item),
            requests=item.requests,
            timeout_s=self._settings.request_timeout_s,
            tls=self._settings.tls.get(phase.variant.model),
            # Other send times of a Poisson load, and other inputs first, in every slice.
            seed=number + SEEDS_A_REPEAT * self._repeat,
            workers=workers,
            intervals_ns=self._settings.intervals_ns.get(phase.load.intervals, ()),
        )
        seconds = min(self._settings.slice_s, rule.max_s)
        warmup_s = least_warmup_s(item.latency)
        refreshes = self._refreshes_to_wait_for(item)
        plan = SlicePlan(
            phase,
            order,
            number,
            seconds,
            rule.max_s,
            self._settings.gpus,
            warmup_s,
            self._repeat,
            most_workers=most_workers,
            before_s=sum(piece.seconds for piece in item.slices),
            requests=self._requests_left(item, rule),
            refreshes=refreshes,
        )
        parts = self._parts
        try:
            piece = drive_slice(plan, parts.generator, self._recorder, parts.clock, parts.progress)
        except (SliceFailed, LoadGeneratorError) as error:
            return str(error)
        self._recorder.forget_before(parts.clock.now_ns() - KEEP_PAGES_NS)
        self._recorder.condense()
        item.gave_up = (gpu_refreshes([piece]) or 0) < refreshes
        return piece

    def _bounded(self, item: Running) -> Load:
        """The phase's load; of one that the server does not keep up with, with no more in flight than it takes to see that."""
        load = item.phase.load
        return replace(load, max_concurrency=most_inflight(load, [*item.earlier, *item.slices]))

    def _workers(self, item: Running) -> tuple[int, int]:
        """With how many load generator processes the next slice begins, and up to how many it may go.

        The first slice of a phase finds out, so that all of them are driven alike, those of other repeats and of a
        resumed run included.
        """
        wanted, load = self._settings.workers, item.phase.load
        limit = int(load.value) if load.kind == "concurrency" else load.max_concurrency or MOST_WORKERS
        if wanted is not None:
            return min(wanted, limit), min(wanted, limit)
        most = min(self._settings.cpus, limit)
        if before := (item.slices or item.earlier):
            same = min(max(len(before[-1].workers), 1), most)
            return same, same
        return 1, most

    def _refreshes_to_wait_for(self, item: Running) -> int:
        """How many refreshes of the GPU telemetry the next slice should last for: none while other figures need slices anyway.

        Two at least in one slice, where so many are asked for: an energy counter tells nothing between slices.
        """
        wanted = self._settings.min_gpu_samples
        missing = self._judge(item).missing if wanted and item.slices else 0
        if not missing:
            return 0
        seen_two = any((gpu_refreshes([piece]) or 0) >= 2 for piece in item.slices)
        return missing if seen_two else max(missing, min(wanted, 2))

    def _judge(self, item: Running) -> Verdict:
        """Asked for before a slice and after it: what was said of the same slices still holds."""
        if item.judged is None or item.judged[0] != len(item.slices):
            item.judged = len(item.slices), self._judge_anew(item)
        return item.judged[1]

    def _judge_anew(self, item: Running) -> Verdict:
        if _failure_ratio(item.slices) > MAX_FAILURE_RATIO and len(item.slices) >= 2:
            return Verdict(done=True, stable=False, reasons=(), throughput=None, p99=None)
        fresh = gpu_refreshes(item.slices) if self._settings.min_gpu_samples and not item.gave_up else None
        stats, rule = [piece.stats for piece in item.slices], self._rule(item.phase)
        if not may_be_done(stats, rule, _failures(item.slices)) and not worth_a_look(len(stats), rule):
            return Verdict(done=False, stable=False, reasons=(), throughput=None, p99=None)
        return judge(stats, rule, fresh, self._settings.min_gpu_samples, _failures(item.slices))

    def _rule(self, phase: Phase) -> StopRule:
        """The stop rule, with the model's own count of requests."""
        return replace(self._settings.rule, requests=self._settings.request_counts.get(phase.variant.model))

    def _requests_left(self, item: Running, rule: StopRule) -> int | None:
        """After how many requests the next slice is enough; None where it is not requests that decide."""
        if rule.requests is None:
            return None
        left = requests_left([piece.stats for piece in item.slices], rule.requests, _failures(item.slices))
        # None is left where GPU samples are waited for.
        return left or None

    def _reduce(self, item: Running, info: ModelInfo, verdict: Verdict) -> Measurement:
        slices = [*item.earlier, *item.slices]
        if item.earlier:
            repeats = [[piece.stats for piece in each] for each in by_repeat(slices)]
            verdict = judge_repeats(repeats, self._rule(item.phase))
        measurement = reduce_phase(item.phase, slices, verdict, item.requests.inferences)
        ratio = _failure_ratio(item.slices)
        if ratio > MAX_FAILURE_RATIO:
            reason = f"{ratio:.1%} of the requests failed: {_commonest(item.slices)}"
            if item.earlier:
                return _described(self._failed(item.phase, reason), info)
            measurement = replace(measurement, status="failed", notes=(reason, *measurement.notes), repeats=0)
        return _described(measurement, info)

    def _finish(self, measurement: Measurement) -> None:
        utc = self._parts.clock.utc().isoformat(timespec="seconds")
        # One line a note: servers answer with whole tracebacks.
        notes = tuple(" ".join(note.split()) for note in measurement.notes)
        self._done(replace(measurement, notes=notes, finished_at=utc, environment=self._environment()))

    def _address(self, phase: Phase) -> str:
        return self._server.grpc_endpoint if phase.protocol == "grpc" else self._server.http_endpoint


# Of an open loop without a limit of its own: how many requests will be in flight nobody knows beforehand.
MOST_WORKERS = 64
# Cadence is inferred over more than one slice: an exporter may refresh only every 30 s.
KEEP_PAGES_NS = 300_000_000_000


def _unfit(phase: Phase, info: ModelInfo) -> str | None:
    """Why the model cannot take this phase, if it cannot."""
    call = call_of(phase.call, phase.protocol, info.decoupled)
    if call.startswith("generate") and phase.batch_size > 1:
        return f"batch size {phase.batch_size}, but the generate extension takes one inference a request; gRPC takes batches"
    if info.max_batch_size == 0 and phase.batch_size > 1:
        return f"batch size {phase.batch_size}, but the model does not batch (max_batch_size 0)"
    if info.max_batch_size and phase.batch_size > info.max_batch_size:
        return f"batch size {phase.batch_size} is above the model's max_batch_size {info.max_batch_size}"
    return None


def _described(measurement: Measurement, info: ModelInfo) -> Measurement:
    return replace(measurement, instance_group=info.instance_group, max_batch_size=info.max_batch_size)


def _failures(slices: Sequence[Slice]) -> int:
    return sum(sum(piece.failures.values()) for piece in slices)


def _failure_ratio(slices: Sequence[Slice]) -> float:
    failures = _failures(slices)
    replies = sum(piece.stats.count for piece in slices)
    return failures / (failures + replies) if failures else 0.0


def _commonest(slices: Sequence[Slice]) -> str:
    totals: dict[str, int] = {}
    for piece in slices:
        for message, count in piece.failures.items():
            totals[message] = totals.get(message, 0) + count
    return max(totals, key=lambda message: totals[message])
