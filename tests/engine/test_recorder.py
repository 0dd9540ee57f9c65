from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise

from model_analyzer.adapters.clock import SystemClock
from model_analyzer.core.telemetry import Gpu, Page, Series, cadences
from model_analyzer.engine.recorder import MOST_REFRESHES, Recorder
from model_analyzer.ports import Sampler

NEVER = 3600.0
# How long a test waits for what is to come; and more than a machine that others use, too, holds up what does not wait.
PATIENCE_S, SOON_S = 60.0, 20.0
VALUE = Series("value", "")


@dataclass
class FakeSampler:
    """Numbers its pages. delay_s: how long a scrape takes. fail: pages with a problem. gpus: what a page describes."""

    name: str = "dcgm"
    delay_s: float = 0.0
    fail: bool = False
    gpus: dict[str, Gpu] = field(default_factory=dict)
    threads: list[str] = field(default_factory=list)
    began_ns: list[int] = field(default_factory=list)

    @property
    def scrapes(self) -> int:
        return len(self.threads)

    def sample(self) -> Page:
        self.began_ns.append(time.monotonic_ns())
        self.threads.append(threading.current_thread().name)
        number = float(self.scrapes)
        time.sleep(self.delay_s)
        now = time.monotonic_ns()
        if self.fail:
            return Page(self.name, self.name, now, problem="no answer")
        return Page(self.name, self.name, now, {VALUE: number}, self.gpus)


@dataclass
class HangingSampler(FakeSampler):
    """Its first scrape takes until it may answer."""

    answer: threading.Event = field(default_factory=threading.Event)

    def sample(self) -> Page:
        page = super().sample()
        if page.values[VALUE] == 1:
            assert self.answer.wait(PATIENCE_S)
        return page


@dataclass
class Scripted:
    """Says these pages, one a scrape."""

    left: list[Page]
    name: str = "dcgm"

    def sample(self) -> Page:
        return self.left.pop(0)


@contextmanager
def recording(*samplers: Sampler, interval_s: float = NEVER) -> Iterator[Recorder]:
    recorder = Recorder(samplers, interval_s, SystemClock())
    recorder.start()
    try:
        yield recorder
    finally:
        recorder.stop()


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.002)


def test_scrapes_at_once_and_then_at_the_interval() -> None:
    sampler = FakeSampler()
    started_ns = time.monotonic_ns()
    with recording(sampler, interval_s=0.05):
        eventually(lambda: sampler.scrapes >= 20)
    # A busy machine may miss a few. None comes before it is due.
    assert all(began >= started_ns + n * 50_000_000 for n, began in enumerate(sampler.began_ns))


def test_the_time_of_a_scrape_does_not_add_to_the_interval() -> None:
    sampler = FakeSampler(delay_s=0.2)
    with recording(sampler, interval_s=0.3):
        # Each would be 0.5 s after the one before, at least; a busy machine may be so late, but not always.
        eventually(lambda: any(b - a < 400_000_000 for a, b in pairwise(list(sampler.began_ns))))


def test_a_slow_source_delays_no_other() -> None:
    slow, quick = HangingSampler(), FakeSampler("triton")
    with recording(slow, quick, interval_s=0.01):
        try:
            eventually(lambda: slow.scrapes == 1 and quick.scrapes >= 10)
        finally:
            slow.answer.set()


def test_a_nudge_scrapes_every_source_now_without_waiting() -> None:
    one, two = HangingSampler("dcgm"), FakeSampler("triton")
    with recording(one, two) as recorder:
        try:
            eventually(lambda: (one.scrapes, two.scrapes) == (1, 1))
            before = time.monotonic()
            recorder.nudge()
            assert time.monotonic() - before < SOON_S
            assert one.scrapes == 1
        finally:
            one.answer.set()
        eventually(lambda: len(recorder.pages()) == 4)
        time.sleep(0.1)
        assert (one.scrapes, two.scrapes) == (2, 2), "one nudge, one scrape"


def test_a_nudge_may_wait_for_the_pages() -> None:
    with recording(FakeSampler("dcgm", delay_s=0.05), FakeSampler("triton")) as recorder:
        eventually(lambda: len(recorder.pages()) == 2)
        asked_ns = time.monotonic_ns()
        recorder.nudge(PATIENCE_S)
        assert {page.source for page in recorder.pages() if page.time_ns > asked_ns} == {"dcgm", "triton"}
        assert time.monotonic_ns() - asked_ns < SOON_S * 1e9, "it waits for the pages, not for the whole time"


