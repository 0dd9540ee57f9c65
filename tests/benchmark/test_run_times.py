"""What a run took beside its measured seconds is read from its store."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench.run_times import last_run, times


def at(second: float) -> str:
    return f"2026-01-01T10:00:{second:06.3f}+00:00"


def a_slice(phase: str, second: float, measured_s: float = 0.5, repeat: int = 0) -> dict[str, Any]:
    stats = {"duration_ns": round(measured_s * 1e9)}
    return {"kind": "slice", "data": {"phase_id": phase, "started_at": at(second), "stats": stats, "repeat": repeat}}


def a_row(phase: str, variant: str) -> dict[str, Any]:
    return {"kind": "measurement", "data": {"phase": {"id": phase, "variant": {"name": variant}}}}


RUN = {"kind": "run", "data": {"at": at(0)}}
BASELINE = {"kind": "baseline", "data": {"finished_at": at(5), "seconds": 3.0}}


def test_a_slice_a_load_and_the_start_of_the_server() -> None:
    records = [
        RUN,
        BASELINE,
        a_slice("a", 6),
        a_slice("b", 6.9),
        a_slice("a", 7.8),
        a_slice("c", 11.7),
        a_slice("c", 12.6),
    ]
    rows = [a_row("a", "one"), a_row("b", "one"), a_row("c", "two")]
    found = times([*records, *rows])
    assert found["slice"] == pytest.approx([0.4, 0.4, 0.4])
    # 3.9 s from the last slice of the variant before, of which it measured 0.5 s and took 0.4 s besides.
    assert found["variant"] == pytest.approx([3.0])
    assert found["server"] == [2.0]


def test_another_repeat_loads_the_model_anew() -> None:
    records = [RUN, a_slice("a", 1), a_slice("a", 2), a_slice("a", 6, repeat=1), a_row("a", "one")]
    assert times(records)["variant"] == pytest.approx([3.0])


def test_only_the_last_run_counts_and_what_it_does_not_tell_is_not_there(tmp_path: Path) -> None:
    store = tmp_path / "measurements.jsonl"
    store.write_text(
        "".join(json.dumps(each) + "\n" for each in (RUN, BASELINE, a_slice("a", 1), a_slice("a", 2), RUN))
    )
    assert times(last_run(store)) == {"slice": [], "variant": [], "server": []}
