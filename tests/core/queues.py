"""Simulated servers whose long-run throughput and latency are known: what the statistics are judged on.

A closed loop over one FIFO server with N clients and no thinking time keeps the server busy always, so the j-th reply
leaves after j service times and took the last N of them: no event loop is needed. The server's speed may move while it
serves (`Speed`); work then runs on a clock of its own, the integral of the speed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import exp, sqrt

import numpy as np
from numpy.typing import NDArray

from model_analyzer.core.stats import SliceStats, shared_edges
from model_analyzer.core.warmup import start_offset

Floats = NDArray[np.float64]
GRID_S = 0.01
WINDOW_NS = 50_000_000


@dataclass(frozen=True)
class Speed:
    """How the speed of a server moves: mean 1, a product of two log-normal parts.

    ar_cv, ar_s: spread and correlation time of an AR(1) process on a grid of 10 ms.
    level_cv, level_s: spread and mean length of levels that hold for a while and then jump (exponential lengths).
    """

    ar_cv: float = 0.0
    ar_s: float = 0.2
    level_cv: float = 0.0
    level_s: float = 2.0

    def draw(self, seconds: float, rng: np.random.Generator) -> Floats:
        """Speed in each grid step, [seconds / GRID_S]."""
        steps = int(seconds / GRID_S) + 1
        return _lognormal(_ar1(steps, exp(-GRID_S / self.ar_s), rng), self.ar_cv) * _lognormal(
            _levels(steps, self.level_s, rng), self.level_cv
        )


def _lognormal(unit: Floats, cv: float) -> Floats:
    """Mean 1 and coefficient of variation `cv`, from standard normal values."""
    sigma = sqrt(np.log1p(cv * cv))
    return np.exp(sigma * unit - sigma * sigma / 2)


def _ar1(steps: int, rho: float, rng: np.random.Generator) -> Floats:
    """A stationary AR(1) series with unit variance.

    A weighted sum of past shocks, long enough for what is cut off to be below 1e-6 of it.
    """
    memory = min(steps, int(np.ceil(np.log(1e-6) / np.log(rho))))
    weights = sqrt(1 - rho * rho) * rho ** np.arange(memory)
    size = steps + memory
    spectrum = np.fft.rfft(rng.standard_normal(size), 2 * size) * np.fft.rfft(weights, 2 * size)
    return np.fft.irfft(spectrum, 2 * size)[memory : memory + steps]


def _levels(steps: int, mean_s: float, rng: np.random.Generator) -> Floats:
    """Standard normal levels, each held for an exponential time."""
    jumps = rng.random(steps) < GRID_S / mean_s
    jumps[0] = True
    return rng.standard_normal(int(jumps.sum()))[np.cumsum(jumps) - 1]


@dataclass(frozen=True)
class Server:
    """One FIFO server. service: draws n service times, in units of their mean; mean_s: that mean at speed 1."""

    mean_s: float
    service: Callable[[int, np.random.Generator], Floats]
    speed: Speed = Speed()

    @property
    def throughput(self) -> float:
        """Replies a second in the long run of a closed loop: the speed has mean 1."""
        return 1 / self.mean_s


def deterministic(n: int, rng: np.random.Generator) -> Floats:
    return np.ones(n)


def exponential(n: int, rng: np.random.Generator) -> Floats:
    return rng.exponential(1.0, n)


def gamma(n: int, rng: np.random.Generator) -> Floats:
    """CV 0.25: a compute-bound model."""
    return rng.gamma(16, 1 / 16, n)


def heavy(n: int, rng: np.random.Generator) -> Floats:
    """Two in a hundred take five times as long: garbage collection, page faults."""
    return np.where(rng.random(n) < 0.02, 5.0, 1.0) / 1.08


def closed_loop(
    server: Server, clients: int, seconds: float, rng: np.random.Generator, speed: Floats | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Completion times and latencies, int64 ns [n], of the replies in `seconds` of a loop that has run before.

    speed: in each grid step, in place of one drawn from the server's.
    """
    speed = server.speed.draw(seconds, rng) if speed is None else speed
    work = np.concatenate([[0.0], np.cumsum(speed) * GRID_S])
    times = np.arange(len(work)) * GRID_S
    n = int(work[-1] / server.mean_s * 1.2) + 10 * clients + 50
    finished = np.cumsum(server.service(n, rng) * server.mean_s)
    # The first reply comes at a random point of its service time, as for somebody who looks in.
    finished -= finished[0] * rng.random()
    done = np.interp(finished, work, times, right=np.inf)
    done = done[done < seconds]
    latency = np.diff(done, n=1) if clients == 1 else done[clients:] - done[:-clients]
    return _ns(done[len(done) - len(latency) :]), _ns(latency)


def open_loop(
    rate: float, server: Server, seconds: float, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Poisson arrivals of `rate` a second at a server of constant speed: M/G/1, by Lindley's recursion."""
    n = int(rate * seconds * 1.2) + 100
    arrival = np.cumsum(rng.exponential(1 / rate, n))
    service = server.service(n, rng) * server.mean_s
    total = np.cumsum(service)
    # done[j] = max over i <= j of (arrival[i] + service[i] + ... + service[j]).
    done = total + np.maximum.accumulate(arrival - (total - service))
    inside = arrival < seconds
    return _ns(done[inside]), _ns((done - arrival)[inside])


def mean_wait_s(rate: float, server: Server, second_moment: float) -> float:
    """Mean time in queue of M/G/1 (Pollaczek and Khinchine). second_moment: E[S^2] of service in units of mean^2."""
    load = rate * server.mean_s
    return load * server.mean_s * second_moment / (2 * (1 - load))


def slices_of(
    done_ns: NDArray[np.int64],
    latency_ns: NDArray[np.int64],
    count: int,
    slice_s: float,
    period_s: float,
    start_s: float = 0.0,
    loop_s: float = 0.0,
    inflight: int = 0,
) -> list[SliceStats]:
    """Cut `count` slices of `slice_s`, one every `period_s`: what is between belongs to other loads and to warm-up.

    loop_s: a request's latency; each slice begins at another point of it, as the engine sees to. inflight: of a closed
    loop; requests across the ends of a slice count by their share.
    """
    cut = []
    for number in range(count):
        begin = int((start_s + number * period_s + start_offset(number) * loop_s) * 1e9)
        end = begin + int(slice_s * 1e9)
        low, high = np.searchsorted(done_ns, [begin, end])
        known = slice(low, high + inflight)
        edges = shared_edges(done_ns[known], latency_ns[known], (begin, end), inflight) if inflight else None
        cut.append(SliceStats.of(done_ns[low:high], latency_ns[low:high], begin, end, WINDOW_NS, edges=edges or 0.0))
    return cut


def autocorrelation(values: Sequence[float] | Floats, lag: int) -> float:
    """Sample autocorrelation."""
    centred = np.asarray(values) - np.mean(values)
    return float((centred[lag:] * centred[:-lag]).sum() / (centred * centred).sum())


def _ns(seconds: Floats) -> NDArray[np.int64]:
    return np.asarray(np.rint(seconds * 1e9), np.int64)
