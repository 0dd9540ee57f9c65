"""A server process ends with us, however we end, and leaves nothing behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from model_analyzer.adapters.triton.process import ServerProcess

# A server with a stub: the child writes its pid, and neither listens to SIGTERM.
STUBBORN = "trap '' TERM; sleep 100 & echo $! > {pids}; wait; sleep 100"


def shell(script: str, output: Path, shm_prefix: str = "model_analyzer_test_none_") -> ServerProcess:
    with output.open("wb") as stream:
        return ServerProcess(["/bin/sh", "-c", script], dict(os.environ), stream, shm_prefix)


def wait_for(condition, seconds=60.0):
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)
    return value


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1][0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def read_pid(path: Path) -> int:
    return int(wait_for(lambda: path.exists() and path.read_text().strip()))


@pytest.mark.parametrize(
    ("script", "death"),
    [("exit 3", "exited with code 3"), ("kill -9 $$", "was ended by SIGKILL (signal 9)")],
)
def test_a_death_is_told_as_code_or_signal(tmp_path, script, death):
    process = shell(script, tmp_path / "log")
    assert wait_for(process.death) == death
    process.end(1)


def test_a_process_that_runs_has_no_death_and_ends_on_sigterm(tmp_path):
    process = shell("echo ready; exec sleep 100", tmp_path / "log")
    wait_for(lambda: (tmp_path / "log").read_text() == "ready\n")
    assert process.death() is None
    started = time.monotonic()
    process.end(100)
    assert process.death() == "was ended by SIGTERM (signal 15)"
    assert time.monotonic() - started < 30


def test_a_process_deaf_to_sigterm_is_killed_with_its_children(tmp_path):
    process = shell(STUBBORN.format(pids=tmp_path / "pid"), tmp_path / "log")
    child = read_pid(tmp_path / "pid")
    process.end(0.1)
    assert process.death() == "was ended by SIGKILL (signal 9)"
    wait_for(lambda: gone(child))


def test_children_of_a_server_that_dies_end_too(tmp_path):
    process = shell(STUBBORN.format(pids=tmp_path / "pid"), tmp_path / "log")
    child = read_pid(tmp_path / "pid")
    os.kill(process.pid, signal.SIGKILL)
    wait_for(lambda: gone(child))
    process.end(0)


def test_shared_memory_of_its_prefix_is_removed_at_the_end(tmp_path):
    ours = Path(f"/dev/shm/model_analyzer_test_{os.getpid()}_1")
    other = Path(f"/dev/shm/model_analyzer_test_other_{os.getpid()}")
    try:
        ours.touch()
        other.touch()
        shell("sleep 100", tmp_path / "log", f"model_analyzer_test_{os.getpid()}_").end(0)
        assert not ours.exists()
        assert other.exists()
    finally:
        ours.unlink(missing_ok=True)
        other.unlink(missing_ok=True)


def test_a_program_that_is_not_there_exits_and_says_so(tmp_path):
    with (tmp_path / "log").open("wb") as stream:
        process = ServerProcess([str(tmp_path / "absent")], {}, stream, "model_analyzer_test_none_")
    assert wait_for(process.death) == "exited with code 1"
    process.end(0)
    assert (tmp_path / "log").read_text() == f"{tmp_path / 'absent'}: No such file or directory\n"


def test_kill_9_of_us_ends_the_server_and_its_children(tmp_path):
    shared_memory = Path(f"/dev/shm/model_analyzer_test_{os.getpid()}_2")
    shared_memory.touch()
    script = STUBBORN.format(pids=tmp_path / "pid")
    analyzer = f"""
import os, sys, time
sys.path.insert(0, {str(Path(__file__).parents[3])!r})
from model_analyzer.adapters.triton.process import ServerProcess
process = ServerProcess(["/bin/sh", "-c", {script!r}], dict(os.environ), sys.stderr.buffer, {shared_memory.name!r})
print(process.pid, flush=True)
time.sleep(100)
"""
    with subprocess.Popen([sys.executable, "-c", analyzer], stdout=subprocess.PIPE) as us:
        assert us.stdout
        server = int(us.stdout.readline())
        child = read_pid(tmp_path / "pid")
        us.kill()
    try:
        wait_for(lambda: gone(server) and gone(child))
        wait_for(lambda: not shared_memory.exists())
    finally:
        shared_memory.unlink(missing_ok=True)


def test_nothing_of_ours_is_a_child_of_the_server(tmp_path):
    process = shell("sleep 100; true", tmp_path / "log")
    wait_for(lambda: Path(f"/proc/{process.pid}/comm").read_text() == "sh\n")
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    # A child is a copy of its parent until it has begun its own program.
    wait_for(lambda: [Path(f"/proc/{pid}/comm").read_text() for pid in children.read_text().split()] == ["sleep\n"])
    process.end(0)
