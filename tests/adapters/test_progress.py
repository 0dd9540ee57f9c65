"""What a person sees: a live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import io
import os
import re
from dataclasses import dataclass, replace

import pytest
from measured import measured, outlook, phase
from rich.console import Console

from model_analyzer.adapters.progress import LINE_EVERY_S, Eta, LineProgress
from model_analyzer.adapters.terminal import TerminalProgress
from model_analyzer.core.estimate import Outlook
from model_analyzer.core.plan import Group
from model_analyzer.core.reduce import failed
from model_analyzer.core.search import Sweep
from model_analyzer.core.stopping import StopRule
from model_analyzer.ports import Live

LIVE = Live("measuring", 1234.0, 5.678, 1.0)


@dataclass
class Time:
    """Seconds, moved by the test."""

    now: float = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def lines() -> tuple[LineProgress, io.StringIO, Time]:
    stream, now = io.StringIO(), Time()
    return LineProgress(outlook(60.0), stream, now), stream, now


def test_lines_tell_phase_k_of_n_figures_and_time_left(lines: tuple[LineProgress, io.StringIO, Time]) -> None:
    progress, stream, now = lines
    progress.begin(4, 1)
    progress.say("embedded Triton 2.51.0: CPU only (no NVIDIA driver)")
    now.now += LINE_EVERY_S
    progress.live(phase(batch=4, load=8), LIVE)
    now.now += 10
    progress.finished(measured(phase(batch=4, load=8)))
    progress.finished(failed(phase("bad"), "weights.bin is missing"))
    progress.end()
    texts = stream.getvalue().splitlines()
    assert all(re.match(r"\d\d:\d\d:\d\d ", text) for text in texts)
    assert [text[9:] for text in texts] == [
        "4 phases, 1 of them measured in an earlier run; about 1:00 left",
        "embedded Triton 2.51.0: CPU only (no NVIDIA driver)",
        "[1/4] m_config_default batch 4 concurrency 8: 1,234 infer/s, p99 5.68 ms; about 0:50 left",
        "[2/4] m_config_default batch 4 concurrency 8: ok, 400.0 infer/s, p99 10.00 ms; about 0:40 left",
        "[3/4] bad_config_default batch 1 concurrency 1: failed, weights.bin is missing; about 0:40 left",
    ]
    assert "\x1b" not in stream.getvalue()


def test_lines_of_a_running_phase_come_now_and_then(lines: tuple[LineProgress, io.StringIO, Time]) -> None:
    progress, stream, now = lines
    progress.begin(1, 0)
    for _ in range(100):
        now.now += LINE_EVERY_S / 20
        progress.live(phase(), LIVE)
    assert 4 <= len(stream.getvalue().splitlines()) - 1 <= 5


def test_a_phase_in_its_warm_up_shows_the_stage_and_no_figure(lines: tuple[LineProgress, io.StringIO, Time]) -> None:
    progress, stream, now = lines
    progress.begin(1, 0)
    now.now += LINE_EVERY_S
    progress.live(phase(), Live("warm-up", None, None, 0.0))
    assert ": warm-up; about" in stream.getvalue()


def test_a_reader_that_has_gone_does_not_end_the_run() -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w", buffering=1) as stream:
        progress = LineProgress(outlook(1.0), stream)
        progress.begin(1, 0)
        progress.finished(measured(phase()))
        progress.end()
        # What is left in the buffer must not fail at the close, either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), write)


@pytest.fixture
def terminal() -> tuple[TerminalProgress, io.StringIO]:
    stream = io.StringIO()
    return TerminalProgress(outlook(60.0), Console(file=stream, force_terminal=True, width=140)), stream


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


def test_a_terminal_shows_a_bar_with_phase_k_of_n_figures_and_time_left(
    terminal: tuple[TerminalProgress, io.StringIO],
) -> None:
    progress, stream = terminal
    progress.begin(12, 3)
    progress.say("loading add_sub_config_default [x]")
    progress.finished(measured(phase(batch=4, load=8)))
    progress.live(phase(batch=8, load=8), LIVE)
    progress.end()
    text = plain(stream.getvalue())
    assert "3/12" in text
    assert "4/12 m_config_default batch 8 concurrency 8: 1,234 infer/s, p99 5.68 ms" in text
    assert re.search(r"left \d+:\d\d", text)
    assert "loading add_sub_config_default [x]" in text, "news is no markup"
    assert "m_config_default batch 4 concurrency 8: ok, 400.0 infer/s, p99 10.00 ms" in text


def test_the_terminal_is_freed_at_the_end_and_twice(terminal: tuple[TerminalProgress, io.StringIO]) -> None:
    progress, stream = terminal
    progress.begin(1, 0)
    assert "\x1b[?25l" in stream.getvalue(), "the cursor is hidden"
    progress.end()
    progress.end()
    assert (
        stream.getvalue().rstrip().endswith("\x1b[?25h") or "\x1b[?25h" in stream.getvalue().rsplit("\x1b[?25l", 1)[1]
    )


def test_a_run_that_ends_before_it_begins_frees_the_terminal_too(
    terminal: tuple[TerminalProgress, io.StringIO],
) -> None:
    terminal[0].end()


def test_time_left_is_corrected_by_what_the_display_is_told() -> None:
    """The sums are core/estimate.py's; here: that every display feeds one of its own."""
    one = phase()
    planned = Outlook.of([Group(one.variant, (one,))], StopRule("fixed", min_s=4.0), 1.0, 3.0)
    now = Time()
    first, second = Eta(planned, now), Eta(planned, now)
    told = [first.left_s()]
    for before_s in (0.0, 1.0):
        now.now += 20
        first.running(one, Live("warm-up", None, None, 0.0, before_s))
        told.append(first.left_s())
    assert told[-1] > told[0], "20 s a slice, where 1.35 were planned"
    assert second.left_s() != told[-1], "each display has its own"
    assert first.count(measured(one)) == 1
    assert str(first) == "0:00"


def test_phases_that_failed_count_for_all_their_repeats() -> None:
    good, bad = phase(), phase("bad")
    groups = [Group(each.variant, (each,)) for each in (good, bad)]
    stream = io.StringIO()
    progress = LineProgress(Outlook.of(Sweep(groups, repeats=2).left, StopRule(), 0.5, 0.0), stream)
    progress.begin(4, 0)
    progress.finished(replace(measured(good), repeats=1))
    progress.finished(failed(bad, "weights.bin is missing"))
    progress.finished(replace(measured(good), repeats=2))
    lines = [line[9:].split(":")[0] for line in stream.getvalue().splitlines()]
    assert lines[1:] == [
        "[1/4] m_config_default batch 1 concurrency 1",
        "[3/4] bad_config_default batch 1 concurrency 1",
        "[4/4] m_config_default batch 1 concurrency 1, repeat 2",
    ]


def test_repeats_are_counted_as_measurements() -> None:
    stream = io.StringIO()
    progress = LineProgress(outlook(60.0), stream, Time(), repeats=3)
    progress.begin(12, 4)
    assert stream.getvalue()[9:].startswith(
        "4 phases x 3 repeats: 12 measurements, 4 of them done in an earlier run; about "
    )
