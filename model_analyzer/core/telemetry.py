"""Scraped values and their reduction to summaries of a slice.

A Page is one scrape of one source, values already in project units (ratio,
bytes, W, J, Hz, C, s). A missing value is absent from the page, never 0.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from statistics import median
from typing import Any, NamedTuple, TypeVar

from model_analyzer.core.metric import gpu_metrics, host_metrics

COUNTERS = frozenset({"DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", "nv_energy_consumption"})
_KEPT = frozenset(name for metric in (*gpu_metrics(), *host_metrics()) for name in metric.sources)
# A scrape this shortly before a slice counts as its first: the load is the same already.
SLACK_NS = 50_000_000


T = TypeVar("T")


class Series(NamedTuple):
    """What a value belongs to: a Prometheus name, and a subject.

    subject: a GPU key ("GPU-<uuid>", "GPU-<uuid>/<GPU_I_ID>" for a MIG instance), a model name, or "" for the host.
    """

    name: str
    subject: str


class GpuUser(NamedTuple):
    """A container that Kubernetes gave a GPU to, as the exporter maps it."""

    pod: str
    namespace: str
    container: str = ""


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU, or a MIG instance of one, as a source describes it; "" where the source does not say.

    users: several where it is shared (time-slicing); none where the exporter maps nobody.
    """

    model: str = ""
    index: str = ""
    users: tuple[GpuUser, ...] = ()


@dataclass(frozen=True, slots=True)
class Page:
    """One scrape.

    source: "triton", "dcgm" or "host"; origin tells several of one kind apart (an URL). time_ns: the middle of the
    scrape. fingerprint: changes when the source has refreshed the values it holds; None: it reads them at each scrape.
    problem: why there are no values, or some are missing. took_ns: how long the scrape took; its values are of some moment of it.
    """

    source: str
    origin: str
    time_ns: int
    values: Mapping[Series, float] = field(default_factory=dict)
    gpus: Mapping[str, Gpu] = field(default_factory=dict)
    fingerprint: int | None = None
    problem: str | None = None
    took_ns: int = 0


@dataclass(frozen=True, slots=True)
class Summary:
    """One series over measured time; mergeable.

    samples: scrapes that showed it. fresh: distinct refreshes among them that fell inside. low, high, total: over the
    fresh values. delta, delta_s: of a counter, between its first and last fresh value; 0 over a slice in which it fell.
    falls: how often it did.
    """

    samples: int
    fresh: int = 0
    low: float = 0.0
    high: float = 0.0
    total: float = 0.0
    delta: float = 0.0
    delta_s: float = 0.0
    falls: int = 0

    def plus(self, other: Summary) -> Summary:
        """Both together."""
        samples = self.samples + other.samples
        if not other.fresh:
            return replace(self, samples=samples)
        if not self.fresh:
            return replace(other, samples=samples)
        return Summary(
            samples,
            self.fresh + other.fresh,
            min(self.low, other.low),
            max(self.high, other.high),
            self.total + other.total,
            self.delta + other.delta,
            self.delta_s + other.delta_s,
            self.falls + other.falls,
        )


Summaries = Mapping[Series, Summary]


class Reading(NamedTuple):
    """One metric of one subject over a phase, in project units; value None: `reason` says why.

    A tuple, because a store of 10,000 phases on eight GPUs holds a million of them.

    samples, fresh: as in Summary. source: "dcgm", "triton" or "host". note: what to know of the value.
    """

    value: float | None
    source: str = ""
    samples: int = 0
    fresh: int = 0
    reason: str | None = None
    note: str | None = None


def summarise(pages: Iterable[Page], start_ns: int, end_ns: int, gpus: Iterable[str]) -> Summaries:
    """What the pages between two times say of the host and of these GPUs.

    A value is fresh when the scrape before it, also inside, showed an older state of its source: only then was it
    taken inside. A source that refreshes every 30 s thus counts once in 30 s, however often it is scraped.
    """
    subjects = {"", *gpus}
    found: dict[Series, Summary] = {}
    for origin in _by_origin(page for page in pages if start_ns - SLACK_NS <= page.time_ns <= end_ns).values():
        lasts: dict[Series, tuple[int, float]] = {}
        for page, fresh in _freshness(origin):
            for series, value in page.values.items():
                if series.name in _KEPT and series.subject in subjects:
                    one = _one(series, value, page.time_ns, fresh, lasts)
                    found[series] = found[series].plus(one) if series in found else one
    # A counter that fell was reset: from then on it may have counted anything, so nothing of it is believed here.
    reset = {series: replace(summary, delta=0.0, delta_s=0.0) for series, summary in found.items() if summary.falls}
    return {**found, **reset}


def _by_origin(pages: Iterable[Page]) -> dict[tuple[str, str], list[Page]]:
    origins: dict[tuple[str, str], list[Page]] = {}
    for page in sorted(pages, key=lambda page: page.time_ns):
        if page.values:
            origins.setdefault((page.source, page.origin), []).append(page)
    return origins


