"""What is in flight when a load stops is waited for as long as the server answers, and no longer."""

from __future__ import annotations

import json
import socket
import struct

import numpy as np
import pytest
from scripted_server import order
from simulated_queue import SECOND_NS, START_NS, QueueDriver, Time

from model_analyzer.loadgen import drain, driver, tally
from model_analyzer.loadgen.drain import LEAST_NS, Drain
from model_analyzer.loadgen.driver import Slot
from model_analyzer.loadgen.order import Order
from model_analyzer.loadgen.tally import Tally

SERVICE_NS = SECOND_NS * 3 // 25


def test_a_server_that_has_never_answered_is_waited_for_a_second() -> None:
    wait = Drain()
    wait.begin(5)
    assert not wait.over(5 + LEAST_NS)
    assert wait.over(6 + LEAST_NS)


def test_each_reply_is_worth_as_long_as_the_slowest_took() -> None:
    wait = Drain()
    wait.told(3, [4 * SECOND_NS, SECOND_NS])
    assert not wait.over(100 * SECOND_NS)  # the load goes on
    wait.begin(10 * SECOND_NS)
    assert not wait.over(14 * SECOND_NS)
    wait.told(14 * SECOND_NS, [5 * SECOND_NS])
    wait.told(16 * SECOND_NS, [])
    assert not wait.over(19 * SECOND_NS)
    assert wait.over(19 * SECOND_NS + 1)


def test_an_analyzer_that_is_gone_is_not_waited_for() -> None:
    wait = Drain()
    wait.told(3, [60 * SECOND_NS])
    wait.begin(0)
    assert not wait.over(2 * SECOND_NS)
    wait.begin(2 * SECOND_NS, patient=False)
    wait.told(2 * SECOND_NS + LEAST_NS, [SECOND_NS])
    assert wait.over(2 * SECOND_NS + LEAST_NS + 1)


class StoppedDriver(QueueDriver):
    """Is told to stop at a time, and then ends by itself. dead_at_ns: from then on the server answers nothing."""

    stop_at_ns = START_NS + 2 * SECOND_NS
    dead_at_ns = 2 * stop_at_ns
    lost = 0

    def _poll(self, wait_s: float) -> list[tuple[int, int]]:
        if self.time.now_ns >= self.stop_at_ns and not self._stopped:
            self._stop()
        while self.coming and self.coming[0][0] > self.dead_at_ns:
            self.coming.popleft()
        return super()._poll(wait_s)

    def _finished(self, now: int) -> bool:
        return super(QueueDriver, self)._finished(now)

    def _give_up(self, slot: Slot, message: str, before_ns: int) -> None:
        self.lost += 1
        self._refused(slot, message, leave=False)


def stopped(monkeypatch: pytest.MonkeyPatch, work: Order, dead_at_ns: int | None = None) -> tuple[StoppedDriver, int]:
    """The driver at its end, and how many replies it reported."""
    time = Time()
    monkeypatch.setattr(driver, "monotonic_ns", time.monotonic_ns)
    monkeypatch.setattr(tally.time, "monotonic_ns", time.monotonic_ns)
    reported = 0

    def take(data: bytes) -> None:
        nonlocal reported
        reported += json.loads(data[4 : 4 + struct.unpack("<I", data[:4])[0]])["n"]

    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        ours.send(b"stop")
        counts = Tally(take, 1)
        driving = StoppedDriver(work, theirs, counts, time, np.full(1_000, SERVICE_NS))
        if dead_at_ns is not None:
            driving.dead_at_ns = dead_at_ns
        driving.run()
        counts.report(time.now_ns, 0)
    return driving, reported


def too_fast(timeout_s: float = 30.0) -> Order:
    """20 requests a second for two seconds, of which the server answers 8.3."""
    return order(1, kind="request_rate", value=20.0, timeout_ns=int(timeout_s * SECOND_NS))


def test_an_open_loop_leaves_nothing_in_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    ended, reported = stopped(monkeypatch, too_fast())
    assert reported == ended.sent == 40 + 1
    # As long as the server takes for all of them, and no longer.
    assert ended.time.now_ns - START_NS == pytest.approx(41 * SERVICE_NS, abs=SECOND_NS // 10)


def test_a_server_that_dies_meanwhile_is_not_waited_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    dead_at_ns = START_NS + 3 * SECOND_NS
    ended, reported = stopped(monkeypatch, too_fast(), dead_at_ns)
    assert reported == 25
    # Its last reply took 1.8 s.
    assert 1.7 * SECOND_NS < ended.time.now_ns - dead_at_ns < 2.1 * SECOND_NS
    assert not ended.lost


def test_the_wait_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drain, "MOST_NS", SECOND_NS)
    ended, reported = stopped(monkeypatch, too_fast())
    assert reported == 25
    assert ended.time.now_ns - ended.stop_at_ns < 1.2 * SECOND_NS


def test_a_timeout_ends_no_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    # The server works on for a request that is given up: it would not be idle.
    ended, reported = stopped(monkeypatch, too_fast(timeout_s=2.1))
    assert (ended.lost, reported) == (0, 41)
