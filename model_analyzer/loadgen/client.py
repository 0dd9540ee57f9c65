"""The analyzer's side of the load generator: gives orders, receives batches."""

from __future__ import annotations

import json
import os
import queue
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from array import array
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from fcntl import fcntl
from itertools import accumulate, pairwise
from typing import IO, Any

import numpy as np

from model_analyzer.core.load import OPEN_LOOP_CONNECTIONS, LoadOrder
from model_analyzer.errors import LoadGeneratorError
from model_analyzer.loadgen.merge import SILENCE_NS, Merger
from model_analyzer.ports import LoadBatch, Streamed, WorkerUse

F_SETPIPE_SZ = 1031
PIPE_BYTES = 1 << 20
# Workers that share a schedule have so long to take their order before its first request is due.
START_AFTER_NS = 50_000_000
# A child reports every 50 ms.
SILENT = f"was silent for {SILENCE_NS / 1e9:.0f} s"
STDERR_TAIL = 2000
# A header and the bytes after it; None: the pipe was closed. In a queue with the number of the worker.
Frame = tuple[dict[str, Any], bytes]
Frames = queue.SimpleQueue[tuple[int, Frame | None]]


class ProcessLoadGenerator:
    """A ports.LoadGenerator. Processes are started with the first order that needs them and reused; broken ones are replaced.

    cpus: the workers are pinned to these, one each, in turn; none: they run where the kernel puts them.
    """

    def __init__(self, cpus: Sequence[int] = ()) -> None:
        self._cpus = cpus
        self._children: list[_Child] = []
        self._frames = Frames()
        self._orders = 0

    @contextmanager
    def run(self, order: LoadOrder) -> Iterator[Iterator[LoadBatch]]:
        """Send until the context is left. Raises LoadGeneratorError."""
        self._orders += 1
        try:
            under_way = _UnderWay(self._crew(order.workers), self._frames, self._orders)
            under_way.give(order)
            yield under_way
            under_way.stop()
        except BaseException:
            # Whatever broke, the next order begins with clean processes.
            self.close()
            raise

    def close(self) -> None:
        """End the processes. Safe to call twice."""
        for child in self._children:
            child.hang_up()
        for child in self._children:
            child.close()
        self._children, self._frames = [], Frames()

    def _crew(self, workers: int) -> list[_Child]:
        """So many processes that take orders."""
        if not all(child.alive() for child in self._children):
            self.close()
        begun = [self._child(number) for number in range(len(self._children), workers)]
        self._children += begun
        for child in begun:
            child.await_ready()
        return self._children[:workers]

    def _child(self, number: int) -> _Child:
        return _Child(number, self._frames, self._cpus[number % len(self._cpus)] if self._cpus else None)


class _UnderWay:
    """One order on its way: an iterator over what the processes tell, put together."""

    def __init__(self, crew: Sequence[_Child], frames: Frames, number: int) -> None:
        self._crew, self._frames, self._number = crew, frames, number
        self._merger = Merger(len(crew))
        self._merged: deque[LoadBatch] = deque()
        self._running = set(range(len(crew)))
        self._stopping = False

    def give(self, order: LoadOrder) -> None:
        """Tell every process its part."""
        start_ns = None
        if order.load.kind == "request_rate" and len(self._crew) > 1:
            start_ns = time.monotonic_ns() + START_AFTER_NS
        for child in self._crew:
            child.give(order, self._number, start_ns)

    def __iter__(self) -> _UnderWay:
        return self

    def __next__(self) -> LoadBatch:
        while not self._merged:
            if not self._running:
                raise StopIteration
            self._receive()
        return self._merged.popleft()

    def stop(self) -> None:
        """Wait until the order is drained: nothing of it burdens the next one."""
        self._stopping = True
        for child in self._crew:
            child.stop()
        while self._running:
            self._receive()

    def _receive(self) -> None:
        worker, frame = self._next_frame()
        if frame is None:
            raise self._crew[worker].broken("died")
        header, data = frame
        if header["order"] != self._number:
            return
        if "ended" in header:
            if not self._stopping:
                what, _, fix = (header["error"] or "ended early").partition("; ")
                raise LoadGeneratorError("load generator", what, fix or "see the endpoint and TLS keys")
            self._running.discard(worker)
            merged = self._merger.ended(worker)
        else:
            merged = self._merger.take(worker, _batch(header, data))
            silent = self._merger.silent()
            if silent is not None:
                raise self._crew[silent].broken(SILENT)
        if merged is not None:
            self._merged.append(merged)

    def _next_frame(self) -> tuple[int, Frame | None]:
        while True:
            try:
                worker, frame = self._frames.get(timeout=SILENCE_NS / 1e9)
            except queue.Empty:
                raise self._crew[min(self._running)].broken(SILENT) from None
            # A process that this order does not need may die as it likes; it is replaced before the next.
            if worker < len(self._crew):
                return worker, frame


