"""status and tables: what a store holds, without a job spec and without a server."""

from __future__ import annotations

import csv
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from adapters.measured import baseline, measured, phase, piece
from cli.conftest import Command

from model_analyzer.adapters.store import JsonlStore
from model_analyzer.core.reduce import failed
from model_analyzer.core.spec import JobSpec
from model_analyzer.wire import layout_of

ONE, TWO, THREE = phase(load=1), phase(load=2), phase(load=4)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A run of three phases: one is measured, one begun."""
    spec = JobSpec.model_validate({"model_repository": "/m", "profile_models": ["m"]})
    with JsonlStore(tmp_path / "results") as opened:
        ids = [ONE.id, TWO.id, THREE.id]
        run = {"at": "2026-01-01T00:00:00+00:00", "phases": ids, "baseline": "b", "layout": asdict(layout_of(spec))}
        opened.add_run(run)
        for number in range(4):
            opened.add_slice(piece(ONE, number))
        opened.add_measurement(measured(ONE))
        opened.add_slice(piece(TWO))
    return tmp_path / "results"


def test_status_counts_what_is_there_and_what_is_missing(command: Command, results: Path) -> None:
    ended = command("status", "-e", str(results))
    assert ended.code == 4
    assert ended.out.splitlines() == [
        "run of 2026-01-01T00:00:00+00:00: 3 phases",
        f"  {measured(ONE).status}: 1",
        "  not measured yet: 2, 1 of them begun",
        "  server-only baseline: not measured yet",
    ]


def test_status_of_a_finished_run_is_0_and_of_one_with_failures_4(command: Command, results: Path) -> None:
    with JsonlStore(results) as opened:
        opened.add_baseline(baseline())
        for each in (TWO, THREE):
            opened.add_measurement(measured(each))
    ended = command("status", "-e", str(results))
    assert (ended.code, ended.out.splitlines()[-2:]) == (
        0,
        ["  not measured yet: 0", "  server-only baseline: measured"],
    )
    with JsonlStore(results) as opened:
        opened.add_measurement(failed(THREE, "the model is gone"))
    ended = command("status", "-e", str(results))
    assert ended.code == 4
    assert "  failed: 1" in ended.out.splitlines()


def test_tables_makes_the_files_again_from_the_store(command: Command, results: Path) -> None:
    ended = command("tables", "-e", str(results))
    assert ended.code == 0
    assert "infer/s" in ended.out, "the summary"
    with (results / "metrics-model-inference.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["Model"], row["Batch"], row["Concurrency"]) == ("m", "1", "1")
    assert float(row["Throughput (infer/sec)"]) == pytest.approx(100, rel=0.05)


def test_the_summary_prints_a_reason_as_it_is(command: Command, results: Path) -> None:
    reason = "[/models/a] :on: [b] gone"
    with JsonlStore(results) as opened:
        opened.add_measurement(failed(TWO, reason))
    ended = command("tables", "-e", str(results))
    assert ended.code == 0
    assert f"failed: {reason}" in ended.out


def test_rows_of_fewer_repeats_than_asked_are_not_measured_yet_and_say_so(command: Command, tmp_path: Path) -> None:
    spec = JobSpec.model_validate({"model_repository": "/m", "profile_models": ["m"], "repeats": 3})
    results = tmp_path / "results"
    run = {
        "at": "2026-01-01T00:00:00+00:00",
        "phases": [ONE.id, TWO.id],
        "baseline": "b",
        "layout": asdict(layout_of(spec)),
    }
    with JsonlStore(results, asked=3) as opened:
        opened.add_run({**run, "repeats": 3})
        opened.add_measurement(replace(measured(ONE), repeats=3))
        opened.add_measurement(replace(measured(TWO), repeats=1))
    ended = command("status", "-e", str(results))
    assert ended.code == 4
    assert ended.out.splitlines()[1:3] == ["  ok: 1", "  not measured yet: 1, 1 of them begun"]
    command("tables", "-e", str(results))
    with (results / "metrics-model-inference.csv").open(newline="") as file:
        whole, begun = csv.DictReader(file)
    assert (whole["Status"], begun["Status"]) == ("ok", "unstable")
    assert begun["Notes"].startswith("unfinished: 1 of 3 repeats")
    assert "Repeats" in whole
    assert "Throughput CV over Repeats (%)" in whole
