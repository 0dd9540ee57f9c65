"""The regression guard of the load generator's cost: it holds, and notices a request, or a response, that costs a multiple."""

from __future__ import annotations

import importlib
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from model_analyzer.loadgen.http import HttpDriver
from model_analyzer.loadgen.responses import Responses

BENCH = Path(__file__).resolve().parents[2] / "bench"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The guard as a module, cut down to one case, and the address of its stub."""
    monkeypatch.syspath_prepend(str(BENCH))
    monkeypatch.setattr(sys, "argv", ["client_guard"])
    module = importlib.import_module("client_guard")
    monkeypatch.setattr(module, "CASES", (("http", 1),))
    with module.stub.running() as address:
        yield module, address


@pytest.mark.parametrize("kind", ["http", "generate_stream", "stream_infer"])
def test_the_limits_hold(bench: tuple[ModuleType, str], monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    module, address = bench
    monkeypatch.setattr(module, "CASES", ((kind, 1),))
    assert module.guard(address) == []


def test_each_case_has_its_limits(bench: tuple[ModuleType, str]) -> None:
    module, _ = bench
    cases = {f"{kind}, c = {concurrency}" for kind in module.KINDS for concurrency in (1, 8)}
    assert set(json.loads(module.LIMITS.read_text())) == cases


@pytest.mark.parametrize("kind", ["generate_stream", "stream_infer"])
def test_twice_the_bytecode_of_a_response_breaks_them(
    bench: tuple[ModuleType, str], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    module, address = bench
    limit = json.loads(module.LIMITS.read_text())[f"{kind}, c = 1"]["bytecodes"]
    slow: dict[str, Any] = {"before": Responses.came}
    source = f"def came(*given):\n for n in range({limit // 4}): n\n return before(*given)"
    exec(compile(source, f"{module.OWN}/slow.py", "exec"), slow)
    monkeypatch.setattr(Responses, "came", slow["came"])
    assert module.bytecodes(address, kind, 1) > limit


def test_twice_the_bytecode_breaks_them(bench: tuple[ModuleType, str], monkeypatch: pytest.MonkeyPatch) -> None:
    module, address = bench
    slow: dict[str, Any] = {"before": HttpDriver._received}
    source = "def received(*given):\n for n in range(60): n\n return before(*given)"
    exec(compile(source, f"{module.OWN}/slow.py", "exec"), slow)
    monkeypatch.setattr(HttpDriver, "_received", slow["received"])
    assert any("http, c = 1: bytecodes is" in each for each in module.guard(address))


def test_a_multiple_of_the_cpu_breaks_them(bench: tuple[ModuleType, str], monkeypatch: pytest.MonkeyPatch) -> None:
    module, address = bench
    received = HttpDriver._received
    # Far above the limit: the same CPU does not get as much done at any time of a machine that others use, too.
    bare_ns = module._bare(address, "http", 1)

    def multiplied(*given: Any) -> None:
        until = time.process_time_ns() + 10 * bare_ns
        while time.process_time_ns() < until:
            pass
        received(*given)

    monkeypatch.setattr(HttpDriver, "_received", multiplied)
    (broken,) = module.guard(address)
    assert "http, c = 1: of a bare loop is" in broken
