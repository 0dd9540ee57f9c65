"""Run the benchmark beside the rivals and write its page: `python -m bench [PART ...]`, or `make bench`.

Parts: cost (CPU a request, throughput, p50 beside perf_analyzer), payload (the same with 602 kB requests), sweep (time and
repeatability beside Triton Model Analyzer), own (what has no rival). Parts that are not named keep their last results.
"""

from __future__ import annotations

import argparse
import compileall
import json
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

from bench.versus import page, quiet
from bench.versus.context import Context
from bench.versus.cost import cost, payload
from bench.versus.machine import machine, versions
from bench.versus.own import own
from bench.versus.rivals import RivalsError, install
from bench.versus.server import serving
from bench.versus.spent import CommandError
from bench.versus.sweep import sweep
from model_analyzer.errors import AnalyzerError

ROOT = Path(__file__).resolve().parent.parent
DOCS, QUICK = ROOT / "docs", ROOT / "results" / "bench-quick"
NAME = "benchmarks"
# The raw runs of a part that is not finished, a line each; it goes when the part is done.
UNFINISHED = f"{NAME}-unfinished.jsonl"
PARTS = {"cost": cost, "sweep": sweep, "payload": payload, "own": own}
NEEDS_MODEL_ANALYZER = {"sweep"}


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; default: all")
    parser.add_argument(
        "--quick", action="store_true", help="see that it works, in minutes; written to results/bench-quick"
    )
    parser.add_argument("--anyway", action="store_true", help="run beside other load; the page will say so")
    parser.add_argument("--output", type=Path, help=f"folder of {NAME}.json and {NAME}.md; default: docs")
    parser.add_argument("--render", action="store_true", help="write the page anew from the JSON, and measure nothing")
    given = parser.parse_args(arguments)
    if unknown := set(given.parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    folder = given.output or (QUICK if given.quick else DOCS)
    try:
        if given.render:
            save(folder, load(folder))
            return 0
        # As Ctrl-C: the server must not outlive us.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        return bench(
            [part for part in PARTS if part in given.parts or not given.parts], folder, given.quick, given.anyway
        )
    except (RivalsError, CommandError, AnalyzerError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        raw = folder / UNFINISHED
        runs = f"; the runs of the one that was not are in {raw}" if raw.exists() else ""
        print(f"interrupted; the parts that were finished are kept{runs}", file=sys.stderr)
        return 130


def bench(parts: Sequence[str], folder: Path, quick: bool, anyway: bool) -> int:
    """Run the parts one by one; each is saved when it is done."""
    minutes = sum(page.MINUTES[part] for part in parts)
    say(
        f"{', '.join(parts)}: {'a few minutes' if quick else f'about {minutes} minutes'} once the rivals are there; leave the machine alone"
    )
    # pip writes the bytecode of what it installs; a checkout may have none, and be told to write none.
    compileall.compile_dir(ROOT / "model_analyzer", quiet=1)
    rivals = install(say, bool(NEEDS_MODEL_ANALYZER & set(parts)))
    scratch = Path(tempfile.mkdtemp(prefix="model-analyzer-bench-"))
    kept = False
    try:
        for part in parts:
            before = quiet.watch()
            if (problem := before.problem()) is not None:
                if not anyway:
                    say(f"{part}: not run: {problem}; end it, or say --anyway (ANYWAY=1)")
                    return 1
                say(f"{part}: {problem}; run all the same, as asked")
            with serving(_fresh(scratch / part)) as server:
                context = Context(
                    server, rivals, scratch / part, partial(_say_of, part), quick, keeper(folder / UNFINISHED, part)
                )
                record = measured(part, context)
            record |= {"anyway": anyway, "load_before": before.to_json()}
            kept = kept or any("error" in run for run in record["runs"])
            document = load(folder)
            document["parts"][part] = record
            save(folder, document)
            (folder / UNFINISHED).unlink(missing_ok=True)
            say(f"{part}: done in {record['seconds'] / 60:.1f} minutes")
    finally:
        if kept:
            say(f"a run failed; all logs are kept in {scratch}")
        else:
            shutil.rmtree(scratch, ignore_errors=True)
    say(f"written: {folder / NAME}.md and .json")
    return 1 if kept else 0


def keeper(file: Path, part: str) -> Callable[[Mapping[str, Any]], None]:
    """What adds a run to a new file, with all that is known of the part so far."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.unlink(missing_ok=True)

    def keep(record: Mapping[str, Any]) -> None:
        with file.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps({"part": part, "at": round(time.time(), 1), **record}) + "\n")

    return keep


def measured(part: str, context: Context) -> dict[str, Any]:
    """Run one part; all that the page needs to know of it."""
    start = time.monotonic()
    taken = datetime.now(timezone.utc).isoformat(timespec="seconds")
    settings, runs = PARTS[part](context)
    return {
        "taken": taken,
        "seconds": round(time.monotonic() - start, 1),
        "quick": context.quick,
        "machine": machine(),
        "versions": {**versions(), **context.rivals.versions, "Triton": context.server.info.version},
        "settings": settings,
        "runs": runs,
    }


def load(folder: Path) -> dict[str, Any]:
    """The results that are there, or none."""
    file = folder / f"{NAME}.json"
    document: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {"format": 1, "parts": {}}
    if document.get("format") != 1:
        raise CommandError(f"{file}: is of another format; remove it")
    return document


def save(folder: Path, document: dict[str, Any]) -> None:
    """JSON and page, each replaced as a whole."""
    folder.mkdir(parents=True, exist_ok=True)
    for suffix, text in ((".json", json.dumps(document, indent=1) + "\n"), (".md", page.render(document))):
        fresh = folder / f".{NAME}{suffix}.new"
        fresh.write_text(text, encoding="utf-8")
        fresh.replace(folder / f"{NAME}{suffix}")


def _say_of(part: str, line: str) -> None:
    say(f"{part} {line}")


def say(line: str) -> None:
    """One line of progress."""
    print(f"{datetime.now():%H:%M:%S} {line}", file=sys.stderr, flush=True)


def _fresh(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


if __name__ == "__main__":
    sys.exit(main())
