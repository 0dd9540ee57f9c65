"""Fetch and parse one Prometheus page; whatever is wrong with it is one line of text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from math import isfinite
from time import monotonic, monotonic_ns

import urllib3

from model_analyzer.core.telemetry import Page

# READ_S is for the whole page, headers to last byte.
CONNECT_S, READ_S = 1.0, 2.0
PAGE_LIMIT = 32 << 20
_CHUNK = 1 << 16
_SHOWN = 60  # characters of a broken line


class PageProblem(Exception):  # noqa: N818 -- a finding, turned into a page's `problem`
    """Why there is no page."""


@dataclass(frozen=True, slots=True)
class Row:
    """One sample line. value: an int where the page writes one, so that a 64-bit sentinel stays exact."""

    name: str
    labels: Mapping[str, str]
    value: float


@dataclass(frozen=True, slots=True)
class Parsed:
    """The samples asked for. problem: which of their lines cannot be read; None: none."""

    rows: tuple[Row, ...]
    problem: str | None = None


class Endpoint:
    """A metrics page behind an URL, on a connection that is kept. prefix: of the names wanted from it."""

    def __init__(self, url: str, prefix: str) -> None:
        self.url = url
        self._prefix = prefix
        timeout = urllib3.Timeout(connect=CONNECT_S, read=READ_S)
        self._pool = urllib3.PoolManager(num_pools=1, maxsize=2, timeout=timeout, retries=False)

    def read(self) -> Parsed:
        """The page's samples. Raises PageProblem, its text with the URL."""
        try:
            parsed = parse(self._fetch(), self._prefix)
        except PageProblem as problem:
            raise PageProblem(f"{self.url}: {problem}") from None
        return parsed if parsed.problem is None else Parsed(parsed.rows, f"{self.url}: {parsed.problem}")

    def _fetch(self) -> str:
        deadline = monotonic() + READ_S
        try:
            reply = self._pool.request("GET", self.url, preload_content=False)
        except urllib3.exceptions.HTTPError as error:
            raise PageProblem(_plain(error)) from error
        whole = False
        try:
            if reply.status != 200:
                raise PageProblem(f"HTTP {reply.status}")
            body = _body(reply, deadline)
            whole = True
        except urllib3.exceptions.HTTPError as error:
            raise PageProblem(_plain(error)) from error
        finally:
            # A connection with an unread rest cannot be used again.
            reply.release_conn() if whole else reply.close()
        if not body.strip():
            raise PageProblem("the page is empty")
        try:
            return body.decode()
        except UnicodeDecodeError:
            raise PageProblem("the page is no text") from None


def _body(reply: urllib3.BaseHTTPResponse, deadline: float) -> bytes:
    """All of it. A read timeout is for one recv only: a source that drips would be waited for without end."""
    body = bytearray()
    while chunk := reply.read1(_CHUNK):
        body += chunk
        if len(body) > PAGE_LIMIT:
            raise PageProblem(f"the page is larger than {PAGE_LIMIT >> 20} MiB")
        if monotonic() > deadline:
            raise PageProblem(f"no whole page within {READ_S:g} s")
    return bytes(body)


def parse(text: str, prefix: str = "") -> Parsed:
    """The samples of a page whose names begin with `prefix`.

    A line that cannot be read costs that line only. Raises PageProblem where nothing can be read.
    Comments are left out before the parser sees them: it follows OpenMetrics and gives the samples under a
    `# TYPE x counter` the name `x_total`, whatever the page calls them.
    """
    samples = [line for line in map(str.strip, text.split("\n")) if line and not line.startswith("#")]
    wanted = [line for line in samples if line.startswith(prefix)]
    try:
        rows = tuple(_rows(wanted or samples[:1]))
    except _BROKEN:
        return _parse_each(wanted or samples[:1])
    return Parsed(rows if wanted else ())


def _parse_each(lines: Iterable[str]) -> Parsed:
    rows: list[Row] = []
    broken: list[str] = []
    for line in lines:
        try:
            rows += _rows([line])
        except _BROKEN:
            broken.append(_shown(line, _SHOWN))
    if not rows:
        raise PageProblem(f"not a Prometheus page (cannot read `{broken[0]}`)" if broken else "the page has no values")
    more = f" and {len(broken) - 1} more" if len(broken) > 1 else ""
    return Parsed(tuple(rows), f"cannot read the line `{broken[0]}`{more}" if broken else None)


# What the parser raises for a line that is no sample; OverflowError: an integer beyond any float.
_BROKEN = (ValueError, KeyError, IndexError, OverflowError)


def _rows(lines: Iterable[str]) -> Iterator[Row]:
    from prometheus_client.parser import text_string_to_metric_families

    for family in text_string_to_metric_families("\n".join(lines)):
        for sample in family.samples:
            if isfinite(sample.value):
                yield Row(sample.name, sample.labels, sample.value)


def _shown(text: str, most: int) -> str:
    """What a source said, fit for one line of a table."""
    plain = " ".join("".join(each if each.isprintable() else " " for each in text).split())
    return plain if len(plain) <= most else f"{plain[:most]}..."


def _plain(error: Exception) -> str:
    # NewConnectionError is a ConnectTimeoutError, too: it has to be asked for first.
    if isinstance(error, urllib3.exceptions.NewConnectionError):
        return "connection refused" if "refused" in str(error).lower() else f"cannot connect ({_cause(error)})"
    if isinstance(error, urllib3.exceptions.ConnectTimeoutError):
        return f"no connection within {CONNECT_S:g} s"
    if isinstance(error, urllib3.exceptions.ReadTimeoutError):
        return f"no page within {READ_S:g} s"
    if isinstance(error, urllib3.exceptions.LocationParseError | urllib3.exceptions.LocationValueError):
        return "is no URL"
    # Such as ("Connection aborted.", RemoteDisconnected("...")): text for people.
    text, *causes = (str(part).strip(" .") for part in error.args or (type(error).__name__,))
    return _shown(": ".join([text, *(cause for cause in causes if cause not in text)]), 3 * _SHOWN)


def _cause(error: Exception) -> str:
    """Such as `[Errno -2] Name or service not known`, without urllib3's name of the connection object."""
    return str(error).rpartition(": ")[2]


class PageSampler:
    """A ports.Sampler of a Prometheus page.

    name: the source. prefix: of the names wanted. page_of: from the rows, the time in ns and the URL to the Page.
    """

    def __init__(self, name: str, url: str, prefix: str, page_of: Callable[[Iterable[Row], int, str], Page]) -> None:
        self.name = name
        self.origin = url
        self._endpoint = Endpoint(url, prefix)
        self._page_of = page_of

    def sample(self) -> Page:
        """Scrape once; bounded in time, never raises."""
        before = monotonic_ns()
        try:
            parsed = self._endpoint.read()
        except PageProblem as problem:
            return Page(self.name, self.origin, monotonic_ns(), problem=str(problem))
        page = self._page_of(parsed.rows, (before + monotonic_ns()) // 2, self.origin)
        return replace(page, problem=parsed.problem or page.problem)
