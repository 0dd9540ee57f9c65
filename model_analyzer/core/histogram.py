"""A mergeable latency histogram with a bounded relative error.

Log-linear buckets as in HdrHistogram (Gil Tene, http://hdrhistogram.org): 128
buckets an octave, so a bucket's middle is within 0.4 % of any value in it.
Count, sum, minimum and maximum are exact.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

SUB_BITS = 7  # 128 linear buckets an octave: half a bucket is 1/256 of the value at most
RESOLUTION = 1 / (2 << SUB_BITS)


def least_count(q: float) -> int:
    """How many samples the q-th percentile needs, to have one beyond it: 100 for p99."""
    return round(1 / (1 - q))


@dataclass(frozen=True)
class Histogram:
    """Latencies in ns. buckets: ascending bucket numbers; counts: how many fell into each (both int64 [k])."""

    buckets: NDArray[np.int64]
    counts: NDArray[np.int64]
    count: int
    sum_ns: int
    min_ns: int | None
    max_ns: int | None

    @classmethod
    def of(cls, latency_ns: NDArray[np.int64]) -> Histogram:
        """From latencies in ns, [n], any order, none negative."""
        if len(latency_ns) == 0:
            empty = np.empty(0, np.int64)
            return cls(empty, empty, 0, 0, None, None)
        buckets, counts = np.unique(_bucket(latency_ns), return_counts=True)
        return cls(
            buckets,
            counts.astype(np.int64),
            len(latency_ns),
            int(latency_ns.sum()),
            int(latency_ns.min()),
            int(latency_ns.max()),
        )

    @classmethod
    def merge(cls, parts: Iterable[Histogram]) -> Histogram:
        """All samples of all parts."""
        full = [part for part in parts if part.count]
        if not full:
            return cls.of(np.empty(0, np.int64))
        buckets, where = np.unique(np.concatenate([part.buckets for part in full]), return_inverse=True)
        counts = np.zeros(len(buckets), np.int64)
        np.add.at(counts, where, np.concatenate([part.counts for part in full]))
        return cls(
            buckets,
            counts,
            sum(part.count for part in full),
            sum(part.sum_ns for part in full),
            min(part.min_ns for part in full if part.min_ns is not None),
            max(part.max_ns for part in full if part.max_ns is not None),
        )

    @property
    def mean_ns(self) -> float | None:
        """The exact mean; None without samples."""
        return self.sum_ns / self.count if self.count else None

    @property
    def deviation_ns(self) -> float:
        """The standard deviation, samples taken for the middle of their buckets; 0 below two."""
        if self.count < 2:
            return 0.0
        middles = _middles(self.buckets)
        apart = middles - np.average(middles, weights=self.counts)
        return sqrt(float((self.counts * apart * apart).sum()) / (self.count - 1))

    @cached_property
    def _cumulated(self) -> NDArray[np.int64]:
        return np.cumsum(self.counts)

    def percentile_ns(self, q: float) -> float | None:
        """The smallest latency that at least a share q (0 < q < 1) of the samples does not exceed.

        Nearest rank: sample number ceil(q * n) in ascending order, read from its bucket's middle, never beyond the
        exact minimum and maximum. Below `least_count(q)` samples that is the maximum. None without samples.
        """
        # Rounded, because 0.99 * 100 in binary is a little more than 99.
        return self.ranked_ns(int(np.ceil(round(q * self.count, 9))))

    def ranked_ns(self, rank: int) -> float | None:
        """Sample number `rank` (1: the smallest; beyond the ends: the ends) in ascending order, to within its bucket."""
        if self.min_ns is None or self.max_ns is None:
            return None
        within = min(max(rank, 1), self.count)
        if within == self.count:
            return float(self.max_ns)
        place = int(np.searchsorted(self._cumulated, within))
        middle = float(_middles(self.buckets[place : place + 1])[0])
        return float(min(max(middle, self.min_ns), self.max_ns))

    @classmethod
    def left_out_ns(cls, parts: Sequence[Histogram], q: float) -> NDArray[np.float64]:
        """The q-th percentile of all parts but one, for each part that is left out, [parts], to within a bucket.

        What is left must hold more than `least_count(q)` samples each time.
        """
        whole = cls.merge(parts)
        left = np.tile(whole.counts, (len(parts), 1))
        for row, part in zip(left, parts, strict=True):
            row[np.searchsorted(whole.buckets, part.buckets)] -= part.counts
        cumulated = left.cumsum(axis=1)
        ranks = np.ceil(np.round(q * cumulated[:, -1], 9))
        places = (cumulated < ranks[:, None]).sum(axis=1)
        return _middles(whole.buckets[places])

    def to_json(self) -> dict[str, Any]:
        """Compact: the two arrays as one zlib-compressed, base64-coded array of differences and counts."""
        packed = np.concatenate([np.diff(self.buckets, prepend=0), self.counts]).astype("<i8").tobytes()
        return {
            "count": self.count,
            "sum_ns": self.sum_ns,
            "min_ns": self.min_ns,
            "max_ns": self.max_ns,
            "data": base64.b64encode(zlib.compress(packed)).decode(),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Histogram:
        """The inverse of `to_json`."""
        both = np.frombuffer(zlib.decompress(base64.b64decode(data["data"])), "<i8").astype(np.int64)
        half = len(both) // 2
        return cls(np.cumsum(both[:half]), both[half:], data["count"], data["sum_ns"], data["min_ns"], data["max_ns"])


def _bucket(value_ns: NDArray[np.int64]) -> NDArray[np.int64]:
    """The bucket number of each value: exact below 128, then 128 buckets an octave."""
    # A latency below 104 days is below 2**53: its exponent as a float64 is exact.
    values = np.clip(value_ns, 0, (1 << 53) - 1)
    exponent = np.frexp(values.astype(np.float64))[1]
    shift = np.maximum(exponent - SUB_BITS - 1, 0).astype(np.int64)
    return (shift << SUB_BITS) + (values >> shift)


def _middles(buckets: NDArray[np.int64]) -> NDArray[np.float64]:
    """The middle of each bucket's values, ns."""
    shift = np.maximum((buckets >> SUB_BITS) - 1, 0)
    low = (buckets - (shift << SUB_BITS)) << shift
    return np.asarray(low + ((1 << shift) - 1) / 2, np.float64)
