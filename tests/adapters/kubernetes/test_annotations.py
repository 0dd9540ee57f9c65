"""annotate_job: progress on the Job, by a thread that disturbs nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping

import pytest
from adapters.measured import measured, outlook, phase
from cluster_api import Cluster

from model_analyzer.adapters.kubernetes import annotations
from model_analyzer.adapters.kubernetes.annotations import JobAnnotations, patch_job
from model_analyzer.adapters.kubernetes.api import KubernetesError
from model_analyzer.core.reduce import failed
from model_analyzer.ports import Live

LIVE = Live("measuring", 1234.0, 5.678, 1.0)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same order of events in a tenth of the time."""
    for name, seconds in (("EVERY_S", 0.3), ("SOONEST_S", 0.05), ("AFTER_FAULT_S", 0.1)):
        monkeypatch.setattr(annotations, name, seconds)
    monkeypatch.setattr(annotations, "LAST_S", 30.0)


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_run_is_seen_on_its_job(cluster: Cluster) -> None:
    said: list[str] = []
    progress = JobAnnotations(patch_job("demo-job", "team"), outlook(90.0), said.append)
    progress.begin(3, 1)
    until(lambda: cluster.patches)
    progress.live(phase(batch=4, load=8), LIVE)
    until(lambda: any("1,234" in str(patch) for patch in cluster.patches))
    progress.finished(failed(phase(), "weights.bin is missing"))
    progress.finished(measured(phase()))
    progress.end()
    assert said == []
    assert {(job, kind) for job, kind, _ in cluster.patches} == {
        ("team/demo-job", "application/strategic-merge-patch+json")
    }, "a merge: annotations of others stay"
    told = [body["metadata"]["annotations"] for _, _, body in cluster.patches]
    assert all(set(body) == {"metadata"} and set(body["metadata"]) == {"annotations"} for _, _, body in cluster.patches)
    assert told[0]["model-analyzer.io/progress"] == "1/3"
    assert 30 <= int(told[0]["model-analyzer.io/eta"].removesuffix("s")) <= 90
    running = next(one for one in told if one["model-analyzer.io/phase"])
    assert running["model-analyzer.io/phase"] == ("m_config_default batch 4 concurrency 8: 1,234 infer/s, p99 5.68 ms")
    last = told[-1]
    assert last.pop("model-analyzer.io/updated").endswith("Z")
    assert last == {
        "model-analyzer.io/progress": "3/3",
        "model-analyzer.io/phase": "",
        "model-analyzer.io/errors": "1",
        "model-analyzer.io/eta": "",
    }


def test_shards_of_one_job_have_keys_of_their_own() -> None:
    told: list[Mapping[str, str]] = []
    progress = JobAnnotations(told.append, outlook(90.0), print, "-2")
    progress.begin(3, 0)
    progress.end()
    assert {key.partition("/")[2] for key in told[-1]} == {"progress-2", "phase-2", "errors-2", "eta-2", "updated-2"}


def test_figures_that_change_all_the_time_are_told_now_and_then() -> None:
    told: list[Mapping[str, str]] = []
    progress = JobAnnotations(told.append, outlook(90.0), print)
    began = time.monotonic()
    progress.begin(1, 0)
    while len(told) < 4:
        progress.live(phase(), LIVE)
        time.sleep(0.005)
        assert time.monotonic() - began < 60
    assert len(told) <= 2 + (time.monotonic() - began) / annotations.EVERY_S
    progress.end()


def test_an_api_that_is_slow_holds_up_neither_the_run_nor_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(annotations, "LAST_S", 0.2)
    entered, release = threading.Event(), threading.Event()

    def hang(_: Mapping[str, str]) -> None:
        entered.set()
        release.wait(60)

    progress = JobAnnotations(hang, outlook(90.0), print)
    progress.begin(100, 0)
    assert entered.wait(20)
    began = time.monotonic()
    for number in range(100):
        progress.live(phase(), LIVE)
        progress.finished(measured(phase(batch=1 + number)) if number == 0 else failed(phase(), "x"))
    progress.end()
    assert time.monotonic() - began < 20
    release.set()


def test_a_missing_right_is_told_once_and_never_asked_for_again(cluster: Cluster) -> None:
    cluster.denied.add(("patch", "jobs"))
    said: list[str] = []
    progress = JobAnnotations(patch_job("demo-job", "team"), outlook(90.0), said.append)
    progress.begin(3, 0)
    until(lambda: said)
    for _ in range(3):
        progress.finished(measured(phase()))
        time.sleep(0.1)
    progress.end()
    assert len(cluster.patches) == 1
    (line,) = said
    assert line.startswith("no annotations on the Job: kubernetes API: jane may not patch jobs.batch in namespace team")


def test_a_fault_that_passes_is_told_once_and_the_rest_arrives(cluster: Cluster) -> None:
    cluster.status_of_patch = 500
    said: list[str] = []
    progress = JobAnnotations(patch_job("demo-job", "team"), outlook(90.0), said.append)
    progress.begin(3, 0)
    for count in (1, 2):
        until(lambda count=count: len(cluster.patches) >= count)
        progress.finished(measured(phase()))
    cluster.status_of_patch = 200
    seen = len(cluster.patches)
    progress.finished(measured(phase()))
    until(lambda: len(cluster.patches) > seen)
    progress.end()
    assert len(said) == 1
    assert cluster.patches[-1][2]["metadata"]["annotations"]["model-analyzer.io/progress"] == "3/3"


def test_a_run_outside_of_any_cluster_says_so_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", "/nonexistent")
    said: list[str] = []
    progress = JobAnnotations(patch_job("demo-job", None), outlook(90.0), said.append)
    progress.begin(1, 0)
    until(lambda: said)
    progress.end()
    assert said[0].startswith("no annotations on the Job: /nonexistent: ")


def test_the_end_may_come_before_the_begin() -> None:
    def patch(_: Mapping[str, str]) -> None:
        raise KubernetesError("x", "y", "z")

    JobAnnotations(patch, outlook(1.0), print).end()
