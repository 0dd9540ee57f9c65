"""A Triton container beside us, by the Docker SDK."""

from __future__ import annotations

import contextlib
import secrets
import signal
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread
from typing import IO, Any

from model_analyzer.adapters.container import in_docker
from model_analyzer.adapters.triton.control import TritonControl
from model_analyzer.adapters.triton.docker_engine import connect, pull_if_absent, reason_of
from model_analyzer.adapters.triton.launch import PORTS, Launch, accepts, arguments, free_ports, merge_flags, opens_http
from model_analyzer.adapters.triton.local import LOOPBACK, describe_gpus
from model_analyzer.adapters.triton.owned import OwnedServer
from model_analyzer.core.variant import ServerInfo, ServerSettings
from model_analyzer.errors import ServerError, SpecError

# A container with this label belongs to the run that holds the export path, so only to us.
LABEL = "model-analyzer.export-path"
CONTAINER_PORTS = {"http-port": "8000", "grpc-port": "8001", "metrics-port": "8002"}
# A container's own address is either at once on the line, or not reachable from here at all.
# Keywords of docker-py's containers.run that say how to wait for a container: we do not.
NOT_OURS = ("detach", "remove", "auto_remove", "stdout", "stderr", "stream")


@dataclass(frozen=True, slots=True)
class DockerOptions:
    """The container, in Triton Model Analyzer's terms.

    mounts: "host:container:mode" (triton_docker_mounts). arguments: keywords of docker-py's containers.run
    (triton_docker_args), unless the settings have their own; they win over ours. export_path: tells our containers from others'.
    host_ipc: it sees the host's /dev/shm, for tensors in shared memory; shm_size says nothing then.
    """

    image: str
    export_path: Path
    mounts: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    shm_size: str | None = None
    host_ipc: bool = False
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Address:
    """One way to the server in the container; each port as host:port. direct: without Docker's proxy between."""

    http: str
    grpc: str
    metrics: str
    direct: bool


