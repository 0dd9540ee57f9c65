"""A small pod that mounts a claim of results read-only: admitted under `restricted`, gone afterwards, whatever happens."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from model_analyzer.adapters.kubernetes.api import Api, KubernetesError, explained
from model_analyzer.adapters.kubernetes.release import (
    COMPONENT_LABEL,
    INSTANCE_LABEL,
    NAME_LABEL,
    READER,
    Release,
    analyzer_of,
    last_warning,
    trouble,
)
from model_analyzer.errors import SpecError

POLL_S = 0.5
# Seconds until it has started, an image pull included; until a trouble that may pass by itself is told.
READY_S, PATIENCE_S = 180.0, 5.0
# Seconds that it lives if nobody removes it: longer than any copy, short enough to be no burden; and with --keep-pod.
LIVES_S, KEPT_S = 1800, 3600
# What no waiting mends. Source: kubelet, pkg/kubelet/images/types.go and pkg/kubelet/container/sync_result.go.
HOPELESS = ("InvalidImageName", "ErrImageNeverPull", "CreateContainerConfigError", "CreateContainerError", "RunContainerError")  # fmt: skip
PULL_FAILS = ("ErrImagePull", "ImagePullBackOff")
# As process 1 it gets no signal that it does not ask for, and would hold up its own removal.
IDLE = "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(0)); time.sleep({seconds})"
_USER = 1000


@dataclass(frozen=True, slots=True)
class Reading:
    """What a reader is asked for. image: None for the Job's own. keep: leave the pod when all is done."""

    image: str | None = None
    keep: bool = False
    timeout_s: float = READY_S


def manifest(release: Release, reading: Reading, name: str) -> dict[str, Any]:
    """The pod. Raises SpecError where no image is known."""
    template, results = release.template, release.results
    analyzer = analyzer_of(template.containers) if template is not None else None
    image = reading.image or (analyzer.image if analyzer is not None else None)
    if image is None:
        what = "its Job is gone, so that the reader's image is not known"
        raise SpecError(f"release {release.name}", what, "give --image: the analyzer's, or any other with python3")
    seconds = KEPT_S if reading.keep else LIVES_S
    pull = {"imagePullPolicy": analyzer.image_pull_policy} if analyzer is not None and not reading.image else {}
    container = {
        "name": READER,
        "image": image,
        **pull,
        "command": ["python3", "-c", IDLE.format(seconds=seconds)],
        "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"cpu": "1", "memory": "256Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "privileged": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {
                "name": "results",
                "mountPath": results.mount,
                "readOnly": True,
                **({"subPath": results.sub_path} if results.sub_path else {}),
            }
        ],
    }
    owner = {}
    if release.job is not None and not release.removed and release.job.spec.ttl_seconds_after_finished is None:
        # Where nobody removes the pod, it goes with its Job; but not while it copies, with a Job whose time is over.
        meta = release.job.metadata
        owner = {"ownerReferences": [{"apiVersion": "batch/v1", "kind": "Job", "name": meta.name, "uid": meta.uid}]}
    labels = {NAME_LABEL: "model-analyzer", INSTANCE_LABEL: release.name, COMPONENT_LABEL: READER}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": release.namespace, "labels": labels, **owner},
        "spec": {
            "restartPolicy": "Never",
            "activeDeadlineSeconds": seconds,
            "terminationGracePeriodSeconds": 1,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "securityContext": _security(template),
            "containers": [container],
            # Not readOnly here: a driver may refuse one claim both writable and read-only on a node.
            "volumes": [{"name": "results", "persistentVolumeClaim": {"claimName": results.claim}}],
            **_placement(release),
        },
    }


