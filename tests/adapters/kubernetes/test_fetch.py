"""fetch: from `helm install` to a CSV here; what it leaves in the cluster (nothing), and what it says when it cannot."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from adapters.measured import measured, phase
from cluster_api import Cluster, claim, job, pod

from model_analyzer.adapters.kubernetes import fetch as fetching
from model_analyzer.adapters.kubernetes import reader
from model_analyzer.adapters.kubernetes.fetch import MARKER
from model_analyzer.adapters.store import FILENAME, JsonlStore
from model_analyzer.adapters.tables import Layout
from model_analyzer.cli.main import main
from model_analyzer.core.plan import Phase

PLAN = [phase(load=load) for load in (1, 2, 4)]


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "POLL_S", 0.01)
    monkeypatch.setattr(reader, "PATIENCE_S", 0.05)
    monkeypatch.setattr(fetching, "LOOK_EVERY_S", 0.02)


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Any:
    """`model-analyzer fetch --release demo -o results ...`."""

    def fetch(*arguments: str, release: str = "demo", output: str = "results") -> Ended:
        with pytest.raises(SystemExit) as ended:
            main(["fetch", "--release", release, "-o", str(tmp_path / output), *arguments])
        captured = capsys.readouterr()
        return Ended(int(ended.value.code or 0), captured.out, captured.err)

    return fetch


def store(folder: Path, done: list[Phase], plan: list[Phase] = PLAN, at: str = "2026-01-01T00:00:00") -> None:
    """An export path with these phases measured."""
    layout = Layout(("model_name",), ("model_name",), ("model_name",), "inference.csv", "gpu.csv", "server.csv", {})
    record = {"phases": [each.id for each in plan], "baseline": "b", "at": at, "layout": layout}
    with JsonlStore(folder) as opened:
        opened.add_run({**record, "layout": {name: getattr(layout, name) for name in Layout.__slots__}})
        for each in done:
            opened.add_measurement(measured(each))
    (folder / "inference.csv").write_text("Model\nm\n")


@pytest.fixture
def finished(cluster: Cluster) -> Cluster:
    """A release whose Job is complete, its results on a claim."""
    store(cluster.files / "demo", PLAN)
    cluster.jobs.append(job())
    cluster.claims.append(claim())
    cluster.pods["demo-pod"] = pod()
    return cluster


# -- the way ---------------------------------------------------------------------------------------------


def test_one_command_brings_every_file_and_leaves_no_pod(finished: Cluster, run: Any, tmp_path: Path) -> None:
    big = os.urandom(5_000_000)
    (finished.files / "demo" / "deep").mkdir()
    (finished.files / "demo" / "deep" / "big.bin").write_bytes(big)
    ended = run()
    assert ended.code == 0, ended.err
    here = tmp_path / "results"
    assert (here / "deep" / "big.bin").read_bytes() == big
    for name in (FILENAME, "inference.csv"):
        assert (here / name).read_bytes() == (finished.files / "demo" / name).read_bytes()
    assert sorted(path.name for path in here.iterdir()) == [MARKER, "deep", "inference.csv", FILENAME], (
        "no lock, no draft"
    )
    lines = ended.out.splitlines()
    assert lines[0].startswith("3 files, 5.0 MB, of release demo are in ")
    assert lines[-1] == "3 rows of 3 phases: 3 ok"
    (made,) = finished.created
    assert finished.deleted == [made["metadata"]["name"]]
    assert finished.execs == [(made["metadata"]["name"], "reader")]


def test_the_reader_is_let_in_where_restricted_is_enforced_and_cannot_write(finished: Cluster, run: Any) -> None:
    assert run().code == 0
    spec = finished.created[0]["spec"]
    (container,) = spec["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "privileged": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    assert [mount["readOnly"] for mount in container["volumeMounts"]] == [True]
    assert [set(volume) for volume in spec["volumes"]] == [{"name", "persistentVolumeClaim"}]
    assert container["resources"]["limits"], "a quota may ask for limits"


def test_the_reader_is_like_the_jobs_pod_and_goes_by_itself(finished: Cluster, run: Any) -> None:
    """It may pull the image, read the files, stand the node's taints; and ends where nobody ends it."""
    assert run().code == 0
    made = finished.created[0]
    spec, (container,) = made["spec"], made["spec"]["containers"]
    assert (container["image"], container["imagePullPolicy"]) == ("analyzer:1", "Never")
    assert spec["imagePullSecrets"] == [{"name": "registry"}]
    assert spec["serviceAccountName"] == "demo-model-analyzer"
    assert spec["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "tolerationSeconds": 5}]
    assert {spec["securityContext"][key] for key in ("runAsUser", "runAsGroup", "fsGroup")} == {1234}
    assert 0 < spec["activeDeadlineSeconds"] <= 3600
    assert made["metadata"]["ownerReferences"] == [
        {"apiVersion": "batch/v1", "kind": "Job", "name": "demo-job", "uid": "job-uid"}
    ]
    assert made["metadata"]["labels"]["app.kubernetes.io/component"] == "reader"


def test_a_job_that_leaves_its_user_to_the_cluster_has_a_reader_that_does(finished: Cluster, run: Any) -> None:
    finished.jobs[0]["spec"]["template"]["spec"]["securityContext"] = {"runAsNonRoot": True}
    assert run().code == 0
    assert not {"runAsUser", "runAsGroup", "fsGroup"} & finished.created[0]["spec"]["securityContext"].keys()


def node_rule(cluster: Cluster) -> tuple[str, Any]:
    ((kind, rule),) = cluster.created[0]["spec"]["affinity"]["nodeAffinity"].items()
    return kind.partition("During")[0], rule


def test_the_reader_goes_to_the_node_that_has_the_claim(finished: Cluster, run: Any) -> None:
    finished.jobs[:] = [job(state="")]
    finished.pods["demo-pod"] = pod(phase="Running", node="gpu-7")
    assert run().code == 0
    kind, rule = node_rule(finished)
    assert kind == "required"
    assert rule["nodeSelectorTerms"] == [
        {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["gpu-7"]}]}
    ]