def test_a_nudge_leaves_out_the_source_that_is_scraped_otherwise() -> None:
    one, two = FakeSampler("dcgm"), FakeSampler("triton")
    with recording(one, two) as recorder:
        eventually(lambda: (one.scrapes, two.scrapes) == (1, 1))
        recorder.nudge(PATIENCE_S, but="triton")
        assert (one.scrapes, two.scrapes) == (2, 1)


def test_a_nudge_waits_for_a_slow_source_no_longer_than_it_was_told() -> None:
    slow = HangingSampler("dcgm")
    with recording(slow, FakeSampler("triton")) as recorder:
        try:
            before = time.monotonic()
            recorder.nudge(0.05)
            assert 0.05 <= time.monotonic() - before < SOON_S
        finally:
            slow.answer.set()


def test_a_nudge_waits_for_a_scrape_that_begins_after_it() -> None:
    sampler = FakeSampler(delay_s=0.15)
    with recording(sampler) as recorder:
        eventually(lambda: sampler.scrapes == 1)  # under way: what it reads may be older than the nudge
        recorder.nudge(PATIENCE_S)
        assert len(recorder.pages()) == 2


def test_a_nudge_of_a_recorder_that_does_not_run_waits_for_nothing() -> None:
    before = time.monotonic()
    Recorder([FakeSampler()], NEVER, SystemClock()).nudge(PATIENCE_S)
    assert time.monotonic() - before < SOON_S


def test_a_nudge_during_a_scrape_is_not_lost() -> None:
    sampler = FakeSampler(delay_s=0.2)
    with recording(sampler) as recorder:
        eventually(lambda: sampler.scrapes == 1)
        recorder.nudge()
        eventually(lambda: len(recorder.pages()) == 2)


def test_scrape_now_runs_in_the_calling_thread_and_keeps_the_page() -> None:
    sampler = FakeSampler("triton")
    with recording(sampler, FakeSampler("dcgm")) as recorder:
        eventually(lambda: len(recorder.pages()) == 2)
        page = recorder.scrape_now("triton")
        assert sampler.threads[-1] == threading.current_thread().name
        assert page in recorder.pages()
        assert page.source == "triton"


def test_scrape_now_does_not_wait_for_the_sources_own_thread() -> None:
    sampler = HangingSampler("triton")
    with recording(sampler) as recorder:
        try:
            eventually(lambda: sampler.scrapes == 1)
            assert recorder.scrape_now("triton").values[VALUE] == 2
        finally:
            sampler.answer.set()


def test_pages_of_one_source_come_oldest_first() -> None:
    with recording(FakeSampler(), interval_s=0.01) as recorder:
        eventually(lambda: len(recorder.pages()) >= 5)
        times = [page.time_ns for page in recorder.pages()]
    assert times == sorted(times)


def test_old_pages_are_forgotten() -> None:
    with recording(FakeSampler(), interval_s=0.02) as recorder:
        eventually(lambda: len(recorder.pages()) >= 5)
        limit = recorder.pages()[-2].time_ns
        recorder.forget_before(limit)
        assert all(page.time_ns >= limit for page in recorder.pages())
        assert recorder.pages()


