"""What each stop rule costs and what its figures are worth: coverage, spread of repeats, seconds; and what remarks say.

    python bench/statistics_bench.py [--repeats 300] [--json FILE]    simulated servers, tables in Markdown
    python bench/statistics_bench.py --real 10                        on the embedded Triton too, so many repeats of each rule
    python bench/statistics_bench.py --repeats 0 --reloads 40         whether repeats over reloads hold what a reload changes
    python bench/statistics_bench.py --repeats 0 --shares 60          what counting requests across the ends by their share does
    python bench/statistics_bench.py --guard                          short form: 1 if a committed limit is broken

Simulated servers have a known throughput and p99, so that coverage (how often the 95 % interval holds the truth) is
counted. On the real one the truth is the mean of all repeats of all rules, a milder judge. Seeds are fixed: two runs
of the simulations give the same figures, however busy the machine is, and so can guard against a change.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
if __name__ == "__main__":
    # Not this folder itself: its file names must not stand in for other modules.
    sys.path[0] = str(ROOT / "tests" / "core")

import numpy as np  # noqa: E402
import queues  # noqa: E402

from model_analyzer.core.remarks import remarks  # noqa: E402
from model_analyzer.core.repeats import judge_repeats, throughput_spread  # noqa: E402
from model_analyzer.core.stats import Interval, SliceStats, percentile_interval, rate_of  # noqa: E402
from model_analyzer.core.stopping import StopRule, Verdict, judge, may_be_done  # noqa: E402

RULES = {kind: StopRule(kind, min_s=2.0, max_s=10.0) for kind in ("interval", "perf_analyzer", "fixed")}  # type: ignore[arg-type]
LIMITS = Path(__file__).with_name("statistics_limits.json")
SLICE_S = 0.5
# One slice in so many seconds: six loads in turn, and a load that is alone.
PERIODS_S = {"6 loads in turn": 4.8, "a load alone": 0.8}
Speed, Server = queues.Speed, queues.Server
SERVERS = {
    "M/D/1": (Server(0.003, queues.deterministic), 4),
    "M/M/1": (Server(0.002, queues.exponential), 1),
    "compute-bound, 20 ms": (Server(0.020, queues.gamma), 2),
    "heavy tail": (Server(0.003, queues.heavy), 2),
    "AR(1) 15 %, 0.3 s": (Server(0.004, queues.gamma, Speed(ar_cv=0.15, ar_s=0.3)), 4),
    "AR(1) 10 %, 2 s": (Server(0.004, queues.gamma, Speed(ar_cv=0.10, ar_s=2.0)), 4),
    "levels 15 %, 2 s": (Server(0.004, queues.gamma, Speed(ar_cv=0.05, level_cv=0.15, level_s=2.0)), 4),
    "levels 10 %, 8 s": (Server(0.002, queues.gamma, Speed(ar_cv=0.05, level_cv=0.10, level_s=8.0)), 1),
}
STEADY = ("M/D/1", "M/M/1", "compute-bound, 20 ms", "heavy tail")
# The word by which each remark is known.
REMARKS = {
    "outlier": "something else used the machine",
    "first slice": "the first slice ran",
    "two levels": "throughput had two levels",
    "drift": "throughput drifted",
    "ramp": "each slice begins",
    "pauses": "the load stood still",
    "moves": "throughput moves",
    "two modes": "latency has two modes",
}


@dataclass
class Study:
    """Repeats of one rule on one server, one entry a repeat; of an interval only where there is one."""

    estimates: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    covered: list[bool] = field(default_factory=list)
    covered_p99: list[bool] = field(default_factory=list)
    naive: list[bool] = field(default_factory=list)
    ok: list[bool] = field(default_factory=list)
    widths: list[float] = field(default_factory=list)
    widths_p99: list[float] = field(default_factory=list)
    ok_and_missed: int = 0

    def add(self, slices: Sequence[SliceStats], verdict: Verdict, truth: float, p99_ns: float) -> None:
        """One repeat."""
        throughput, p99 = verdict.throughput, verdict.p99
        seconds = sum(piece.duration_ns for piece in slices) / 1e9
        self.ok.append(verdict.stable)
        self.seconds.append(seconds)
        self.estimates.append(rate_of(slices))
        self.naive.append(holds(naive(slices), truth))
        if throughput is not None:
            self.covered.append(holds(throughput, truth))
            self.widths.append(throughput.relative)
        if p99 is not None:
            self.covered_p99.append(holds(p99, p99_ns))
            self.widths_p99.append(p99.relative)
        self.ok_and_missed += verdict.stable and throughput is not None and not holds(throughput, truth)

    def figures(self) -> dict[str, float | None]:
        """What the tables show; shares and ratios, and the mean of the measured seconds."""
        return {
            "covered": _mean(self.covered),
            "half_width": _median(self.widths),
            "covered_p99": _mean(self.covered_p99),
            "half_width_p99": _median(self.widths_p99),
            "p99_known": len(self.covered_p99) / len(self.estimates),
            "naive_covered": _mean(self.naive),
            "cv_of_ten": self.cv_of_ten,
            "seconds": _mean(self.seconds),
            "ok": _mean(self.ok),
            "ok_and_missed": self.ok_and_missed / len(self.estimates),
        }

    @property
    def cv_of_ten(self) -> float:
        """Spread of ten repeats of the throughput, the mean of all tens."""
        values = np.array(self.estimates)
        tens = [values[n : n + 10] for n in range(0, len(values) - 9, 10)] or [values]
        return float(np.mean([ten.std(ddof=1) / ten.mean() for ten in tens]))


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _median(values: Sequence[float]) -> float | None:
    return float(np.median(values)) if values else None


def naive(slices: Sequence[SliceStats]) -> Interval:
    """Batch means: every window of 50 ms as if it were independent of its neighbours."""
    rates = np.concatenate([piece.windows for piece in slices]) / (slices[0].window_ns / 1e9)
    return Interval(float(rates.mean()), 1.96 * float(rates.std(ddof=1)) / float(np.sqrt(len(rates))))


def holds(interval: Interval, truth: float) -> bool:
    return abs(interval.mean - truth) <= interval.half_width


# -- simulated servers ---------------------------------------------------------------------------------


def phases(server: queues.Server, clients: int, period_s: float, repeats: int) -> Iterator[list[SliceStats]]:
    """So many independent phases of a simulated server, each as long as the rules may take."""
    most = round(RULES["interval"].max_s / SLICE_S)
    rng = np.random.default_rng(1)
    for _ in range(repeats):
        done_ns, latency_ns = queues.closed_loop(server, clients, most * period_s + 2, rng)
        start_s, loop_s = rng.random() / 2, clients * server.mean_s
        yield queues.slices_of(
            done_ns, latency_ns, most, SLICE_S, period_s, start_s=start_s, loop_s=loop_s, inflight=clients
        )


def simulated(names: Sequence[str], repeats: int, kinds: Sequence[str] = tuple(RULES)) -> list[dict[str, Any]]:
    """A row for each server, pace and rule; that of the first rule has the remarks too."""
    rows = []
    for pace, period_s in PERIODS_S.items():
        for name in names:
            server, clients = SERVERS[name]
            _, latency_ns = queues.closed_loop(server, clients, 4000, np.random.default_rng(0))
            p99_ns = float(np.quantile(latency_ns, 0.99, method="inverted_cdf"))
            studies = {kind: Study() for kind in kinds}
            said: Counter[str] = Counter()
            for slices in phases(server, clients, period_s, repeats):
                for kind in kinds:
                    rule = RULES[kind]
                    used, verdict = next(_dones(slices, rule))
                    studies[kind].add(slices[:used], verdict, server.throughput, p99_ns)
                said.update(_said(slices))
            for kind, study in studies.items():
                rows.append({"pace": pace, "server": name, "rule": kind, "repeats": repeats, **study.figures()})
            rows[-len(kinds)]["remarks"] = {remark: said[remark] / repeats for remark in REMARKS}
            print(".", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return rows


def _dones(slices: Sequence[SliceStats], rule: StopRule) -> Iterator[tuple[int, Verdict]]:
    """With how many of the slices the rule is content, and what it says of them."""
    for n in range(1, len(slices) + 1):
        if may_be_done(slices[:n], rule) and (verdict := judge(slices[:n], rule)).done:
            yield n, verdict


def _said(slices: Sequence[SliceStats]) -> list[str]:
    """Which remarks a phase of full length brought."""
    texts = remarks(slices)
    return [name for name, word in REMARKS.items() if any(word in text for text in texts)]


# -- servers that differ after each load --------------------------------------------------------------

RELOADED = (Server(0.004, queues.gamma), 4)
RELOAD_S = 600.0


def reloaded(cv: float, repeats: int, count: int) -> dict[str, Any]:
    """How often the intervals of `repeats` repeats hold the truth, where each load of the server has a speed of its own.

    cv: spread of the loads' speeds, log-normal around 1. count: rows.
    """
    server, _clients = RELOADED
    rng, sigma = np.random.default_rng(3), float(np.sqrt(np.log1p(cv * cv)))
    truth, p99_ns = server.throughput, _p99_over_loads(sigma)
    study, cvs = Study(), []
    for _ in range(count):
        speeds = np.exp(sigma * rng.standard_normal(repeats) - sigma * sigma / 2)
        parts = [_one_load(float(speed), number * RELOAD_S, rng) for number, speed in enumerate(speeds)]
        study.add([piece for part in parts for piece in part], judge_repeats(parts, RULES["interval"]), truth, p99_ns)
        spread = throughput_spread(parts)
        cvs += [spread.cv] if spread else []
    return {"loads differ by": cv, "repeats": repeats, "rows": count, "cv_seen": _median(cvs), **study.figures()}


def _one_load(speed: float, start_s: float, rng: np.random.Generator) -> list[SliceStats]:
    """The slices that the rule takes of one load, which has this speed all the time."""
    server, clients = RELOADED
    rule, period_s = RULES["interval"], PERIODS_S["6 loads in turn"]
    most = round(rule.max_s / SLICE_S)
    steps = np.full(int((most * period_s + 2) / queues.GRID_S) + 1, speed)
    done_ns, latency_ns = queues.closed_loop(server, clients, most * period_s + 2, rng, steps)
    slices = queues.slices_of(
        done_ns, latency_ns, most, SLICE_S, period_s, rng.random() / 2, clients * server.mean_s, clients
    )
    used, _ = next(_dones(slices, rule))
    return [replace(each, start_ns=(each.start_ns or 0) + int(start_s * 1e9)) for each in slices[:used]]


def _p99_over_loads(sigma: float) -> float:
    """ns, of all replies of many loads: latency is inverse to a load's speed, and it answers in proportion to it."""
    server, clients = RELOADED
    _, latency_ns = queues.closed_loop(server, clients, 3000, np.random.default_rng(0))
    quantiles = np.quantile(latency_ns, (np.arange(4000) + 0.5) / 4000)
    speeds = np.exp(sigma * np.random.default_rng(4).standard_normal(2000) - sigma * sigma / 2)
    values = (quantiles[None, :] / speeds[:, None]).ravel()
    order = values.argsort()
    answered = np.repeat(speeds, len(quantiles))[order].cumsum()
    return float(values[order][np.searchsorted(answered, 0.99 * answered[-1])])


