"""A server that dies, comes back, stays away or hangs while a run measures on it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from e2e_tools import Job
from fault_tools import assert_nothing_left, remote_keys, running, started, wait_for

from model_analyzer.adapters.triton.embedded import find_embedded
from model_analyzer.adapters.triton.launch import Launch, free_ports
from model_analyzer.adapters.triton.local import LocalServer
from model_analyzer.core.variant import ServerInfo, ServerSettings

pytestmark = pytest.mark.triton

# Long enough to be hit in mid-phase, in several slices, by a test that has to wait for a CPU.
PHASES: dict[str, Any] = {"concurrency": [1, 2, 3], "min_seconds": 1.2, "max_seconds": 1.2}


class Somebodys:
    """A server on ports that stay the same over its deaths."""

    def __init__(self, repository: Path, log: Path) -> None:
        ports = zip(("http-port", "grpc-port", "metrics-port"), map(str, free_ports("127.0.0.1", 3)), strict=True)
        self._settings = ServerSettings(tuple(ports))
        self._server = LocalServer(Launch(repository, log, monitoring_interval_s=0.2), find_embedded)
        self.info: ServerInfo

    def start(self) -> None:
        self.info = self._server.start(self._settings)

    def signal(self, signum: int) -> None:
        os.kill(self.info.pids[0], signum)

    def stop(self) -> None:
        self._server.grace_s = 0.0
        self._server.stop()

    def models(self) -> list[str]:
        return list(self._server.loaded_models())


@pytest.fixture
def somebodys(embedded_server: Any, model_repository: Path, tmp_path: Path) -> Iterator[Somebodys]:
    server = Somebodys(model_repository, tmp_path / "somebodys.log")
    server.start()
    yield server
    server.stop()


def _first_slice(job: Job) -> Callable[[], bool]:
    store = job.export_path / "measurements.jsonl"
    return lambda: store.exists() and b'"kind":"slice"' in store.read_bytes()


def _statuses(job: Job) -> list[str]:
    return [row["Status"] for row in job.rows()]


def test_a_server_of_our_own_is_started_again(make_job: Callable[..., Job]) -> None:
    job = make_job(["add_sub"], **PHASES)
    with started(job) as run:
        wait_for(_first_slice(job))
        (server,) = [p for p in running(run.mark, "--model-control-mode") if p.name() == "tritonserver"]
        server.kill()
        assert run.end() == 0, run.stderr
        assert_nothing_left(run.mark, run.shm_before)
    assert _statuses(job) == ["ok", "ok", "ok"]
    assert "tritonserver was ended by SIGKILL" in run.stderr
    assert "starting it again" in run.stderr


def test_a_server_that_dies_with_no_model_loaded_costs_no_row(make_job: Callable[..., Job]) -> None:
    job = make_job(["add_sub"], duration_seconds=3)
    with started(job) as run:
        run.wait_for_line("server-only baseline")
        (server,) = [p for p in running(run.mark, "--model-control-mode") if p.name() == "tritonserver"]
        server.kill()
        assert run.end() == 0, run.stderr
    assert _statuses(job) == ["ok"]
    assert run.stderr.count("server-only baseline") == 2
    (baseline,) = job.rows("metrics-server-only.csv")
    assert float(baseline["RAM Usage (MB)"]) > 0


def test_a_remote_server_that_comes_back_is_waited_for(make_job: Callable[..., Job], somebodys: Somebodys) -> None:
    job = make_job(["add_sub"], **PHASES, **remote_keys(somebodys.info), client_max_retries=120)
    with started(job) as run:
        wait_for(_first_slice(job))
        somebodys.signal(signal.SIGKILL)
        run.wait_for_line("waiting for it to come back")
        somebodys.start()
        assert run.end() == 0, run.stderr
    assert _statuses(job) == ["ok", "ok", "ok"]
    assert somebodys.models() == []


def test_a_remote_server_that_stays_away_ends_the_run_with_code_3(
    make_job: Callable[..., Job], somebodys: Somebodys
) -> None:
    models = {"add_sub": {}, "no_batching": {"parameters": {"concurrency": [1, 2]}}}
    job = make_job(models, **remote_keys(somebodys.info), client_max_retries=2, min_seconds=3, max_seconds=3)
    with started(job) as run:
        run.wait_for_line("loading no_batching")
        wait_for(lambda: "no_batching" in somebodys.models())
        somebodys.signal(signal.SIGKILL)
        assert run.end() == 3, run.stderr
    assert "no Triton server answers over grpc after 2 tries" in run.stderr
    assert "Traceback" not in run.stderr
    rows = job.rows()
    assert (rows[0]["Model"], rows[0]["Status"]) == ("add_sub", "ok")
    assert all(row["Status"] == "failed" for row in rows[1:])
    assert len(rows) < 3  # a phase that was never tried is missing, not failed


def test_a_run_on_a_remote_server_that_hangs_can_be_interrupted(
    make_job: Callable[..., Job], somebodys: Somebodys
) -> None:
    job = make_job(["add_sub"], **remote_keys(somebodys.info), min_seconds=90, max_seconds=90, slice_seconds=90)
    with started(job) as run:
        wait_for(lambda: running(run.mark, "model_analyzer.loadgen"))
        time.sleep(1)
        somebodys.signal(signal.SIGSTOP)
        try:
            time.sleep(0.5)
            began = time.monotonic()
            run.process.send_signal(signal.SIGTERM)
            assert run.end() == 143, run.stderr
            # Asked for: 5, on a machine of one's own. Without, it would wait for the slice, and then for the server.
            assert time.monotonic() - began < 25
        finally:
            somebodys.signal(signal.SIGCONT)
        assert_nothing_left(run.mark, run.shm_before)


def test_an_interrupted_load_is_undone_as_soon_as_it_is_done(
    make_job: Callable[..., Job], somebodys: Somebodys
) -> None:
    job = make_job(["slow_to_load"], **remote_keys(somebodys.info))
    log = Path(str(somebodys._server._log.path))
    with started(job) as run:
        run.wait_for_line("loading slow_to_load")
        time.sleep(1)
        run.process.send_signal(signal.SIGINT)
        assert run.end() == 130, run.stderr
        before = log.read_text()
    assert "successfully loaded 'slow_to_load'" not in before, "it waited for the load, which takes 12 s"
    wait_for(lambda: "successfully unloaded 'slow_to_load'" in log.read_text())
    assert somebodys.models() == []
