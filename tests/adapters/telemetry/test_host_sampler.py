from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import psutil
import pytest

from model_analyzer.adapters.telemetry import host
from model_analyzer.adapters.telemetry.host import AVAILABLE, CPU, MEMORY, HostSampler, State

MB = 1_000_000

HOLD = "import sys; block = bytearray({size}); block[::4096] = b'x' * len(block[::4096]); print('up', flush=True); "


@contextmanager
def child(code: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdout.readline()
        yield process
    finally:
        process.stdin.close()  # the code reads its end, and so do its own children
        process.stdout.close()
        process.wait(60)


def go_on(process: subprocess.Popen[str]) -> None:
    """Let the code read a line, and wait for what it then says."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    process.stdout.readline()


def test_memory_left_on_the_host() -> None:
    available = HostSampler([os.getpid()]).sample().values[AVAILABLE]
    assert available == pytest.approx(psutil.virtual_memory().available, rel=0.2)


def test_a_server_elsewhere_has_nothing_to_read_here() -> None:
    scraped = HostSampler([]).sample()
    assert (scraped.values, scraped.problem) == ({}, None)


def test_memory_of_the_server() -> None:
    with child(HOLD.format(size=50 * MB) + "sys.stdin.read()") as process:
        used = HostSampler([process.pid]).sample().values[MEMORY]
    assert 50 * MB < used < 80 * MB


def test_memory_that_the_server_takes_later_is_seen() -> None:
    grows = "import sys; print('up', flush=True); sys.stdin.readline(); block = bytearray(b'x') * 30_000_000; "
    with child(grows + "print('grown', flush=True); sys.stdin.read()") as process:
        sampler = HostSampler([process.pid])
        before = sampler.sample().values[MEMORY]
        go_on(process)
        assert sampler.sample().values[MEMORY] > before + 25 * MB


def test_pages_are_not_counted_anew_while_what_is_resident_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def counted(process: psutil.Process) -> SimpleNamespace:
        asked.append(process.pid)
        return SimpleNamespace(uss=7)

    monkeypatch.setattr(psutil.Process, "memory_full_info", counted)
    monkeypatch.setattr(HostSampler, "_tree", lambda *_: {os.getpid(): State(0.0, 10 * MB)})
    sampler = HostSampler([os.getpid()])
    assert [sampler.sample().values[MEMORY] for _ in range(5)] == [7.0] * 5
    assert asked == [os.getpid()]


def test_a_process_that_the_server_starts_later_counts() -> None:
    starts = "import subprocess, sys; print('up', flush=True); sys.stdin.readline(); "
    starts += f"subprocess.run([sys.executable, '-c', {HOLD.format(size=50 * MB) + 'sys.stdin.read()'!r}])"
    with child(starts) as process:
        sampler = HostSampler([process.pid])
        before = sampler.sample().values[MEMORY]
        go_on(process)
        assert sampler.sample().values[MEMORY] > before + 45 * MB


def test_descendants_of_the_server_count() -> None:
    grandchild = HOLD.format(size=50 * MB) + "sys.stdin.read()"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {grandchild!r}])"
    with child(code) as process:
        used = HostSampler([process.pid]).sample().values[MEMORY]
    assert used > 50 * MB


def test_cpu_of_a_busy_server_is_a_core() -> None:
    busy = "import sys, threading; print('up', flush=True); "
    busy += "threading.Thread(target=lambda: sys.stdin.read() or __import__('os')._exit(0)).start()\nwhile True: pass"
    with child(busy) as process:
        sampler = HostSampler([process.pid])
        readings = [_reading(process.pid)]
        assert CPU not in sampler.sample().values, "no rate from one reading"
        readings.append(_reading(process.pid))
        time.sleep(0.5)
        readings.append(_reading(process.pid))
        rate = sampler.sample().values[CPU]
        readings.append(_reading(process.pid))
    # Between what was used within and around the two readings of the sampler, whatever came in between.
    before, began, ended, after = readings
    assert (ended.cpu_s - began.cpu_s) / (after.at_s - before.at_s) <= rate * 1.000001
    assert rate <= (after.cpu_s - before.cpu_s) / (ended.at_s - began.at_s) * 1.000001
    assert rate > 0


def test_cpu_of_an_idle_server_is_nothing() -> None:
    with child("import sys; print('up', flush=True); sys.stdin.read()") as process:
        sampler = HostSampler([process.pid])
        sampler.sample()
        time.sleep(0.3)
        assert sampler.sample().values[CPU] < 0.1


def test_a_server_that_is_gone_is_a_problem() -> None:
    with child("import sys; print('up', flush=True); sys.stdin.read()") as process:
        sampler = HostSampler([process.pid])
    scraped = sampler.sample()
    assert scraped.problem == "the server's processes are gone"
    assert MEMORY not in scraped.values


def test_the_host_is_read_at_each_scrape_and_so_has_no_fingerprint() -> None:
    assert HostSampler([os.getpid()]).sample().fingerprint is None


def test_a_dead_server_that_nobody_waited_for_has_no_memory_figure() -> None:
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    try:
        while psutil.Process(process.pid).status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.01)
        scraped = HostSampler([process.pid]).sample()
        assert MEMORY not in scraped.values
        assert scraped.problem == "the server's processes are gone"
    finally:
        process.wait(10)


def test_scrapes_close_together_give_no_cpu_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    # CPU time comes in ticks of 10 ms: two scrapes 2 ms apart would read 0 or 5 cores.
    monkeypatch.setattr(host, "LEAST_RATE_NS", 60_000_000_000)
    sampler = HostSampler([os.getpid()])
    sampler.sample()
    time.sleep(0.002)
    assert CPU not in sampler.sample().values


def test_close_scrapes_do_not_put_the_rate_off_for_ever() -> None:
    sampler = HostSampler([os.getpid()])
    rates = []
    for _ in range(16):
        rates.append(sampler.sample().values.get(CPU))
        time.sleep(0.02)
    assert any(rate is not None for rate in rates)


def test_memory_that_may_not_be_read_is_absent_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    # As for a container's processes, which belong to root.
    def denied(process: psutil.Process) -> None:
        raise psutil.AccessDenied(process.pid)

    monkeypatch.setattr(psutil.Process, "memory_full_info", denied)
    scraped = HostSampler([os.getpid()]).sample()
    assert MEMORY not in scraped.values
    assert AVAILABLE in scraped.values
    assert "cannot be read" in str(scraped.problem)


def test_a_process_that_ends_does_not_lower_the_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    # The one used 5 s and has gone; the other goes on.
    trees = [{1: State(5.0, 0), os.getpid(): State(1.0, 0)}, {os.getpid(): State(1.1, 0)}]
    monkeypatch.setattr(HostSampler, "_tree", lambda *_: trees.pop(0))
    sampler = HostSampler([1])
    around = time.monotonic()
    sampler.sample()
    within = time.monotonic()
    time.sleep(0.15)
    within = time.monotonic() - within
    rate = sampler.sample().values[CPU]
    assert 0.1 / (time.monotonic() - around) <= rate * 1.000001
    assert rate <= 0.1 / within * 1.000001


class Reading(NamedTuple):
    """What a process has used by some time."""

    at_s: float
    cpu_s: float


def _reading(pid: int) -> Reading:
    times = psutil.Process(pid).cpu_times()
    return Reading(time.monotonic(), times.user + times.system)


def test_processes_are_listed_where_there_is_a_new_one_and_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    listings, newest = [], [b"7\n"]
    monkeypatch.setattr(psutil, "pids", lambda: listings.append(1) or [os.getpid()])
    monkeypatch.setattr(host, "_newest", lambda: newest[-1])
    monkeypatch.setattr(host, "LIST_NS", 10**15)
    sampler = HostSampler([os.getpid()])
    assert [MEMORY in sampler.sample().values for _ in range(3)] == [True] * 3
    assert len(listings) == 1
    newest.append(b"8\n")
    sampler.sample()
    assert len(listings) == 2
    monkeypatch.setattr(host, "LIST_NS", 0)  # where the kernel does not tell
    sampler.sample()
    assert len(listings) == 3


def test_a_new_thread_or_process_is_told() -> None:
    before = host._newest()
    subprocess.run(["true"], check=True)
    assert host._newest() != before


def test_a_process_may_have_any_name(tmp_path: Path) -> None:
    named = tmp_path / "a) Z 1"
    named.symlink_to(sys.executable)
    code = "import sys; print('up', flush=True); sys.stdin.read()"
    with subprocess.Popen([named, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        found = host._state(process.pid)
        assert found is not None
        assert found.rss == pytest.approx(psutil.Process(process.pid).memory_info().rss, rel=0.2)
        process.stdin.close()


def test_a_host_without_proc_says_what_it_can(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(path: str) -> bytes:
        raise FileNotFoundError(path)

    monkeypatch.setattr(host, "_read", missing)
    scraped = HostSampler([os.getpid()]).sample()
    assert scraped.values[AVAILABLE] == pytest.approx(psutil.virtual_memory().available, rel=0.2)
    assert scraped.problem == "the server's processes are gone"
