"""How well the figures of streams are known: the methods of whole requests, on responses."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from model_analyzer.core.repeats import differences, mean_over, percentile_over, throughput_over
from model_analyzer.core.stats import (
    SliceStats,
    mean_interval,
    percentile_interval,
    throughput_interval,
    throughput_motion,
    window_counts,
)
from model_analyzer.core.stream_intervals import compared_streams, stream_intervals
from model_analyzer.core.streams import INTERVALS, StreamStats

SECOND_NS, WINDOW_NS, MS = 1_000_000_000, 50_000_000, 1_000_000
NOTHING = np.empty(0, np.int64)


def a_slice(
    first_ns: NDArray[np.int64], gap_ns: NDArray[np.int64] = NOTHING, start_ns: int = 0, windows: bool = True
) -> SliceStats:
    """A second in which these came, evenly; each first one is a request's only response."""
    at = np.linspace(0, SECOND_NS - 1, len(first_ns) + len(gap_ns)).astype(np.int64) + start_ns
    counts = window_counts(at, start_ns, start_ns + SECOND_NS, WINDOW_NS) if windows else ()
    stream = StreamStats.of(first_ns, gap_ns, np.ones(len(first_ns), np.int64), first_ns, counts)
    done = np.linspace(0, SECOND_NS - 1, len(first_ns)).astype(np.int64) + start_ns
    return SliceStats.of(done, first_ns, start_ns, start_ns + SECOND_NS, WINDOW_NS, stream)


def some(
    slices: int = 8, responses: int = 100, seed: int = 1, gaps: int = 0, scale: float = 1.0, number: int = 0
) -> list[SliceStats]:
    """Slices four seconds apart, of about so many first responses each and `gaps` times as many later ones."""
    rng = np.random.default_rng(seed)

    def waits(count: int) -> NDArray[np.int64]:
        return (rng.gamma(9, 10 * MS / 9 * scale, count)).astype(np.int64)

    starts = [(600 * number + 4 * n) * SECOND_NS for n in range(slices)]
    counts = rng.poisson(responses, slices)
    return [a_slice(waits(n), waits(gaps * n), start) for n, start in zip(counts, starts, strict=True)]


def of(slices: Sequence[SliceStats]) -> dict[str, float | None]:
    values, reasons = stream_intervals([slices])
    assert set(values) == set(INTERVALS)
    assert set(reasons) == {tag for tag, value in values.items() if value is None}
    return values


def test_streams_of_one_response_have_the_intervals_of_their_requests() -> None:
    slices = some()
    values, moved = of(slices), throughput_motion(slices)
    throughput, p99, mean = (
        throughput_interval(slices, moved),
        percentile_interval(slices, 0.99, moved),
        mean_interval(slices, moved),
    )
    assert throughput is not None
    assert p99 is not None
    assert mean is not None
    assert values["output_token_throughput_ci"] == pytest.approx(throughput.half_width)
    assert values["time_to_first_token_p99_ci"] == pytest.approx(p99.half_width)
    assert values["time_to_first_token_avg_ci"] == pytest.approx(mean.half_width)
    assert values["inter_token_latency_avg_ci"] is None


def test_each_wait_has_its_own_and_more_responses_narrow_it() -> None:
    values, more = of(some(gaps=4)), of(some(gaps=20))
    for end in ("avg", "p99"):
        gaps, many = values[f"inter_token_latency_{end}_ci"], more[f"inter_token_latency_{end}_ci"]
        assert gaps is not None
        assert many is not None
        assert 0 < many < gaps < 10 * MS
    assert values["time_to_first_token_avg_ci"] is not None


def test_all_responses_count_for_the_throughput_of_tokens() -> None:
    requests, tokens = of(some())["output_token_throughput_ci"], of(some(gaps=4))["output_token_throughput_ci"]
    assert requests is not None
    assert tokens == pytest.approx(5 * requests, rel=0.05), "five times as many, in step with the requests"


def test_shares_of_requests_across_the_ends_of_a_slice_are_none_of_responses() -> None:
    slices = some(gaps=2)
    assert of([replace(piece, edges=0.7) for piece in slices]) == of(slices)


def test_a_store_of_before_windows_of_responses_still_has_intervals() -> None:
    older = [
        replace(piece, stream=replace(piece.stream, windows=())) if piece.stream else piece for piece in some(gaps=2)
    ]
    assert all(value is not None for value in of(older).values())


