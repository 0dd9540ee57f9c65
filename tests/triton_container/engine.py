"""A real Docker engine for the tests: the one that runs here, else one of our own for as long as they run."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 30.0
PR_SET_PDEATHSIG = 1


class NoEngineError(Exception):
    """Neither is there one, nor can one be started; the text says why."""


@dataclass(frozen=True)
class Engine:
    """An engine that answers. has_bridge: whether its containers can have a network of their own."""

    address: str
    client: Any
    ours: bool
    has_bridge: bool


@contextmanager
def docker_engine() -> Iterator[Engine]:
    """Raises NoEngineError."""
    if importlib.util.find_spec("docker.client") is None:
        raise NoEngineError(
            "the Docker SDK for Python is not installed: pip install 'model-analyzer[docker]'"
        ) from None
    running = os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"
    client = client_of(running)
    if client is not None:
        with contextlib.closing(client):
            yield Engine(running, client, ours=False, has_bridge=True)
        return
    with _own_engine(running) as engine:
        yield engine


def client_of(address: str) -> Any:
    """A client, or None where no engine answers."""
    import docker

    with warnings.catch_warnings():
        # docker-py leaves the socket of a failed try to the garbage collector.
        warnings.simplefilter("ignore", ResourceWarning)
        with contextlib.suppress(docker.errors.DockerException):
            return docker.DockerClient(base_url=address, version="auto")
        gc.collect()
    return None


@contextmanager
def _own_engine(missing: str) -> Iterator[Engine]:
    why = f"no engine answers at {missing}, and one can't be started:"
    if os.geteuid() != 0:
        raise NoEngineError(f"{why} only root may; start Docker, or run the tests as root")
    dockerd = shutil.which("dockerd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if dockerd is None:
        raise NoEngineError(f"{why} there is no dockerd; run scripts/system-deps.sh --docker")
    # Not pytest's folder: a socket's path may have 107 characters.
    home = Path(tempfile.mkdtemp(prefix="dockerd-"))
    problems = []
    try:
        for bridge, flags in _attempts():
            with _bridge(bridge) as has_bridge, _daemon([dockerd, *flags], home) as started:
                if isinstance(started, str):
                    problems.append(started)
                    continue
                yield Engine(f"unix://{home}/docker.sock", started, ours=True, has_bridge=has_bridge)
                return
        raise NoEngineError(f"{why} {problems[-1]}")
    finally:
        _unmount(home)
        shutil.rmtree(home)


def _unmount(home: Path) -> None:
    """Take away what dockerd leaves mounted: the network namespace of containers on the host's network."""
    mounted = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    for place in sorted((each for each in mounted if each.startswith(f"{home}/")), reverse=True):
        subprocess.run(["umount", "--lazy", place], check=False)


def _attempts() -> Iterator[tuple[str | None, list[str]]]:
    """A bridge to create, and dockerd's flags.

    Our own bridge and no iptables: nothing of this machine's network is changed, and engines side by side do not
    share docker0. Published ports work through docker's proxy, and the host reaches the bridge.
    """
    quiet = ["--iptables=false", "--ip-forward=false"]
    name = f"ma-test{os.getpid() % 100_000}"
    for driver in ([], ["--storage-driver=vfs"]):
        if shutil.which("ip"):
            yield name, [*quiet, *driver, f"--bridge={name}"]
        yield None, [*quiet, *driver, "--bridge=none"]


@contextmanager
def _bridge(name: str | None) -> Iterator[bool]:
    """A network bridge for as long as it is needed; whether there is one."""
    if name is None:
        yield False
        return
    address = f"10.213.{os.getpid() % 250}.1/24"
    steps = [["add", name, "type", "bridge"], ["set", name, "up"]]
    made = all(
        subprocess.run(["ip", "link", *step], capture_output=True, check=False).returncode == 0 for step in steps
    )
    subprocess.run(["ip", "address", "add", address, "dev", name], capture_output=True, check=False)
    try:
        yield made
    finally:
        subprocess.run(["ip", "link", "delete", name], capture_output=True, check=False)


@contextmanager
def _daemon(command: list[str], home: Path) -> Iterator[Any]:
    """A client of a dockerd of ours, or why it did not start."""
    places = ["--data-root", home / "data", "--exec-root", home / "exec", "--pidfile", home / "pid"]
    address = f"unix://{home}/docker.sock"
    log = home / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, *map(str, places), "-H", address],
            stdout=output,
            stderr=output,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=_end_with_parent,
        )
    client = None
    try:
        deadline = time.monotonic() + START_TIMEOUT_S
        while client is None and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
            client = client_of(address)
        yield client or f"{' '.join(command)} ended: {_last_line(log)}"
    finally:
        if client is not None:
            client.close()
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _last_line(log: Path) -> str:
    return next(iter(log.read_text(errors="replace").splitlines()[-1:]), "its log is empty")