# -- requests across the ends of a slice ---------------------------------------------------------------

# A reply every 60 ms, four in flight: slices of 0.5 s hold eight or nine.
SLOW, SLOW_CLIENTS, SLOW_S = Server(0.060, queues.gamma), 4, 2.0


def shares(repeats: int) -> dict[str, float]:
    """CV of ten repeats of a slow model's throughput, with requests across the ends counted by their share, and whole."""
    count, period_s = round(SLOW_S / SLICE_S), PERIODS_S["6 loads in turn"]
    rng = np.random.default_rng(1)
    found: dict[str, Study] = {"by their share": Study(), "whole": Study()}
    for _ in range(repeats):
        done_ns, latency_ns = queues.closed_loop(SLOW, SLOW_CLIENTS, count * period_s + 2, rng)
        start_s, loop_s = rng.random() / 2, SLOW_CLIENTS * SLOW.mean_s
        slices = queues.slices_of(
            done_ns, latency_ns, count, SLICE_S, period_s, start_s, loop_s=loop_s, inflight=SLOW_CLIENTS
        )
        found["by their share"].estimates.append(rate_of(slices))
        found["whole"].estimates.append(rate_of([replace(piece, edges=0.0) for piece in slices]))
    return {name: study.cv_of_ten for name, study in found.items()}


