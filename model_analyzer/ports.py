"""What the engine needs from the world; adapters keep these promises, fakes do in tests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from model_analyzer.core.forecast import Forecast
from model_analyzer.core.load import Call, InputSource, LoadOrder, RequestSet
from model_analyzer.core.load import Protocol as WireProtocol
from model_analyzer.core.measurement import Baseline, Measurement, Slice
from model_analyzer.core.plan import Phase
from model_analyzer.core.steal import CpuTime
from model_analyzer.core.telemetry import Page
from model_analyzer.core.variant import ModelInfo, ServerInfo, ServerSettings, Variant


class Clock(Protocol):
    """The only time the engine knows. `now_ns` is CLOCK_MONOTONIC, shared by all processes of the host."""

    def now_ns(self) -> int:
        """Monotonic nanoseconds."""
        ...

    def sleep(self, seconds: float) -> None:
        """Block this thread."""
        ...

    def utc(self) -> datetime:
        """Wall time, for people."""
        ...

    def cpu_time(self) -> CpuTime | None:
        """Of this machine so far; in a container that of the node. None: the kernel does not tell."""
        ...


class Server(Protocol):
    """A Triton server: ours (embedded, local, docker) or somebody's (remote).

    grace_s: seconds that `stop` may wait for it, or for a model; lowered when a run is interrupted.
    """

    grace_s: float

    def start(self, settings: ServerSettings) -> ServerInfo:
        """Start or reach the server and wait until it is ready. Raises ServerError."""
        ...

    def stop(self) -> None:
        """Stop what we started, restore what we touched. Never raises; safe to call twice."""
        ...

    def load(self, variant: Variant) -> ModelInfo:
        """Load the variant and describe it. Raises ModelError (this model) or ServerError (the server)."""
        ...

    def unload(self, variant: Variant) -> None:
        """Unload what `load` loaded; on a server that is not ours, restore what was there before."""
        ...

    def problem(self) -> str | None:
        """None while the server answers; else why not, with the tail of its log."""
        ...

    def loaded_models(self) -> Sequence[str]:
        """Names of the models that are ready now."""
        ...


class Encoder(Protocol):
    """Makes the requests of a phase from the model's own description."""

    def encode(
        self,
        model: ModelInfo,
        batch_size: int,
        source: InputSource,
        protocol: WireProtocol,
        address: str,
        call: Call = "infer",
    ) -> RequestSet:
        """Raises InputError where shape or data do not fit; ServerError where the server is lost."""
        ...

    def release(self, idle: bool = True) -> None:
        """Free what requests made so far hold beside themselves. Never raises. idle: none of them is under way."""
        ...


@dataclass(frozen=True, slots=True)
class WorkerUse:
    """One process of the load generator, since its order began.

    replies: successes. wait_ns: how long it could have run and had no CPU; None: the kernel does not tell.
    """

    cpu_ns: int
    wait_ns: int | None
    replies: int


@dataclass(frozen=True, slots=True)
class Streamed:
    """What came of streams since the batch before, all int64.

    responses: [n], of each success. first_at_ns, first_ns: [f], when a first response came and how long after its request;
    gap_at_ns, gap_ns: [g], when a later one came and how long after the one before it. Of requests that fail in the end, too.
    """

    responses: NDArray[np.int64]
    first_at_ns: NDArray[np.int64]
    first_ns: NDArray[np.int64]
    gap_at_ns: NDArray[np.int64]
    gap_ns: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class LoadBatch:
    """What the load generator saw since the batch before (about every 50 ms).

    done_ns, latency_ns: int64 [n], monotonic time of the reply and its latency, successes only, in order of done_ns.
    failures: message -> count. cpu_ns: CPU of the whole generator since the order started; workers: of each process.
    lag_ns: the longest time a finished reply (or a due send) waited for the generator since the batch before.
    Open loop: send_lags_ns: int64 [m], by how much the generator was late with each send. delayed: how many of these
    waited, because as many requests were in flight as there may be.
    inflight: requests in flight at the end; backlog: how many of them had a reply lying unread in its socket.
    Of several processes counts are added up, lags are the largest; end_ns is the time up to when all of them have told.
    streamed: of streamed replies, whose latency is that of their last response.
    """

    end_ns: int
    done_ns: NDArray[np.int64]
    latency_ns: NDArray[np.int64]
    failures: Mapping[str, int]
    cpu_ns: int
    lag_ns: int = 0
    send_lags_ns: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    delayed: int = 0
    inflight: int = 0
    backlog: int = 0
    workers: tuple[WorkerUse, ...] = ()
    streamed: Streamed | None = None


class LoadGenerator(Protocol):
    """Drives requests from processes of its own."""

    def run(self, order: LoadOrder) -> AbstractContextManager[Iterator[LoadBatch]]:
        """Send until the context is left; iterate to receive batches. Raises LoadGeneratorError.

        They do not end by themselves. Once the context is left the last ones can still be had: what came in until every
        request in flight had its reply.
        """
        ...

    def close(self) -> None:
        """End the processes. Safe to call twice."""
        ...


class Sampler(Protocol):
    """One telemetry source."""

    name: str

    def sample(self) -> Page:
        """Scrape once, bounded in time. Never raises: what went wrong is the page's `problem`."""
        ...


class Store(Protocol):
    """Keeps what is finished, durably: when a call returns, a kill loses nothing of it. All raise ExportPathError."""

    def slices_of(self, phase_id: str) -> Sequence[Slice]:
        """The slices of a phase that is not finished yet, oldest first: those of its whole repeats among them."""
        ...

    def add_slice(self, piece: Slice) -> None:
        """Keep one finished slice."""
        ...

    def add_measurement(self, measurement: Measurement) -> None:
        """Keep one finished phase."""
        ...

    def add_baseline(self, baseline: Baseline) -> None:
        """Keep the server-only baseline."""
        ...


class GpuClaims(Protocol):
    """Keeps other shards of the run off a GPU: two that measure on one would measure each other."""

    def claim(self, gpu: str) -> str | None:
        """Hold this GPU, or this MIG instance, until the run ends: None, or who holds it. Raises ExportPathError."""
        ...


class Outputs(Protocol):
    """The tables a user reads; made from the store, so that they can be made again at any time."""

    def refresh(self) -> None:
        """Rewrite every output atomically. Raises ExportPathError."""
        ...


@dataclass(frozen=True, slots=True)
class Live:
    """Figures of the running slice, for people: infer/s, p99 in ms (None: no reply yet), measured seconds so far.

    before_s: measured seconds of the phase in this repeat before the slice. forecast: how many it will be in all, told after
    each slice.
    """

    stage: str
    throughput: float | None
    latency_p99_ms: float | None
    measured_s: float
    before_s: float = 0.0
    forecast: Forecast | None = None


class Progress(Protocol):
    """Tells a person what goes on. Never raises."""

    def begin(self, total: int, already: int) -> None:
        """The run starts: phases in all, each as often as it is repeated, and those measured in an earlier run."""
        ...

    def say(self, message: str) -> None:
        """One line of news: a server started, a model loaded, a source failing."""
        ...

    def live(self, phase: Phase, figures: Live) -> None:
        """The running phase, a few times a second."""
        ...

    def finished(self, measurement: Measurement) -> None:
        """A phase is done."""
        ...

    def end(self) -> None:
        """The run is over; free the terminal. Safe to call twice."""
        ...