@pytest.mark.parametrize(("phase_now", "modes"), [("Succeeded", ["ReadWriteOnce"]), ("Running", ["ReadWriteMany"])])
def test_elsewhere_it_only_prefers_that_node(finished: Cluster, run: Any, phase_now: str, modes: list[str]) -> None:
    finished.pods["demo-pod"] = pod(phase=phase_now)
    finished.claims[:] = [claim(modes=tuple(modes))]
    assert run().code == 0
    assert node_rule(finished)[0] == "preferred"


def test_a_claim_that_one_pod_alone_may_mount_is_read_by_the_analyzer(finished: Cluster, run: Any) -> None:
    finished.jobs[:] = [job(state="")]
    finished.pods["demo-pod"] = pod(phase="Running")
    finished.claims[:] = [claim(modes=("ReadWriteOncePod",))]
    assert run().code == 0
    assert finished.execs == [("demo-pod", "analyzer")]
    assert finished.created == []


def test_results_that_go_with_their_pod_are_fetched_while_it_runs(finished: Cluster, run: Any) -> None:
    volumes = [{"name": "results", "emptyDir": {}}, {"name": "tmp", "emptyDir": {}}]
    finished.jobs[:] = [job(state="", volumes=volumes)]
    finished.pods["demo-pod"] = pod(phase="Running")
    assert run().code == 0
    assert finished.execs == [("demo-pod", "analyzer")]
    finished.jobs[:] = [job(volumes=volumes)]
    finished.pods["demo-pod"] = pod()
    gone = run()
    assert gone.code == 2
    assert "release demo: its results were on a volume that went with its pod" in gone.err


def test_an_uninstalled_release_is_read_from_the_claim_that_it_left(finished: Cluster, run: Any) -> None:
    finished.jobs.clear()
    finished.pods.clear()
    blind = run()
    assert blind.code == 2
    assert "its Job is gone, so that the reader's image is not known; give --image" in blind.err
    ended = run("--image", "python:3.12-slim")
    assert ended.code == 0, ended.err
    assert finished.created[0]["spec"]["containers"][0]["image"] == "python:3.12-slim"


def test_the_last_export_path_of_the_job_s_command_line_counts(finished: Cluster, run: Any, tmp_path: Path) -> None:
    store(finished.files / "last", PLAN[:1])
    finished.jobs[0]["spec"]["template"]["spec"]["containers"][0]["args"] += ["-e=/results/no", "-e", "/results/last"]
    ended = run()
    assert ended.code == 0, ended.err
    assert ended.out.splitlines()[-1] == "1 rows of 3 phases: 1 ok"


