"""The parts of an order are the whole: none lost, none doubled."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from hypothesis import given
from hypothesis import strategies as st

from model_analyzer.loadgen.schedule import send_times_ns, slot_times_ns
from model_analyzer.loadgen.split import of_schedule, share, turns

WORKERS = st.integers(1, 9)


@given(st.integers(0, 5000), WORKERS)
def test_shares_add_up_and_differ_by_one_at_most(whole: int, workers: int) -> None:
    shares = [share(whole, worker, workers) for worker in range(workers)]
    assert sum(shares) == whole
    assert max(shares) - min(shares) <= 1


@given(
    st.floats(0.5, 1e5),
    st.sampled_from(["constant", "poisson", "intervals"]),
    st.integers(0, 99),
    st.sampled_from([0, 50_000_000]),
    WORKERS,
)
def test_the_workers_schedules_together_are_the_one_schedule(
    rate: float, distribution: str, seed: int, ramp_ns: int, workers: int
) -> None:
    each = 20

    def whole() -> Iterator[int]:
        return send_times_ns(rate, distribution, seed, (1_000_000, 5_000_000, 200_000), ramp_ns)

    parts = [list(islice(of_schedule(whole(), worker, workers), each)) for worker in range(workers)]
    together = sorted(time for part in parts for time in part)
    assert together == list(islice(whole(), each * workers))


@given(st.integers(1, 200), st.integers(0, 10**10), WORKERS)
def test_the_places_of_all_workers_begin_evenly_over_the_one_ramp(concurrency: int, ramp_ns: int, workers: int) -> None:
    whole = list(slot_times_ns(concurrency, ramp_ns))
    parts = [list(slot_times_ns(concurrency, ramp_ns, 1, worker, workers)) for worker in range(workers)]
    assert [len(part) for part in parts] == [share(concurrency, worker, workers) for worker in range(workers)]
    assert sorted(time for part in parts for time in part) == whole


@given(st.integers(1, 30), WORKERS)
def test_a_scheduled_request_is_the_same_one_whoever_sends_it(count: int, workers: int) -> None:
    mine = [turns(count, worker, workers, scheduled=True) for worker in range(workers)]
    # Request k of the whole schedule is the worker's k // workers-th.
    sent = [mine[k % workers][(k // workers) % len(mine[k % workers])] for k in range(3 * count * workers)]
    assert sent == [k % count for k in range(3 * count * workers)]


@given(st.integers(1, 30), WORKERS)
def test_in_a_closed_loop_every_worker_sends_every_request(count: int, workers: int) -> None:
    for worker in range(workers):
        assert sorted(turns(count, worker, workers, scheduled=False)) == list(range(count))
    assert turns(count, 0, workers, scheduled=False) == list(range(count)), "one worker sends them as they come"
