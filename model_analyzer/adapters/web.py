"""HTTP requests over one connection or a kept one: pages that are scraped, and Triton's control plane.

What is on the wire is read by httptools (llhttp, Node's parser): beside what is measured, a page takes less than half of the CPU that it
takes with http.client, which takes half of urllib3's. What went wrong is one line of text for people.
"""

from __future__ import annotations

import re
import select
import socket
from base64 import b64encode
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from time import monotonic
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote, unquote, urlsplit
from weakref import finalize

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from model_analyzer.core.wording import printable

if TYPE_CHECKING:
    import ssl

_CHUNK = 1 << 16
_MOST_HEAD = 1 << 16
_SHOWN = 180  # characters of what a server or a library said
# What has a meaning in a path and query stays as it is.
_MEANING = "%/:=&?~#+!$,;'@()*[]"
_NO_HOST = re.compile(r"[\x00-\x20\x7f]")


class WebError(Exception):
    """No answer, or none that can be read: connection refused or lost, TLS failure, no HTTP; the text says which."""


class NoAnswer(WebError):  # noqa: N818 -- a finding
    """Connected, and then nothing for too long."""


class Answer(NamedTuple):
    """status: 200, 404, ...; whoever asked looks at it."""

    status: int
    body: bytes


class Site:
    """A host that answers HTTP; its methods may be called from any thread.

    url: `http://user:password@host:port/path?query`, or https; nothing but the host is needed. connect_s: seconds to connect. keep: connections are used again.
    context: for TLS; None: the system's certificates decide. Raises WebError for what is no URL.
    """

    def __init__(self, url: str, connect_s: float, *, keep: bool = True, context: ssl.SSLContext | None = None) -> None:
        try:
            parts = urlsplit(url)
            self._host, port = parts.hostname or "", parts.port
        except ValueError:
            raise WebError("is no URL") from None
        self._secure = parts.scheme == "https"
        if parts.scheme not in ("http", "https") or not self._host or _NO_HOST.search(self._host):
            raise WebError("is no URL")
        self._port = port or (443 if self._secure else 80)
        self._headers = _headers(self._host, port, keep)
        if parts.username is not None:
            secret = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            self._headers += f"Authorization: Basic {b64encode(secret.encode()).decode()}\r\n".encode()
        # What the URL names beside the host.
        self.target = f"{parts.path or '/'}{'?' * bool(parts.query)}{parts.query}"
        self._connect_s, self._keep, self._context = connect_s, keep, context
        self._idle: deque[socket.socket] = deque()
        # Of whoever keeps a site for as long as it is scraped, nobody says when that ends.
        finalize(self, _close_all, self._idle).atexit = False

    def request(
        self,
        method: str,
        target: str,
        body: bytes | None = None,
        *,
        read_s: float,
        whole_s: float = float("inf"),
        most_bytes: float = float("inf"),
    ) -> Answer:
        """target: path and query. read_s: for each read; whole_s: for all of the answer. Raises WebError."""
        deadline = monotonic() + whole_s
        sock, reply = self._asked(self._wire(method, target, body), read_s, most_bytes)
        with _told(sock, f"no whole answer within {min(read_s, whole_s):g} s"):
            # A read timeout is for one recv only: a source that drips would be waited for without end.
            while not reply.whole:
                if monotonic() > deadline:
                    raise TimeoutError
                reply.feed(sock.recv(_CHUNK))
        if self._keep and reply.keeps:
            self._idle.append(sock)
        else:
            sock.close()
        return Answer(reply.status, bytes(reply.body))

    def _wire(self, method: str, target: str, body: bytes | None) -> bytes:
        line = f"{method} {quote(target, safe=_MEANING)} HTTP/1.1\r\n".encode()
        # Without it, some proxies refuse a POST that has no body (411).
        length = b"" if method == "GET" else b"Content-Length: %d\r\n" % len(body or b"")
        return b"".join((line, self._headers, length, b"\r\n", body or b""))

    def _asked(self, wire: bytes, read_s: float, most_bytes: float) -> tuple[socket.socket, _Reply]:
        """The beginning of the answer, over a kept connection or a new one."""
        kept = self._kept()
        if kept is not None:
            try:
                return kept, _begun(kept, wire, read_s, most_bytes)
            except NoAnswer:
                raise
            except WebError:
                # The server may have closed it in this moment: a new one shows.
                pass
        sock = self._connected()
        return sock, _begun(sock, wire, read_s, most_bytes)

    def _kept(self) -> socket.socket | None:
        """A kept connection on which the server has not said anything since: neither that it closed it, nor a 408 for that."""
        with suppress(IndexError):
            while True:
                sock = self._idle.pop()
                poll = select.poll()
                poll.register(sock, select.POLLIN)
                if not poll.poll(0):
                    return sock
                sock.close()
        return None

    def _connected(self) -> socket.socket:
        try:
            sock = socket.create_connection((self._host, self._port), self._connect_s)
        except TimeoutError:
            raise WebError(f"no connection within {self._connect_s:g} s") from None
        except ConnectionRefusedError:
            raise WebError("connection refused") from None
        except (OSError, UnicodeError) as error:
            raise WebError(f"cannot connect ({_text(error)})") from error
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self._secured(sock) if self._secure else sock

    def _secured(self, sock: socket.socket) -> socket.socket:
        # Its import takes 3 % of a run's start.
        import ssl

        try:
            context = self._context or ssl.create_default_context()
            return context.wrap_socket(sock, server_hostname=self._host)
        except TimeoutError:
            sock.close()
            raise WebError(f"no connection within {self._connect_s:g} s") from None
        except OSError as error:  # ssl.SSLError is one
            sock.close()
            raise WebError(f"TLS failed ({_text(error)})") from error