@pytest.mark.parametrize(
    ("slices", "tag", "why"),
    [
        (some(2), "output_token_throughput_ci", "no interval: only 2 slices with 194 responses"),
        (some(2), "time_to_first_token_avg_ci", "no interval: only 2 slices with responses"),
        (some(8, 20), "time_to_first_token_p99_ci", "no interval: 152 responses, 299 are needed"),
        (some(), "inter_token_latency_p99_ci", "no interval: no stream had a second response"),
        (some(4, 0), "output_token_throughput_ci", "no interval: no response"),
        (some(4, 0), "time_to_first_token_avg_ci", "no interval: no response"),
        ([*some(3), *some(3, scale=1000)], "time_to_first_token_avg_ci", "no interval: it differs too much between the slices"),
    ],
)  # fmt: skip
def test_without_an_interval_there_is_its_reason(slices: list[SliceStats], tag: str, why: str) -> None:
    values, reasons = stream_intervals([slices])
    assert (values[tag], reasons.get(tag)) == (None, why)


def test_what_is_not_streamed_says_so() -> None:
    values, reasons = stream_intervals([[replace(piece, stream=None) for piece in some()]])
    assert values == dict.fromkeys(INTERVALS)
    assert reasons == dict.fromkeys(INTERVALS, "each request has one reply: nothing is streamed")


class TestRepeats:
    @staticmethod
    def three(*scales: float) -> list[list[SliceStats]]:
        return [some(seed=n + 1, gaps=4, scale=scale, number=n) for n, scale in enumerate(scales)]

    def test_the_spread_between_repeats_is_in_the_interval(self) -> None:
        alike, apart = (stream_intervals(self.three(*scales))[0] for scales in ((1, 1, 1), (1, 1.1, 1.2)))
        for name in ("time_to_first_token", "inter_token_latency"):
            for end in ("avg", "p99"):
                one, other = alike[f"{name}_{end}_ci"], apart[f"{name}_{end}_ci"]
                assert one is not None
                assert other is not None
                # t of two degrees of freedom: 4.3 x 0.09 / sqrt(3) of the logarithm.
                assert other > 0.2 * 11 * MS > one

    def test_streams_that_differ_between_repeats_are_told(self) -> None:
        of = self.three(1, 1.2, 1.4)
        assert [figure.name for figure in compared_streams(of)] == [
            "output token throughput", "mean time to first token", "mean inter token latency"
        ]  # fmt: skip
        (remark,) = differences(compared_streams(of), 3)
        assert remark.startswith("results differ between reloads: mean time to first token by 4")
        assert "and mean inter token latency by 4" in remark
        assert "output token throughput" not in remark, "as many came in each"

    def test_streams_that_agree_are_not(self) -> None:
        said = [
            differences(compared_streams([some(seed=10 * seed + n, gaps=2, number=n) for n in range(3)]), 3)
            for seed in range(10)
        ]
        assert sum(bool(remark) for remark in said) <= 1

    def test_what_is_not_streamed_or_not_repeated_has_nothing_to_compare(self) -> None:
        unary = [[replace(piece, stream=None) for piece in slices] for slices in self.three(1, 2)]
        assert [*compared_streams(unary)] == []
        assert differences(compared_streams(self.three(1)), 1) == ()

    def test_one_repeat_is_a_phase_without_repeats(self) -> None:
        (only,) = self.three(1)
        assert throughput_over([only]) == throughput_interval(only)
        assert percentile_over([only], 0.99) == percentile_interval(only, 0.99)
        assert mean_over([only]) == mean_interval(only)

    def test_a_repeat_without_a_response_leaves_nothing_to_say(self) -> None:
        values, reasons = stream_intervals([some(gaps=1), some(4, 0)])
        assert not any(value is not None for value in values.values())
        assert set(reasons.values()) == {"no interval: a repeat has none"}

    def test_repeats_too_far_apart_leave_nothing_to_say(self) -> None:
        values, reasons = stream_intervals(self.three(1, 20, 400))
        assert values["time_to_first_token_avg_ci"] is None
        assert reasons["time_to_first_token_avg_ci"].endswith("between the slices or the repeats")


def test_every_half_width_is_finite_whatever_the_slices() -> None:
    rng = np.random.default_rng(3)
    for _ in range(30):
        sizes = rng.integers(0, 80, rng.integers(1, 9))
        slices = [
            a_slice(rng.integers(0, 9 * MS, n), rng.integers(0, 3, 2 * n), k * SECOND_NS) for k, n in enumerate(sizes)
        ]
        assert all(value is None or (math.isfinite(value) and value >= 0) for value in of(slices).values())