def test_another_folder_and_claim_may_be_named(finished: Cluster, run: Any, tmp_path: Path) -> None:
    store(finished.files / "other", PLAN[:1])
    finished.claims.append({**claim("spare"), "metadata": {**claim("spare")["metadata"], "labels": {}}})
    ended = run("--path", "/results/other", "--claim", "spare-results")
    assert ended.code == 0, ended.err
    assert ended.out.splitlines()[-1] == "1 rows of 3 phases: 1 ok"
    assert finished.created[0]["spec"]["volumes"][0]["persistentVolumeClaim"] == {"claimName": "spare-results"}


def test_a_run_that_goes_on_is_fetched_as_far_as_it_is(finished: Cluster, run: Any) -> None:
    running = job(state="")
    running["metadata"]["annotations"] = {"model-analyzer.io/progress": "2/3"}
    finished.jobs[:] = [running]
    (finished.files / "demo" / FILENAME).unlink()
    store(finished.files / "demo", PLAN[:2])
    ended = run()
    assert ended.code == 0
    assert "job demo-job is running, 2/3 phases: fetching what is there so far" in ended.err
    assert ended.out.splitlines()[-1] == "2 rows of 3 phases: 2 ok"


def test_a_second_fetch_refreshes(finished: Cluster, run: Any, tmp_path: Path) -> None:
    assert run().code == 0
    (finished.files / "demo" / "inference.csv").write_text("Model\nm\nn\n")
    assert run().code == 0
    assert (tmp_path / "results" / "inference.csv").read_text() == "Model\nm\nn\n"


def test_shards_become_one_set_of_tables(finished: Cluster, run: Any, tmp_path: Path) -> None:
    for name in (FILENAME, "inference.csv"):
        (finished.files / "demo" / name).unlink()
    store(finished.files / "demo" / "shard-0", PLAN[:2])
    store(finished.files / "demo" / "shard-1", PLAN[2:])
    for _ in range(2):
        ended = run()
        assert ended.code == 0, ended.err
        assert ended.out.splitlines()[-1] == "3 rows of 3 phases: 3 ok"
        assert len((tmp_path / "results" / "inference.csv").read_text().splitlines()) == 4


def test_shards_after_a_run_in_one_pod_are_merged_beside_its_tables(
    finished: Cluster, run: Any, tmp_path: Path
) -> None:
    more = [*PLAN, phase(load=8)]
    store(finished.files / "demo" / "shard-0", more[2:], more, at="2026-01-02T00:00:00")
    for _ in range(2):
        ended = run()
        assert "warning" not in ended.err
        assert ended.out.splitlines()[-1] == "4 rows of 4 phases: 4 ok"
        assert str(tmp_path / "results" / "merged" / "inference.csv") in ended.out
        assert len((tmp_path / "results" / "merged" / "inference.csv").read_text().splitlines()) == 5


def test_shards_before_a_run_in_one_pod_leave_its_tables_alone(finished: Cluster, run: Any, tmp_path: Path) -> None:
    store(finished.files / "demo" / "shard-0", PLAN[:1], at="2025-12-31T00:00:00")
    ended = run()
    assert "warning" not in ended.err
    assert ended.out.splitlines()[-1] == "3 rows of 3 phases: 3 ok"
    assert not (tmp_path / "results" / "merged").exists()


# -- waiting ---------------------------------------------------------------------------------------------


def test_wait_follows_the_job_to_its_end(finished: Cluster, run: Any) -> None:
    running = job(state="")
    running["metadata"]["annotations"] = {"model-analyzer.io/progress": "1/3"}
    finished.jobs[:] = [running]

    def looked(times: int) -> None:
        """Until the Job was looked at so often; the last look may still be unanswered."""
        deadline = time.monotonic() + 30
        while sum(path.endswith("/jobs") for _, path in finished.requests) < times and time.monotonic() < deadline:
            time.sleep(0.005)

    def end() -> None:
        looked(2)
        running["metadata"]["annotations"]["model-analyzer.io/progress"] = "2/3"
        looked(5)
        finished.jobs[:] = [job()]

    thread = threading.Thread(target=end)
    thread.start()
    ended = run("--wait")
    thread.join()
    assert ended.code == 0, ended.err
    assert ended.err.splitlines() == [
        "job demo-job: running, 1/3 phases",
        "job demo-job: running, 2/3 phases",
        "job demo-job: complete",
    ]


