"""What the cluster knows of a release: its Job, and where that Job's results are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from model_analyzer.adapters.kubernetes.annotations import PREFIX
from model_analyzer.adapters.kubernetes.api import Api, KubernetesError, explained
from model_analyzer.errors import SpecError

NAME_LABEL, INSTANCE_LABEL, COMPONENT_LABEL = (
    f"app.kubernetes.io/{label}" for label in ("name", "instance", "component")
)
OURS = f"{NAME_LABEL}=model-analyzer"
READER = "reader"
# The container of the chart's pod that measures, and where it mounts the results.
ANALYZER = "analyzer"
RESULTS = "/results"
_EXPORT_FLAGS = ("--export-path", "-e")


@dataclass(frozen=True, slots=True)
class Results:
    """Where results are, seen from a pod. claim: None for a volume that goes with its pod. path: of the folder."""

    path: str
    claim: str | None
    mount: str = RESULTS
    sub_path: str | None = None


@dataclass(frozen=True, slots=True)
class Release:
    """A release. job, pods: as the API shows them; None where only its claim is left. claim: the PVC, where it may be read.

    removed: the Job is as it was last seen, and is no more.
    """

    name: str
    namespace: str
    results: Results
    job: Any = None
    pods: tuple[Any, ...] = ()
    claim: Any = None
    removed: bool = False

    @property
    def template(self) -> Any:
        """The pod spec of the Job; None without a Job."""
        return self.job.spec.template.spec if self.job is not None else None

    @property
    def state(self) -> str:
        """complete, failed, suspended, running, pending, ending, or gone (no Job)."""
        if self.job is None or self.removed:
            return "gone"
        state = job_state(self.job)
        # A Job none of whose pods was let in (a quota, Pod Security, no such priority class) has nothing to end.
        return "pending" if state == "ending" and not self.pods else state

    @property
    def finished(self) -> bool:
        """Whether nothing is written any more."""
        return self.state in ("complete", "failed", "gone")

    @property
    def running_pods(self) -> list[Any]:
        """Those that have started and not ended, the oldest first."""
        return [pod for pod in self.pods if pod.status.phase == "Running"]

    @property
    def claim_of_one_pod(self) -> bool:
        """Whether a second pod cannot mount the claim while the first one has it."""
        return self.claim is not None and set(self.claim.spec.access_modes or ()) == {"ReadWriteOncePod"}


def find(api: Api, namespace: str, name: str, claim: str | None, path: str | None) -> Release:
    """Look the release up. claim, path: where the results are, if not where its Job says.

    Raises SpecError where there is no such release, KubernetesError.
    """
    selector = f"{OURS},{INSTANCE_LABEL}={name}"
    with explained():
        jobs = api.batch.list_namespaced_job(namespace, label_selector=selector).items
    job = max(jobs, key=lambda one: one.metadata.creation_timestamp, default=None)
    if job is None:
        results = Results(path or f"{RESULTS}/{name}", claim or _kept_claim(api, namespace, name, selector))
        return Release(name, namespace, results, claim=_claim(api, namespace, results.claim))
    results = results_of(job, name, claim, path)
    with explained():
        pods = api.core.list_namespaced_pod(namespace, label_selector=f"job-name={job.metadata.name}").items
    pods.sort(key=lambda pod: pod.metadata.creation_timestamp)
    return Release(name, namespace, results, job, tuple(pods), _claim(api, namespace, results.claim))


def results_of(job: Any, name: str, claim: str | None, path: str | None) -> Results:
    """The folder that the Job's analyzer writes to, and the volume that it is on. Raises SpecError."""
    spec = job.spec.template.spec
    container = analyzer_of(spec.containers)
    folder = path or export_path([*(container.command or ()), *(container.args or ())]) or f"{RESULTS}/{name}"
    mounts = [one for one in container.volume_mounts or () if PurePosixPath(folder).is_relative_to(one.mount_path)]
    mount = max(mounts, key=lambda one: len(one.mount_path), default=None)
    if claim is not None:
        return Results(folder, claim, *((mount.mount_path, mount.sub_path) if mount else ()))
    if mount is None:
        what = f"no volume is mounted at {folder}: its results went with its pod"
        raise SpecError(f"job {job.metadata.name}", what, "give the results a claim, or name one by --claim and --path")
    volume = next(one for one in spec.volumes or () if one.name == mount.name)
    source = volume.persistent_volume_claim
    return Results(folder, source.claim_name if source else None, mount.mount_path, mount.sub_path)


def analyzer_of(containers: Sequence[Any]) -> Any:
    """The container (or its status) that measures; the first where none has its name."""
    return next((one for one in containers if one.name == ANALYZER), containers[0])


