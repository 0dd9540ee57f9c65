"""A slice is one contiguous piece of a phase's measured time; a measurement is what its slices amount to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from model_analyzer.core.histogram import Histogram
from model_analyzer.core.plan import Phase
from model_analyzer.core.stats import SliceStats
from model_analyzer.core.steal import CpuTime
from model_analyzer.core.telemetry import Gpu, Reading, Summaries, summaries_from_json, summaries_to_json

Status = Literal["ok", "unstable", "failed", "skipped"]


@dataclass(frozen=True, slots=True)
class WorkerShare:
    """One process of the load generator over a slice, as shares of its time.

    wait_ratio: it could have run and had no CPU; None: the kernel does not tell.
    """

    cpu_ratio: float
    wait_ratio: float | None


@dataclass(frozen=True, slots=True)
class Slice:
    """What one slice saw.

    stats: successes only. failures: message -> count. server: deltas of the model's `nv_inference_*`
    counters over the same time, None where the metrics page could not be read (`server_problem` says why); scrapes_s: seconds
    that the two scrapes at its ends took, at some moment of which the counters were read.
    client_cpu_ratio: CPU of the load generator / wall time. client_backlog_ratio: of the requests in flight, how many had
    their reply lying unread. workers: the load generator's processes. gpus: the GPUs that count. telemetry: scraped series
    inside the slice. cadences: source -> seconds between its refreshes. problems: source -> why it had no values.
    Open loop: send_lag: how late the client was with each send, None for a closed one. delayed: how many of the sends
    waited because as many requests were in flight as there may be.
    unanswered: requests that were in flight at the end and given up: no reply came while others did, nor for as long after them.
    cpu_time: of the machine that the load generator runs on; None: the kernel does not tell, or it is an older store's.
    repeat: in which repeat of the phase, from 0; round: in which round of that.
    """

    phase_id: str
    round: int
    started_at: str
    warmup_s: float
    stats: SliceStats
    failures: Mapping[str, int]
    server: Mapping[str, float] | None
    server_problem: str | None
    client_cpu_ratio: float
    client_lag_s: float
    gpus: tuple[str, ...]
    telemetry: Summaries
    cadences: Mapping[str, float]
    problems: Mapping[str, str]
    notes: tuple[str, ...] = ()
    send_lag: Histogram | None = None
    delayed: int = 0
    repeat: int = 0
    client_backlog_ratio: float = 0.0
    workers: tuple[WorkerShare, ...] = ()
    scrapes_s: float = 0.0
    cpu_time: CpuTime | None = None
    unanswered: int = 0

    @property
    def seconds(self) -> float:
        """Measured seconds."""
        return self.stats.duration_ns / 1e9

    def to_json(self) -> dict[str, Any]:
        """A JSON-able dict, for the store."""
        return {
            "phase_id": self.phase_id,
            "round": self.round,
            "started_at": self.started_at,
            "warmup_s": self.warmup_s,
            "stats": self.stats.to_json(),
            "failures": dict(self.failures),
            "server": None if self.server is None else dict(self.server),
            "server_problem": self.server_problem,
            "client_cpu_ratio": self.client_cpu_ratio,
            "client_lag_s": self.client_lag_s,
            "gpus": list(self.gpus),
            "telemetry": summaries_to_json(self.telemetry),
            "cadences": dict(self.cadences),
            "problems": dict(self.problems),
            "notes": list(self.notes),
            "send_lag": self.send_lag.to_json() if self.send_lag else None,
            "delayed": self.delayed,
            "repeat": self.repeat,
            "client_backlog_ratio": self.client_backlog_ratio,
            "workers": [[share.cpu_ratio, share.wait_ratio] for share in self.workers],
            "scrapes_s": self.scrapes_s,
            "unanswered": self.unanswered,
            "cpu_time": None if self.cpu_time is None else [self.cpu_time.wanted_ns, self.cpu_time.stolen_ns],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Slice:
        """The inverse of `to_json`."""
        return cls(
            **{
                **data,
                "stats": SliceStats.from_json(data["stats"]),
                "gpus": tuple(data["gpus"]),
                "telemetry": summaries_from_json(data["telemetry"]),
                "notes": tuple(data["notes"]),
                "send_lag": Histogram.from_json(data["send_lag"]) if data.get("send_lag") else None,
                "workers": tuple(WorkerShare(*share) for share in data.get("workers", ())),
                "cpu_time": CpuTime(*data["cpu_time"]) if data.get("cpu_time") else None,
            }
        )


@dataclass(frozen=True, slots=True)
class Environment:
    """Where a measurement was made; a resumed run on other hardware shows in it. cpus: that we may use."""

    server_version: str = ""
    gpus: Mapping[str, Gpu] = field(default_factory=dict)
    host: str = ""
    cpus: int | None = None


@dataclass(frozen=True, slots=True)
class Measurement:
    """A finished phase: one row.

    values: METRICS tag of phase scope, or of gpu scope taken across the GPUs -> value in project units; None: `reasons[tag]`
    says why. host, gpus: metric tag -> reading. client_limited: the load generator was the limit; None: not measured.
    notes: what a reader of the row should know. repeats: how many whole repeats stand behind the figures; 0: it is not said
    (no figures, or a store of before there were repeats).
    """

    phase: Phase
    status: Status
    notes: tuple[str, ...] = ()
    values: Mapping[str, float | None] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)
    host: Mapping[str, Reading] = field(default_factory=dict)
    gpus: Mapping[str, Mapping[str, Reading]] = field(default_factory=dict)
    client_limited: bool | None = None
    instance_group: str | None = None
    max_batch_size: int | None = None
    finished_at: str = ""
    environment: Environment = Environment()
    repeats: int = 0


@dataclass(frozen=True, slots=True)
class Baseline:
    """The server with no model loaded: one row a GPU, or one row without GPUs, and then `no_gpu_reason` says why."""

    id: str
    seconds: float
    host: Mapping[str, Reading] = field(default_factory=dict)
    gpus: Mapping[str, Mapping[str, Reading]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    no_gpu_reason: str = ""
    finished_at: str = ""
    environment: Environment = Environment()
