"""docs/benchmarks.md out of the results: text, figures and verdicts. Pure but for the notes beside it.

Every number on the page is in docs/benchmarks.json or is worked out from it here; what a person adds stands in bench/notes.md.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.versus import cost, sweep
from bench.versus.figures import Figure, Goal, Run, number, paired, row_variations, spread, values_of

NOTES = Path(__file__).resolve().parents[1] / "notes.md"
# How long each part takes on 2 cores.
MINUTES = {"cost": 15, "sweep": 40, "payload": 6, "own": 10}
# Other load while a tool runs, from which on its figures are doubted.
DISTURBED_CORES = 0.3
Part = Mapping[str, Any]

CPU_GOALS = {"http": {1: 0.6, 8: 0.45, 64: 0.4}, "grpc": {1: 0.75, 8: 0.5, 64: 0.45}}
LARGE_CPU, LARGE_THROUGHPUT = Goal(0.4), Goal(1.2, at_most=False)
AS_MUCH, AS_FAST = Goal(1.0, at_most=False), Goal(1.0)
A_THIRD = Goal(1 / 3)
AT_LEAST_AS_REPEATABLE = Goal(1.0)
PROTOCOLS = {"http": "HTTP", "grpc": "gRPC"}


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table of goals."""

    what: str
    figure: Figure

    def line(self) -> str:
        value = self.figure.value
        cells = [self.what, str(self.figure.goal or ""), "-" if value is None else number(value)]
        return _line([*cells, spread(self.figure.values), self.figure.verdict()])


def render(document: Mapping[str, Any]) -> str:
    """The whole page."""
    parts: Mapping[str, Part] = document["parts"]
    blocks = [HEAD, *_warnings(parts)]
    if not parts:
        blocks.append("**No run is committed yet.** What follows says what will be measured, and how.")
    else:
        blocks += [_goals(parts), _misses(parts)]
    blocks.append(re.sub(r"<!--.*?-->", "", NOTES.read_text(encoding="utf-8"), flags=re.DOTALL).strip())
    blocks += [TITLES[name](parts.get(name)) for name in TITLES]
    blocks += [FOOTING, _where(parts)]
    return "\n\n".join(block for block in blocks if block) + "\n"


# -- the goals -----------------------------------------------------------------------------------------


def goal_rows(parts: Mapping[str, Part]) -> list[Row]:
    """What can be judged, of the parts that were run."""
    makers: dict[str, Callable[[Sequence[Run]], Iterable[Row]]] = {
        "cost": _cost_rows,
        "sweep": _sweep_rows,
        "payload": _payload_rows,
    }
    return [row for name, make in makers.items() if name in parts for row in make(parts[name]["runs"])]


def _cost_rows(runs: Sequence[Run]) -> Iterable[Row]:
    for protocol, concurrency, those in loads(runs):
        goal = Goal(CPU_GOALS[protocol][concurrency])
        where = f"{PROTOCOLS[protocol]}, c = {concurrency}"
        for theirs in (cost.SYNC, cost.ASYNC):
            # The goal over HTTP is set against perf_analyzer as it is called; over gRPC against both of its ways.
            judged = goal if protocol == "grpc" or theirs == cost.SYNC else None
            for whose, value in (("whole tool", "cpu_us"), ("load generator", "generator_us")):
                yield Row(
                    f"CPU a request, {where}: {whose} / `{theirs}`",
                    Figure(paired(those, cost.OURS, theirs, value), judged),
                )
        yield Row(f"throughput, {where} / `{cost.SYNC}`", _ratio(those, "throughput", AS_MUCH))
        yield Row(f"p50, {where} / `{cost.SYNC}`", _ratio(those, "p50_us", AS_FAST))


def _payload_rows(runs: Sequence[Run]) -> Iterable[Row]:
    for protocol, concurrency, those in loads(runs):
        where = f"602 kB, {PROTOCOLS[protocol]}, c = {concurrency}"
        yield Row(f"throughput, {where}", _ratio(those, "throughput", LARGE_THROUGHPUT))
        yield Row(f"CPU a request, {where}: whole tool", _ratio(those, "cpu_us", LARGE_CPU))
        yield Row(f"CPU a request, {where}: load generator", _ratio(those, "generator_us", LARGE_CPU))


