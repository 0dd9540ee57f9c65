"""Runs whose tensors lie in shared memory: measured, and cleaned up after, however they end."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from typing import Any

import pytest
from e2e_tools import COMMAND, PATIENCE_S, Job
from fault_tools import started, wait_for

from model_analyzer.adapters.triton.shared_memory import FOLDER, prefix
from model_analyzer.adapters.triton.wire_api import HttpApi

pytestmark = pytest.mark.triton

SHARED = {"shared_memory": "system"}
LONG: dict[str, Any] = {"min_seconds": 60, "max_seconds": 60}


def regions(pid: int) -> set[str]:
    """The regions of one run in /dev/shm."""
    return {path.name for path in FOLDER.glob(f"{prefix()}{pid}-*")}


def known(remote: dict[str, str], pid: int) -> set[str]:
    """The regions of one run that the server has mapped."""
    found = HttpApi(remote["triton_http_endpoint"]).regions()
    return {name for name in found if name.startswith(f"{prefix()}{pid}-")}


def has_slices(job: Job) -> bool:
    path = job.export_path / "measurements.jsonl"
    return path.exists() and b'"kind":"slice"' in path.read_bytes().replace(b" ", b"")


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_every_phase_is_measured_and_nothing_is_left(
    make_job: Callable[..., Job], remote: dict[str, str], protocol: str
) -> None:
    job = make_job(
        ["add_sub", "large_identity", "identity"],
        batch_sizes=[1, 4],
        concurrency=[1, 16],
        client_protocol=protocol,
        **SHARED,
        **remote,
    )
    with started(job) as run:
        assert run.end() == 0, run.stderr
        assert regions(run.process.pid) == known(remote, run.process.pid) == set()
    rows = job.rows()
    assert len(rows) == 12
    assert all(float(row["Throughput (infer/sec)"]) > 0 for row in rows)
    assert {row["Requests Failed"] for row in rows} == {"0"}


def test_rows_with_and_without_it_are_different_rows(make_job: Callable[..., Job], remote: dict[str, str]) -> None:
    export_path = make_job(["add_sub"]).export_path
    for name, keys in (("sent", {}), ("shared", SHARED), ("again", SHARED)):
        assert make_job(["add_sub"], name, export_path=export_path, **keys, **remote).profile().returncode == 0
    assert len(make_job(["add_sub"]).finished()) == 2


def test_an_interrupted_run_leaves_nothing(make_job: Callable[..., Job], remote: dict[str, str]) -> None:
    job = make_job(["large_identity"], concurrency=[4], **LONG, **SHARED, **remote)
    with started(job) as run:
        wait_for(lambda: has_slices(job))
        assert len(regions(run.process.pid)) == len(known(remote, run.process.pid)) == 1
        os.kill(run.process.pid, signal.SIGTERM)
        assert run.end() == 143, run.stderr
        assert regions(run.process.pid) == set()
        wait_for(lambda: not known(remote, run.process.pid))


@pytest.mark.parametrize("mode", ["embedded", "remote"])
def test_a_killed_run_is_cleaned_up_after_by_the_next(
    make_job: Callable[..., Job], remote: dict[str, str], mode: str
) -> None:
    where = remote if mode == "remote" else {}
    job = make_job(["large_identity"], concurrency=[4], **LONG, **SHARED, **where)
    with started(job) as run:
        wait_for(lambda: has_slices(job))
        assert len(regions(run.process.pid)) == 1
        run.kill()
    # Another job in another place: any run of this user.
    other = make_job(["add_sub"], "other", **where)
    assert other.profile().returncode == 0
    assert regions(run.process.pid) == set()
    assert known(remote, run.process.pid) == set()


def test_a_server_with_another_dev_shm_is_a_failed_row_that_says_so(
    make_job: Callable[..., Job], remote: dict[str, str]
) -> None:
    apart = ["unshare", *([] if os.geteuid() == 0 else ["-Ur"]), "-m"]
    if shutil.which("unshare") is None or subprocess.run([*apart, "true"], check=False).returncode:
        pytest.skip("no mount namespace can be made here")
    job = make_job(["add_sub"], batch_sizes=[1, 2], **SHARED, **remote)
    mounted = 'mount -t tmpfs -o size=64m tmpfs /dev/shm && exec "$@"'
    command = [*apart, "sh", "-c", mounted, "sh", *COMMAND, "profile", "-f", str(job.file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 4, done.stderr
    for row in job.rows():
        assert row["Status"] == "failed"
        assert "does not take shared memory: Unable to open shared memory region" in row["Notes"]
        assert (
            "it must share this host's /dev/shm (a container: --ipc=host), or set shared_memory: none" in row["Notes"]
        )


def test_an_output_that_does_not_fit_fails_its_phase_with_the_sizes(
    make_job: Callable[..., Job], remote: dict[str, str]
) -> None:
    flags = {"shape": "INPUT:100", "output-shared-memory-size": 399}
    job = make_job({"dynamic_dims": {"perf_analyzer_flags": flags}}, **SHARED, **remote)
    with started(job) as run:
        assert run.end() == 4, run.stderr
        assert regions(run.process.pid) == known(remote, run.process.pid) == set()
    (row,) = job.rows()
    assert "should be at least 400 bytes to hold the results" in row["Notes"]
