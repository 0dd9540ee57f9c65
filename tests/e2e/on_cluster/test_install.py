"""`helm install` to tables on the laptop, upgrade, uninstall, and releases side by side."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

from cluster_tools import QUICK, Namespace, wait_for

RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}
SWEEP = {**QUICK, "profile_models": ["add_sub"], "batch_sizes": [1, 4], "concurrency": [1, 2]}
PLAN = [("add_sub", batch, load) for batch in ("1", "4") for load in ("1", "2")]


def test_the_quick_start_in_a_restricted_namespace(make_namespace: Callable[..., Namespace], tmp_path: Path) -> None:
    namespace = make_namespace(**RESTRICTED)
    notes = namespace.install("quick", job=SWEEP)
    namespace.completes("quick")

    results = namespace.results_of("quick", tmp_path / "first")
    assert results.phases() == PLAN
    assert {row["Status"] for row in results.rows()} <= {"ok", "unstable"}
    assert results.rows("metrics-model-gpu.csv")
    assert len(results.rows("metrics-server-only.csv")) == 1
    assert "add_sub" in namespace.log_of("quick")
    _notes_work_as_printed(namespace, notes, tmp_path)

    tested = namespace.cluster.run("helm", "test", "quick", "-n", namespace.name, "--logs", timeout=300)
    assert "Succeeded" in tested.stdout

    first = namespace.job_of("quick")["metadata"]["name"]
    namespace.upgrade("quick", job=SWEEP)
    assert namespace.job_of("quick")["metadata"]["name"] == first

    wider = {**SWEEP, "batch_sizes": [1, 4, 8]}
    namespace.upgrade("quick", job=wider)
    second = namespace.job_of("quick")["metadata"]["name"]
    assert second != first
    namespace.completes("quick")
    log = namespace.log_of("quick")
    assert re.search(r"6 phases, 4 of them measured in an earlier run", log), log
    assert namespace.results_of("quick", tmp_path / "second").phases() == [
        *PLAN,
        ("add_sub", "8", "1"),
        ("add_sub", "8", "2"),
    ]

    (claim,) = namespace.items("pvc")
    namespace.uninstall("quick")
    assert not namespace.items("jobs")
    assert [each["metadata"]["uid"] for each in namespace.items("pvc")] == [claim["metadata"]["uid"]]

    namespace.install("quick", job=wider)
    namespace.completes("quick")
    assert "6 phases, 6 of them measured in an earlier run" in namespace.log_of("quick")


def _notes_work_as_printed(namespace: Namespace, notes: str, folder: Path) -> None:
    """Every command of NOTES but the one that deletes the results, in one shell, in their order, in an empty folder."""
    commands = [command for command in commands_of(notes) if "delete pvc" not in command]
    assert any("model-analyzer fetch" in command for command in commands), notes
    place = folder / "notes"
    place.mkdir()
    shell = "set -e -x\n" + "\n".join(commands)
    done = subprocess.run(
        ["bash", "-c", shell],
        cwd=place,
        env=namespace.cluster.user_environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, f"{notes}\n{done.stdout}{done.stderr}"
    assert list(place.rglob("metrics-model-inference.csv")), done.stdout + done.stderr


def commands_of(notes: str) -> list[str]:
    """The lines of NOTES that are indented by two, and what is between `<<'EOF'` and `EOF`: commands and nothing else."""
    commands: list[str] = []
    document = False
    for line in notes.splitlines():
        if document or (re.match(r"(  )?[a-z]", line) and (line.startswith("  ") or line.endswith("<<'EOF'"))):
            commands.append(line if document else line.strip())
            document = line != "EOF" if document else line.endswith("<<'EOF'")
    return commands


def test_two_releases_side_by_side_and_a_third_elsewhere(
    make_namespace: Callable[..., Namespace], tmp_path: Path
) -> None:
    here, there = make_namespace(), make_namespace()
    here.install("one", job={**QUICK, "profile_models": ["add_sub"], "batch_sizes": [1]})
    here.install("two", job={**QUICK, "profile_models": ["add_sub"], "batch_sizes": [2]})
    there.install("one", job={**QUICK, "profile_models": ["add_sub"], "batch_sizes": [3]})
    for number, (namespace, release) in enumerate(((here, "one"), (here, "two"), (there, "one")), start=1):
        namespace.completes(release, timeout=300)
        folder = tmp_path / f"{namespace.name}-{release}"
        assert namespace.results_of(release, folder).phases() == [("add_sub", str(number), "1")]


def test_a_release_that_is_upgraded_while_it_runs_starts_over_with_what_is_measured(
    namespace: Namespace, tmp_path: Path
) -> None:
    slow = {**SWEEP, "min_seconds": 2, "max_seconds": 2}
    namespace.install("busy", job=slow)
    wait_for(lambda: "[1/4]" in _log(namespace), "the first phase", explain=namespace.explain)
    namespace.upgrade("busy", job={**slow, "batch_sizes": [1, 4, 8]})
    namespace.completes("busy", timeout=300)
    assert len(namespace.results_of("busy", tmp_path / "results").rows()) == 6


def _log(namespace: Namespace) -> str:
    pods = namespace.pods_of("busy")
    name = pods[-1]["metadata"]["name"] if pods else "none"
    return namespace.kubectl("logs", name, "-c", "analyzer", check=False)
