"""The engine's world in one process and in no time: fakes at the ports, a clock that moves when somebody waits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone

import numpy as np

from model_analyzer.core.gpus import GpuChoice
from model_analyzer.core.load import Call, EncodedRequest, InputSource, Load, LoadOrder, RequestSet
from model_analyzer.core.load import Protocol as WireProtocol
from model_analyzer.core.measurement import Baseline, Measurement, Slice
from model_analyzer.core.plan import Group, Phase
from model_analyzer.core.search import Search, Sweep
from model_analyzer.core.steal import CpuTime
from model_analyzer.core.stopping import StopRule
from model_analyzer.core.telemetry import Gpu, Page, Series
from model_analyzer.core.variant import ModelInfo, ServerInfo, ServerSettings, TensorInfo, Variant
from model_analyzer.engine.group import Parts, Settings
from model_analyzer.engine.recorder import Recorder
from model_analyzer.engine.run import Run
from model_analyzer.errors import ExportPathError, InputError, ModelError, ServerError, ServerLostError
from model_analyzer.ports import Live, LoadBatch, WorkerUse

BATCH_NS = 50_000_000
SECOND_NS = 1_000_000_000


class FakeClock:
    """Stands still until somebody sleeps or `advance`s it. cpus: how many have work all the time; steal: the share taken of them."""

    def __init__(self) -> None:
        self._now_ns = 1_000 * SECOND_NS
        self.cpus = 2
        self.steal: float | None = 0.0

    def now_ns(self) -> int:
        return self._now_ns

    def sleep(self, seconds: float) -> None:
        self._now_ns += int(seconds * SECOND_NS)

    def utc(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=timezone.utc) + timedelta(seconds=self._now_ns / SECOND_NS)

    def cpu_time(self) -> CpuTime | None:
        wanted_ns = self.cpus * self._now_ns
        return None if self.steal is None else CpuTime(wanted_ns, int(self.steal * wanted_ns))


@dataclass
class FakeServer:
    """A server that dies when it is told to. events: what was asked of it, in order.

    unloadable: model -> why its load fails. deadly: models whose load kills it. lost_at_load: how many loads find it dead.
    lost_while_loading: how many loads it is lost in, and is there again when it is asked.
    """

    ours: bool = True
    max_batch_size: int = 64
    decoupled: bool = False
    unloadable: dict[str, str] = field(default_factory=dict)
    deadly: set[str] = field(default_factory=set)
    lost_at_load: int = 0
    lost_while_loading: int = 0
    start_error: str | None = None
    unload_error: str | None = None
    events: list[str] = field(default_factory=list)
    settings: list[ServerSettings] = field(default_factory=list)
    loaded: set[str] = field(default_factory=set)
    dead: str | None = "the server is not started"

    def start(self, settings: ServerSettings) -> ServerInfo:
        if self.start_error is not None:
            raise ServerError("tritonserver", self.start_error, "mend it")
        self.events.append("start")
        self.settings.append(settings)
        self.dead = None
        if self.ours:
            self.loaded.clear()
        return ServerInfo("2.51.0", "127.0.0.1:8000", "127.0.0.1:8001", "http://127.0.0.1:8002/metrics", self.ours)

    def stop(self) -> None:
        self.events.append("stop")
        self.dead = "the server is not started"

    def load(self, variant: Variant) -> ModelInfo:
        if self.lost_at_load:
            self.lost_at_load -= 1
            self.dead = "was ended by SIGKILL"
        if self.dead is not None:
            raise ServerError("tritonserver", self.dead, "see the log")
        if self.lost_while_loading:
            self.lost_while_loading -= 1
            raise ServerLostError(variant.model, "the server was lost while it loaded the model", "see the log")
        if variant.model in self.deadly:
            self.dead = "was ended by SIGSEGV"
            raise ModelError(variant.model, "the server was lost while it loaded the model", "see the log")
        if variant.model in self.unloadable:
            raise ModelError(variant.model, self.unloadable[variant.model], "mend the model")
        self.events.append(f"load {variant.name}")
        self.loaded.add(variant.model)
        tensor = (TensorInfo("INPUT", "FP32", (4,)),)
        return ModelInfo(variant.model, "1", self.max_batch_size, tensor, tensor, "1:CPU", self.decoupled)

    def unload(self, variant: Variant) -> None:
        if self.unload_error is not None:
            raise ModelError(variant.model, self.unload_error, "see the log")
        self.events.append(f"unload {variant.name}")
        self.loaded.discard(variant.model)

    def problem(self) -> str | None:
        return self.dead

    def loaded_models(self) -> Sequence[str]:
        return sorted(self.loaded)


@dataclass(frozen=True)
class Replies:
    """What a slice's load brings. rate: replies a second; failures: message -> failures a second.

    cpu: of all workers together, wait: of each of them, backlog: of the requests in flight; shares of the time.
    """

    rate: float = 1000.0
    latency_ns: int = 1_000_000
    failures: Mapping[str, float] = field(default_factory=dict)
    cpu: float = 0.1
    wait: float = 0.0
    lag_ns: int = 0
    backlog: float = 0.0


Script = Callable[[LoadOrder], Replies]


@dataclass
class FakeGenerator:
    """Plays a script: a batch every 50 ms of the clock. orders: what was asked for. succeeded: replies so far."""

    clock: FakeClock
    script: Script = lambda _order: Replies()
    orders: list[LoadOrder] = field(default_factory=list)
    succeeded: int = 0
    closed: bool = False
    # Once the load has ended: requests that had no reply.
    unanswered: int = 0
    left: bool = False

    @contextmanager
    def run(self, order: LoadOrder) -> Iterator[Iterator[LoadBatch]]:
        self.orders.append(order)
        self.left = False
        yield self._batches(order)
        self.left = True

    def _batches(self, order: LoadOrder) -> Iterator[LoadBatch]:
        cpu_ns = wait_ns = 0
        start_ns = self.clock.now_ns()
        while not self.left:
            replies = self.script(order)
            # Requests go on while the reader sleeps: what came meanwhile is there when it asks.
            self.clock.sleep(max(0, start_ns + BATCH_NS - self.clock.now_ns()) / SECOND_NS)
            count = round(replies.rate * BATCH_NS / SECOND_NS)
            self.succeeded += count
            cpu_ns += int(replies.cpu * BATCH_NS)
            wait_ns += int(replies.wait * BATCH_NS)
            yield LoadBatch(
                end_ns=start_ns + BATCH_NS,
                done_ns=start_ns + (np.arange(count, dtype=np.int64) * BATCH_NS) // max(count, 1),
                latency_ns=np.full(count, replies.latency_ns, np.int64),
                failures={text: round(rate * BATCH_NS / SECOND_NS) for text, rate in replies.failures.items()},
                cpu_ns=cpu_ns,
                lag_ns=replies.lag_ns,
                inflight=100,
                backlog=int(100 * replies.backlog),
                workers=(WorkerUse(cpu_ns // order.workers, wait_ns, 0),) * order.workers,
            )
            start_ns += BATCH_NS
        yield LoadBatch(start_ns, np.empty(0, np.int64), np.empty(0, np.int64), {}, cpu_ns, inflight=self.unanswered)

    def close(self) -> None:
        self.closed = True


@dataclass
class FakeEncoder:
    """unfit: batch size -> why its requests cannot be made. encoded: the batch sizes that were.

    lost: how often the server is gone that is to be told of a request. released: each release, whether idle.
    """

    unfit: dict[int, str] = field(default_factory=dict)
    encoded: list[int] = field(default_factory=list)
    lost: int = 0
    released: list[bool] = field(default_factory=list)

    def release(self, idle: bool = True) -> None:
        self.released.append(idle)

    def encode(
        self,
        model: ModelInfo,
        batch_size: int,
        source: InputSource,
        protocol: WireProtocol,
        address: str,
        call: Call = "infer",
    ) -> RequestSet:
        if batch_size in self.unfit:
            raise InputError(model.name, self.unfit[batch_size], "give a shape")
        if self.lost:
            self.lost -= 1
            raise ServerError("127.0.0.1:8000", "does not answer", "see the server's log")
        self.encoded.append(batch_size)
        return RequestSet(protocol, (EncodedRequest(b"head", b"body"),), batch_size, call)


@dataclass
class FakeSampler:
    """Triton's page: the counter of one model, and a GPU whose gauges refresh every `cadence_s` of the clock."""

    generator: FakeGenerator
    model: str = "m"
    name: str = "triton"
    gpu: str | None = None
    cadence_s: float = 0.5
    problem: str | None = None
    memory: Callable[[], float] = lambda: 1e9
    took_ns: int = 0

    def sample(self) -> Page:
        now_ns = self.generator.clock.now_ns()
        if self.problem is not None:
            return Page(self.name, "", now_ns, problem=self.problem)
        values = {Series("nv_inference_request_success", self.model): float(self.generator.succeeded)}
        gpus = {}
        if self.gpu is not None:
            gpus = {self.gpu: Gpu("H100", "0")}
            values |= {
                Series("nv_gpu_utilization", self.gpu): 0.5,
                Series("nv_gpu_memory_used_bytes", self.gpu): self.memory(),
            }
        fingerprint = int(now_ns / (self.cadence_s * SECOND_NS))
        return Page(self.name, "", now_ns, values, gpus, fingerprint, took_ns=self.took_ns)


