"""gRPC through grpcio: encoded requests, replies not decoded. A hot path of our own replaces it later.

Same promises as http.py: one order, batches, back-off, timeouts, drain.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from pathlib import Path
from time import monotonic_ns
from typing import Any

import grpc

from model_analyzer.loadgen.http import BACKOFF_FIRST_NS, BACKOFF_LAST_NS, DRAIN_NS, OPEN_LOOP_CONNECTIONS
from model_analyzer.loadgen.order import Order
from model_analyzer.loadgen.schedule import send_times_ns
from model_analyzer.loadgen.tally import REPORT_EVERY_NS, Tally

METHOD = "/inference.GRPCInferenceService/ModelInfer"
OPTIONS = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]


def drive(order: Order, control: socket.socket, tally: Tally) -> None:
    """Drive one order until a message on `control` says stop."""
    asyncio.run(_Driver(order, tally).run(control))


class _Driver:
    def __init__(self, order: Order, tally: Tally) -> None:
        self._order, self._tally = order, tally
        self._requests = [bytes(body) for body in order.bodies]
        self._next = self._inflight = 0
        self._stopped = asyncio.Event()

    async def run(self, control: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        loop.add_reader(control.fileno(), self._stop, loop, control)
        address = f"{self._order.host}:{self._order.port}"
        async with _channel(address, self._order.tls) as channel:
            infer = channel.unary_unary(METHOD, request_serializer=None, response_deserializer=None)
            closed = self._order.kind == "concurrency"
            work = self._closed_loop(infer) if closed else self._open_loop(infer)
            reports = asyncio.create_task(self._report())
            await work
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
        limit = asyncio.Semaphore(OPEN_LOOP_CONNECTIONS)
        for time in send_times_ns(self._order.value, self._order.distribution, self._order.seed):
            wait_ns = start + time - monotonic_ns()
            if wait_ns > 0:
                with suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self._stopped.wait(), wait_ns / 1e9)
            if self._stopped.is_set():
                break
            await limit.acquire()
            task = asyncio.create_task(self._send(infer, start + time))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            task.add_done_callback(lambda _: limit.release())
        await _drained(tasks)

    async def _send(self, infer: Any, started_ns: int) -> bool:
        """One request; whether it succeeded."""
        request = self._requests[self._next]
        self._next = (self._next + 1) % len(self._requests)
        if self._order.kind == "request_rate":
            self._tally.send_lag_ns = max(self._tally.send_lag_ns, monotonic_ns() - started_ns)
        self._inflight += 1
        try:
            await infer(request, timeout=self._order.timeout_ns / 1e9)
        except grpc.aio.AioRpcError as error:
            self._tally.failed(f"gRPC {error.code().name}: {error.details()}")
            return False
        finally:
            self._inflight -= 1
        now = monotonic_ns()
        self._tally.done.append(now)
        self._tally.latency.append(now - started_ns)
        return True


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