def _sweep_rows(runs: Sequence[Run]) -> Iterable[Row]:
    setting = at_speed(runs)
    times = Figure(sweep_ratios(runs, setting), A_THIRD)
    yield Row(f"8-row sweep, time to the table: {setting} / Triton Model Analyzer", times)
    ratios = [mine / theirs for _, mine, theirs in variation_pairs(runs, setting)]
    yield Row(
        f"CV of throughput over sweeps, row by row: {setting} / Triton Model Analyzer",
        Figure(tuple(ratios), AT_LEAST_AS_REPEATABLE),
    )


def _ratio(runs: Sequence[Run], value: str, goal: Goal) -> Figure:
    return Figure(paired(runs, cost.OURS, cost.SYNC, value), goal)


def loads(runs: Sequence[Run]) -> Iterable[tuple[str, int, list[Run]]]:
    """Protocol, concurrency and their runs, in the order of the first."""
    keys = dict.fromkeys((run["protocol"], run["concurrency"]) for run in runs)
    for protocol, concurrency in keys:
        yield (
            protocol,
            concurrency,
            [run for run in runs if (run["protocol"], run["concurrency"]) == (protocol, concurrency)],
        )


def at_speed(runs: Sequence[Run]) -> str:
    """Our longest setting of every round that needs a third of their time at most; the shortest if none does."""
    ours = [setting for side, setting in settings_of(runs) if side == sweep.OURS]
    each = {name: of_setting(runs, sweep.OURS, name) for name in ours}
    rounds = max(len(those) for those in each.values())
    names = sorted(
        (name for name in ours if len(each[name]) == rounds),
        key=lambda name: min((run["table_s"] for run in each[name] if "error" not in run), default=0.0),
    )
    fits = [name for name in names if Figure(sweep_ratios(runs, name), A_THIRD).met]
    return fits[-1] if fits else names[0]


def sweep_ratios(runs: Sequence[Run], setting: str) -> tuple[float, ...]:
    """Our time with that setting / theirs with their defaults, round by round."""
    both = [
        run for run in runs if (run["side"], run["setting"]) in ((sweep.OURS, setting), (sweep.THEIRS, sweep.DEFAULTS))
    ]
    return paired(both, sweep.OURS, sweep.THEIRS, "table_s")


def settings_of(runs: Iterable[Run]) -> list[tuple[str, str]]:
    """Tool and setting, in the order in which they came."""
    return list(dict.fromkeys((run["side"], run["setting"]) for run in runs))


def of_setting(runs: Iterable[Run], side: str, setting: str) -> list[Run]:
    return [run for run in runs if (run["side"], run["setting"]) == (side, setting)]


def variation_pairs(runs: Sequence[Run], setting: str) -> list[tuple[str, float, float]]:
    """Name of a row, our CV, theirs with their defaults; rows for which both have one."""
    mine = row_variations(of_setting(runs, sweep.OURS, setting))
    theirs = row_variations(of_setting(runs, sweep.THEIRS, sweep.DEFAULTS))
    found = []
    for name, (own, _) in mine.items():
        other = theirs.get(name, (None, 0))[0]
        if own is not None and other:
            found.append((name, own, other))
    return found


def _own_lines(part: Part | None) -> list[str]:
    lines = []
    for record in part["runs"] if part else ():
        if "error" in record:
            lines.append(_line([f"`bench/{record['module']}.py`", "", "-", "", f"failed: {record['error']}"]))
        found = record.get("figures", ())
        lines += [_line([figure["name"], *_own_cells(figure), _own_verdict(figure)]) for figure in found]
    return lines


def _own_cells(figure: Mapping[str, Any]) -> list[str]:
    value, goal = figure["value"], figure.get("goal")
    shown = number(goal) if isinstance(goal, (int, float)) else str(goal or "")
    return [shown, "-" if value is None else f"{number(value)} {figure['unit']}".strip(), ""]


def _own_verdict(figure: Mapping[str, Any]) -> str:
    if figure.get("goal") is None:
        return ""
    met = figure.get("met")
    return "not judged" if met is None else "met" if met else "missed"


