"""How long the command takes until it answers: `--help`, `--version`, a plan, and what the heavy imports cost.

`python bench/startup.py [--runs N] [--only TEXT]` prints the best and the median of N runs, each in a process of its own. The best is
what the code costs; the median is what else the machine did.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

LIMIT_S = 0.3  # for --help
PLAN_LIMIT_S = 1.0
BATCHES = ",".join(str(2**n) for n in range(10))
LOADS = ",".join(map(str, range(1, 101)))
COMMAND = ["-m", "model_analyzer"]
# What python is called with. A command is called as its users call it: how it sets itself up and ends is a part of it.
CASES = {
    "python, nothing": ["-c", "pass"],
    "model-analyzer --help": [*COMMAND, "--help"],
    "model-analyzer --version": [*COMMAND, "--version"],
    "model-analyzer plan": [*COMMAND, "plan", "-n", "a", "-m", "/models", "-b", "1,4", "-c", "1,4"],
    "model-analyzer plan, 1,000 phases": [*COMMAND, "plan", "-n", "a", "-m", "/models", "-b", BATCHES, "-c", LOADS],
    "import model_analyzer.core.spec": ["-c", "import model_analyzer.core.spec"],
    "import model_analyzer.wire": ["-c", "import model_analyzer.wire"],
    "import pydantic": ["-c", "import pydantic"],
    "import numpy": ["-c", "import numpy"],
    "import yaml": ["-c", "import yaml"],
    "import rich.console": ["-c", "import rich.console"],
    "import tritonclient.http": ["-c", "import tritonclient.http"],
    "import tritonclient.grpc": ["-c", "import tritonclient.grpc"],
    "import kubernetes": ["-c", "import kubernetes"],
}


def seconds(arguments: Sequence[str]) -> float:
    """One run in a fresh interpreter, from its start to its end. Raises CalledProcessError where it fails."""
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, capture_output=True, cwd=folder)
        return time.perf_counter() - begin


# Case -> how a page names it, and its goal.
GOALS = {
    "model-analyzer --help": ("start-up: --help", LIMIT_S),
    "model-analyzer plan, 1,000 phases": ("start-up: plan of 1,000 phases", PLAN_LIMIT_S),
}


def measure(quick: bool = False) -> dict[str, Any]:
    """Medians of the cases that have a goal, in seconds; raw: every run of theirs."""
    raw = {name: [seconds(CASES[name]) for _ in range(2 if quick else 21)][1:] for name in GOALS}
    medians = {name: statistics.median(times) for name, times in raw.items()}
    figures = [
        {"name": shown, "value": medians[name], "unit": "s", "goal": goal, "met": medians[name] < goal}
        for name, (shown, goal) in GOALS.items()
    ]
    return {"figures": figures, "raw": raw}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--only", default="", help="cases whose name has this text")
    arguments = parser.parse_args()
    runs = arguments.runs
    best = {}
    print(f"{'':34}{'best':>8}{'median':>8}  (s, {runs} runs)")
    for name, called in CASES.items():
        if arguments.only not in name:
            continue
        try:
            times = [seconds(called) for _ in range(runs + 1)][1:]  # the first one compiles and fills the cache
        except subprocess.CalledProcessError as error:
            print(f"{name:34}  failed: {error.stderr.decode().strip().splitlines()[-1]}")
            continue
        best[name] = min(times)
        print(f"{name:34}{min(times):8.3f}{statistics.median(times):8.3f}")
    if best.get("model-analyzer --help", 0.0) > LIMIT_S:
        sys.exit(f"model-analyzer --help takes more than {LIMIT_S} s")


if __name__ == "__main__":
    main()
