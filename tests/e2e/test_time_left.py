"""The time that a run says is left, against the time that it took."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime

import pytest
from e2e_tools import Job

pytestmark = pytest.mark.triton


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_from_half_way_on_the_end_is_known(make_job: Callable[..., Job], protocol: str) -> None:
    """A wide bound: tests share their cores, and what they take changes meanwhile."""
    two = {"add_sub": {"model_config_parameters": {"instance_group": [{"kind": "KIND_CPU", "count": 2}]}}}
    job = make_job(two, concurrency=[1, 4], repeats=2, min_seconds=1, max_seconds=2, client_protocol=protocol)
    done = job.profile("--log-format", "json")
    assert done.returncode == 0, done.stderr
    told = [json.loads(line) for line in done.stderr.splitlines()]
    told = [each for each in told if "eta_s" in each]
    begin, *_, end = (datetime.fromisoformat(each["time"].replace("Z", "+00:00")) for each in told)
    took_s = (end - begin).total_seconds()
    for each in told:
        at_s = (datetime.fromisoformat(each["time"].replace("Z", "+00:00")) - begin).total_seconds()
        if at_s > took_s / 2:
            assert abs(at_s + each["eta_s"] - took_s) < took_s, (at_s, each, took_s)
    assert told[-1]["eta_s"] == 0
    assert (told[-1]["done"], told[-1]["total"]) == (8, 8)
