"""Triton's inference calls, served by grpcio in this process, and the load generator's process run against it."""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
from certificates import Certificates
from scripted_server import PATIENCE_S, Seen

from model_analyzer.core.load import Call, EncodedRequest, Load, LoadOrder, RequestSet, Tls
from model_analyzer.loadgen.client import ProcessLoadGenerator

METHOD = "/inference.GRPCInferenceService/ModelInfer"
# ModelInferResponse { model_name: "m", outputs: [{}] }
GOOD = b"\x0a\x01m\x2a\x00"

Answer = Callable[[bytes, Any], bytes]


class InferenceServer:
    """Answers each request with `answer(request, context)`, each of a stream with all of `responses`.

    certificates: TLS, and a client's certificate is asked for.
    """

    def __init__(
        self,
        answer: Answer = lambda *_: GOOD,
        port: int = 0,
        certificates: Certificates | None = None,
        workers: int = 8,
        options: tuple[tuple[str, int], ...] = (),
        compression: grpc.Compression = grpc.Compression.NoCompression,
        responses: tuple[bytes, ...] = (),
    ) -> None:
        self._answer, self._responses = answer, responses
        self._lock = threading.Lock()
        self.requests: list[bytes] = []
        self._pool = ThreadPoolExecutor(workers)
        # Without SO_REUSEPORT, so that a port in use is an error and not a share of the connections.
        defaults = {"grpc.so_reuseport": 0, "grpc.max_send_message_length": -1, "grpc.max_receive_message_length": -1}
        chosen = list((defaults | dict(options)).items())
        self._server = grpc.server(self._pool, options=chosen, compression=compression)
        method = grpc.unary_unary_rpc_method_handler(self._serve)
        streamed = grpc.stream_stream_rpc_method_handler(self._stream)
        handlers = {"ModelInfer": method, "ModelStreamInfer": streamed}
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("inference.GRPCInferenceService", handlers),)
        )
        address = f"127.0.0.1:{port}"
        if certificates is None:
            self.port = self._server.add_insecure_port(address)
        else:
            key, chain, ca = (
                Path(name).read_bytes()
                for name in (certificates.key("server"), certificates.pem("server"), certificates.pem("ca"))
            )
            self.port = self._server.add_secure_port(
                address, grpc.ssl_server_credentials([(key, chain)], ca, require_client_auth=True)
            )
        self._server.start()

    def _serve(self, request: bytes, context: Any) -> bytes:
        with self._lock:
            self.requests.append(request)
        return self._answer(request, context)

    def _stream(self, requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
        for request in requests:
            with self._lock:
                self.requests.append(request)
            yield from self._responses

    def stop(self) -> None:
        self._server.stop(0).wait(5)
        self._pool.shutdown()

    def __enter__(self) -> InferenceServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def load(self, generator: ProcessLoadGenerator, **options: Any) -> Seen:
        return load(generator, self.port, **options)


def load(
    generator: ProcessLoadGenerator,
    port: int,
    *,
    load: Load = Load("concurrency", 2),  # noqa: B008 -- frozen
    bodies: tuple[bytes, ...] = (b"request",),
    tls: Tls | None = None,
    timeout_s: float = 120.0,
    successes: int = 0,
    failures: int = 0,
    reports: int = 0,
    until: Callable[[Seen], bool] = lambda _: True,
    call: Call = "infer",
) -> Seen:
    """Receive until so many successes, failures and reports (one each 50 ms) have come and `until` is so; fails where it never is."""
    encoded = tuple(EncodedRequest(struct.pack(">BI", 0, len(body)), body) for body in bodies)
    requests = RequestSet("grpc", encoded, 1, call)
    seen, began = Seen(), time.monotonic()
    with generator.run(LoadOrder(f"127.0.0.1:{port}", load, requests, timeout_s, tls)) as batches:
        for batch in batches:
            seen.done_ns += batch.done_ns.tolist()
            seen.latency_ns += batch.latency_ns.tolist()
            seen.send_lags_ns += batch.send_lags_ns.tolist()
            if batch.streamed is not None:
                seen.responses += batch.streamed.responses.tolist()
            seen.failures.update(batch.failures)
            seen.reports.append({"delayed": batch.delayed, "inflight": batch.inflight, "cpu_ns": batch.cpu_ns})
            count = len(seen.reports)
            done = len(seen.done_ns) >= successes and seen.failed >= failures and count >= reports
            if done and until(seen):
                break
            assert time.monotonic() < began + PATIENCE_S, f"only {len(seen.done_ns)} successes; {dict(seen.failures)}"
    seen.took_s = time.monotonic() - began
    return seen
