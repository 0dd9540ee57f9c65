"""Models that cannot be measured: a row each with its reason, and the sweep goes on to a healthy one."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from e2e_tools import Job
from fault_tools import remote_keys, write_job

from model_analyzer.errors import PHASES_FAILED

pytestmark = pytest.mark.triton

# Model -> its keys, the status of its row, what the notes must say.
FAULTS: dict[str, tuple[dict[str, Any], str, str]] = {
    "fails_to_load": ({}, "failed", "weights.bin is missing"),
    "stub_dies_at_load": ({}, "failed", "cannot be loaded"),
    "absent": ({}, "failed", "absent: cannot be loaded: failed to load 'absent', failed to poll from model repository"),
    "errors_always": ({}, "failed", "this model always fails"),
    "errors_every_third": ({}, "failed", "of the requests failed: gRPC INTERNAL: every third request fails"),
    "slow": ({}, "failed", "a request takes longer; raise max_seconds"),
    "no_batching": ({"perf_analyzer_flags": {"shape": "INPUT:5"}}, "failed", "INPUT"),
    "dynamic_dims": ({}, "failed", "shape"),
    "breaks_mid_stream": ({}, "failed", "of the requests failed: broke in mid-stream"),
    "identity": ({"parameters": {"batch_sizes": [9]}}, "skipped", "batch size 9 is above the model's max_batch_size 8"),
}


@pytest.fixture(scope="module")
def sweep(
    embedded_server: Any, model_repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[subprocess.CompletedProcess[str], dict[str, dict[str, str]]]:
    """One sweep over all of them and a healthy one last: the process, and its rows by model."""
    models: dict[str, Any] = {name: keys for name, (keys, _, _) in FAULTS.items()}
    job = write_job(
        tmp_path_factory.mktemp("faults"),
        model_repository,
        {**models, "add_sub": {}},
        **remote_keys(embedded_server.info),
    )
    done = job.profile()
    return done, {row["Model"]: row for row in job.rows()}


@pytest.mark.parametrize("model", FAULTS)
def test_a_faulty_model_has_a_row_that_says_why(model: str, sweep: Any) -> None:
    _, status, reason = FAULTS[model]
    _, rows = sweep
    assert rows[model]["Status"] == status
    assert reason in rows[model]["Notes"]


def test_the_sweep_goes_on_to_the_healthy_model_and_ends_with_code_4(sweep: Any) -> None:
    done, rows = sweep
    assert rows["add_sub"]["Status"] == "ok"
    assert len(rows) == len(FAULTS) + 1
    assert done.returncode == PHASES_FAILED, done.stderr
    assert "Traceback" not in done.stderr


def test_faulty_models_leave_the_server_as_it_was(sweep: Any, embedded_server: Any) -> None:
    assert embedded_server.server.loaded_models() == []


def test_a_failed_phase_is_measured_again_and_a_skipped_one_is_not(
    make_job: Callable[..., Job], remote: dict[str, str]
) -> None:
    job = make_job({"absent": {}, "identity": {"parameters": {"batch_sizes": [9]}}}, **remote)
    job.profile()
    again = job.profile()
    assert again.returncode == PHASES_FAILED
    assert "2 phases, 1 of them measured in an earlier run" in again.stderr
    assert len(job.finished()) == 3
    assert [row["Status"] for row in job.rows()] == ["failed", "skipped"]


@pytest.mark.timeout(900)
def test_models_that_take_the_server_down_fail_alone(make_job: Callable[..., Job]) -> None:
    """At load, with a request, and by a stub whose death Triton cannot clean up; our own server is started again."""
    crashing = ("crash_at_load", "crash", "stub_dies")
    # The fixed rule stops the healthy model at min_seconds; Triton needs seconds to see that a stub is dead.
    job = make_job({**{name: {} for name in crashing}, "add_sub": {}}, max_seconds=10)
    done = job.profile(timeout=800)
    assert done.returncode == PHASES_FAILED, done.stderr
    rows = {row["Model"]: row for row in job.rows()}
    assert {name: row["Status"] for name, row in rows.items()} == {**dict.fromkeys(crashing, "failed"), "add_sub": "ok"}
    assert "the server died: tritonserver was ended by SIGKILL" in rows["crash_at_load"]["Notes"]
    assert "the server died in mid-phase, twice: tritonserver was ended by SIGKILL" in rows["crash"]["Notes"]
    assert "Stub process 'stub_dies_0_0' is not healthy" in rows["stub_dies"]["Notes"]
    assert done.stderr.count("embedded Triton 2.") == 6, (
        done.stderr
    )  # the first, two each for two models, one for a stub