def _headers(host: str, port: int | None, keep: bool) -> bytes:
    """Those that every request has. Raises WebError for what can be no host."""
    try:
        name = (f"[{host}]" if ":" in host else host).encode("ascii" if host.isascii() else "idna")
    except UnicodeError:
        raise WebError("is no URL") from None
    where = name if port is None else b"%b:%d" % (name, port)
    return b"Host: %b\r\nAccept-Encoding: identity\r\n%b" % (where, b"" if keep else b"Connection: close\r\n")


def _begun(sock: socket.socket, wire: bytes, read_s: float, most_bytes: float) -> _Reply:
    """Send a request; what the first read has of its answer."""
    reply = _Reply(most_bytes)
    with _told(sock, f"no answer within {read_s:g} s"):
        sock.settimeout(read_s)
        sock.sendall(wire)
        reply.feed(sock.recv(_CHUNK))
    return reply


class _Reply:
    """An answer as the parser tells of it. whole: it is all there; keeps: the connection may be used again."""

    def __init__(self, most_bytes: float) -> None:
        self.status = 0
        self.body = bytearray()
        self.whole = self.keeps = False
        self._parser = HttpResponseParser(self)
        # What exporters of a few lines may write, and other clients take.
        self._parser.set_dangerous_leniencies(lenient_optional_cr_before_lf=True, lenient_spaces_after_chunk_size=True)
        self._headers: dict[bytes, bytes] = {}
        self._head_bytes = 0
        self._in_body = False
        self._most_bytes = most_bytes

    def feed(self, data: bytes) -> None:
        """data: the next that was read; b"": the server closed. Raises WebError."""
        if not data:
            self._end()
            return
        if not self._in_body:
            if self._head_bytes > _MOST_HEAD:
                raise WebError(f"connection broke: the head of the answer is larger than {_MOST_HEAD >> 10} KiB")
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade) as error:
            # What stands behind a whole answer was not asked for.
            self.keeps = False
            if not self.whole:
                raise WebError(f"connection broke: no HTTP ({_text(error)})") from None
        encoding = self._headers.get(b"content-encoding", b"identity")
        if encoding.lower() != b"identity":
            raise WebError(
                f"the answer is encoded ({printable(encoding.decode('latin-1'))[:_SHOWN]}), which was not asked for"
            )
        if len(self.body) > self._most_bytes:
            raise WebError(f"the answer is larger than {self._most_bytes / (1 << 20):g} MiB")

    def _end(self) -> None:
        """The server closed, which is how an answer ends that says nothing of its length."""
        length, had = self._headers.get(b"content-length"), len(self.body)
        if not self._in_body:
            raise WebError(
                f"connection broke: closed {'in the middle of' if self._head_bytes else 'without'} an answer"
            )
        if length is not None:
            raise WebError(f"connection broke: closed after {had} of {int(length)} bytes")
        if b"transfer-encoding" in self._headers:
            raise WebError(f"connection broke: closed after {had} bytes, and more were announced")
        self.whole = True

    # -- what the parser calls -----------------------------------------------------------------

    def on_message_begin(self) -> None:
        """An answer begins; behind a whole one: another, that nobody asked for."""
        self.keeps = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """One line of the head."""
        if not self.whole:
            self._headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        """The head has ended."""
        if not self.whole:
            self.status, self._in_body = self._parser.get_status_code(), True

    def on_body(self, data: bytes) -> None:
        """A piece of it."""
        if not self.whole:
            self.body += data

    def on_message_complete(self) -> None:
        """The end; of a status below 200 that only says that the server goes on."""
        if self.whole:
            return
        if self.status < 200:
            self._in_body = False
            self._headers.clear()
        else:
            self.whole, self.keeps = True, self._parser.should_keep_alive()


@contextmanager
def _told(sock: socket.socket, silent: str) -> Iterator[None]:
    """Whatever goes wrong on the connection is a WebError, and closes it: with an unread rest it cannot be used again."""
    try:
        yield
    except BaseException as error:
        sock.close()
        if isinstance(error, TimeoutError):
            raise NoAnswer(silent) from None
        if isinstance(error, OSError):
            raise WebError(f"connection broke: {_text(error)}") from error
        raise


def _close_all(connections: deque[socket.socket]) -> None:
    for sock in connections:
        sock.close()


def read_text(url: str, timeout_s: float) -> str:
    """A page of status 200, once. Raises WebError."""
    site = Site(url, timeout_s, keep=False)
    status, body = site.request("GET", site.target, read_s=timeout_s, whole_s=timeout_s)
    if status != 200:
        raise WebError(f"HTTP {status}")
    return body.decode(errors="replace")


def _text(error: Exception) -> str:
    """One printable line: what a broken server says is part of some."""
    return printable(str(error) or type(error).__name__)[:_SHOWN]
