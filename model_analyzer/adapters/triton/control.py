"""Control of a Triton server: health, description, load and unload, as values and errors of the project."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from model_analyzer.adapters.triton.launch import accepts, why_closed
from model_analyzer.adapters.triton.log_file import LogFile
from model_analyzer.adapters.triton.model_config import describe
from model_analyzer.adapters.triton.shared_memory import forget_leftovers
from model_analyzer.adapters.triton.wire_api import (
    CALL_TIMEOUT_S,
    LOAD_TIMEOUT_S,
    GrpcApi,
    HttpApi,
    Refused,
    Unreachable,
    WireApi,
    has_path,
)
from model_analyzer.core.load import Protocol, Tls
from model_analyzer.core.variant import ModelInfo
from model_analyzer.errors import ModelError, ServerError, ServerLostError

# Unloading waits for requests in flight and for the backend's processes to end.
UNLOAD_TIMEOUT_S = 30.0
NOT_EXPLICIT = "explicit model load / unload is not allowed"
# Of an API that the server keeps to those who know a header (--http-restricted-api): any of them may be.
RESTRICTED = "This API is restricted"

# What Triton says -> how to mend it.
REMEDIES = {
    "no GPUs are available": "set cpu_only: true for this model, or measure where a GPU is",
    "unable to find backend library": "use a server that has this backend: the embedded one has the Python backend "
    "only, triton_launch_mode docker, local or remote may have others",
    "failed to poll from model repository": "check that the model is a directory of model_repository with a version "
    "directory and a valid config.pbtxt",
    "ModuleNotFoundError": "install the missing module in the Python environment that the server runs in",
    NOT_EXPLICIT: "start that server with --model-control-mode=explicit",
}


class ExplicitControlOff(ModelError):  # noqa: N818 -- a mode, not a fault
    """The server's control mode is none or poll: it loads and unloads nothing on request."""


