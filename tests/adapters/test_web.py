"""HTTP requests against servers that say just what a test wants."""

from __future__ import annotations

import re
import select
import socket
import threading
from base64 import b64encode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_analyzer.adapters.web import NoAnswer, Site, WebError, _Reply, read_text
from model_analyzer.core.wording import without_secrets

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
PATIENCE_S = 60.0


@contextmanager
def saying(
    *connections: Sequence[bytes], family: socket.AddressFamily = socket.AF_INET
) -> Iterator[tuple[str, list[bytes]]]:
    """A server that answers the requests of each connection so, and then closes it. Yields its URL and what it was asked."""
    host = "127.0.0.1" if family == socket.AF_INET else "::1"
    asked: list[bytes] = []
    with socket.create_server((host, 0), family=family) as server:
        server.settimeout(PATIENCE_S)

        def serve() -> None:
            for answers in connections:
                with suppress(OSError), server.accept()[0] as connection:
                    connection.settimeout(PATIENCE_S)
                    for answer in answers:
                        asked.append(_request(connection))
                        connection.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        shown = host if family == socket.AF_INET else f"[{host}]"
        yield f"http://{shown}:{server.getsockname()[1]}", asked
        thread.join(PATIENCE_S)


def _request(connection: socket.socket) -> bytes:
    """All of it: a connection that is closed with an unread rest is reset, which is another thing than closed."""
    with connection.makefile("rb") as lines:
        head = b""
        while (line := lines.readline()).strip():
            head += line
        length = re.search(rb"Content-Length: (\d+)", head)
        return head + lines.read(int(length[1]) if length else 0)


def get(site: Site, target: str = "/", read_s: float = PATIENCE_S) -> bytes:
    return site.request("GET", target, read_s=read_s).body


def test_a_kept_connection_is_used_again() -> None:
    with saying([OK, OK]) as (url, asked):
        site = Site(url, PATIENCE_S)
        assert (get(site), get(site)) == (b"ok", b"ok")
    assert len(asked) == 2, "the server takes one connection"


def test_a_kept_connection_that_the_server_has_closed_costs_no_request() -> None:
    with saying([OK], [OK]) as (url, _):
        site = Site(url, PATIENCE_S)
        assert (get(site), get(site)) == (b"ok", b"ok")