def _freshness(pages: Sequence[Page]) -> Iterable[tuple[Page, bool]]:
    before: Page | None = None
    for page in pages:
        yield page, page.fingerprint is None or (before is not None and page.fingerprint != before.fingerprint)
        before = page


def _one(series: Series, value: float, time_ns: int, fresh: bool, lasts: dict[Series, tuple[int, float]]) -> Summary:
    if not fresh:
        return Summary(1)
    if series.name not in COUNTERS:
        return Summary(1, 1, value, value, value)
    last_ns, last = lasts.get(series, (time_ns, value))
    lasts[series] = (time_ns, value)
    return Summary(1, 1, value, value, value, value - last, (time_ns - last_ns) / 1e9, int(value < last))


def merge(parts: Iterable[Summaries]) -> Summaries:
    """The summaries of several slices as one."""
    merged: dict[Series, Summary] = {}
    for part in parts:
        for series, summary in part.items():
            merged[series] = merged[series].plus(summary) if series in merged else summary
    return merged


def cadences(pages: Iterable[Page]) -> dict[str, float]:
    """Source -> every how many seconds it refreshes, for the sources of which that can be told."""
    pages = tuple(pages)
    found = {source: cadence_s(pages, source) for source in dict.fromkeys(page.source for page in pages)}
    return {source: seconds for source, seconds in found.items() if seconds is not None}


def cadence_s(pages: Iterable[Page], source: str) -> float | None:
    """Every how many seconds a source refreshes, as its pages show; of several exporters the slowest.

    None below two refreshes, or where it is read live. Never below the time between scrapes.
    """
    slowest: float | None = None
    for (kind, _), origin in _by_origin(pages).items():
        times = [page.time_ns for page, fresh in _freshness(origin) if fresh and page.fingerprint is not None]
        if kind == source and len(times) > 1:
            gap_s = median(after - before for before, after in pairwise(times)) / 1e9
            slowest = max(gap_s, slowest or 0.0)
    return slowest


def preferred(by_source: Mapping[str, T]) -> T | None:
    """Of what is known of each source of GPU telemetry: the exporter's, as its figures come first; else Triton's."""
    return by_source.get("dcgm", by_source.get("triton"))


def refreshed_at(pages: Iterable[Page], start_ns: int, gpus: Iterable[str]) -> list[int]:
    """When the GPU that refreshes least did so since `start_ns`, each time in ns; none without a GPU.

    Of the exporter where one shows it, as its figures come first; else of Triton.
    """
    wanted = tuple(gpus)
    found: dict[tuple[str, str], list[int]] = {}
    for (source, _), origin in _by_origin(page for page in pages if page.time_ns >= start_ns - SLACK_NS).items():
        for page, fresh in _freshness(origin):
            for gpu in wanted:
                if gpu in page.gpus:
                    found.setdefault((gpu, source), []).extend([page.time_ns] if fresh else [])
    each = [found.get((gpu, "dcgm"), found.get((gpu, "triton"), [])) for gpu in wanted]
    return min(each, key=len, default=[])


def counter_deltas(before: Page, after: Page, model: str) -> tuple[dict[str, float] | None, str | None]:
    """How far each `nv_inference_*` and `nv_cache_*` counter of a model moved between two scrapes of Triton.

    None and the reason where a page is missing, or the server was restarted in between.
    """
    problem = before.problem or after.problem
    if problem is not None and not (before.values and after.values):
        return None, problem
    deltas = {
        series.name: value - before.values.get(series, 0.0)
        for series, value in after.values.items()
        if series.subject == model and series.name.startswith(("nv_inference_", "nv_cache_"))
    }
    if not deltas:
        return None, f"the server's metrics page has no counters of {model}"
    if any(delta < 0 for name, delta in deltas.items() if "pending" not in name):
        return None, "the server's counters fell: it was restarted"
    return deltas, None


def summaries_to_json(summaries: Summaries) -> str:
    """For the store: JSON, zlib-compressed and base64-coded, because the names and GPUs repeat (eight GPUs: a fifth)."""
    rows = [
        [series.name, series.subject, s.samples, s.fresh, s.low, s.high, s.total, s.delta, s.delta_s, s.falls]
        for series, s in summaries.items()
    ]
    return base64.b64encode(zlib.compress(json.dumps(rows, separators=(",", ":")).encode())).decode()


def summaries_from_json(data: str | Iterable[Sequence[Any]]) -> Summaries:
    """The inverse of `summaries_to_json`; or from the rows themselves, as earlier stores have them."""
    rows = json.loads(zlib.decompress(base64.b64decode(data))) if isinstance(data, str) else data
    return {Series(row[0], row[1]): Summary(*row[2:]) for row in rows}
