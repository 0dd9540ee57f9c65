"""HTTP requests by the standard library: pages that are scraped, and Triton's control plane.

Not by urllib3, which takes twice the CPU for a scrape, while the server is measured, and some at each start to be imported.
What went wrong is one line of text for people.
"""

from __future__ import annotations

import ssl
from base64 import b64encode
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection, IncompleteRead
from time import monotonic
from typing import NamedTuple
from urllib.parse import quote, unquote, urlsplit
from weakref import finalize

from model_analyzer.core.wording import printable

_CHUNK = 1 << 16
_SHOWN = 180  # characters of what a server or a library said
# What has a meaning in a path and query stays as it is.
_MEANING = "%/:=&?~#+!$,;'@()*[]"


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
            self._host, self._port = parts.hostname or "", parts.port
        except ValueError:
            raise WebError("is no URL") from None
        if parts.scheme not in ("http", "https") or not self._host:
            raise WebError("is no URL")
        self._headers = {} if keep else {"Connection": "close"}
        if parts.username is not None:
            secret = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            self._headers["Authorization"] = f"Basic {b64encode(secret.encode()).decode()}"
        # What the URL names beside the host.
        self.target = f"{parts.path or '/'}{'?' * bool(parts.query)}{parts.query}"
        self._secure = parts.scheme == "https"
        self._connect_s, self._keep, self._context = connect_s, keep, context
        self._idle: deque[HTTPConnection] = deque()
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
        """target: path and query. read_s: for each read; whole_s: for all of the body. Raises WebError."""
        deadline = monotonic() + whole_s
        connection, reply = self._asked(method, target, body, read_s)
        with _told(connection, f"no whole answer within {min(read_s, whole_s):g} s"):
            data = _body(reply, deadline, most_bytes)
        if self._keep and not reply.will_close:
            self._idle.append(connection)
        else:
            connection.close()
        return Answer(reply.status, data)

    def _asked(
        self, method: str, target: str, body: bytes | None, read_s: float
    ) -> tuple[HTTPConnection, HTTPResponse]:
        """The reply, its body unread, over a kept connection or a new one."""
        try:
            kept = self._idle.pop()
        except IndexError:
            kept = None
        if kept is not None:
            try:
                return kept, self._sent(kept, method, target, body, read_s)
            except NoAnswer:
                raise
            except WebError:
                # The server may have closed it meanwhile: a new one shows.
                pass
        connection = self._connected()
        return connection, self._sent(connection, method, target, body, read_s)

    def _connected(self) -> HTTPConnection:
        connection = self._connection()
        try:
            connection.connect()
        except TimeoutError:
            raise WebError(f"no connection within {self._connect_s:g} s") from None
        except ConnectionRefusedError:
            raise WebError("connection refused") from None
        except ssl.SSLError as error:
            raise WebError(f"TLS failed ({_text(error)})") from error
        except (OSError, UnicodeError) as error:
            raise WebError(f"cannot connect ({_text(error)})") from error
        return connection

    def _connection(self) -> HTTPConnection:
        try:
            if self._secure:
                return HTTPSConnection(self._host, self._port, timeout=self._connect_s, context=self._context)
            return HTTPConnection(self._host, self._port, timeout=self._connect_s)
        except HTTPException:
            raise WebError("is no URL") from None

    def _sent(
        self, connection: HTTPConnection, method: str, target: str, body: bytes | None, read_s: float
    ) -> HTTPResponse:
        with _told(connection, f"no answer within {read_s:g} s"):
            connection.sock.settimeout(read_s)
            connection.request(method, quote(target, safe=_MEANING), body, self._headers)
            return connection.getresponse()


@contextmanager
def _told(connection: HTTPConnection, silent: str) -> Iterator[None]:
    """Whatever goes wrong on the connection is a WebError, and closes it: with an unread rest it cannot be used again."""
    try:
        yield
    except BaseException as error:
        connection.close()
        if isinstance(error, TimeoutError):
            raise NoAnswer(silent) from None
        if isinstance(error, (OSError, HTTPException)):
            raise WebError(f"connection broke: {_text(error)}") from error
        raise


def shown(url: str) -> str:
    """The URL without the name and password in it."""
    scheme, mark, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{mark}{host.rpartition('@')[2]}{slash}{path}"


def _close_all(connections: deque[HTTPConnection]) -> None:
    for connection in connections:
        connection.close()


def read_text(url: str, timeout_s: float) -> str:
    """A page of status 200, once. Raises WebError."""
    site = Site(url, timeout_s, keep=False)
    status, body = site.request("GET", site.target, read_s=timeout_s, whole_s=timeout_s)
    if status != 200:
        raise WebError(f"HTTP {status}")
    return body.decode(errors="replace")


def _body(reply: HTTPResponse, deadline: float, most_bytes: float) -> bytes:
    """All of it. A read timeout is for one recv only: a source that drips would be waited for without end."""
    if encoding := reply.getheader("Content-Encoding"):
        raise WebError(f"the answer is encoded ({printable(encoding)[:_SHOWN]}), which was not asked for")
    body = bytearray()
    while chunk := reply.read1(_CHUNK):
        body += chunk
        if len(body) > most_bytes:
            raise WebError(f"the answer is larger than {most_bytes / (1 << 20):g} MiB")
        if monotonic() > deadline:
            raise TimeoutError
    # read1 does not look whether that is all that was announced.
    if reply.length:
        raise IncompleteRead(bytes(body), reply.length)
    # Nor does it tell the connection that the next request may come.
    reply.close()
    return bytes(body)


def _text(error: Exception) -> str:
    """One printable line: what a broken server says is part of some."""
    return printable(str(error) or type(error).__name__)[:_SHOWN]
