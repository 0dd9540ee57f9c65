"""The DCGM exporter of our own node, looked for where it runs and again when it stops answering."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from time import monotonic, monotonic_ns

from model_analyzer.adapters.kubernetes.discovery import Discovery, Exporter
from model_analyzer.adapters.telemetry.dcgm import DcgmSampler
from model_analyzer.core.telemetry import Page
from model_analyzer.errors import AnalyzerError

# An exporter that is restarted has another address soon; the API server is not ours to ask at every scrape.
LOOK_AGAIN_S = 10.0
# What a scrape's problem says -> what to do about it in a cluster.
_ADVICE = (
    ("refused", "nothing listens on this port: name the container's port `metrics`, or set dcgm_exporter_url"),
    ("no connection within", "a NetworkPolicy that does not let this pod in?"),
    ("cannot connect", "a NetworkPolicy that does not let this pod in?"),
    ("HTTP 401", "it asks for a password: set dcgm_exporter_url with one (http://user:password@host:port/metrics)"),
    ("certificate", "its TLS certificate is not one that we know: set dcgm_exporter_url to a plain one"),
    ("no GPU rows", "has the node a GPU, and does its driver run? See the exporter's log"),
)


class DiscoveredSampler:
    """A ports.Sampler of whichever exporter the node has.

    pod, namespace: ours. say: told when an exporter is found, and why not, each time that changes. Only the thread that
    samples waits for the API.
    """

    name = "dcgm"

    def __init__(
        self,
        discovery: Discovery,
        pod: str,
        namespace: str,
        say: Callable[[str], None],
        now: Callable[[], float] = monotonic,
    ) -> None:
        self._discovery = discovery
        self._pod, self._namespace = pod, namespace
        self._say, self._now = say, now
        self._exporter: Exporter | None = None
        self._sampler: DcgmSampler | None = None
        self._among = 0  # exporters on the node
        self._looked_at: float | None = None
        self._told = ""

    def sample(self) -> Page:
        """Scrape once; where that brings no GPU, look for the exporter again. Bounded in time, never raises."""
        page = self._scrape()
        if (page is None or not page.gpus) and self._may_look():
            page = self._look()
        if page is None:
            return Page(self.name, "", monotonic_ns(), problem=self._told)
        if page.gpus:
            others = f", one of {self._among} on the node" if self._among > 1 else ""
            self._tell(f"DCGM exporter {self._exporter} at {page.origin}{others}; GPUs: {len(page.gpus)}")
        return page

    def _may_look(self) -> bool:
        return self._looked_at is None or self._now() - self._looked_at >= LOOK_AGAIN_S

    def _look(self) -> Page | None:
        """Find an exporter and scrape it; None: there is none, and `_told` is why."""
        self._looked_at = self._now()
        try:
            found = self._discovery.find()
        except AnalyzerError as error:
            self._exporter = self._sampler = None
            self._tell(str(error))
            return None
        self._among = len(found)
        page = self._choose(found)
        if page is None:
            self._tell(self._no_address(found[0]))
        elif not page.gpus:
            self._tell(page.problem or "")
        return page

    def _choose(self, found: Sequence[Exporter]) -> Page | None:
        """The exporter that shows GPUs, and rather one that maps them to our pod; else what the first one said.

        One only: two exporters of a node show the same GPUs, and their refreshes would count twice.
        """
        best: tuple[int, Exporter, DcgmSampler, Page] | None = None
        for exporter in found:
            if exporter.url is None:
                continue
            known = self._sampler if self._sampler is not None and self._sampler.origin == exporter.url else None
            sampler = known or DcgmSampler(exporter.url, self._pod, self._namespace)
            page = sampler.sample()
            worth = bool(page.gpus) + self._maps_us(page)
            if best is None or worth > best[0]:
                best = (worth, exporter, sampler, page)
        if best is None:
            self._exporter = self._sampler = None
            return None
        _, self._exporter, self._sampler, page = best
        return self._explained(page)

    def _maps_us(self, page: Page) -> bool:
        users = (user for gpu in page.gpus.values() for user in gpu.users)
        return any((user.pod, user.namespace) == (self._pod, self._namespace) for user in users)

    def _scrape(self) -> Page | None:
        return None if self._sampler is None else self._explained(self._sampler.sample())

    def _explained(self, page: Page) -> Page:
        """The page with its problem put in terms of the cluster."""
        if page.problem is None or page.gpus or self._exporter is None:
            return page
        advice = next((advice for part, advice in _ADVICE if part in page.problem), "see the exporter's log")
        if self._exporter.unready is not None:
            advice = f"{self._exporter} is not ready: {self._exporter.unready}"
        where = f"exporter {self._exporter} on node {self._discovery.node}"
        return replace(page, problem=f"{where}: {page.problem}; {advice}")

    def _no_address(self, exporter: Exporter) -> str:
        where = f"exporter {exporter} on node {self._discovery.node}"
        fix = f"see kubectl -n {exporter.namespace} describe pod {exporter.pod}"
        return f"{where}: is not ready: {exporter.unready or 'it has no address yet'}; {fix}"

    def _tell(self, text: str) -> None:
        if text != self._told:
            self._told = text
            self._say(text)
