"""TLS: who is trusted, who is shown what, and what a refusal looks like; over HTTP and gRPC."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
from certificates import Certificates
from grpc_server import InferenceServer
from h2_server import MESSAGE, H2Peer, grpc_order
from h2_server import always as h2_always
from scripted_server import Peer, ScriptedServer, Seen, always, enough, order, refusal, reply, run

from model_analyzer.core.load import EncodedRequest, Load, LoadOrder, RequestSet, Tls
from model_analyzer.errors import LoadGeneratorError
from model_analyzer.loadgen.client import ProcessLoadGenerator
from model_analyzer.loadgen.grpc import SHARED_FROM, STREAMS
from model_analyzer.loadgen.session import INITIAL_WINDOW_SIZE


def context(certificates: Certificates, name: str = "server", clients: bool = False) -> ssl.SSLContext:
    """A server's. clients: it wants a client's certificate."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(certificates.pem(name), certificates.key(name))
    if clients:
        made.verify_mode = ssl.CERT_REQUIRED
        made.load_verify_locations(certificates.pem("ca"))
    return made


def drive(server: ScriptedServer, tls: Tls, successes: int = 0, failures: int = 0, body: bytes = b"request") -> Seen:
    return run(order(server.port, [body], value=2, tls=asdict(tls)), enough(successes, failures))


def test_a_server_of_a_trusted_ca_is_served(certificates: Certificates) -> None:
    with ScriptedServer(always(reply()), tls=context(certificates)) as server:
        seen = drive(server, Tls(ca_file=certificates.pem("ca")), successes=50)
    assert not seen.failures
    assert server.accepted == 2


def test_large_bodies_and_replies_pass_whole(certificates: Certificates) -> None:
    body = bytes(range(256)) * 4000
    with ScriptedServer(always(reply(b"y" * 300_000)), tls=context(certificates), receive_buffer=4096) as server:
        seen = drive(server, Tls(ca_file=certificates.pem("ca")), successes=6, body=body)
    assert not seen.failures
    assert set(server.bodies) == {body}


@pytest.mark.parametrize(
    ("server_name", "ca", "why"),
    [("server", "other_ca", "certificate verify failed"), ("stranger", "ca", "IP address mismatch")],
)
def test_a_server_that_is_not_trusted_is_a_failure_unless_told_otherwise(
    certificates: Certificates, server_name: str, ca: str, why: str
) -> None:
    with ScriptedServer(always(reply()), tls=context(certificates, server_name)) as server:
        seen = drive(server, Tls(ca_file=certificates.pem(ca)), failures=2)
        assert not seen.done_ns
        assert not server.bodies
        assert all(text.startswith("TLS handshake failed: ") and why in text for text in seen.failures), seen.failures
        assert not drive(server, Tls(verify_peer=False), successes=5).failures


def test_without_a_ca_file_the_systems_cas_decide(certificates: Certificates) -> None:
    with ScriptedServer(always(reply()), tls=context(certificates)) as server:
        seen = drive(server, Tls(), failures=2)
    assert all("certificate verify failed" in text for text in seen.failures)


def test_the_host_alone_may_go_unverified(certificates: Certificates) -> None:
    with ScriptedServer(always(reply()), tls=context(certificates, "stranger")) as server:
        seen = drive(server, Tls(ca_file=certificates.pem("ca"), verify_host=False), successes=5)
        assert not seen.failures
        other = drive(server, Tls(ca_file=certificates.pem("other_ca"), verify_host=False), failures=2)
    assert not other.done_ns


def test_a_client_shows_its_certificate(certificates: Certificates) -> None:
    mine = {"certificate_file": certificates.pem("client"), "private_key_file": certificates.key("client")}
    with ScriptedServer(always(reply()), tls=context(certificates, clients=True)) as server:
        assert not drive(server, Tls(certificates.pem("ca"), **mine), successes=5).failures
        without = drive(server, Tls(certificates.pem("ca")), failures=2)
    assert not without.done_ns
    assert without.failures


def test_an_error_reply_over_tls_is_a_failure(certificates: Certificates) -> None:
    with ScriptedServer(always(refusal("500 Internal Server Error", "no")), tls=context(certificates)) as server:
        seen = drive(server, Tls(ca_file=certificates.pem("ca")), failures=2)
    assert set(seen.failures) == {"HTTP 500: no"}