class DockerServer(OwnedServer):
    """Starts `tritonserver` in a container. Nothing of it is published beyond this host's loopback.

    Its requests go to the container's own address where that can be reached: each one through a published port
    passes Docker's user-land proxy, which added 0.14 ms to a median of 0.30 ms (add_sub over HTTP at concurrency 1,
    4,500 requests each way in turns, Docker 20.10, 2 busy cores).
    """

    def __init__(self, launch: Launch, options: DockerOptions) -> None:
        super().__init__(launch)
        self._options = options
        self._given: Mapping[str, Any] = options.arguments
        self._client: Any = None
        self._container: Any = None
        self._log_reader: Thread | None = None

    def start(self, settings: ServerSettings) -> ServerInfo:
        """Pull the image where it is absent, run it, wait until it is ready. Raises ServerError, ExportPathError.

        SpecError where there is no model repository, or triton_docker_mounts has something that is no mount.
        """
        self.stop()
        self._given = settings.docker_arguments or self._options.arguments
        if not self._launch.repository.is_dir() and not self._repository_is_remote():
            folder = self._launch.repository
            mount = f"mount it at the path that it has on the host: add -v {folder}:{folder} to docker run"
            fix = mount if in_docker() else "make it a directory of models"
            raise SpecError(f"model_repository: {self._launch.repository}", "is not a directory", fix)
        self._client = connect()
        self._remove_leftovers()
        pull_if_absent(self._client, self._options.image, self._launch.say)
        # The server answers with this name: whoever else answers at its address is not taken for it.
        name = f"model-analyzer-{secrets.token_hex(4)}"
        flags = self._flags(name, settings)
        command = ["tritonserver", *arguments(flags)]
        output = self._log.open([self._options.image, *command])
        try:
            self._run(command, {"name": name, **self._arguments(dict(flags), settings)})
        except BaseException:
            output.close()
            raise
        self._log_reader = Thread(target=_copy_log, args=(self._container, output), daemon=True)
        self._log_reader.start()
        return self._await_answer(dict(flags))

    def stop(self) -> None:
        """Stop and remove the container. Never raises."""
        container, self._container, self._control = self._container, None, None
        client, self._client = self._client, None
        if client is None:
            return
        try:
            if container is not None:
                with contextlib.suppress(Exception):  # a dead one, or a dead engine: removal says so
                    container.stop(timeout=round(self.grace_s))
        finally:  # an interruption of the wait too must not leave it behind
            self._remove(client)
            if self._log_reader is not None:
                self._log_reader.join(timeout=2)
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
            return f"is out of reach: {reason_of(error)}"
        state = self._container.attrs["State"]
        if state["Running"]:
            return None
        if self._log_reader is not None:
            self._log_reader.join(timeout=2)  # its last lines say why
        return f"exited with code {state['ExitCode']}{_cause(state)}"

    def _flags(self, name: str, settings: ServerSettings) -> list[tuple[str, str]]:
        ours = {"id": name, **self._launch.flags(), **CONTAINER_PORTS}
        if self._shares_a_network():
            ports = dict(zip(PORTS, map(str, free_ports(LOOPBACK, len(PORTS))), strict=True))
            ours |= {**ports, "http-address": LOOPBACK, "grpc-address": LOOPBACK}
        return merge_flags(ours, settings.flags)

    def _shares_a_network(self) -> bool:
        """Whether it has no network of its own: nothing can be published, and any port may be taken."""
        given = self._given
        modes = [str(given.get("network")), str(given.get("network_mode"))]
        return any(mode == "host" or mode.startswith("container:") for mode in modes)

    def _repository_is_remote(self) -> bool:
        return "://" in str(self._launch.repository)

    def _run(self, command: list[str], arguments: dict[str, Any]) -> None:
        import docker

        faults = (docker.errors.DockerException, OSError, TypeError, ValueError)
        asked = [] if "device_requests" in arguments else _gpu_requests(self._launch.gpus)
        try:
            self._create_and_start(command, {"device_requests": asked, **arguments})
            return
        except faults as error:
            reason = reason_of(error)
            if not (asked and ("device driver" in reason or "gpu" in reason.lower() or "nvidia" in reason.lower())):
                raise self._not_started(reason) from error
            if self._launch.gpus:
                fix = "install the NVIDIA driver and nvidia-container-toolkit, or set gpus: []"
                raise ServerError("docker", f"the engine gives no GPU to containers: {reason}", fix) from error
        self._launch.say(f"the Docker engine gives no GPU to containers ({reason}): Triton will use the CPU only")
        try:
            self._create_and_start(command, arguments)
        except faults as error:
            raise self._not_started(reason_of(error)) from error

    def _not_started(self, reason: str) -> ServerError:
        return ServerError(self._options.image, f"its container cannot be started: {reason}", _fix(reason))

    def _create_and_start(self, command: list[str], arguments: Mapping[str, Any]) -> None:
        container = self._client.containers.create(self._options.image, command, **arguments)
        try:
            container.start()
        except Exception:
            container.remove(force=True)
            raise
        self._container = container

    def _arguments(self, flags: Mapping[str, str], settings: ServerSettings) -> dict[str, Any]:
        from docker.types import LogConfig, Mount

        options = self._options
        repository = str(self._launch.repository)
        # A Mount refuses a path that is not on the engine's host; a volume would create it there, empty and root's.
        own = [] if self._repository_is_remote() else [Mount(repository, repository, type="bind", read_only=True)]
        environment = dict(settings.environment)
        if self._launch.gpus == ():
            # NVIDIA's images ask for all GPUs, which an engine whose default runtime is NVIDIA's then gives.
            environment = {"NVIDIA_VISIBLE_DEVICES": "void", **environment}
        ours: dict[str, Any] = {
            # Reaps the Python backend's processes, and lets a signal end a server that would be process 1.
            "init": True,
            "mounts": [*own, *map(_mount, options.mounts)],
            **({"ipc_mode": "host"} if options.host_ipc else {"shm_size": options.shm_size}),
            # The engine's default may be one that keeps nothing to read.
            "log_config": LogConfig(type=LogConfig.types.JSON),
        }
        given = {key: value for key, value in self._given.items() if key not in NOT_OURS}
        labels = {**options.labels, **dict(given.pop("labels", None) or {}), LABEL: self._owner()}
        environment = {**environment, **_as_mapping(given.pop("environment", None) or {})}
        if not self._shares_a_network():
            # A free port of the host for each of the container's, of the engine's choosing.
            published = {f"{flags[port]}/tcp": (LOOPBACK, None) for port in PORTS}
            ours["ports"] = {**published, **_by_protocol(given.pop("ports", None) or {})}
        return {**ours, **given, "labels": labels, "environment": environment}

    def _await_answer(self, flags: Mapping[str, str]) -> ServerInfo:
        answering: list[tuple[Address, TritonControl]] = []

        def is_ready() -> bool:
            # Once more when one answers: the better way may have been tried a moment too early.
            if next(self._answering(flags), None) is not None:
                answering.extend(self._answering(flags))
            return bool(answering)

        self._await_ready(is_ready)
        address, self._control = answering[0]
        self._await_metrics(address.metrics)
        info = ServerInfo(
            version=self._control.version(),
            http_endpoint=address.http,
            grpc_endpoint=address.grpc,
            metrics_url=f"http://{address.metrics}/metrics",
            ours=True,
            pids=_pids(self._container.attrs["State"]["Pid"]),
            image=self._options.image,
        )
        self._launch.say(f"Triton {info.version} in {self._options.image}: {describe_gpus(info.metrics_url)}")
        if not address.direct:
            self._launch.say(
                "its requests pass Docker's proxy, which adds to their latency: its own address is not reachable"
            )
        return info

    def _answering(self, flags: Mapping[str, str]) -> Iterator[tuple[Address, TritonControl]]:
        """The ways by which our server, and no other, answers now that it is ready; the best first."""
        import docker

        try:
            self._container.reload()
        except (docker.errors.DockerException, OSError):
            return  # `_death` says why
        for address in addresses(self._container.attrs, flags, self._shares_a_network()):
            if not accepts(address.grpc if self._launch.protocol == "grpc" else address.http):
                continue
            control = TritonControl.ways(
                self._launch.protocol,
                address.http,
                address.grpc,
                self._launch.tls,
                self._log,
                one_server=self._launch.control_over_http and opens_http(flags),
            )[0]
            if control.is_ready() and control.name() == flags["id"]:
                yield address, control

    def _remove_leftovers(self) -> None:
        """Remove the container of a run of this export path that was killed."""
        for container in self._ours(self._client):
            self._launch.say(f"removing the container {container.name}, left by a run that was killed")
            container.remove(force=True)

    def _remove(self, client: Any) -> None:
        """Remove whatever is ours, one too that was created in the moment of an interruption. Never raises."""
        import docker

        try:
            for container in self._ours(client):
                with contextlib.suppress(docker.errors.NotFound):
                    container.remove(force=True)
        except (docker.errors.DockerException, OSError) as error:
            fix = f"docker ps -a --filter label={LABEL}"
            self._launch.say(f"the Triton container may be left behind ({reason_of(error)}); look with: {fix}")

    def _ours(self, client: Any) -> list[Any]:
        label = f"{LABEL}={self._owner()}"
        return list(client.containers.list(all=True, ignore_removed=True, filters={"label": label}))

    def _owner(self) -> str:
        # The directory itself, not its name: /results in one container is not /results in another.
        self._options.export_path.mkdir(parents=True, exist_ok=True)
        status = self._options.export_path.stat()
        return f"{status.st_dev}-{status.st_ino}"