def _goals(parts: Mapping[str, Part]) -> str:
    rows = [row.line() for row in goal_rows(parts) if row.figure.goal is not None]
    text = "## Goals\n\nRatios: ours / theirs, the median of the pairs; *range*: smallest and largest pair (of the sweep's CV: row)."
    head = _table_head(["what", "goal", "figure", "range", "verdict"])
    return "\n".join([text, "", *head, *rows, *_own_lines(parts.get("own"))])


def _misses(parts: Mapping[str, Part]) -> str:
    missed = [f"- {row.what}: {row.figure.verdict()}." for row in goal_rows(parts) if row.figure.met is False]
    for record in parts.get("own", {}).get("runs", ()):
        missed += [f"- {figure['name']}." for figure in record.get("figures", ()) if figure.get("met") is False]
    return "\n".join(["## Missed", "", *(missed or ["Nothing of what was run."])])


# -- part by part --------------------------------------------------------------------------------------


def _cost_section(part: Part | None) -> str:
    return "\n\n".join([COST_TEXT, *_pairings(part)])


def _payload_section(part: Part | None) -> str:
    return "\n\n".join([PAYLOAD_TEXT, *_pairings(part)])


def _pairings(part: Part | None) -> list[str]:
    if part is None:
        return []
    columns = {"whole tool": "cpu_us", "load generator": "generator_us", "of whole: kernel": "kernel_us", "steady": "steady_us", "infer/s": "throughput", "p50, us": "p50_us",
               "server's infer/s": "server_per_s", "other cores": "others_cores"}  # fmt: skip
    lines = _table_head(["protocol", "c", "tool", *columns])
    for protocol, concurrency, runs in loads(part["runs"]):
        for side in dict.fromkeys(run["side"] for run in runs):
            cells = [_median_and_range(values_of(runs, side, value)) for value in columns.values()]
            lines.append(_line([PROTOCOLS[protocol], str(concurrency), f"`{side}`", *cells]))
    ratios = _table_head(["protocol", "c", "ours / ", "whole tool", "load generator", "steady", "infer/s", "p50"])
    for protocol, concurrency, runs in loads(part["runs"]):
        for side in dict.fromkeys(run["side"] for run in runs if run["side"] != cost.OURS):
            values = ("cpu_us", "generator_us", "steady_us", "throughput", "p50_us")
            cells = [_median_and_range(paired(runs, cost.OURS, side, value)) for value in values]
            ratios.append(_line([PROTOCOLS[protocol], str(concurrency), f"`{side}`", *cells]))
    settings = part["settings"]
    said = f"{settings['rounds']} round(s), {number(settings['measured_seconds'])} measured seconds a run. Median (smallest - largest)."
    return [f"{said} CPU a request in us.", "\n".join(lines), "\n".join(ratios), *_failed(part["runs"])]


def _sweep_section(part: Part | None) -> str:
    if part is None:
        return SWEEP_TEXT
    runs = part["runs"]
    curve = _table_head(
        [
            "tool",
            "setting",
            "sweeps",
            "time to the table, s",
            "whole, s",
            "CPU, s",
            "CV of throughput, median row",
            "smallest - largest row",
        ]
    )
    for side, setting in settings_of(runs):
        those = of_setting(runs, side, setting)
        if those:
            variations = [100 * value for value, _ in row_variations(those).values() if value is not None]
            times = [_median_and_range(values_of(those, side, value)) for value in ("table_s", "wall_s", "cpu_s")]
            cells = [_percent(Figure(tuple(variations)).value), _percent_range(variations)]
            curve.append(_line([side, setting, str(len(those)), *times, *cells]))
    setting = at_speed(runs)
    rows = _table_head(
        ["row", f"CV, ours ({setting})", "CV, theirs (defaults)", "", "sweeps with this row, ours / theirs"]
    )
    mine = row_variations(of_setting(runs, sweep.OURS, setting))
    theirs = row_variations(of_setting(runs, sweep.THEIRS, sweep.DEFAULTS))
    for name in dict.fromkeys([*mine, *theirs]):
        (own, count), (other, others) = mine.get(name, (None, 0)), theirs.get(name, (None, 0))
        better = "" if own is None or other is None else "ours" if own < other else "theirs"
        cells = [_percent(None if value is None else 100 * value) for value in (own, other)]
        rows.append(_line([name, *cells, better, f"{count} / {others}"]))
    text = f'The goals are judged with "{setting}", our longest setting of every round that needs a third of their time at most (the shortest if none does).'
    return "\n\n".join([SWEEP_TEXT, "\n".join(curve), text, "\n".join(rows), *_failed(runs)])


