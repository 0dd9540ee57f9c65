"""Whole sweeps of two models beside Triton Model Analyzer: how long each takes, and how far ten of them agree.

Both tools get the same YAML for the same server: 2 models x batch size {1, 4} x concurrency {1, 4}, 8 rows and the server-only
baseline of 3 s, over gRPC. They take turns, in reverse in every second round; the curve's other settings join some rounds.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from bench.versus import ours, quiet, rival_analyzer
from bench.versus.context import Context
from bench.versus.cost import fresh_folder
from bench.versus.spent import CommandError, run

OURS, THEIRS = "model-analyzer", "Triton Model Analyzer"
DEFAULTS = "defaults"
BOTH = {
    "profile_models": ["add_sub", "magika"],
    "batch_sizes": [1, 4],
    "concurrency": [1, 4],
    "client_protocol": "grpc",
}
ROWS = 8


def _fixed(seconds: float, slice_s: float = 0.5) -> dict[str, Any]:
    return {"stop_rule": "fixed", "min_seconds": seconds, "max_seconds": seconds, "slice_seconds": slice_s}


# (tool, setting) -> our keys, or perf_analyzer's flags.
SETTINGS: dict[tuple[str, str], dict[str, Any]] = {
    (OURS, "0.5 s a row"): _fixed(0.5),
    (THEIRS, DEFAULTS): {},
    (OURS, "1.3 s a row"): _fixed(1.3, 0.65),
    (OURS, "2 s a row"): _fixed(2.0),
    (OURS, DEFAULTS): {},
    (THEIRS, "windows of 20 requests"): {"measurement-request-count": 20},
}
# The goals are judged by those of every round; the others are points of the curve, with a CV from three sweeps on.
EVERY_ROUND = ((OURS, "0.5 s a row"), (THEIRS, DEFAULTS), (OURS, "1.3 s a row"))
SWEEPS = 10
CURVE_SWEEPS = {(OURS, "2 s a row"): 4, (OURS, DEFAULTS): 1, (THEIRS, "windows of 20 requests"): 4}
RUN_TIMEOUT_S = 600.0
# Enough to see that it works.
QUICK_FLAGS = {"measurement-mode": "time_windows", "measurement-interval": 300, "stability-percentage": 999}


def sweep(context: Context) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Settings, and a record a sweep. A sweep that fails has its error in its record."""
    rounds = 1 if context.quick else SWEEPS
    order = list(schedule(rounds, {} if context.quick else CURVE_SWEEPS))
    records = []
    for number, place in enumerate(order, 1):
        record = {**place, **_swept(context, place["side"], place["setting"])}
        records.append(record)
        context.keep(record)
        what = record.get("error") or f"{record['wall_s']:.1f} s, {len(record['rows'])} rows"
        context.say(f"[{number}/{len(order)}] {place['side']}, {place['setting']}: {what}")
    flags = {f"{side}, {setting}": keys for (side, setting), keys in SETTINGS.items()}
    return {**BOTH, "settings": flags, "sweeps": rounds}, records


def schedule(rounds: int, curve: Mapping[tuple[str, str], int]) -> Iterator[dict[str, Any]]:
    """A B C, then C B A. curve: other settings -> how many rounds they join, spread evenly over all."""
    joins = {name: {n * rounds // count + 1 for n in range(count)} for name, count in curve.items()}
    for number in range(1, rounds + 1):
        names = [name for name in SETTINGS if name in EVERY_ROUND or number in joins.get(name, ())]
        for side, setting in names if number % 2 else names[::-1]:
            yield {"round": number, "side": side, "setting": setting}


def _swept(context: Context, side: str, setting: str) -> dict[str, Any]:
    """A sweep from its start to its end; beforehand nothing is loaded."""
    folder = fresh_folder(context)
    try:
        context.server.only()
        keys = SETTINGS[side, setting]
        start = quiet.mark(context.server.cpu_s())
        if side == OURS:
            found = _ours(context, folder, keys)
        else:
            found = _theirs(context, folder, QUICK_FLAGS if context.quick else keys)
        return {**found, "others_cores": quiet.others(start, quiet.mark(context.server.cpu_s()), found["cpu_s"])}
    except (CommandError, OSError, ValueError, KeyError) as error:
        return {"error": f"{type(error).__name__}: {error}", "rows": {}}


def _ours(context: Context, folder: Path, keys: Mapping[str, Any]) -> dict[str, Any]:
    job = {**context.server.keys(), **BOTH, **keys, "export_path": str(folder)}
    file = folder / "job.yaml"
    file.write_text(yaml.safe_dump(job))
    started = time.time()
    # 4: some rows failed; they count as not there, as those that Triton Model Analyzer leaves out.
    spent = run(ours.command(file), folder / "log", RUN_TIMEOUT_S, fine=(0, 4))
    table_s = (folder / "metrics-model-inference.csv").stat().st_mtime - started
    rows = ours.read_store((folder / ours.STORE).read_text())
    return {
        "wall_s": spent.wall_s,
        "table_s": table_s,
        "cpu_s": spent.cpu_s,
        "rows": {name: row["throughput"] for name, row in rows.items()},
        "not_ok": sum(row["status"] != "ok" for row in rows.values()),
    }


def _theirs(context: Context, folder: Path, flags: Mapping[str, Any]) -> dict[str, Any]:
    assert context.rivals.model_analyzer is not None
    config = rival_analyzer.config({**context.server.keys(), **BOTH}, context.rivals.perf_analyzer, folder, flags)
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump(config))
    started = time.time()
    command = [str(context.rivals.model_analyzer), "profile", "-f", str(file)]
    # Its package has the name of ours: it must not find ours by our path.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    spent = run(command, folder / "log", RUN_TIMEOUT_S, environment=environment)
    table = rival_analyzer.table(folder)
    return {
        "wall_s": spent.wall_s,
        # Its reports with plots come after the table.
        "table_s": table.stat().st_mtime - started,
        "cpu_s": spent.cpu_s,
        "rows": rival_analyzer.read_table(table.read_text()),
    }
