"""What of streams counts in a slice: the responses that came inside it, and the requests that ended there."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from model_analyzer.engine.slice import WINDOW_NS, Seen, _stats
from model_analyzer.ports import LoadBatch, Streamed


def times(*ns: int) -> NDArray[np.int64]:
    return np.array(ns, np.int64)


def test_a_response_belongs_to_the_slice_in_which_it_came() -> None:
    """Streams that begin before a slice, or end behind it, count with what they bring inside it."""
    seen = Seen()
    early = Streamed(times(2), times(90), times(7), times(99, 100), times(3, 4))
    late = Streamed(times(3, 9), times(150, 200), times(8, 9), times(160, 199, 201), times(5, 6, 7))
    seen.take(LoadBatch(120, times(110), times(20), {}, 0, streamed=early))
    seen.take(LoadBatch(210, times(199, 205), times(30, 40), {}, 0, streamed=late))
    stream = _stats(seen, 100, 200).stream
    assert stream is not None
    assert (stream.first.count, stream.first.sum_ns) == (1, 8)
    assert (stream.gaps.count, stream.gaps.sum_ns) == (3, 4 + 5 + 6)
    # Of the requests that ended inside.
    assert stream.responses == 2 + 3
    assert stream.pace == pytest.approx((2 / 20 + 3 / 30) * 1e9)
    assert _stats(Seen(seen.done, seen.latency), 100, 200).stream is None


def test_the_responses_that_came_are_counted_in_windows_as_the_replies_are() -> None:
    seen, w = Seen(), WINDOW_NS
    streamed = Streamed(
        times(2), times(0, w, 2 * w), times(7, 7, 7), times(1, w - 1, w + 5, 2 * w - 1), times(3, 3, 3, 3)
    )
    seen.take(LoadBatch(3 * w, times(w + 9), times(20), {}, 0, streamed=streamed))
    stats = _stats(seen, 0, 2 * w + w // 2)
    assert stats.windows == (0, 1)
    assert stats.stream is not None
    # A first one and two later ones in the first window, a first one and two later ones in the second.
    assert stats.stream.windows == (3, 3)
    assert stats.stream.arrived == 7, "one came after the last whole window"