def addresses(attributes: Mapping[str, Any], flags: Mapping[str, str], shares_a_network: bool) -> Iterator[Address]:
    """Every way to the container's ports, the best first; none while it has no network.

    attributes: the engine's description of the container (`docker inspect`).
    """
    ports = [flags[port] for port in PORTS]
    if shares_a_network:
        yield _address([f"{LOOPBACK}:{port}" for port in ports], direct=True)
        return
    settings = attributes["NetworkSettings"]
    for network in (settings.get("Networks") or {}).values():
        if network.get("IPAddress"):
            yield _address([f"{network['IPAddress']}:{port}" for port in ports], direct=True)
    bindings = [(settings.get("Ports") or {}).get(f"{port}/tcp") for port in ports]
    if all(bindings):
        yield _address([f"{LOOPBACK}:{binding[0]['HostPort']}" for binding in bindings if binding], direct=False)


def _address(places: Sequence[str], direct: bool) -> Address:
    http, grpc, metrics = places
    return Address(http, grpc, metrics, direct)


def _copy_log(container: Any, output: IO[bytes]) -> None:
    """Append the container's output to our log until it ends. A log that cannot be kept must not end the run."""
    with output, contextlib.suppress(OSError):
        try:
            for chunk in container.logs(stream=True, follow=True):
                output.write(chunk)
                output.flush()
        except Exception as error:
            output.write(f"# the container's output is read no further: {reason_of(error)}\n".encode())


def _cause(state: Mapping[str, Any]) -> str:
    if state.get("OOMKilled"):
        return " (out of memory)"
    try:
        return f" ({signal.Signals(state['ExitCode'] - 128).name})"
    except ValueError:
        return ""


def _gpu_requests(gpus: tuple[str, ...] | None) -> list[Any]:
    from docker.types import DeviceRequest

    if gpus is None:
        return [DeviceRequest(count=-1, capabilities=[["gpu"]])]
    return [DeviceRequest(device_ids=list(gpus), capabilities=[["gpu"]])] if gpus else []


def _mount(text: str) -> Any:
    from docker.types import Mount

    parts = text.split(":")
    if len(parts) not in (2, 3) or parts[2:] not in ([], ["ro"], ["rw"]) or not all(parts):
        fix = "write host:container, host:container:ro or host:container:rw; other modes go into triton_docker_args: volumes"
        raise SpecError(f"triton_docker_mounts: {text}", "is not a mount", fix)
    return Mount(parts[1], parts[0], type="bind", read_only=parts[2:] == ["ro"])


def _by_protocol(ports: Mapping[Any, Any]) -> dict[str, Any]:
    """docker-py takes 8000, "8000" and "8000/tcp" for one port."""
    return {str(port) if "/" in str(port) else f"{port}/tcp": binding for port, binding in ports.items()}


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
