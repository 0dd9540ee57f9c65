"""What the child has seen since it last reported, and the frames that carry it to the analyzer.

A frame: 4 bytes length of the JSON header, the header, then `n` int64 times, `n` int64 latencies and `sent` int64 send
lags (little endian).
Of streams there follow `n` counts of responses, `first` times and `first` waits of first responses, `gaps` times and `gaps`
waits of later ones.
"""

from __future__ import annotations

import json
import os
import struct
import time
from array import array
from collections.abc import Callable
from typing import Any

REPORT_EVERY_NS = 50_000_000
MAX_MESSAGES = 50
MESSAGE_LENGTH = 300


class Tally:
    """Counts between two reports.

    done, latency: of each success, ns. Open loop: send_lags: how late the loop was at each send, ns; delayed: how many of
    these had to wait, because all the requests in flight that there may be were.
    """

    def __init__(
        self, write: Callable[[bytes], object], order: int, waited_ns: Callable[[], int | None] = lambda: None
    ) -> None:
        self.done: array[int] = array("q")
        self.latency: array[int] = array("q")
        self.send_lags: array[int] = array("q")
        self.delayed = 0
        self.lag_ns = 0
        # Of streams: the responses of each success; when a first, and a later response came, and how long after what came before.
        self.streams = False
        self.responses: array[int] = array("q")
        self.first_at: array[int] = array("q")
        self.first: array[int] = array("q")
        self.gap_at: array[int] = array("q")
        self.gap: array[int] = array("q")
        # Of a drain that is over: requests that had no reply.
        self.unanswered = 0
        self._failures: dict[str, int] = {}
        self._write = write
        self._order = order
        self._replies = 0
        self._cpu_before = time.process_time_ns()
        self._waited_ns, self._waited_before = waited_ns, waited_ns()
        self.next_report_ns = time.monotonic_ns() + REPORT_EVERY_NS

    def stream(self) -> None:
        """Replies are streamed: from now on reports have their responses, too."""
        self.streams = True

    def failed(self, message: str) -> None:
        """Count a failure; the messages of one report are bounded, in length (one line) and in number."""
        message = " ".join(message[:MESSAGE_LENGTH].split())
        if message not in self._failures and len(self._failures) >= MAX_MESSAGES:
            message = "other failures"
        self._failures[message] = self._failures.get(message, 0) + 1

    def report(self, now_ns: int, inflight: int, backlog: int = 0) -> None:
        """Send what was counted, start anew. backlog: replies that lie unread in their sockets."""
        self._replies += len(self.done)
        waited_ns = self._waited_ns()
        header = {
            "end_ns": now_ns,
            "failures": self._failures,
            "cpu_ns": time.process_time_ns() - self._cpu_before,
            "lag_ns": self.lag_ns,
            "delayed": self.delayed,
            "inflight": inflight,
            "backlog": backlog,
            "replies": self._replies,
            "wait_ns": None if waited_ns is None or self._waited_before is None else waited_ns - self._waited_before,
        }
        if self.streams:
            header |= {"first": len(self.first), "gaps": len(self.gap)}
        streamed = (self.responses, self.first_at, self.first, self.gap_at, self.gap)
        self._write(frame(self._order, header, self.done, self.latency, self.send_lags, *streamed))
        self.done, self.latency, self.send_lags, self._failures = array("q"), array("q"), array("q"), {}
        if self.streams:
            self.responses, self.first_at, self.first = array("q"), array("q"), array("q")
            self.gap_at, self.gap = array("q"), array("q")
        self.lag_ns = self.delayed = 0
        self.next_report_ns = now_ns + REPORT_EVERY_NS

    def end(self, error: str | None = None) -> None:
        """The order is over: the rest of what was counted, and the end."""
        if self.done or self._failures or self.unanswered:
            self.report(time.monotonic_ns(), self.unanswered)
        self._write(frame(self._order, {"ended": True, "error": error}, array("q"), array("q"), array("q")))


def frame(
    order: int, header: dict[str, Any], done: array[int], latency: array[int], lags: array[int], *streamed: array[int]
) -> bytes:
    """One frame as bytes. streamed: the arrays that follow; empty where replies are whole."""
    text = json.dumps({**header, "order": order, "n": len(done), "sent": len(lags)}).encode()
    arrays = (done, latency, lags, *streamed)
    return b"".join((struct.pack("<I", len(text)), text, *(each.tobytes() for each in arrays)))


def run_queue() -> Callable[[], int | None]:
    """How long this thread has waited for a CPU while it could have run, ns; None where the kernel does not tell."""
    try:
        fd = os.open("/proc/thread-self/schedstat", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return lambda: None

    def waited_ns() -> int | None:
        fields = os.pread(fd, 128, 0).split()
        return int(fields[1]) if len(fields) > 1 else None

    return waited_ns


def writer(fd: int) -> Callable[[bytes], None]:
    """Write whole frames to a pipe."""

    def write(data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]

    return write