def _security(template: Any) -> dict[str, Any]:
    """The user of the Job's pod, so that it may read what that one wrote; ours where no Job is left.

    A Job that names none leaves it to the cluster (OpenShift has a range for each namespace, and refuses others).
    """
    own = template.security_context if template is not None else None
    ours = _USER if template is None else None
    asked = {
        "runAsUser": getattr(own, "run_as_user", ours),
        "runAsGroup": getattr(own, "run_as_group", ours),
        "fsGroup": getattr(own, "fs_group", ours),
        "supplementalGroups": getattr(own, "supplemental_groups", None),
    }
    return {
        "runAsNonRoot": True,
        **{key: value for key, value in asked.items() if value is not None},
        # The run's files need no new owner, and a large claim no walk.
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def _placement(release: Release) -> dict[str, Any]:
    """Where it may run: where the claim is mounted now; else rather where it was, for a volume that lies on a node."""
    template, placed = release.template, [pod for pod in release.pods if pod.spec.node_name]
    place: dict[str, Any] = {}
    if template is not None:
        place["tolerations"] = [_camel(one.to_dict()) for one in template.tolerations or ()]
        place["imagePullSecrets"] = [{"name": one.name} for one in template.image_pull_secrets or ()]
        if not release.removed:
            place["serviceAccountName"] = template.service_account_name
    running = [pod for pod in release.running_pods if pod.spec.node_name]
    if running and not _shared(release):
        term = _on_node(running[-1].spec.node_name)
        rule = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}
        place["affinity"] = {"nodeAffinity": rule}
    elif placed:
        preference = {"weight": 100, "preference": _on_node(placed[-1].spec.node_name)}
        place["affinity"] = {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [preference]}}
    return {key: value for key, value in place.items() if value}


def _shared(release: Release) -> bool:
    """Whether several nodes may mount the claim at a time."""
    modes = set(release.claim.spec.access_modes or ()) if release.claim is not None else set()
    return bool(modes & {"ReadWriteMany", "ReadOnlyMany"})


def _on_node(name: str) -> dict[str, Any]:
    return {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [name]}]}


def _camel(values: dict[str, Any]) -> dict[str, Any]:
    def key(name: str) -> str:
        return re.sub(r"_(\w)", lambda found: found[1].upper(), name)

    return {key(name): value for name, value in values.items() if value is not None}


@contextmanager
def reader(api: Api, release: Release, reading: Reading, say: Callable[[str], None]) -> Iterator[str]:
    """The name of a running reader. Removed when the context is left, by a signal too. Raises KubernetesError, SpecError."""
    name = f"{release.name[:45].rstrip('-.')}-{READER}-{secrets.token_hex(3)}"
    body = manifest(release, reading, name)
    try:  # from before the call on: an interrupted one may have made the pod
        with explained():
            api.core.create_namespaced_pod(release.namespace, body)
        _await_running(api, release.namespace, name, reading.timeout_s, say)
        yield name
    finally:
        if not reading.keep:
            _remove(api, release.namespace, name, say)
        else:
            say(f"pod {name} stays for {KEPT_S // 60} min: kubectl -n {release.namespace} exec -it {name} -- sh")


def _remove(api: Api, namespace: str, name: str, say: Callable[[str], None]) -> None:
    try:
        with explained():
            api.core.delete_namespaced_pod(name, namespace, grace_period_seconds=1)
    except KubernetesError as error:
        if error.status != 404:
            say(f"pod {name} is left ({error}); kubectl -n {namespace} delete pod {name}")


def _await_running(api: Api, namespace: str, name: str, timeout_s: float, say: Callable[[str], None]) -> None:
    began, told = time.monotonic(), ""
    while True:
        pod = _read(api, namespace, name)
        if pod.status.phase == "Running":
            return
        waited, problem = time.monotonic() - began, trouble(pod)
        reason = problem.partition(":")[0] if problem else ""
        if pod.status.phase in ("Failed", "Succeeded") or reason in HOPELESS:
            raise KubernetesError(f"pod {name}", problem or "ended before it was asked", _remedy(reason))
        if problem is None and waited > PATIENCE_S:
            problem = last_warning(api, namespace, name)
        if waited > timeout_s or (reason in PULL_FAILS and waited > 6 * PATIENCE_S):
            what = f"did not start within {waited:.0f} s" + (f" ({problem})" if problem else "")
            raise KubernetesError(f"pod {name}", what, _remedy(reason))
        if problem and problem != told and waited > PATIENCE_S:
            told = problem
            say(f"pod {name} is waiting: {problem}")
        time.sleep(POLL_S)


def _read(api: Api, namespace: str, name: str) -> Any:
    try:
        with explained():
            return api.core.read_namespaced_pod(name, namespace)
    except KubernetesError as error:
        if error.status == 404:
            raise KubernetesError(f"pod {name}", "was removed by somebody else", "try again") from error
        raise


def _remedy(reason: str) -> str:
    if reason in (*PULL_FAILS, "InvalidImageName", "ErrImageNeverPull"):
        return "give an image that the cluster can pull by --image, any with python3"
    if reason == "Unschedulable":
        return "the reader must run where the claim can be mounted: wait for room there, or for the pod that holds it"
    return "see `kubectl describe pod`, with --keep-pod"
