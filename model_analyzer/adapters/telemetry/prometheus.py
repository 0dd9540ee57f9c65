"""Fetch and parse one Prometheus page; whatever is wrong with it is one line of text."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import isfinite

import urllib3

CONNECT_S, READ_S = 1.0, 2.0
PAGE_LIMIT = 32 << 20
_COUNTER = re.compile(r"^# TYPE (\S+) counter\s*$", re.MULTILINE)


class PageProblem(Exception):  # noqa: N818 -- a finding, turned into a page's `problem`
    """Why there is no page."""


@dataclass(frozen=True, slots=True)
class Row:
    """One sample line."""

    name: str
    labels: Mapping[str, str]
    value: float


class Endpoint:
    """A metrics page behind an URL, on a connection that is kept."""

    def __init__(self, url: str) -> None:
        self.url = url
        timeout = urllib3.Timeout(connect=CONNECT_S, read=READ_S)
        self._pool = urllib3.PoolManager(num_pools=1, maxsize=2, timeout=timeout, retries=False)

    def rows(self) -> list[Row]:
        """The page's samples. Raises PageProblem."""
        return list(parse(self._fetch()))

    def _fetch(self) -> str:
        try:
            reply = self._pool.request("GET", self.url, preload_content=False)
            body = reply.read(PAGE_LIMIT + 1)
            # A connection with an unread rest cannot be used again.
            reply.release_conn() if len(body) <= PAGE_LIMIT else reply.close()
        except urllib3.exceptions.HTTPError as error:
            raise PageProblem(f"{self.url}: {_plain(error)}") from error
        if reply.status != 200:
            raise PageProblem(f"{self.url}: HTTP {reply.status}")
        if len(body) > PAGE_LIMIT:
            raise PageProblem(f"{self.url}: the page is larger than {PAGE_LIMIT >> 20} MiB")
        if not body.strip():
            raise PageProblem(f"{self.url}: the page is empty")
        try:
            return body.decode()
        except UnicodeDecodeError:
            raise PageProblem(f"{self.url}: the page is no text") from None


def parse(text: str) -> Iterator[Row]:
    """Yield the samples of a page. Raises PageProblem where it is no Prometheus text."""
    from prometheus_client.parser import text_string_to_metric_families

    # The parser follows OpenMetrics and gives a counter's samples the name with `_total`, whatever the page calls
    # them; only names that the page itself ends so keep it.
    renamed = {f"{name}_total": name for name in _COUNTER.findall(text) if not name.endswith("_total")}
    try:
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if isfinite(sample.value):
                    yield Row(renamed.get(sample.name, sample.name), sample.labels, sample.value)
    except (ValueError, KeyError, IndexError) as error:
        raise PageProblem(f"not a Prometheus page ({error})") from None


def _plain(error: Exception) -> str:
    if isinstance(error, urllib3.exceptions.ConnectTimeoutError):
        return f"no connection within {CONNECT_S:g} s"
    if isinstance(error, urllib3.exceptions.ReadTimeoutError):
        return f"no page within {READ_S:g} s"
    if isinstance(error, urllib3.exceptions.NewConnectionError):
        return "connection refused" if "refused" in str(error).lower() else "cannot connect"
    if isinstance(error, urllib3.exceptions.LocationParseError | urllib3.exceptions.LocationValueError):
        return "is no URL"
    return str(error)
