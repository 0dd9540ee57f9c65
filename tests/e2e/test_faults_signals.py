"""SIGTERM and Ctrl-C at every stage: an end within seconds, nothing lost, nothing left, a rerun that resumes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from e2e_tools import Job
from fault_tools import Started, assert_nothing_left, catches, running, started, wait_for

pytestmark = pytest.mark.triton

# Asked for: under 5 s, which it takes on a machine of one's own. The rest is for whatever else runs on this one; it is
# less than a slice, a baseline or a request takes in these tests.
SOON_S = 25.0
RESUMES = "run the same command again to resume"
LONG: dict[str, Any] = {"min_seconds": 60, "max_seconds": 60, "slice_seconds": 30}


def _interrupt(run: Started, signum: int, *, group: bool = False, times: int = 1) -> int:
    """Send it as `kill` does, or to the group as a terminal does; the exit code, got in time."""
    began = time.monotonic()
    for _ in range(times):
        (os.killpg if group else os.kill)(run.process.pid, signum)
        time.sleep(0.2)
    code = run.end()
    assert time.monotonic() - began < SOON_S
    assert "Traceback" not in run.stderr, run.stderr
    assert "Exception" not in run.stderr, run.stderr
    assert run.stderr.count(RESUMES) == 1, run.stderr
    assert_nothing_left(run.mark, run.shm_before)
    return code


def _changed(repository: Path, folder: Path, file: str, before: str, after: str) -> str:
    """A repository of one model with one change."""
    name = file.partition("/")[0]
    shutil.copytree(repository / name, folder / "models" / name)
    text = (folder / "models" / file).read_text()
    assert before in text
    (folder / "models" / file).write_text(text.replace(before, after))
    return str(folder / "models")


def test_during_server_start(make_job: Callable[..., Job]) -> None:
    with started(make_job(["add_sub"])) as run:
        wait_for(lambda: running(run.mark, "--model-control-mode"))
        assert _interrupt(run, signal.SIGTERM) == 143


def test_during_the_baseline(make_job: Callable[..., Job]) -> None:
    with started(make_job(["add_sub"], duration_seconds=60)) as run:
        run.wait_for_line("server-only baseline")
        assert _interrupt(run, signal.SIGINT) == 130


def test_twice_while_a_model_loads(make_job: Callable[..., Job], model_repository: Path, tmp_path: Path) -> None:
    own = _changed(model_repository, tmp_path, "slow_to_load/1/model.py", "sleep(12)", "sleep(60)")
    with started(make_job(["slow_to_load"], model_repository=own)) as run:
        wait_for(lambda: running(run.mark, "python_backend_stub"))
        assert _interrupt(run, signal.SIGINT, group=True, times=2) == 130


def test_thrice_during_a_slice(make_job: Callable[..., Job]) -> None:
    with started(make_job(["add_sub"], **LONG)) as run:
        wait_for(lambda: running(run.mark, "model_analyzer.loadgen"))
        assert _interrupt(run, signal.SIGINT, group=True, times=3) == 130


def test_during_a_slice_of_a_slow_model(make_job: Callable[..., Job], model_repository: Path, tmp_path: Path) -> None:
    """A request that takes longer than a person waits holds up neither the unload nor the server's end."""
    own = _changed(model_repository, tmp_path, "slow/config.pbtxt", 'string_value: "5"', 'string_value: "60"')
    with started(make_job(["slow"], model_repository=own, **LONG)) as run:
        wait_for(lambda: running(run.mark, "model_analyzer.loadgen"))
        assert _interrupt(run, signal.SIGTERM) == 143


@pytest.mark.parametrize("model", ["add_sub", "slow"])
def test_on_a_remote_server_the_model_is_unloaded(
    model: str, make_job: Callable[..., Job], remote: dict[str, str], embedded_server: Any
) -> None:
    with started(make_job([model], **LONG, **remote)) as run:
        wait_for(lambda: running(run.mark, "model_analyzer.loadgen"))
        assert _interrupt(run, signal.SIGTERM) == 143
    wait_for(lambda: embedded_server.server.loaded_models() == [])


def test_before_anything_has_begun(make_job: Callable[..., Job], remote: dict[str, str]) -> None:
    """While modules are imported and the store is opened."""
    job = make_job(["add_sub"], duration_seconds=60, **remote)
    for signum, pause_s in ((signal.SIGINT, 0.0), (signal.SIGINT, 0.3), (signal.SIGTERM, 0.6)):
        with started(job) as run:
            # Before that it is a Python that starts. From then on our program answers.
            wait_for(lambda run=run: catches(psutil.Process(run.process.pid), signal.SIGTERM))
            time.sleep(pause_s)
            assert _interrupt(run, signum) == 128 + signum


def test_what_is_finished_is_kept_and_a_rerun_measures_the_rest(
    make_job: Callable[..., Job], remote: dict[str, str]
) -> None:
    """The first model's phase is done, a slice of the second's is under way."""
    job = make_job(["add_sub", "no_batching"], min_seconds=3, max_seconds=3, slice_seconds=1, **remote)
    with started(job) as run:
        run.wait_for_line("loading no_batching")
        assert _interrupt(run, signal.SIGINT) == 130
    kept = job.finished()
    assert len(kept) == 1
    assert [row["Model"] for row in job.rows()] == ["add_sub"]
    again = job.profile()
    assert again.returncode == 0, again.stderr
    assert "2 phases, 1 of them measured in an earlier run" in again.stderr
    assert job.finished()[:1] == kept
    assert [row["Status"] for row in job.rows()] == ["ok", "ok"]


def test_as_process_1_of_a_container(make_job: Callable[..., Job]) -> None:
    """Process 1 has no default actions: without a handler the kernel drops a SIGTERM, and the kubelet waits and kills."""
    inside = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    if subprocess.run([*inside, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("no right to make a PID namespace")
    with started(make_job(["add_sub"], **LONG), before=inside) as run:
        wait_for(lambda: running(run.mark, "model_analyzer.loadgen"))
        (first,) = psutil.Process(run.process.pid).children()
        assert first.name() != "unshare"
        first.send_signal(signal.SIGTERM)
        assert run.end() == 143
        assert run.stderr.count(RESUMES) == 1, run.stderr
        assert_nothing_left(run.mark, run.shm_before)
