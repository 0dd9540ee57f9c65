"""An order as the child sees it: the load, and the requests as pieces of one shared, anonymous file, intervals behind them."""

from __future__ import annotations

import json
import mmap
import os
import socket
from collections.abc import Sequence
from typing import Any, NamedTuple

from model_analyzer.loadgen.split import share, turns

MESSAGE_LIMIT = 1 << 18


class Order(NamedTuple):
    """What this process is to send.

    kind to intervals_ns: of the whole load (core.load.Load; intervals_ns: int64), of which it is worker number `worker` of
    `workers`. start_ns: when the schedule of an open loop begins, on CLOCK_MONOTONIC; None: at once. wires: whole requests,
    head and body, in the order of this worker. call: a core.load.Call.
    """

    number: int
    protocol: str
    host: str
    port: int
    kind: str
    value: float
    distribution: str
    seed: int
    timeout_ns: int
    tls: dict[str, Any] | None
    wires: tuple[memoryview, ...]
    max_concurrency: int
    ramp_ns: int = 0
    intervals_ns: Sequence[int] = ()
    worker: int = 0
    workers: int = 1
    start_ns: int | None = None
    call: str = "infer"

    @property
    def scheduled(self) -> bool:
        """An open loop: its send times are fixed beforehand."""
        return self.kind == "request_rate"

    @property
    def concurrency(self) -> int:
        """How many requests this process keeps in flight; of a closed loop."""
        return share(int(self.value), self.worker, self.workers)


def receive(control: socket.socket) -> Order | None:
    """The next order; None when the analyzer is gone. A late `stop` is passed over."""
    while True:
        message, fds, _, _ = socket.recv_fds(control, MESSAGE_LIMIT, 1)
        if not message:
            return None
        if fds:
            return _order(json.loads(message), fds[0])


def _order(data: dict[str, Any], fd: int) -> Order:
    size = os.fstat(fd).st_size
    whole = memoryview(mmap.mmap(fd, size, prot=mmap.PROT_READ))
    os.close(fd)
    wires, at = [], 0
    for head, body in data.pop("sizes"):
        wires.append(whole[at : at + head + body])
        at += head + body
    intervals_ns = whole[at : at + 8 * data.pop("intervals")].cast("q")
    host, _, port = data.pop("address").rpartition(":")
    order = Order(host=host.strip("[]"), port=int(port), wires=(), intervals_ns=intervals_ns, **data)
    mine = turns(len(wires), order.worker, order.workers, scheduled=order.scheduled)
    return order._replace(wires=tuple(wires[number] for number in mine))