def _own_section(part: Part | None) -> str:
    if part is None:
        return OWN_TEXT
    times = [
        f"- `python bench/{record['module']}.py`: {number(record['seconds'])} s"
        for record in part["runs"]
        if "seconds" in record
    ]
    return "\n\n".join([OWN_TEXT, "\n".join(["How long each took:", "", *times])]) if times else OWN_TEXT


def _failed(runs: Sequence[Run]) -> list[str]:
    errors = [run["error"] for run in runs if "error" in run]
    return [f"**{len(errors)} of {len(runs)} runs failed**, the first: {errors[0]}"] if errors else []


# -- the machine ---------------------------------------------------------------------------------------


def _warnings(parts: Mapping[str, Part]) -> list[str]:
    found = []
    if quick := [name for name, part in parts.items() if part["quick"]]:
        found.append(
            f"**A quick run ({', '.join(quick)}): it shows that the benchmark works. Its figures are worth nothing.**"
        )
    if loaded := [name for name, part in parts.items() if part["anyway"]]:
        found.append(f"**Run beside other load, as asked ({', '.join(loaded)}).**")
    for name, part in parts.items():
        loads = [run["others_cores"] for run in part["runs"] if run.get("others_cores") is not None]
        if disturbed := sum(cores > DISTURBED_CORES for cores in loads):
            found.append(
                f"**Other load came up in {disturbed} of {len(loads)} runs ({name}), {number(max(loads))} cores at most.**"
            )
    return found


def _where(parts: Mapping[str, Part]) -> str:
    """Machines and versions; parts with the same ones together."""
    groups: dict[str, list[str]] = {}
    for name, part in parts.items():
        groups.setdefault(json.dumps([part["machine"], part["versions"]]), []).append(name)
    blocks = ["## Machine and versions"] if groups else []
    for key, names in groups.items():
        machine, versions = json.loads(key)
        lines = _table_head([f"parts {', '.join(names)}", ""])
        kind = f"{machine['cpu'] or 'not said'}{', a virtual machine' if machine['hypervisor'] else ''}"
        lines.append(_line(["CPU", kind]))
        lines.append(_line(["cores, memory", f"{machine['cores']}, {machine['memory_gb']} GB"]))
        lines.append(_line(["system", f"{machine['distribution'] or 'not said'}, Linux {machine['kernel']}"]))
        lines += [_line([name, version]) for name, version in versions.items() if version is not None]
        blocks.append("\n".join(lines))
    when = [
        f"- {name}: {part['taken']}, {number(part['seconds'] / 60)} minutes; before it other load used {number(part['load_before']['busy_cores'])} cores, "
        f"load average {number(part['load_before']['load_average'])}"
        for name, part in parts.items()
    ]
    return "\n\n".join([*blocks, "\n".join(when)]) if parts else ""


# -- Markdown ------------------------------------------------------------------------------------------


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"


def _table_head(names: Sequence[str]) -> list[str]:
    return [_line(names), "|" + "---|" * len(names)]


def _median_and_range(values: Sequence[float]) -> str:
    middle = Figure(tuple(values)).value
    if middle is None:
        return "-"
    return number(middle) if len(values) == 1 else f"{number(middle)} ({spread(values)})"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{number(value)} %"


def _percent_range(values: Sequence[float]) -> str:
    return f"{spread(values)} %" if values else "-"


# -- what a person reads -------------------------------------------------------------------------------

HEAD = f"""\
# Benchmarks

Model Analyzer beside NVIDIA's perf_analyzer and Triton Model Analyzer, on one real Triton on one machine. This page is written by

```sh
make bench
```

which installs the rivals (into `~/.cache/model-analyzer/rivals`, 900 MB), looks whether the machine is free, measures (laid out for
{sum(MINUTES.values())} minutes on 2 cores) and writes `docs/benchmarks.json` (every raw run) and this page (nothing else; a test compares them).
It refuses to run beside other load and says what uses the machine: `make bench ANYWAY=1` runs all the same, and the page says so.
`make bench PARTS="cost sweep"` runs some parts ({", ".join(f"{name} for {minutes} minutes" for name, minutes in MINUTES.items())}) and keeps the last results of the others;
`make bench QUICK=1` only shows that everything works, in `results/bench-quick`.

A figure from one machine says little about another; ratios within a pair of runs say more. Read the ranges: where they span a goal, this
machine could not decide."""

