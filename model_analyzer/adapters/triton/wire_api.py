"""Triton's control calls over HTTP and over gRPC, one method a call, plain JSON values either way.

Each call opens a connection of its own: a kept-alive one makes a Triton that
is told to stop wait its whole exit timeout (seen with 2.51).
"""

from __future__ import annotations

# ruff: noqa: D102 -- WireApi documents the methods of both clients
import json
import ssl
from collections.abc import Mapping
from functools import cached_property
from typing import Any, Protocol, cast
from urllib.parse import quote

from model_analyzer.adapters.triton.messages import grpc_client
from model_analyzer.adapters.web import Answer, Site, WebError
from model_analyzer.core.load import Tls
from model_analyzer.core.wording import printable

# Health and description answer from memory; loading may read gigabytes from a slow disk.
CALL_TIMEOUT_S = 10.0
LOAD_TIMEOUT_S = 1800.0

Json = dict[str, Any]
# Source: Triton's protocol/extension_shared_memory.md.
_SHM = "/systemsharedmemory"
# What may stand in a path beside letters, digits and `-._~`. Source: RFC 3986, pchar.
_OF_PATHS = "!$&'()*+,;=:@"


class Refused(Exception):  # noqa: N818 -- an answer, not a fault of ours
    """The server answered, and said no; the text is its own, on one line: of a Python model it is a whole traceback."""

    def __init__(self, text: object) -> None:
        super().__init__(printable(str(text)))


class Unreachable(Exception):  # noqa: N818 -- a state of the server
    """No answer: connection refused or lost, timeout, TLS failure."""


class WireApi(Protocol):
    """Every method raises Refused or Unreachable."""

    endpoint: str

    def is_live(self) -> bool:
        """Whether the server runs, ready or not."""
        ...

    def is_ready(self) -> bool:
        """Whether the server and all models that it should have loaded are ready."""
        ...

    def metadata(self) -> Json:
        """The server's name, version, extensions."""
        ...

    def model_metadata(self, model: str) -> Json:
        """The model's versions and tensors."""
        ...

    def model_config(self, model: str) -> Json:
        """The whole config as it is served, completed by Triton."""
        ...

    def index(self) -> list[Json]:
        """name, version, state, reason of each model of the repository that the server knows."""
        ...

    def statistics(self, model: str) -> list[Json]:
        """Counters of each loaded version of a model."""
        ...

    def load(self, model: str, config: Mapping[str, Any] | None, timeout_s: float) -> None:
        """Load or reload; `config` replaces the repository's whole config."""
        ...

    def unload(self, model: str, timeout_s: float) -> None:
        """Ask to unload; Triton answers before it is done, but not before the model is loaded where it still is."""
        ...

    def register_region(self, name: str, key: str, size: int) -> None:
        """Map `size` bytes of the system shared memory `key`, to be called `name` in requests."""
        ...

    def unregister_region(self, name: str) -> None:
        """Unmap it; nothing happens where there is none. Since 2.50 refused while a request uses it."""
        ...

    def regions(self, timeout_s: float = CALL_TIMEOUT_S) -> list[str]:
        """Names of the regions of system shared memory that the server knows."""
        ...


def in_path(name: str) -> str:
    """The name as it stands in a path of the HTTP endpoints."""
    return quote(name, safe=_OF_PATHS)


def has_path(model: str) -> bool:
    """Whether a model of this name can be reached over HTTP: Triton takes a path as it comes, `%25` too (seen with 2.51)."""
    return in_path(model) == model


def another_endpoint(protocol: str) -> str:
    """How to mend an endpoint that does not answer."""
    other = "http" if protocol == "grpc" else "grpc"
    return f"correct triton_{protocol}_endpoint, choose client_protocol: {other}"