@dataclass
class FakeStore:
    """Keeps in memory. full_after: how many records fit. keeps_slices: of phases that are to be repeated."""

    slices: dict[str, list[Slice]] = field(default_factory=dict)
    measurements: list[Measurement] = field(default_factory=list)
    baselines: list[Baseline] = field(default_factory=list)
    full_after: int | None = None
    keeps_slices: bool = False

    def slices_of(self, phase_id: str) -> Sequence[Slice]:
        return self.slices.get(phase_id, [])

    def add_slice(self, piece: Slice) -> None:
        self._room()
        self.slices.setdefault(piece.phase_id, []).append(piece)

    def add_measurement(self, measurement: Measurement) -> None:
        self._room()
        self.measurements.append(measurement)
        if not self.keeps_slices:
            self.slices.pop(measurement.phase.id, None)

    def add_baseline(self, baseline: Baseline) -> None:
        self._room()
        self.baselines.append(baseline)

    def _room(self) -> None:
        if self.full_after is not None:
            if self.full_after == 0:
                raise ExportPathError("/export", "cannot be written (No space left on device)", "free space")
            self.full_after -= 1


@dataclass
class FakeClaims:
    """Other shards that hold GPUs for a while. busy: GPU -> how often it is refused. asked: every claim, in order."""

    busy: dict[str, int] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def claim(self, gpu: str) -> str | None:
        self.asked.append(gpu)
        if self.busy.get(gpu):
            self.busy[gpu] -= 1
            return "process 7 on node-1"
        return None


