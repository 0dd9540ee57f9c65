"""The docker launch mode as a user runs it, on a real engine."""

from __future__ import annotations

import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from e2e_tools import Job, command, read_csv
from triton_container.engine import Engine
from triton_container.image import REPOSITORY
from triton_container.registry import layer, registry

from model_analyzer.adapters.triton.docker import LABEL

pytestmark = pytest.mark.docker

# Phases that are still running when something happens to them.
LONG = {"min_seconds": 60, "max_seconds": 60}


@pytest.fixture
def image(engine: Engine, triton_version: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The CPU Triton image; commands find the engine."""
    monkeypatch.setenv("DOCKER_HOST", engine.address)
    return f"{REPOSITORY}:{triton_version}-py3"


@pytest.fixture
def docker_job(make_job: Callable[..., Job], engine: Engine, image: str) -> Callable[..., Job]:
    """Write a job of quick phases in a container."""

    def make(models: Any, **keys: Any) -> Job:
        mode = {"triton_launch_mode": "docker", "triton_docker_image": image}
        if not engine.has_bridge:
            mode["triton_docker_args"] = {"network_mode": "host"}  # type: ignore[assignment]
        return make_job(models, **{**mode, **keys})

    return make


def containers(engine: Engine, export_path: Path) -> list[Any]:
    """Those of the run that holds the export path."""
    status = export_path.stat()
    label = f"{LABEL}={status.st_dev}-{status.st_ino}"
    return list(engine.client.containers.list(all=True, ignore_removed=True, filters={"label": label}))


@contextmanager
def ending(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    """A process that does not outlive a failed test."""
    with process:
        try:
            yield process
        except BaseException:
            process.kill()
            raise


def await_line(process: subprocess.Popen[str], words: str) -> None:
    """Read the process's stderr until a line has these words."""
    assert process.stderr
    read = []
    for line in process.stderr:
        read.append(line)
        if words in line:
            return
    raise AssertionError(f"ended without {words!r}: {''.join(read)}")


def await_slice(job: Job) -> None:
    """Wait until a piece of a phase is measured."""
    store = job.export_path / "measurements.jsonl"
    deadline = time.monotonic() + 120
    while not (store.exists() and re.search(rb'"kind": ?"slice"', store.read_bytes())):
        assert time.monotonic() < deadline, "no slice in 120 s"
        time.sleep(0.1)


def test_a_sweep_in_a_container(docker_job: Callable[..., Job], engine: Engine) -> None:
    job = docker_job(["add_sub", "magika"], batch_sizes=[1, 4], concurrency=[1])
    done = job.profile()
    assert done.returncode == 0, done.stderr
    rows = job.rows()
    asked = [(model, batch) for model in ("add_sub", "magika") for batch in ("1", "4")]
    assert [(row["Model"], row["Batch"]) for row in rows] == asked
    assert all(float(row["Throughput (infer/sec)"]) > 0 for row in rows)
    if engine.ours:  # its processes are this host's
        assert all(float(row["RAM Usage (MB)"]) > 0 for row in rows)
    assert [row["Model"] for row in job.rows("metrics-server-only.csv")] == ["triton-server"]
    assert f"in {REPOSITORY}" in done.stderr
    assert "Started HTTPService" in (job.export_path / "triton.log").read_text()
    assert containers(engine, job.export_path) == []


def test_an_interrupted_run_removes_its_container(docker_job: Callable[..., Job], engine: Engine) -> None:
    job = docker_job(["add_sub"], **LONG)
    with ending(job.start()) as process:
        await_slice(job)
        assert len(containers(engine, job.export_path)) == 1
        process.send_signal(signal.SIGINT)
        process.wait(120)
    assert process.returncode == 130
    assert containers(engine, job.export_path) == []


def test_an_interruption_while_the_container_starts_leaves_none(docker_job: Callable[..., Job], engine: Engine) -> None:
    job = docker_job(["add_sub"], **LONG)
    with ending(job.start()) as process:
        deadline = time.monotonic() + 120
        while not (job.export_path.exists() and containers(engine, job.export_path)):
            assert time.monotonic() < deadline
        process.send_signal(signal.SIGTERM)
        process.wait(120)
    assert process.returncode == 143
    assert containers(engine, job.export_path) == []


def test_what_a_killed_run_left_is_removed_by_the_next(docker_job: Callable[..., Job], engine: Engine) -> None:
    job = docker_job(["add_sub"], **LONG)
    with ending(job.start()) as process:
        await_slice(job)
        process.kill()
    (left,) = containers(engine, job.export_path)
    quick = docker_job(["add_sub"], export_path=job.export_path)
    done = quick.profile()
    assert done.returncode == 0, done.stderr
    assert f"removing the container {left.name}, left by a run that was killed" in done.stderr
    assert containers(engine, job.export_path) == []


def test_a_server_that_dies_twice_in_mid_phase_fails_its_row_and_is_started_again(
    docker_job: Callable[..., Job], engine: Engine
) -> None:
    job = docker_job(["crash", "add_sub"])
    done = job.profile()
    assert done.returncode == 4, done.stderr
    crash, add_sub = job.rows()
    assert (crash["Status"], add_sub["Status"]) == ("failed", "ok")
    assert "exited with code 137 (SIGKILL)" in crash["Notes"]
    # Once for the baseline, once after each death: the phase is tried twice.
    assert (job.export_path / "triton.log").read_text().count("Started HTTPService") == 3
    assert containers(engine, job.export_path) == []


def test_on_the_hosts_network(docker_job: Callable[..., Job]) -> None:
    job = docker_job(["add_sub"], triton_docker_args={"network_mode": "host"}, client_protocol="grpc")
    done = job.profile()
    assert done.returncode == 0, done.stderr
    assert job.rows()[0]["Status"] == "ok"


def test_an_image_that_does_not_exist_ends_with_code_3(docker_job: Callable[..., Job]) -> None:
    with registry([layer("a", b"a")]) as name:
        absent = name.replace("test-py3", "99.99-py3")
        done = docker_job(["add_sub"], triton_docker_image=absent).profile()
    assert done.returncode == 3
    (error,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert error.startswith(f"error: {absent}: cannot be pulled: ")


def test_a_pull_can_be_interrupted(docker_job: Callable[..., Job]) -> None:
    with registry([layer("a", bytes(30_000_000))], bytes_per_second=100_000) as name:
        with ending(docker_job(["add_sub"], triton_docker_image=name).start()) as process:
            await_line(process, f"pulling {name}")
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=120)
    assert process.returncode == 130


def test_an_engine_that_does_not_run_ends_with_code_3(
    docker_job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/docker.sock")
    done = docker_job(["add_sub"]).profile()
    assert done.returncode == 3
    assert f"error: docker: no Docker engine answers at unix://{tmp_path}/docker.sock" in done.stderr


@pytest.mark.parametrize(
    "line",
    [
        "-m add_sub --model-folder {models} -e {export} --export -b 1 -c 1 --triton-version {version}",
        "--batch 1 --concurrency 1 --model-names add_sub --triton-version {version} --model-folder {models}"
        " --export --export-path {export}",
    ],
)
def test_both_original_command_lines_measure_on_the_image_of_their_triton_version(
    line: str, image: str, triton_version: str, engine: Engine, model_repository: Path, tmp_path: Path
) -> None:
    if not engine.has_bridge:
        pytest.skip("this engine has no bridge network")
    export = tmp_path / "original"
    done = command(*line.format(models=model_repository, export=export, version=triton_version).split())
    assert done.returncode == 0, done.stderr
    assert f"in {image}" in done.stderr
    (row,) = read_csv(export / "metrics-model-inference.csv")
    assert (row["Model"], row["Batch"], row["Concurrency"]) == ("add_sub", "1", "1")
    assert float(row["Throughput (infer/sec)"]) > 0
    assert containers(engine, export) == []
