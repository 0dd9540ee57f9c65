"""Scrapes every source in a thread of its own, so that a slow one delays neither the load nor the others."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence

from model_analyzer.core.telemetry import Gpu, Page
from model_analyzer.ports import Clock, Sampler


class Recorder:
    """Keeps the pages of all sources. Start before use, stop at the end; every method may be called from any thread."""

    def __init__(self, samplers: Sequence[Sampler], interval_s: float, clock: Clock) -> None:
        self._loops = [_Loop(sampler, interval_s, clock) for sampler in samplers]

    def start(self) -> None:
        """Begin to scrape."""
        for loop in self._loops:
            loop.start()

    def stop(self) -> None:
        """End all threads; a scrape under way is waited for (it is bounded)."""
        for loop in self._loops:
            loop.halt()
        for loop in self._loops:
            loop.join(5.0)

    def nudge(self) -> None:
        """Scrape every source now, without waiting for it."""
        for loop in self._loops:
            loop.wake.set()

    def scrape_now(self, source: str) -> Page:
        """Scrape one source in this thread; the page is kept, too."""
        loop = next(loop for loop in self._loops if loop.sampler.name == source)
        return loop.scrape()

    def pages(self) -> list[Page]:
        """Every page kept, source by source, oldest first."""
        return [page for loop in self._loops for page in loop.pages()]

    def forget_before(self, time_ns: int) -> None:
        """Drop older pages."""
        for loop in self._loops:
            loop.forget_before(time_ns)

    def latest_gpus(self) -> dict[str, Gpu]:
        """What the sources last said of each GPU; DCGM says more than Triton."""
        gpus: dict[str, Gpu] = {}
        for loop in sorted(self._loops, key=lambda loop: loop.sampler.name == "dcgm"):
            for page in loop.pages()[-1:]:
                gpus.update(page.gpus)
        return gpus

    def problems(self) -> dict[str, str]:
        """Source -> why its last scrape failed, for those whose did."""
        found = {}
        for loop in self._loops:
            for page in loop.pages()[-1:]:
                if page.problem is not None:
                    found[page.source] = page.problem
        return found


class _Loop(threading.Thread):
    """One source."""

    def __init__(self, sampler: Sampler, interval_s: float, clock: Clock) -> None:
        super().__init__(name=f"telemetry-{sampler.name}", daemon=True)
        self.sampler = sampler
        self.wake = threading.Event()
        self._interval_ns = int(interval_s * 1e9)
        self._clock = clock
        self._halted = False
        self._pages: deque[Page] = deque()
        self._lock = threading.Lock()

    def run(self) -> None:
        due = self._clock.now_ns()
        while not self._halted:
            self.scrape()
            # To the due time, not by the interval: the scrape's own time does not add up.
            due = max(due + self._interval_ns, self._clock.now_ns())
            if self.wake.wait(max(0, due - self._clock.now_ns()) / 1e9):
                self.wake.clear()
                due = self._clock.now_ns()

    def halt(self) -> None:
        self._halted = True
        self.wake.set()

    def scrape(self) -> Page:
        page = self.sampler.sample()
        with self._lock:
            self._pages.append(page)
        return page

    def pages(self) -> list[Page]:
        with self._lock:
            return list(self._pages)

    def forget_before(self, time_ns: int) -> None:
        with self._lock:
            while self._pages and self._pages[0].time_ns < time_ns:
                self._pages.popleft()
