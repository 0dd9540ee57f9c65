"""The one Triton that every tool drives: the embedded one, with the benchmark's models."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.versus.spent import CommandError, tree_cpu_s
from model_analyzer.adapters.triton.embedded import find_embedded
from model_analyzer.adapters.triton.launch import Launch
from model_analyzer.adapters.triton.local import LocalServer
from model_analyzer.core.variant import ServerInfo, ServerSettings

ROOT = Path(__file__).resolve().parents[2]
# Its gauges are refreshed half as often (ms): 250, as in the first measurements against the rivals.
MONITORING_INTERVAL_S = 0.5


@dataclass(frozen=True, slots=True)
class Shared:
    """A running server, and the folder of its models."""

    info: ServerInfo
    repository: Path

    def address(self, protocol: str) -> str:
        return self.info.http_endpoint if protocol == "http" else self.info.grpc_endpoint

    def keys(self) -> dict[str, Any]:
        """What both analyzers' files say of it."""
        return {
            "model_repository": str(self.repository),
            "triton_launch_mode": "remote",
            "triton_http_endpoint": self.info.http_endpoint,
            "triton_grpc_endpoint": self.info.grpc_endpoint,
            "triton_metrics_url": self.info.metrics_url,
        }

    def only(self, *models: str) -> None:
        """Have just these loaded, as their files say, anew."""
        for model in self._loaded():
            self._post(f"/v2/repository/models/{model}/unload")
        deadline = time.monotonic() + 30
        while self._loaded() and time.monotonic() < deadline:
            time.sleep(0.1)
        for model in models:
            self._post(f"/v2/repository/models/{model}/load")

    def count(self, model: str, what: str = "success") -> int:
        """Requests that it has answered: nv_inference_request_success, or _failure."""
        with urllib.request.urlopen(self.info.metrics_url, timeout=10) as page:
            text = page.read().decode()
        found = re.findall(rf'^nv_inference_request_{what}{{[^}}]*model="{model}"[^}}]*}} (\S+)', text, re.MULTILINE)
        return sum(int(float(value)) for value in found)

    def cpu_s(self) -> float:
        """Of the server and its stubs."""
        return tree_cpu_s(self.info.pids)

    def _loaded(self) -> list[str]:
        """Those that are there, come or go."""
        index = self._post("/v2/repository/index") or []
        return sorted({model["name"] for model in index if model.get("state") in ("READY", "LOADING", "UNLOADING")})

    def _post(self, path: str, body: bytes = b"{}") -> Any:
        request = urllib.request.Request(f"http://{self.info.http_endpoint}{path}", data=body, method="POST")
        try:
            with urllib.request.urlopen(request, timeout=60) as reply:
                text = reply.read()
        except urllib.error.HTTPError as error:
            raise CommandError(f"Triton refuses {path}: {error.read().decode(errors='replace')[:200]}") from None
        return json.loads(text) if text else None


@contextmanager
def serving(folder: Path) -> Iterator[Shared]:
    """Start it; no model is loaded."""
    repository = folder / "models"
    build = [sys.executable, str(ROOT / "examples/quickstart/build_models.py"), str(repository)]
    done = subprocess.run(build, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise CommandError(f"the demo's models: {done.stderr.strip()}")
    shutil.copytree(ROOT / "bench/models/image", repository / "image", ignore=shutil.ignore_patterns("__pycache__"))
    server = LocalServer(Launch(repository, folder / "triton.log", MONITORING_INTERVAL_S), find_embedded)
    try:
        yield Shared(server.start(ServerSettings()), repository)
    finally:
        server.stop()