def test_a_server_without_tls_is_a_failure(certificates: Certificates) -> None:
    with ScriptedServer(lambda peer: peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as server:
        seen = drive(server, Tls(verify_peer=False), failures=2)
    assert not seen.done_ns
    assert all(text.startswith(("TLS handshake failed: ", "connection broke: ")) for text in seen.failures), (
        seen.failures
    )


@pytest.mark.parametrize("content", ["", "no certificate"])
def test_a_ca_file_that_is_none_is_an_error_of_one_line(tmp_path: Path, content: str) -> None:
    bad = tmp_path / "ca.pem"
    bad.write_text(content)
    work = LoadOrder(
        "127.0.0.1:1",
        Load("concurrency", 1),
        RequestSet("http", (EncodedRequest(b"x", b"y"),), 1),
        timeout_s=1.0,
        tls=Tls(ca_file=str(bad)),
    )
    generator = ProcessLoadGenerator()
    try:
        with pytest.raises(LoadGeneratorError) as caught, generator.run(work) as batches:
            next(batches)
    finally:
        generator.close()
    assert "SSLError" in str(caught.value)
    assert "\n" not in str(caught.value)


# -- gRPC ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def generator() -> Iterator[ProcessLoadGenerator]:
    generator = ProcessLoadGenerator()
    yield generator
    generator.close()


def test_grpc_verifies_the_server_and_shows_a_client_certificate(
    certificates: Certificates, generator: ProcessLoadGenerator
) -> None:
    mine = {"certificate_file": certificates.pem("client"), "private_key_file": certificates.key("client")}
    with InferenceServer(certificates=certificates) as server:
        seen = server.load(generator, tls=Tls(certificates.pem("ca"), **mine), successes=20)
        assert not seen.failures
        for tls in (Tls(certificates.pem("other_ca"), **mine), Tls(certificates.pem("ca"))):
            refused = server.load(generator, tls=tls, failures=2)
            assert not refused.done_ns
            assert all(text.startswith(("TLS handshake failed: ", "connection ")) for text in refused.failures), (
                refused.failures
            )


def h2_context(certificates: Certificates, *protocols: str) -> ssl.SSLContext:
    """A server's that agrees on one of these protocols."""
    made = context(certificates)
    if protocols:
        made.set_alpn_protocols(list(protocols))
    return made


@pytest.mark.parametrize("protocols", [(), ("http/1.1",)])
def test_grpc_with_a_server_that_does_not_agree_on_http2_is_a_failure(
    certificates: Certificates, protocols: tuple[str, ...]
) -> None:
    tls = asdict(Tls(certificates.pem("ca")))
    with ScriptedServer(h2_always(), tls=h2_context(certificates, *protocols)) as server:
        seen = run(grpc_order(server.port, tls=tls), enough(failures=2))
    assert set(seen.failures) == {"TLS handshake failed: the server does not agree on HTTP/2 (ALPN h2)"}


def test_large_grpc_requests_and_replies_pass_whole_over_tls(certificates: Certificates) -> None:
    body = bytes(range(256)) * 4000

    def script(peer: Peer) -> None:
        end = H2Peer(peer, (INITIAL_WINDOW_SIZE, 1 << 20))
        while (stream := end.request()) is not None:
            end.send_large(stream, MESSAGE + b"\x32\x80\x80\x40" + bytes(1 << 20), 16384)

    with ScriptedServer(script, tls=h2_context(certificates, "h2"), receive_buffer=4096) as server:
        work = grpc_order(server.port, (body,), tls=asdict(Tls(certificates.pem("ca"))), value=2)
        seen = run(work, enough(6))
    assert not seen.failures
    assert set(server.bodies) == {body}


def test_grpc_trusts_whom_it_is_told_to(certificates: Certificates) -> None:
    """As over HTTP: a stranger's certificate, with and without the checks."""
    with ScriptedServer(h2_always(), tls=h2_context(certificates, "h2")) as server:
        for tls, trusted in (
            (Tls(certificates.pem("ca")), True),
            (Tls(certificates.pem("other_ca")), False),
            (Tls(), False),
            (Tls(verify_peer=False), True),
        ):
            seen = run(grpc_order(server.port, tls=asdict(tls)), lambda s: len(s.done_ns) >= 3 or s.failed >= 2)
            assert bool(seen.done_ns) is trusted
            assert bool(seen.failures) is not trusted
            assert all("certificate verify failed" in text for text in seen.failures)


def test_streams_share_a_connection_over_tls_too(certificates: Certificates) -> None:
    tls = context(certificates)
    tls.set_alpn_protocols(["h2"])

    def script(peer: Peer) -> None:
        end = H2Peer(peer)
        while len(streams := end.requests(STREAMS)) == STREAMS:
            end.answer(*streams)

    with ScriptedServer(script, tls=tls) as server:
        work = grpc_order(server.port, value=SHARED_FROM, tls=asdict(Tls(ca_file=certificates.pem("ca"))))
        seen = run(work, enough(200))
        assert server.accepted == SHARED_FROM // STREAMS
        assert 200 <= len(seen.done_ns) <= len(server.bodies)
    assert not seen.failures
