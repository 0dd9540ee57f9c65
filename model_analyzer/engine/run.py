"""The run loop: server up, baseline, one group after the other, server down."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence

from model_analyzer.core.measurement import Baseline, Environment, Measurement
from model_analyzer.core.plan import Group
from model_analyzer.core.reduce import no_gpu_reason, read_telemetry
from model_analyzer.core.search import Search
from model_analyzer.core.telemetry import select_gpus, summarise
from model_analyzer.core.variant import ServerInfo, ServerSettings
from model_analyzer.engine.group import GroupDriver, Parts, ServerDied, Settings
from model_analyzer.engine.recorder import Recorder


class Run:
    """One run: asks the search for groups until it has none, keeps every measurement as it comes."""

    def __init__(self, parts: Parts, settings: Settings) -> None:
        self._parts = parts
        self._settings = settings
        self._server: ServerInfo | None = None
        self._server_settings: ServerSettings | None = None
        self._recorder: Recorder | None = None
        self._measured: list[Measurement] = []

    def execute(self, search: Search, baseline_id: str | None, default_server: ServerSettings) -> list[Measurement]:
        """Measure all that is left; the new measurements.

        baseline_id: measure the server without a model under this id; None: it is in the store already.
        default_server: the settings of a server with no model. A server is started only when something is left to do.
        Raises ServerError, ExportPathError, Interrupted; what was finished before is in the store.
        """
        try:
            if baseline_id is not None:
                self._start(default_server)
                self._measure_baseline(baseline_id)
            while (group := search.ask()) is not None:
                before = len(self._measured)
                self._measure(group)
                search.tell(self._measured[before:])
            return self._measured
        finally:
            self._stop()

    def _measure(self, group: Group) -> None:
        """One group; a server that dies is started again for the phases it left."""
        while group.phases:
            server, recorder = self._start(group.variant.server)
            driver = GroupDriver(self._parts, self._settings, server, recorder, self._environment(), self._done)
            try:
                driver.measure(group)
                return
            except ServerDied as death:
                self._parts.progress.say(f"{death}; starting the server again")
                self._stop()
                group = Group(group.variant, death.left)

    def _done(self, measurement: Measurement) -> None:
        self._measured.append(measurement)
        self._parts.store.add_measurement(measurement)
        self._parts.outputs.refresh()
        self._parts.progress.finished(measurement)

    def _start(self, settings: ServerSettings) -> tuple[ServerInfo, Recorder]:
        """The running server and its telemetry; restarted where other flags or environment are asked for."""
        if self._server is not None and self._recorder is not None:
            if self._server_settings == settings or not self._server.ours:
                return self._server, self._recorder
            self._stop()
        self._server = self._parts.server.start(settings)
        self._server_settings = settings
        self._recorder = self._parts.watch(self._server)
        self._recorder.start()
        return self._server, self._recorder

    def _stop(self) -> None:
        if self._recorder is not None:
            self._recorder.stop()
        self._parts.server.stop()
        self._server = self._recorder = None

    def _measure_baseline(self, baseline_id: str) -> None:
        server, recorder = self._start(self._server_settings or ServerSettings())
        seconds = self._settings.baseline_s
        self._parts.progress.say(f"server-only baseline: {seconds:g} s")
        start_ns = recorder.scrape_now("triton").time_ns
        self._parts.clock.sleep(seconds)
        end_ns = recorder.scrape_now("triton").time_ns
        pages = recorder.pages()
        gpus, gpu_note = select_gpus(pages, self._settings.gpus)
        telemetry = summarise(pages, start_ns, end_ns, gpus)
        host, readings = read_telemetry([telemetry], seconds, gpus, recorder.problems(), {})
        notes = (*self._loaded_note(server), *([gpu_note] if gpu_note else []))
        utc = self._parts.clock.utc().isoformat(timespec="seconds")
        self._parts.store.add_baseline(
            Baseline(
                baseline_id,
                seconds,
                host,
                readings,
                notes,
                "" if gpus else no_gpu_reason(recorder.problems()),
                finished_at=utc,
                environment=self._environment(),
            )
        )
        self._parts.outputs.refresh()

    def _loaded_note(self, server: ServerInfo) -> Sequence[str]:
        loaded = [] if server.ours else list(self._parts.server.loaded_models())
        return [f"not an empty server: {len(loaded)} models were loaded ({', '.join(loaded[:5])})"] if loaded else []

    def _environment(self) -> Environment:
        version = self._server.version if self._server else ""
        gpus = self._recorder.latest_gpus() if self._recorder else {}
        return Environment(version, gpus, platform.node(), os.cpu_count())
