"""What each stop rule costs and what its figures are worth: coverage, spread of repeats, seconds.

    python bench/stop_rules.py [--repeats 200] [--real]

Simulated servers have a known throughput and p99, so that coverage (how often the 95 % interval holds the truth) can
be counted. `--real` measures add_sub and a model that sleeps on the embedded Triton, every rule in turn, several times;
the truth is then the mean of all repeats, which is a milder judge.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
# Not this folder itself: its file names must not stand in for other modules.
sys.path[0] = str(ROOT / "tests" / "core")

import queues  # noqa: E402

from model_analyzer.core.stats import Interval, SliceStats, percentile_interval, throughput_interval  # noqa: E402
from model_analyzer.core.stopping import StopRule, judge  # noqa: E402

RULES = {kind: StopRule(kind, min_s=2.0, max_s=10.0) for kind in ("interval", "perf_analyzer", "fixed")}  # type: ignore[arg-type]
SLICE_S = 0.5
# One slice in so many seconds: six loads in turn, and a load that is alone.
PERIODS_S = (4.8, 0.8)
SERVERS = {
    "M/D/1, closed": (queues.Server(0.003, queues.deterministic), 4),
    "M/M/1, closed": (queues.Server(0.002, queues.exponential), 1),
    "compute-bound, 20 ms": (queues.Server(0.020, queues.gamma), 2),
    "heavy tail": (queues.Server(0.003, queues.heavy), 2),
    "AR(1), CV 15 %, 0.3 s": (queues.Server(0.004, queues.gamma, queues.Speed(ar_cv=0.15, ar_s=0.3)), 4),
    "levels, CV 15 %, 2 s": (
        queues.Server(0.004, queues.gamma, queues.Speed(ar_cv=0.05, level_cv=0.15, level_s=2.0)),
        4,
    ),
    "levels, CV 10 %, 8 s": (
        queues.Server(0.002, queues.gamma, queues.Speed(ar_cv=0.05, level_cv=0.10, level_s=8.0)),
        1,
    ),
}


@dataclass
class Study:
    """Repeats of one rule on one server. estimates: throughput of each; covered: of those with an interval."""

    estimates: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    covered: list[bool] = field(default_factory=list)
    covered_p99: list[bool] = field(default_factory=list)
    naive: list[bool] = field(default_factory=list)
    stable: int = 0

    def line(self) -> str:
        """The figures of the table."""
        values = np.array(self.estimates)
        cv = values.std(ddof=1) / values.mean()
        return (
            f"{_share(self.covered)} {_share(self.covered_p99)} {_share(self.naive)} {cv:7.1%}"
            f" {np.mean(self.seconds):7.1f} {self.stable / len(values):7.0%}"
        )


HEADER = "covered     p99   naive      CV  seconds  stable"


def _share(hits: Sequence[bool]) -> str:
    return f"{np.mean(hits):7.0%}" if hits else "      -"


def naive(slices: Sequence[SliceStats]) -> Interval:
    """Batch means: every window of 50 ms as if it were independent of its neighbours."""
    rates = np.concatenate([piece.windows for piece in slices]) / (slices[0].window_ns / 1e9)
    return Interval(float(rates.mean()), 1.96 * float(rates.std(ddof=1)) / float(np.sqrt(len(rates))))


def holds(interval: Interval, truth: float) -> bool:
    return abs(interval.mean - truth) <= interval.half_width


def simulate(rule: StopRule, server: queues.Server, clients: int, period_s: float, repeats: int) -> Study:
    """Measure a simulated server until the rule is met, again and again."""
    most = round(rule.max_s / SLICE_S)
    _, latency_ns = queues.closed_loop(server, clients, 2000, np.random.default_rng(0))
    p99_ns = float(np.quantile(latency_ns, 0.99, method="inverted_cdf"))
    study, rng = Study(), np.random.default_rng(1)
    for _ in range(repeats):
        done_ns, latency_ns = queues.closed_loop(server, clients, most * period_s + 1, rng)
        slices = queues.slices_of(done_ns, latency_ns, most, SLICE_S, period_s, start_s=rng.random() / 2)
        used, verdict = next((n, v) for n in range(1, most + 1) if (v := judge(slices[:n], rule)).done)
        taken = slices[:used]
        study.stable += verdict.stable
        study.seconds.append(used * SLICE_S)
        study.estimates.append(sum(piece.count for piece in taken) / (used * SLICE_S))
        if verdict.throughput is not None:
            study.covered.append(holds(verdict.throughput, server.throughput))
        if verdict.p99 is not None:
            study.covered_p99.append(holds(verdict.p99, p99_ns))
        study.naive.append(holds(naive(taken), server.throughput))
    return study


def simulated(repeats: int) -> None:
    """Print the table of the simulated servers."""
    for period_s in PERIODS_S:
        print(f"\nSimulated, a slice of {SLICE_S:g} s every {period_s:g} s, {repeats} repeats")
        print(f"{'server':24} {'rule':14} {HEADER}")
        for name, (server, clients) in SERVERS.items():
            for kind, rule in RULES.items():
                study = simulate(rule, server, clients, period_s, repeats)
                print(f"{name:24} {kind:14} {study.line()}", flush=True)


# -- the real server -----------------------------------------------------------------------------------

LOADS = (("add_sub", 1), ("add_sub", 4), ("slow", 1), ("slow", 4))


def real(repeats: int) -> None:
    """Measure two models on the embedded Triton with every rule in turn, so that drift hits all rules alike."""
    studies: dict[tuple[str, int, str], list[list[SliceStats]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        repository = _repository(Path(folder))
        for number in range(repeats):
            for kind in RULES:
                for key, slices in _profile(repository, Path(folder) / f"{kind}-{number}", kind).items():
                    studies.setdefault((*key, kind), []).append(slices)
    print(f"\nEmbedded Triton, {repeats} repeats; truth: the mean of all repeats of all rules")
    print(f"{'model, concurrency':24} {'rule':14} {HEADER}")
    for model, load in LOADS:
        repeats_of = {kind: studies[model, load, kind] for kind in RULES}
        rates = [_rate(slices) for runs in repeats_of.values() for slices in runs]
        for kind, runs in repeats_of.items():
            print(f"{f'{model}, {load}':24} {kind:14} {_judged(runs, kind, float(np.mean(rates))).line()}")


def _rate(slices: Sequence[SliceStats]) -> float:
    return sum(piece.count for piece in slices) / sum(piece.duration_ns for piece in slices) * 1e9


def _judged(runs: Sequence[Sequence[SliceStats]], kind: str, truth: float) -> Study:
    study = Study()
    for slices in runs:
        study.estimates.append(_rate(slices))
        study.seconds.append(sum(piece.duration_ns for piece in slices) / 1e9)
        study.stable += judge(slices, RULES[kind]).stable
        study.naive.append(holds(naive(slices), truth))
        if (interval := throughput_interval(slices)) is not None:
            study.covered.append(holds(interval, truth))
    every = [interval.mean for slices in runs if (interval := percentile_interval(slices, 0.99)) is not None]
    for slices in runs:
        if (interval := percentile_interval(slices, 0.99)) is not None:
            study.covered_p99.append(holds(interval, float(np.mean(every))))
    return study


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
    import json
    import subprocess

    import yaml

    rule = RULES[kind]
    job = {
        "model_repository": str(repository),
        "export_path": str(export_path),
        "profile_models": list(dict.fromkeys(model for model, _ in LOADS)),
        "concurrency": sorted({load for _, load in LOADS}),
        "triton_launch_mode": "embedded",
        "stop_rule": kind,
        "min_seconds": rule.min_s,
        "max_seconds": rule.max_s,
        "duration_seconds": 0.2,
    }
    file = export_path.with_suffix(".yaml")
    file.write_text(yaml.safe_dump(job))
    command = [sys.executable, "-m", "model_analyzer", "profile", "-f", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=os.environ)
    if done.returncode != 0:
        sys.exit(f"the run failed with {done.returncode}: {done.stderr.strip()[-500:]}")
    records = [json.loads(line) for line in (export_path / "measurements.jsonl").read_text().splitlines()]
    measured = [record["data"]["phase"] for record in records if record["kind"] == "measurement"]
    keys = {phase["id"]: (phase["variant"]["model"], int(phase["load"]["value"])) for phase in measured}
    found: dict[tuple[str, int], list[SliceStats]] = {}
    for record in records:
        if record["kind"] == "slice":
            stats = SliceStats.from_json(record["data"]["stats"])
            found.setdefault(keys[record["data"]["phase_id"]], []).append(stats)
    return found


def main() -> None:
    """Read the command line, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--repeats", type=int, default=200, help="of the simulations; on the real server a fifth, at most 10"
    )
    parser.add_argument("--real", action="store_true", help="also on the embedded Triton: about 2 minutes a repeat")
    given = parser.parse_args()
    if given.repeats:
        simulated(given.repeats)
    if given.real:
        real(max(3, min(10, given.repeats // 5)))


if __name__ == "__main__":
    main()
