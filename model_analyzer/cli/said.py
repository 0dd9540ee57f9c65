"""What the program says beside its tables: warnings and errors on stderr, as text or as JSON, a line each."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import pairwise

from model_analyzer.adapters import termination
from model_analyzer.adapters.json_log import Level, write_line
from model_analyzer.errors import AnalyzerError

_FLAG = "--log-format"
_as_json = False


def choose(as_json: bool) -> None:
    """Speak JSON from now on, or text: as a logging configuration, it belongs to the process."""
    global _as_json
    _as_json = as_json


def wants_json(arguments: Sequence[str]) -> bool:
    """Whether a command line asks for JSON: known before it is parsed, so that its own faults are JSON, too."""
    return f"{_FLAG}=json" in arguments or (_FLAG, "json") in pairwise(arguments)


def warning(message: object) -> None:
    """Say what has no effect, or another than one would think."""
    if _as_json:
        write_line("warning", str(message), "warning")
    else:
        print(f"warning: {message}", file=sys.stderr)


def check(status: str, name: str, text: str) -> None:
    """Say what a check of `doctor` found, on stdout."""
    if _as_json:
        levels: dict[str, Level] = {"FAIL": "error", "warn": "warning"}
        level = levels.get(status, "info")
        write_line("check", f"{name}: {text}", level, {"status": status, "check": name}, sys.stdout)
    else:
        print(f"{status:<4} {name}: {text}")


def error(error: AnalyzerError) -> int:
    """Say a line a fault, in the pod's termination message, too; the exit code."""
    for fault in error.faults:
        if _as_json:
            write_line("error", str(fault), "error", {"where": fault.where, "exit_code": error.exit_code})
        else:
            print(f"error: {fault}", file=sys.stderr)
    termination.leave(f"error: {fault}" for fault in error.faults)
    return error.exit_code