def export_path(arguments: Sequence[str]) -> str | None:
    """What a command line gives as --export-path; the last one wins, as it does for the command."""
    found = None
    for argument, value in zip(arguments, [*arguments[1:], None], strict=True):
        if argument in _EXPORT_FLAGS:
            found = value
        elif argument.startswith(tuple(f"{flag}=" for flag in _EXPORT_FLAGS)):
            found = argument.partition("=")[2]
    return found


def job_state(job: Any) -> str:
    """complete, failed, suspended, running, pending or ending."""
    true = {one.type for one in job.status.conditions or () if one.status == "True"}
    for condition, state in (("Complete", "complete"), ("Failed", "failed"), ("Suspended", "suspended")):
        if condition in true:
            return state
    if job.status.ready:
        return "running"
    # Between its last pod's end and its own, or the next pod.
    return "pending" if job.status.active or not job.status.start_time else "ending"


def failure(job: Any) -> str:
    """Why a failed Job failed, in its controller's words."""
    conditions = [one for one in job.status.conditions or () if one.type == "Failed" and one.status == "True"]
    return "; ".join(f"{one.reason}: {one.message}" for one in conditions)


def told(job: Any) -> str:
    """The progress that the run writes on its Job; "" where it writes none."""
    values = job.metadata.annotations or {}
    shown = [(key, values[key]) for key in sorted(values) if key.startswith(f"{PREFIX}/progress") and values[key]]
    return ", ".join(value for _, value in shown)


def trouble(pod: Any) -> str | None:
    """Why a pod does not run, in the words of scheduler and kubelet; None where nothing is known to be wrong."""
    for condition in pod.status.conditions or ():
        if condition.type == "PodScheduled" and condition.status == "False":
            return f"{condition.reason}: {condition.message}"
    for status in (*(pod.status.init_container_statuses or ()), *(pod.status.container_statuses or ())):
        waiting = status.state.waiting if status.state else None
        if waiting is not None and waiting.reason not in (None, "ContainerCreating", "PodInitializing"):
            return f"{waiting.reason}: {waiting.message or status.image}"
    if pod.status.phase == "Failed":
        return f"{pod.status.reason or 'Failed'}: {pod.status.message or 'its container ended'}"
    return None


def last_warning(api: Api, namespace: str, name: str) -> str | None:
    """The last warning about a pod or a Job, such as a volume that cannot be attached; None where one may not look."""
    try:
        with explained():
            found = api.core.list_namespaced_event(namespace, field_selector=f"involvedObject.name={name}").items
    except KubernetesError:
        return None
    warnings = [event for event in found if event.type == "Warning"]
    return f"{warnings[-1].reason}: {warnings[-1].message}" if warnings else None


def last_end(pods: Iterable[Any]) -> Any:
    """How the analyzer of the last pod that ended did: exit_code, message; None where no pod tells."""
    for pod in reversed(list(pods)):
        statuses = [one for one in pod.status.container_statuses or () if one.name == ANALYZER]
        if statuses and statuses[0].state and statuses[0].state.terminated:
            return statuses[0].state.terminated
    return None


def _kept_claim(api: Api, namespace: str, name: str, selector: str) -> str:
    """The claim that an uninstalled release has left. Raises SpecError where there is none."""
    with explained():
        claims = api.core.list_namespaced_persistent_volume_claim(namespace, label_selector=selector).items
    if claims:
        return str(claims[-1].metadata.name)
    raise SpecError(f"release {name}", f"is not in namespace {namespace}", _there_is(api, namespace))


def _there_is(api: Api, namespace: str) -> str:
    """The releases that one may have meant, elsewhere too where one may look."""
    found: set[str] = set()
    with suppress(KubernetesError), explained():
        jobs = api.batch.list_namespaced_job(namespace, label_selector=OURS).items
        claims = api.core.list_namespaced_persistent_volume_claim(namespace, label_selector=OURS).items
        found |= {one.metadata.labels.get(INSTANCE_LABEL, "?") for one in (*jobs, *claims)}
    elsewhere: set[str] = set()
    if not found:
        with suppress(KubernetesError), explained():
            jobs = api.batch.list_job_for_all_namespaces(label_selector=OURS).items
            elsewhere |= {f"{j.metadata.labels.get(INSTANCE_LABEL, '?')} -n {j.metadata.namespace}" for j in jobs}
    if found or elsewhere:
        return f"there is {', '.join(sorted(found | elsewhere))}"
    return "name its namespace by -n, or its claim by --claim and --image"


def _claim(api: Api, namespace: str, name: str | None) -> Any:
    """The PVC; None where it may not be read. Raises SpecError where it is not there."""
    if name is None:
        return None
    try:
        with explained():
            return api.core.read_namespaced_persistent_volume_claim(name, namespace)
    except KubernetesError as error:
        if error.status == 404:
            fix = "name the claim of the results by --claim"
            raise SpecError(f"claim {name}", f"is not in namespace {namespace}", fix) from error
        if error.status == 403:
            return None  # nice to know, not needed: the pod that mounts it tells the rest
        raise
