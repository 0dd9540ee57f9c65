"""The Pod Security level `restricted` as a checker of pod specs.

Source: kubernetes.io/docs/concepts/security/pod-security-standards, the tables Baseline and Restricted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}
Spec = Mapping[str, Any]


def violations(spec: Spec) -> list[str]:
    """What the level `restricted` has against a pod spec, a line each."""
    containers = [*spec.get("initContainers", ()), *spec["containers"], *spec.get("ephemeralContainers", ())]
    found = [*_pod(spec)]
    for container in containers:
        found += [f"{container['name']}: {what}" for what in _container(spec, container)]
    return found


def _pod(spec: Spec) -> Iterator[str]:
    for key in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(key):
            yield key
    for volume in spec.get("volumes", ()):
        kinds = set(volume) - {"name"}
        if not kinds <= VOLUMES:
            yield f"volume {volume['name']}: {', '.join(kinds)}"
    context = spec.get("securityContext", {})
    if context.get("sysctls"):
        yield "sysctls"


def _container(spec: Spec, container: Spec) -> Iterator[str]:
    pod, own = spec.get("securityContext", {}), container.get("securityContext", {})
    if own.get("privileged"):
        yield "privileged"
    if own.get("allowPrivilegeEscalation") is not False:
        yield "allowPrivilegeEscalation is not false"
    if own.get("runAsNonRoot", pod.get("runAsNonRoot")) is not True:
        yield "runAsNonRoot is not true"
    if 0 in (own.get("runAsUser"), pod.get("runAsUser")):
        yield "runAsUser is 0"
    capabilities = own.get("capabilities", {})
    if "ALL" not in capabilities.get("drop", ()):
        yield "capabilities are not dropped"
    if set(capabilities.get("add", ())) - {"NET_BIND_SERVICE"}:
        yield "capabilities are added"
    profile = own.get("seccompProfile", pod.get("seccompProfile", {})).get("type")
    if profile not in ("RuntimeDefault", "Localhost"):
        yield f"seccompProfile is {profile}"
    if own.get("procMount", "Default") != "Default":
        yield "procMount"
    if any(port.get("hostPort") for port in container.get("ports", ())):
        yield "hostPort"
