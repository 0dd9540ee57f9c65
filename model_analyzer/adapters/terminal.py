"""What is told while a run goes on to somebody who looks at a terminal: a live display."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from model_analyzer.adapters.progress import Eta, figures, outcome
from model_analyzer.core.estimate import Outlook
from model_analyzer.core.measurement import Measurement
from model_analyzer.core.plan import Phase
from model_analyzer.ports import Live


class TerminalProgress:
    """A live line with a bar; news scrolls above it."""

    def __init__(self, outlook: Outlook, console: Console | None = None) -> None:
        self._eta = Eta(outlook)
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
        self._eta.begin()
        self._bar.update(self._task, total=total, completed=already, eta=str(self._eta))
        self._bar.start()

    def say(self, message: str) -> None:
        """One line above the bar."""
        self._bar.console.print(message, markup=False, highlight=False)

    def live(self, phase: Phase, figures_now: Live) -> None:
        """The running phase beside the bar."""
        self._eta.running(phase, figures_now)
        self._bar.update(self._task, description=f"{phase}: {figures(figures_now)}", eta=str(self._eta))

    def finished(self, measurement: Measurement) -> None:
        """One line for the phase, one step of the bar."""
        settled = self._eta.count(measurement)
        self.say(outcome(measurement))
        self._bar.advance(self._task, settled)

    def end(self) -> None:
        """Take the bar away."""
        self._bar.stop()