COST_TEXT = f"""\
## CPU a request, throughput, p50

The demo's `{cost.MODEL}` (Python backend, FP32 2 x 16, one CPU instance) in a closed loop of c requests. The tools take turns on one running server:
ours, perf_analyzer, `perf_analyzer --async`; in the next round in reverse. Each run is one process of a user's, `model-analyzer profile` of one row
or perf_analyzer of one load, with as many measured seconds: ours by `stop_rule: fixed`, theirs in three windows of a third, without a rule.

    CPU a request  =  user + system seconds of the process and all it started, start-up included
                      / requests that the server counted meanwhile (nv_inference_request_success, warm-up included)

perf_analyzer's own count of requests is lower than the server's, so the server's divides for both. *whole tool* is that figure; *load generator* the same without
the analyzer's own process (job file, scraping, intervals, store and tables, which perf_analyzer has no counterpart for); *steady* is the
growth of CPU per growth of the server's count within the run, so without start-up and end. *infer/s* and *p50* are what each
tool reports; *kernel* is the system time in *whole tool*; *server's infer/s* is the server's count over time in the steady part, *other cores* how many cores
were busy with what neither tool nor server explains. The stretch goal for c = 64 is 0.35."""

PAYLOAD_TEXT = f"""\
## Large requests

`bench/models/{cost.LARGE}`: FP32 3 x 224 x 224 (602 kB) in, 1000 scores out, next to no work in between. As above; perf_analyzer's
runs vary much here."""

SWEEP_TEXT = f"""\
## A sweep: its time, and how far sweeps agree

2 models (`add_sub`, `magika`) x batch size {{1, 4}} x concurrency {{1, 4}}: {sweep.ROWS} rows and the server-only baseline of 3 s, over gRPC, from the
same YAML for both tools, on one running server (`triton_launch_mode: remote`) with nothing loaded. *Time to the table*: from the start of the command until the inference
table is complete; Triton Model Analyzer draws its reports after that, and *whole* has them in it. CV: standard deviation / mean of a row's throughput over the
sweeps, of three at least. The tools take turns, in reverse in every second round; the settings that are not in every round join some, spread over the whole
time, and fewer sweeps give a rougher CV."""

OWN_TEXT = """\
## Without a rival

Telemetry's cost, stores with 10,000 phases, start-up, capacity, memory, statistics: each by a file of its own in `bench/`, which says what it does. Their figures
stand in the table of goals."""

FOOTING = """\
## On equal footing?

- *What counts as CPU.* Whole process trees, both. Ours is Python: an interpreter, numpy and the clients' libraries are loaded anew in each run, which weighs
  on a run of seconds; a real sweep pays it once. perf_analyzer is compiled. Our bytecode is written before the first run, as `pip install` does it. So *whole tool* favours perf_analyzer the more the shorter a run is, and *steady* shows
  what is left in a long one.
- *One machine.* Client and server share its cores. From c = 8 on they are all busy, and a client that takes less leaves more to the server:
  part of our throughput is CPU that perf_analyzer took. On separate machines that part should shrink; this page does not show it.
- *Seconds.* Both measure as long. perf_analyzer's windows follow each other; ours are slices of 0.5 s with a warm-up each, which the server counts and so do we.
- *Rules.* perf_analyzer's stop rule is switched off in the pairs, as ours is. Triton Model Analyzer runs it, and repeats a row with more requests when perf_analyzer says
  that there were too few; that is in its time.
- *Their best.* Triton Model Analyzer's time ends with its table, not with its plots. perf_analyzer runs with its newest release, from a newer distribution's libraries where this one
  is older than its wheel: the same process, other libraries."""

TITLES: dict[str, Callable[[Part | None], str]] = {
    "cost": _cost_section,
    "payload": _payload_section,
    "sweep": _sweep_section,
    "own": _own_section,
}
