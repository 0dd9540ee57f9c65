"""A Triton container beside us, by the Docker SDK."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread
from typing import IO, Any

from model_analyzer.adapters.triton.control import TritonControl
from model_analyzer.adapters.triton.launch import PORTS, Launch, arguments, free_ports, merge_flags
from model_analyzer.adapters.triton.local import LOOPBACK, describe_gpus
from model_analyzer.adapters.triton.owned import OwnedServer
from model_analyzer.core.variant import ServerInfo, ServerSettings
from model_analyzer.errors import ServerError

# A container with this label belongs to the run that holds the export path, so only to us.
LABEL = "model-analyzer.export-path"
CONTAINER_PORTS = {"http-port": "8000", "grpc-port": "8001", "metrics-port": "8002"}
SAY_PULL_EVERY_S = 5.0


@dataclass(frozen=True, slots=True)
class DockerOptions:
    """The container, in Triton Model Analyzer's terms.

    mounts: "host:container:mode" (triton_docker_mounts). arguments: keywords of docker-py's containers.run
    (triton_docker_args); they win over ours. export_path: tells our containers from others'.
    """

    image: str
    export_path: Path
    mounts: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    shm_size: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)


class DockerServer(OwnedServer):
    """Starts `tritonserver` in a container, its ports published on this host's loopback."""

    def __init__(self, launch: Launch, options: DockerOptions) -> None:
        super().__init__(launch)
        self._options = options
        self._client: Any = None
        self._container: Any = None
        self._log_reader: Thread | None = None

    def start(self, settings: ServerSettings) -> ServerInfo:
        """Pull the image where it is absent, run it, wait until it is ready. Raises ServerError, ExportPathError."""
        self.stop()
        self._client = _connect()
        self._remove_leftovers()
        self._pull_if_absent()
        flags = self._flags(settings)
        command = ["tritonserver", *arguments(flags)]
        output = self._log.open([self._options.image, *command])
        self._run(command, dict(flags), settings)
        self._log_reader = Thread(target=_copy_log, args=(self._container, output), daemon=True)
        self._log_reader.start()
        return self._await_answer(dict(flags))

    def stop(self) -> None:
        """Stop and remove the container. Never raises."""
        container, self._container, self._control = self._container, None, None
        client, self._client = self._client, None
        try:
            if container is not None:
                with contextlib.suppress(Exception):
                    container.stop(timeout=max(1, round(self.grace_s)))
        finally:  # an interruption of the wait too must not leave it behind
            if container is not None:
                with contextlib.suppress(Exception):
                    container.remove(force=True)
            if self._log_reader is not None:
                self._log_reader.join(timeout=2)
            if client is not None:
                client.close()

    def _death(self) -> str | None:
        import docker

        if self._container is None:
            return "is stopped"
        try:
            self._container.reload()
        except docker.errors.NotFound:
            return "is gone: its container was removed"
        except (docker.errors.DockerException, OSError) as error:
            return f"is out of reach: {error}"
        state = self._container.attrs["State"]
        if state["Running"]:
            return None
        why = " (out of memory)" if state.get("OOMKilled") else ""
        return f"exited with code {state['ExitCode']}{why}"

    def _flags(self, settings: ServerSettings) -> list[tuple[str, str]]:
        ports = CONTAINER_PORTS
        if self._on_host_network():
            ports = dict(zip(PORTS, map(str, free_ports(LOOPBACK, len(PORTS))), strict=True))
        return merge_flags({**self._launch.flags(), **ports}, settings.flags)

    def _on_host_network(self) -> bool:
        given = self._options.arguments
        return "host" in (given.get("network"), given.get("network_mode"))

    def _run(self, command: list[str], flags: Mapping[str, str], settings: ServerSettings) -> None:
        import docker

        arguments = self._arguments(flags, settings)
        requests = _gpu_requests(self._launch.gpus)
        try:
            self._create_and_start(command, {"device_requests": requests, **arguments})
        except docker.errors.APIError as error:
            text = str(error.explanation or error)
            no_gpu = "device driver" in text or "nvidia" in text.lower()
            if not (requests and no_gpu):
                raise ServerError(
                    self._options.image, f"its container cannot be started: {text}", _fix(text)
                ) from error
            if self._launch.gpus:
                fix = "install the NVIDIA driver and nvidia-container-toolkit, or set gpus: []"
                raise ServerError("docker", f"the engine gives no GPU to containers: {text}", fix) from error
            self._create_and_start(command, arguments)

    def _create_and_start(self, command: list[str], arguments: Mapping[str, Any]) -> None:
        container = self._client.containers.create(self._options.image, command, **arguments)
        self._container = container  # from here on `stop` removes it
        try:
            container.start()
        except Exception:
            self._container = None
            container.remove(force=True)
            raise

    def _arguments(self, flags: Mapping[str, str], settings: ServerSettings) -> dict[str, Any]:
        from docker.types import Mount

        options = self._options
        repository = str(self._launch.repository)
        # A Mount refuses a path that is not on the engine's host; a volume would create it there, empty and root's.
        mounts = [] if "://" in repository else [Mount(repository, repository, type="bind", read_only=True)]
        ours: dict[str, Any] = {
            "init": True,
            "mounts": [*mounts, *(_mount(text) for text in options.mounts)],
            "environment": dict(settings.environment),
            "shm_size": options.shm_size,
        }
        if not self._on_host_network():
            # A free port of the host for each of the container's, of the engine's choosing.
            ours["ports"] = {f"{flags[port]}/tcp": (LOOPBACK, None) for port in PORTS}
        given = dict(options.arguments)
        labels = {**options.labels, **dict(given.pop("labels", None) or {}), LABEL: self._owner()}
        environment = _as_mapping(given.pop("environment", None) or {})
        return {**ours, **given, "labels": labels, "environment": {**ours["environment"], **environment}}

    def _await_answer(self, flags: Mapping[str, str]) -> ServerInfo:
        self._container.reload()
        published = self._container.attrs["NetworkSettings"]["Ports"] or {}
        # A container that died at once has none published; `_await_ready` says why it died.
        addresses = [_address(published, flags[port]) for port in PORTS]
        http, grpc, metrics = addresses
        control = TritonControl.over(self._launch.protocol, http, grpc, self._launch.tls, self._log)
        self._await_ready(control)
        self._control = control
        pid = self._container.attrs["State"]["Pid"]
        info = ServerInfo(
            version=control.version(),
            http_endpoint=http,
            grpc_endpoint=grpc,
            metrics_url=f"http://{metrics}/metrics",
            ours=True,
            pids=_pids(pid),
            image=self._options.image,
        )
        self._launch.say(f"Triton {info.version} in {self._options.image}: {describe_gpus(info.metrics_url)}")
        return info

    def _pull_if_absent(self) -> None:
        import docker
        from docker.utils import parse_repository_tag

        image = self._options.image
        try:
            self._client.images.get(image)
            return
        except docker.errors.ImageNotFound:
            self._launch.say(f"pulling {image}")
        try:
            progress = PullProgress()
            repository, tag = parse_repository_tag(image)
            said = time.monotonic()
            for event in self._client.api.pull(repository, tag or "latest", stream=True, decode=True):
                if "error" in event:
                    raise docker.errors.APIError(event["error"])
                progress.add(event)
                if time.monotonic() - said > SAY_PULL_EVERY_S:
                    said = time.monotonic()
                    self._launch.say(f"pulling {image}: {progress}")
        except docker.errors.APIError as error:
            fix = "check triton_docker_image or --triton-version, the network, and `docker login`"
            raise ServerError(image, f"cannot be pulled: {error.explanation or error}", fix) from error

    def _remove_leftovers(self) -> None:
        """Remove the container of a run of this export path that was killed."""
        for container in self._client.containers.list(all=True, filters={"label": f"{LABEL}={self._owner()}"}):
            self._launch.say(f"removing the container {container.name}, left by a run that was killed")
            container.remove(force=True)

    def _owner(self) -> str:
        # The directory itself, not its name: /results in one container is not /results in another.
        self._options.export_path.mkdir(parents=True, exist_ok=True)
        status = self._options.export_path.stat()
        return f"{status.st_dev}-{status.st_ino}"


