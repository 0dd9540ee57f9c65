"""What streamed replies amount to: the first responses' waits, the gaps between responses, how many there were."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_analyzer.core.histogram import Histogram

QUANTILES = {"p99": 0.99, "p95": 0.95, "p90": 0.90, "p75": 0.75, "p50": 0.50, "p25": 0.25}


@dataclass(frozen=True, slots=True)
class StreamStats:
    """The responses of a slice.

    first, gaps: ns, of the responses that came in it: how long after its request a first one came, after the response before
    it a later one. responses: of the requests that succeeded in it, all together. pace: the sum over these of responses /
    latency, 1/s. windows: responses that came in each whole window of the slice; empty where nobody knows: of several slices
    together, and in stores of before there were intervals of it.
    """

    first: Histogram
    gaps: Histogram
    responses: int
    pace: float
    windows: tuple[int, ...] = ()

    @classmethod
    def of(
        cls,
        first_ns: NDArray[np.int64],
        gap_ns: NDArray[np.int64],
        responses: NDArray[np.int64],
        latency_ns: NDArray[np.int64],
        windows: tuple[int, ...] = (),
    ) -> StreamStats:
        """From the waits of the responses that came, [f] and [g], and responses and latency of each success, both [n]."""
        pace = float((responses / np.maximum(latency_ns, 1)).sum()) * 1e9
        return cls(Histogram.of(first_ns), Histogram.of(gap_ns), int(responses.sum()), pace, windows)

    @classmethod
    def merge(cls, parts: Iterable[StreamStats]) -> StreamStats:
        """All of all parts."""
        each = list(parts)
        return cls(
            Histogram.merge(part.first for part in each),
            Histogram.merge(part.gaps for part in each),
            sum(part.responses for part in each),
            sum(part.pace for part in each),
        )

    @property
    def arrived(self) -> int:
        """Responses that came."""
        return self.first.count + self.gaps.count

    def to_json(self) -> dict[str, Any]:
        """A JSON-able dict."""
        return {
            "first": self.first.to_json(),
            "gaps": self.gaps.to_json(),
            "responses": self.responses,
            "pace": self.pace,
            "windows": list(self.windows),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> StreamStats:
        """The inverse of `to_json`."""
        first, gaps = Histogram.from_json(data["first"]), Histogram.from_json(data["gaps"])
        return cls(first, gaps, data["responses"], data["pace"], tuple(data.get("windows", ())))


COUNTS = ("output_token_throughput", "output_token_throughput_per_request", "responses_per_request")
# The waits that have a distribution, and why one has none.
NO_WAITS = {"time_to_first_token": "no response", "inter_token_latency": "no stream had a second response"}
NOT_STREAMED = "each request has one reply: nothing is streamed"


def _tags(name: str) -> tuple[str, ...]:
    return tuple(f"{name}_{end}" for end in ("avg", "min", "max", *QUANTILES))


FIGURES = (*(tag for name in NO_WAITS for tag in _tags(name)), *COUNTS)
# Half-widths of some of them (`core/stream_intervals.py`).
INTERVALS = (
    "output_token_throughput_ci",
    "time_to_first_token_avg_ci",
    "time_to_first_token_p99_ci",
    "inter_token_latency_avg_ci",
    "inter_token_latency_p99_ci",
)


def stream_tags() -> tuple[str, ...]:
    """The metrics that only streamed replies have."""
    return (*FIGURES, *INTERVALS)


def stream_values(
    slices: Iterable[StreamStats | None], requests: int, seconds: float
) -> tuple[dict[str, float | None], dict[str, str]]:
    """The stream metrics of a phase, and why those are absent that are. requests: how many succeeded in `seconds`."""
    streams = [piece for piece in slices if piece is not None]
    if not streams:
        return dict.fromkeys(FIGURES), dict.fromkeys(FIGURES, NOT_STREAMED)
    whole = StreamStats.merge(streams)
    values = {
        **_distribution("time_to_first_token", whole.first),
        **_distribution("inter_token_latency", whole.gaps),
        "output_token_throughput": whole.arrived / seconds if seconds else None,
        "output_token_throughput_per_request": whole.pace / requests if requests else None,
        "responses_per_request": whole.responses / requests if requests else None,
    }
    reasons = {tag: why for name, why in NO_WAITS.items() for tag in _tags(name)}
    reasons |= {**dict.fromkeys(COUNTS, "no reply"), "output_token_throughput": "nothing was measured"}
    return values, {tag: reason for tag, reason in reasons.items() if values[tag] is None}


def _distribution(name: str, waits: Histogram) -> dict[str, float | None]:
    return {
        f"{name}_avg": waits.mean_ns,
        f"{name}_min": None if waits.min_ns is None else float(waits.min_ns),
        f"{name}_max": None if waits.max_ns is None else float(waits.max_ns),
        **{f"{name}_{end}": waits.percentile_ns(q) for end, q in QUANTILES.items()},
    }
