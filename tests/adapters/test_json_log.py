"""log_format: json: every line is one object that a log collector can read."""

from __future__ import annotations

import io
import json
import os
from datetime import datetime
from typing import Any

import pytest
from measured import measured, outlook, phase

from model_analyzer.adapters.json_log import write_line
from model_analyzer.adapters.progress import LINE_EVERY_S, JsonProgress, LineProgress, Several
from model_analyzer.core.reduce import failed
from model_analyzer.ports import Live

LIVE = Live("measuring", 1234.0, 5.678, 1.0)


class Told:
    """A JsonProgress with a clock that the test moves, and what it wrote."""

    def __init__(self) -> None:
        self.stream, self.now = io.StringIO(), 100.0
        self.progress = JsonProgress(outlook(60.0), self.stream, lambda: self.now)

    @property
    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.stream.getvalue().splitlines()]


@pytest.fixture
def told() -> Told:
    return Told()


def test_a_run_is_one_object_a_line_with_counts_and_time_left(told: Told) -> None:
    one, bad = phase(batch=4, load=8), phase("bad")
    told.progress.begin(4, 1)
    told.progress.say("loading m\nand a second line")
    told.now += LINE_EVERY_S
    told.progress.live(one, LIVE)
    told.now += 10
    told.progress.finished(measured(one))
    told.progress.finished(failed(bad, "weights.bin is missing"))
    told.progress.end()
    told.progress.end()
    times = [record.pop("time") for record in told.records]
    assert all(datetime.fromisoformat(time.replace("Z", "+00:00")).utcoffset() is not None for time in times)
    assert all(time.endswith("Z") for time in times)
    begin, say, live, finished, lost, end = ({**record, "time": 0} for record in told.records)
    assert begin == {
        "time": 0, "level": "info", "event": "begin", "message": "4 phases, 1 of them measured in an earlier run",
        "done": 1, "total": 4, "failed": 0, "eta_s": 60.0,
    }  # fmt: skip
    assert say == {"time": 0, "level": "info", "event": "say", "message": "loading m\nand a second line"}
    assert live == {
        "time": 0, "level": "info", "event": "live", "phase": str(one), "id": one.id,
        "message": "m_config_default batch 4 concurrency 8: 1,234 infer/s, p99 5.68 ms",
        "throughput": 1234.0, "p99_ms": 5.678, "done": 1, "total": 4, "failed": 0, "eta_s": 50.0,
    }  # fmt: skip
    assert finished == {
        "time": 0, "level": "info", "event": "finished", "phase": str(one), "id": one.id, "status": "ok",
        "message": "m_config_default batch 4 concurrency 8: ok, 400.0 infer/s, p99 10.00 ms",
        "throughput": 400.0, "p99_ms": 10.0, "done": 2, "total": 4, "failed": 0, "eta_s": 40.0,
    }  # fmt: skip
    assert (lost["level"], lost["status"], lost["failed"]) == ("error", "failed", 1)
    assert "throughput" not in lost, "what is not known is left out"
    assert end["message"] == "3 of 4 phases done, 1 failed"


def test_a_running_phase_comes_now_and_then_and_without_the_figures_that_it_has_not(told: Told) -> None:
    told.progress.begin(1, 0)
    for _ in range(100):
        told.now += LINE_EVERY_S / 20
        told.progress.live(phase(), Live("warm-up", None, None, 0.0))
    lives = [record for record in told.records if record["event"] == "live"]
    assert 4 <= len(lives) <= 5
    assert all("throughput" not in record and "p99_ms" not in record for record in lives)


def test_a_reader_that_has_gone_does_not_end_the_run() -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as stream:
        write_line("say", "hello", stream=stream)
        os.dup2(os.open(os.devnull, os.O_WRONLY), write)


def test_several_are_told_the_same() -> None:
    first, second = io.StringIO(), io.StringIO()
    both = Several([LineProgress(outlook(60.0), first), JsonProgress(outlook(60.0), second)])
    both.begin(2, 0)
    both.say("news")
    both.live(phase(), LIVE)
    both.finished(measured(phase()))
    both.end()
    assert [line[9:].split(";")[0] for line in first.getvalue().splitlines()] == [
        "2 phases",
        "news",
        "[1/2] m_config_default batch 1 concurrency 1: ok, 100.0 infer/s, p99 10.00 ms",
    ]
    assert [json.loads(line)["event"] for line in second.getvalue().splitlines()] == ["begin", "say", "finished", "end"]
