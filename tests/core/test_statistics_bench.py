"""The regression guard of the statistics: it holds, and notices an interval that promises too much."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from model_analyzer.core import stopping

BENCH = Path(__file__).resolve().parents[2] / "bench" / "statistics_bench.py"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The benchmark as a module, cut down to one server and ten repeats."""
    spec = importlib.util.spec_from_file_location("statistics_bench", BENCH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "statistics_bench", module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "GUARDED", ("levels 15 %, 2 s",))
    monkeypatch.setattr(module, "GUARD_REPEATS", 10)
    return module


def test_the_limits_hold_and_the_tables_are_printed(bench: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.guard() == []
    printed = capsys.readouterr().out
    assert "| levels 15 %, 2 s | `interval` |" in printed
    assert "| outlier |" in printed


def test_an_interval_that_promises_too_much_breaks_them(bench: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopping, "throughput_interval", lambda slices, _moved: bench.naive(slices))
    broken = bench.guard()
    assert any("covered is" in each for each in broken)
    assert any("half_width is" in each for each in broken)


def test_remarks_that_are_never_made_break_them(bench: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "GUARDED", ())
    monkeypatch.setattr(bench, "remarks", lambda _slices: ())
    assert sum("with that trouble only" in each for each in bench.guard()) == len(bench.REMARKS)
