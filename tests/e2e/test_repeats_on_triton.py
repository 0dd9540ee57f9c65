"""Repeats on the real server: one row a phase, resumed where it was, and more of them later."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from e2e_tools import Job
from fault_tools import started, wait_for

pytestmark = pytest.mark.triton


def slices(job: Job) -> list[tuple[str, int, int]]:
    """(phase id, repeat, round) of every stored slice, in order."""
    path = job.export_path / "measurements.jsonl"
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    records = [json.loads(line) for line in lines]
    return [(r["data"]["phase_id"], r["data"]["repeat"], r["data"]["round"]) for r in records if r["kind"] == "slice"]


def test_a_run_killed_in_its_second_repeat_goes_on_there_and_more_repeats_measure_only_these(
    make_job: Callable[..., Job],
) -> None:
    # Long enough to be killed in mid-repeat by a test that has to wait for a CPU.
    job = make_job(["add_sub"], concurrency=[1, 2], repeats=2, min_seconds=0.8, max_seconds=0.8)
    with started(job) as run:
        wait_for(lambda: any(repeat == 1 for _, repeat, _ in slices(job)), 120)
        run.kill()
    (one, two) = job.rows()
    assert one["Notes"].startswith("unfinished: 1 of 2 repeats") or one["Repeats"] == "2"
    assert two["Notes"].startswith("unfinished: 1 of 2 repeats")
    done = job.profile()
    assert done.returncode == 0, done.stderr
    assert "loading add_sub_config_default, repeat 2" in done.stderr
    assert len(slices(job)) == len(set(slices(job))), "none was measured twice"
    rows = job.rows()
    assert [(row["Concurrency"], row["Repeats"], row["Status"]) for row in rows] == [("1", "2", "ok"), ("2", "2", "ok")]
    assert all(row["Throughput CV over Repeats (%)"] and row["p99 CV over Repeats (%)"] for row in rows)

    before = len(slices(job))
    more = job.profile("--repeats", "3")
    assert more.returncode == 0, more.stderr
    assert "2 phases x 3 repeats: 6 measurements, 4 of them done in an earlier run" in more.stderr
    assert {repeat for _, repeat, _ in slices(job)[before:]} == {2}
    assert [row["Repeats"] for row in job.rows()] == ["3", "3"]
