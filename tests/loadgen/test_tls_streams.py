"""TLS of streams: who is trusted, who is shown what, and that every response counts when it comes; over HTTP and gRPC."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import pytest
from certificates import Certificates
from grpc_server import InferenceServer
from h2_server import H2Peer, data, headers, message, trailers
from scripted_server import Peer, Script, ScriptedServer, Seen, enough, order, run
from test_generate_driver import END, HEAD, chunk, event, failed
from test_generate_driver import stream as events
from test_grpc_stream_driver import error, response, stream_order
from test_grpc_stream_driver import stream as messages
from test_tls import context

from model_analyzer.core.load import Tls
from model_analyzer.loadgen.client import ProcessLoadGenerator
from model_analyzer.loadgen.order import Order

MS = 1_000_000


@dataclass(frozen=True)
class Wire:
    """One way to stream.

    begin, one, end: a reply's parts, of the stream with this number; broken: what an error in mid-stream looks like,
    and the failure that it is.
    """

    order: Callable[..., Order]
    begin: Callable[[int], bytes]
    one: Callable[[int], bytes]
    end: Callable[[int], bytes]
    broken: Callable[[int], bytes]
    failure: str

    def each(self, answer: Callable[[Peer, int], None]) -> Script:
        """Answer each request so."""

        def http(peer: Peer) -> None:
            while peer.request() is not None:
                answer(peer, 0)

        def grpc(peer: Peer) -> None:
            end = H2Peer(peer)
            while (number := end.request()) is not None:
                end.open.discard(number)
                answer(peer, number)

        return grpc if self.order is stream_order else http

    def of(self, count: int) -> Script:
        """So many responses at once."""
        return self.each(lambda peer, n: peer.send(self.begin(n) + self.one(n) * count + self.end(n)))


def generate_order(port: int, **values: Any) -> Order:
    return order(port, call="generate_stream", **values)


WIRES = {
    "ModelStreamInfer": Wire(
        stream_order,
        lambda n: headers(n),
        lambda n: data(n, message(response())),
        lambda n: trailers(n),
        lambda n: messages(n, response(), error(b"broke in mid-stream")),
        "broke in mid-stream",
    ),
    "generate_stream": Wire(
        generate_order,
        lambda _: HEAD,
        lambda _: chunk(event()),
        lambda _: END,
        lambda _: events(event(), failed("broke in mid-stream")),
        "HTTP 200: broke in mid-stream",
    ),
}


@pytest.fixture(params=WIRES)
def wire(request: pytest.FixtureRequest) -> Wire:
    return WIRES[request.param]


def secure(certificates: Certificates, name: str = "server", clients: bool = False) -> ssl.SSLContext:
    """A server's that speaks either. clients: it wants a client's certificate."""
    made = context(certificates, name, clients)
    made.set_alpn_protocols(["h2", "http/1.1"])
    return made


def drive(wire: Wire, server: ScriptedServer, tls: Tls, until: Callable[[Seen], bool], **values: Any) -> Seen:
    return run(wire.order(server.port, tls=asdict(tls), **values), until)


# 400 responses are more than a TLS record holds: some lie decrypted while the socket has nothing more to read.
@pytest.mark.parametrize("count", [1, 3, 400])
def test_each_response_is_counted_and_each_stream_a_request(certificates: Certificates, wire: Wire, count: int) -> None:
    with ScriptedServer(wire.of(count), tls=secure(certificates)) as server:
        seen = drive(wire, server, Tls(certificates.pem("ca")), enough(10), value=2)
    assert not seen.failures
    assert set(seen.responses) == {count}
    assert len(seen.gap_ns) >= (count - 1) * len(seen.done_ns)
    assert server.accepted == 2


def test_responses_are_timed_as_they_come(certificates: Certificates, wire: Wire) -> None:
    def answer(peer: Peer, n: int) -> None:
        time.sleep(0.03)
        peer.send(wire.begin(n) + wire.one(n))
        time.sleep(0.05)
        peer.send(wire.one(n))
        peer.send(wire.end(n))

    with ScriptedServer(wire.each(answer), tls=secure(certificates)) as server:
        seen = drive(wire, server, Tls(certificates.pem("ca")), enough(3))
    assert min(seen.first_ns) >= 30 * MS
    # A read may come late, and the next one in time: what is certain is the time since the request.
    assert min(seen.latency_ns) >= 80 * MS
    assert [a + b for a, b in zip(seen.first_ns, seen.gap_ns, strict=False)][: len(seen.latency_ns)] == seen.latency_ns


def test_a_client_shows_its_certificate(certificates: Certificates, wire: Wire) -> None:
    mine = {"certificate_file": certificates.pem("client"), "private_key_file": certificates.key("client")}
    with ScriptedServer(wire.of(2), tls=secure(certificates, clients=True)) as server:
        seen = drive(wire, server, Tls(certificates.pem("ca"), **mine), enough(5))
        assert not seen.failures
        assert set(seen.responses) == {2}
        without = drive(wire, server, Tls(certificates.pem("ca")), enough(failures=2))
    assert not without.done_ns
    assert not without.first_ns
    assert without.failures


@pytest.mark.parametrize(
    ("server_name", "ca", "why"),
    [("server", "other_ca", "certificate verify failed"), ("stranger", "ca", "IP address mismatch")],
)
def test_a_server_that_is_not_trusted_is_a_failure_unless_told_otherwise(
    certificates: Certificates, wire: Wire, server_name: str, ca: str, why: str
) -> None:
    with ScriptedServer(wire.of(1), tls=secure(certificates, server_name)) as server:
        seen = drive(wire, server, Tls(certificates.pem(ca)), enough(failures=2))
        assert not seen.done_ns
        assert not server.bodies, "it is sent nothing"
        assert all(text.startswith("TLS handshake failed: ") and why in text for text in seen.failures), seen.failures
        assert not drive(wire, server, Tls(verify_peer=False), enough(5)).failures


def test_an_error_in_mid_stream_fails_its_request_and_the_connection_goes_on(
    certificates: Certificates, wire: Wire
) -> None:
    turn = [0]

    def answer(peer: Peer, n: int) -> None:
        turn[0] += 1
        peer.send(wire.broken(n) if turn[0] % 2 else wire.begin(n) + wire.one(n) + wire.end(n))

    with ScriptedServer(wire.each(answer), tls=secure(certificates)) as server:
        seen = drive(wire, server, Tls(certificates.pem("ca")), enough(2, 2))
        assert server.accepted == 1
    assert set(seen.failures) == {wire.failure}
    assert set(seen.responses) == {1}


def test_a_stream_that_breaks_off_is_a_failure(certificates: Certificates, wire: Wire) -> None:
    def answer(peer: Peer, n: int) -> None:
        peer.send(wire.begin(n) + wire.one(n))
        peer.sock.close()

    with ScriptedServer(wire.each(answer), tls=secure(certificates)) as server:
        seen = drive(wire, server, Tls(certificates.pem("ca")), enough(failures=2))
    assert not seen.done_ns
    assert all(text.startswith(("connection closed", "connection broke")) for text in seen.failures), seen.failures


def test_a_stream_that_stops_times_out(certificates: Certificates, wire: Wire) -> None:
    def answer(peer: Peer, n: int) -> None:
        peer.send(wire.begin(n) + wire.one(n))

    with ScriptedServer(wire.each(answer), tls=secure(certificates)) as server:
        seen = drive(wire, server, Tls(certificates.pem("ca")), enough(failures=1), timeout_ns=1_600 * MS)
    assert set(seen.failures) == {"timeout: no further response within 1.6 s"}
    assert not seen.done_ns


def test_streams_of_another_implementation_with_certificates_on_both_sides(certificates: Certificates) -> None:
    """grpcio's server, and the load generator's own process."""
    mine = {"certificate_file": certificates.pem("client"), "private_key_file": certificates.key("client")}
    generator = ProcessLoadGenerator()
    try:
        with InferenceServer(certificates=certificates, responses=(response(b"a"), response(b"bb"))) as server:
            trusted = Tls(certificates.pem("ca"), **mine)
            seen = server.load(generator, tls=trusted, successes=20, call="stream_infer")
            assert not seen.failures
            assert set(seen.responses) == {2}
            for tls in (Tls(certificates.pem("other_ca"), **mine), Tls(certificates.pem("ca"))):
                refused = server.load(generator, tls=tls, failures=2, call="stream_infer")
                assert not refused.done_ns
                assert all(text.startswith(("TLS handshake failed: ", "connection ")) for text in refused.failures), (
                    refused.failures
                )
    finally:
        generator.close()
