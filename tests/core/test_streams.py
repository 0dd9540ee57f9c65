"""Responses of streams: what is kept of them, and every figure made from it."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from model_analyzer.core.stats import SliceStats
from model_analyzer.core.streams import FIGURES, StreamStats, stream_values

MS = 1_000_000


def ns(*ms: float) -> NDArray[np.int64]:
    return (np.array(ms, np.float64) * MS).astype(np.int64)


# Two requests ended, of 3 and 1 responses, after 50 and 20 ms; a third has begun.
STREAM = StreamStats.of(ns(10, 20, 30), ns(15, 25), np.array([3, 1], np.int64), ns(50, 20), (3, 2))
SLICE = SliceStats.of(np.array([5, 6], np.int64), ns(50, 20), 0, 10, 5, STREAM)


def test_each_figure_of_a_stream() -> None:
    values, reasons = stream_values([STREAM, None, STREAM], requests=4, seconds=2.0)
    assert set(values) == set(FIGURES)
    assert not reasons
    assert (values["time_to_first_token_avg"], values["time_to_first_token_min"]) == (20 * MS, 10 * MS)
    assert (values["time_to_first_token_max"], values["time_to_first_token_p99"]) == (30 * MS, 30 * MS)
    assert values["time_to_first_token_p50"] == pytest.approx(20 * MS, rel=0.004)
    assert (values["inter_token_latency_avg"], values["inter_token_latency_max"]) == (20 * MS, 25 * MS)
    assert values["inter_token_latency_p25"] == pytest.approx(15 * MS, rel=0.004)
    # 5 that came, each time, of whichever requests.
    assert values["output_token_throughput"] == 10 / 2.0
    assert values["output_token_throughput_per_request"] == pytest.approx((3 / 0.050 + 1 / 0.020) / 2)
    assert values["responses_per_request"] == 2.0


@pytest.mark.parametrize(
    ("slices", "requests", "absent"),
    [
        ([], 5, dict.fromkeys(FIGURES, "each request has one reply: nothing is streamed")),
        (
            [StreamStats.of(ns(1), ns(), np.array([1], np.int64), ns(1))],
            1,
            {tag: "no stream had a second response" for tag in FIGURES if tag.startswith("inter")},
        ),
        (
            [StreamStats.of(ns(), ns(), np.array([], np.int64), ns())],
            0,
            {
                **{tag: "no response" for tag in FIGURES if tag.startswith("time")},
                **{tag: "no stream had a second response" for tag in FIGURES if tag.startswith("inter")},
                "output_token_throughput_per_request": "no reply",
                "responses_per_request": "no reply",
            },
        ),
    ],
)
def test_what_is_absent_says_why(slices: list[StreamStats], requests: int, absent: dict[str, str]) -> None:
    values, reasons = stream_values(slices, requests, 1.0)
    assert reasons == absent
    assert {tag for tag, value in values.items() if value is None} == set(absent)


def test_streams_are_kept_in_the_store_and_older_slices_have_none() -> None:
    again = SliceStats.from_json(json.loads(json.dumps(SLICE.to_json())))
    assert again.stream is not None
    assert again.stream.windows == (3, 2)
    assert stream_values([again.stream], 2, 1.0) == stream_values([STREAM], 2, 1.0)
    older = replace(SLICE, stream=None).to_json()
    assert "stream" not in older
    assert SliceStats.from_json(json.loads(json.dumps(older))).stream is None
