"""What helm prints after an install: commands that can be pasted."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from helm_chart import Chart
from restricted import violations


def _commands(notes: str) -> list[str]:
    """The commands: lines that are indented, and the one with a here-document, which is not."""
    return [line.strip() for line in notes.splitlines() if re.match(r" {2}\S", line) and "kubectl" in line]


def test_every_command_names_the_namespace_and_this_release_s_job(chart: Chart, tmp_path: Path) -> None:
    notes = chart.notes(tmp_path, release="july", namespace="bench")
    job = chart.render(release="july", namespace="bench").job["metadata"]["name"]
    commands = _commands(notes)
    assert len(commands) >= 7
    assert all(" -n bench " in command for command in commands)
    assert sum(job in command for command in commands) >= 4
    assert "  model-analyzer fetch --release july -n bench -o july" in notes.splitlines()


def test_commands_are_shell(chart: Chart, tmp_path: Path) -> None:
    if (shell := shutil.which("sh")) is None:
        pytest.skip("there is no sh")
    notes = chart.notes(tmp_path)
    for command in [*_commands(notes), _here_document(notes)]:
        checked = subprocess.run([shell, "-n"], input=command, capture_output=True, text=True, check=False, timeout=60)
        assert checked.returncode == 0, (command, checked.stderr)


def _here_document(notes: str) -> str:
    found = re.search(r"^kubectl .*<<'EOF'\n.*^EOF$", notes, flags=re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[0]


@pytest.mark.parametrize("values", [{}, {"imagePullSecrets": [{"name": "s"}], "results": {"existingClaim": "c"}}])
def test_the_reader_pod_meets_the_restricted_level_and_reads_the_claim(
    chart: Chart, tmp_path: Path, values: dict[str, Any]
) -> None:
    pod = yaml.safe_load("\n".join(_here_document(chart.notes(tmp_path, values)).splitlines()[1:-1]))
    assert violations(pod["spec"]) == []
    claim = chart.render(values).volume("results")["persistentVolumeClaim"]
    assert pod["spec"]["volumes"] == [{"name": "results", "persistentVolumeClaim": claim}]
    assert pod["spec"]["containers"][0]["image"] == chart.render(values).analyzer["image"]
    assert pod["spec"]["automountServiceAccountToken"] is False


def test_waiting_ends_for_a_failed_job_too(chart: Chart, tmp_path: Path) -> None:
    waiting = next(command for command in _commands(chart.notes(tmp_path)) if "conditions" in command)
    pattern = re.search(r"grep -E '([^']+)'", waiting)
    assert pattern is not None
    for ended in ("SuccessCriteriaMet Complete", "FailureTarget Failed"):
        assert re.search(pattern[1], ended)
    for running in ("", "Suspended", "SuccessCriteriaMet", "FailureTarget"):
        assert not re.search(pattern[1], running)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "NVIDIA's image has no models in it"),
        ({"shards": 2}, "model-analyzer merge demo -o demo-merged"),
        ({"shards": 2}, "the claim is ReadWriteOnce"),
        ({"results": {"emptyDir": True}}, "There is no claim (results.emptyDir)"),
        ({"suspend": True}, "It is suspended."),
        ({"ttlSecondsAfterFinished": 0}, "The Job is removed 0 s after its end"),
        ({"job": {"profile_models": ["a"], "export_path": "/x"}}, "these keys of the job have no effect:\nexport_path"),
        (
            {
                "job": {"profile_models": ["a"], "model_repository": "/m", "log_format": "json", "metrics_port": 9},
                "models": {"existingClaim": "m"},
                "logFormat": "text",
            },
            "these keys of the job have no effect:\nlog_format, model_repository",
        ),
        ({"job": {"profile_models": ["a"], "triton_server_flags": {}}}, "Use triton.extraArgs and triton.env"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_particular_is_said(chart: Chart, tmp_path: Path, values: dict[str, Any], said: str) -> None:
    (tmp_path / "with").mkdir()
    assert said in chart.notes(tmp_path / "with", values)
    # ... and only then.
    if values:
        other = {"triton": {"image": {"repository": "localhost/t"}}}
        (tmp_path / "without").mkdir()
        assert said not in chart.notes(tmp_path / "without", other)


def test_shared_claims_that_several_nodes_can_write_draw_no_warning(chart: Chart, tmp_path: Path) -> None:
    assert "the claim is" not in chart.notes(tmp_path, {"shards": 2, "results": {"accessModes": ["ReadWriteMany"]}})


def test_the_claim_that_uninstall_leaves_is_named(chart: Chart, tmp_path: Path) -> None:
    claim = chart.render().one("PersistentVolumeClaim")["metadata"]["name"]
    (tmp_path / "own").mkdir()
    assert f"kubectl -n bench delete pvc/{claim} pod/demo-model-analyzer-test" in chart.notes(tmp_path / "own")
    (tmp_path / "other").mkdir()
    assert "delete pvc" not in chart.notes(tmp_path / "other", {"results": {"existingClaim": "shared"}})
