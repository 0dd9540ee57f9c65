"""plan, validate, schema, and the flags of a job: what they print, and what they leave alone."""

from __future__ import annotations

import json
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cli.conftest import Command

from model_analyzer.adapters.reference import render_schema

JOB = """\
model_repository: models
profile_models: [a, b]
batch_sizes: [1, 4]
concurrency: [1, 8]
"""


@pytest.fixture
def job(tmp_path: Path) -> Path:
    path = tmp_path / "job.yaml"
    path.write_text(JOB)
    return path


def test_plan_prints_each_phase_and_how_long_the_job_takes(command: Command, job: Path) -> None:
    ended = command("plan", "-f", str(job))
    *phases, total = ended.out.splitlines()
    assert ended.code == 0
    assert [line.split("  ")[1] for line in phases] == [
        f"{model}_config_default batch {batch} concurrency {load}"
        for model in "ab"
        for batch in (1, 4)
        for load in (1, 8)
    ]
    assert total.startswith("8 phases of 2 variants, embedded Triton, about ")


def test_plan_touches_nothing(command: Command, job: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        pytest.fail("plan went out of the process")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "bind", refuse)
    for mode in ("remote", "docker", "embedded", "local"):
        assert command("plan", "-f", str(job), "--triton-launch-mode", mode, "-e", "out/there").code == 0
    assert list(tmp_path.iterdir()) == [job]


def test_plan_says_what_a_longer_measurement_costs(command: Command, job: Path) -> None:
    def seconds(*flags: str) -> int:
        minutes, rest = command("plan", "-f", str(job), *flags).out.rsplit("about ", 1)[1].split(" min ")
        return int(minutes) * 60 + int(rest.split()[0])

    assert seconds("--max-seconds", "60") > 2 * seconds("--max-seconds", "10")


def test_a_changed_model_is_another_phase_and_a_missing_folder_is_no_fault(
    command: Command, job: Path, tmp_path: Path
) -> None:
    first = command("plan", "-f", str(job)).out
    assert command("plan", "-f", str(job)).out == first
    (tmp_path / "models" / "a").mkdir(parents=True)
    (tmp_path / "models" / "a" / "config.pbtxt").write_text("")
    second = command("plan", "-f", str(job)).out
    changed = [one != other for one, other in zip(first.splitlines(), second.splitlines(), strict=True)]
    assert changed == [True] * 4 + [False] * 5


def test_flags_win_over_the_file(command: Command, job: Path) -> None:
    out = command("plan", "-f", str(job), "-n", "c", "-b", "2", "-b", "4,6", "-c", "1:3").out
    assert [line.split("  ")[1] for line in out.splitlines()[:-1]] == [
        f"c_config_default batch {batch} concurrency {load}" for batch in (2, 4, 6) for load in (1, 2, 3)
    ]


def test_a_job_is_given_by_flags_alone(command: Command) -> None:
    ended = command("plan", "-m", "/models", "--profile-models", "a,b", "-b", "1", "--request-rate", "10,20")
    assert ended.out.splitlines()[-1].startswith("4 phases of 2 variants")
    assert ended.err == ""


def test_an_empty_value_is_not_as_if_the_flag_were_not_there(command: Command) -> None:
    ended = command("plan", "-n", "a", "-m", "/m", "--triton-http-endpoint", "")
    assert ended.code == 2
    assert ended.errors == ["error: --triton-http-endpoint: triton_http_endpoint is ''; use host:port"]


def test_validate_says_ok_and_how_many_phases(command: Command, job: Path) -> None:
    ended = command("validate", "-f", str(job))
    assert (ended.code, ended.out, ended.err) == (0, "ok: 8 phases\n", "")


def test_validate_prints_every_fault(command: Command, job: Path) -> None:
    job.write_text(JOB + "concurency: 1\nmax_seconds: soon\ngpu_output_fields: [gpu_uid]\n")
    ended = command("validate", "-f", "job.yaml")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.splitlines() == [
        "error: job.yaml:5: unknown key 'concurency'; did you mean 'concurrency'?",
        "error: job.yaml:6: max_seconds is 'soon'; use a number",
        "error: job.yaml:7: output field 'gpu_uid' is unknown; did you mean 'gpu_uuid'?",
    ]


def test_warnings_do_not_fail_a_job(command: Command, job: Path) -> None:
    job.write_text(JOB + "checkpoint_directory: /tmp/x\n")
    ended = command("validate", "-f", "job.yaml")
    assert ended.code == 0
    assert ended.err.startswith("warning: job.yaml:5: checkpoint_directory has no effect: ")


def test_schema_prints_the_schema(command: Command) -> None:
    ended = command("schema")
    assert ended.out == render_schema()
    assert json.loads(ended.out)["$schema"].endswith("2020-12/schema")


def test_profile_measures_the_job(command: Command, job: Path, measured: list[Any]) -> None:
    assert command("profile", "-f", str(job), "-e", "out").code == 0
    (one,) = measured
    assert (len(one.phase_ids), one.export_path.name) == (8, "out")
