"""A stand-in for the API server, over real HTTP and WebSockets: Jobs, pods and claims as one says, exec runs for real."""

from __future__ import annotations

import base64
import hashlib
import json
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

GROUPS = {"jobs": "batch"}
Object = dict[str, Any]


@dataclass
class Cluster:
    """Its state, which a test sets and reads.

    denied: (verb, resource). place: pod -> its status when it is looked at for the nth time. files: what /results is.
    cut: the stream of the nth exec ends after so many bytes. requests: (method, path) in order.
    """

    files: Path
    jobs: list[Object] = field(default_factory=list)
    pods: dict[str, Object] = field(default_factory=dict)
    claims: list[Object] = field(default_factory=list)
    events: list[Object] = field(default_factory=list)
    denied: set[tuple[str, str]] = field(default_factory=set)
    place: Callable[[Object, int], Object] = lambda pod, looks: {"phase": "Running"}
    cut: dict[int, int] = field(default_factory=dict)
    on_exec: Callable[[], None] = lambda: None
    python: str = sys.executable
    requests: list[tuple[str, str]] = field(default_factory=list)
    created: list[Object] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    patches: list[tuple[str, str, Object]] = field(default_factory=list)
    status_of_patch: int = 200
    execs: list[tuple[str, str]] = field(default_factory=list)
    looks: dict[str, int] = field(default_factory=dict)


def labels(selector: str) -> dict[str, str]:
    return dict(part.split("=", 1) for part in selector.split(",") if "=" in part)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    cluster: Cluster

    def log_message(self, *_: Any) -> None:
        """Be quiet."""

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query = parse_qs(url.query)
        self.cluster.requests.append(("GET", url.path))
        namespace, resource, name, sub = self._parts(url.path)
        if sub == "exec":
            return self._exec(name, query)
        if self._denied("get" if name else "list", resource, namespace):
            return None
        found: list[Object]
        if resource == "pods":
            found = [self._seen(pod) for pod in self.cluster.pods.values()] if not name else []
            if name:
                pod = self.cluster.pods.get(name)
                return self._answer(self._seen(pod)) if pod else self._missing(resource, name)
        else:
            found = {
                "jobs": self.cluster.jobs,
                "persistentvolumeclaims": self.cluster.claims,
                "events": self.cluster.events,
            }[resource]
        found = [one for one in found if namespace in ("", one["metadata"].get("namespace", "default"))]
        if name:
            matching = [one for one in found if one["metadata"]["name"] == name]
            return self._answer(matching[0]) if matching else self._missing(resource, name)
        wanted = labels(query.get("labelSelector", [""])[0])
        items = [one for one in found if wanted.items() <= one["metadata"].get("labels", {}).items()]
        return self._answer({"kind": "List", "items": items})

    def do_POST(self) -> None:
        namespace, resource, _, _ = self._parts(urlsplit(self.path).path)
        body = self._body()
        if self._denied("create", resource, namespace):
            return
        pod = {**body, "status": {}}
        self.cluster.created.append(body)
        self.cluster.pods[body["metadata"]["name"]] = pod
        self._answer(pod, 201)

    def do_DELETE(self) -> None:
        namespace, resource, name, _ = self._parts(urlsplit(self.path).path)
        self._body()
        if self._denied("delete", resource, namespace):
            return
        pod = self.cluster.pods.pop(name, None)
        self.cluster.deleted.append(name)
        if pod is None:
            self._missing(resource, name)
        else:
            self._answer(pod)

    def do_PATCH(self) -> None:
        namespace, resource, name, _ = self._parts(urlsplit(self.path).path)
        body = self._body()
        self.cluster.patches.append((f"{namespace}/{name}", self.headers["Content-Type"], body))
        if self._denied("patch", resource, namespace):
            return
        if self.cluster.status_of_patch != 200:
            self._answer({"kind": "Status", "message": "try later"}, self.cluster.status_of_patch)
            return
        self._answer({"kind": "Job", "metadata": {"name": name}})

    def _parts(self, path: str) -> tuple[str, str, str, str]:
        parts = path.strip("/").split("/")
        parts = parts[3:] if parts[0] == "apis" else parts[2:]
        namespace = ""
        if parts[0] == "namespaces":
            namespace, parts = parts[1], parts[2:]
        resource, name, sub = [*parts, "", ""][:3]
        return namespace, resource, name, sub

    def _seen(self, pod: Object) -> Object:
        """Pods of a test have their status; those that were created get one, which may change as time goes on."""
        name = pod["metadata"]["name"]
        if pod in self.cluster.created or not pod.get("status"):
            self.cluster.looks[name] = self.cluster.looks.get(name, 0) + 1
            return {**pod, "status": self.cluster.place(pod, self.cluster.looks[name])}
        return pod

    def _denied(self, verb: str, resource: str, namespace: str) -> bool:
        if (verb, resource) not in self.cluster.denied:
            return False
        where = f'in the namespace "{namespace}"' if namespace else "at the cluster scope"
        message = (
            f'{resource} is forbidden: User "jane" cannot {verb} resource "{resource}" in API group '
            f'"{GROUPS.get(resource, "")}" {where}'
        )
        self._answer({"kind": "Status", "status": "Failure", "message": message, "code": 403}, 403)
        return True

    def _missing(self, resource: str, name: str) -> None:
        self._answer({"kind": "Status", "message": f'{resource} "{name}" not found', "code": 404}, 404)

    def _body(self) -> Any:
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return json.loads(raw) if raw else None

    def _answer(self, body: Object, status: int = 200) -> None:
        raw = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def _exec(self, pod: str, query: dict[str, list[str]]) -> None:
        """Run the command on `files`, and speak as kubelet and API server do (v4.channel.k8s.io)."""
        if self._denied("get", "pods/exec", "default"):
            return
        self.close_connection = True
        self.cluster.execs.append((pod, query["container"][0]))
        self.cluster.on_exec()
        key = self.headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        accept = base64.b64encode(hashlib.sha1(key.encode()).digest()).decode()
        self.wfile.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Protocol: v4.channel.k8s.io\r\nSec-WebSocket-Accept: " + accept.encode() + b"\r\n\r\n"
        )
        program, *rest = query["command"]
        command = [
            self.cluster.python if program == "python3" else program,
            *(one.replace("/results", str(self.cluster.files)) if one.startswith("/results") else one for one in rest),
        ]
        left = self.cluster.cut.get(len(self.cluster.execs))
        try:
            run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        except FileNotFoundError:
            self._frame(3, _failure('exec: "python3": executable file not found in $PATH', None))
            return
        with run:
            assert run.stdout is not None
            assert run.stderr is not None
            while data := run.stdout.read1(30_000):
                if left is not None:
                    data, left = data[:left], left - len(data)
                self._frame(1, data)
                if left is not None and left <= 0:
                    run.kill()
                    return
            self._frame(2, run.stderr.read())
        code = run.returncode
        self._frame(3, b'{"metadata":{},"status":"Success"}' if code == 0 else _failure(f"exit code {code}", code))
        self.wfile.write(b"\x88\x02\x03\xe8")

    def _frame(self, channel: int, data: bytes) -> None:
        payload = bytes([channel]) + data
        size = len(payload)
        head = struct.pack("!BB", 0x82, size) if size < 126 else struct.pack("!BBH", 0x82, 126, size)
        self.wfile.write(head + payload)