@dataclass
class FakeOutputs:
    store: FakeStore
    seen: list[int] = field(default_factory=list)

    def refresh(self) -> None:
        self.seen.append(len(self.store.measurements))


@dataclass
class FakeProgress:
    said: list[str] = field(default_factory=list)
    done: list[Measurement] = field(default_factory=list)
    lives: list[tuple[Phase, Live]] = field(default_factory=list)

    def begin(self, total: int, already: int) -> None: ...

    def say(self, message: str) -> None:
        self.said.append(message)

    def live(self, phase: Phase, figures: Live) -> None:
        self.lives.append((phase, figures))

    def finished(self, measurement: Measurement) -> None:
        self.done.append(measurement)

    def end(self) -> None: ...


class World:
    """All fakes, put together. `run` measures; what came of it is in `store`, `server.events`, `orders`."""

    def __init__(self, script: Script = lambda _order: Replies()) -> None:
        self.clock = FakeClock()
        self.generator = FakeGenerator(self.clock, script)
        self.server = FakeServer()
        self.encoder = FakeEncoder()
        self.sampler = FakeSampler(self.generator)
        self.store = FakeStore()
        self.outputs = FakeOutputs(self.store)
        self.progress = FakeProgress()
        self.rule = StopRule("fixed", min_s=1.0, max_s=2.0)
        self.min_gpu_samples = 0
        self.workers: int | None = None
        self.cpus = 1
        self.claims: FakeClaims | None = None
        self.choice = GpuChoice()
        self.request_counts: dict[str, int] = {}
        self.intervals_ns: dict[str, tuple[int, ...]] = {}

    def run(self, search: Search | Sequence[Group], baseline: str | None = None) -> list[Measurement]:
        """Measure; the search is a Sweep where groups are given. Raises what the engine raises."""
        sweep = Sweep(search) if isinstance(search, Sequence) else search
        return Run(self.parts(), self.settings()).execute(sweep, baseline, ServerSettings())

    def parts(self) -> Parts:
        return Parts(
            server=self.server,
            generator=self.generator,
            encoder=self.encoder,
            # One scrape at the start, and those that the engine asks for.
            watch=lambda _info: Recorder([self.sampler], 3600.0, self.clock),
            store=self.store,
            outputs=self.outputs,
            progress=self.progress,
            clock=self.clock,
            claims=self.claims,
        )

    def settings(self) -> Settings:
        return Settings(
            self.rule,
            0.5,
            10.0,
            self.min_gpu_samples,
            {},
            self.choice,
            baseline_s=1.0,
            workers=self.workers,
            cpus=self.cpus,
            request_counts=self.request_counts,
            intervals_ns=self.intervals_ns,
        )

    def driven(self) -> list[tuple[int, int]]:
        """(batch size, load) of every slice, in order."""
        return [(order.requests.inferences, int(order.load.value)) for order in self.generator.orders]

    def statuses(self) -> dict[tuple[int, int], str]:
        """(batch size, load) -> status of the measurements."""
        return {(m.phase.batch_size, int(m.phase.load.value)): m.status for m in self.store.measurements}


def group(
    batch_sizes: Sequence[int] = (1,),
    loads: Sequence[int] = (1,),
    model: str = "m",
    server: ServerSettings = ServerSettings(),  # noqa: B008 -- frozen
) -> Group:
    """Phases of one variant, ascending."""
    variant = Variant(model, f"{model}_config_default", server=server)
    return Group(
        variant,
        tuple(
            Phase(f"{model}-{batch}-{load}", variant, batch, Load("concurrency", load), InputSource(), "http")
            for batch in batch_sizes
            for load in loads
        ),
    )
