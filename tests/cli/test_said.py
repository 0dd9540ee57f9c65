"""Errors and warnings as JSON where the log is JSON, and in the pod's termination message."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from model_analyzer.adapters import termination
from model_analyzer.cli import said
from model_analyzer.errors import ServerError

BAD = "model_repository: /m\nprofile_models: [a]\nbatch_sizes: [0]\nbath_sizes: [1]\n"


@pytest.fixture(autouse=True)
def text() -> Any:
    yield
    said.choose(as_json=False)


@pytest.fixture
def message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that the kubelet reads."""
    path = tmp_path / "termination-log"
    path.touch()
    monkeypatch.setenv("TERMINATION_LOG", str(path))
    return path


def test_a_bad_spec_is_told_in_the_termination_message(command: Any, message: Path) -> None:
    Path("job.yaml").write_text(BAD)
    ended = command("profile", "-f", "job.yaml")
    assert ended.code == 2
    assert message.read_text() == ended.err
    assert message.read_text().count("error: job.yaml:") == 2


def test_a_usage_error_is_told_there_too(command: Any, message: Path) -> None:
    ended = command("profile", "--modle-repository", "/m")
    assert ended.code == 2
    assert message.read_text() == ended.err != ""


def test_a_termination_message_is_no_longer_than_the_kubelet_reads(message: Path) -> None:
    termination.leave(["ä" * 3000, "second"])
    assert len(message.read_bytes()) <= termination.MOST_BYTES
    assert message.read_text() == "ä" * 2048, "and no half of a character"


@pytest.mark.parametrize("name", ["", "/nonexistent/termination-log"])
def test_a_message_that_cannot_be_left_changes_nothing(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TERMINATION_LOG", name)
    assert said.error(ServerError("a", "b", "c")) == 3
    assert capsys.readouterr().err == "error: a: b; c\n"


@pytest.mark.parametrize("flag", [["--log-format", "json"], ["--log-format=json"]])
def test_errors_are_json_where_the_command_line_asks_for_it(command: Any, flag: list[str], message: Path) -> None:
    Path("job.yaml").write_text(BAD)
    ended = command("profile", "-f", "job.yaml", *flag)
    records = [json.loads(line) for line in ended.err.splitlines()]
    assert [(record["event"], record["level"], record["exit_code"]) for record in records] == [
        ("error", "error", 2)
    ] * 2
    assert {record["where"] for record in records} == {"job.yaml:3", "job.yaml:4"}
    assert message.read_text().startswith("error: job.yaml:"), "people read that one"


def test_warnings_are_json_where_the_job_asks_for_it(command: Any, measured: list[Any]) -> None:
    Path("job.yaml").write_text(
        "model_repository: /m\nprofile_models: [a]\nlog_format: json\ncheckpoint_directory: x\n"
    )
    ended = command("profile", "-f", "job.yaml")
    records = [json.loads(line) for line in ended.err.splitlines()]
    assert {(record["event"], record["level"]) for record in records} == {("warning", "warning")}
    assert any("checkpoint_directory has no effect" in record["message"] for record in records)
