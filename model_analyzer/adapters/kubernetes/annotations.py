"""Progress as annotations of the run's own Job: `kubectl get job NAME -o yaml`, dashboards, queues.

A thread of its own does the calls: an API server that is slow, or away, delays no measurement and ends no run.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from datetime import datetime, timezone

from model_analyzer.adapters.kubernetes.api import KubernetesError, connect, explained
from model_analyzer.adapters.progress import Standing, figures
from model_analyzer.core.estimate import Outlook
from model_analyzer.core.measurement import Measurement
from model_analyzer.core.plan import Phase
from model_analyzer.errors import AnalyzerError
from model_analyzer.ports import Live

PREFIX = "model-analyzer.io"
# Between two calls while a phase runs, and where phases end in quick succession.
EVERY_S, SOONEST_S = 5.0, 1.0
# After a call that failed; the last call of a run gets so long in all.
AFTER_FAULT_S, LAST_S = 30.0, 3.0
# What another try does not mend: no credentials, no right, no such Job.
FINAL = (401, 403, 404)

Patch = Callable[[Mapping[str, str]], None]


def patch_job(name: str, namespace: str | None) -> Patch:
    """What sets annotations of a Job: connects at the first call, in the thread that calls. Raises KubernetesError."""
    api = None

    def patch(annotations: Mapping[str, str]) -> None:
        nonlocal api
        api = api or connect()
        with explained():
            body = {"metadata": {"annotations": dict(annotations)}}
            api.batch.patch_namespaced_job(name, namespace or api.namespace, body)

    return patch


class JobAnnotations:
    """A ports.Progress that keeps annotations up to date. suffix: tells the shards of one Job apart.

    say: hears once why they cannot be set.
    """

    def __init__(self, patch: Patch, outlook: Outlook, say: Callable[[str], None], suffix: str = "") -> None:
        self._patch = patch
        self._say = say
        self._suffix = suffix
        self._standing = Standing(outlook)
        self._changed = threading.Condition()
        # News: something to tell. Urgent: without waiting for the next regular call.
        self._news = self._urgent = self._over = False
        self._faulted = False
        self._thread = threading.Thread(target=self._keep, name="job annotations", daemon=True)

    def begin(self, total: int, already: int) -> None:
        """The run starts."""
        self._standing.begin(total, already)
        self._thread.start()
        self._tell(urgent=True)

    def say(self, message: str) -> None:
        """News are for the log."""

    def live(self, phase: Phase, figures: Live) -> None:
        """The running phase."""
        self._standing.running(phase, figures)
        self._tell()

    def finished(self, measurement: Measurement) -> None:
        """One more phase."""
        self._standing.count(measurement)
        self._tell(urgent=True)

    def end(self) -> None:
        """The last state, where the API answers soon. Safe to call twice."""
        with self._changed:
            self._over = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join(LAST_S)

    def annotations(self) -> dict[str, str]:
        """The state now."""
        standing = self._standing
        running, live = standing.phase, standing.live  # read once: the run goes on meanwhile
        phase = f"{running}: {figures(live)}" if running is not None and live is not None else ""
        values = {
            "progress": f"{standing.done}/{standing.total}",
            "phase": "" if self._over else phase,
            "errors": str(standing.failed),
            "eta": "" if self._over else f"{round(standing.eta_s())}s",
            "updated": datetime.now(timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z"),
        }
        return {f"{PREFIX}/{key}{self._suffix}": value for key, value in values.items()}

    def _tell(self, urgent: bool = False) -> None:
        with self._changed:
            self._news = True
            self._urgent = self._urgent or urgent
            self._changed.notify()

    def _keep(self) -> None:
        """Call when there is news, not too often; once more at the end."""
        pause_s: float | None = 0.0
        over = False
        while pause_s is not None and not over:
            over = self._await_turn(pause_s)
            pause_s = self._call()

    def _await_turn(self, pause_s: float) -> bool:
        """Sleep at least `pause_s`, and until there is something to tell; whether the run is over."""
        with self._changed:
            self._changed.wait_for(lambda: self._over, pause_s)
            self._changed.wait_for(lambda: self._over or self._urgent, max(EVERY_S - pause_s, 0.0))
            self._changed.wait_for(lambda: self._over or self._news)
            self._news = self._urgent = False
            return self._over

    def _call(self) -> float | None:
        """One call; seconds until another may come, None where none would succeed."""
        try:
            self._patch(self.annotations())
        except AnalyzerError as error:
            if not self._faulted:
                self._faulted = True
                self._say(f"no annotations on the Job: {error}")
            final = isinstance(error, KubernetesError) and error.status in FINAL
            return None if final else AFTER_FAULT_S
        return SOONEST_S