class _Child:
    """A process, its control socket and the thread that drains its pipe, so that it never waits for us."""

    def __init__(self, number: int, frames: Frames, cpu: int | None) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        reading, writing = os.pipe()
        fcntl(writing, F_SETPIPE_SZ, PIPE_BYTES)
        self._number = number
        self._stderr: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 -- lives as long as the process
        pinned = [] if cpu is None else [str(cpu)]
        # -P and -I would hide an editable install; a session of its own keeps the terminal's Ctrl-C away.
        self._process = subprocess.Popen(
            [sys.executable, "-m", "model_analyzer.loadgen", str(theirs.fileno()), str(writing), *pinned],
            pass_fds=(theirs.fileno(), writing),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._stderr,
            start_new_session=True,
        )
        theirs.close()
        os.close(writing)
        self._thread = threading.Thread(target=_drain, args=(reading, number, frames), daemon=True)
        self._thread.start()

    def alive(self) -> bool:
        return self._process.poll() is None

    def await_ready(self) -> None:
        """Wait until it takes orders."""
        self._control.settimeout(SILENCE_NS / 1e9)
        try:
            said = self._control.recv(64)
        except TimeoutError:
            raise self.broken(SILENT) from None
        except OSError:
            said = b""
        self._control.settimeout(None)
        if not said:
            raise self.broken("died")

    def give(self, order: LoadOrder, number: int, start_ns: int | None) -> None:
        """Tell it its part of an order."""
        requests = order.requests.requests
        message = {
            "number": number,
            "protocol": order.requests.protocol,
            "call": order.requests.call,
            "address": order.address,
            "kind": order.load.kind,
            "value": order.load.value,
            "distribution": order.load.distribution,
            "max_concurrency": order.load.max_concurrency or OPEN_LOOP_CONNECTIONS,
            "ramp_ns": round(order.load.ramp_s * 1e9),
            "intervals": len(order.intervals_ns),
            "seed": order.seed,
            "timeout_ns": int(order.timeout_s * 1e9),
            "tls": asdict(order.tls) if order.tls else None,
            "sizes": [(len(request.head), len(request.body)) for request in requests],
            "worker": self._number,
            "workers": order.workers,
            "start_ns": start_ns,
        }
        fd = os.memfd_create("requests", os.MFD_CLOEXEC)
        with os.fdopen(fd, "wb") as file:
            for request in requests:
                file.write(request.head)
                file.write(request.body)
            file.write(array("q", order.intervals_ns).tobytes())
            file.flush()
            try:
                socket.send_fds(self._control, [json.dumps(message).encode()], [fd])
            except OSError:
                raise self.broken("did not take an order") from None

    def stop(self) -> None:
        """Tell it to send no more."""
        with suppress(OSError):
            self._control.send(b"stop")

    def broken(self, what: str) -> LoadGeneratorError:
        """What became of it, as an error of one line."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(1.0)
        self._stderr.seek(0, os.SEEK_END)
        self._stderr.seek(max(0, self._stderr.tell() - STDERR_TAIL))
        lines = self._stderr.read().decode(errors="replace").split("\n")
        # Of a traceback the last line says what it was.
        said = next((f": {line.strip()}" for line in reversed(lines) if line.strip()), "")
        what = f"{what}{_how_it_ended(self._process.returncode)}{said}"
        return LoadGeneratorError("load generator", what, "run again; if it persists, report it")

    def hang_up(self) -> None:
        """It ends by itself once nobody is there."""
        self._control.close()

    def close(self) -> None:
        """See that it is gone."""
        self.hang_up()
        try:
            self._process.wait(2.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._thread.join(2.0)
        self._stderr.close()


def _how_it_ended(code: int | None) -> str:
    if code is None:
        return ""
    return f" (signal {signal.Signals(-code).name})" if code < 0 else f" (exit code {code})"


def _batch(header: dict[str, Any], data: bytes) -> LoadBatch:
    numbers, ends = np.frombuffer(data, "<i8"), [0, *accumulate(_sizes(header))]
    done_ns, latency_ns, send_lags_ns, *streamed = (numbers[begin:end] for begin, end in pairwise(ends))
    return LoadBatch(
        end_ns=header["end_ns"],
        done_ns=done_ns,
        latency_ns=latency_ns,
        send_lags_ns=send_lags_ns,
        failures=header["failures"],
        cpu_ns=header["cpu_ns"],
        lag_ns=header["lag_ns"],
        delayed=header["delayed"],
        inflight=header["inflight"],
        backlog=header["backlog"],
        workers=(WorkerUse(header["cpu_ns"], header["wait_ns"], header["replies"]),),
        streamed=Streamed(*streamed) if streamed else None,
    )


def _sizes(header: dict[str, Any]) -> list[int]:
    """How long each array of a frame is."""
    n = header["n"]
    streamed = [n, *[header["first"]] * 2, *[header["gaps"]] * 2] if "first" in header else []
    return [n, n, header["sent"], *streamed]


def _drain(fd: int, worker: int, frames: Frames) -> None:
    """Read frames of a worker until the child closes its end; None then. A last one that is torn (the child was killed) is dropped."""
    with os.fdopen(fd, "rb") as pipe, suppress(EOFError):
        while True:
            header = json.loads(_exactly(pipe, struct.unpack("<I", _exactly(pipe, 4))[0]))
            frames.put((worker, (header, _exactly(pipe, 8 * sum(_sizes(header))))))
    frames.put((worker, None))


def _exactly(pipe: IO[bytes], size: int) -> bytes:
    data = pipe.read(size)
    if len(data) < size:
        raise EOFError
    return data