class PullProgress:
    """How far a pull is, from the engine's events: bytes of all layers that it has announced."""

    def __init__(self) -> None:
        self._layers: dict[str, tuple[int, int]] = {}

    def add(self, event: Mapping[str, Any]) -> None:
        """Take one event of the engine's pull stream."""
        detail = event.get("progressDetail") or {}
        if event.get("status") == "Downloading" and detail.get("total"):
            self._layers[event["id"]] = (detail["current"], detail["total"])
        elif event.get("status") == "Download complete" and event.get("id") in self._layers:
            total = self._layers[event["id"]][1]
            self._layers[event["id"]] = (total, total)

    def __str__(self) -> str:
        done = sum(current for current, _ in self._layers.values())
        total = sum(total for _, total in self._layers.values())
        return f"{done / 1e6:.0f} of {total / 1e6:.0f} MB" if total else "waiting for the registry"


def _connect() -> Any:
    try:
        import docker
    except ImportError:
        what, fix = "the Docker SDK for Python is not installed", "pip install 'model-analyzer[docker]'"
        raise ServerError("triton_launch_mode: docker", what, fix) from None
    try:
        return docker.from_env()
    except docker.errors.DockerException as error:
        what = f"no Docker engine answers: {error}"
        fix = (
            "start Docker (its socket is /var/run/docker.sock, or what DOCKER_HOST says; in a container mount it with "
            "-v /var/run/docker.sock:/var/run/docker.sock), or choose another triton_launch_mode"
        )
        raise ServerError("docker", what, fix) from error


