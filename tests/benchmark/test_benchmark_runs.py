"""The benchmark's own side runs as written: on the real Triton, and the files that measure without a rival."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench import memory
from bench.versus import cost, own, sweep
from bench.versus.context import Context
from bench.versus.rivals import Rivals
from bench.versus.server import Shared, serving


def context(folder: Path, server: Any) -> Context:
    return Context(server, Rivals(Path("perf_analyzer"), None, {}), folder, lambda _line: None, quick=True)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with serving(tmp_path_factory.mktemp("serving")) as running:
        yield running


@pytest.mark.triton
def test_our_side_of_a_pair_counts_what_the_server_counts(tmp_path: Path, server: Shared) -> None:
    plan = cost.Plan(cost.MODEL, (cost.OURS,), (2,), rounds=1, seconds=0.5)
    settings, runs = cost.measure(context(tmp_path, server), plan)
    assert settings == {"model": cost.MODEL, "rounds": 1, "measured_seconds": 0.5}
    assert [run["protocol"] for run in runs] == ["http", "grpc"]
    for run in runs:
        assert "error" not in run, run
        assert run["failed"] == 0
        assert run["requests"] >= 0.5 * run["throughput"]
        assert 0 < run["generator_us"] < run["cpu_us"]


@pytest.mark.triton
def test_a_model_is_loaded_alone(server: Shared) -> None:
    server.only(cost.LARGE)
    assert server._loaded() == [cost.LARGE]
    assert server.count(cost.LARGE) == 0


@pytest.mark.triton
def test_our_sweep_has_its_eight_rows_and_leaves_the_server_empty(tmp_path: Path, server: Shared) -> None:
    found = sweep._swept(context(tmp_path, server), sweep.OURS, "0.5 s a row")
    assert "error" not in found, found
    assert len(found["rows"]) == sweep.ROWS
    assert 0 < found["table_s"] <= found["wall_s"]
    server.only()
    assert server._loaded() == []


def test_a_file_is_asked_as_it_runs_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "neighbour.py").write_text("LIMIT = 3\n")
    (tmp_path / "capacity.py").write_text(
        "from neighbour import LIMIT\n"
        "def measure(quick=False):\n"
        "    return {'figures': [{'name': 'x', 'value': 1 if quick else 2, 'unit': 's', 'goal': LIMIT, 'met': True}], 'raw': []}\n"
    )
    (tmp_path / "startup.py").write_text("def measure(quick=False):\n    raise RuntimeError('no such thing')\n")
    (tmp_path / "store_scale.py").write_text("def main(): ...\n")
    monkeypatch.setattr(own, "FOLDER", tmp_path)
    _, records = own.own(context(tmp_path, None))
    assert [record["module"] for record in records] == ["startup", "capacity"]
    assert "RuntimeError: no such thing" in records[0]["error"]
    assert records[1]["figures"] == [{"name": "x", "value": 1, "unit": "s", "goal": 3, "met": True}]


def test_memory_is_the_peak_of_every_process_and_not_its_last_state(tmp_path: Path) -> None:
    child = "import time; time.sleep(3.0)"  # looked at every 50 ms
    code = (
        f"import subprocess, sys; x = bytearray(80_000_000); del x; subprocess.run([sys.executable, '-c', {child!r}])"
    )
    found = memory.peaks([sys.executable, "-c", code], tmp_path / "log")
    assert len(found) == 2
    most, least = sorted(found.values(), reverse=True)
    assert 80 < most < 130
    assert 4 < least < 40


def test_a_run_that_fails_has_no_memory_figure(tmp_path: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        memory.peaks([sys.executable, "-c", "raise SystemExit(3)"], tmp_path / "log")
