"""What a person sees while a run goes on: a live display on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from model_analyzer.core.measurement import Measurement
from model_analyzer.core.plan import Phase
from model_analyzer.ports import Live

LINE_EVERY_S = 10.0


class Eta:
    """Seconds left, from the pace so far; the plan's estimate until one phase is done."""

    def __init__(self, estimate_s: float, now: Callable[[], float] = time.monotonic) -> None:
        self._estimate_s = estimate_s
        self._now = now
        self._began = now()
        self._total = self._done = 0

    def begin(self, total: int) -> None:
        """Start the clock for `total` phases."""
        self._total, self._began = total, self._now()

    def count(self) -> None:
        """One more phase is done."""
        self._done += 1

    def left_s(self) -> float:
        """Seconds until the last phase, at the pace so far."""
        elapsed = self._now() - self._began
        if not self._done:
            return max(self._estimate_s - elapsed, 0.0)
        # The rounds of a group finish together: the estimate steadies what a burst of finished phases would suggest.
        done = self._done / self._total if self._total else 1.0
        by_pace = elapsed / done * (1 - done)
        by_plan = max(self._estimate_s - elapsed, 0.0)
        return done * by_pace + (1 - done) * by_plan

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
    parts = [f"{measurement.phase}: {measurement.status}"]
    if throughput is not None:
        parts.append(f"{throughput:,.1f} infer/s")
    if p99_ns is not None:
        parts.append(f"p99 {p99_ns / 1e6:.2f} ms")
    if measurement.notes and measurement.status != "ok":
        parts.append(measurement.notes[0])
    return ", ".join(parts)


class TerminalProgress:
    """A live line with a bar; news scrolls above it."""

    def __init__(self, estimate_s: float, console: Console | None = None) -> None:
        self._eta = Eta(estimate_s)
        self._bar = Progress(
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TextColumn("{task.description}", markup=False),
            TimeElapsedColumn(),
            TextColumn("left {task.fields[eta]}", markup=False),
            console=console or Console(stderr=True),
            transient=True,
        )
        self._task = self._bar.add_task("starting", total=None, eta="-")

    def begin(self, total: int, already: int) -> None:
        """Show the bar."""
        self._eta.begin(total - already)
        self._bar.update(self._task, total=total, completed=already, eta=str(self._eta))
        self._bar.start()

    def say(self, message: str) -> None:
        """One line above the bar."""
        self._bar.console.print(message, markup=False, highlight=False)

    def live(self, phase: Phase, figures_now: Live) -> None:
        """The running phase beside the bar."""
        self._bar.update(self._task, description=f"{phase}: {figures(figures_now)}", eta=str(self._eta))

    def finished(self, measurement: Measurement) -> None:
        """One line for the phase, one step of the bar."""
        self._eta.count()
        self.say(outcome(measurement))
        self._bar.advance(self._task)

    def end(self) -> None:
        """Take the bar away."""
        self._bar.stop()


class LineProgress:
    """Plain log lines, for a pod's log or a file."""

    def __init__(
        self, estimate_s: float, stream: TextIO | None = None, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._eta = Eta(estimate_s, now)
        self._stream = stream or sys.stderr
        self._now = now
        self._last_live = now()
        self._total = self._done = 0

    def begin(self, total: int, already: int) -> None:
        """Say what there is to do."""
        self._total, self._done = total, already
        self._eta.begin(total - already)
        again = f", {already} of them measured in an earlier run" if already else ""
        self.say(f"{total} phases{again}; about {self._eta} left")

    def say(self, message: str) -> None:
        """One line."""
        stamp = time.strftime("%H:%M:%S")
        with suppress(OSError, ValueError):  # whoever read it has gone (`| head`): no reason to end a run
            print(f"{stamp} {message}", file=self._stream, flush=True)

    def live(self, phase: Phase, figures_now: Live) -> None:
        """A line now and then, so that a long phase is seen to be alive."""
        if self._now() - self._last_live >= LINE_EVERY_S:
            self._last_live = self._now()
            self.say(f"[{self._done}/{self._total}] {phase}: {figures(figures_now)}; about {self._eta} left")

    def finished(self, measurement: Measurement) -> None:
        """One line for the phase."""
        self._done += 1
        self._eta.count()
        self._last_live = self._now()
        self.say(f"[{self._done}/{self._total}] {outcome(measurement)}; about {self._eta} left")

    def end(self) -> None:
        """Nothing to free."""
