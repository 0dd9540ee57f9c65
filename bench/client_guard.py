"""The load generator's cost a request, against committed limits: `python bench/client_guard.py`. No times: they would be the machine's.

- `bytecodes`: of the load generator's own code a request, of a stream a response, by tracing: exact but for how replies come together.
- `of a bare loop`: CPU of a request over CPU of one in the shortest loop that sends and receives the same bytes on the same
  stub, both in turns in this process, the median of the rounds.

A stream's responses come in one read: what is held is their parsing and counting; that of a read is held by the requests' cases.
"""

from __future__ import annotations

import gc
import json
import select
import socket
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count, cycle
from pathlib import Path
from statistics import median
from time import process_time_ns
from types import FrameType
from typing import Any

import stub

from model_analyzer.loadgen import driver, tally
from model_analyzer.loadgen.grpc import GrpcDriver
from model_analyzer.loadgen.grpc_stream import StreamDriver
from model_analyzer.loadgen.header_blocks import request_block
from model_analyzer.loadgen.http import HttpDriver
from model_analyzer.loadgen.http_generate import EventDriver
from model_analyzer.loadgen.order import Order
from model_analyzer.loadgen.session import WINDOW, Request, greeting

LIMITS = Path(__file__).with_name("client_limits.json")
REQUESTS, ROUNDS, WARM_UP = 320, 15, 32
BODY = bytes(180)
OWN = str(Path(driver.__file__).parent)
# A thousand seconds; as the timeval that the kernel takes.
FOREVER_NS, FOREVER_LIMIT = 10**12, struct.pack("@ll", 1000, 0)


@dataclass(frozen=True)
class Kind:
    """One way to call a model. replies: that a request brings."""

    protocol: str
    driver: Any
    wire: memoryview
    call: str = "infer"
    replies: int = 1


def _http(path: bytes) -> memoryview:
    return memoryview(b"POST %s HTTP/1.1\r\nHost: stub\r\nContent-Length: %d\r\n\r\n%s" % (path, len(BODY), BODY))


GRPC_WIRE = memoryview(bytes([0]) + len(BODY).to_bytes(4, "big") + BODY)
KINDS = {
    "http": Kind("http", HttpDriver, _http(b"/")),
    "grpc": Kind("grpc", GrpcDriver, GRPC_WIRE),
    "generate_stream": Kind("http", EventDriver, _http(b"/generate_stream"), "generate_stream", stub.RESPONSES),
    "stream_infer": Kind("grpc", StreamDriver, GRPC_WIRE, "stream_infer", stub.RESPONSES),
}
CASES = tuple((kind, concurrency) for kind in KINDS for concurrency in (1, 8))


class Enough(Exception):  # noqa: N818 -- no fault
    """All requests have come back."""


def guard(address: str) -> list[str]:
    """What is above its limit."""
    limits, broken = json.loads(LIMITS.read_text()), []
    for kind, concurrency in CASES:
        name = f"{kind}, c = {concurrency}"
        figures = {
            "bytecodes": bytecodes(address, kind, concurrency),
            "of a bare loop": of_a_bare_loop(address, kind, concurrency),
        }
        print(
            name,
            *(f"{figure} {value:.2f} (limit {limits[name][figure]})" for figure, value in figures.items()),
            sep="; ",
        )
        broken += [
            f"{name}: {figure} is {value:.2f}, above {limits[name][figure]}"
            for figure, value in figures.items()
            if not value <= limits[name][figure]
        ]
    return broken


def of_a_bare_loop(address: str, kind: str, concurrency: int) -> float:
    """The median ratio of CPU."""
    ratios = []
    with _undisturbed():
        for turn in range(ROUNDS):
            bare = _bare(address, kind, concurrency) if turn % 2 else 0
            ours = _drive(address, kind, concurrency)
            ratios.append(ours / (bare or _bare(address, kind, concurrency)))
    return median(ratios)


