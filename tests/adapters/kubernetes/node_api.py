"""A stand-in for the API server's pod lists and for exporters, over real HTTP."""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

Object = dict[str, Any]
NODE = "gpu-node-1"
CHART, OPERATOR = {"app.kubernetes.io/name": "dcgm-exporter"}, {"app": "nvidia-dcgm-exporter"}
PAGES = Path(__file__).parent.parent.parent / "data" / "dcgm"


@dataclass
class Pods:
    """What the API server has and says. refuse: namespace ("" for all of them) -> (status, message)."""

    items: list[Object] = field(default_factory=list)
    refuse: dict[str, tuple[int, str]] = field(default_factory=dict)
    delay_s: float = 0.0
    garbage: bytes | None = None
    asked: list[str] = field(default_factory=list)
    url: str = ""

    def answer(self, path: str) -> tuple[int, bytes]:
        url = urlsplit(path)
        self.asked.append(path)
        time.sleep(self.delay_s)
        if self.garbage is not None:
            return 200, self.garbage
        parts = url.path.strip("/").split("/")
        namespace = parts[3] if "namespaces" in parts else ""
        if namespace in self.refuse:
            status, message = self.refuse[namespace]
            return status, json.dumps({"kind": "Status", "code": status, "message": message}).encode()
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        node = query["fieldSelector"].removeprefix("spec.nodeName=")
        key, _, value = query["labelSelector"].partition("=")
        found = [
            pod
            for pod in self.items
            if pod["spec"]["nodeName"] == node
            and pod["metadata"]["labels"].get(key) == value
            and namespace in ("", pod["metadata"]["namespace"])
        ]
        return 200, json.dumps({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": found}).encode()


def forbidden(namespace: str = "") -> tuple[int, str]:
    """The API server's own words."""
    where = f'in the namespace "{namespace}"' if namespace else "at the cluster scope"
    user = "system:serviceaccount:bench:analyzer"
    return 403, f'pods is forbidden: User "{user}" cannot list resource "pods" in API group "" {where}'


def exporter_pod(
    port: int | None,
    name: str = "nvidia-dcgm-exporter-x",
    namespace: str = "gpu-operator",
    labels: dict[str, str] | None = None,
    node: str = NODE,
    ready: bool = True,
    port_name: str = "metrics",
    **status: Any,
) -> Object:
    """A pod as the kubelet reports it. port None: it declares none."""
    ports = [] if port is None else [{"name": port_name, "containerPort": port}]
    return {
        "metadata": {"name": name, "namespace": namespace, "labels": labels or OPERATOR},
        "spec": {"nodeName": node, "containers": [{"name": "exporter", "image": "x", "ports": ports}]},
        "status": {
            "phase": "Running",
            "podIP": "127.0.0.1",
            "hostIP": "127.0.0.2",
            "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
            **status,
        },
    }


@contextmanager
def listening(answer: Callable[[str], tuple[int, bytes]], tls: tuple[Path, Path] | None = None) -> Iterator[int]:
    """The port of a server that answers GETs so. tls: certificate and key."""

    class Handler(BaseHTTPRequestHandler):
        timeout = 10  # and no connection is kept: a server that has ended must not answer

        def do_GET(self) -> None:
            status, body = answer(self.path)
            self.send_response(status)
            self.send_header("Content-Type", "application/json" if body.startswith(b"{") else "text/plain")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Be quiet."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            """A client that went away, as in a test of timeouts."""

    server = Server(("127.0.0.1", 0), Handler)
    if tls is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*tls)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def exporting(page: str) -> Iterator[int]:
    """The port of an exporter that shows this text."""
    with listening(lambda _: (200, page.encode())) as port:
        yield port


def write_kubeconfig(path: Path, server: str, **cluster: Any) -> None:
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": server, **cluster}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
        "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u", "namespace": "bench"}}],
        "current-context": "here",
    }
    path.write_text(json.dumps(config))


def real_page(name: str = "t4_under_load_no_help_type.prom", **labels: str) -> str:
    """A real page, each of its rows with these labels more."""
    text = (PAGES / name).read_text()
    more = "".join(f',{label}="{value}"' for label, value in labels.items())
    return "\n".join(line.replace("} ", f"{more}}} ") if "{" in line else line for line in text.splitlines()) + "\n"
