"""A server that we did not start: touched as little as possible, left as it was found."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from model_analyzer.adapters.triton.control import UNLOAD_TIMEOUT_S, ExplicitControlOff, TritonControl
from model_analyzer.adapters.triton.model_config import merge
from model_analyzer.adapters.triton.wire_api import WireApi, another_endpoint
from model_analyzer.adapters.web import WebError, read_text
from model_analyzer.core.load import Protocol, Tls
from model_analyzer.core.variant import ModelInfo, ServerInfo, ServerSettings, Variant
from model_analyzer.errors import ExportPathError, ModelError, ServerError

# How long a model is watched before it is called idle.
LOOK_S = 1.0
RETRY_S = 1.0
# A Kubernetes Service sends nothing to a pod that is not ready, and Triton says that it is not while it loads a model: after
# a load that takes longer than the pod's probes have patience, new connections are refused until a probe has seen it ready again.
# So long: three times the default period of a probe.
LET_THROUGH_S = 30.0
# A server that answers and is not ready may be about to be; one with a model that failed to load never is.
NOT_READY_TRIES = 3


@dataclass(frozen=True, slots=True)
class RemoteEndpoints:
    """Where the server answers: host:port, host:port, URL.

    one_server: http and grpc are known to be of one server, which can be controlled over either; otherwise only that of the
    load is used.
    """

    http: str
    grpc: str
    metrics_url: str
    one_server: bool = False


@dataclass(slots=True)
class Before:
    """A model as we found it.

    config: what it was served with, None: it was not loaded. base: what overrides are merged into: that config,
    or the repository's once we have loaded it. changed: by us (a killed run before this one too), and not restored
    since.
    """

    config: dict[str, Any] | None
    base: dict[str, Any] | None
    changed: bool = False


class RemoteServer:
    """Reaches a running server, which may be other people's too.

    max_retries: tries to reach it, one a second. touch_models_in_use: measure models that answer others' requests.
    reload_model_disable: never load or unload. say: receives a line for people.
    grace_s: how long `stop` waits for a model of ours to be gone.
    left: models that a killed run has left changed. remember: called before a model is changed and once it is restored,
    so that a killed run can be cleaned up after.
    """

    def __init__(
        self,
        endpoints: RemoteEndpoints,
        *,
        protocol: Protocol = "grpc",
        tls: Tls | None = None,
        max_retries: int = 50,
        touch_models_in_use: bool = False,
        reload_model_disable: bool = False,
        say: Callable[[str], None] = lambda _line: None,
        left: Mapping[str, Before] | None = None,
        remember: Callable[[str, Before], None] = lambda _model, _before: None,
    ) -> None:
        self._endpoints, self._protocol = endpoints, protocol
        http, grpc, one_server = endpoints.http, endpoints.grpc, endpoints.one_server
        self._ways = TritonControl.ways(protocol, http, grpc, tls, one_server=one_server)
        self._control = self._ways[-1]
        self._max_retries = max_retries
        self._touch_models_in_use = touch_models_in_use
        self._reload = not reload_model_disable
        self._say = say
        self.grace_s = UNLOAD_TIMEOUT_S
        self._was_ready = False
        self._counts_users = False
        self._found: dict[str, Before] = {}
        self._left = dict(left or {})
        self._remember = remember

    def start(self, settings: ServerSettings) -> ServerInfo:
        """Reach the server; its flags and environment are not ours to set. Raises ServerError."""
        if settings != ServerSettings():
            self._say("triton_server_flags and triton_server_environment have no effect on a remote server")
        self._reach()
        self._control.forget_leftovers(self._say)
        where, version = self._endpoints, self._control.version()
        self._counts_users = _counts_users(version)
        return ServerInfo(version, where.http, where.grpc, where.metrics_url, ours=False)

    def stop(self) -> None:
        """Restore every model that we changed; what cannot be restored is said, and tried again by the next call."""
        if self._left and not self._hurried():  # there is time for a look
            self._take_over_all()
        for model in self._found:
            self._restore_or_say(model)
        if self._counts_users:  # what an interrupted phase had in shared memory
            self._control.forget_leftovers(self._say, self.grace_s)

    def load(self, variant: Variant) -> ModelInfo:
        """Load the variant, or use what is loaded where that is the same. Raises ModelError, ServerError."""
        model = variant.model
        ready = model in self._control.ready_models()
        before = self._found.get(model) or self._first_look(model, ready)
        overrides = variant.overrides
        if not overrides and ready and not before.changed:
            return self._control.info(model)
        if not self._reload:
            raise _not_allowed(model, ready, "reload_model_disable is set", "load it on that server, without overrides")
        try:
            self._load(model, before, overrides)
        except ExplicitControlOff as error:
            raise _not_allowed(model, ready, error.faults[0].what, error.faults[0].fix) from error
        return self._control.info(model)

    def unload(self, variant: Variant) -> None:
        """Bring the model back to what it was before we touched it. Raises ModelError."""
        self._restore(variant.model)

    def problem(self) -> str | None:
        """None while it answers, else why not, in one line."""
        silence = self._control.silence() and self._control.silence()  # one slow answer is no death
        return f"the server at {self._control.endpoint} does not answer: {silence}" if silence else None

    @property
    def api(self) -> WireApi:
        """Its control plane."""
        return self._control.api

    def loaded_models(self) -> Sequence[str]:
        """Names of the models that are ready now. Raises ServerError."""
        return self._control.ready_models()

    def _reach(self) -> None:
        tries, live = max(self._max_retries, 1), 0
        for attempt in range(tries):
            if attempt:
                time.sleep(RETRY_S)
            # Where the cheap way is closed, all goes the load's, and its error is told.
            self._control = next((way for way in self._ways[:-1] if way.is_open()), self._ways[-1])
            if self._control.is_ready():
                self._was_ready = True
                return
            silence = self._control.silence()
            live = live + 1 if silence is None else 0
            if live and (live >= NOT_READY_TRIES or attempt == tries - 1):
                # Strict readiness: one model of somebody's failed to load; ours may be fine.
                self._say(f"{self._control.endpoint} is live but not ready: one of its models may have failed to load")
                return
        count = f"{tries} {'try' if tries == 1 else 'tries'}"
        what = f"no Triton server answers over {self._protocol} after {count}: {silence}"
        fix = f"start it, {another_endpoint(self._protocol)}, or raise client_max_retries"
        raise ServerError(self._control.endpoint, what, fix)

    def _first_look(self, model: str, ready: bool) -> Before:
        """Remember the model as it is. Raises ModelError where it is in use."""
        if ready and not self._touch_models_in_use:
            self._refuse_if_in_use(model)
        before = self._left.pop(model, None)
        if before is None:
            config = self._control.config(model) if ready else None
            before = Before(config, config)
        self._found[model] = before
        return before

    def _take_over_all(self) -> None:
        """Take over what a killed run has left and this one has not measured, unless others use it by now."""
        for model in list(self._left):
            try:
                if self._first_look(model, model in self._control.ready_models()).changed:
                    self._say(f"{model} was left loaded by a run that was killed: restored")
            except (ModelError, ServerError) as error:
                self._say(f"not restored: {error}")

    def _load(self, model: str, before: Before, overrides: dict[str, Any]) -> None:
        changed, before.changed = before.changed, True  # a load that breaks off halfway is a change too
        self._remember(model, before)
        try:
            if before.base is None:
                self._ask_to_load(model)
                before.base = self._control.config(model)
                if not overrides:
                    return
                # A plain load would keep these overrides: who cleans up after us needs the config without them.
                self._remember(model, before)
            self._ask_to_load(model, merge(before.base, overrides))
        except ExplicitControlOff:
            before.changed = changed
            self._remember(model, before)
            raise
        except ModelError:
            self._restore_or_say(model)
            self._say_if_no_longer_ready(model)
            raise

    def _ask_to_load(self, model: str, config: dict[str, Any] | None = None) -> None:
        """Have it loaded, and wait until the server is let through to us again. Raises ModelError where it cannot be loaded."""
        self._control.load(model, config)
        until = time.monotonic() + LET_THROUGH_S
        told = False
        while (silence := self._control.silence()) is not None and time.monotonic() < until:
            if not told:
                self._say(f"{model} is loaded, and {self._control.endpoint} does not answer: {silence}; waiting for it")
                told = True
            time.sleep(RETRY_S)

    def _say_if_no_longer_ready(self, model: str) -> None:
        """Triton's strict readiness remembers a failed load even after an unload (seen with 2.51)."""
        if self._was_ready and not self._control.is_ready() and self._control.is_live():
            self._was_ready = False
            self._say(
                f"{self._control.endpoint} answers 'not ready' since {model} failed to load, until that model loads or "
                "the server is restarted; --strict-readiness=false avoids this"
            )

    def _restore(self, model: str) -> None:
        before = self._found.get(model)
        if before is None or not before.changed:
            return
        if before.config is None:
            self._control.unload(model, self.grace_s)
        elif self._hurried():
            # Triton is left to load it alone: it goes on when we have hung up.
            self._control.load(model, before.config, self.grace_s)
        else:
            self._ask_to_load(model, before.config)
        before.changed = False
        self._remember(model, before)

    def _restore_or_say(self, model: str) -> None:
        try:
            self._restore(model)
        except ExportPathError as error:
            self._say(f"restored, but that is not written down: {error}")
        except ModelError as error:
            # Triton carries out what it was asked before we hung up, a load that is under way first.
            asked = "asked to restore it, not waited for" if self._hurried() else "not restored"
            self._say(f"{asked}: {error}")

    def _hurried(self) -> bool:
        return self.grace_s < UNLOAD_TIMEOUT_S

    def _refuse_if_in_use(self, model: str) -> None:
        before = self._control.request_count(model)
        time.sleep(LOOK_S)
        answered = self._control.request_count(model) - before
        pending = _pending_requests(self._endpoints.metrics_url, model)
        if answered or pending:
            what = f"is in use: {answered} requests answered within {LOOK_S:g} s, {pending} pending"
            raise ModelError(model, what, "measure it elsewhere, or set touch_models_in_use: true")


def _counts_users(version: str) -> bool:
    """Whether the server refuses to give up shared memory that a request still uses; before, it crashed."""
    return tuple(map(int, re.findall(r"\d+", version)[:2])) >= (2, 50)


def _not_allowed(model: str, ready: bool, why: str, fix: str) -> ModelError:
    state = "cannot be given other config than it is loaded with" if ready else "is not loaded and cannot be"
    return ModelError(model, f"{state}: {why}", fix)


def _pending_requests(metrics_url: str, model: str) -> int:
    """Requests that the model has accepted and not begun; 0 where the metrics page is out of reach."""
    try:
        text = read_text(metrics_url, 5.0)
    except WebError:
        return 0
    rows = re.finditer(r"^nv_inference_pending_request_count\{([^}]*)\} (\S+)", text, re.MULTILINE)
    return sum(int(float(row[2])) for row in rows if f'model="{model}"' in row[1])
