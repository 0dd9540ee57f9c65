"""How a server of ours is started: what the job asks for, its flags, its ports."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from model_analyzer.core.load import Protocol, Tls
from model_analyzer.errors import ServerError, SpecError

Flags = list[tuple[str, str]]

CONNECT_TIMEOUT_S = 0.5
PORTS = ("http-port", "grpc-port", "metrics-port")
# May stand several times, each with a setting of its own: `--backend-config=python,key=value`.
REPEATABLE = frozenset({"backend-config", "metrics-config", "trace-config", "cache-config", "host-policy"})


def _silent(_line: str) -> None:
    """Nobody listens."""


@dataclass(frozen=True, slots=True)
class Launch:
    """What every server that we start is started with.

    monitoring_interval_s: how often it will be scraped; the server refreshes its gauges twice as often.
    gpus: UUIDs or indices to show to the server; None: all, (): none.
    control_over_http: whether all models can be reached over HTTP, by their names.
    say: receives a line for people (what was found, how far an image pull is).
    """

    repository: Path
    log_path: Path
    monitoring_interval_s: float = 1.0
    protocol: Protocol = "grpc"
    tls: Tls | None = None
    gpus: tuple[str, ...] | None = None
    ready_timeout_s: float = 120.0
    control_over_http: bool = True
    say: Callable[[str], None] = _silent

    def flags(self) -> dict[str, str]:
        """The flags that the job decides."""
        return {
            "model-repository": str(self.repository),
            "model-control-mode": "explicit",
            "metrics-interval-ms": f"{max(self.monitoring_interval_s * 500, 10):g}",
            # A client's idle connection makes a stopping Triton wait this long; its default is 30.
            "exit-timeout-secs": "5",
        }


def check_repository(repository: Path) -> None:
    """Raise SpecError for a model repository on this host that is not there; Triton itself reads s3:// and the like."""
    if "://" not in str(repository) and not repository.is_dir():
        raise SpecError(f"model_repository: {repository}", "is not a directory", "make it a directory of models")


def accepts(address: str) -> bool:
    """Whether something listens there and can be reached from here."""
    return why_closed(address, CONNECT_TIMEOUT_S) is None


def why_closed(address: str, timeout_s: float) -> str | None:
    """None where something listens there and can be reached from here, else why not."""
    host, port = address.rsplit(":", 1)
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout_s).close()
    except (OSError, ValueError, OverflowError) as error:  # the latter two: what is no name or port at all
        return getattr(error, "strerror", None) or str(error)
    return None


def opens_http(flags: Mapping[str, str]) -> bool:
    """Whether a server of these flags takes every control call over HTTP."""
    return flags.get("allow-http", "true").lower() in ("true", "1") and "http-restricted-api" not in flags


def merge_flags(ours: Mapping[str, str], theirs: Iterable[tuple[str, str]]) -> Flags:
    """Our flags and the user's; theirs win, and no flag (or setting of a repeatable one) stands twice.

    Triton Model Analyzer takes `http_port` for `http-port`, and so do we.
    """
    merged: dict[tuple[str, str], tuple[str, str]] = {}
    for name, value in (*ours.items(), *theirs):
        flag = name.lstrip("-").replace("_", "-")
        setting = value.split("=", 1)[0] if flag in REPEATABLE else ""
        merged[flag, setting] = (flag, value)
    return list(merged.values())


def arguments(flags: Flags) -> list[str]:
    """Flags as a command line."""
    return [f"--{flag}={value}" for flag, value in flags]


def free_ports(host: str, count: int) -> list[int]:
    """Ports that are free now, as the OS says."""
    sockets = [socket.create_server((host, 0)) for _ in range(count)]
    try:
        return [int(each.getsockname()[1]) for each in sockets]
    finally:
        for each in sockets:
            each.close()


def check_ports_free(host: str, flags: Mapping[str, str]) -> None:
    """Raise ServerError for a port in use: else another server there would be taken for ours."""
    for flag in PORTS:
        problem = _why_not_free(host, flags[flag])
        if problem:
            fix = "stop what listens there, choose another port, or leave the flag out for a free one"
            raise ServerError(f"triton_server_flags: {flag}", f"{flags[flag]} cannot be used: {problem}", fix)


def _why_not_free(host: str, port: str) -> str | None:
    try:
        socket.create_server((host, int(port))).close()
    except (OSError, ValueError, OverflowError) as error:
        return str(error)
    return None


# What a dying tritonserver prints -> how to mend it.
REMEDIES = (
    (("already in use",), "stop what listens there, or choose another port in triton_server_flags"),
    (
        ("unrecognized option", "Usage: tritonserver", "Invalid value"),
        "correct triton_server_flags; `tritonserver --help` lists them",
    ),
    (
        ("error while loading shared libraries",),
        "install the package of that library, or set LD_LIBRARY_PATH in triton_server_environment",
    ),
    (("failed to stat file",), "check model_repository: the server must be able to read it"),
    (
        ("No such file or directory", "Permission denied"),
        "check triton_server_path and the paths in triton_server_flags",
    ),
)


def remedy(tail: Sequence[str], log_path: Path) -> str:
    """How to mend a death, from the log's tail."""
    text = "\n".join(tail)
    return next((fix for signs, fix in REMEDIES if any(sign in text for sign in signs)), f"see {log_path}")