# -- troubles, made on purpose -------------------------------------------------------------------------


def troubled(repeats: int) -> dict[str, float]:
    """How often each remark is made where its trouble is there: the name of the trouble -> share of the phases."""
    rng = np.random.default_rng(2)
    found: Counter[str] = Counter()
    for _ in range(repeats):
        for name, slices in _troubles(rng).items():
            found[name] += name in _said(slices)
    return {name: found[name] / repeats for name in REMARKS}


def _troubles(rng: np.random.Generator) -> dict[str, list[SliceStats]]:
    """Twelve slices of 0.5 s, one every 3.2 s, of a server of 2 ms (CV 25 %), each time with one trouble."""
    count, period_s = 12, 3.2

    def run(speed: queues.Floats, server: queues.Server = PLAIN, clients: int = 1) -> list[SliceStats]:
        done_ns, latency_ns = queues.closed_loop(server, clients, count * period_s + 1, rng, speed)
        return queues.slices_of(done_ns, latency_ns, count, SLICE_S, period_s)

    steps = int((count * period_s + 1) / queues.GRID_S) + 1
    at_s = np.arange(steps) * queues.GRID_S
    slice_of, within_s = (at_s / period_s).astype(int), at_s % period_s
    calm = np.ones(steps)
    bad, pauses = int(rng.integers(1, count - 3)), rng.choice(count, 3, replace=False)
    return {
        "outlier": run(np.where(slice_of == bad, 0.6, calm)),
        "first slice": run(np.where(slice_of == 0, 0.6, calm)),
        "two levels": run(np.where((slice_of >= bad) & (slice_of < bad + 4), 0.6, calm)),
        "drift": run(1 - 0.2 * at_s / at_s[-1]),
        "ramp": run(np.where(within_s < SLICE_S / 2, 0.85, calm)),
        "pauses": run(np.where(np.isin(slice_of, pauses) & (within_s > 0.2) & (within_s < 0.3), 0.01, calm)),
        "moves": run(Speed(ar_cv=0.10, ar_s=1.0).draw(count * period_s + 1, rng)),
        "two modes": run(
            calm, Server(0.002, lambda n, rng: np.where(rng.random(n) < 0.2, 3.0, 1.0) * queues.gamma(n, rng) / 1.4)
        ),
    }


