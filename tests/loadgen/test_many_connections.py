"""A thousand requests in flight: connections of a process, and the limit on them. The server is bench/stub.py, in a process of its own."""

from __future__ import annotations

import importlib
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest

from model_analyzer.core.load import EncodedRequest, Load, LoadOrder, RequestSet
from model_analyzer.errors import LoadGeneratorError
from model_analyzer.loadgen.client import ProcessLoadGenerator

BENCH = Path(__file__).resolve().parents[2] / "bench"
MANY = 1024
HEAD = b"POST / HTTP/1.1\r\nHost: stub\r\nContent-Length: 4\r\n\r\n"
MESSAGES = {"http": EncodedRequest(HEAD, b"body"), "grpc": EncodedRequest(b"\0\0\0\0\x04", b"body")}
Protocol = Literal["http", "grpc"]


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.syspath_prepend(str(BENCH))
    with importlib.import_module("stub").running() as address:
        yield address


@pytest.fixture
def generator() -> Iterator[ProcessLoadGenerator]:
    generator = ProcessLoadGenerator()
    yield generator
    generator.close()


def order(address: str, protocol: Protocol, load: Load) -> LoadOrder:
    return LoadOrder(address, load, RequestSet(protocol, (MESSAGES[protocol],), 1), timeout_s=60.0)


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_1024_requests_are_in_flight_and_each_comes_back(
    address: str, generator: ProcessLoadGenerator, protocol: Protocol
) -> None:
    successes, most = 0, 0
    with generator.run(order(address, protocol, Load("concurrency", MANY))) as batches:
        for batch in batches:
            assert not batch.failures
            successes += len(batch.done_ns)
            most = max(most, batch.inflight)
            if successes >= 8 * MANY and most == MANY:
                break
    assert most == MANY


@pytest.fixture
def few_files(monkeypatch: pytest.MonkeyPatch) -> int:
    """The hard limit of open files that the load generator's process is born with."""
    import subprocess

    limit, popen = 64, subprocess.Popen
    lowered = lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))  # noqa: E731
    monkeypatch.setattr(subprocess, "Popen", lambda *args, **options: popen(*args, preexec_fn=lowered, **options))
    return limit


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_a_limit_on_open_files_that_is_too_low_is_said_with_what_to_do(
    address: str, few_files: int, generator: ProcessLoadGenerator, protocol: Protocol
) -> None:
    message = (
        rf"load generator: OSError: no socket for more than \d+ connections, a process may have {few_files} files open; "
        r"raise that hard limit \(ulimit -Hn\), use more workers, or lower the load"
    )
    asked = order(address, protocol, Load("concurrency", MANY))
    with pytest.raises(LoadGeneratorError, match=message), generator.run(asked) as batches:
        for _ in batches:
            pass
