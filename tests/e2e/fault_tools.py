"""What the fault tests share: ways to find what a run left behind, and jobs of wider scope than a test."""

from __future__ import annotations

import os
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import yaml
from e2e_tools import COMMAND, QUICK, Job

SHARED_MEMORY = Path("/dev/shm")
PREFIX_FLAG = "shm-region-prefix-name="


def write_job(directory: Path, repository: Path, models: Any, **keys: Any) -> Job:
    """A job of quick phases under `directory`."""
    export_path = directory / "results"
    values = {"model_repository": str(repository), "export_path": str(export_path), "profile_models": models}
    file = directory / "job.yaml"
    file.write_text(yaml.safe_dump({**values, **QUICK, **keys}, sort_keys=False))
    return Job(file, export_path)


def remote_keys(info: Any) -> dict[str, str]:
    """The keys of a job on a running server."""
    return {
        "triton_launch_mode": "remote",
        "triton_http_endpoint": info.http_endpoint,
        "triton_grpc_endpoint": info.grpc_endpoint,
        "triton_metrics_url": info.metrics_url,
    }


def wait_for(condition: Callable[[], Any], timeout_s: float = 120.0, every_s: float = 0.02) -> Any:
    """The first true value of `condition`; fails the test where none comes."""
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline, f"nothing came of {condition} within {timeout_s} s"
        time.sleep(every_s)
    return value


def marked(mark: str) -> list[psutil.Process]:
    """Every process that inherited `mark` in its environment: all that a run has started, and the run itself."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get("FAULT_TEST") == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def running(mark: str, program: str) -> list[psutil.Process]:
    """Those of `marked` whose command line has `program` in it."""
    found = []
    for process in marked(mark):
        with suppress(psutil.Error):
            if program in " ".join(process.cmdline()):
                found.append(process)
    return found


def leftovers(mark: str, before: set[str]) -> list[str]:
    """Processes of a run, and files in /dev/shm that came since `before` and are not an other living server's."""
    processes = []
    for process in marked(mark):
        with suppress(psutil.Error):
            processes.append(f"{process.pid} {' '.join(process.cmdline())[:120]}")
    others = _shm_of_others(mark)
    return processes + [name for name in shared_memory() - before if not name.startswith(others)]


def shared_memory() -> set[str]:
    """Names of our servers' files in /dev/shm."""
    return {path.name for path in SHARED_MEMORY.glob("model_analyzer_*")}


def _shm_of_others(mark: str) -> tuple[str, ...]:
    """Prefixes of servers that run and are not of this run: the session's, and those of tests beside this one."""
    prefixes: list[str] = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get("FAULT_TEST") != mark:
                prefixes += [one.split(PREFIX_FLAG, 1)[1] for one in process.cmdline() if PREFIX_FLAG in one]
    return tuple(prefixes)


def catches(process: psutil.Process, signum: int) -> bool:
    """Whether a process has a handler of its own for a signal."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return bool(int(status.partition("SigCgt:")[2].split()[0], 16) >> (signum - 1) & 1)


def assert_nothing_left(mark: str, before: set[str], timeout_s: float = 30.0) -> None:
    """Fail where a process or a shared memory file of the run outlives it; the guard needs a moment after a kill."""
    deadline = time.monotonic() + timeout_s
    while (left := leftovers(mark, before)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not left


@dataclass
class Started:
    """A run in a session of its own, marked, its stderr read as it comes."""

    process: subprocess.Popen[str]
    mark: str
    shm_before: set[str]
    lines: list[str]
    reader: threading.Thread

    @property
    def stderr(self) -> str:
        """All of it so far."""
        return "".join(self.lines)

    def wait_for_line(self, text: str, timeout_s: float = 120.0) -> None:
        """Until stderr has `text`; fails the test where the run ends without it."""
        wait_for(lambda: text in self.stderr or self.process.poll() is not None, timeout_s)
        assert text in self.stderr, self.stderr

    def end(self, timeout_s: float = 120.0) -> int:
        """Its exit code; all of stderr is read then."""
        code = self.process.wait(timeout_s)
        self.reader.join(60)
        return code

    def kill(self) -> None:
        """SIGKILL; for the clean-up of a test too."""
        self.process.kill()
        self.end()


def _read(stream: Any, lines: list[str]) -> None:
    with stream:
        lines.extend(stream)


@contextmanager
def started(job: Job, *arguments: str, before: Sequence[str] = ()) -> Iterator[Started]:
    """`profile` of a job, running; gone afterwards, whatever the test did. before: a command that runs the command."""
    mark, lines = uuid.uuid4().hex, list[str]()
    process = subprocess.Popen(
        [*before, *COMMAND, "profile", "-f", str(job.file), *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "FAULT_TEST": mark},
    )
    reader = threading.Thread(target=_read, args=(process.stderr, lines), daemon=True)
    run = Started(process, mark, shared_memory(), lines, reader)
    reader.start()
    try:
        yield run
    finally:
        run.kill()
        for orphan in marked(mark):
            with suppress(psutil.Error):
                orphan.wait(30)