def bytecodes(address: str, kind: str, concurrency: int) -> float:
    """A request, of a stream a response, on average."""
    executed = 0

    def trace(frame: FrameType, event: str, _argument: object) -> Any:
        nonlocal executed
        if event == "call":
            if not frame.f_code.co_filename.startswith(OWN):
                return None
            frame.f_trace_opcodes, frame.f_trace_lines = True, False
        elif event == "opcode":
            executed += 1
        return trace

    with _undisturbed():
        before = sys.gettrace()
        sys.settrace(trace)
        try:
            return _drive(address, kind, concurrency, lambda: executed) / KINDS[kind].replies
        finally:
            sys.settrace(before)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """No reports, and no turns of the loop that only time brings: they would make a slow machine's figures the higher ones."""
    before = driver.CONVERSE_NS, driver.CONVERSE_LIMIT, tally.REPORT_EVERY_NS
    driver.CONVERSE_NS, driver.CONVERSE_LIMIT, tally.REPORT_EVERY_NS = FOREVER_NS, FOREVER_LIMIT, FOREVER_NS
    try:
        yield
    finally:
        driver.CONVERSE_NS, driver.CONVERSE_LIMIT, tally.REPORT_EVERY_NS = before


def _drive(address: str, kind: str, concurrency: int, clock: Callable[[], int] = process_time_ns) -> float:
    """What the driver takes a request, by the clock."""
    _, control = ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    at: list[int] = []

    class Counted(KINDS[kind].driver):  # type: ignore[misc]
        left = WARM_UP + REQUESTS

        def _succeeded(self, slot: Any, now: int) -> None:
            super()._succeeded(slot, now)
            self.left -= 1
            if self.left == REQUESTS:
                at.append(clock())
            elif self.left == 0:
                at.append(clock())
                raise Enough

    with ends[0], control:
        gc.collect()
        order = _order(address, KINDS[kind], concurrency)
        with suppress(Enough):
            Counted(order, control, tally.Tally(lambda _: None, 1)).run()
    return (at[1] - at[0]) / REQUESTS


def _order(address: str, kind: Kind, concurrency: int) -> Order:
    host, _, port = address.partition(":")
    return Order(
        1,
        kind.protocol,
        host,
        int(port),
        "concurrency",
        concurrency,
        "constant",
        0,
        10**10,
        None,
        (kind.wire,),
        max_concurrency=1024,
        call=kind.call,
    )


def _bare(address: str, kind: str, concurrency: int) -> float:
    """CPU of a request in a loop that looks at nothing, ns: a connection each, awaited by epoll, one by a blocking read."""
    host, _, port = address.partition(":")
    socks, buffer = [socket.create_connection((host, int(port))) for _ in range(concurrency)], bytearray(1 << 16)
    called = KINDS[kind]
    wires: Iterator[Any] = cycle([called.wire])
    if called.protocol == "grpc":
        pieces = Request(request_block(address, secure=False, method=called.driver.method), called.wire).pieces
        wires = (number.to_bytes(4, "big").join(pieces) for number in count(1, 2))
        for sock in socks:
            sock.sendall(greeting(WINDOW))
            sock.recv_into(buffer)
    started = process_time_ns()
    if concurrency == 1:
        for _ in range(REQUESTS):
            socks[0].send(next(wires))
            socks[0].recv_into(buffer)
    else:
        _poll(socks, wires, buffer)
    took = process_time_ns() - started
    for sock in socks:
        sock.close()
    return took / REQUESTS


def _poll(socks: list[socket.socket], wires: Iterator[Any], buffer: bytearray) -> None:
    left, by_fd = REQUESTS, {sock.fileno(): sock for sock in socks}
    with select.epoll() as epoll:
        for sock in socks:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            epoll.register(sock.fileno(), select.EPOLLIN)
            sock.send(next(wires))
        while left > 0:
            for fd, _ in epoll.poll():
                by_fd[fd].recv_into(buffer)
                by_fd[fd].send(next(wires))
                left -= 1


def main() -> None:
    with stub.running() as address:
        broken = guard(address)
    print("\n".join(broken) or "every limit holds")
    sys.exit(1 if broken else 0)


if __name__ == "__main__":
    main()
