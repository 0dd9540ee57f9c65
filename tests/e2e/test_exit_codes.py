"""Every exit code that is documented, from the command as a user runs it."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from e2e_tools import Job
from fault_tools import started

from model_analyzer.adapters.triton.launch import free_ports
from model_analyzer.errors import EXIT_CODES

pytestmark = pytest.mark.triton

Make = Callable[..., Job]
Keys = Mapping[str, Any]


def _all_measured(make: Make, remote: Keys) -> int:
    return make(["add_sub"], **remote).profile().returncode


def _wrong_spec(make: Make, remote: Keys) -> int:
    done = make(["add_sub"], batch_size=[1], **remote).profile()
    assert "batch_size" in done.stderr
    assert "batch_sizes" in done.stderr
    return done.returncode


def _no_server(make: Make, remote: Keys) -> int:
    nowhere = f"127.0.0.1:{free_ports('127.0.0.1', 1)[0]}"
    done = make(["add_sub"], **{**remote, "triton_grpc_endpoint": nowhere, "client_max_retries": 1}).profile()
    assert f"error: {nowhere}: no Triton server answers over grpc after 1 try" in done.stderr
    return done.returncode


def _phase_failed(make: Make, remote: Keys) -> int:
    done = make(["absent"], **remote).profile()
    assert "failed to poll from model repository" in done.stdout
    return done.returncode


def _constraints_unmet(make: Make, remote: Keys) -> int:
    return make(["add_sub"], constraints={"perf_throughput": {"min": 1e12}}, **remote).profile().returncode


def _not_writable(make: Make, remote: Keys) -> int:
    (Path(make([]).export_path).parent / "file").write_text("")
    done = make(["add_sub"], export_path=make([]).export_path.parent / "file" / "below", **remote).profile()
    assert "a part of that path is a file" in done.stderr
    return done.returncode


def _interrupted_by(signum: int) -> Callable[[Make, Keys], int]:
    def run(make: Make, remote: Keys) -> int:
        with started(make(["add_sub"], duration_seconds=60, **remote)) as process:
            process.wait_for_line("server-only baseline")
            process.process.send_signal(signum)
            return process.end()

    return run


SCENARIOS = {
    0: _all_measured,
    2: _wrong_spec,
    3: _no_server,
    4: _phase_failed,
    5: _constraints_unmet,
    6: _not_writable,
    130: _interrupted_by(signal.SIGINT),
    143: _interrupted_by(signal.SIGTERM),
}


@pytest.mark.parametrize("code", SCENARIOS)
def test_exit_code(code: int, make_job: Make, remote: Keys) -> None:
    assert SCENARIOS[code](make_job, remote) == code


def test_every_documented_code_has_a_scenario() -> None:
    """But for 1: a bug has no scenario."""
    assert set(SCENARIOS) == set(EXIT_CODES) - {1}
