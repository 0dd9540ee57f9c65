"""The DCGM exporter of our own node, through the Kubernetes API.

Labels and port: NVIDIA/dcgm-exporter, deployment/templates/_helpers.tpl and daemonset.yaml (app.kubernetes.io/name, port
`metrics`); NVIDIA/gpu-operator, assets/state-dcgm-exporter (app=nvidia-dcgm-exporter, port `metrics`, 9400).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from model_analyzer.adapters.kubernetes.api import Api, KubernetesError, connect, explained
from model_analyzer.errors import AnalyzerError

LABELS = ("app.kubernetes.io/name=dcgm-exporter", "app=nvidia-dcgm-exporter")
PORT_NAME, PORT = "metrics", 9400


class NoExporter(AnalyzerError):  # noqa: N818 -- a state of the cluster, told in every row
    """There is no DCGM exporter on this node."""


@dataclass(frozen=True, slots=True)
class Exporter:
    """An exporter's pod. url: of its page; None: it has no address yet. unready: why it is not ready; None: it is."""

    namespace: str
    pod: str
    url: str | None
    unready: str | None = None

    def __str__(self) -> str:
        return f"{self.namespace}/{self.pod}"


class Discovery:
    """Looks for exporters on one node. namespaces: where; none: everywhere."""

    def __init__(self, node: str, namespaces: Sequence[str] = (), connected: Callable[[], Api] = connect) -> None:
        self.node = node
        self._namespaces = tuple(namespaces)
        self._connect = connected
        self._api: Api | None = None

    def find(self) -> tuple[Exporter, ...]:
        """Every exporter on the node, ready ones first. Raises KubernetesError; NoExporter where there is none."""
        found: dict[str, Exporter] = {}
        refusals: list[KubernetesError] = []
        for namespace in self._namespaces or (None,):
            try:
                found |= {str(exporter): exporter for exporter in map(_exporter, self._pods(namespace))}
            except KubernetesError as error:
                if error.status is None:
                    raise  # no API: not to be waited for again in each namespace
                refusals.append(error)
        if not found and refusals:
            raise self._with_advice(refusals[0])
        if not found:
            raise self._nothing()
        return tuple(sorted(found.values(), key=lambda one: (one.unready is not None, one.url is None, str(one))))

    def _pods(self, namespace: str | None) -> Iterable[Any]:
        """The pods with either label that have not ended. Two calls: a selector cannot say `or` of two keys."""
        if self._api is None:
            self._api = self._connect()
        core, where = self._api.core, f"spec.nodeName={self.node}"
        for label in LABELS:
            selectors = {"field_selector": where, "label_selector": label}
            with explained():
                if namespace is None:
                    listed = core.list_pod_for_all_namespaces(**selectors)
                else:
                    listed = core.list_namespaced_pod(namespace, **selectors)
            yield from (pod for pod in listed.items if pod.status.phase not in ("Succeeded", "Failed"))

    def _with_advice(self, refusal: KubernetesError) -> KubernetesError:
        if refusal.status != 403 or self._namespaces:
            return refusal
        fault = refusal.faults[0]
        other = "or name the exporter's namespace in dcgm_exporter_namespaces, where a Role is enough"
        advised = KubernetesError(fault.where, fault.what, f"{fault.fix}, {other}")
        advised.status = refusal.status
        return advised

    def _nothing(self) -> NoExporter:
        where = f"in {', '.join(self._namespaces)}" if self._namespaces else "in any namespace"
        what = f"no DCGM exporter: no pod on it {where} has the label {' or '.join(LABELS)}"
        return NoExporter(f"node {self.node}", what, "install one, or set dcgm_exporter_url")


def _exporter(pod: Any) -> Exporter:
    address = (pod.status.host_ip if pod.spec.host_network else None) or pod.status.pod_ip
    url = None
    if address:
        host = f"[{address}]" if ":" in address else address
        url = f"{_scheme(pod)}://{host}:{_port(pod)}/metrics"
    return Exporter(pod.metadata.namespace, pod.metadata.name, url, _unready(pod))


def _port(pod: Any) -> int:
    ports = [port for container in pod.spec.containers for port in container.ports or ()]
    return next((port.container_port for port in ports if port.name == PORT_NAME), PORT)


def _scheme(pod: Any) -> str:
    """https where the pod is probed so: the chart's tlsServerConfig shows nowhere else."""
    probes = [container.readiness_probe for container in pod.spec.containers if container.readiness_probe]
    return "https" if any(probe.http_get and probe.http_get.scheme == "HTTPS" for probe in probes) else "http"


def _unready(pod: Any) -> str | None:
    """Why the pod is not ready: the state of a container that does not run, else what its condition says."""
    if pod.metadata.deletion_timestamp is not None:
        return "it is being deleted"
    conditions = {one.type: one for one in pod.status.conditions or ()}
    ready = conditions.get("Ready")
    if ready is not None and ready.status == "True":
        return None
    for status in (*(pod.status.init_container_statuses or ()), *(pod.status.container_statuses or ())):
        waiting = status.state.waiting if status.state else None
        if waiting is not None and waiting.reason != "PodInitializing":
            return _joined(f"container {status.name}: {waiting.reason}", waiting.message)
    if ready is not None and (ready.message or ready.reason):
        return _joined(f"it is {pod.status.phase}", ready.message or ready.reason)
    return f"it is {pod.status.phase}"


def _joined(what: str, more: str | None) -> str:
    return f"{what} ({' '.join(more.split())})" if more else what
