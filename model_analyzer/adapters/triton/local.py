"""A server process of ours: `tritonserver` of this host, or the one in the nvidia-pytriton wheel."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from model_analyzer.adapters.triton.control import TritonControl
from model_analyzer.adapters.triton.launch import (
    PORTS,
    Launch,
    accepts,
    arguments,
    check_ports_free,
    check_repository,
    free_ports,
    merge_flags,
    opens_http,
)
from model_analyzer.adapters.triton.owned import OwnedServer
from model_analyzer.adapters.triton.process import ServerProcess
from model_analyzer.adapters.web import WebError, read_text
from model_analyzer.core.variant import ServerInfo, ServerSettings
from model_analyzer.errors import ServerError

LOOPBACK = "127.0.0.1"
# Another process may take a port between our asking for it and the server's binding it.
PORT_TRIES = 3


@dataclass(frozen=True, slots=True)
class Installation:
    """A tritonserver that can be started. environment: set before the user's; flags: before the job's."""

    name: str
    binary: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    flags: Mapping[str, str] = field(default_factory=dict)


def find_local(path: str | None = None) -> Installation:
    """The `tritonserver` at `path`, or on PATH. Raises ServerError."""
    found = shutil.which(path or "tritonserver")
    if found is None:
        where = f"triton_server_path: {path}" if path else "PATH"
        what = "is not an executable file" if path else "has no tritonserver"
        raise ServerError(where, what, "set triton_server_path, or use triton_launch_mode embedded, docker or remote")
    return Installation("tritonserver", Path(found).absolute())


class LocalServer(OwnedServer):
    """Starts what `find` finds. It runs until `stop`, or until we end, however we end."""

    def __init__(self, launch: Launch, find: Callable[[], Installation]) -> None:
        super().__init__(launch)
        self._find = find
        self._process: ServerProcess | None = None
        self._shm_prefix = ""

    def start(self, settings: ServerSettings) -> ServerInfo:
        """Start the server and wait until it is ready. Raises SpecError, ServerError, ExportPathError."""
        self.stop()
        check_repository(self._launch.repository)
        installation = self._find()
        tries = PORT_TRIES
        while True:
            tries -= 1
            try:
                return self._start_once(installation, settings)
            except ServerError as error:
                self.stop()
                if "already in use" not in str(error) or not tries:
                    raise

    def stop(self) -> None:
        """End the server and its stubs. Never raises."""
        process, self._process, self._control = self._process, None, None
        if process is not None:
            process.end(self.grace_s)

    def _death(self) -> str | None:
        return self._process.death() if self._process else "is stopped"

    def _start_once(self, installation: Installation, settings: ServerSettings) -> ServerInfo:
        flags = self._flags(installation, settings)
        values = dict(flags)
        host = values["http-address"]
        check_ports_free(host, values)
        command = [str(installation.binary), *arguments(flags)]
        with self._log.open(command) as output:
            environment = self._environment(installation, settings)
            self._process = ServerProcess(command, environment, output, self._shm_prefix)
        host = LOOPBACK if host == "0.0.0.0" else host
        http, grpc, metrics = (f"{host}:{values[port]}" for port in PORTS)
        launch = self._launch
        one_server = launch.control_over_http and opens_http(values)
        control = TritonControl.ways(launch.protocol, http, grpc, launch.tls, self._log, one_server=one_server)[0]
        # gRPC's library waits a second after a connection that was refused.
        self._await_ready(lambda: accepts(control.endpoint) and control.is_ready())
        self._await_metrics(metrics)
        self._control = control
        info = ServerInfo(control.version(), http, grpc, f"http://{metrics}/metrics", True, (self._process.pid,))
        self._launch.say(f"{installation.name} {info.version}: {describe_gpus(info.metrics_url)}")
        return info

    def _flags(self, installation: Installation, settings: ServerSettings) -> list[tuple[str, str]]:
        self._shm_prefix = f"model_analyzer_{secrets.token_hex(4)}_"
        ports = dict(zip(PORTS, map(str, free_ports(LOOPBACK, len(PORTS))), strict=True))
        ours = {
            **installation.flags,
            **self._launch.flags(),
            **ports,
            "http-address": LOOPBACK,
            "grpc-address": LOOPBACK,
            "backend-config": f"python,shm-region-prefix-name={self._shm_prefix}",
        }
        return merge_flags(ours, settings.flags)

    def _environment(self, installation: Installation, settings: ServerSettings) -> dict[str, str]:
        environment = {**os.environ, **installation.environment}
        if self._launch.gpus is not None:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(self._launch.gpus)
        return {**environment, **dict(settings.environment)}


def describe_gpus(metrics_url: str) -> str:
    """What the server can measure GPUs with: those on its metrics page, else why there is none."""
    uuids = _uuids_on(metrics_url)
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        listed = None
    names = dict(_gpu_line(line) for line in listed.stdout.splitlines() if "UUID: GPU-" in line) if listed else {}
    if uuids:
        return f"{len(uuids)} GPU{'s' * (len(uuids) > 1)} ({', '.join(names.get(uuid, uuid) for uuid in uuids)})"
    if listed is None:
        return "CPU only (no NVIDIA driver)"
    return f"no GPU metrics, though nvidia-smi lists {len(names)}" if names else "CPU only (nvidia-smi lists no GPU)"


def _uuids_on(metrics_url: str) -> list[str]:
    try:
        text = read_text(metrics_url, 5.0)
    except WebError:
        return []
    gauges = [line for line in text.splitlines() if line.startswith("nv_gpu_") and 'gpu_uuid="' in line]
    return sorted({line.split('gpu_uuid="', 1)[1].split('"', 1)[0] for line in gauges})


def _gpu_line(line: str) -> tuple[str, str]:
    """`GPU 0: NVIDIA H200 (UUID: GPU-...)` -> UUID, name."""
    head, uuid = line.rsplit("(UUID: ", 1)
    return uuid.rstrip(") "), head.split(":", 1)[1].strip()