PLAIN = Server(0.0015, queues.gamma)


# -- the real server -----------------------------------------------------------------------------------

LOADS = (("add_sub", 1), ("add_sub", 4), ("slow", 1), ("slow", 4))


def real(repeats: int) -> list[dict[str, Any]]:
    """Measure two models on the embedded Triton with every rule in turn, so that drift hits all rules alike."""
    studies: dict[tuple[str, int, str], list[list[SliceStats]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        repository = _repository(Path(folder))
        for number in range(repeats):
            for kind in RULES:
                for key, slices in _profile(repository, Path(folder) / f"{kind}-{number}", kind).items():
                    studies.setdefault((*key, kind), []).append(slices)
            print(".", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    rows = []
    for model, load in LOADS:
        runs = {kind: studies[model, load, kind] for kind in RULES}
        every = [slices for each in runs.values() for slices in each]
        truth = float(np.mean([rate_of(slices) for slices in every]))
        p99s = [found.mean for slices in every if (found := percentile_interval(slices, 0.99)) is not None]
        for kind, repeated in runs.items():
            study = Study()
            for slices in repeated:
                study.add(slices, judge(slices, RULES[kind]), truth, float(np.mean(p99s)) if p99s else 0.0)
            rows.append({"server": f"{model}, concurrency {load}", "rule": kind, "repeats": repeats, **study.figures()})
    return rows


def real_repeats(count: int, seconds: float) -> dict[str, Any]:
    """One load after the other of add_sub on the embedded Triton, so many repeats of so many seconds; every rule judges all.

    Rules differ in when they stop only, so each is held against the beginnings of the same slices. The truth is the
    mean of all repeats. Returns rule -> figures, over both loads; "3 repeats" -> coverage of pooled intervals.
    """
    with tempfile.TemporaryDirectory() as folder:
        measured = _repeats_of(Path(folder), count, seconds)
    studies, pooled = {kind: Study() for kind in RULES}, Study()
    cvs: dict[str, list[float]] = {kind: [] for kind in RULES}
    for repeats in measured.values():
        whole = [piece for slices in repeats for piece in slices]
        truth = rate_of(whole)
        p99 = percentile_interval(whole, 0.99)
        p99_ns = p99.mean if p99 else 0.0
        for kind, rule in RULES.items():
            rates = []
            for slices in repeats:
                used = slices[: next((n for n, _ in _dones(slices, rule)), len(slices))]
                studies[kind].add(used, judge(used, rule), truth, p99_ns)
                rates.append(rate_of(used))
            cvs[kind].append(float(np.std(rates, ddof=1) / np.mean(rates)))
        for n in range(0, len(repeats) - 2, 3):
            three = repeats[n : n + 3]
            pooled.add(
                [piece for slices in three for piece in slices], judge_repeats(three, RULES["interval"]), truth, p99_ns
            )
    rows = {kind: {**study.figures(), "cv_of_ten": float(np.mean(cvs[kind]))} for kind, study in studies.items()}
    return {**rows, **({"3 repeats": pooled.figures()} if pooled.estimates else {})}


def _repeats_of(folder: Path, count: int, seconds: float) -> dict[str, list[list[SliceStats]]]:
    """Phase id -> its repeats, each of so many seconds."""
    job = {**_job(_repository(folder), folder / "out"), "profile_models": ["add_sub"], "concurrency": [1, 4],
           "stop_rule": "fixed", "min_seconds": seconds, "max_seconds": seconds, "repeats": count}  # fmt: skip
    found: dict[str, list[list[SliceStats]]] = {}
    for record in _run(job, folder / "job.yaml"):
        if record["kind"] == "slice":
            repeats = found.setdefault(record["data"]["phase_id"], [[] for _ in range(count)])
            repeats[record["data"]["repeat"]].append(SliceStats.from_json(record["data"]["stats"]))
    return found


def _repository(folder: Path) -> Path:
    """add_sub of the demo, and a model that sleeps 5 ms."""
    from shutil import copytree, ignore_patterns

    repository = folder / "models"
    skip = ignore_patterns("__pycache__")
    copytree(ROOT / "examples" / "quickstart" / "models_src" / "add_sub", repository / "add_sub", ignore=skip)
    copytree(ROOT / "tests" / "models" / "slow", repository / "slow", ignore=skip)
    config = repository / "slow" / "config.pbtxt"
    config.write_text(config.read_text().replace('string_value: "5"', 'string_value: "0.005"'))
    return repository


def _profile(repository: Path, export_path: Path, kind: str) -> dict[tuple[str, int], list[SliceStats]]:
    """One run of the command; (model, concurrency) -> slices, from the store."""
    rule = RULES[kind]
    job = {
        **_job(repository, export_path),
        "profile_models": list(dict.fromkeys(model for model, _ in LOADS)),
        "concurrency": sorted({load for _, load in LOADS}),
        "stop_rule": kind,
        "min_seconds": rule.min_s,
        "max_seconds": rule.max_s,
    }
    records = _run(job, export_path.with_suffix(".yaml"))
    measured = [record["data"]["phase"] for record in records if record["kind"] == "measurement"]
    keys = {phase["id"]: (phase["variant"]["model"], int(phase["load"]["value"])) for phase in measured}
    found: dict[tuple[str, int], list[SliceStats]] = {}
    for record in records:
        if record["kind"] == "slice":
            stats = SliceStats.from_json(record["data"]["stats"])
            found.setdefault(keys[record["data"]["phase_id"]], []).append(stats)
    return found


def _job(repository: Path, export_path: Path) -> dict[str, Any]:
    return {
        "model_repository": str(repository),
        "export_path": str(export_path),
        "triton_launch_mode": "embedded",
        "duration_seconds": 0.2,
    }


def _run(job: Mapping[str, Any], file: Path) -> list[dict[str, Any]]:
    """The records of the store that the command made of a job. Raises RuntimeError where it failed."""
    import subprocess

    import yaml

    file.write_text(yaml.safe_dump(dict(job)))
    command = [sys.executable, "-m", "model_analyzer", "profile", "-f", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=os.environ)
    if done.returncode != 0:
        raise RuntimeError(f"the run failed with {done.returncode}: {done.stderr.strip()[-500:]}")
    store = Path(job["export_path"]) / "measurements.jsonl"
    return [json.loads(line) for line in store.read_text().splitlines()]


# -- what comes out ------------------------------------------------------------------------------------

COLUMNS = {
    "throughput covered": "covered", "±": "half_width", "p99 covered": "covered_p99", "± p99": "half_width_p99",
    "p99 has one": "p99_known", "naive": "naive_covered", "CV of ten": "cv_of_ten", "ok": "ok", "ok, missed": "ok_and_missed",
    "seconds": "seconds",
}  # fmt: skip


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Markdown: a line a server and rule."""
    lines = ["| server | rule | " + " | ".join(COLUMNS) + " |", "|---" * (len(COLUMNS) + 2) + "|"]
    for row in rows:
        cells = [_cell(row[key], key) for key in COLUMNS.values()]
        lines.append(f"| {row['server']} | `{row['rule']}` | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(value: float | None, key: str) -> str:
    if value is None:
        return "-"
    if key == "seconds":
        return f"{value:.1f}"
    return f"{value:.1%}" if key.startswith(("half", "cv")) else f"{value:.0%}"


def remarks_table(rows: Sequence[Mapping[str, Any]], there: Mapping[str, float]) -> str:
    """Markdown: a line a remark: how often it is made on each kind of server, and where its trouble was made."""
    told = [row for row in rows if "remarks" in row]
    groups = {
        "steady servers": [row for row in told if row["server"] in STEADY],
        "moving servers": [row for row in told if row["server"] not in STEADY],
    }
    lines = ["| remark | " + " | ".join(groups) + " | where the trouble is |", "|---" * (len(groups) + 2) + "|"]
    for name in REMARKS:
        shares = [_mean([row["remarks"][name] for row in group]) for group in groups.values()]
        cells = ["-" if share is None else f"{share:.1%}" for share in [*shares, there[name]]]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


GUARDED = ("M/D/1", "M/M/1", "AR(1) 15 %, 0.3 s", "levels 15 %, 2 s")
GUARD_REPEATS = 20


def guard() -> list[str]:
    """Hold a short study against the committed limits; what is broken."""
    limits = json.loads(LIMITS.read_text())
    kinds = ("interval", "perf_analyzer")
    rows = simulated(GUARDED, GUARD_REPEATS, kinds)
    there = troubled(GUARD_REPEATS)
    print(f"{table(rows)}\n\n{remarks_table(rows, there)}\n")
    ours = {(row["pace"], row["server"]): row for row in rows if row["rule"] == kinds[0]}
    theirs = {(row["pace"], row["server"]): row for row in rows if row["rule"] == kinds[1]}
    broken = []
    for (pace, server), row in ours.items():
        other, name = theirs[pace, server], f"{server}, {pace}"
        ratios = {"seconds, of perf_analyzer's": row["seconds"] / other["seconds"],
                  "CV of ten, of perf_analyzer's": row["cv_of_ten"] / max(other["cv_of_ten"], 1e-3)}  # fmt: skip
        figures = {**row, **ratios, "false remarks": max(_false_remarks(row).values(), default=0.0)}
        for figure, (low, high) in {**limits["every server"], **limits.get(name, {})}.items():
            if not low <= (figures[figure] or 0.0) <= high:
                broken.append(f"{name}: {figure} is {figures[figure]:.3g}, not within {low} and {high}")
    for remark, share in there.items():
        if share < limits["remarks where the trouble is"]:
            broken.append(f"remark {remark!r} in {share:.0%} of the phases with that trouble only")
    return broken


def _false_remarks(row: Mapping[str, Any]) -> dict[str, float]:
    """Shares of the remarks for which a server gives no cause."""
    return row["remarks"] if row["server"] in STEADY else {}


# Of simulated servers with autocorrelation, the share of 95 % intervals that hold the truth; of the real one, at least.
MOVING = ("AR(1) 15 %, 0.3 s", "AR(1) 10 %, 2 s", "levels 15 %, 2 s")
GOAL_SIMULATED, GOAL_REAL = (0.93, 0.97), 0.85


def measure(quick: bool = False) -> dict[str, Any]:
    """For `make bench`: every rule on simulated servers that move and on the embedded Triton, about five minutes on two cores."""
    simulations, loads, repeats, seconds = (2, 2, 2, 2.0) if quick else (40, 20, 8, RULES["interval"].max_s)
    rows = simulated(MOVING[:1] if quick else MOVING, simulations)
    reloads = [reloaded(0.03, n, loads) for n in (1, 3)]
    on_triton = real_repeats(repeats, seconds)
    figures: list[dict[str, Any]] = []

    def add(name: str, value: float | None, unit: str, goal: str | None = None, met: bool | None = None) -> None:
        # Of a short form nothing is judged.
        figures.append({"name": name, "value": value, "unit": unit, "goal": goal, "met": None if quick else met})

    for kind in RULES:
        of = [row for row in rows if row["rule"] == kind]
        covered = float(np.mean([row["covered"] for row in of if row["covered"] is not None] or [0.0]))
        low, high = GOAL_SIMULATED
        goals = [f"{low:.0%} to {high:.0%}", low <= covered <= high] if kind == "interval" else []
        add(
            f"rule `{kind}`: 95 % intervals of throughput that hold, simulated moving servers",
            covered * 100,
            "%",
            *goals,
        )
        add(f"rule `{kind}`: measured seconds, simulated", float(np.mean([row["seconds"] for row in of])), "s")
        real_covered = on_triton[kind]["covered"]
        goals = [f">= {GOAL_REAL:.0%}", (real_covered or 0.0) >= GOAL_REAL] if kind == "interval" else []
        shown = None if real_covered is None else real_covered * 100
        add(f"rule `{kind}`: 95 % intervals of throughput that hold, Triton", shown, "%", *goals)
        add(f"rule `{kind}`: CV of {repeats} repeats, Triton", on_triton[kind]["cv_of_ten"] * 100, "%")
        add(f"rule `{kind}`: measured seconds, Triton", on_triton[kind]["seconds"], "s")
    for row in reloads:
        name = f"loads that differ by 3 %: 95 % intervals of throughput that hold, repeats: {row['repeats']}"
        add(name, (row["covered"] or 0.0) * 100, "%")
    return {"figures": figures, "raw": {"simulated": rows, "reloads": reloads, "triton": on_triton}}


def reloads_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Markdown: a line a spread of the loads and number of repeats."""
    columns = {"throughput covered": "covered", "±": "half_width", "p99 covered": "covered_p99", "± p99": "half_width_p99",
               "p99 has one": "p99_known", "CV seen": "cv_seen"}  # fmt: skip
    lines = ["| loads differ by | repeats | " + " | ".join(columns) + " |", "|---" * (len(columns) + 2) + "|"]
    for row in rows:
        cells = [_cell(row[key], key) for key in columns.values()]
        lines.append(f"| {row['loads differ by']:.0%} | {row['repeats']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Read the command line, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=300, help="of each simulated server; 0: none")
    parser.add_argument(
        "--real", type=int, default=0, metavar="N", help="repeats on the embedded Triton, 2 minutes each"
    )
    parser.add_argument(
        "--reloads", type=int, default=0, metavar="N", help="rows of a server that differs after each load"
    )
    parser.add_argument("--shares", type=int, default=0, metavar="N", help="repeats of a slow model, counted both ways")
    parser.add_argument("--json", type=Path, help="write every figure there")
    parser.add_argument("--guard", action="store_true", help="a short study against the committed limits")
    given = parser.parse_args()
    if given.guard:
        broken = guard()
        print("\n".join(broken) or "every limit holds")
        sys.exit(1 if broken else 0)
    results: dict[str, Any] = {
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs",
        "python": platform.python_version(),
    }
    if given.repeats:
        rows = results["simulated"] = simulated(list(SERVERS), given.repeats)
        there = results["remarks_where_the_trouble_is"] = troubled(given.repeats)
        for pace in PERIODS_S:
            print(f"\n{pace}, {given.repeats} repeats\n\n{table([row for row in rows if row['pace'] == pace])}")
        print(f"\n{remarks_table(rows, there)}")
    if given.reloads:
        results["reloads"] = [reloaded(cv, n, given.reloads) for cv in (0.0, 0.03, 0.10) for n in (1, 3, 5)]
        print(f"\nA server that differs after each load, {given.reloads} rows\n\n{reloads_table(results['reloads'])}")
    if given.shares:
        results["shares"] = shares(given.shares)
        told = ", ".join(f"{name} {cv:.1%}" for name, cv in results["shares"].items())
        print(f"\nCV of ten repeats of {SLOW_S:g} s, requests across the ends of a slice counted {told}")
    if given.real:
        results["load_average"] = os.getloadavg()[0]
        results["real"] = real(given.real)
        print(f"\nEmbedded Triton, {given.real} repeats\n\n{table(results['real'])}")
    if given.json:
        given.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