class HttpApi:
    """The HTTP/REST endpoints. Source: KServe v2 protocol and Triton's protocol/extension_model_repository.md."""

    def __init__(self, endpoint: str, tls: Tls | None = None) -> None:
        self.endpoint = endpoint
        self._base = f"{'https' if tls else 'http'}://{endpoint}/v2"
        self._tls = tls

    def is_live(self) -> bool:
        return self._status("health/live") == 200

    def is_ready(self) -> bool:
        return self._status("health/ready") == 200

    def metadata(self) -> Json:
        return cast(Json, self._call("GET", ""))

    def model_metadata(self, model: str) -> Json:
        return cast(Json, self._call("GET", f"/models/{in_path(model)}"))

    def model_config(self, model: str) -> Json:
        return cast(Json, self._call("GET", f"/models/{in_path(model)}/config"))

    def index(self) -> list[Json]:
        return cast("list[Json]", self._call("POST", "/repository/index"))

    def statistics(self, model: str) -> list[Json]:
        return cast("list[Json]", self._call("GET", f"/models/{in_path(model)}/stats")["model_stats"])

    def load(self, model: str, config: Mapping[str, Any] | None, timeout_s: float) -> None:
        body = {"parameters": {"config": json.dumps(config)}} if config is not None else {}
        self._call("POST", f"/repository/models/{in_path(model)}/load", body, timeout_s)

    def unload(self, model: str, timeout_s: float) -> None:
        self._call("POST", f"/repository/models/{in_path(model)}/unload", {}, timeout_s)

    def register_region(self, name: str, key: str, size: int) -> None:
        self._call("POST", f"{_SHM}/region/{in_path(name)}/register", {"key": key, "offset": 0, "byte_size": size})

    def unregister_region(self, name: str) -> None:
        self._call("POST", f"{_SHM}/region/{in_path(name)}/unregister")

    def regions(self, timeout_s: float = CALL_TIMEOUT_S) -> list[str]:
        return [item["name"] for item in self._call("GET", f"{_SHM}/status", None, timeout_s)]

    def _status(self, path: str) -> int:
        return self._request("GET", f"/{path}", None, CALL_TIMEOUT_S)[0]

    def _call(self, method: str, path: str, body: Json | None = None, timeout_s: float = CALL_TIMEOUT_S) -> Any:
        status, data = self._request(method, path, body, timeout_s)
        try:
            answer = json.loads(data) if data else {}
        except ValueError:
            raise Refused(f"HTTP status {status} and no JSON from {self._base}{path}; is that Triton?") from None
        if status >= 400:
            text = answer.get("error") if isinstance(answer, dict) else None
            raise Refused(text or f"HTTP status {status} from {self._base}{path}")
        return answer

    def _request(self, method: str, path: str, body: Json | None, timeout_s: float) -> Answer:
        data = json.dumps(body).encode() if body is not None else None
        try:
            site = Site(self._base, min(CALL_TIMEOUT_S, timeout_s), keep=False, context=self._context)
            return site.request(method, f"{site.target}{path}", data, read_s=timeout_s)
        except (WebError, OSError) as error:  # OSError: a certificate file that cannot be read
            raise Unreachable(str(error)) from error

    @cached_property
    def _context(self) -> ssl.SSLContext | None:
        return _ssl_context(self._tls) if self._tls else None


class GrpcApi:
    """The gRPC service, by tritonclient. Host and peer verification of gRPC cannot be switched off."""

    def __init__(self, endpoint: str, tls: Tls | None = None) -> None:
        self.endpoint = endpoint
        self._tls = tls

    def is_live(self) -> bool:
        return bool(self._call("is_server_live"))

    def is_ready(self) -> bool:
        return bool(self._call("is_server_ready"))

    def metadata(self) -> Json:
        return cast(Json, self._call("get_server_metadata", as_json=True))

    def model_metadata(self, model: str) -> Json:
        return cast(Json, self._call("get_model_metadata", model, as_json=True))

    def model_config(self, model: str) -> Json:
        return cast(Json, self._call("get_model_config", model, as_json=True)["config"])

    def index(self) -> list[Json]:
        return cast("list[Json]", self._call("get_model_repository_index", as_json=True).get("models", []))

    def statistics(self, model: str) -> list[Json]:
        return cast("list[Json]", self._call("get_inference_statistics", model, as_json=True).get("model_stats", []))

    def load(self, model: str, config: Mapping[str, Any] | None, timeout_s: float) -> None:
        text = None if config is None else json.dumps(config)
        self._call("load_model", model, config=text, client_timeout=timeout_s)

    def unload(self, model: str, timeout_s: float) -> None:
        self._call("unload_model", model, client_timeout=timeout_s)

    def register_region(self, name: str, key: str, size: int) -> None:
        self._call("register_system_shared_memory", name, key, size)

    def unregister_region(self, name: str) -> None:
        self._call("unregister_system_shared_memory", name)

    def regions(self, timeout_s: float = CALL_TIMEOUT_S) -> list[str]:
        status = self._call("get_system_shared_memory_status", as_json=True, client_timeout=timeout_s)
        return list(status.get("regions", {}))

    def _call(self, method: str, *args: Any, **options: Any) -> Any:
        import grpc
        from tritonclient.utils import InferenceServerException

        silent = {str(grpc.StatusCode.DEADLINE_EXCEEDED), str(grpc.StatusCode.CANCELLED)}
        tls = self._tls
        files: dict[str, Any] = {"ssl": True} if tls else {}
        if tls:
            files |= {"root_certificates": tls.ca_file, "private_key": tls.private_key_file}
            files |= {"certificate_chain": tls.certificate_file}
        try:
            with grpc_client().InferenceServerClient(self.endpoint, **files) as client:
                return getattr(client, method)(*args, **{"client_timeout": CALL_TIMEOUT_S, **options})
        except InferenceServerException as error:
            text = error.message()
            # UNAVAILABLE is both a lost connection, written by the gRPC library, and Triton's own word for a refusal.
            lost = "connect" in text.lower() or "socket" in text.lower() or "transport" in text.lower()
            if error.status() in silent or (error.status() == str(grpc.StatusCode.UNAVAILABLE) and lost):
                raise Unreachable(text) from error
            raise Refused(text) from error
        except OSError as error:  # a certificate file that cannot be read
            raise Unreachable(str(error)) from error


def _ssl_context(tls: Tls) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=tls.ca_file)
    context.check_hostname = tls.verify_host and tls.verify_peer
    if not tls.verify_peer:
        context.verify_mode = ssl.CERT_NONE
    if tls.certificate_file:
        context.load_cert_chain(tls.certificate_file, tls.private_key_file)
    return context
