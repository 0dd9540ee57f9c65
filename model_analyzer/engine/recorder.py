"""Scrapes every source in a thread of its own, so that a slow one delays neither the load nor the others."""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from collections.abc import Sequence
from itertools import pairwise

from model_analyzer.core.telemetry import Gpu, Page
from model_analyzer.ports import Clock, Sampler


class Recorder:
    """Keeps the pages of all sources. Start before use, stop at the end; every method may be called from any thread."""

    def __init__(self, samplers: Sequence[Sampler], interval_s: float, clock: Clock) -> None:
        self._clock = clock
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
            if loop.ident is not None:  # it was started
                loop.join(5.0)

    def nudge(self, wait_s: float = 0.0, but: str = "") -> None:
        """Scrape every source now; wait so long at most until each has been. but: one that `scrape_now` is for."""
        loops = [loop for loop in self._loops if loop.sampler.name != but]
        counts = [loop.nudge() for loop in loops]
        deadline_ns = self._clock.now_ns() + int(wait_s * 1e9)
        for loop, count in zip(loops, counts, strict=True):
            loop.await_scrape(count, max(0, deadline_ns - self._clock.now_ns()) / 1e9)

    def scrape_now(self, source: str) -> Page:
        """Scrape one source in this thread; the page is kept, too. A source that is not there is a page that says so."""
        for loop in self._loops:
            if loop.sampler.name == source:
                return loop.scrape()
        return Page(source, "", self._clock.now_ns(), problem=f"{source} is not watched")

    def pages(self) -> list[Page]:
        """Every page kept, source by source, oldest first."""
        return [page for loop in self._loops for page in loop.pages()]

    def forget_before(self, time_ns: int) -> None:
        """Drop older pages."""
        for loop in self._loops:
            loop.forget_before(time_ns)

    def condense(self) -> None:
        """Of the pages kept, leave what still says something once a slice is reduced: when each source refreshed, and its last page.

        Eight GPUs scraped every 100 ms for minutes would be tens of megabytes.
        """
        for loop in self._loops:
            loop.condense()

    def latest_gpus(self) -> dict[str, Gpu]:
        """What the kept pages last said of each GPU, one that has gone included; DCGM says more than Triton."""
        gpus: dict[str, Gpu] = {}
        for loop in sorted(self._loops, key=lambda loop: loop.sampler.name == "dcgm"):
            for page in loop.pages():
                gpus.update(page.gpus)
        return gpus

    def problems(self) -> dict[str, str]:
        """Source -> why its last scrape failed, for those whose did; several exporters' reasons together."""
        found: defaultdict[str, list[str]] = defaultdict(list)
        for loop in self._loops:
            for page in loop.pages()[-1:]:
                if page.problem is not None:
                    found[page.source].append(page.problem)
        return {source: "; ".join(texts) for source, texts in found.items()}


# Refreshes of a source that are kept once a slice is reduced: more than enough to tell how often it does.
MOST_REFRESHES = 300


class _Loop(threading.Thread):
    """One source."""

    def __init__(self, sampler: Sampler, interval_s: float, clock: Clock) -> None:
        super().__init__(name=f"telemetry-{sampler.name}", daemon=True)
        self.sampler = sampler
        self._interval_ns = int(interval_s * 1e9)
        self._clock = clock
        self._pages: deque[Page] = deque()
        # Guards all that follows, and the pages. Scrapes of this thread are numbered from 1.
        self._changed = threading.Condition()
        self._begun = self._ended = self._asked = 0
        self._halted = False

    def run(self) -> None:
        due_ns = self._clock.now_ns()
        while (began_ns := self._await_turn(due_ns)) is not None:
            self.scrape()
            with self._changed:
                self._ended = self._begun
                self._changed.notify_all()
            # To the due time, not by the interval: the scrape's own time does not add up.
            due_ns = max(began_ns + self._interval_ns, self._clock.now_ns())

    def _await_turn(self, due_ns: int) -> int | None:
        """Wait until a scrape is due, or asked for; when it was due, or None at the end."""
        with self._changed:
            wait_s = max(0, due_ns - self._clock.now_ns()) / 1e9
            self._changed.wait_for(lambda: self._halted or self._asked > self._begun, wait_s)
            if self._halted:
                return None
            asked = self._asked > self._begun
            self._begun += 1
            return self._clock.now_ns() if asked else due_ns

    def nudge(self) -> int:
        """Ask for a scrape that begins from now on; its number."""
        with self._changed:
            self._asked = self._begun + 1
            self._changed.notify_all()
            return self._asked

    def await_scrape(self, number: int, timeout_s: float) -> None:
        """Wait until that scrape has ended, or for so long."""
        if self.is_alive():
            with self._changed:
                self._changed.wait_for(lambda: self._halted or self._ended >= number, timeout_s)

    def halt(self) -> None:
        with self._changed:
            self._halted = True
            self._changed.notify_all()

    def scrape(self) -> Page:
        page = self.sampler.sample()
        with self._changed:
            self._pages.append(page)
        return page

    def pages(self) -> list[Page]:
        with self._changed:
            return list(self._pages)

    def forget_before(self, time_ns: int) -> None:
        with self._changed:
            while self._pages and self._pages[0].time_ns < time_ns:
                self._pages.popleft()

    def condense(self) -> None:
        with self._changed:
            pages = list(self._pages)
            refreshed = [page for before, page in pairwise(pages) if _is_new(before, page)]
            kept = [*pages[:1], *refreshed][-MOST_REFRESHES:]
            if pages and kept[-1] is not pages[-1]:
                kept.append(pages[-1])
            self._pages = deque(kept)


def _is_new(before: Page, page: Page) -> bool:
    """Whether a page says what the one before it does not."""
    refreshed = page.fingerprint is not None and page.fingerprint != before.fingerprint
    return refreshed or page.gpus != before.gpus
