"""CPU a request, throughput and p50 beside perf_analyzer: the same load on the same server, one tool after the other.

Each run is a process of its own, from start to end, as a user starts it: `model-analyzer profile` with one row, perf_analyzer with
one load. Within a round the tools follow each other at once; the next round has them in reverse.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from bench.versus import ours, perf_analyzer, quiet
from bench.versus.context import Context
from bench.versus.rival_analyzer import row_name
from bench.versus.spent import CommandError, Spent, run, steady

OURS, SYNC, ASYNC = "model-analyzer", "perf_analyzer", "perf_analyzer --async"
MODEL, LARGE = "add_sub", "image"
RUN_TIMEOUT_S = 90.0


@dataclass(frozen=True, slots=True)
class Plan:
    """seconds: measured ones of a run, the same for every tool."""

    model: str
    sides: tuple[str, ...]
    concurrencies: tuple[int, ...]
    rounds: int
    seconds: float

    def settings(self) -> dict[str, Any]:
        """For the record."""
        return {"model": self.model, "rounds": self.rounds, "measured_seconds": self.seconds}


# Three rounds of the same code gave medians of 0.47 and 0.53 on one machine within a day.
COST = Plan(MODEL, (OURS, SYNC, ASYNC), (1, 8, 64), rounds=5, seconds=8.0)
PAYLOAD = Plan(LARGE, (OURS, SYNC), (1, 4), rounds=3, seconds=6.0)
QUICK_COST = Plan(MODEL, (OURS, SYNC, ASYNC), (1, 8), rounds=1, seconds=1.5)
QUICK_PAYLOAD = Plan(LARGE, (OURS, SYNC), (1,), rounds=1, seconds=1.5)


def cost(context: Context) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Small requests: settings, raw runs."""
    return measure(context, QUICK_COST if context.quick else COST)


def payload(context: Context) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Requests of 602 kB: settings, raw runs."""
    return measure(context, QUICK_PAYLOAD if context.quick else PAYLOAD)


def measure(context: Context, plan: Plan) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Settings and a record a run, in the order of the runs. A run that fails has its error in its record."""
    context.server.only(plan.model)
    records = []
    order = list(schedule(plan))
    for number, place in enumerate(order, 1):
        record = {**place, **_measured(context, plan, **place)}
        records.append(record)
        context.keep(record)
        what = record.get("error") or f"{record['cpu_us']:.0f} us CPU a request, {record['throughput']:.0f} infer/s"
        context.say(f"[{number}/{len(order)}] {place['protocol']} c={place['concurrency']} {place['side']}: {what}")
    return plan.settings(), records


def schedule(plan: Plan) -> Iterator[dict[str, Any]]:
    """Round by round, load by load, the tools at once after each other: A B C, then C B A."""
    for number in range(1, plan.rounds + 1):
        sides = plan.sides if number % 2 else plan.sides[::-1]
        for protocol in ("http", "grpc"):
            for concurrency in plan.concurrencies:
                for side in sides:
                    # No goal is set against it, and the time is better spent on the others.
                    if (protocol, side) == ("http", ASYNC) and number > 1:
                        continue
                    yield {"protocol": protocol, "concurrency": concurrency, "round": number, "side": side}


def _measured(context: Context, plan: Plan, protocol: str, concurrency: int, side: str, **_: Any) -> dict[str, Any]:
    run_one = _run_ours if side == OURS else _run_theirs
    server = context.server
    before, failed = server.count(plan.model), server.count(plan.model, "failure")
    start = quiet.mark(server.cpu_s())
    try:
        spent, said = run_one(context, plan, protocol, concurrency, side == ASYNC)
        requests = server.count(plan.model) - before
        if not requests:
            raise CommandError(f"{side}: the server counted no request")
    except (CommandError, OSError, ValueError, KeyError) as error:
        return {"error": f"{type(error).__name__}: {error}"}
    end = quiet.mark(server.cpu_s())
    level = steady(spent.samples)
    generator_s = spent.children_cpu_s if side == OURS else spent.cpu_s
    return {
        "wall_s": spent.wall_s,
        "cpu_s": spent.cpu_s,
        "kernel_s": spent.kernel_s,
        "requests": requests,
        "failed": server.count(plan.model, "failure") - failed,
        "cpu_us": spent.cpu_s / requests * 1e6,
        "kernel_us": spent.kernel_s / requests * 1e6,
        "generator_us": generator_s / requests * 1e6,
        "steady_us": level[0] if level else None,
        "server_per_s": level[1] if level else None,
        "others_cores": quiet.others(start, end, spent.cpu_s),
        **said,
    }


def _counter(context: Context, model: str) -> Callable[[], int]:
    return lambda: context.server.count(model)


def _run_ours(context: Context, plan: Plan, protocol: str, concurrency: int, _: bool) -> tuple[Spent, dict[str, Any]]:
    folder = fresh_folder(context)
    job = {
        **context.server.keys(),
        "reload_model_disable": True,
        "profile_models": [plan.model],
        "batch_sizes": [1],
        "concurrency": [concurrency],
        "client_protocol": protocol,
        "stop_rule": "fixed",
        "min_seconds": plan.seconds,
        "max_seconds": plan.seconds,
        "duration_seconds": 0.1,
        "export_path": str(folder),
    }
    file = folder / "job.yaml"
    file.write_text(yaml.safe_dump(job))
    spent = run(ours.command(file), folder / "log", RUN_TIMEOUT_S, _counter(context, plan.model))
    row = ours.read_store((folder / ours.STORE).read_text())[row_name(plan.model, 1, concurrency)]
    return spent, {name: row[name] for name in ("throughput", "p50_us", "p99_us")}


def _run_theirs(
    context: Context, plan: Plan, protocol: str, concurrency: int, asynchronous: bool
) -> tuple[Spent, dict[str, Any]]:
    folder = fresh_folder(context)
    report = folder / "report.csv"
    command = perf_analyzer.command(
        context.rivals.perf_analyzer, plan.model, protocol, context.server.address(protocol), concurrency, plan.seconds,
        report, asynchronous,
    )  # fmt: skip
    spent = run(command, folder / "log", RUN_TIMEOUT_S, _counter(context, plan.model))
    return spent, perf_analyzer.read_report(report.read_text())


def fresh_folder(context: Context) -> Path:
    """An empty one for a run."""
    folder = context.folder / f"run-{time.monotonic_ns()}"
    folder.mkdir()
    return folder