def _failure(message: str, code: int | None) -> bytes:
    causes = [] if code is None else [{"reason": "ExitCode", "message": str(code)}]
    return json.dumps({"status": "Failure", "message": message, "details": {"causes": causes}}).encode()


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is what some tests are about."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


@contextmanager
def serving(cluster: Cluster, kubeconfig: Path) -> Iterator[Cluster]:
    """The API of `cluster`, and a kubeconfig that points at it."""
    server = Server(("127.0.0.1", 0), type("OfThisCluster", (Handler,), {"cluster": cluster}))
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    context = {"cluster": "c", "user": "u", "namespace": "default"}
    config = {
        "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
        "contexts": [{"name": "here", "context": context}],
        "current-context": "here",
    }
    kubeconfig.write_text(yaml.safe_dump(config))
    try:
        yield cluster
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# -- objects as the chart makes them -------------------------------------------------------------------


def job(name: str = "demo", state: str = "Complete", namespace: str = "default", **pod: Any) -> Object:
    """A Job of release `name`. state: Complete, Failed, or anything else for a running one."""
    spec = {
        "securityContext": {"runAsUser": 1234, "runAsGroup": 1234, "fsGroup": 1234},
        "imagePullSecrets": [{"name": "registry"}],
        "serviceAccountName": "demo-model-analyzer",
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "tolerationSeconds": 5}],
        "containers": [
            {
                "name": "analyzer",
                "image": "analyzer:1",
                "imagePullPolicy": "Never",
                "args": ["profile", "-f", "/etc/job.yaml", "--export-path", f"/results/{name}"],
                "volumeMounts": [{"name": "results", "mountPath": "/results"}, {"name": "tmp", "mountPath": "/tmp"}],
            }
        ],
        "volumes": [
            {"name": "tmp", "emptyDir": {}},
            {"name": "results", "persistentVolumeClaim": {"claimName": f"{name}-results"}},
        ],
        **pod,
    }
    conditions = [{"type": state, "status": "True", "reason": "PodFailurePolicy", "message": "exit code 2"}]
    running = {"active": 1, "ready": 1}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": f"{name}-job",
            "namespace": namespace,
            "uid": "job-uid",
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": our_labels(name),
        },
        "spec": {"template": {"spec": spec}},
        "status": {"conditions": conditions} if state in ("Complete", "Failed") else running,
    }


def claim(name: str = "demo", uid: str = "claim-uid", modes: tuple[str, ...] = ("ReadWriteOnce",)) -> Object:
    return {
        "metadata": {"name": f"{name}-results", "namespace": "default", "uid": uid, "labels": our_labels(name)},
        "spec": {"accessModes": list(modes)},
    }


def pod(name: str = "demo-pod", of: str = "demo", phase: str = "Succeeded", node: str | None = "gpu-1", **status: Any) -> Object:  # fmt: skip
    return {
        "metadata": {
            "name": name,
            "namespace": "default",
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {**our_labels(of), "job-name": f"{of}-job"},
        },
        "spec": {"nodeName": node, "containers": [{"name": "analyzer", "image": "analyzer:1"}]},
        "status": {"phase": phase, **status},
    }


def our_labels(release: str) -> dict[str, str]:
    return {"app.kubernetes.io/name": "model-analyzer", "app.kubernetes.io/instance": release}
