"""The run loop: server up, baseline, one group after the other, server down."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import replace

from model_analyzer.core.gpus import select_gpus
from model_analyzer.core.measurement import Baseline, Environment, Measurement
from model_analyzer.core.plan import Group
from model_analyzer.core.reduce import no_gpu_reason, problem_notes, read_telemetry
from model_analyzer.core.search import Search
from model_analyzer.core.telemetry import cadences, summarise
from model_analyzer.core.variant import ServerInfo, ServerSettings
from model_analyzer.engine.group import KEEP_PAGES_NS, GroupDriver, Parts, ServerDied, Settings
from model_analyzer.engine.recorder import Recorder
from model_analyzer.errors import ServerError

# A server that dies so often with no model loaded is not worth another start.
MAX_DEATHS = 2
# Which GPUs count is seen on the first pages; of a source that takes longer, before the next group.
FIRST_PAGES_S = 5.0
# How often a GPU that another shard holds is asked for again.
CLAIM_EVERY_S = 1.0


class Run:
    """One run: asks the search for groups until it has none, keeps every measurement as it comes."""

    def __init__(self, parts: Parts, settings: Settings) -> None:
        self._parts = parts
        self._settings = settings
        self._server: ServerInfo | None = None
        self._server_settings: ServerSettings | None = None
        self._recorder: Recorder | None = None
        self._claimed = False
        self._repeat = 0
        self._measured: list[Measurement] = []

    def execute(self, search: Search, baseline_id: str | None, default_server: ServerSettings) -> list[Measurement]:
        """Measure all that is left; the new measurements.

        baseline_id: measure the server without a model under this id; None: it is in the store already.
        default_server: the settings of a server with no model. A server is started only when something is left to do.
        Raises ServerError, ExportPathError, Interrupted; what was finished before is in the store.
        """
        try:
            if baseline_id is not None:
                self._baseline(baseline_id, default_server)
            while (group := search.ask()) is not None:
                before = len(self._measured)
                self._measure(group)
                search.tell(self._measured[before:])
            return self._measured
        finally:
            self._stop()

    def _measure(self, group: Group) -> None:
        """One group; a server that dies is started again for the phases it left.

        Raises ServerError where a server that was just started is lost again before anything is loaded.
        """
        lost_at_once = 0
        suspects: set[str] = set()
        self._renew(group.repeat)
        while group.phases:
            server, recorder = self._start(group.variant.server)
            driver = GroupDriver(self._parts, self._settings, server, recorder, self._environment, self._done, suspects)
            try:
                driver.measure(group)
                return
            except ServerDied as death:
                lost_at_once = lost_at_once + 1 if death.suspect is None and death.left == group.phases else 0
                if death.suspect is not None:
                    suspects.add(death.suspect)
                if lost_at_once > 1:
                    fix = "see the server's log; what is finished is kept, the same command resumes"
                    raise ServerError(
                        server.http_endpoint, f"the server is lost again and again: {death}", fix
                    ) from death
                self._mourn(str(death), server, again=bool(death.left))
                group = replace(group, phases=death.left)

    def _renew(self, repeat: int) -> None:
        """Each repeat of a sweep has a server of its own, where it is ours to start."""
        if self._server is not None and self._server.ours and repeat != self._repeat:
            self._stop()
        self._repeat = repeat

    def _mourn(self, reason: str, server: ServerInfo, again: bool = True) -> None:
        """Say that the server died, and stop what is left of it. again: it is needed for more of what it was doing."""
        ours = "starting it again" if again else "the next model gets a new one"
        self._parts.progress.say(f"{reason}; {ours if server.ours else 'waiting for it to come back'}")
        self._stop()

    def _done(self, measurement: Measurement) -> None:
        self._measured.append(measurement)
        self._parts.store.add_measurement(measurement)
        self._parts.outputs.refresh()
        self._parts.progress.finished(measurement)

    def _start(self, settings: ServerSettings) -> tuple[ServerInfo, Recorder]:
        """The running server and its telemetry; restarted where other flags or environment are asked for."""
        if self._server is not None and self._recorder is not None:
            if self._server_settings == settings or not self._server.ours:
                self._claim_gpus(self._recorder)
                return self._server, self._recorder
            self._stop()
        self._server = self._parts.server.start(settings)
        self._server_settings = settings
        recorder = self._parts.watch(self._server)
        recorder.start()
        self._recorder = recorder
        self._claimed = False
        if self._parts.claims is not None:
            recorder.nudge(FIRST_PAGES_S)
        self._claim_gpus(recorder)
        return self._server, recorder

    def _claim_gpus(self, recorder: Recorder) -> None:
        """Wait until no other shard measures on our GPUs, as soon as it is known which they are. Raises ExportPathError."""
        parts = self._parts
        if parts.claims is None or self._claimed:
            return
        gpus = select_gpus(recorder.pages(), self._settings.gpus).gpus
        # All at once, in one order everywhere: two shards never hold what the other one waits for.
        self._claimed = bool(gpus)
        for gpu in gpus:
            said = False
            while (holder := parts.claims.claim(gpu)) is not None:
                if not said:
                    parts.progress.say(f"waiting for {gpu}: another shard measures on it ({holder})")
                    said = True
                parts.clock.sleep(CLAIM_EVERY_S)
                recorder.forget_before(parts.clock.now_ns() - KEEP_PAGES_NS)

    def _stop(self) -> None:
        recorder, self._server, self._recorder = self._recorder, None, None
        try:
            if recorder is not None:
                recorder.stop()
        finally:
            self._parts.server.stop()

    def _baseline(self, baseline_id: str, settings: ServerSettings) -> None:
        """The server-only row; once more where the server dies meanwhile. Raises ServerError."""
        for _ in range(MAX_DEATHS):
            server, recorder = self._start(settings)
            baseline = self._measure_baseline(baseline_id, server, recorder)
            problem = self._parts.server.problem()
            if problem is None:
                self._parts.store.add_baseline(baseline)
                self._parts.outputs.refresh()
                return
            self._mourn(problem, server)
        what = f"the server died {MAX_DEATHS} times with no model loaded: {problem}"
        raise ServerError("run", what, "mend the server, then run again: it resumes")

    def _measure_baseline(self, baseline_id: str, server: ServerInfo, recorder: Recorder) -> Baseline:
        seconds = self._settings.baseline_s
        self._parts.progress.say(f"server-only baseline: {seconds:g} s")
        start_ns = recorder.scrape_now("triton").time_ns
        self._parts.clock.sleep(seconds)
        end_ns = recorder.scrape_now("triton").time_ns
        pages = recorder.pages()
        chosen = select_gpus(pages, self._settings.gpus)
        gpus = chosen.gpus
        telemetry = summarise(pages, start_ns, end_ns, gpus)
        problems = chosen.problems(recorder.problems())
        host, readings = read_telemetry([telemetry], seconds, gpus, problems, cadences(pages))
        notes = (*self._loaded_note(server), *chosen.of_figures, *problem_notes(problems))
        utc = self._parts.clock.utc().isoformat(timespec="seconds")
        return Baseline(
            baseline_id,
            seconds,
            host,
            readings,
            notes,
            "" if gpus else no_gpu_reason(problems),
            finished_at=utc,
            environment=self._environment(),
        )

    def _loaded_note(self, server: ServerInfo) -> Sequence[str]:
        if server.ours:
            return []
        try:
            loaded = self._parts.server.loaded_models()
        except ServerError as error:
            return [str(error)]
        return [f"not an empty server: {len(loaded)} models were loaded ({', '.join(loaded[:5])})"] if loaded else []

    def _environment(self) -> Environment:
        """With the GPUs that count: those of other tenants are not where it was measured."""
        version = self._server.version if self._server else ""
        seen = self._recorder.latest_gpus() if self._recorder else {}
        ours = select_gpus(self._recorder.pages(), self._settings.gpus).gpus if self._recorder else ()
        gpus = {key: seen[key] for key in ours if key in seen}
        return Environment(version, gpus, platform.node(), self._settings.cpus)
