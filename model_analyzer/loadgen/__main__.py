"""The child: `python -m model_analyzer.loadgen CONTROL_FD DATA_FD [CPU]`; takes orders until the analyzer is gone."""

from __future__ import annotations

import gc
import os
import resource
import socket
import sys
from contextlib import suppress

from model_analyzer.loadgen.order import Order, receive
from model_analyzer.loadgen.tally import Tally, run_queue, writer


def main() -> None:
    """Serve orders."""
    control = socket.socket(fileno=int(sys.argv[1]))
    write = writer(int(sys.argv[2]))
    if len(sys.argv) > 3:
        os.sched_setaffinity(0, {int(sys.argv[3])})
    _allow_many_sockets()
    waited_ns = run_queue()
    # Several begin at one time: none is given an order before all of them can take it.
    control.send(b"ready")
    while (order := receive(control)) is not None:
        tally = Tally(write, order.number, waited_ns)
        try:
            _collect()
            _drive(order, control, tally)
            tally.end()
        except (OSError, ValueError, ImportError) as error:
            tally.end(f"{type(error).__name__}: {error}")
        finally:
            gc.enable()


def _collect() -> None:
    """Free what the order before left, and collect no more: in the middle of a slice that would be a pause.

    Nothing in the loop makes cycles. What is left are modules, which the next order's collection need not look through:
    that would be a fortieth of what a slice of half a second costs at one request in flight.
    """
    gc.collect()
    gc.freeze()
    gc.disable()


def _allow_many_sockets() -> None:
    """A socket for each request in flight: the soft limit, often 1024, is less than what a process may have."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _drive(order: Order, control: socket.socket, tally: Tally) -> None:
    if order.call == "stream_infer":
        from model_analyzer.loadgen.grpc_stream import drive
    elif order.call.startswith("generate"):
        from model_analyzer.loadgen.http_generate import drive
    elif order.protocol == "grpc":
        from model_analyzer.loadgen.grpc import drive
    else:
        from model_analyzer.loadgen.http import drive
    drive(order, control, tally)


if __name__ == "__main__":
    with suppress(BrokenPipeError, ConnectionResetError):  # the analyzer is gone
        main()
    # Nothing is buffered, and to take the modules apart would take a tenth of the CPU that the start took.
    os._exit(0)
