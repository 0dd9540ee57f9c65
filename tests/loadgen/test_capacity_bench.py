"""bench/capacity.py counts as its stub does, over both protocols, however many processes send."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from bench import capacity
from model_analyzer.core.load import Protocol


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("cc") is None:
        pytest.skip("no C compiler to build the stub with")
    return capacity.build(tmp_path_factory.mktemp("stub"))


@pytest.mark.parametrize("protocol", ["http", "grpc"])
@pytest.mark.parametrize("workers", [1, 3])
def test_client_and_stub_count_alike(program: Path, protocol: Protocol, workers: int) -> None:
    run = capacity.drive(program, protocol, in_flight=50, workers=workers, seconds=0.3, threads=2)
    assert run.requests > 0
    assert (run.requests, run.failures) == (run.served, 0)
    assert len(run.cpu) == workers


def test_every_request_in_flight_has_its_turn(program: Path) -> None:
    run = capacity.drive(program, "http", in_flight=1024, workers=2, seconds=1.0)
    assert run.connections == 1024
    assert run.slowest > 0
    assert run.requests == run.served


def test_without_a_compiler_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(capacity.CapacityError, match="build-essential"):
        capacity.build(tmp_path)


def test_a_stub_that_does_not_compile_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("cc") is None:
        pytest.skip("no C compiler")
    (tmp_path / "stub.c").write_text("int main(void) { return x; }\n")
    monkeypatch.setattr(capacity, "SOURCE", tmp_path / "stub.c")
    with pytest.raises(capacity.CapacityError) as caught:
        capacity.build(tmp_path)
    assert "\n" not in str(caught.value)
