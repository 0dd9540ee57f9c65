"""This run's own figures on a metrics page, for a Prometheus that watches jobs: `metrics_port`."""

from __future__ import annotations

import socket
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from model_analyzer import __version__
from model_analyzer.adapters.progress import Standing
from model_analyzer.core.estimate import Outlook
from model_analyzer.core.measurement import Measurement
from model_analyzer.core.plan import Phase
from model_analyzer.errors import SpecError
from model_analyzer.ports import Live


class OwnMetrics:
    """A ports.Progress that answers scrapes. Made before anything is measured, so that a taken port is told at once."""

    def __init__(self, port: int, outlook: Outlook) -> None:
        """Serve on all addresses. Raises SpecError where the port cannot be had."""
        self._standing = Standing(outlook)
        registry = CollectorRegistry()
        registry.register(_Page(self._standing))
        try:
            # A pod may have an IPv6 address only.
            address = "::" if socket.has_dualstack_ipv6() else "0.0.0.0"
            self._server, self._thread = start_http_server(port, address, registry)
        except OSError as error:
            what = f"port {port} cannot be had ({error.strerror})"
            raise SpecError("metrics_port", what, "choose another port, or 0 for no metrics") from error

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.server_port)

    def begin(self, total: int, already: int) -> None:
        """The run starts."""
        self._standing.begin(total, already)

    def say(self, message: str) -> None:
        """News are no figures."""

    def live(self, phase: Phase, figures: Live) -> None:
        """The running phase."""
        self._standing.running(phase, figures)

    def finished(self, measurement: Measurement) -> None:
        """One more phase."""
        self._standing.count(measurement)

    def end(self) -> None:
        """Free the port. Safe to call twice."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()


class _Page(Collector):
    """The page as it is now; what is not known is left out, never 0."""

    def __init__(self, standing: Standing) -> None:
        self._standing = standing

    def collect(self) -> Iterator[Metric]:
        standing = self._standing
        yield _info("model_analyzer_build_info", "Version of the program; always 1.", version=__version__)
        yield GaugeMetricFamily(
            "model_analyzer_phases", "Phases of the run in all, each as often as it is repeated.", standing.total
        )
        yield GaugeMetricFamily(
            "model_analyzer_phases_done", "Phases that are done, in earlier runs too.", standing.done
        )
        yield GaugeMetricFamily("model_analyzer_phases_failed", "Phases that failed in this run.", standing.failed)
        yield CounterMetricFamily(
            "model_analyzer_errors_total", "Requests that failed in the phases that are done.", standing.request_errors
        )
        yield GaugeMetricFamily(
            "model_analyzer_eta_seconds", "Seconds until the last phase is done, by the pace so far.", standing.eta_s()
        )
        yield from _running(standing.phase, standing.live)
        if standing.finished_at is not None:
            yield GaugeMetricFamily(
                "model_analyzer_last_phase_finished_timestamp_seconds",
                "When the last phase was done.",
                standing.finished_at,
            )


def _running(phase: Phase | None, live: Live | None) -> Iterator[Metric]:
    if phase is not None:
        yield _info(
            "model_analyzer_phase_info",
            "The phase that runs now; always 1.",
            phase=str(phase),
            model=phase.variant.model,
            batch_size=str(phase.batch_size),
        )
    if live is not None and live.throughput is not None:
        yield GaugeMetricFamily(
            "model_analyzer_throughput_infer_per_second", "Throughput of the running slice.", live.throughput
        )
    if live is not None and live.latency_p99_ms is not None:
        yield GaugeMetricFamily(
            "model_analyzer_latency_p99_seconds", "p99 latency of the running slice.", live.latency_p99_ms / 1e3
        )


def _info(name: str, help_text: str, **labels: str) -> Metric:
    family = GaugeMetricFamily(name, help_text, labels=list(labels))
    family.add_metric(list(labels.values()), 1)
    return family
