"""The benchmarks without a rival: each file's `measure(quick)` in a process of its own, so that none disturbs another.

`measure` returns {"figures": [{"name", "value", "unit", and maybe "goal", "met"}], "raw": anything JSON}.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from bench.versus.context import Context
from bench.versus.cost import fresh_folder
from bench.versus.spent import CommandError, run

FOLDER = Path(__file__).resolve().parents[1]
MODULES = ("telemetry_cost", "store_scale", "startup", "capacity", "statistics_bench")
TIMEOUT_S = 900.0
# The file runs as it does by itself: its folder first on the path.
CALL = """
import importlib, json, pathlib, sys
folder, name, output, quick = sys.argv[1:]
sys.path[:0] = [folder, str(pathlib.Path(folder).parent)]
sys.path[:0] = [str(pathlib.Path(folder).parent / "tests" / "core")] if name == "statistics_bench" else []
measured = importlib.import_module(name).measure(quick=quick == "1")
pathlib.Path(output).write_text(json.dumps(measured))
"""


def has_measure(module: str) -> bool:
    """Whether the file is there and can be asked."""
    file = FOLDER / f"{module}.py"
    return file.exists() and "def measure(quick" in file.read_text()


def own(context: Context) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Settings, and a record a file. One that fails has its error in its record."""
    records = []
    for module in MODULES:
        if not has_measure(module):
            context.say(f"bench/{module}.py has no measure(); left out")
            continue
        context.say(f"bench/{module}.py")
        records.append({"module": module, **measured(context, module)})
    return {}, records


def measured(context: Context, module: str) -> dict[str, Any]:
    """What it returns, checked, with the seconds that it took."""
    folder = fresh_folder(context)
    output = folder / "measured.json"
    command = [sys.executable, "-c", CALL, str(FOLDER), module, str(output), "1" if context.quick else "0"]
    try:
        spent = run(command, folder / "log", TIMEOUT_S)
        return {"seconds": spent.wall_s, **checked(json.loads(output.read_text()))}
    except (CommandError, OSError, ValueError) as error:
        context.say(f"bench/{module}.py: {error}")
        return {"error": f"{type(error).__name__}: {error}"}


def checked(found: Any) -> dict[str, Any]:
    """Raises ValueError where it is not what a page can be made of."""
    if not isinstance(found, dict) or not isinstance(found.get("figures"), list):
        raise ValueError("measure() returned no figures")
    for figure in found["figures"]:
        if not {"name", "value", "unit"} <= set(figure):
            raise ValueError(f"a figure needs name, value and unit: {figure}")
    return {"figures": found["figures"], "raw": found.get("raw")}
