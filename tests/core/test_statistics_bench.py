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


def test_intervals_of_one_load_miss_what_a_reload_changes_and_those_of_repeats_hold_it(bench: ModuleType) -> None:
    once, thrice = (bench.reloaded(0.10, repeats, 8) for repeats in (1, 3))
    assert thrice["covered"] > once["covered"]
    assert thrice["half_width"] > 2 * once["half_width"]


def test_measure_has_the_figures_of_every_rule_and_judges_none_of_a_short_form(
    bench: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = {"covered": 0.9, "cv_of_ten": 0.02, "seconds": 2.0}
    monkeypatch.setattr(bench, "real_repeats", lambda _count, _seconds: dict.fromkeys(bench.RULES, study))
    monkeypatch.setattr(bench, "reloaded", lambda _cv, repeats, _count: {"repeats": repeats, "covered": 0.95})
    monkeypatch.setattr(bench, "simulated", lambda _names, _count: [{**study, "rule": kind} for kind in bench.RULES])
    short, full = bench.measure(quick=True)["figures"], bench.measure()["figures"]
    assert all({"name", "value", "unit"} <= set(figure) for figure in short)
    assert all(any(f"`{kind}`: measured seconds, Triton" in figure["name"] for figure in short) for kind in bench.RULES)
    assert not any(figure["met"] is not None for figure in short)
    assert [figure["met"] for figure in full if figure["goal"]] == [False, True]


@pytest.mark.triton
def test_every_rule_is_judged_on_the_same_slices_of_the_real_server(bench: ModuleType) -> None:
    found = bench.real_repeats(3, 1.0)
    assert set(found) == {*bench.RULES, "3 repeats"}
    assert all(figures["seconds"] > 0 for figures in found.values())


def test_requests_across_the_ends_of_a_slice_by_their_share_make_repeats_agree_better(bench: ModuleType) -> None:
    found = bench.shares(60)
    assert found["by their share"] < 0.8 * found["whole"]
