"""What is told while a run goes on: plain lines, JSON lines for log collectors; on a terminal see terminal.py."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from typing import TextIO

from model_analyzer import ports
from model_analyzer.adapters.json_log import Level, write_line
from model_analyzer.core.estimate import Outlook
from model_analyzer.core.measurement import Measurement
from model_analyzer.core.plan import Phase
from model_analyzer.ports import Live

LINE_EVERY_S = 10.0


class Eta:
    """Seconds left, for one display: the plan's outlook, corrected by all that the display is told."""

    def __init__(self, outlook: Outlook, now: Callable[[], float] = time.monotonic) -> None:
        # Each display is told everything, so each has its own.
        self._outlook = deepcopy(outlook)
        self._now = now
        self._outlook.begin(now())

    def begin(self) -> None:
        """Start the clock."""
        self._outlook.begin(self._now())

    def running(self, phase: Phase, live: Live) -> None:
        """A phase runs."""
        self._outlook.running(phase.id, live.before_s, self._now(), live.forecast)

    def count(self, measurement: Measurement) -> int:
        """A phase is done; how many of those counted that settles: one that failed is not repeated."""
        return self._outlook.finish(measurement, self._now())

    def left_s(self) -> float:
        """Seconds until the last phase is done."""
        return self._outlook.left_s(self._now())

    def __str__(self) -> str:
        left = round(self.left_s())
        return f"{left // 60}:{left % 60:02d}"


def figures(live: Live) -> str:
    """The running slice in a few words."""
    if live.throughput is None or live.latency_p99_ms is None:
        return live.stage
    return f"{live.throughput:,.0f} infer/s, p99 {live.latency_p99_ms:.2f} ms"


def outcome(measurement: Measurement) -> str:
    """A finished phase in one line."""
    throughput, p99_ns = measurement.values.get("perf_throughput"), measurement.values.get("perf_latency_p99")
    which = f", repeat {measurement.repeats}" if measurement.repeats > 1 else ""
    parts = [f"{measurement.phase}{which}: {measurement.status}"]
    if throughput is not None:
        parts.append(f"{throughput:,.1f} infer/s")
    if p99_ns is not None:
        parts.append(f"p99 {p99_ns / 1e6:.2f} ms")
    if measurement.notes and measurement.status != "ok":
        parts.append(measurement.notes[0])
    return ", ".join(parts)


def to_do(total: int, already: int, repeats: int) -> str:
    """How many phases a run has, each as often as it is repeated, and how many are left out."""
    if repeats > 1:
        counted, what = (
            f"{total // repeats} phases x {repeats} repeats: {total} measurements",
            f", {already} of them done",
        )
    else:
        counted, what = f"{total} phases", f", {already} of them measured"
    return f"{counted}{what} in an earlier run" if already else counted


class LineProgress:
    """Plain log lines, for a pod's log or a file."""

    def __init__(
        self,
        outlook: Outlook,
        stream: TextIO | None = None,
        now: Callable[[], float] = time.monotonic,
        repeats: int = 1,
    ) -> None:
        self._repeats = repeats
        self._eta = Eta(outlook, now)
        self._stream = stream or sys.stderr
        self._now = now
        self._last_live = now()
        self._total = self._done = 0

    def begin(self, total: int, already: int) -> None:
        """Say what there is to do."""
        self._total, self._done = total, already
        self._eta.begin()
        self.say(f"{to_do(total, already, self._repeats)}; about {self._eta} left")

    def say(self, message: str) -> None:
        """One line."""
        stamp = time.strftime("%H:%M:%S")
        with suppress(OSError, ValueError):  # whoever read it has gone (`| head`): no reason to end a run
            print(f"{stamp} {message}", file=self._stream, flush=True)

    def live(self, phase: Phase, figures_now: Live) -> None:
        """A line now and then, so that a long phase is seen to be alive."""
        self._eta.running(phase, figures_now)
        if self._now() - self._last_live >= LINE_EVERY_S:
            self._last_live = self._now()
            self.say(f"[{self._done}/{self._total}] {phase}: {figures(figures_now)}; about {self._eta} left")

    def finished(self, measurement: Measurement) -> None:
        """One line for the phase."""
        self._done += self._eta.count(measurement)
        self._last_live = self._now()
        self.say(f"[{self._done}/{self._total}] {outcome(measurement)}; about {self._eta} left")

    def end(self) -> None:
        """Nothing to free."""


