"""An export path that cannot be written, is full, vanishes, is in use or holds something else: exit 6, and one line."""

from __future__ import annotations

import shlex
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from e2e_tools import COMMAND, PATIENCE_S, Job, command
from fault_tools import Started, started, wait_for

pytestmark = pytest.mark.triton

STORE = "measurements.jsonl"


def _on_a_mount(job: Job, options: str) -> subprocess.CompletedProcess[str]:
    """`profile` with a tmpfs of its own at the export path, then `status`; the store is copied out beside it.

    In a mount namespace, so that the mount ends with the processes; skips where that is not allowed.
    """
    job.export_path.mkdir()
    there = shlex.quote(str(job.export_path))
    profile, status = (shlex.join([*COMMAND, *words]) for words in (["profile", "-f", str(job.file)], ["status", "-e"]))
    script = (
        f"mount -t tmpfs -o {options} tmpfs {there} || exit 99; {profile}; code=$?; "
        f"{status} {there} >&2; cp {there}/* {there}.copy/ 2>/dev/null; exit $code"
    )
    Path(f"{job.export_path}.copy").mkdir()
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("no unshare(1) to mount a file system with")
    done = subprocess.run(
        [unshare, "--mount", "sh", "-c", script], capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    if done.returncode == 99 or "unshare failed" in done.stderr:
        pytest.skip(f"a file system cannot be mounted here: {done.stderr.strip()}")
    assert "Traceback" not in done.stderr, done.stderr
    return done


def test_read_only(make_job: Callable[..., Job], remote: dict[str, str]) -> None:
    done = _on_a_mount(make_job(["add_sub"], **remote), "ro,size=1m")
    assert done.returncode == 6, done.stderr
    assert "cannot be written (Read-only file system); mount it writable or use another --export-path" in done.stderr


def test_full_from_the_start(make_job: Callable[..., Job], remote: dict[str, str]) -> None:
    done = _on_a_mount(make_job(["add_sub"], **remote), "size=4k")
    assert done.returncode == 6, done.stderr
    assert "cannot be written (No space left on device); free space" in done.stderr


def test_full_in_mid_run(make_job: Callable[..., Job], remote: dict[str, str]) -> None:
    """What was finished before is whole and readable."""
    job = make_job(["add_sub"], concurrency=list(range(1, 33)), **remote)
    done = _on_a_mount(job, "size=72k")
    assert done.returncode == 6, done.stderr
    assert "cannot be written (No space left on device); free space" in done.stderr
    copy = Job(job.file, Path(f"{job.export_path}.copy"))
    finished = copy.finished()
    assert 0 < len(finished) < 32
    assert f"ok: {len(finished)}" in done.stderr
    assert len(copy.rows()) in (len(finished), len(finished) - 1)


def test_renamed_in_mid_run(make_job: Callable[..., Job], remote: dict[str, str], tmp_path: Path) -> None:
    job = make_job(["add_sub"], concurrency=list(range(1, 33)), **remote)
    with started(job) as run:
        wait_for(job.rows)
        job.export_path.rename(tmp_path / "elsewhere")
        assert run.end() == 6, run.stderr
    _vanished(job, run)
    moved = Job(job.file, tmp_path / "elsewhere")
    assert command("status", "-e", str(moved.export_path)).returncode == 4  # phases are missing
    assert len(moved.rows()) > 0


def test_removed_in_mid_run(make_job: Callable[..., Job], remote: dict[str, str]) -> None:
    job = make_job(["add_sub"], duration_seconds=4, **remote)
    with started(job) as run:
        run.wait_for_line("server-only baseline")
        shutil.rmtree(job.export_path)
        assert run.end() == 6, run.stderr
    _vanished(job, run)


def _vanished(job: Job, run: Started) -> None:
    between = "No such file or directory); that folder is gone: put it back"  # after the store's line, before the table
    assert f"{STORE}: was removed or replaced while the run was writing it" in run.stderr or between in run.stderr
    assert "Traceback" not in run.stderr
    assert not job.export_path.exists()  # nothing half made in its place


def test_a_file_in_its_place(make_job: Callable[..., Job], remote: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("something else")
    done = make_job(["add_sub"], export_path=tmp_path / "taken", **remote).profile()
    assert done.returncode == 6
    assert "that is a file: name a folder as --export-path" in done.stderr
    assert (tmp_path / "taken").read_text() == "something else"


def test_two_runs_at_once(make_job: Callable[..., Job], remote: dict[str, str]) -> None:
    job = make_job(["add_sub"], duration_seconds=60, **remote)
    with started(job) as first:
        first.wait_for_line("server-only baseline")
        second = job.profile()
        assert second.returncode == 6
        assert f"is in use by process {first.process.pid} on " in second.stderr
        assert "wait for it to end, or use another --export-path" in second.stderr
        # Beside warnings about the job.
        assert len([line for line in second.stderr.splitlines() if not line.startswith("warning: ")]) == 1
        assert first.process.poll() is None
        first.process.send_signal(signal.SIGTERM)
        assert first.end() == 143


def test_a_damaged_store(make_job: Callable[..., Job], remote: dict[str, str]) -> None:
    """A torn last line is measured again; lines of another version are left alone."""
    job = make_job(["add_sub"], concurrency=[1, 2], **remote)
    job.profile()
    store = job.export_path / STORE
    lines = store.read_bytes().splitlines(keepends=True)
    last = max(n for n, line in enumerate(lines) if b'"kind":"measurement"' in line)
    store.write_bytes(b"".join(lines[:last]) + lines[last][: len(lines[last]) // 2])
    assert command("status", "-e", str(job.export_path)).returncode == 4
    again = job.profile()
    assert again.returncode == 0, again.stderr
    assert "2 phases, 1 of them measured in an earlier run" in again.stderr
    assert len(job.finished()) == len(set(job.finished())) == 2

    other = store.read_bytes().replace(b'"batch_size"', b'"batch"')
    store.write_bytes(other)
    for done in (job.profile(), command("tables", "-e", str(job.export_path))):
        assert done.returncode == 6
        assert "not a record of this version" in done.stderr
        assert "move the file away, or use another --export-path" in done.stderr
        assert "Traceback" not in done.stderr
    assert store.read_bytes() == other
