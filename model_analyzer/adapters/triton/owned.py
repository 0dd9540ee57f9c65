"""What all servers of ours have in common: every model on them is ours, and they may be started again."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

from model_analyzer.adapters.triton.control import TritonControl
from model_analyzer.adapters.triton.launch import Launch, accepts, remedy
from model_analyzer.adapters.triton.log_file import LogFile
from model_analyzer.adapters.triton.model_config import merge, read_written
from model_analyzer.adapters.triton.wire_api import WireApi
from model_analyzer.core.variant import ModelInfo, ServerInfo, ServerSettings, Variant
from model_analyzer.errors import ModelError, ServerError

GRACE_S = 10.0
# For the metrics page once the server is ready; one that was told to have none gets no longer.
PAGE_S = 5.0


class OwnedServer(ABC):
    """A server that we start. `grace_s`: how long `stop` waits for it, and `unload` for a model."""

    def __init__(self, launch: Launch) -> None:
        self.grace_s = GRACE_S
        self._launch = launch
        self._log = LogFile(launch.log_path)
        self._control: TritonControl | None = None
        self._base_configs: dict[str, dict[str, Any]] = {}

    @abstractmethod
    def start(self, settings: ServerSettings) -> ServerInfo:
        """Start it and wait until it is ready. Raises ServerError, ExportPathError."""

    @abstractmethod
    def stop(self) -> None:
        """End it. Never raises; safe to call twice."""

    @abstractmethod
    def _death(self) -> str | None:
        """None while it runs, else how it ended."""

    def load(self, variant: Variant) -> ModelInfo:
        """Load the variant and describe it. Raises ModelError, ServerError where the server is dead already."""
        control = self._running()
        model = variant.model
        if not variant.overrides and model not in self._base_configs:
            control.load(model)
            self._base_configs[model] = control.config(model)
            return control.info(model)
        # Always with the whole config: a plain load would keep the overrides of a load before (seen with 2.51).
        config = merge(self._base_config(control, model), variant.overrides)
        try:
            control.load(model, config)
        except ModelError:
            # A refused override leaves the config served before in place.
            self._unload_quietly(control, model)
            raise
        return control.info(model)

    def unload(self, variant: Variant) -> None:
        """Unload the variant and wait until it is gone. Raises ModelError."""
        if self._control is not None:
            self._control.unload(variant.model, self.grace_s)

    def problem(self) -> str | None:
        """None while it answers, else why not, in one line."""
        if self._control is None:
            return "the server is not started"
        # Twice: one slow answer is no death, and a dying process is silent before it is dead.
        for pause in (0, 0.2):
            time.sleep(pause)
            death = self._death()
            if death is not None:
                last = " | ".join(self._log.tail(3))
                return f"tritonserver {death}; its log ends: {last}" if last else f"tritonserver {death}"
            silence = self._control.silence()
            if silence is None:
                return None
        return f"tritonserver runs, but does not answer: {silence}"

    def loaded_models(self) -> Sequence[str]:
        """Names of the models that are ready now."""
        return self._running().ready_models()

    @property
    def api(self) -> WireApi:
        """Its control plane. Raises ServerError where it does not run."""
        return self._running().api

    def _base_config(self, control: TritonControl, model: str) -> dict[str, Any]:
        """The model's own config, read once: completed by Triton from a plain load.

        As it is written where only overrides make the model loadable, such as `cpu_only` where there is no GPU.
        """
        if model not in self._base_configs:
            try:
                control.load(model)
            except ModelError:
                written = None if self._death() else read_written(self._launch.repository / model)
                if written is None:
                    raise
                self._base_configs[model] = written
                return written
            self._base_configs[model] = control.config(model)
            # The variant is to start from an empty server: memory of the plain instance must not count as its own.
            control.unload(model)
        return self._base_configs[model]

    def _running(self) -> TritonControl:
        death = None if self._control is None else self._death()
        if self._control is None or death is not None:
            raise ServerError("tritonserver", death or "is not started", f"see {self._log.path}")
        return self._control

    def _await_ready(self, is_ready: Callable[[], bool]) -> None:
        """Wait for readiness, bounded. Raises ServerError with the log's tail."""
        deadline = time.monotonic() + self._launch.ready_timeout_s
        while not is_ready():
            death = self._death()
            if death is not None:
                raise self._start_error(death)
            if time.monotonic() > deadline:
                raise self._start_error(f"is not ready after {self._launch.ready_timeout_s:g} s")
            time.sleep(0.05)

    def _await_metrics(self, address: str) -> None:
        """Triton opens gRPC first, then HTTP, the metrics page last: it is ready before all three listen.

        Raises ServerError where it ends meanwhile: one of these ports is another program's.
        """
        deadline = time.monotonic() + PAGE_S
        while not accepts(address) and self._death() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        death = self._death()
        if death is not None:
            raise self._start_error(death)

    def _start_error(self, what: str) -> ServerError:
        tail = self._log.tail()
        shown = "".join(f"\n    {line}" for line in tail)
        what = f"{what}; its log ends:{shown}\n" if tail else what
        return ServerError("tritonserver", what, remedy(tail, self._log.path))

    @staticmethod
    def _unload_quietly(control: TritonControl, model: str) -> None:
        try:
            control.unload(model)
        except ModelError:
            return