class Standing:
    """Where a run stands, for those who tell it in figures. phase, live: of the running phase; None in between."""

    def __init__(self, outlook: Outlook, now: Callable[[], float] = time.monotonic) -> None:
        self._eta = Eta(outlook, now)
        self.total = self.done = self.failed = self.request_errors = 0
        self._errors_of: dict[str, int] = {}
        self.phase: Phase | None = None
        self.live: Live | None = None
        self.finished_at: float | None = None

    def begin(self, total: int, already: int) -> None:
        """The run starts."""
        self.total, self.done = total, already
        self._eta.begin()

    def running(self, phase: Phase, live: Live) -> None:
        """A phase runs."""
        self.phase, self.live = phase, live
        self._eta.running(phase, live)

    def count(self, measurement: Measurement) -> None:
        """One more phase is done. finished_at: seconds since the epoch."""
        self.done += self._eta.count(measurement)
        self.failed += measurement.status == "failed"
        # A row holds the failures of all its repeats so far.
        phase_id, errors = measurement.phase.id, int(measurement.values.get("requests_failed") or 0)
        self.request_errors += max(errors - self._errors_of.get(phase_id, 0), 0)
        self._errors_of[phase_id] = errors
        self.phase = self.live = None
        self.finished_at = time.time()

    def eta_s(self) -> float:
        """Seconds until the last phase."""
        return self._eta.left_s()


class JsonProgress:
    """One JSON object a line."""

    def __init__(
        self,
        outlook: Outlook,
        stream: TextIO | None = None,
        now: Callable[[], float] = time.monotonic,
        repeats: int = 1,
    ) -> None:
        self._repeats = repeats
        self._standing = Standing(outlook, now)
        self._stream = stream
        self._now = now
        self._last_live = now()
        self._ended = False

    def begin(self, total: int, already: int) -> None:
        """Say what there is to do."""
        self._standing.begin(total, already)
        self._write("begin", to_do(total, already, self._repeats))

    def say(self, message: str) -> None:
        """News."""
        write_line("say", message, stream=self._stream)

    def live(self, phase: Phase, figures_now: Live) -> None:
        """The running phase, now and then."""
        self._standing.running(phase, figures_now)
        if self._now() - self._last_live >= LINE_EVERY_S:
            self._last_live = self._now()
            measuring = {"throughput": figures_now.throughput, "p99_ms": figures_now.latency_p99_ms}
            self._write("live", f"{phase}: {figures(figures_now)}", phase=phase, figures=measuring)

    def finished(self, measurement: Measurement) -> None:
        """The phase's outcome."""
        self._standing.count(measurement)
        self._last_live = self._now()
        levels: dict[str, Level] = {"failed": "error", "unstable": "warning"}
        p99_ns = measurement.values.get("perf_latency_p99")
        measured = {
            "status": measurement.status,
            "throughput": measurement.values.get("perf_throughput"),
            "p99_ms": None if p99_ns is None else p99_ns / 1e6,
        }
        level = levels.get(measurement.status, "info")
        self._write("finished", outcome(measurement), level, measurement.phase, measured)

    def end(self) -> None:
        """The last line."""
        if not self._ended:
            self._ended = True
            standing = self._standing
            what = "phases" if self._repeats == 1 else "measurements"
            self._write("end", f"{standing.done} of {standing.total} {what} done, {standing.failed} failed")

    def _write(
        self,
        event: str,
        message: str,
        level: Level = "info",
        phase: Phase | None = None,
        figures: Mapping[str, str | float | None] | None = None,
    ) -> None:
        standing = self._standing
        about = {"phase": str(phase), "id": phase.id} if phase is not None else {}
        counts = {"done": standing.done, "total": standing.total, "failed": standing.failed}
        fields = {**about, **(figures or {}), **counts, "eta_s": round(standing.eta_s(), 1)}
        write_line(event, message, level, fields, self._stream)


class Several:
    """Tells several at once."""

    def __init__(self, listeners: Sequence[ports.Progress]) -> None:
        self._listeners = listeners

    def begin(self, total: int, already: int) -> None:
        """Tell each."""
        for one in self._listeners:
            one.begin(total, already)

    def say(self, message: str) -> None:
        """Tell each."""
        for one in self._listeners:
            one.say(message)

    def live(self, phase: Phase, figures_now: Live) -> None:
        """Tell each."""
        for one in self._listeners:
            one.live(phase, figures_now)

    def finished(self, measurement: Measurement) -> None:
        """Tell each."""
        for one in self._listeners:
            one.finished(measurement)

    def end(self) -> None:
        """Tell each, the last first: what it has to say of its end is still heard."""
        for one in reversed(self._listeners):
            one.end()