def _copy_log(container: Any, output: IO[bytes]) -> None:
    # Ends when the container does. A log that can no longer be written must not end the run.
    with output, contextlib.suppress(Exception):
        for chunk in container.logs(stream=True, follow=True):
            output.write(chunk)
            output.flush()


def _gpu_requests(gpus: tuple[str, ...] | None) -> list[Any]:
    from docker.types import DeviceRequest

    if gpus is None:
        return [DeviceRequest(count=-1, capabilities=[["gpu"]])]
    return [DeviceRequest(device_ids=list(gpus), capabilities=[["gpu"]])] if gpus else []


def _mount(text: str) -> Any:
    from docker.types import Mount

    parts = text.split(":")
    if len(parts) not in (2, 3):
        fix = "write host:container or host:container:ro"
        raise ServerError(f"triton_docker_mounts: {text}", "is not a mount", fix)
    return Mount(parts[1], parts[0], type="bind", read_only=parts[2:] == ["ro"])


def _address(published: Mapping[str, Any], port: str) -> str:
    bindings = published.get(f"{port}/tcp") or [{"HostPort": port}]
    return f"{LOOPBACK}:{bindings[0]['HostPort']}"


def _as_mapping(environment: Any) -> dict[str, str]:
    """docker-py takes {"A": "b"} and ["A=b"]."""
    if isinstance(environment, Mapping):
        return dict(environment)
    return dict(item.split("=", 1) for item in environment)


def _pids(pid: int) -> tuple[int, ...]:
    """The container's first process, where our /proc shows it: the engine may be elsewhere, or we in a container."""
    try:
        return (pid,) if b"tritonserver" in Path(f"/proc/{pid}/cmdline").read_bytes() else ()
    except OSError:
        return ()


def _fix(text: str) -> str:
    if "bind source path does not exist" in text:
        return "the path must exist on the engine's host, at the same place as here: mount it there into this container"
    if "port is already allocated" in text:
        return "free the port, or leave it to the engine: take ports out of triton_docker_args"
    return "check triton_docker_image, triton_docker_mounts and triton_docker_args"
