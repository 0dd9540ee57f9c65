"""Command lines that cannot be understood: one line each, with a hint; and what Triton Model Analyzer's said."""

from __future__ import annotations

import re
from typing import Any

import typer

from model_analyzer.cli import original, said
from model_analyzer.errors import SpecError

# What typer raises for a command line that it cannot parse.
USAGE_ERROR: type[Exception] = typer.BadParameter.__mro__[1]
_HELP = "see `model-analyzer {command}-h`"
_GONE = {
    "analyze": "the tables are made by `profile`, and again by `tables`",
    "report": "the tables are made by `profile`, and again by `tables`",
    "run": "it is called `profile`",
    "check": "it is called `validate`",
}


def _perf_analyzers(flag: str) -> str | None:
    """What to do instead of a flag that is perf_analyzer's; None: it is not."""
    from model_analyzer.core.keys import PERF_FLAGS, PERF_FLAGS_WORK

    name = flag.removeprefix("--")
    if name in PERF_FLAGS_WORK:
        return f"it is perf_analyzer's: write it into a job spec, perf_analyzer_flags: {{{name}: ...}}"
    if name not in PERF_FLAGS:
        return None
    key = PERF_FLAGS[name]
    refused = f"not supported yet: {key.why}" if key.effect == "refused" else f"without effect: {key.why}"
    return f"it is perf_analyzer's, and {refused}; instead {key.instead}"


def without_mode(arguments: list[str]) -> list[str]:
    """The arguments without Triton Model Analyzer's global `-m online|offline`, which chose a preset of plots."""
    if len(arguments) > 1 and arguments[0] in ("-m", "--mode") and arguments[1] in ("online", "offline"):
        shown, rest = " ".join(arguments[:2]), arguments[2:]
    elif arguments and re.fullmatch(r"--mode=(online|offline)", arguments[0]):
        shown, rest = arguments[0], arguments[1:]
    else:
        return arguments
    if not rest or rest[0].startswith("-"):
        return arguments
    said.warning(f"{shown} has no effect: it chose a preset of plots; remove it")
    return rest


def plain(error: Any, arguments: list[str]) -> SpecError:
    """The error in the manner of all others: where, what, how to mend it."""
    from difflib import get_close_matches

    context = getattr(error, "ctx", None)
    command = context.command if context is not None else None
    name = arguments[0] if arguments and not arguments[0].startswith("-") and arguments[0] != original.NAME else ""
    seen = _HELP.format(command=f"{name} " if name else "")
    message = " ".join(error.format_message().split())
    if typo := re.search(r"^No such option:? '?(-[^\s'(]*)", message):
        flags = [flag for option in command.params if not option.hidden for flag in option.opts] if command else []
        # A letter too few of ours (--batch-size) is no flag of perf_analyzer's.
        slip, near = (get_close_matches(typo[1], flags, n=1, cutoff=cutoff) for cutoff in (0.9, 0.6))
        foreign = None if slip else _perf_analyzers(typo[1])
        fix = foreign or (f"did you mean {near[0]}?" if near else seen)
        return SpecError("command line", f"no such flag: {typo[1]}", fix)
    if typo := re.search(r"^No such command '?([^\s']*)'", message):
        known = [key for key, one in command.commands.items() if not one.hidden] if command else []
        near = get_close_matches(typo[1], known, n=1)
        fix = _GONE.get(typo[1]) or (f"did you mean {near[0]}?" if near else f"use one of {', '.join(known)}")
        return SpecError("command line", f"no such command: {typo[1]}", fix)
    if lone := re.search(r"^Option '?(-[^\s']*)'? requires", message):
        return SpecError(lone[1], "needs a value", seen)
    if re.search(r"unexpected extra argument", message):
        words = message.rpartition("(")[2].rstrip(").")
        return SpecError(
            "command line", f"{words} belongs to no flag", f"write lists without blanks, such as 1,4; {seen}"
        )
    return SpecError("command line", message.rstrip("."), seen)
