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
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from fcntl import fcntl
from typing import IO, Any

import numpy as np

from model_analyzer.core.load import LoadOrder
from model_analyzer.errors import LoadGeneratorError
from model_analyzer.ports import LoadBatch

F_SETPIPE_SZ = 1031
PIPE_BYTES = 1 << 20
# A child that says nothing for so long hangs: it reports every 50 ms.
SILENCE_S = 10.0
STDERR_TAIL = 2000


class ProcessLoadGenerator:
    """A ports.LoadGenerator. The process is started with the first order and reused; a broken one is replaced."""

    def __init__(self) -> None:
        self._child: _Child | None = None
        self._orders = 0

    @contextmanager
    def run(self, order: LoadOrder) -> Iterator[Iterator[LoadBatch]]:
        """Send until the context is left. Raises LoadGeneratorError."""
        if self._child is None or not self._child.alive():
            self.close()
            self._child = _Child()
        child = self._child
        self._orders += 1
        number = self._orders
        try:
            child.give(order, number)
            yield child.batches(number)
            child.stop(number)
        except BaseException:
            # Whatever broke, the next order begins with a clean process.
            self.close()
            raise

    def close(self) -> None:
        """End the process. Safe to call twice."""
        if self._child is not None:
            self._child.close()
            self._child = None


class _Child:
    """The process, its control socket and the thread that drains its pipe, so that it never waits for us."""

    def __init__(self) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        reading, writing = os.pipe()
        fcntl(writing, F_SETPIPE_SZ, PIPE_BYTES)
        self._stderr: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 -- lives as long as the process
        # -P and -I would hide an editable install; a session of its own keeps the terminal's Ctrl-C away.
        self._process = subprocess.Popen(
            [sys.executable, "-m", "model_analyzer.loadgen", str(theirs.fileno()), str(writing)],
            pass_fds=(theirs.fileno(), writing),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._stderr,
            start_new_session=True,
        )
        theirs.close()
        os.close(writing)
        self._frames: queue.SimpleQueue[tuple[dict[str, Any], bytes] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=_drain, args=(reading, self._frames), daemon=True)
        self._thread.start()

    def alive(self) -> bool:
        return self._process.poll() is None

    def give(self, order: LoadOrder, number: int) -> None:
        requests = order.requests.requests
        message = {
            "number": number,
            "protocol": order.requests.protocol,
            "address": order.address,
            **asdict(order.load),
            "seed": order.seed,
            "timeout_ns": int(order.timeout_s * 1e9),
            "tls": asdict(order.tls) if order.tls else None,
            "sizes": [(len(request.head), len(request.body)) for request in requests],
        }
        fd = os.memfd_create("requests", os.MFD_CLOEXEC)
        with os.fdopen(fd, "wb") as file:
            for request in requests:
                file.write(request.head)
                file.write(request.body)
            file.flush()
            try:
                socket.send_fds(self._control, [json.dumps(message).encode()], [fd])
            except OSError:
                raise self._broken("did not take an order") from None

    def batches(self, number: int) -> Iterator[LoadBatch]:
        while True:
            header, data = self._frame()
            if header["order"] != number:
                continue
            if "ended" in header:
                raise LoadGeneratorError(
                    "load generator", header["error"] or "ended early", "see the endpoint and TLS keys"
                )
            yield _batch(header, data)

    def stop(self, number: int) -> None:
        """Wait until the order is drained: nothing of it burdens the next one."""
        with suppress(OSError):
            self._control.send(b"stop")
        while True:
            header, _ = self._frame()
            if header["order"] == number and "ended" in header:
                return

    def _frame(self) -> tuple[dict[str, Any], bytes]:
        try:
            frame = self._frames.get(timeout=SILENCE_S)
        except queue.Empty:
            raise self._broken(f"was silent for {SILENCE_S:.0f} s") from None
        if frame is None:
            raise self._broken("died")
        return frame

    def _broken(self, what: str) -> LoadGeneratorError:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(1.0)
        self._stderr.seek(0, os.SEEK_END)
        self._stderr.seek(max(0, self._stderr.tell() - STDERR_TAIL))
        lines = self._stderr.read().decode(errors="replace").split("\n")
        # Of a traceback the last line says what it was.
        said = next((f": {line.strip()}" for line in reversed(lines) if line.strip()), "")
        what = f"{what}{_how_it_ended(self._process.returncode)}{said}"
        return LoadGeneratorError("load generator", what, "run again; if it persists, report it")

    def close(self) -> None:
        self._control.close()
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
    both = np.frombuffer(data, "<i8")
    half = len(both) // 2
    return LoadBatch(
        end_ns=header["end_ns"],
        done_ns=both[:half],
        latency_ns=both[half:],
        failures=header["failures"],
        cpu_ns=header["cpu_ns"],
        lag_ns=header["lag_ns"],
        send_lag_ns=header["send_lag_ns"],
        inflight=header["inflight"],
    )


def _drain(fd: int, frames: queue.SimpleQueue[tuple[dict[str, Any], bytes] | None]) -> None:
    """Read frames until the child closes its end; None then. A last one that is torn (the child was killed) is dropped."""
    with os.fdopen(fd, "rb") as pipe, suppress(EOFError):
        while True:
            header = json.loads(_exactly(pipe, struct.unpack("<I", _exactly(pipe, 4))[0]))
            frames.put((header, _exactly(pipe, 16 * header["n"])))
    frames.put(None)


def _exactly(pipe: IO[bytes], size: int) -> bytes:
    data = pipe.read(size)
    if len(data) < size:
        raise EOFError
    return data
