"""`kill -9` at random moments: what is finished stays finished, once; what was started ends."""

from __future__ import annotations

import json
import os
import random
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from e2e_tools import Job, read_csv
from fault_tools import assert_nothing_left, started, wait_for

# Each kill is a start and an end of the whole command, and a server's, too.
pytestmark = [pytest.mark.triton, pytest.mark.timeout(900)]

SEED = int(os.environ.get("FAULT_SEED", "20"))
TABLES = ("metrics-model-inference.csv", "metrics-model-gpu.csv", "metrics-server-only.csv")


class Reader(threading.Thread):
    """Reads the tables all the time, as a script of a user may."""

    def __init__(self, export_path: Path) -> None:
        super().__init__(daemon=True)
        self._export_path, self._halted = export_path, False
        self.faults: list[str] = []
        self.reads = 0

    def run(self) -> None:
        while not self._halted:
            for name in TABLES:
                try:
                    self.reads += len(read_csv(self._export_path / name))
                except (AssertionError, ValueError) as error:
                    self.faults.append(f"{name}: {error!r}")
            time.sleep(0.01)

    def halt(self) -> None:
        self._halted = True
        self.join()


def _slices(job: Job) -> list[tuple[str, int]]:
    """(phase id, round) of every stored slice."""
    path = job.export_path / "measurements.jsonl"
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    records = [json.loads(line) for line in lines]
    return [(r["data"]["phase_id"], r["data"]["round"]) for r in records if r["kind"] == "slice"]


def _kill_until_done(job: Job, moments_s: list[float]) -> int:
    """Run, kill, run again; how many kills found it running. Checks the store after each."""
    reader = Reader(job.export_path)
    reader.start()
    kills, kept = 0, set[str]()
    for moment_s in moments_s:
        with started(job) as run:
            time.sleep(moment_s)
            ended = run.process.poll()
            assert ended in (None, 0), run.stderr
            run.kill()
            assert_nothing_left(run.mark, run.shm_before)
        finished = job.finished()
        assert kept <= set(finished)
        kept = set(finished)
        if ended == 0:
            break
        kills += 1
    done = job.profile()
    assert done.returncode == 0, done.stderr
    reader.halt()
    assert reader.faults == []
    assert reader.reads > 0
    assert [phase for phase, count in Counter(job.finished()).items() if count > 1] == []
    assert [piece for piece, count in Counter(_slices(job)).items() if count > 1] == []
    assert kept <= set(job.finished())
    assert list(job.export_path.glob(".*csv*")) == []  # half written tables
    return kills


def _sweeps(make: Callable[[int], Job], kills: int, latest_s: float) -> None:
    """One sweep after the other until so many kills have hit a running one."""
    print(f"FAULT_SEED={SEED}")  # pytest shows it where the test fails
    chance = random.Random(SEED)
    done = number = 0
    while done < kills:
        number += 1
        job = make(number)
        done += _kill_until_done(job, [chance.uniform(0.3, latest_s) for _ in range(kills - done)])
        assert [row["Status"] for row in job.rows()] == ["ok"] * 8
        assert len(job.finished()) == 8


def _job(make_job: Callable[..., Job], name: str, **keys: Any) -> Job:
    return make_job(["add_sub"], name=name, batch_sizes=[1, 2], concurrency=[1, 2, 3, 4], **keys)


def test_sixteen_kills_on_a_remote_server(
    make_job: Callable[..., Job], remote: dict[str, str], embedded_server: Any
) -> None:
    _sweeps(lambda n: _job(make_job, f"job-{n}", **remote), kills=16, latest_s=3.5)
    # A killed run leaves its model loaded; the run that resumes it knows, and unloads it.
    assert embedded_server.server.loaded_models() == []


def test_four_kills_with_a_server_of_our_own(make_job: Callable[..., Job]) -> None:
    _sweeps(lambda n: _job(make_job, f"own-{n}"), kills=4, latest_s=5.0)


def test_overrides_left_by_a_killed_run_are_not_taken_for_the_models_own_config(
    make_job: Callable[..., Job], remote: dict[str, str], embedded_server: Any
) -> None:
    models = {"add_sub": {"model_config_parameters": {"max_batch_size": 16}}}
    # Long enough to be seen while it is served.
    with started(make_job(models, min_seconds=3, max_seconds=3, **remote)) as run:
        run.wait_for_line("loading add_sub_config_0")
        wait_for(lambda: _served_max_batch_size(remote["triton_http_endpoint"]) == 16)
        run.kill()
    more = make_job(models, concurrency=[1, 2], **remote)
    done = more.profile()
    assert done.returncode == 0, done.stderr
    rows = [(row["Model Config Path"], row["Concurrency"], row["Max Batch Size"]) for row in more.rows()]
    assert rows == [
        ("add_sub_config_default", "1", "64"),
        ("add_sub_config_default", "2", "64"),
        ("add_sub_config_0", "1", "16"),
        ("add_sub_config_0", "2", "16"),
    ]
    assert embedded_server.server.loaded_models() == []


def _served_max_batch_size(endpoint: str) -> int | None:
    try:
        with urllib.request.urlopen(f"http://{endpoint}/v2/models/add_sub/config", timeout=60) as answer:
            return int(json.load(answer)["max_batch_size"])
    except urllib.error.HTTPError:  # not loaded just now
        return None
