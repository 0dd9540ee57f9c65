"""The open loop against queues whose latency stands in textbooks, on a clock that is simulated.

The driver's own loop, its schedule, its slots and its tally run as they are; what is simulated is the time, the wait in
epoll, and one server that takes requests in the order of their arrival. So a busy machine changes nothing, and what is
measured differs from the textbook by the sampling of the queue alone (seeded).
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Callable
from itertools import islice
from math import exp, log

import numpy as np
import pytest
from numpy.typing import NDArray
from scripted_server import order
from simulated_queue import SECOND_NS, QueueDriver, Time

from model_analyzer.core.stats import SliceStats
from model_analyzer.loadgen import driver, tally
from model_analyzer.loadgen.order import Order
from model_analyzer.loadgen.schedule import send_times_ns
from model_analyzer.loadgen.tally import Tally

SERVICE_S = 0.001
MU = 1 / SERVICE_S


def driven(monkeypatch: pytest.MonkeyPatch, work: Order, services: NDArray[np.int64]) -> NDArray[np.int64]:
    """The latency of each request in turn, ns, as the driver tells it."""
    time = Time()
    monkeypatch.setattr(driver, "monotonic_ns", time.monotonic_ns)
    monkeypatch.setattr(tally.time, "monotonic_ns", time.monotonic_ns)
    latency: list[NDArray[np.int64]] = []

    def take(data: bytes) -> None:
        size = struct.unpack("<I", data[:4])[0]
        n = json.loads(data[4 : 4 + size])["n"]
        found = np.frombuffer(data[4 + size :], "<i8")
        latency.append(found[n : 2 * n])
        # The loop is never late here: a wait for a place is the server's doing, and no send lag.
        assert (abs(found[2 * n :]) <= 1).all()

    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        QueueDriver(work, theirs, Tally(take, 1), time, services).run()
    return np.concatenate(latency)


def sojourns(arrivals: NDArray[np.int64], services: NDArray[np.int64]) -> NDArray[np.int64]:
    """The time of each request in a single server's system, ns: Lindley 1952, wait = work so far less its least value."""
    work = np.concatenate([[0], np.cumsum(services[:-1] - np.diff(arrivals))])
    return work - np.minimum.accumulate(work) + services


def rate_of(rho: float, seed: int = 11, distribution: str = "poisson", **values: int) -> Order:
    return order(
        1,
        kind="request_rate",
        value=rho * MU,
        distribution=distribution,
        seed=seed,
        timeout_ns=3600 * SECOND_NS,
        **values,
    )


def arrivals_of(work: Order, count: int) -> NDArray[np.int64]:
    times = send_times_ns(work.value, work.distribution, work.seed)
    return np.fromiter(islice(times, count), np.int64, count)


def exponential(count: int) -> NDArray[np.int64]:
    return np.round(np.random.default_rng(5).exponential(SERVICE_S * SECOND_NS, count)).astype(np.int64)


def fixed(count: int) -> NDArray[np.int64]:
    return np.full(count, round(SERVICE_S * SECOND_NS), np.int64)


Services = Callable[[int], NDArray[np.int64]]


def m_m_1(rho: float) -> tuple[float, float]:
    """Mean and p99 of the time in an M/M/1 system: exponential with rate mu - lambda (Kleinrock 1975, 5.118)."""
    rate = MU * (1 - rho)
    return 1 / rate, -log(0.01) / rate


def m_d_1(rho: float) -> tuple[float, float]:
    """Mean and p99 of the time in an M/D/1 system.

    Mean: Pollaczek and Khinchine. p99: the wait's distribution (Erlang 1909; Crommelin 1932 for one server),
    P(W <= t) = (1 - rho) sum_{k=0}^{floor(t/D)} exp(lambda (t - kD)) (-lambda (t - kD))^k / k!
    """
    rate = rho * MU

    def waits_at_most(t: float) -> float:
        total = 0.0
        for k in range(int(t / SERVICE_S) + 1):
            x = rate * (t - k * SERVICE_S)
            term = exp(x)
            for j in range(1, k + 1):
                term *= -x / j
            total += term
        return (1 - rho) * total

    return SERVICE_S * (1 + rho / (2 * (1 - rho))), SERVICE_S + quantile(waits_at_most, 0.99, 30 * SERVICE_S)


def quantile(distribution: Callable[[float], float], q: float, most: float) -> float:
    low, high = 0.0, most
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (middle, high) if distribution(middle) < q else (low, middle)
    return high


def test_the_formulas_agree_with_others() -> None:
    assert m_m_1(0.8) == pytest.approx((5e-3, 23.03e-3), rel=1e-3)
    mean, p99 = m_d_1(0.5)
    assert mean == pytest.approx(1.5e-3)
    # The wait's tail is C exp(-theta t) with lambda (exp(theta D) - 1) = theta, so theta D = 1.25643 at rho = 0.5, and
    # C = (1 - rho) / (rho exp(theta D) - 1).
    theta = 1.25643 / SERVICE_S
    c = 0.5 / (0.5 * exp(1.25643) - 1)
    assert p99 == pytest.approx(SERVICE_S + log(c / 0.01) / theta, rel=5e-4)


@pytest.mark.parametrize("rho", [0.5, 0.8, 1.2])
@pytest.mark.parametrize("services", [exponential, fixed])
def test_the_driver_measures_what_the_queue_did_to_the_nanosecond(
    monkeypatch: pytest.MonkeyPatch, rho: float, services: Services
) -> None:
    work, count = rate_of(rho), 5_000
    told = driven(monkeypatch, work, services(count))
    assert told.tolist() == sojourns(arrivals_of(work, count), services(count)).tolist()


def test_a_limit_of_requests_in_flight_hides_no_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    # One server takes them in turn anyway: whether they wait there or here, their latency is the same.
    work, count = rate_of(0.9, max_concurrency=2), 5_000
    told = driven(monkeypatch, work, exponential(count))
    assert told.tolist() == sojourns(arrivals_of(work, count), exponential(count)).tolist()


@pytest.mark.parametrize("rho", [0.5, 0.8])
@pytest.mark.parametrize(("services", "textbook"), [(exponential, m_m_1), (fixed, m_d_1)], ids=["M/M/1", "M/D/1"])
def test_mean_and_p99_of_an_open_loop_are_the_textbooks(
    rho: float, services: Services, textbook: Callable[[float], tuple[float, float]]
) -> None:
    # What the driver measures, by the test above, of so many requests that the queue's own chance is below the 5 % (3 % at most, seen at rho 0.8 of M/M/1).
    count = 1_000_000
    arrivals = arrivals_of(rate_of(rho), count)
    latency = sojourns(arrivals, services(count))
    done = arrivals + latency
    stats = SliceStats.of(done, latency, 0, int(done.max()) + 1, 50_000_000)
    mean_s, p99_s = textbook(rho)
    assert stats.rate == pytest.approx(rho * MU, rel=0.01)
    assert stats.latency.mean_ns == pytest.approx(mean_s * 1e9, rel=0.05)
    assert stats.latency.percentile_ns(0.99) == pytest.approx(p99_s * 1e9, rel=0.05)


def test_evenly_spaced_requests_never_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    told = driven(monkeypatch, rate_of(0.8, distribution="constant"), fixed(1_000))
    assert set(told.tolist()) == {round(SERVICE_S * SECOND_NS)}
