from __future__ import annotations

from dataclasses import dataclass

from model_analyzer.adapters.rest import Rest


@dataclass
class Time:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


def test_work_takes_its_share_of_the_time_however_often_it_is_asked_for() -> None:
    time, done = Time(), 0
    rest = Rest(0.02, 0.2, time)
    while time.now < 1000:
        if rest.is_over():
            with rest.after():
                time.now += 2.0
            done += 1
        time.now += 0.5
    assert 8 <= done <= 11


def test_short_work_is_done_each_time() -> None:
    time, done = Time(), 0
    rest = Rest(0.02, 0.2, time)
    for _ in range(100):
        if rest.is_over():
            with rest.after():
                time.now += 0.1
            done += 1
    assert done == 100
