"""gRPC through grpcio: encoded requests, replies not decoded. A hot path of our own replaces it later.

Same promises as http.py: one order, batches, back-off, timeouts, drain.
"""

from __future__ import annotations

import asyncio
import selectors
import socket
from itertools import cycle
from pathlib import Path
from time import monotonic_ns
from typing import Any

import grpc

from model_analyzer.loadgen.driver import BACKOFF_FIRST_NS, BACKOFF_LAST_NS, DRAIN_NS, OPEN_LOOP_CONNECTIONS
from model_analyzer.loadgen.order import Order
from model_analyzer.loadgen.schedule import send_times_ns
from model_analyzer.loadgen.tally import REPORT_EVERY_NS, Tally

# ModelInferResponse begins with its field 1, model_name.
MODEL_NAME = b"\x0a"
METHOD = "/inference.GRPCInferenceService/ModelInfer"
OPTIONS = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # As the HTTP driver: straight to the server, and back soon when it is.
    ("grpc.enable_http_proxy", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # A connection of its own for each order: the next one does not inherit the state of a broken one.
    ("grpc.use_local_subchannel_pool", 1),
]


def drive(order: Order, control: socket.socket, tally: Tally) -> None:
    """Drive one order until a message on `control` says stop. Raises OSError where a TLS file cannot be read."""
    # select() waits in microseconds, epoll in milliseconds only: an open loop would send too late.
    loop = asyncio.SelectorEventLoop(selectors.SelectSelector())
    try:
        loop.run_until_complete(_Driver(order, tally).run(control))
    finally:
        loop.close()


class _Driver:
    def __init__(self, order: Order, tally: Tally) -> None:
        self._order, self._tally = order, tally
        self._requests = cycle([bytes(body) for body in order.bodies])
        self._inflight = 0
        self._stopped = asyncio.Event()

    async def run(self, control: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        loop.add_reader(control.fileno(), self._stop, loop, control)
        host = f"[{self._order.host}]" if ":" in self._order.host else self._order.host
        async with _channel(f"{host}:{self._order.port}", self._order.tls) as channel:
            infer = channel.unary_unary(METHOD, request_serializer=None, response_deserializer=None)
            reports = asyncio.create_task(self._report())
            if self._order.kind == "concurrency":
                await self._closed_loop(infer)
            else:
                await self._open_loop(infer)
            reports.cancel()

    def _stop(self, loop: asyncio.AbstractEventLoop, control: socket.socket) -> None:
        control.recv(64)
        loop.remove_reader(control.fileno())
        self._stopped.set()

    async def _report(self) -> None:
        while True:
            before = monotonic_ns()
            await asyncio.sleep(REPORT_EVERY_NS / 1e9)
            now = monotonic_ns()
            # How much later than asked the loop came round: so long may a finished reply have waited.
            self._tally.lag_ns = max(0, now - before - REPORT_EVERY_NS)
            self._tally.report(now, self._inflight)

    async def _closed_loop(self, infer: Any) -> None:
        tasks = [asyncio.create_task(self._one_after_the_other(infer)) for _ in range(int(self._order.value))]
        await self._stopped.wait()
        await _drained(tasks)

    async def _one_after_the_other(self, infer: Any) -> None:
        pause_ns = BACKOFF_FIRST_NS
        while not self._stopped.is_set():
            if await self._send(infer, monotonic_ns()):
                pause_ns = BACKOFF_FIRST_NS
            else:
                await asyncio.sleep(pause_ns / 1e9)
                pause_ns = min(pause_ns * 2, BACKOFF_LAST_NS)

    async def _open_loop(self, infer: Any) -> None:
        start, tasks = monotonic_ns(), set[asyncio.Task[Any]]()
        stopped = asyncio.create_task(self._stopped.wait())
        for time in send_times_ns(self._order.value, self._order.distribution, self._order.seed):
            # At 0 s too: whoever is late must let the replies in.
            await asyncio.wait({stopped}, timeout=max(0.0, (start + time - monotonic_ns()) / 1e9))
            while len(tasks) >= OPEN_LOOP_CONNECTIONS and not stopped.done():
                await asyncio.wait({stopped, *tasks}, return_when=asyncio.FIRST_COMPLETED)
            if stopped.done():
                break
            task = asyncio.create_task(self._send_late(infer, start + time))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        await _drained(tasks)

    async def _send_late(self, infer: Any, due: int) -> None:
        self._tally.send_lag_ns = max(self._tally.send_lag_ns, monotonic_ns() - due)
        await self._send(infer, due)

    async def _send(self, infer: Any, started_ns: int) -> bool:
        """One request; whether it succeeded."""
        request = next(self._requests)
        self._inflight += 1
        # From when it was due, as everything that is timed.
        left_ns = self._order.timeout_ns - (monotonic_ns() - started_ns)
        try:
            reply = await infer(request, timeout=max(left_ns, 0) / 1e9)
        except grpc.aio.AioRpcError as error:
            self._tally.failed(_failure(error, self._order.timeout_ns))
            return False
        finally:
            self._inflight -= 1
        if not reply.startswith(MODEL_NAME):
            self._tally.failed("malformed reply: no ModelInferResponse")
            return False
        now = monotonic_ns()
        self._tally.done.append(now)
        self._tally.latency.append(now - started_ns)
        return True


def _failure(error: grpc.aio.AioRpcError, timeout_ns: int) -> str:
    if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
        return f"timeout: no reply within {timeout_ns / 1e9:g} s"
    return f"gRPC {error.code().name}: {error.details()}"


async def _drained(tasks: Any) -> None:
    """Give what is in flight a moment to come back, then cut it off."""
    if tasks:
        _, late = await asyncio.wait(list(tasks), timeout=DRAIN_NS / 1e9)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)


def _channel(address: str, tls: dict[str, Any] | None) -> Any:
    if tls is None:
        return grpc.aio.insecure_channel(address, options=OPTIONS)

    def read(name: str) -> bytes | None:
        return Path(tls[name]).read_bytes() if tls[name] else None

    credentials = grpc.ssl_channel_credentials(read("ca_file"), read("private_key_file"), read("certificate_file"))
    return grpc.aio.secure_channel(address, credentials, options=OPTIONS)
