"""An order crosses to the child whole."""

from __future__ import annotations

import json
import os
import socket
from array import array
from typing import Any

import pytest

from model_analyzer.loadgen.order import Order, receive

INTERVALS_NS = array("q", [0, 1, 2**40])
REQUESTS = [(b"head one\r\n\r\n", b"body one"), (b"h\r\n\r\n", b""), (b"", b"serialised")]


def cross(address: str = "127.0.0.1:8000", before: tuple[bytes, ...] = ()) -> Order | None:
    """What the child receives after the messages `before`."""
    message: dict[str, Any] = {
        "number": 3, "protocol": "http", "address": address, "kind": "concurrency", "value": 2, "distribution": "constant",
        "seed": 0, "timeout_ns": 1, "tls": None, "sizes": [(len(head), len(body)) for head, body in REQUESTS],
        "max_concurrency": 1024, "ramp_ns": 0, "intervals": len(INTERVALS_NS),
    }  # fmt: skip
    fd = os.memfd_create("requests")
    os.write(fd, b"".join(head + body for head, body in REQUESTS) + INTERVALS_NS.tobytes())
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        for each in before:
            ours.send(each)
        socket.send_fds(ours, [json.dumps(message).encode()], [fd])
        os.close(fd)
        return receive(theirs)


def test_requests_are_cut_where_they_were_joined() -> None:
    order = cross()
    assert order is not None
    assert [bytes(wire) for wire in order.wires] == [head + body for head, body in REQUESTS]
    assert list(order.intervals_ns) == list(INTERVALS_NS)


@pytest.mark.parametrize(
    ("address", "host", "port"),
    [
        ("127.0.0.1:8000", "127.0.0.1", 8000),
        ("[::1]:8001", "::1", 8001),
        ("triton.models.svc:80", "triton.models.svc", 80),
    ],
)
def test_an_address_is_a_host_and_a_port(address: str, host: str, port: int) -> None:
    order = cross(address)
    assert order is not None
    assert (order.host, order.port) == (host, port)


def test_a_stop_that_comes_late_is_passed_over() -> None:
    order = cross(before=(b"stop", b"stop"))
    assert order is not None
    assert order.number == 3


def test_no_analyzer_is_no_order() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.close()
    with theirs:
        assert receive(theirs) is None
