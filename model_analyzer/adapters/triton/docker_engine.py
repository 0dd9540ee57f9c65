"""The Docker engine: reaching it, and getting an image into it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from model_analyzer.adapters.container import in_docker
from model_analyzer.errors import ServerError

SAY_PULL_EVERY_S = 5.0
HERE = ("localhost", "127.0.0.1", "::1")


def connect() -> Any:
    """A docker-py client. Raises ServerError where no engine answers, or one of another host does."""
    try:
        import docker
    except ImportError:
        what, fix = "the Docker SDK for Python is not installed", "pip install 'model-analyzer[docker]'"
        raise ServerError("triton_launch_mode: docker", what, fix) from None
    address = os.environ.get("DOCKER_HOST", "")
    host = urlsplit(address).hostname
    if host not in (None, *HERE):
        what = f"the Docker engine of {address} is on another host, where this one's models and ports are not"
        fix = "run model-analyzer there, or start Triton there and use triton_launch_mode: remote"
        raise ServerError("DOCKER_HOST", what, fix)
    try:
        return docker.from_env()
    except docker.errors.DockerException as error:
        cause = _first_cause(error)
        what = f"no Docker engine answers at {address or '/var/run/docker.sock'}: {cause}"
        fix = (
            "start Docker (its socket is /var/run/docker.sock, or what DOCKER_HOST says; in a container mount it with "
            "-v /var/run/docker.sock:/var/run/docker.sock), or choose another triton_launch_mode"
        )
        if cause == "Permission denied":
            fix = remedy_for_socket(address)
        raise ServerError("docker", what, fix) from error


def remedy_for_socket(address: str) -> str:
    """How to be let in. address: DOCKER_HOST, empty for the usual socket."""
    if not in_docker():
        return "run as root, or as a user of the group `docker`, or choose another triton_launch_mode"
    socket = Path(urlsplit(address).path or "/var/run/docker.sock")
    # Its group has the host's number here; a name it has on the host only.
    return f"give this container the socket's group: add --group-add {socket.stat().st_gid} to docker run"


def reason_of(error: BaseException) -> str:
    """What the engine, or the way to it, says: one line."""
    text = str(getattr(error, "explanation", None) or error)
    return " ".join(text.split())


def _first_cause(error: BaseException) -> str:
    """The operating system's words, which docker-py's own wrap three times."""
    deepest: BaseException | None = error
    found = reason_of(error)
    while deepest is not None:
        found = getattr(deepest, "strerror", None) or found
        deepest = deepest.__cause__ or deepest.__context__
    return found


def pull_if_absent(client: Any, image: str, say: Callable[[str], None]) -> None:
    """Get the image where the engine does not have it, telling how far it is. Raises ServerError."""
    import docker

    try:
        client.images.get(image)
        return
    except docker.errors.ImageNotFound:
        say(f"pulling {image}")
    except (docker.errors.DockerException, OSError) as error:
        raise ServerError(image, f"cannot be looked up: {reason_of(error)}", "check triton_docker_image") from error
    try:
        _pull(client, image, say)
    except (docker.errors.DockerException, OSError) as error:
        fix = "check triton_docker_image or --triton-version, the network, and `docker login`"
        raise ServerError(image, f"cannot be pulled: {reason_of(error)}", fix) from error


def _pull(client: Any, image: str, say: Callable[[str], None]) -> None:
    import docker
    from docker.utils import parse_repository_tag

    progress = PullProgress()
    repository, tag = parse_repository_tag(image)
    began = said = time.monotonic()
    for event in client.api.pull(repository, tag or "latest", stream=True, decode=True):
        if "error" in event:
            raise docker.errors.APIError(event["error"])
        progress.add(event)
        now = time.monotonic()
        if now - said > SAY_PULL_EVERY_S:
            said = now
            say(f"pulling {image}: {progress}")
    say(f"pulled {image} in {time.monotonic() - began:.0f} s")


class PullProgress:
    """How far a pull is, from the events of the engine's pull stream.

    The engine tells a layer's size only when it begins to download it, so there is no total of bytes before
    the last layer has begun; layers are counted from the start.
    """

    def __init__(self) -> None:
        self._downloaded: dict[str, int] = {}  # layer -> bytes so far
        self._sizes: dict[str, int] = {}
        self._layers: dict[str, bool] = {}  # layer -> whether it is complete

    def add(self, event: Mapping[str, Any]) -> None:
        """Take one event."""
        layer, status = str(event.get("id", "")), str(event.get("status", ""))
        if status in ("Pulling fs layer", "Waiting"):
            self._layers.setdefault(layer, False)
        elif status in ("Already exists", "Pull complete"):
            self._layers[layer] = True
        elif status == "Downloading":
            self._layers.setdefault(layer, False)
            detail = event.get("progressDetail") or {}
            self._downloaded[layer] = int(detail.get("current") or 0)
            if detail.get("total"):
                self._sizes[layer] = int(detail["total"])
        elif status == "Download complete":
            # A small one is complete before the engine has told its size.
            self._downloaded[layer] = self._sizes.setdefault(layer, self._downloaded.get(layer, 0))

    def __str__(self) -> str:
        if not self._layers:
            return "waiting for the registry"
        layers = f"{sum(self._layers.values())} of {len(self._layers)} layers"
        done = sum(self._downloaded.values()) / 1e6
        unfinished = [layer for layer, complete in self._layers.items() if not complete]
        if all(layer in self._sizes for layer in unfinished):
            return f"{layers}, {done:.0f} of {sum(self._sizes.values()) / 1e6:.0f} MB"
        return f"{layers}, {done:.0f} MB so far"
