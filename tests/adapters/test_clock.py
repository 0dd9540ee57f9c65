"""The machine's CPU time as the kernel tells it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from model_analyzer.adapters.clock import SystemClock
from model_analyzer.core.steal import CpuTime

TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")


def test_wanted_is_all_but_idle_and_guests_which_are_within_user(tmp_path: Path) -> None:
    stat = tmp_path / "stat"
    #                user nice system idle iowait irq softirq steal guest guest_nice
    stat.write_text("cpu  100 10 50 1000 40 5 5 30 20 7\ncpu0 1 2 3 4 5 6 7 8 9 10\nintr 1\n")
    assert SystemClock(stat).cpu_time() == CpuTime(200 * TICK_NS, 30 * TICK_NS)


@pytest.mark.parametrize(
    "text", ["cpu  100 10 50 1000 40 5 5\n", "", "\n", "cpu0 1 2 3 4 5 6 7 8 9 10\n", "cpu  a b c d e f g h\n"]
)
def test_without_a_count_of_steal_nothing_is_known(tmp_path: Path, text: str) -> None:
    stat = tmp_path / "stat"
    stat.write_text(text)
    assert SystemClock(stat).cpu_time() is None


def test_without_the_file_nothing_is_known(tmp_path: Path) -> None:
    assert SystemClock(tmp_path / "stat").cpu_time() is None


def test_this_machine_is_read() -> None:
    cpu_time = SystemClock().cpu_time()
    assert cpu_time is not None
    assert 0 <= cpu_time.stolen_ns <= cpu_time.wanted_ns
