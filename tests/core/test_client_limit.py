"""When the load generator was the limit, and when others took its CPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from model_analyzer.core.client_limit import client_limit, more_workers
from model_analyzer.core.histogram import Histogram
from model_analyzer.core.measurement import Slice, WorkerShare
from model_analyzer.core.stats import SliceStats

SECOND_NS = 1_000_000_000
# How late each of 300 sends was, ns: a histogram shows the largest exactly.
LATE = np.full(300, 8_000_000, np.int64)


def piece(
    *workers: tuple[float, float | None], latency_ms: float = 10.0, seconds: float = 1.0, **changes: Any
) -> Slice:
    """A slice. workers: CPU and wait of each, as shares."""
    end_ns = int(seconds * SECOND_NS)
    done = np.linspace(1, end_ns - 1, 100).astype(np.int64)
    latency = np.full(100, int(latency_ms * 1e6), np.int64)
    return Slice(
        **{
            "phase_id": "id",
            "round": 0,
            "started_at": "2026-01-01T10:00:00.000+00:00",
            "warmup_s": 0.2,
            "stats": SliceStats.of(done, latency, 0, end_ns, SECOND_NS // 20),
            "failures": {},
            "server": None,
            "server_problem": None,
            "client_cpu_ratio": sum(cpu for cpu, _ in workers),
            "client_lag_s": 0.0,
            "gpus": (),
            "telemetry": {},
            "cadences": {},
            "problems": {},
            "workers": tuple(WorkerShare(*share) for share in workers),
            **changes,
        }
    )


def test_a_load_generator_with_room_has_nothing_to_say() -> None:
    assert client_limit([piece((0.8, 0.03))]) == (False, ())
    assert client_limit([piece((0.8, None))]) == (False, ())


def test_a_core_of_its_own_that_is_full_is_the_limit() -> None:
    limited, (note,) = client_limit([piece((0.95, 0.02))])
    assert limited
    assert note.startswith("the load generator used 95% of a core: its own work was the limit")
    assert "client_workers" in note


def test_every_reason_is_given_and_what_to_do_once() -> None:
    piece_with_all = piece((0.9, 0.05), client_lag_s=0.05, client_backlog_ratio=0.4, send_lag=Histogram.of(LATE))
    limited, (note,) = client_limit([piece_with_all])
    assert limited
    reasons = [
        "the load generator used 90% of a core",
        "replies waited up to 50 ms for the load generator",
        "40% of the requests in flight had a reply that the load generator had not read",
        "the load generator was up to 8 ms late with 99 % of the sends, which latency holds",
    ]
    assert note == f"{'; '.join(reasons)}: its own work was the limit; more client_workers and CPUs, or another machine"


def test_sends_that_are_late_are_told_beside_a_cpu_that_others_take() -> None:
    limited, (note,) = client_limit([piece((0.55, 0.4), send_lag=Histogram.of(LATE))])
    assert limited
    assert note.startswith(
        "the load generator had work for 95% of the time and a CPU for 55%; the load generator was up to 8 ms"
    )
    assert "others had its CPU" in note


@pytest.mark.parametrize("share", [(0.95, 0.02), (0.55, 0.4), (0.3, 0.2)])
def test_where_client_and_server_share_full_cpus_neither_is_called_the_limit(share: tuple[float, float]) -> None:
    alone, (of_one,) = client_limit([piece(share)])
    together, (of_both,) = client_limit([piece(share)], shared_full=True)
    assert alone == together, "the figures are no less shaped"
    assert "it and the server share full CPUs" in of_both
    assert "it and the server share" not in of_one
    assert "its own work was the limit" not in of_both


def test_of_several_processes_the_busiest_counts_and_not_their_sum() -> None:
    limited, notes = client_limit([piece((0.6, 0.0), (0.7, 0.0))])
    assert (limited, notes) == (False, ("driven by 2 load generator processes",))
    limited, notes = client_limit([piece((0.3, 0.0), (0.97, 0.0))])
    assert limited
    assert notes[0].startswith("a process of the load generator used 97% of a core")
    assert notes[1] == "driven by 2 load generator processes"


def test_slices_driven_by_different_numbers_are_told() -> None:
    _, notes = client_limit([piece((0.1, None)), piece((0.1, None), (0.1, None))])
    assert notes == ("driven by 1 to 2 load generator processes",)


def test_a_cpu_that_others_take_is_told_apart() -> None:
    limited, (note,) = client_limit([piece((0.55, 0.4))])
    assert limited, "it could not do more"
    assert note.startswith("the load generator had work for 95% of the time and a CPU for 55%: others had its CPU")
    assert "client_cpus" in note


def test_a_wait_that_lengthens_latencies_is_told_and_is_no_limit() -> None:
    for wait in (0.2, 0.7):
        limited, (note,) = client_limit([piece((0.3, wait))])
        assert not limited
        assert note.startswith(f"the load generator waited for a CPU {wait:.0%} of the time")


def test_shares_are_weighed_by_time() -> None:
    assert client_limit([piece((1.0, 0.0)), piece((0.2, 0.0), seconds=3.0)]) == (False, ())


def test_lag_in_most_slices_is_a_limit() -> None:
    lagging, quick = piece((0.6, 0.0), client_lag_s=0.05), piece((0.6, 0.0), client_lag_s=0.001)
    assert client_limit([lagging, quick, quick]) == (False, ())
    limited, (note,) = client_limit([lagging, lagging, quick])
    assert limited
    assert note.startswith("replies waited up to 50 ms for the load generator: its own work was the limit")
    _, (note,) = client_limit([piece((0.1, 0.02), client_lag_s=0.05)])
    assert note.startswith("replies waited up to 50 ms for the load generator: others had its CPU")


def test_lag_that_is_small_beside_the_latency_is_none() -> None:
    assert client_limit([piece((0.6, 0.0), client_lag_s=0.05, latency_ms=400)]) == (False, ())


def test_replies_that_lie_unread_are_a_limit() -> None:
    assert client_limit([piece((0.6, 0.0), client_backlog_ratio=0.1)]) == (False, ())
    limited, (note,) = client_limit([piece((0.6, 0.0), client_backlog_ratio=0.4)])
    assert limited
    assert note.startswith(
        "40% of the requests in flight had a reply that the load generator had not read: its own work"
    )
    _, (note,) = client_limit([piece((0.2, 0.5), client_backlog_ratio=0.4)])
    assert note.startswith(
        "40% of the requests in flight had a reply that the load generator had not read: others had its CPU"
    )


def test_slices_of_an_older_store_are_judged_by_their_cpu() -> None:
    limited, _ = client_limit([piece(client_cpu_ratio=0.9)])
    assert limited


@pytest.mark.parametrize(
    ("workers", "most", "shares", "lagging", "enough"),
    [
        (1, 8, [(0.7, 0.0)], False, 1),
        (1, 8, [(0.8, 0.0)], False, 2),
        (2, 8, [(0.5, 0.0), (0.8, 0.0)], False, 4),
        (2, 3, [(0.9, 0.0), (0.9, 0.0)], False, 3),
        (2, 2, [(0.9, 0.0), (0.9, 0.0)], True, 2),
        (1, 8, [(0.6, None)], True, 2),
        (1, 8, [(0.6, 0.3)], True, 1),
        (1, 8, [], True, 1),
    ],
)
def test_more_processes_where_one_core_each_is_not_enough(
    workers: int, most: int, shares: list[tuple[float, float | None]], lagging: bool, enough: int
) -> None:
    assert more_workers(workers, most, [WorkerShare(*share) for share in shares], lagging) == enough