def test_wait_ends_as_the_job_did(finished: Cluster, run: Any) -> None:
    finished.jobs[:] = [job(state="Failed")]
    terminated = {"exitCode": 4, "reason": "Error", "message": "1 of 3 phases failed"}
    statuses = [{"name": "analyzer", "image": "i", "imageID": "", "ready": False, "restartCount": 0}]
    statuses[0]["state"] = {"terminated": terminated}
    finished.pods["demo-pod"] = pod(phase="Failed", containerStatuses=statuses)
    ended = run("--wait")
    assert ended.code == 4
    assert "warning: the Job failed: PodFailurePolicy: exit code 2" in ended.err
    assert ended.out.splitlines()[-1] == "3 rows of 3 phases: 3 ok", "what there is was fetched"
    assert run().code == 0, "not waited for: the copy is what was asked for"


def test_a_reader_does_not_end_with_a_job_that_ends_by_itself(finished: Cluster, run: Any) -> None:
    finished.jobs[0]["spec"]["ttlSecondsAfterFinished"] = 0
    assert run().code == 0
    assert "ownerReferences" not in finished.created[0]["metadata"]


def test_a_job_that_is_removed_at_its_end_is_fetched_by_who_waited(finished: Cluster, run: Any, tmp_path: Path) -> None:
    store(finished.files / "other", PLAN[:2])
    running = job(state="")
    running["spec"]["template"]["spec"]["containers"][0]["args"][-1] = "/results/other"
    finished.jobs[:] = [running]

    def remove() -> None:
        deadline = time.monotonic() + 30
        while sum(path.endswith("/jobs") for _, path in finished.requests) < 3 and time.monotonic() < deadline:
            time.sleep(0.005)
        finished.jobs.clear()

    thread = threading.Thread(target=remove)
    thread.start()
    ended = run("--wait")
    thread.join()
    assert ended.code == 0, ended.err
    assert "job demo-job: gone" in ended.err.splitlines()
    (reader_pod,) = finished.created
    assert reader_pod["spec"]["containers"][0]["image"] == "analyzer:1"
    # Neither would let it start, or last: its account may be gone, too.
    assert "ownerReferences" not in reader_pod["metadata"]
    assert "serviceAccountName" not in reader_pod["spec"]
    assert len((tmp_path / "results" / "inference.csv").read_text().splitlines()) == 2


def test_wait_says_why_no_pod_was_let_in(finished: Cluster, run: Any) -> None:
    refused = job(state="")
    refused["status"] = {"startTime": "2026-01-01T00:00:00Z"}
    finished.jobs[:] = [refused]
    finished.pods.clear()
    why = 'Error creating: pods "demo-job-" is forbidden: exceeded quota: gpus'
    finished.events.append(
        {
            "metadata": {"name": "e", "namespace": "default"},
            "involvedObject": {"kind": "Job", "name": "demo-job"},
            "type": "Warning",
            "reason": "FailedCreate",
            "message": why,
        }
    )
    ended = run("--wait", "--timeout", "1")
    assert f"job demo-job: pending, FailedCreate: {why}" in ended.err.splitlines()


def test_wait_says_why_a_pod_does_not_start_and_gives_up_in_time(finished: Cluster, run: Any) -> None:
    waiting = job(state="")
    waiting["status"] = {"active": 1}
    finished.jobs[:] = [waiting]
    scheduled = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
    scheduled["message"] = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
    finished.pods["demo-pod"] = pod(phase="Pending", node=None, conditions=[scheduled])
    ended = run("--wait", "--timeout", "1")
    assert ended.code == 3
    assert ended.err.splitlines()[-1] == (
        "error: job demo-job: is pending, pod demo-pod Unschedulable: 0/3 nodes are available: 3 Insufficient "
        "nvidia.com/gpu. after 1 s; wait longer by --timeout, or fetch what is there without --wait"
    )
    assert finished.created == []


# -- what it says when it cannot -------------------------------------------------------------------------