class TritonControl:
    """One server's control plane. Model calls raise ModelError; the others ServerError."""

    def __init__(self, api: WireApi, log: LogFile | None = None, load: str | None = None) -> None:
        """load: host:port that requests go to, where that is another one: without it the server is no use."""
        self.api = api
        self._log = log
        self._load = load

    @classmethod
    def ways(
        cls,
        protocol: Protocol,
        http: str,
        grpc: str,
        tls: Tls | None = None,
        log: LogFile | None = None,
        *,
        one_server: bool,
    ) -> list[TritonControl]:
        """Ways to control a server, the cheapest first; the last one is by the protocol that the load takes.

        one_server: HTTP is known to reach the server that gRPC reaches, and all its models. Nothing else may be controlled
        over it: what listens at the other port may be another server.
        """
        if protocol == "http":
            return [cls(HttpApi(http, tls), log)]
        over_grpc = cls(GrpcApi(grpc, tls), log)
        # The load generator speaks gRPC itself: without control over it nothing imports grpc and asyncio.
        return [cls(HttpApi(http), log, grpc), over_grpc] if one_server and tls is None else [over_grpc]

    @property
    def endpoint(self) -> str:
        """host:port."""
        return self.api.endpoint

    def is_open(self) -> bool:
        """Whether the server is there, for requests too, and lets itself be controlled this way."""
        if not accepts(self.endpoint) or (self._load is not None and not accepts(self._load)):
            return False
        api = self.api
        try:
            if not api.is_live():
                return False
            for ask in (api.metadata, api.index, api.regions):
                ask()
            return not (_is_restricted(api.model_config) or _is_restricted(api.statistics))
        except (Refused, Unreachable):
            return False

    def is_live(self) -> bool:
        """Whether the server answers at all."""
        return self.silence() is None

    def silence(self) -> str | None:
        """None where the server answers and is live, else why not."""
        if (closed := self._closed()) is not None:
            return closed
        try:
            return None if self.api.is_live() else "it answers, but not as a live Triton server"
        except (Refused, Unreachable) as error:
            return str(error)

    def is_ready(self) -> bool:
        """Whether the server takes requests; False too where it cannot be reached."""
        try:
            return self._closed() is None and self.api.is_ready()
        except (Refused, Unreachable):
            return False

    def version(self) -> str:
        """The server's version, such as "2.51.0"."""
        try:
            return str(self.api.metadata().get("version", ""))
        except (Refused, Unreachable) as error:
            raise ServerError(
                self.endpoint, f"does not describe itself: {error}", "is that a Triton server?"
            ) from error

    def name(self) -> str:
        """What the server calls itself, `--id`; "" where it does not answer."""
        try:
            return str(self.api.metadata().get("name", ""))
        except (Refused, Unreachable):
            return ""

    def ready_models(self) -> list[str]:
        """Names of the models that are ready, sorted."""
        try:
            index = self.api.index()
        except (Refused, Unreachable) as error:
            raise ServerError(self.endpoint, f"does not list its models: {error}", "see the server's log") from error
        return sorted({item["name"] for item in index if item.get("state") == "READY"})

    def load(self, model: str, config: Mapping[str, Any] | None = None, timeout_s: float = LOAD_TIMEOUT_S) -> None:
        """Load the model, with its repository's config or with `config` in place of all of it.

        Raises ModelError; ExplicitControlOff where the server does not load on request.
        """
        mark = self._log.mark() if self._log else 0
        deadline = time.monotonic() + timeout_s
        try:
            self.api.load(model, config, timeout_s)
        except Unreachable as error:
            kind = ServerLostError if time.monotonic() < deadline else ModelError
            raise kind(model, f"the server was lost while it loaded the model: {error}", self._see_log()) from error
        except Refused as error:
            raise self._load_error(model, str(error), mark, config is not None) from error

    def unload(self, model: str, patience_s: float = UNLOAD_TIMEOUT_S) -> None:
        """Unload the model and wait until it is gone, at most so long. Raises ModelError."""
        try:
            self.api.unload(model, min(patience_s, CALL_TIMEOUT_S))
        except (Refused, Unreachable) as error:
            raise ModelError(model, f"cannot be unloaded: {error}", self._see_log()) from error
        deadline = time.monotonic() + patience_s
        while self._state(model) == "UNLOADING":
            if time.monotonic() > deadline:
                fix = "a request may hang in the model; memory figures of the next model may include this one"
                raise ModelError(model, f"is still unloading after {patience_s:g} s", fix)
            time.sleep(0.05)

    def config(self, model: str) -> dict[str, Any]:
        """The whole config as served."""
        try:
            return self.api.model_config(model)
        except (Refused, Unreachable) as error:
            raise ModelError(model, f"has no config: {error}", self._see_log()) from error

    def info(self, model: str) -> ModelInfo:
        """Describe the loaded model."""
        try:
            versions = self.api.model_metadata(model).get("versions", [])
        except (Refused, Unreachable) as error:
            raise ModelError(model, f"is not described by the server: {error}", self._see_log()) from error
        return describe(self.config(model), versions[-1] if versions else "")

    def request_count(self, model: str) -> int:
        """Requests that the model has answered or failed so far, all versions."""
        try:
            stats = [item.get("inference_stats", {}) for item in self.api.statistics(model)]
        except (Refused, Unreachable) as error:
            raise ModelError(model, f"has no statistics: {error}", self._see_log()) from error
        return sum(int(item.get(kind, {}).get("count", 0)) for item in stats for kind in ("success", "fail"))

    def forget_leftovers(self, say: Callable[[str], None], patience_s: float = CALL_TIMEOUT_S) -> None:
        """Make the server forget the shared memory of runs from this host that were killed. Never raises."""
        forget_leftovers(self.api, say, patience_s)

    def _closed(self) -> str | None:
        """None where requests can be sent, else why not; the control's own endpoint tells by its answers."""
        why = None if self._load is None else why_closed(self._load, CALL_TIMEOUT_S)
        return None if why is None else f"{self._load}: {why}"

    def _state(self, model: str) -> str | None:
        try:
            states = [item.get("state") for item in self.api.index() if item["name"] == model]
        except (Refused, Unreachable):
            return None
        return "UNLOADING" if "UNLOADING" in states else next(iter(states), None)

    def _load_error(self, model: str, text: str, mark: int, overridden: bool) -> ModelError:
        if NOT_EXPLICIT in text:
            what = "cannot be loaded: the server's model control mode is none or poll"
            return ExplicitControlOff(model, what, REMEDIES[NOT_EXPLICIT])
        if "failed to poll" in text and isinstance(self.api, HttpApi) and not has_path(model):
            fix = "set client_protocol: grpc: Triton finds no model over HTTP whose name a URL must escape"
            return ModelError(model, f"cannot be loaded: {text}", fix)
        text = text.removeprefix(f"load failed for model '{model}': ").rstrip("; ")
        if "failed to poll" in text and self._log:
            # Triton keeps the reason to its log here.
            text = "; ".join([text, *self._log.errors_since(mark)[-2:]])
        if "failed to poll" in text and overridden:
            return ModelError(model, f"cannot be loaded with these overrides: {text}", "check model_config_parameters")
        fix = next((fix for sign, fix in REMEDIES.items() if sign in text), self._see_log())
        return ModelError(model, f"cannot be loaded: {text}", fix)

    def _see_log(self) -> str:
        return f"see {self._log.path}" if self._log else "see the server's log"


def _is_restricted(ask: Callable[[str], object]) -> bool:
    """Whether an API that is asked about a model is; here about none that there is, as any may be unloaded."""
    try:
        ask("-")
    except Refused as error:
        return RESTRICTED in str(error)
    return False