def test_condensed_pages_still_tell_how_often_a_source_refreshes() -> None:
    # Scraped every 10 ms, refreshed every fifth time.
    sampler = Scripted([Page("dcgm", "a", n * 10_000_000, {VALUE: n // 5}, fingerprint=n // 5) for n in range(23)])
    recorder = Recorder([sampler], NEVER, SystemClock())
    for _ in range(23):
        recorder.scrape_now("dcgm")
    before = cadences(recorder.pages())
    recorder.condense()
    assert cadences(recorder.pages()) == before == {"dcgm": 0.05}
    assert [page.values[VALUE] for page in recorder.pages()] == [0, 1, 2, 3, 4, 4]
    assert recorder.pages()[-1].time_ns == 220_000_000


def test_condensed_pages_of_a_source_that_always_refreshes_are_bounded() -> None:
    count = MOST_REFRESHES + 50
    sampler = Scripted([Page("dcgm", "a", n, {VALUE: n}, fingerprint=n) for n in range(count)])
    recorder = Recorder([sampler], NEVER, SystemClock())
    for _ in range(count):
        recorder.scrape_now("dcgm")
    recorder.condense()
    assert len(recorder.pages()) == MOST_REFRESHES


def test_condensing_keeps_the_last_problem_and_every_gpu_that_was_seen() -> None:
    gone, there = {"GPU-a": Gpu("A")}, {"GPU-b": Gpu("B")}
    pages = [Page("dcgm", "a", 0, {VALUE: 1}, gone, 1), Page("dcgm", "a", 1, {VALUE: 1}, there, 1)]
    sampler = Scripted([*pages, Page("dcgm", "a", 2, problem="no answer"), Page("dcgm", "a", 3, problem="no answer")])
    recorder = Recorder([sampler], NEVER, SystemClock())
    for _ in range(4):
        recorder.scrape_now("dcgm")
    recorder.condense()
    assert recorder.latest_gpus() == {**gone, **there}
    assert recorder.problems() == {"dcgm": "no answer"}


def test_the_last_problem_is_told_and_forgotten_when_it_is_over() -> None:
    sampler = FakeSampler(fail=True)
    with recording(sampler, FakeSampler("triton"), interval_s=0.02) as recorder:
        eventually(lambda: recorder.problems() == {"dcgm": "no answer"})
        sampler.fail = False
        eventually(lambda: recorder.problems() == {})


def test_the_exporter_describes_a_gpu_better_than_triton() -> None:
    exporter = FakeSampler("dcgm", gpus={"GPU-a": Gpu("H100", "0"), "GPU-b": Gpu("H100", "1")})
    # In either order.
    for samplers in ([exporter, FakeSampler("triton", gpus={"GPU-a": Gpu()})],) * 2:
        samplers.reverse()
        with recording(*samplers) as recorder:
            eventually(lambda recorder=recorder: len(recorder.pages()) == 2)  # type: ignore[misc]
            assert recorder.latest_gpus() == exporter.gpus


def test_nothing_is_scraped_after_stop() -> None:
    sampler = FakeSampler()
    with recording(sampler, interval_s=0.01) as recorder:
        eventually(lambda: sampler.scrapes > 2)
    scrapes = sampler.scrapes
    time.sleep(0.1)
    assert sampler.scrapes == scrapes
    assert len(recorder.pages()) == scrapes, "the pages stay"


def test_stop_may_be_called_twice() -> None:
    with recording(FakeSampler()) as recorder:
        recorder.stop()


def test_a_recorder_without_sources_records_nothing() -> None:
    with recording() as recorder:
        recorder.nudge()
        assert (recorder.pages(), recorder.problems(), recorder.latest_gpus()) == ([], {}, {})


def test_many_threads_may_ask_at_once() -> None:
    failures: list[BaseException] = []

    def ask() -> None:
        try:
            for _ in range(200):
                recorder.scrape_now("triton")
                recorder.pages()
                recorder.forget_before(time.monotonic_ns() - 1_000_000)
                recorder.problems()
        except BaseException as error:
            failures.append(error)

    with recording(FakeSampler("triton"), interval_s=0.001) as recorder:
        askers = [threading.Thread(target=ask) for _ in range(4)]
        for asker in askers:
            asker.start()
        for asker in askers:
            asker.join(PATIENCE_S)
    assert failures == []


def test_stop_before_start_does_nothing() -> None:
    Recorder([FakeSampler()], NEVER, SystemClock()).stop()


def test_a_source_that_is_not_there_is_a_page_with_a_problem() -> None:
    before = time.monotonic_ns()
    page = Recorder([FakeSampler("host")], NEVER, SystemClock()).scrape_now("triton")
    assert page.problem
    assert page.time_ns >= before, "the engine takes the bounds of a slice from it"


def test_one_failed_scrape_does_not_lose_the_gpus() -> None:
    sampler = FakeSampler(gpus={"GPU-a": Gpu("H100", "0")})
    with recording(sampler) as recorder:
        eventually(lambda: len(recorder.pages()) == 1)
        sampler.fail = True
        recorder.scrape_now("dcgm")
        assert recorder.latest_gpus() == sampler.gpus


def test_each_of_two_exporters_has_its_problem() -> None:
    class Origin(FakeSampler):
        def sample(self) -> Page:
            return Page("dcgm", self.name, time.monotonic_ns(), problem=f"{self.name}: no answer")

    with recording(Origin("http://one"), Origin("http://two")) as recorder:
        eventually(lambda: len(recorder.pages()) == 2)
        assert recorder.problems() == {"dcgm": "http://one: no answer; http://two: no answer"}