def only_error(ended: Ended) -> str:
    """The one error line, and no traceback."""
    errors = [line for line in ended.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, ended.err
    assert "Traceback" not in ended.err
    return errors[0].removeprefix("error: ")


def test_no_such_release_names_those_that_exist(finished: Cluster, run: Any) -> None:
    ended = run(release="dmeo")
    assert ended.code == 2
    assert only_error(ended) == "release dmeo: is not in namespace default; there is demo"


def test_no_such_release_here_names_those_of_other_namespaces(finished: Cluster, run: Any) -> None:
    finished.jobs[:] = [job(namespace="team-a")]
    finished.claims.clear()
    assert only_error(run()) == "release demo: is not in namespace default; there is demo -n team-a"
    finished.denied.add(("list", "jobs"))
    denied = run()
    assert denied.code == 3
    assert only_error(denied).startswith("kubernetes API: jane may not list jobs.batch in namespace default")


@pytest.mark.parametrize(("verb", "resource"), [("list", "pods"), ("create", "pods")])
def test_a_missing_right_is_named(finished: Cluster, run: Any, verb: str, resource: str) -> None:
    finished.denied.add((verb, resource))
    ended = run()
    assert ended.code == 3
    assert f"jane may not {verb} {resource} in namespace default (HTTP 403); grant it the verb" in only_error(ended)


def test_a_claim_that_may_not_be_read_is_no_obstacle(finished: Cluster, run: Any) -> None:
    finished.denied.add(("get", "persistentvolumeclaims"))
    assert run().code == 0


def test_no_right_to_exec_is_named_and_the_reader_is_removed(finished: Cluster, run: Any) -> None:
    finished.denied.add(("get", "pods/exec"))
    ended = run()
    assert ended.code == 3
    assert "is not allowed (HTTP 403); grant the verbs get and create on pods/exec in namespace default" in only_error(ended)  # fmt: skip
    assert len(finished.deleted) == 1


def test_a_reader_that_may_not_be_removed_is_told(finished: Cluster, run: Any) -> None:
    finished.denied.add(("delete", "pods"))
    ended = run()
    assert ended.code == 0
    name = finished.created[0]["metadata"]["name"]
    assert f"pod {name} is left (kubernetes API: jane may not delete pods" in ended.err


def unschedulable(_: Any, looks: int) -> dict[str, Any]:
    message = "0/1 nodes are available: 1 node(s) had volume node affinity conflict."
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    return {"phase": "Pending", "conditions": [condition]}


def waiting(reason: str, message: str) -> Any:
    status = {"name": "reader", "image": "i", "imageID": "", "ready": False, "restartCount": 0}
    status["state"] = {"waiting": {"reason": reason, "message": message}}
    return lambda _, looks: {"phase": "Pending", "containerStatuses": [status]}


def test_a_reader_with_no_node_says_what_the_scheduler_says(finished: Cluster, run: Any) -> None:
    finished.place = unschedulable
    ended = run("--timeout", "3")
    assert ended.code == 3
    assert "(Unschedulable: 0/1 nodes are available: 1 node(s) had volume node affinity conflict.)" in only_error(ended)
    assert "is waiting: Unschedulable: " in ended.err, "told before it is given up"
    assert len(finished.deleted) == 1


def test_a_reader_that_finds_a_node_later_is_waited_for(finished: Cluster, run: Any) -> None:
    finished.place = lambda pod, looks: unschedulable(pod, looks) if looks < 5 else {"phase": "Running"}
    assert run().code == 0


@pytest.mark.parametrize(
    ("reason", "message"),
    [
        ("ErrImagePull", "failed to pull: 401 Unauthorized"),
        ("ErrImageNeverPull", "Container image is not present"),
        ("InvalidImageName", "invalid reference format"),
    ],
)
def test_an_image_that_cannot_be_had_is_told_before_the_time_is_up(
    finished: Cluster, run: Any, reason: str, message: str
) -> None:
    finished.place = waiting(reason, message)
    ended = run()
    assert ended.code == 3
    assert f"{reason}: {message}" in only_error(ended)
    assert "by --image, any with python3" in only_error(ended)
    assert len(finished.deleted) == 1


def test_a_volume_that_cannot_be_attached_is_told_by_its_event(finished: Cluster, run: Any) -> None:
    finished.place = lambda pod, looks: {"phase": "Pending"}
    message = "Multi-Attach error for volume pv-1: already used by pod(s) demo-pod"
    finished.events.append(
        {"metadata": {"name": "e", "namespace": "default"}, "involvedObject": {}, "type": "Warning",
         "reason": "FailedAttachVolume", "message": message}
    )  # fmt: skip
    ended = run("--timeout", "1")
    assert f"(FailedAttachVolume: {message})" in only_error(ended)


def test_a_folder_that_is_not_there_names_those_that_are(finished: Cluster, run: Any, tmp_path: Path) -> None:
    ended = run("--path", "/results/dmeo")
    assert ended.code == 2
    assert only_error(ended) == (
        f"{finished.files}/dmeo: is not on the claim; there is demo; the run may not have begun; else give --path"
    )
    assert len(finished.deleted) == 1


def test_an_image_without_python_is_told(finished: Cluster, run: Any) -> None:
    finished.python = "/nonexistent/python3"
    ended = run()
    assert ended.code == 3
    assert "executable file not found" in only_error(ended)
    assert "needs python3" in only_error(ended)


def test_a_stream_that_is_cut_off_is_copied_again(finished: Cluster, run: Any, tmp_path: Path) -> None:
    (finished.files / "demo" / "big.bin").write_bytes(os.urandom(2_000_000))
    finished.cut = {1: 700_000, 2: 10}
    assert run().code == 0
    assert (tmp_path / "results" / "big.bin").read_bytes() == (finished.files / "demo" / "big.bin").read_bytes()
    assert len(finished.execs) == 3


def test_a_stream_that_is_cut_off_again_and_again_changes_nothing_here(
    finished: Cluster, run: Any, tmp_path: Path
) -> None:
    assert run().code == 0
    before = {path.name: path.read_bytes() for path in (tmp_path / "results").iterdir()}
    (finished.files / "demo" / "big.bin").write_bytes(os.urandom(2_000_000))
    (finished.files / "demo" / "inference.csv").write_text("newer\n")
    finished.cut = dict.fromkeys(range(2, 10), 700_000)
    ended = run()
    assert ended.code == 3
    assert "the copy was cut off 3 times" in only_error(ended)
    assert {path.name: path.read_bytes() for path in (tmp_path / "results").iterdir()} == before


def test_links_on_the_claim_are_not_followed(finished: Cluster, run: Any, tmp_path: Path) -> None:
    (finished.files / "demo" / "passwd").symlink_to("/etc/passwd")
    (finished.files / "demo" / "etc").symlink_to("/etc")
    assert run().code == 0
    assert not (tmp_path / "results" / "passwd").exists()
    assert not (tmp_path / "results" / "etc").exists()


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    folder = tmp_path / "results"
    folder.mkdir()
    (folder / "inference.csv").write_text("somebody's\n")
    return folder


def test_a_folder_with_something_else_is_not_touched_unless_told(finished: Cluster, run: Any, foreign: Path) -> None:
    ended = run()
    assert ended.code == 2
    assert only_error(ended).startswith(f"{foreign}: is not empty, and was not fetched; ")
    assert (foreign / "inference.csv").read_text() == "somebody's\n"
    assert finished.created == []
    assert run("--force").code == 0
    assert (foreign / "inference.csv").read_text() == "Model\nm\n"


def test_a_folder_of_another_run_is_not_touched(finished: Cluster, run: Any) -> None:
    assert run().code == 0
    finished.claims[:] = [claim(uid="made anew")]
    ended = run()
    assert ended.code == 2
    assert "holds what was fetched from another run (demo in namespace default, /results/demo)" in only_error(ended)


def test_a_full_disk_here_is_told(finished: Cluster, run: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    ended = run(output="file/below")
    assert ended.code == 6
    assert "Not a directory" in only_error(ended)


@pytest.mark.usefixtures("signals")
@pytest.mark.parametrize("when", ["while it starts", "while it copies"])
def test_a_signal_removes_the_reader(finished: Cluster, run: Any, when: str, tmp_path: Path) -> None:
    def interrupt() -> None:
        os.kill(os.getpid(), signal.SIGINT)

    if when == "while it copies":
        finished.on_exec = interrupt
    else:
        finished.place = lambda pod, looks: interrupt() or {"phase": "Pending"}  # type: ignore[func-returns-value]
    ended = run()
    assert ended.code == 130
    assert len(finished.created) == len(finished.deleted) == 1
    assert [path.name for path in (tmp_path / "results").iterdir()] == [MARKER], "no half of a copy"


def test_keep_pod_leaves_it_and_says_for_how_long(finished: Cluster, run: Any) -> None:
    ended = run("--keep-pod")
    assert ended.code == 0
    assert finished.deleted == []
    assert "stays for 60 min" in ended.err


def test_no_api_is_exit_code_3(run: Any, monkeypatch: pytest.MonkeyPatch, cluster: Cluster, tmp_path: Path) -> None:
    text = (tmp_path / "kubeconfig").read_text()
    (tmp_path / "kubeconfig").write_text(text.replace("127.0.0.1", "127.0.0.2").replace("http://", "https://"))
    ended = run()
    assert ended.code == 3
    assert only_error(ended).startswith("kubernetes API: ")


def test_the_marker_says_what_was_fetched(finished: Cluster, run: Any, tmp_path: Path) -> None:
    assert run().code == 0
    assert json.loads((tmp_path / "results" / MARKER).read_text()) == {
        "release": "demo",
        "namespace": "default",
        "claim": "demo-results",
        "claim_uid": "claim-uid",
        "path": "/results/demo",
    }
