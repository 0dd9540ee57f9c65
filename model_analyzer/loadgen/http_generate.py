"""The generate extension over HTTP/1.1: /generate answers with one JSON object, /generate_stream with server-sent events."""

from __future__ import annotations

import socket

from model_analyzer.loadgen.driver import Slot
from model_analyzer.loadgen.events import EventReader, judge
from model_analyzer.loadgen.http import HttpConnection, HttpDriver
from model_analyzer.loadgen.order import Order
from model_analyzer.loadgen.reply import KEEP, Head, Reply, refusal
from model_analyzer.loadgen.responses import NONE_CAME, Responses
from model_analyzer.loadgen.streamed import StreamedDriver
from model_analyzer.loadgen.tally import Tally


class GenerateDriver(HttpDriver):
    """One order of /generate."""

    def _problem(self, head: Head, reply: Reply) -> str | None:
        if head.status != 200:
            return refusal(head.status, reply.body)
        if len(reply.body) >= KEEP:
            # Longer than what was kept: no error text is.
            return None if reply.body.startswith(b"{") else "malformed reply: no JSON in it"
        verdict = judge(reply.body)
        if verdict is None:
            return "malformed reply: no outputs in it"
        return f"HTTP 200: {verdict}" if verdict else None


class EventReply(Reply):
    """A reply of /generate_stream in the making: its events are judged as they come."""

    __slots__ = ("_responses", "events", "fault")

    def __init__(self, responses: Responses) -> None:
        super().__init__()
        self._responses = responses
        self.events = EventReader()
        # The first thing that was wrong: what comes after it counts for nothing.
        self.fault = ""

    def _keep(self, data: bytes | bytearray | memoryview) -> None:
        if self.head is None or not self.head.content_type.startswith(b"text/event-stream"):
            super()._keep(data)
            return
        for event in self.events.feed(bytes(data)):
            if self.fault:
                continue
            verdict = judge(event)
            if verdict:
                self.fault = verdict
            elif verdict is not None:
                self._responses.came()

    def problem(self, head: Head) -> str | None:
        """The reply is whole: why it was no success."""
        if head.status != 200:
            return f"HTTP {head.status}: {self.fault}" if self.fault else refusal(head.status, self.body)
        if self.fault:
            return f"HTTP 200: {self.fault}"
        if not head.content_type.startswith(b"text/event-stream"):
            return f"malformed reply: content-type {head.content_type[:60].decode(errors='replace')!r}, no event stream"
        if self.events.midway:
            return f"malformed reply: the stream ends in mid-event, after {self._responses.count} responses"
        return None if self._responses.count else NONE_CAME


class EventDriver(StreamedDriver[HttpConnection, Slot], HttpDriver):
    """One order of /generate_stream."""

    def _new_slot(self) -> Slot:
        slot = Slot()
        slot.responses = Responses(self._arrivals)
        return slot

    def _new_reply(self, slot: Slot) -> Reply:
        return EventReply(slot.responses)

    def _send(self, slot: Slot, started_ns: int) -> None:
        slot.responses.begin(started_ns)
        super()._send(slot, started_ns)

    def _problem(self, head: Head, reply: Reply) -> str | None:
        assert isinstance(reply, EventReply)
        return reply.problem(head)


def drive(order: Order, control: socket.socket, tally: Tally) -> None:
    """Drive one order until a message on `control` says stop. Raises OSError where the host has no address."""
    (EventDriver if order.call == "generate_stream" else GenerateDriver)(order, control, tally).run()
