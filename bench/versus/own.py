"""The benchmarks without a rival: each file's `measure` in a process of its own, so that none disturbs another.

`measure(quick: bool)` returns {"figures": [{"name", "value", "unit", and maybe "goal", "met"}], "raw": anything JSON}. Of a file that returns
its figures under names of its own, the goals stand here.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.versus.context import Context
from bench.versus.cost import fresh_folder
from bench.versus.spent import CommandError, run

FOLDER = Path(__file__).resolve().parents[1]
TIMEOUT_S = 900.0
# The file runs as it does by itself: its folder first on the path.
CALL = """
import importlib, inspect, json, pathlib, sys
folder, name, output, quick, less = sys.argv[1:]
sys.path[:0] = [folder, str(pathlib.Path(folder).parent)]
sys.path[:0] = [str(pathlib.Path(folder).parent / "tests" / "core")] if name == "statistics_bench" else []
measure = importlib.import_module(name).measure
asked = quick == "1"
given = {"quick": asked} if "quick" in inspect.signature(measure).parameters else json.loads(less) if asked else {}
pathlib.Path(output).write_text(json.dumps(measure(**given)))
"""


@dataclass(frozen=True, slots=True)
class Named:
    """A figure by its key in what `measure` returns. at_most: its goal."""

    key: str
    name: str
    unit: str
    at_most: float | None = None


@dataclass(frozen=True, slots=True)
class Own:
    """A file of bench/. less: arguments of a quick run, figures: what it returns; both where it has not `quick`."""

    module: str
    less: Mapping[str, Any] = field(default_factory=dict)
    figures: tuple[Named, ...] = ()


FILES = (
    Own(
        "telemetry_cost",
        {"pairs": 2},
        (
            Named("throughput_cost", "telemetry at 100 ms for 8 GPUs: share of the throughput", "", 0.01),
            Named("throughput_cost_low", "the same, lower end of its 95 % interval", ""),
            Named("throughput_cost_high", "the same, upper end of its 95 % interval", ""),
            Named("cpu_share", "the same: CPU of the analyzer's process, of one core", ""),
        ),
    ),
    Own(
        "store_scale",
        {"phases": 200, "runs": 1},
        (
            Named("resume_rss_mb", "store of 10,000 phases: memory when it is open", "MB", 150),
            Named("resume_s", "store of 10,000 phases: resume", "s", 1),
            Named("tables_s", "store of 10,000 phases: tables", "s", 2),
            Named("tables_peak_mb", "store of 10,000 phases: most memory while the tables are made", "MB"),
        ),
    ),
    Own("startup"),
    Own("capacity"),
    Own("memory"),
    Own("statistics_bench"),
)


def has_measure(module: str) -> bool:
    """Whether the file is there and can be asked."""
    file = FOLDER / f"{module}.py"
    return file.exists() and re.search(r"^def measure\(", file.read_text(), re.MULTILINE) is not None


def own(context: Context) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Settings, and a record a file. One that fails has its error in its record."""
    records = []
    for each in FILES:
        if not has_measure(each.module):
            context.say(f"bench/{each.module}.py has no measure(); left out")
            continue
        context.say(f"bench/{each.module}.py")
        records.append({"module": each.module, **measured(context, each)})
        context.keep(records[-1])
    return {}, records


def measured(context: Context, each: Own) -> dict[str, Any]:
    """What it returns, checked, with the seconds that it took."""
    folder = fresh_folder(context)
    output = folder / "measured.json"
    quick, less = "1" if context.quick else "0", json.dumps(dict(each.less))
    try:
        command = [sys.executable, "-c", CALL, str(FOLDER), each.module, str(output), quick, less]
        spent = run(command, folder / "log", TIMEOUT_S)
        return {"seconds": spent.wall_s, **checked(json.loads(output.read_text()), each.figures)}
    except (CommandError, OSError, ValueError) as error:
        context.say(f"bench/{each.module}.py: {error}")
        return {"error": f"{type(error).__name__}: {error}"}


def checked(found: Any, named: tuple[Named, ...] = ()) -> dict[str, Any]:
    """Raises ValueError where it is not what a page can be made of."""
    if isinstance(found, dict) and "figures" not in found and named:
        return {"figures": [_figure(found, each) for each in named], "raw": found}
    if not isinstance(found, dict) or not isinstance(found.get("figures"), list):
        raise ValueError("measure() returned no figures")
    for figure in found["figures"]:
        if not {"name", "value", "unit"} <= set(figure):
            raise ValueError(f"a figure needs name, value and unit: {figure}")
    return {"figures": found["figures"], "raw": found.get("raw")}


def _figure(found: Mapping[str, Any], named: Named) -> dict[str, Any]:
    value = found.get(named.key)
    figure = {"name": named.name, "value": value, "unit": named.unit}
    if named.at_most is None:
        return figure
    return {**figure, "goal": named.at_most, "met": None if value is None else value < named.at_most}
