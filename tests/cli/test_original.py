"""The command lines of the original tool, at the root without a subcommand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from cli.conftest import Command

FORMS = [
    "-m add_sub,magika --model-folder /models -e out --export -b 1,4 -c 1,8 --triton-version 24.10",
    "--batch 1,4 --concurrency 1,8 --model-names add_sub,magika --triton-version 24.10 --model-folder /models --export --export-path out",
    "-m add_sub -m magika --model-folder /models -e out --export -b 1 -b 4 -c 1 -c 8 --triton-version 24.10",
]


@pytest.mark.parametrize("form", FORMS)
def test_both_forms_measure_the_same_job(command: Command, measured: list[Any], tmp_path: Path, form: str) -> None:
    ended = command(*form.split())
    assert (ended.code, ended.err) == (0, "")
    (job,) = measured
    assert [str(phase) for group in job.groups for phase in group.phases] == [
        f"{model}_config_default batch {batch} concurrency {load}"
        for model in ("add_sub", "magika")
        for batch in (1, 4)
        for load in (1, 8)
    ]
    assert (job.mode, job.spec.triton_docker_image) == ("docker", "nvcr.io/nvidia/tritonserver:24.10-py3")
    assert (job.export_path, job.spec.model_repository) == (tmp_path / "out", "/models")


def test_without_a_version_a_server_is_started_here(command: Command, measured: list[Any]) -> None:
    assert command("-m", "a", "--model-folder", "/models", "-c", "1").code == 0
    assert measured[0].mode == "embedded"


def test_with_tritonserver_on_the_path_it_is_the_local_one(
    command: Command, measured: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "tritonserver"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert command("-m", "a", "--model-folder", "/models", "-c", "1").code == 0
    assert measured[0].mode == "local"


@pytest.mark.parametrize("also", [[], ["-e", "out"]])
def test_without_export_nothing_stays_behind(
    command: Command, measured: list[Any], tmp_path: Path, also: list[str]
) -> None:
    assert command("-m", "a", "--model-folder", "/models", "-c", "1", *also).code == 0
    assert not measured[0].export_path.exists()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("version", ["24.10", "24.10-py3"])
def test_a_version_is_one_and_so_is_the_whole_tag(command: Command, measured: list[Any], version: str) -> None:
    assert command("-m", "a", "--model-folder", "/models", "-c", "1", "--triton-version", version).code == 0
    assert measured[0].spec.triton_docker_image == "nvcr.io/nvidia/tritonserver:24.10-py3"


@pytest.mark.parametrize("version", ["", "24/10", "24.10 ", "-24.10", "image:24.10", "é", "x" * 129])
def test_what_is_no_image_tag_is_refused(command: Command, measured: list[Any], version: str) -> None:
    ended = command("-m", "a", "--model-folder", "/models", f"--triton-version={version}")
    assert (ended.code, measured) == (2, [])
    (line,) = ended.errors
    assert line.startswith(f"error: --triton-version: {version!r} is not a version of Triton's image; ")
