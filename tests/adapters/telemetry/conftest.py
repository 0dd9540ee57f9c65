"""An HTTP server that replays pages."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from telemetry_pages import Replay

from model_analyzer.adapters.telemetry import prometheus


@pytest.fixture
def replay(monkeypatch: pytest.MonkeyPatch) -> Iterator[Replay]:
    state = Replay()
    # A server in this process shares its CPU with the client, and with whatever else runs here.
    monkeypatch.setattr(prometheus, "CONNECT_S", 30.0)
    monkeypatch.setattr(prometheus, "READ_S", 60.0)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 10
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            state.requests += 1
            state.connections.add(self.client_address)
            if state.delay_s and state.over.wait(state.delay_s):
                self.close_connection = True
                return
            self.send_response(state.status)
            length = len(state.body) if state.announce is None else state.announce
            self.send_header("Content-Length", str(length))
            self.end_headers()
            if length != len(state.body):
                self.close_connection = True
            pieces = [state.body[i : i + 1] for i in range(len(state.body))] if state.drip_s else [state.body]
            try:
                for piece in pieces:
                    self.wfile.write(piece)
                    state.over.wait(state.drip_s)
            except OSError:  # the client has had enough
                self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:
            """Be quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_port}/metrics"
    yield state
    state.over.set()
    server.shutdown()
    thread.join()
    server.server_close()