def test_a_farewell_on_a_kept_connection_is_no_answer_to_the_next_request() -> None:
    """Some load balancers say 408 before they close a connection that was idle for long."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(PATIENCE_S)
        site = Site(f"http://127.0.0.1:{server.getsockname()[1]}", PATIENCE_S)

        def serve() -> None:
            for farewell in (b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", b""):
                with server.accept()[0] as connection:
                    connection.settimeout(PATIENCE_S)
                    _request(connection)
                    connection.sendall(OK)
                    idle.wait(PATIENCE_S)
                    connection.sendall(farewell)

        idle = threading.Event()
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        assert get(site) == b"ok"
        idle.set()
        assert select.select([*site._idle], [], [], PATIENCE_S)[0]
        assert get(site) == b"ok"
        thread.join(PATIENCE_S)


def test_a_new_connection_that_breaks_is_not_tried_again() -> None:
    """A load that the server has begun must not be asked for twice."""
    with saying([b""], [OK]) as (url, asked):
        with pytest.raises(WebError, match=r"^connection broke: closed without an answer$"):
            Site(url, PATIENCE_S, keep=False).request("POST", "/load", b"{}", read_s=PATIENCE_S)
        assert len(asked) == 1
        get(Site(url, PATIENCE_S))


def test_a_post_says_how_long_it_is_without_a_body_too() -> None:
    with saying([OK]) as (url, asked):
        Site(url, PATIENCE_S).request("POST", "/", read_s=PATIENCE_S)
    assert b"Content-Length: 0\r\n" in asked[0]


def test_without_keeping_the_server_is_told_to_close() -> None:
    with saying([OK]) as (url, asked):
        get(Site(url, PATIENCE_S, keep=False))
    assert b"Connection: close\r\n" in asked[0]


def test_the_path_and_query_of_the_url_are_the_target() -> None:
    assert Site("http://host:1/a/b?c=d#e", 1.0).target == "/a/b?c=d"
    assert Site("https://host", 1.0).target == "/"


def test_what_a_request_line_cannot_hold_is_escaped() -> None:
    with saying([OK]) as (url, asked):
        get(Site(url, PATIENCE_S), "/a b/ü?x=1&y=%20")
    assert asked[0].startswith(b"GET /a%20b/%C3%BC?x=1&y=%20 HTTP/1.1\r\n")


def test_a_host_may_be_an_ipv6_address() -> None:
    with saying([OK], family=socket.AF_INET6) as (url, asked):
        get(Site(url, PATIENCE_S))
    assert b"Host: [::1]:" in asked[0]


@pytest.mark.parametrize(
    "url", ["", "nonsense", "host:80", "ftp://x/", "http://", "http://h:99999/", "http://[::1/", "http://a b/"]
)
def test_what_is_no_url_is_said(url: str) -> None:
    with pytest.raises(WebError, match=r"is no URL|cannot connect"):
        get(Site(url, 1.0))


def test_name_and_password_of_the_url_are_sent_and_not_shown() -> None:
    with saying([OK]) as (url, asked):
        secret = url.replace("://", "://jo%40e:p:w@") + "/metrics"
        get(Site(secret, PATIENCE_S))
    assert b"Authorization: Basic " + b64encode(b"jo@e:p:w") in asked[0]
    assert without_secrets(secret) == f"{url}/metrics"


@pytest.mark.parametrize("password", ["p/w", "p/w@x/y", "p?w", "p#w"])
def test_a_password_that_makes_the_url_none_is_not_shown_either(password: str) -> None:
    assert without_secrets(f"http://joe:{password}@h:1/metrics") == "http://h:1/metrics"


@pytest.mark.parametrize("url", ["http://h:1/a@b", "nonsense", "", "https://[::1]:2/"])
def test_an_url_without_a_name_is_shown_as_it_is(url: str) -> None:
    assert without_secrets(url) == url


def test_a_body_cut_short_is_no_answer() -> None:
    with (
        saying([b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok"]) as (url, _),
        pytest.raises(WebError, match=r"^connection broke: closed after 2 of 9 bytes$"),
    ):
        get(Site(url, PATIENCE_S))


def body_of(answer: bytes) -> bytes:
    with saying([answer]) as (url, _):
        return get(Site(url, PATIENCE_S, keep=False))


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\no\r\n1;x=y\r\nk\r\n0\r\nTrailer: t\r\n\r\n",
        b"HTTP/1.0 200 OK\r\n\r\nok",
        b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2  \r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nok",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length:2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: Identity\r\nContent-Length: 2\r\n\r\nok",
    ],
)
def test_an_answer_may_end_in_several_ways(answer: bytes) -> None:
    assert body_of(answer) == b"ok"


def test_an_answer_without_a_body_is_whole() -> None:
    assert body_of(b"HTTP/1.1 204 No Content\r\n\r\n") == b""


@given(st.lists(st.integers(1, 90), max_size=8))
def test_an_answer_may_come_in_any_pieces(cuts: list[int]) -> None:
    answer = b"HTTP/1.1 200 OK\r\nA: b\r\nTransfer-Encoding: chunked\r\n\r\n1\r\no\r\n1\r\nk\r\n0\r\n\r\n"
    reply, at = _Reply(most_bytes=10), 0
    for cut in (*sorted(set(cuts)), len(answer)):
        if piece := answer[at:cut]:
            reply.feed(piece)
        at = max(at, cut)
    assert (reply.status, bytes(reply.body), reply.whole, reply.keeps) == (200, b"ok", True, True)


@given(st.binary(max_size=80) | st.binary(max_size=80).map(lambda rest: b"HTTP/1.1 200 OK\r\n" + rest))
def test_no_bytes_break_the_reading_of_an_answer(data: bytes) -> None:
    reply = _Reply(most_bytes=10)
    with suppress(WebError):
        reply.feed(data)
        reply.feed(b"")
        assert reply.whole


@pytest.mark.parametrize("more", [OK, b"garbage"])
def test_a_connection_with_more_than_the_answer_is_not_used_again(more: bytes) -> None:
    with saying([OK + more], [OK.replace(b"ok", b"no")]) as (url, _):
        site = Site(url, PATIENCE_S)
        assert (get(site), get(site)) == (b"ok", b"no")


def test_an_answer_that_is_too_large_is_not_read_to_its_end() -> None:
    with (
        saying([b"HTTP/1.1 200 OK\r\nContent-Length: 3000000\r\n\r\n" + bytes(1 << 21)]) as (url, _),
        pytest.raises(WebError, match=r"^the answer is larger than 1 MiB$"),
    ):
        Site(url, PATIENCE_S).request("GET", "/", read_s=PATIENCE_S, most_bytes=1 << 20)


def test_silence_after_the_head_is_no_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        site = Site(f"http://127.0.0.1:{server.getsockname()[1]}", PATIENCE_S)
        with pytest.raises(NoAnswer, match=r"^no answer within 0\.1 s$"):
            get(site, read_s=0.1)


def test_a_page_is_read_in_one_go() -> None:
    with saying([OK], [b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"]) as (url, _):
        assert read_text(f"{url}/metrics", PATIENCE_S) == "ok"
        with pytest.raises(WebError, match=r"^HTTP 404$"):
            read_text(f"{url}/metrics", PATIENCE_S)
