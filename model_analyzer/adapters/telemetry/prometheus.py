"""Fetch and parse one Prometheus page; whatever is wrong with it is one line of text."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from math import isfinite
from time import monotonic_ns

from model_analyzer.adapters.web import Site, WebError
from model_analyzer.core.telemetry import Page
from model_analyzer.core.wording import printable, without_secrets

# READ_S is for the whole page, headers to last byte.
CONNECT_S, READ_S = 1.0, 2.0
PAGE_LIMIT = 32 << 20
_SHOWN = 60  # characters of a broken line
# A page of labels that change each time (a job's id, a timestamp) must not fill the memory.
_MOST_KNOWN = 50_000
# What the parser reads as a number; the group: it is no integer.
_NUMBER = re.compile(r"[+-]?\d{1,300}(\.\d{1,30}(?:[eE][+-]?\d{1,3})?|[eE][+-]?\d{1,3})?", re.ASCII)
# A name and labels as nearly all pages have them: no escape, no space. The others are the parser's.
_LABEL = r'[a-zA-Z_][a-zA-Z0-9_]*="[^"\\{}#]*"'
_PLAIN_HEAD = re.compile(rf"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{{((?:{_LABEL}(?:,{_LABEL})*)?)\}})?")


class PageProblem(Exception):  # noqa: N818 -- a finding, turned into a page's `problem`
    """Why there is no page."""


@dataclass(frozen=True, slots=True, eq=False)
class Head:
    """What stands before a value. A source has one object for the same text in all its pages: what it means is found out once."""

    name: str
    labels: Mapping[str, str]


# One sample line. The value is an int where the page writes one, so that a 64-bit sentinel stays exact.
Row = tuple[Head, float]


@dataclass(frozen=True, slots=True)
class Parsed:
    """The samples asked for. problem: which of their lines cannot be read; None: none."""

    rows: tuple[Row, ...]
    problem: str | None = None


# What stands before the value on a line, as it is written -> what the parser found there.
Known = dict[str, Head]


class Endpoint:
    """A metrics page behind an URL, on a connection that is kept. prefix: of the names wanted from it."""

    def __init__(self, url: str, prefix: str) -> None:
        self.url = url
        self._prefix = prefix
        self._site: Site | None = None
        self._known: Known = {}
        self._last: tuple[bytes, Parsed] | None = None

    def read(self) -> Parsed:
        """The page's samples; the very same object where the page is byte for byte the one before.

        Raises PageProblem, its text with the URL.
        """
        try:
            body = self._fetch()
            last = self._last
            if last is None or last[0] != body:
                last = self._last = body, self._parsed(body)
        except PageProblem as problem:
            raise PageProblem(f"{without_secrets(self.url)}: {problem}") from None
        return last[1]

    def _parsed(self, body: bytes) -> Parsed:
        try:
            parsed = parse(body.decode(), self._prefix, self._known)
        except UnicodeDecodeError:
            raise PageProblem("the page is no text") from None
        return (
            parsed if parsed.problem is None else Parsed(parsed.rows, f"{without_secrets(self.url)}: {parsed.problem}")
        )

    def _fetch(self) -> bytes:
        try:
            self._site = site = self._site or Site(self.url, CONNECT_S)
            status, body = site.request("GET", site.target, read_s=READ_S, whole_s=READ_S, most_bytes=PAGE_LIMIT)
        except WebError as error:
            raise PageProblem(str(error)) from error
        if status != 200:
            raise PageProblem(f"HTTP {status}")
        if not body.strip():
            raise PageProblem("the page is empty")
        return body


def parse(text: str, prefix: str = "", known: Known | None = None) -> Parsed:
    """The samples of a page whose names begin with `prefix`.

    known: from earlier pages of the source, and added to. The parser reads what stands before a value once; a plain
    number after the same text is all that is new (of 8 GPUs' page a 35th of the time).
    A line that cannot be read costs that line only. Raises PageProblem where nothing can be read.
    Comments are left out before the parser sees them: it follows OpenMetrics and gives the samples under a
    `# TYPE x counter` the name `x_total`, whatever the page calls them.
    """
    known = {} if known is None else known
    lines = list(map(str.strip, text.split("\n")))
    wanted = [line for line in lines if line.startswith(prefix) and line and not line.startswith("#")]
    rows: list[Row] = []
    broken: list[str] = []
    # Where none is wanted the first line shows whether it is a page at all.
    for line in wanted or [line for line in lines if line and not line.startswith("#")][:1]:
        # No time stamp, no exemplar: those are no part of what is known.
        text_of_head, _, number = line.rpartition(" ")
        head = known.get(text_of_head)
        if head is not None and (plain := _NUMBER.fullmatch(number)):
            value = float(number) if plain[1] else int(number)
            if isfinite(value):
                rows.append((head, value))
            continue
        try:
            rows += _rows_of(line, known)
        except _BROKEN:
            broken.append(_shown(line, _SHOWN))
    if broken and not rows:
        raise PageProblem(f"not a Prometheus page (cannot read `{broken[0]}`)")
    more = f" and {len(broken) - 1} more" if len(broken) > 1 else ""
    return Parsed(tuple(rows) if wanted else (), f"cannot read the line `{broken[0]}`{more}" if broken else None)


# What the parser raises for a line that is no sample; OverflowError: an integer beyond any float.
_BROKEN = (ValueError, KeyError, IndexError, OverflowError)


def _rows_of(line: str, known: Known) -> Iterable[Row]:
    """What one line says: one sample, or none where its value is no number."""
    before, brace, tail = line.rpartition("}")
    if not brace:
        before, _, tail = line.partition(" ")
    text, number = before + brace, tail.strip(" \t")
    plain = _NUMBER.fullmatch(number)
    if plain is None or (brace and not tail.startswith((" ", "\t"))):
        return tuple(_rows([line]))
    value = float(number) if plain[1] else int(number)
    head = known.get(text) or _plain_head(text)
    if head is not None:
        rows: tuple[Row, ...] = ((head, value),) if isfinite(value) else ()
    else:
        rows = tuple(_rows([line]))
        # After a " # " stands an exemplar, perhaps, whose number is not the value.
        if len(rows) == 1 and rows[0][1] == value and " # " not in text:
            head = rows[0][0]
    if head is not None:
        _learn(known, text, head)
    return rows


def _plain_head(text: str) -> Head | None:
    """The name and labels before a value where they are as plain as they can be; None: the parser knows.

    To import the parser, which brings a web server with it, takes 3 % of a run's start.
    """
    match = _PLAIN_HEAD.fullmatch(text)
    if match is None:
        return None
    pairs = [pair.partition("=") for pair in match[2].split('",')] if match[2] else []
    labels = {name: quoted.strip('"') for name, _, quoted in pairs}
    return Head(match[1], labels) if len(labels) == len(pairs) else None


def _learn(known: Known, text: str, head: Head) -> None:
    if len(known) >= _MOST_KNOWN:
        known.clear()
    known[text] = head


def _rows(lines: Iterable[str]) -> Iterator[Row]:
    from prometheus_client.parser import text_string_to_metric_families

    for family in text_string_to_metric_families("\n".join(lines)):
        for sample in family.samples:
            if isfinite(sample.value):
                yield Head(sample.name, sample.labels), sample.value


def _shown(text: str, most: int) -> str:
    """What a source said, fit for one line of a table."""
    plain = printable(text)
    return plain if len(plain) <= most else f"{plain[:most]}..."


class PageSampler:
    """A ports.Sampler of a Prometheus page.

    name: the source. prefix: of the names wanted. page_of: from the rows, the time in ns and the URL to the Page.
    """

    def __init__(self, name: str, url: str, prefix: str, page_of: Callable[[Iterable[Row], int, str], Page]) -> None:
        self.name = name
        self.origin = without_secrets(url)
        self._endpoint = Endpoint(url, prefix)
        self._page_of = page_of
        self._last: tuple[Parsed, Page] | None = None

    def sample(self) -> Page:
        """Scrape once; bounded in time, never raises."""
        before = monotonic_ns()
        try:
            parsed = self._endpoint.read()
        except PageProblem as problem:
            return Page(self.name, self.origin, monotonic_ns(), problem=str(problem))
        took_ns = monotonic_ns() - before
        time_ns = before + took_ns // 2
        last = self._last
        if last is None or last[0] is not parsed:
            page = self._page_of(parsed.rows, time_ns, self.origin)
            last = self._last = parsed, replace(page, problem=parsed.problem or page.problem)
        # An exporter that is scraped more often than it refreshes shows the same page again: nothing of it is new.
        return replace(last[1], time_ns=time_ns, took_ns=took_ns)
